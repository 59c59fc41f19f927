"""Images that are unlike most: from a tree in either form, through the store, out of a real nginx."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from scr_watchd.oci.manifest import MANIFEST_BYTES
from tests.nginxes import binaries
from tests.render.site import serving, stored
from tests.trees import OCI_MANIFEST, Built, descriptor, digest_of, image, index, write_image, write_layout

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"


def built(config: tuple[bytes, str], *layers: tuple[bytes, str], absent: str = "", **extra: object) -> Built:
    """An image of these contents with their types; layers of the type ``absent`` are not there."""
    descriptors = [descriptor(content, kind) for content, kind in layers]
    for each in descriptors:
        if each["mediaType"] == absent:
            each["urls"] = ["https://example.com/layer"]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(*config),
        "layers": descriptors,
        **extra,
    }
    contents = [config[0], *(content for content, kind in layers if kind != absent)]
    files = {digest_of(content)[7:]: content for content in contents}
    return Built(json.dumps(document).encode(), OCI_MANIFEST, files)


ODD = {
    "zstd": built((b'{"a": 1}', CONFIG), (b"\x28\xb5\x2f\xfd zstd", f"{LAYER}+zstd")),
    "foreign": built((b'{"a": 2}', CONFIG), (b"elsewhere", FOREIGN), (b"here", LAYER), absent=FOREIGN),
    "foreign-that-is-there": built((b'{"a": 3}', CONFIG), (b"not elsewhere", FOREIGN)),
    "no-layers": built((b'{"a": 4}', CONFIG)),
    "zero-bytes": built((b'{"a": 5}', CONFIG), (b"", LAYER)),
    "all-zero-bytes": built((b"", CONFIG), (b"", LAYER), (b"", LAYER)),
    "four-mebibytes": Built(image("4").raw.ljust(MANIFEST_BYTES), OCI_MANIFEST, image("4").files),
    "artifact": built((b"{}", EMPTY), (b"{}", EMPTY), artifactType="application/vnd.example.sbom"),
    "chart": built((b'{"name": "chart"}', "application/vnd.cncf.helm.config.v1+json"), (b"tgz", "x/y")),
    "nested": index(index(image("amd64"), image("arm64")), image("attestation")),
    "nothing-in-it": index(),
}


def drop(root: Path, form: str, images: Mapping[str, Built]) -> None:
    if form == "layout":
        write_layout(root / "odd", *images.items())
    for tag, content in images.items():
        if form == "directory":
            write_image(root / f"odd:{tag}", content)
        if form == "layout of one":
            write_layout(root / f"odd:{tag}", (None, content))


@pytest.mark.parametrize("program", binaries())
@pytest.mark.parametrize("form", ["directory", "layout", "layout of one"])
def test_odd_images_are_served_byte_for_byte(tmp_path: Path, form: str, program: object) -> None:
    assert callable(program)
    root, store = tmp_path / "images", tmp_path / "store"
    drop(root, form, ODD)
    with serving(stored(root, store), store=store, program=program()) as site:
        for tag, content in ODD.items():
            by_tag = site.get(f"/v2/odd/manifests/{tag}")
            assert (by_tag.status, by_tag.body == content.raw) == (200, True), tag
            assert by_tag.header("docker-content-digest") == content.digest
            assert by_tag.header("content-type") == content.media_type
            for digest, raw in content.manifests.items():
                assert site.get(f"/v2/odd/manifests/{digest}").body == raw, tag
            for digest, raw in content.blobs.items():
                answer = site.get(f"/v2/odd/blobs/{digest}")
                assert (answer.status, answer.body) == (200, raw), tag
                assert answer.header("content-length") == str(len(raw))
        assert site.get(f"/v2/odd/blobs/{digest_of(b'elsewhere')}").status == 404
        assert site.complaints() == []
