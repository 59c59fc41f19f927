"""What clients are answered, as DESIGN's HTTP contract has it, by a real nginx: once with nothing around
the registry, once in a site whose own settings would spoil it and whose `map` comes before ours."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from hashlib import sha512
from itertools import product
from pathlib import Path

import pytest

from scr_watchd.oci.catalog import Catalog, Repository
from scr_watchd.oci.manifest import MediaType
from scr_watchd.oci.names import Digest, RepositoryName
from scr_watchd.render.http_conf import initial
from tests.http import Response
from tests.nginxes import binaries, nginx_with
from tests.render.site import (
    AFTER_ANOTHER_MAP,
    OURS,
    Site,
    catalog_with,
    exchange,
    serving,
    site,
    spellings,
    store_of,
    stored,
)
from tests.trees import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Built,
    digest_of,
    image,
    index,
    make_images,
)

NO_BLOB = f"sha256:{'0' * 64}"
NO_REFERENCE = "/v2/alpine/manifests/sha256:malformed"
NO_SHA512 = f"sha512:{'0' * 128}"
COSIGN = f"sha256-{'a1' * 32}.sig"
KEYWORDS = ("default", "include", "volatile", "hostnames")

# Names that are one another's beginnings. nginx finds the long ones in pieces of 38 characters.
LONGEST_NAME = ("long/" * 51)[:254] + "x"
NAME_LENGTHS = (45, 46, 47, 77, 114, 200, 255)
LONG_NAMES = [LONGEST_NAME[: length - 1] + "x" for length in NAME_LENGTHS]
LONGEST_TAG = ("Abc_" * 32)[:128]
LONG_TAGS = [LONGEST_TAG[:length] for length in (40, 41, 75, 76, 77, 114, 115, 127, 128)]

ALPINE = image("alpine")
DOCKER = image("docker", media_type=DOCKER_MANIFEST)
BARE = image("bare", media_type=None)
MULTI = index(image("amd64"), image("arm64"))
DOCKER_MULTI = index(DOCKER, media_type=DOCKER_LIST)
NESTED = index(index(image("deep")), image("shallow"))
BARE_INDEX = index(image("child"), media_type=None)
DIGEST_ONLY = image("digest only")


def with_sha512_layer() -> Built:
    content = b"a layer that its manifest names by sha512"
    name = sha512(content).hexdigest()
    layer = {"mediaType": "application/x", "digest": f"sha512:{name}", "size": len(content)}
    built = image("sha512", layers=0, layers_=[layer])
    raw = built.raw.replace(b'"layers": [], "layers_"', b'"layers"')
    return replace(built, raw=raw, files={**built.files, name: content})


SHA512 = with_sha512_layer()

TREE: dict[str, dict[str, Built]] = {
    "alpine": {
        "3.20": ALPINE,
        "docker": DOCKER,
        "bare": BARE,
        "RC1": image("upper"),
        "rc1": image("lower"),
        COSIGN: image("signature"),
        COSIGN.replace(".sig", ".SIG"): image("another signature"),
        **{tag: image(f"long {tag}") for tag in LONG_TAGS},
        LONGEST_TAG.upper(): image("long and upper case"),
        LONGEST_TAG[:40].upper(): image("of forty and upper case"),
        **{word: image(word) for word in KEYWORDS},
    },
    "multi": {"oci": MULTI, "docker": DOCKER_MULTI, "nested": NESTED, "bare": BARE_INDEX},
    "a/b/c/d": {"1": image("deep in the tree")},
    "x/blobs/manifests/tags": {"list": image("named like an endpoint")},
    "sha512": {"1": SHA512},
    **{word: {word: image(f"{word} of {word}")} for word in KEYWORDS},
    **{name: {"1": image(f"name {len(name)}")} for name in LONG_NAMES},
}

# Settings that a site may well have for its own pages.
SITE_HTTP = f"gzip on; gzip_types *; gzip_min_length 0; {AFTER_ANOTHER_MAP}"
SITE_SERVER = """
    charset utf-8; charset_types *; default_type text/html; types { text/html sig; }
    expires 30d; etag off; if_modified_since off; add_header X-Site everywhere always;
    client_max_body_size 1k; autoindex on; index manifest.json; root /;
    error_page 400 401 403 404 405 412 416 500 503 /error.html; recursive_error_pages on;
    location = /error.html { internal; return 200 "a page of the site"; }
    include server.conf;
