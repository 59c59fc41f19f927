"""What the bytes of a manifest say, and which bytes say nothing that is served."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scr_watchd.oci.manifest import Manifest, ManifestError, MediaType, parse
from scr_watchd.oci.names import Digest
from tests import trees

A, B = (f"sha256:{digit * 64}" for digit in "ab")
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def content(digest: str = A, size: object = 1, **more: object) -> dict[str, object]:
    return {"digest": digest, "size": size, **more}


def manifest(**fields: object) -> bytes:
    """An OCI manifest; a field of ``None`` is left out."""
    document = {"schemaVersion": 2, "config": content(), "layers": [], **fields}
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        pytest.param(trees.image().raw, MediaType.OCI_MANIFEST, id="OCI manifest"),
        pytest.param(trees.image(media_type=None).raw, MediaType.OCI_MANIFEST, id="no media type"),
        pytest.param(
            trees.image(media_type=trees.DOCKER_MANIFEST).raw, MediaType.DOCKER_MANIFEST, id="Docker manifest"
        ),
        pytest.param(trees.image(artifactType="x/y").raw, MediaType.OCI_MANIFEST, id="artifact"),
        pytest.param(trees.image(layers=0).raw, MediaType.OCI_MANIFEST, id="no layers"),
        pytest.param(manifest(layers=None), MediaType.OCI_MANIFEST, id="layers left out"),
        pytest.param(trees.index(trees.image()).raw, MediaType.OCI_INDEX, id="OCI index"),
        pytest.param(
            trees.index(trees.image(), media_type=None).raw, MediaType.OCI_INDEX, id="index, no media type"
        ),
        pytest.param(
            trees.index(trees.image(), media_type=trees.DOCKER_LIST).raw,
            MediaType.DOCKER_LIST,
            id="Docker list",
        ),
        pytest.param(trees.index().raw, MediaType.OCI_INDEX, id="empty index"),
    ],
)
def test_four_media_types_are_known(raw: bytes, media_type: MediaType) -> None:
    assert parse(raw).media_type == media_type


def test_an_image_needs_its_config_and_layers() -> None:
    built = trees.image("x", layers=3)
    parsed = parse(built.raw)
    assert parsed.manifests == ()
    assert {blob.digest: blob.size for blob in parsed.blobs} == {
        digest: len(blob) for digest, blob in built.blobs.items()
    }


def test_an_index_needs_its_manifests() -> None:
    one, two = trees.image("1"), trees.image("2")
    parsed = parse(trees.index(one, two).raw)
    assert parsed.blobs == ()
    assert [child.digest for child in parsed.manifests] == [one.digest, two.digest]


def test_content_that_is_named_twice_is_needed_once() -> None:
    parsed = parse(manifest(layers=[content(B), content(A), content(B)]))
    assert [blob.digest for blob in parsed.blobs] == [A, B]


@pytest.mark.parametrize("kind", [FOREIGN, NONDISTRIBUTABLE])
def test_a_foreign_layer_is_optional(kind: str) -> None:
    layer = content(B, mediaType=kind, urls=["https://example.com/layer"])
    assert [blob.optional for blob in parse(manifest(layers=[layer])).blobs] == [False, True]


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(content(B, mediaType=FOREIGN), id="foreign without an address"),
        pytest.param(content(B, mediaType=FOREIGN, urls=[]), id="foreign with no addresses"),
        pytest.param(content(B, mediaType="x/y", urls=["https://example.com"]), id="not foreign"),
    ],
)
def test_other_layers_are_not_optional(layer: dict[str, object]) -> None:
    assert not any(blob.optional for blob in parse(manifest(layers=[layer])).blobs)


def test_content_that_is_needed_once_is_not_optional() -> None:
    foreign = content(B, mediaType=FOREIGN, urls=["https://example.com"])
    for layers in ([foreign, content(B)], [content(B), foreign]):
        assert not any(blob.optional for blob in parse(manifest(layers=layers)).blobs)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b" \n", "it is empty", id="blank"),
        pytest.param(b"<html>", "it is HTML, such as the error page of a proxy, not JSON", id="HTML"),
        pytest.param(manifest()[:-1], "it is not JSON", id="cut off"),
        pytest.param(manifest() + b"{}", "it is not JSON", id="something behind it"),
        pytest.param(
            b"\xef\xbb\xbf" + manifest(),
            "it is JSON with a byte order mark, which must go",
            id="byte order mark",
        ),
        pytest.param(manifest().decode().encode("utf-16"), "it is UTF-16, not UTF-8", id="UTF-16"),
        pytest.param(b'{"schemaVersion": NaN}', "it is not JSON", id="NaN"),
        pytest.param(b'{"schemaVersion": 2, "mediaType": "\xff"}', "it is not JSON", id="not UTF-8"),
        pytest.param(b'{"schemaVersion": 2, "mediaType": "\\ud800"}', "it is not JSON", id="surrogate"),
        pytest.param(b"[" * 100_000, "no manifest", id="deep lists"),
        pytest.param(b'{"a":' * 100_000, "nested too deeply", id="deep objects"),
        pytest.param(
            b'{"schemaVersion":2,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "nested too deeply",
            id="depth in a field of no concern",
        ),
        pytest.param(b"[]", "no manifest", id="a list"),
        pytest.param(b"null", "no manifest", id="null"),
        pytest.param(b"{}", "schemaVersion", id="an empty object"),
        pytest.param(b'{"schemaVersion": 2}', "has no config", id="nothing but a version"),
        pytest.param(manifest(schemaVersion=1), "Docker schema 1", id="schema 1"),
        pytest.param(manifest(schemaVersion=3), "schemaVersion is 3", id="schema 3"),
        pytest.param(manifest(schemaVersion="2"), "no manifest", id="version as text"),
        pytest.param(manifest(schemaVersion=True), "no manifest", id="version true"),
        pytest.param(manifest(mediaType="text/html"), "'text/html' is not served", id="HTML type"),
        pytest.param(manifest(mediaType="text/html\r\nX: y"), r"\\r\\n", id="line break in the type"),
        pytest.param(manifest(mediaType="ä"), r"'\\xe4'", id="type beyond ASCII"),
        pytest.param(manifest(mediaType=trees.OCI_INDEX), "no manifests", id="an index of layers"),
        pytest.param(manifest(manifests=[]), "both layers and manifests", id="both"),
        pytest.param(
            manifest(mediaType=trees.OCI_MANIFEST, config=None, layers=None, manifests=[]),
            "lists manifests",
            id="an image of manifests",
        ),
        pytest.param(manifest(config=content(size=-1)), "is -1", id="negative size"),
        pytest.param(manifest(config=content(size=1.5)), "no manifest", id="size and a half"),
        pytest.param(manifest(config=content(size="1")), "no manifest", id="size as text"),
        pytest.param(
            manifest().replace(b'"size": 1', b'"size": ' + b"9" * 5000),
            "no manifest",
            id="size beyond numbers",
        ),
        pytest.param(manifest(layers=[content(A, 2)]), "two sizes, 1 and 2", id="two sizes"),
        pytest.param(
            manifest(config=content("sha256:../../etc/passwd")), "sha256:../../etc/passwd", id="a path"
        ),
        pytest.param(manifest(config=content(A + "\n")), r"a\\n'", id="digest and newline"),
        pytest.param(manifest(config=content("md5:" + "0" * 32)), "a digest is", id="other algorithm"),
        pytest.param(manifest(layers=[{"digest": A}]), "size", id="no size"),
        pytest.param(manifest(layers=[{"size": 1}]), "digest", id="no digest"),
        pytest.param(manifest(layers={}), "no manifest", id="layers as an object"),
        pytest.param(manifest(config=None), "has no config", id="no config, and no artifact"),
        pytest.param(
            manifest(config=None, mediaType=trees.DOCKER_MANIFEST, artifactType="x/y"),
            "has no config",
            id="no config, and Docker's type",
        ),
        pytest.param(manifest(subject={"digest": A}), "size", id="a subject without size"),
        pytest.param(manifest(subject=content("sha256:x")), "a digest is", id="a subject without digest"),
        pytest.param(manifest(artifactType=1), "artifactType", id="an artifact type that is no text"),
        pytest.param(
            manifest(subject=content(), annotations={"a": 1}),
            "annotations",
            id="an annotation that is no text",
        ),
    ],
)
def test_what_is_no_manifest_is_refused_with_a_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "artifact_type"),
    [
        pytest.param(manifest(subject=content(B), artifactType="x/y"), "x/y", id="an artifact type"),
        pytest.param(
            manifest(subject=content(B), config=content(mediaType="c/d")), "c/d", id="the type of the config"
        ),
        pytest.param(manifest(subject=content(B), artifactType=""), "", id="none at all"),
        pytest.param(manifest(subject=content(B), config=None, artifactType="x/y"), "x/y", id="no config"),
        pytest.param(
            manifest(subject=content(B), config=None, layers=None, manifests=[], artifactType="x/y"),
            "x/y",
            id="an index",
        ),
    ],
)
def test_a_manifest_with_a_subject_is_a_referrer(raw: bytes, artifact_type: str) -> None:
    referral = parse(raw).referral
    assert referral is not None
    assert (referral.subject, referral.artifact_type) == (B, artifact_type)


def test_what_a_referrer_says_of_itself_is_kept_to_the_letter() -> None:
    annotations = {"": "", "quote": '"', "$": "\\\n\0", "other": "ß😀"}
    referral = parse(manifest(subject=content(B), annotations=annotations)).referral
    assert referral is not None
    assert referral.annotations == annotations


def test_an_annotation_may_be_null() -> None:
    referral = parse(manifest(subject=content(B), annotations={"a": None, "b": "c"})).referral
    assert referral is not None
    assert referral.annotations == {"a": "", "b": "c"}


@pytest.mark.parametrize("annotations", [{"a": 1}, [], "x", 1])
def test_the_annotations_of_what_no_list_names_do_not_matter(annotations: object) -> None:
    assert parse(manifest(annotations=annotations)).referral is None


def test_docker_manifests_have_no_subject() -> None:
    raw = manifest(subject=content(B), mediaType=trees.DOCKER_MANIFEST)
    assert parse(raw).referral is None


def test_a_reason_stays_short_whatever_the_manifest_says() -> None:
    for raw in (manifest(mediaType="x" * 100_000), manifest(config=content("x" * 100_000))):
        with pytest.raises(ManifestError) as caught:
            parse(raw)
        assert len(str(caught.value)) < 400


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from([A, B, trees.OCI_INDEX, trees.OCI_MANIFEST]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)
descriptors = st.fixed_dictionaries(
    {},
    optional={
        "digest": st.sampled_from([A, B]) | json_values,
        "size": st.integers() | json_values,
        "mediaType": st.just(FOREIGN) | json_values,
        "urls": json_values,
    },
)
manifests = st.fixed_dictionaries(
    {"schemaVersion": st.just(2) | json_values},
    optional={
        "mediaType": st.sampled_from([each.value for each in MediaType]) | json_values,
        "config": descriptors | json_values,
        "layers": st.lists(descriptors, max_size=3) | json_values,
        "manifests": st.lists(descriptors, max_size=3) | json_values,
        "subject": descriptors | json_values,
        "artifactType": json_values,
        "annotations": json_values,
    },
)


@settings(max_examples=100, deadline=None, database=None)
@given(st.binary() | json_values.map(dump) | manifests.map(dump))
def test_any_bytes_are_a_manifest_or_refused(raw: bytes) -> None:
    """Nothing but ``ManifestError`` may come out of it, and nothing unchecked."""
    parsed = parsed_or_reason(raw)
    if isinstance(parsed, str):
        assert parsed.isprintable()
        return
    is_index = parsed.media_type in {MediaType.OCI_INDEX, MediaType.DOCKER_LIST}
    assert not (parsed.blobs if is_index else parsed.manifests)
    for each in (*parsed.blobs, *parsed.manifests):
        assert Digest.parse(each.digest) == each.digest
        assert each.size >= 0


def parsed_or_reason(raw: bytes) -> Manifest | str:
    try:
        return parse(raw)
    except ManifestError as refused:
        return str(refused)