"""


@pytest.fixture(
    scope="module",
    params=[(OURS, "include server.conf;"), (SITE_HTTP, SITE_SERVER)],
    ids=["alone", "in a site"],
)
def surroundings(request: pytest.FixtureRequest) -> tuple[str, str]:
    http, server = request.param
    return http, server


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, program: str, surroundings: tuple[str, str]
) -> Iterator[Site]:
    http, server = surroundings
    with site(tmp_path_factory.mktemp("site"), TREE, program=program, http=http, server=server) as running:
        yield running
        assert not running.complaints()


def headers(response: Response) -> dict[str, str]:
    """All headers but those that say nothing about us; none may be there twice."""
    names = [name for name, _ in response.headers]
    assert len({name.lower() for name in names}) == len(names), names
    return {name: value for name, value in response.headers if name not in ("Date", "Server", "Connection")}


def error_headers(response: Response, *, allow: bool = False) -> dict[str, str]:
    """The headers that an error must have."""
    return {
        "Content-Type": "application/json",
        "Content-Length": str(len(response.body)),
        "Docker-Distribution-Api-Version": "registry/2.0",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
        **({"Allow": "GET, HEAD"} if allow else {}),
    }


def file_headers(file: Path, media_type: str, digest: str, cached: str) -> dict[str, str]:
    """The headers that the answer with ``file`` must have."""
    status = file.stat()
    return {
        "Content-Type": media_type,
        "Content-Length": str(status.st_size),
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "ETag": f'"{int(status.st_mtime):x}-{status.st_size:x}"',
        "Docker-Distribution-Api-Version": "registry/2.0",
        "X-Content-Type-Options": "nosniff",
        "Docker-Content-Digest": digest,
        "Cache-Control": cached,
    }


FOREVER = "public, max-age=31536000, immutable"


def manifest_file(registry: Site, digest: str) -> Path:
    return manifest_path(registry.store, digest)


def manifest_path(store: Path, digest: str) -> Path:
    return store / ".manifests" / "sha256" / digest[7:]


def blob_file(registry: Site, name: str, digest: str) -> Path:
    algorithm, _, hexadecimal = digest.partition(":")
    return registry.store / name / ".blobs" / algorithm / hexadecimal


# -- the endpoints that are no files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "document", "cached"),
    [
        ("/v2/", {}, None),
        ("/v2/?ns=docker.io", {}, None),
        ("/v2/multi/tags/list", {"name": "multi", "tags": ["bare", "docker", "nested", "oci"]}, "no-cache"),
        ("/v2/alpine/tags/list", {"name": "alpine", "tags": sorted(TREE["alpine"])}, "no-cache"),
        (f"/v2/{LONGEST_NAME}/tags/list", {"name": LONGEST_NAME, "tags": ["1"]}, "no-cache"),
        ("/v2/_catalog", {"repositories": sorted(TREE)}, "no-cache"),
    ],
)
def test_lists_are_json_in_ascii_order(
    registry: Site, path: str, document: object, cached: str | None
) -> None:
    answer = registry.get(path)
    assert (answer.status, answer.json()) == (200, document)
    expected = error_headers(answer) | {"Cache-Control": cached or ""}
    assert headers(answer) == {name: value for name, value in expected.items() if value}


def test_the_generation_can_be_asked_for(registry: Site) -> None:
    answer = registry.get("/v2/_scr/generation")
    assert (answer.status, answer.json()) == (200, {"generation": registry.rendered.id})
    assert headers(answer) == error_headers(answer) | {"Cache-Control": "no-store"}


def test_the_way_to_the_slash_is_relative_and_needs_no_host(registry: Site) -> None:
    """Behind a proxy nginx knows neither the scheme nor the port that the client used."""
    answer = registry.get("/v2")
    assert answer.status == 301
    assert headers(answer) == {
        "Content-Type": "text/html",
        "Content-Length": str(len(answer.body)),
        "Location": "/v2/",
        "Docker-Distribution-Api-Version": "registry/2.0",
        "X-Content-Type-Options": "nosniff",
    }


def test_a_closed_catalog_is_no_endpoint(program: str, surroundings: tuple[str, str]) -> None:
    http, server = surroundings
    catalog = catalog_with([("secret", "1", b"")])
    with serving(catalog, program=program, http=http, server=server, list_repositories=False) as running:
        answer = running.get("/v2/_catalog")
        assert (answer.status, answer.code) == (404, "UNSUPPORTED")
        assert b"secret" not in answer.body
        assert running.get("/v2/secret/tags/list").json()["tags"] == ["1"]
        assert not running.complaints()


def test_an_empty_tree_has_empty_lists(program: str, surroundings: tuple[str, str]) -> None:
    http, server = surroundings
    with serving(Catalog(), program=program, http=http, server=server) as running:
        assert running.get("/v2/_catalog").json() == {"repositories": []}
        assert running.get("/v2/any/tags/list").code == "NAME_UNKNOWN"


# -- manifests -------------------------------------------------------------------------------------


def tags() -> list[tuple[str, str, Built]]:
    return [(name, tag, built) for name, images in TREE.items() for tag, built in images.items()]


@pytest.mark.parametrize(
    ("name", "tag", "media_type"),
    [
        pytest.param("alpine", "3.20", OCI_MANIFEST, id="an OCI manifest"),
        pytest.param("alpine", "docker", DOCKER_MANIFEST, id="a Docker manifest"),
        pytest.param("alpine", "bare", OCI_MANIFEST, id="a manifest without mediaType"),
        pytest.param("multi", "oci", OCI_INDEX, id="an OCI index"),
        pytest.param("multi", "docker", DOCKER_LIST, id="a Docker list"),
        pytest.param("multi", "bare", OCI_INDEX, id="an index without mediaType"),
        pytest.param("alpine", COSIGN, OCI_MANIFEST, id="a cosign tag"),
    ],
)
def test_a_manifest_has_its_own_type_by_tag_and_by_digest(
    registry: Site, name: str, tag: str, media_type: str
) -> None:
    built = TREE[name][tag]
    file = manifest_file(registry, built.digest)
    for reference, cached in ((tag, "no-cache"), (built.digest, FOREVER)):
        answer = registry.get(f"/v2/{name}/manifests/{reference}")
        assert (answer.status, answer.body) == (200, built.raw)
        assert headers(answer) == file_headers(file, media_type, built.digest, cached)


def test_every_tag_and_every_child_of_an_index_is_there(registry: Site) -> None:
    for name, tag, built in tags():
        assert registry.get(f"/v2/{name}/manifests/{tag}").body == built.raw, (name, tag)
        for digest, raw in built.manifests.items():
            answer = registry.get(f"/v2/{name}/manifests/{digest}")
            assert (answer.body, answer.header("Docker-Content-Digest")) == (raw, digest), (name, tag)


def test_children_of_nested_indexes_have_the_type_that_they_are(registry: Site) -> None:
    inner = index(image("deep"))
    for digest, media_type in ((inner.digest, OCI_INDEX), (image("deep").digest, OCI_MANIFEST)):
        assert registry.get(f"/v2/multi/manifests/{digest}").header("Content-Type") == media_type


@pytest.mark.parametrize(
    "tag",
    [
        "Rc1",
        "rC1",
        "3.2",
        "3.200",
        "Default",
        COSIGN.replace(".sig", ".Sig"),
        LONGEST_TAG.lower(),
        LONGEST_TAG[:38],
        LONGEST_TAG[:39],
        LONGEST_TAG[:42],
        LONGEST_TAG[:126],
        LONGEST_TAG[:76].lower(),
        LONGEST_TAG[:40].lower(),
        LONGEST_TAG[:75] + "x",
    ],
)
def test_a_tag_is_known_only_as_it_is_spelled(registry: Site, tag: str) -> None:
    """nginx's maps ignore case, and find long keys piece by piece."""
    answer = registry.get(f"/v2/alpine/manifests/{tag}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    "name",
    [
        *(LONGEST_NAME[:length] for length in (38, 39, 44, 76, 78, 152)),
        LONGEST_NAME[:253] + "y",
        LONGEST_NAME[:46] + "y",
        "alpin",
        "alpinee",
        "a/b/c",
        "a/b",
        "b/c/d",
        "x/blobs",
        "x",
        "defaul",
    ],
)
def test_a_part_of_a_name_is_no_name(registry: Site, name: str) -> None:
    name = name.rstrip("/")
    for path in ("tags/list", "manifests/1", f"manifests/{ALPINE.digest}", f"blobs/{NO_BLOB}"):
        answer = registry.get(f"/v2/{name}/{path}")
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN"), path


# -- blobs -----------------------------------------------------------------------------------------


def test_a_blob_has_exactly_these_headers(registry: Site) -> None:
    for digest, content in ALPINE.blobs.items():
        answer = registry.get(f"/v2/alpine/blobs/{digest}")
        assert (answer.status, answer.body) == (200, content)
        file = blob_file(registry, "alpine", digest)
        assert headers(answer) == {
            **file_headers(file, "application/octet-stream", digest, FOREVER),
            "Accept-Ranges": "bytes",
        }


def test_every_blob_of_every_image_is_there(registry: Site) -> None:
    for name, images in TREE.items():
        for digest, content in {d: c for built in images.values() for d, c in built.blobs.items()}.items():
            if len(digest) == len(NO_BLOB):
                assert registry.get(f"/v2/{name}/blobs/{digest}").body == content, name


def test_a_layer_may_be_named_by_sha512(registry: Site) -> None:
    digest = f"sha512:{sha512(b'a layer that its manifest names by sha512').hexdigest()}"
    answer = registry.get(f"/v2/sha512/blobs/{digest}")
    assert answer.status == 200
    assert answer.header("Docker-Content-Digest") == digest
    assert f"sha512:{sha512(answer.body).hexdigest()}" == digest


def test_a_blob_belongs_to_its_repository_only(registry: Site) -> None:
    for name in ("multi", "a/b/c/d", LONGEST_NAME):
        answer = registry.get(f"/v2/{name}/blobs/{next(iter(ALPINE.blobs))}")
        assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


def test_a_manifest_is_no_blob_and_a_blob_is_no_manifest(registry: Site) -> None:
    """A manifest that is served as a blob leaves the wrong type in containerd's store."""
    assert registry.get(f"/v2/alpine/blobs/{ALPINE.digest}").code == "BLOB_UNKNOWN"
    assert registry.get(f"/v2/alpine/manifests/{next(iter(ALPINE.blobs))}").code == "MANIFEST_UNKNOWN"


def test_a_manifest_belongs_to_its_repository_only(registry: Site) -> None:
    assert registry.get(f"/v2/multi/manifests/{ALPINE.digest}").code == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("digest_end", ["0" * 32, "f" * 32])
def test_half_a_digest_is_no_digest(registry: Site, digest_end: str) -> None:
    """A manifest is looked up by the first half of its digest."""
    answer = registry.get(f"/v2/alpine/manifests/{ALPINE.digest[:-32]}{digest_end}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


def test_digests_that_begin_alike_are_told_apart(tmp_path: Path, program: str) -> None:
    """Nobody will ever find two, so their files are forged."""
    mine, also_mine, other = (Digest(f"sha256:{'a' * 32}{end * 32}") for end in "bcd")
    for digest in (mine, also_mine, other):
        store_of(tmp_path, [digest.encode()])
        manifest_path(tmp_path, digest_of(digest.encode())).rename(manifest_path(tmp_path, digest))
    catalog = Catalog(
        (
            Repository(
                RepositoryName("mine"),
                {},
                {mine: MediaType.DOCKER_LIST, also_mine: MediaType.OCI_INDEX},
            ),
            Repository(RepositoryName("other"), {}, {other: MediaType.OCI_MANIFEST}),
        )
    )
    with serving(catalog, store=tmp_path, program=program) as running:
        assert running.get(f"/v2/mine/manifests/{mine}").header("Content-Type") == DOCKER_LIST
        assert running.get(f"/v2/mine/manifests/{also_mine}").header("Content-Type") == OCI_INDEX
        assert running.get(f"/v2/mine/manifests/{other}").code == "MANIFEST_UNKNOWN"
        assert running.get(f"/v2/other/manifests/{mine}").code == "MANIFEST_UNKNOWN"


def test_what_the_store_has_and_the_catalog_has_not_is_unknown(tmp_path: Path, program: str) -> None:
    """The store is cleared after the reload: what it still has then must not be served."""
    stored(make_images(tmp_path / "images", {"gone": {"1": ALPINE}}), tmp_path / "store")
    catalog = catalog_with([("here", "1", b"")])
    with serving(catalog, store=tmp_path / "store", program=program) as running:
        for name in ("gone", "here"):
            code = "NAME_UNKNOWN" if name == "gone" else "BLOB_UNKNOWN"
            assert running.get(f"/v2/{name}/blobs/{next(iter(ALPINE.blobs))}").code == code
            assert running.get(f"/v2/{name}/manifests/{ALPINE.digest}").status == 404


# -- conditions, ranges and encodings --------------------------------------------------------------


def kinds_of_files() -> list[str]:
    return [
        "/v2/alpine/manifests/3.20",
        f"/v2/alpine/manifests/{ALPINE.digest}",
        f"/v2/alpine/blobs/{next(iter(ALPINE.blobs))}",
    ]


@pytest.mark.parametrize("path", kinds_of_files(), ids=["tag", "manifest", "blob"])
def test_what_a_client_has_already_is_not_sent_again(registry: Site, path: str) -> None:
    full = headers(registry.get(path))
    answer = registry.get(path, If_None_Match=full["ETag"])
    assert (answer.status, answer.body) == (304, b"")
    for name in ("Content-Type", "Content-Length", "Accept-Ranges"):
        full.pop(name, None)
    assert headers(answer) == full
    assert registry.get(path, If_None_Match='"0-0"').status == 200
    assert registry.get(path, If_Modified_Since=full["Last-Modified"]).status == 304
    assert registry.get(path, If_Modified_Since=formatdate(0, usegmt=True)).status == 200


@pytest.mark.parametrize("path", kinds_of_files(), ids=["tag", "manifest", "blob"])
def test_a_precondition_that_does_not_hold_is_said_in_json(registry: Site, path: str) -> None:
    answer = registry.get(path, If_Match='"0-0"')
    assert (answer.status, answer.code) == (412, "UNKNOWN")
    assert headers(answer) == error_headers(answer)


def test_manifests_of_equal_size_have_different_etags(registry: Site) -> None:
    """nginx makes an ETag from time and size: the stored copy's time comes from its digest."""
    etags = {
        (answer := registry.get(f"/v2/{name}/manifests/{tag}")).header("Content-Length"): set[str | None]()
        for name, tag, _ in tags()
    }
    seen = {built.digest for _, _, built in tags()}
    for digest in seen:
        name = next(name for name, _, built in tags() if built.digest == digest)
        answer = registry.get(f"/v2/{name}/manifests/{digest}")
        etags[answer.header("Content-Length")].add(answer.header("ETag"))
    assert sum(map(len, etags.values())) == len(seen)
    assert any(len(each) > 1 for each in etags.values()), "no two manifests have the same size"


def test_part_of_a_blob_can_be_asked_for(registry: Site) -> None:
    digest, content = next(iter(ALPINE.blobs.items()))
    whole = registry.get(f"/v2/alpine/blobs/{digest}")
    answer = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=3-9")
    assert (answer.status, answer.body) == (206, content[3:10])
    expected = headers(whole) | {"Content-Length": "7", "Content-Range": f"bytes 3-9/{len(content)}"}
    del expected["Accept-Ranges"]
    assert headers(answer) == expected


def test_several_parts_of_a_blob_can_be_asked_for_at_once(registry: Site) -> None:
    digest, content = next(iter(ALPINE.blobs.items()))
    answer = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=0-1,4-6")
    kind = headers(answer)["Content-Type"]
    assert answer.status == 206
    assert kind.startswith("multipart/byteranges; boundary=")
    parts = answer.body.split(f"--{kind.partition('boundary=')[2]}".encode())[1:-1]
    assert [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts] == [
        content[0:2],
        content[4:7],
    ]
    for part in parts:
        assert part.count(b"Content-Type: application/octet-stream\r\n") == 1


def test_a_range_beyond_the_end_is_said_in_json(registry: Site) -> None:
    digest, content = next(iter(ALPINE.blobs.items()))
    answer = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=9999-")
    assert (answer.status, answer.code) == (416, "SIZE_INVALID")
    found = headers(answer)
    assert found["Content-Type"] == "application/json"
    assert found["Content-Range"] == f"bytes */{len(content)}"
    assert found["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_a_resumed_download_goes_on_only_if_the_blob_is_the_same(registry: Site) -> None:
    digest, content = next(iter(ALPINE.blobs.items()))
    etag = registry.get(f"/v2/alpine/blobs/{digest}").header("ETag") or ""
    same = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=5-", If_Range=etag)
    other = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=5-", If_Range='"0-0"')
    assert (same.status, same.body) == (206, content[5:])
    assert (other.status, other.body) == (200, content)


@pytest.mark.parametrize("wanted", ["bytes=1-2", "bytes=1-2,4-5", "bytes=9999-"])
def test_a_manifest_is_always_sent_whole(registry: Site, wanted: str) -> None:
    """nginx would give the 416 of a manifest two Content-Types."""
    for path in kinds_of_files()[:2]:
        answer = registry.get(path, Range=wanted)
        assert (answer.status, answer.body) == (200, ALPINE.raw)
        assert "Accept-Ranges" not in headers(answer)


def test_content_is_never_compressed(registry: Site) -> None:
    for path in kinds_of_files():
        assert headers(registry.get(path, Accept_Encoding="gzip, br, zstd")) == headers(registry.get(path))


def endpoints() -> list[str]:
    return [
        "/v2/",
        "/v2",
        "/v2/_catalog",
        "/v2/_scr/generation",
        "/v2/alpine/tags/list",
        *kinds_of_files(),
        "/v2/unknown/tags/list",
        "/v2/unknown/manifests/1",
        "/v2/alpine/manifests/unknown",
        f"/v2/alpine/blobs/{NO_BLOB}",
        "/v2/alpine/blobs/malformed",
        NO_REFERENCE,
        "/v2/UPPER/tags/list",
        "/v2/no/such/endpoint",
    ]


@pytest.mark.parametrize("path", endpoints())
def test_head_is_get_without_the_body(registry: Site, path: str) -> None:
    get = registry.get(path)
    head = exchange(
        registry.nginx, f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    lines, _, body = head.partition(b"\r\n\r\n")
    status, *fields = lines.decode().split("\r\n")
    assert body == b""
    assert status.split()[1] == str(get.status)
    found = dict(field.split(": ", 1) for field in fields)
    assert len(found) == len(fields)
    assert headers(Response(get.status, tuple(found.items()), b"")) == headers(get)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/unknown/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/unknown/manifests/latest", 404, "NAME_UNKNOWN"),
        (f"/v2/unknown/manifests/{NO_BLOB}", 404, "NAME_UNKNOWN"),
        (f"/v2/unknown/blobs/{NO_BLOB}", 404, "NAME_UNKNOWN"),
        (f"/v2/{'a' * 255}/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/alpine/manifests/unknown", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/manifests/{'t' * 128}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/manifests/{'t' * 129}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/alpine/manifests/-not-a-tag", 404, "MANIFEST_UNKNOWN"),
        ("/v2/alpine/manifests/not%20a%20tag", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/manifests/{NO_BLOB}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/manifests/{NO_SHA512}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/blobs/{NO_BLOB}", 404, "BLOB_UNKNOWN"),
        (f"/v2/alpine/blobs/{NO_SHA512}", 404, "BLOB_UNKNOWN"),
        ("/v2/Alpine/tags/list", 400, "NAME_INVALID"),
        ("/v2/ALPINE/manifests/3.20", 400, "NAME_INVALID"),
        ("/v2/-alpine/manifests/3.20", 400, "NAME_INVALID"),
        ("/v2/al..pine/manifests/3.20", 400, "NAME_INVALID"),
        ("/v2/al___pine/manifests/3.20", 400, "NAME_INVALID"),
        ("/v2/alpine%0a/manifests/3.20", 404, "UNSUPPORTED"),
        ("/v2/alpine%22/tags/list", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 256}/tags/list", 400, "NAME_INVALID"),
        (f"/v2/Alpine/blobs/{NO_BLOB}", 400, "NAME_INVALID"),
        (f"/v2/Alpine/manifests/{NO_SHA512}", 400, "NAME_INVALID"),
        ("/v2/Alpine/blobs/sha256:0", 400, "NAME_INVALID"),
        ("/v2/alpine/blobs/sha256:0", 400, "DIGEST_INVALID"),
        ("/v2/unknown/blobs/sha256:0", 400, "DIGEST_INVALID"),
        ("/v2/alpine/blobs/latest", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/blobs/{NO_BLOB}0", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/blobs/{NO_BLOB.replace('0', 'A')}", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/blobs/sha256:{'0' * 128}", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/blobs/sha512:{'0' * 64}", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/blobs/md5:{'0' * 32}", 400, "DIGEST_INVALID"),
        ("/v2/alpine/manifests/sha256:0", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/manifests/sha256:{'0' * 128}", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/manifests/{NO_BLOB}:", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/manifests/{ALPINE.digest.upper()}", 400, "DIGEST_INVALID"),
        ("/v2/alpine", 404, "UNSUPPORTED"),
        ("/v2/alpine/", 404, "UNSUPPORTED"),
        ("/v2/alpine/manifests/", 404, "UNSUPPORTED"),
        ("/v2/alpine/tags/list/", 404, "UNSUPPORTED"),
        ("/v2/manifests/latest", 404, "UNSUPPORTED"),
        ("/v2/tags/list", 404, "UNSUPPORTED"),
        ("/v2/_catalog/", 404, "UNSUPPORTED"),
        ("/v2/_scr/", 404, "UNSUPPORTED"),
        ("/v2/%22%5c%0a/", 404, "UNSUPPORTED"),
    ],
)
def test_errors_are_those_of_the_specification(registry: Site, path: str, status: int, code: str) -> None:
    answer = registry.get(path)
    assert (answer.status, answer.code) == (status, code)
    assert headers(answer) == error_headers(answer)


def test_the_connection_stays_open_after_an_error(registry: Site) -> None:
    requests = [
        "GET /v2/Alpine/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/alpine/manifests/unknown HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    answers = exchange(registry.nginx, "".join(requests).encode())
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"400", b"404", b"200"]


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "X"])
def test_nothing_can_be_pushed(registry: Site, method: str) -> None:
    """A push of any size gets an answer that its client can show."""
    uploads = ("/v2/alpine/blobs/uploads/", f"/v2/new/blobs/uploads/?mount={NO_BLOB}")
    for path in (*endpoints(), *uploads):
        if path == NO_REFERENCE:
            continue  # see test_conformance.py
        answer = registry.get(path, method=method, body=b"x" * 3_000_000 if method != "X" else b"")
        assert (answer.status, answer.code) == (405, "UNSUPPORTED"), path
        assert headers(answer) == error_headers(answer, allow=True), path
        assert "skopeo copy" in answer.json()["errors"][0]["message"]


def test_a_file_that_vanished_is_not_found(
    tmp_path: Path, program: str, surroundings: tuple[str, str]
) -> None:
    http, server = surroundings
    with site(tmp_path, {"alpine": {"1": ALPINE}}, program=program, http=http, server=server) as running:
        digest = next(iter(ALPINE.blobs))
        blob_file(running, "alpine", digest).unlink()
        manifest_file(running, ALPINE.digest).unlink()
        assert running.get(f"/v2/alpine/blobs/{digest}").code == "BLOB_UNKNOWN"
        assert running.get("/v2/alpine/manifests/1").code == "MANIFEST_UNKNOWN"
        assert running.get(f"/v2/alpine/manifests/{ALPINE.digest}").code == "MANIFEST_UNKNOWN"


def test_a_directory_in_the_place_of_a_file_is_an_error_and_no_list(
    tmp_path: Path, program: str, surroundings: tuple[str, str]
) -> None:
    http, server = surroundings
    with site(tmp_path, {"alpine": {"1": ALPINE}}, program=program, http=http, server=server) as running:
        file = blob_file(running, "alpine", next(iter(ALPINE.blobs)))
        file.unlink()
        file.mkdir()
        (file / "manifest.json").write_text("private")
        answer = running.get(f"/v2/alpine/blobs/{next(iter(ALPINE.blobs))}")
        assert b"private" not in answer.body
        assert answer.status != 200


def test_too_many_requests_are_said_with_the_status_of_the_site(program: str) -> None:
    http = f"limit_req_zone $scheme zone=few:1m rate=1r/m; {OURS}"
    for status in (429, 503):
        server = f"limit_req zone=few; limit_req_status {status}; include server.conf;"
        with serving(
            catalog_with([("alpine", "1", b"")]), program=program, http=http, server=server
        ) as running:
            answers = [running.get("/v2/alpine/tags/list") for _ in range(3)]
            assert answers[-1].status == status
            assert answers[-1].code == "TOOMANYREQUESTS"
            assert headers(answers[-1]) == error_headers(answers[-1])


# -- other spellings of a URL ----------------------------------------------------------------------


@pytest.mark.parametrize("path", kinds_of_files(), ids=["tag", "manifest", "blob"])
def test_every_spelling_of_a_url_has_the_same_answer(registry: Site, path: str) -> None:
    plain = registry.get(path)
    for spelling in spellings(path):
        answer = registry.get(spelling)
        assert (answer.status, answer.body, headers(answer)) == (200, plain.body, headers(plain)), spelling


@pytest.mark.parametrize(
    "path",
    [
        "/v2/alpine/../multi/manifests/3.20",
        "/v2/alpine/%2e%2e/multi/manifests/3.20",
        "/v2/alpine%2f..%2fmulti/manifests/3.20",
        "/v2/alpine/manifests/../../multi/manifests/3.20",
        "/v2/alpine/manifests/%2e%2e%2f.manifests%2fsha256%2f" + ALPINE.digest[7:],
        "/v2/.manifests/sha256/" + ALPINE.digest[7:],
        "/v2/alpine/.blobs/sha256/" + next(iter(ALPINE.blobs))[7:],
        "/v2/alpine/.blobs/blobs/" + next(iter(ALPINE.blobs)),
        "/v2/alpine/%252e%252e/multi/manifests/oci",
        "/v2/multi/blobs/..%2f..%2f..%2falpine%2f.blobs%2f" + next(iter(ALPINE.blobs)),
        "/v2/multi/%2e./alpine/.%2e/multi/blobs/" + next(iter(ALPINE.blobs)),
        "/v2/multi/%00/blobs/" + next(iter(ALPINE.blobs)),
        "/v2/multi%00/manifests/oci",
        "/v2/alpine/manifests/3.20%00",
        "/v2/alpine/manifests/3.20%0a",
        "/v2/alpine/manifests/3.20/",
        "/v2/alpine/manifests/3.20|",
        "/v2/alpine/manifests/.*",
        "/v2/alpine/manifests/3%2e20:0",
        "/v2/alpine:0/manifests/3.20",
        "/v2/=alpine/manifests/3.20",
        "/v2/alpine/blobs/" + next(iter(ALPINE.blobs)) + "%0a",
        "/v2/alpine/blobs/" + next(iter(ALPINE.blobs)) + "/",
        "/V2/alpine/manifests/3.20",
        "/v2alpine/manifests/3.20",
        "/v2/../../../../etc/passwd",
        "/v2/%2e%2e/%2e%2e/etc/passwd",
        "/v2/..%2f..%2f..%2fetc%2fpasswd",
    ],
)
def test_no_spelling_leads_to_what_it_does_not_name(registry: Site, path: str) -> None:
    answer = registry.get(path)
    assert answer.status in (400, 404), answer
    assert ALPINE.raw not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/v2/a/manifests/" + ":" * 7000 + "/",
        "/v2/" + "a/manifests/" * 580,
        "/v2/" + "a/blobs/b/tags/list/manifests/" * 230,
        "/v2/" + "a-" * 3500 + "/tags/list",
        "/v2/" + "a" * 7000 + "/tags/list",
        "/v2/" + "a/" * 3500 + "tags/list",
        "/v2/alpine/manifests/" + "A" * 7000,
    ],
    ids=["colons", "manifests", "everything", "hyphens", "letters", "slashes", "tag"],
)
def test_a_very_long_url_is_an_ordinary_error(registry: Site, path: str) -> None:
    """No expression may try piece after piece: one such request would take a fifth of a second."""
    seconds = []
    for _ in range(3):
        before = time.monotonic()
        answer = registry.get(path)
        seconds.append(time.monotonic() - before)
        assert answer.status in (400, 404)
        assert answer.code in ("NAME_INVALID", "MANIFEST_UNKNOWN", "UNSUPPORTED")
    assert min(seconds) < 0.1


# -- large trees -----------------------------------------------------------------------------------

MANY_TAGS = [f"{number:05d}" for number in range(20_000)]
WIDE_TAGS = [f"release-{number:010d}" for number in range(300)]
MANY_NAMES = [f"group-{number % 50}/project-{number}" for number in range(3000)]
SPELLINGS = ["".join(each) for each in product(*((c, c.upper()) for c in "letter"), ["-of-a-tag"])]
CONTENTS = [f"manifest {number}".encode() for number in range(7)]


@pytest.fixture(scope="module")
def large(
    tmp_path_factory: pytest.TempPathFactory, program: str, surroundings: tuple[str, str]
) -> Iterator[Site]:
    store = store_of(tmp_path_factory.mktemp("large"), CONTENTS)
    catalog = catalog_with(
        [
            *(("many", tag, CONTENTS[int(tag) % 7]) for tag in MANY_TAGS),
            *(("wide", tag, CONTENTS[int(tag[8:]) % 7]) for tag in WIDE_TAGS),
            *((name, "latest", CONTENTS[number % 7]) for number, name in enumerate(MANY_NAMES)),
            *(("spelled", tag, CONTENTS[number % 7]) for number, tag in enumerate(SPELLINGS)),
        ]
    )
    http, server = surroundings
    with serving(catalog, store=store, program=program, http=http, server=server) as running:
        yield running


def test_twenty_thousand_tags_of_one_repository(large: Site) -> None:
    assert large.get("/v2/many/tags/list").json() == {"name": "many", "tags": MANY_TAGS}
    for tag in MANY_TAGS[::97]:
        assert large.get(f"/v2/many/manifests/{tag}").body == CONTENTS[int(tag) % 7]
    assert large.get("/v2/many/manifests/20000").code == "MANIFEST_UNKNOWN"


def test_a_list_longer_than_nginx_can_read_in_one_piece(large: Site) -> None:
    assert large.get("/v2/wide/tags/list").json() == {"name": "wide", "tags": WIDE_TAGS}


def test_more_spellings_of_one_tag_than_nginx_can_read_in_one_piece(large: Site) -> None:
    for number, tag in enumerate(SPELLINGS):
        assert large.get(f"/v2/spelled/manifests/{tag}").body == CONTENTS[number % 7]
    assert large.get("/v2/spelled/manifests/Spelling").code == "MANIFEST_UNKNOWN"


def test_three_thousand_repositories(large: Site) -> None:
    assert large.get("/v2/_catalog").json() == {
        "repositories": sorted(["many", "wide", "spelled", *MANY_NAMES])
    }
    for number in range(0, len(MANY_NAMES), 31):
        answer = large.get(f"/v2/{MANY_NAMES[number]}/manifests/latest")
        assert answer.body == CONTENTS[number % 7]
        assert large.get(f"/v2/{MANY_NAMES[number]}/tags/list").json()["tags"] == ["latest"]


def test_with_hash_conf_nginx_has_no_warnings(large: Site, surroundings: tuple[str, str]) -> None:
    if "hash.conf" in surroundings[0]:
        assert "hash" not in large.log()


# -- before the first generation -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_before_the_first_generation_everything_is_503_and_nothing_is_unknown(
    program: str, surroundings: tuple[str, str], method: str
) -> None:
    http, server = surroundings
    rendered = initial()
    with nginx_with(http, server, files=rendered.files, program=program) as running:
        for path in endpoints():
            answer = running.ask(path, method=method, body=os.urandom(2_000_000) if method == "PUT" else b"")
            assert answer.status == 503, path
            assert headers(answer) == error_headers(answer) | {
                "Cache-Control": "no-store",
                "Retry-After": "2",
                "Content-Length": answer.header("Content-Length") or "",
            }
            if method == "GET":
                assert answer.code == "UNAVAILABLE"
        assert running.ask("/v2extra").status != 503, "the site's own URLs are its own"
