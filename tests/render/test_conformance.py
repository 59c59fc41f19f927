"""What the conformance suite of the distribution specification (its main branch of July 2026) checks of what
it has pushed: the categories Pull and Content Discovery.

The suite itself is a program in Go. Of a registry that it may only read it asks for what it is told to, and
compares nothing. So the data is made here that it would push, and every check is done by tag, by digest, with
GET and with HEAD. docs/api.md, "Conformance", says what is not covered.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest

from tests.http import Response
from tests.nginxes import binaries
from tests.render.site import Site, site
from tests.trees import (
    OCI_INDEX,
    OCI_MANIFEST,
    Built,
    descriptor,
    digest_of,
    image,
    index,
    index_by_sha512,
)

NAME = "conformance/read-only"
NOWHERE = digest_of(b"what is not here")
EXAMPLE_1, EXAMPLE_2 = "application/vnd.example.one.config.v1+json", "application/vnd.example.two+json"
EMPTY_JSON = "application/vnd.oci.empty.v1+json"
LARGE = {f"large-annotation-{number}": "A" * 10_000 for number in range(390)}

# The codes of the specification's "Error Codes".
CODES = {
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
}


def with_fields(built: Built, **fields: Any) -> Built:
    """``built`` with more ``fields`` in its manifest; those that are ``None`` go."""
    document = {**json.loads(built.raw), **fields}
    raw = json.dumps({name: value for name, value in document.items() if value is not None}).encode()
    return replace(built, raw=raw)


def artifact(seed: str, **fields: Any) -> Built:
    """One whose config is the empty object."""
    empty = b"{}"
    built = with_fields(image(seed, layers=1), config=descriptor(empty, EMPTY_JSON), **fields)
    return replace(built, files={**built.files, sha256(empty).hexdigest(): empty})


def zero_byte_layer() -> Built:
    built = with_fields(image("zero"), layers=[descriptor(b"", "application/vnd.oci.image.layer.v1.tar")])
    return replace(built, files={**built.files, sha256(b"").hexdigest(): b""})


LONG_BLOB = bytes(range(256)) * 8


def long_layer() -> Built:
    built = with_fields(image("long"), layers=[descriptor(LONG_BLOB, "application/octet-stream")])
    return replace(built, files={**built.files, sha256(LONG_BLOB).hexdigest(): LONG_BLOB})


def foreign_layers() -> Built:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    away = {**descriptor(b"elsewhere", kind), "urls": ["https://store.example.com/blob"]}
    built = image("foreign", layers=1)
    return with_fields(built, layers=[away, *json.loads(built.raw)["layers"]])


SUBJECT, INDEX_SUBJECT = image("subject"), index(image("one"), image("two"))
ABOUT = {"subject": descriptor(SUBJECT.raw, OCI_MANIFEST)}
ABOUT_INDEX = {"subject": descriptor(INDEX_SUBJECT.raw, OCI_INDEX)}
ABOUT_NOTHING = {"subject": descriptor(b"missing content", OCI_MANIFEST)}
NOTE = {"annotations": {"org.opencontainers.conformance": "hello conformance test"}}
CONFIG_ONLY = with_fields(image("of a type of its config"), **ABOUT, **NOTE)
TYPED_1 = artifact("typed 1", artifactType=EXAMPLE_1, **ABOUT, **NOTE)
TYPED_2 = artifact("typed 2", artifactType=EXAMPLE_2, **ABOUT, **NOTE)
TYPED_INDEX = with_fields(index(image("three")), artifactType=EXAMPLE_1, **ABOUT, **NOTE)
UNTYPED_INDEX = with_fields(index(image("four")), **ABOUT, **NOTE)
OF_INDEX = with_fields(index(image("five")), artifactType=EXAMPLE_1, **ABOUT_INDEX, **NOTE)
OF_NOTHING = artifact("of nothing here", artifactType=EXAMPLE_1, **ABOUT_NOTHING, **NOTE)

TREE = {
    "image": SUBJECT,
    "large-manifest": image("large", annotations=LARGE),
    "index": INDEX_SUBJECT,
    "nested-index": index(index(image("six"), image("seven")), index(image("eight"))),
    "empty-index": index(),
    "artifact": artifact("artifact", artifactType=EXAMPLE_1),
    "artifact-without-layers": artifact(
        "nothing", artifactType=EXAMPLE_1, layers=[descriptor(b"{}", EMPTY_JSON)]
    ),
    "artifact-index": with_fields(index(artifact("nine", artifactType=EXAMPLE_1)), artifactType=EXAMPLE_1),
    "data-field": with_fields(image("data"), config={**descriptor(b"{}", EMPTY_JSON), "data": "e30="}),
    "foreign": foreign_layers(),
    "custom-fields": with_fields(image("custom"), org_example={"any": ["thing", 1, None]}),
    "no-layers": image("no layers", layers=0),
    "zero-byte-layer": zero_byte_layer(),
    "long-layer": long_layer(),
    "sha512": index_by_sha512(image("ten"), image("eleven")),
    "config-only": CONFIG_ONLY,
    "typed-1": TYPED_1,
    "typed-2": TYPED_2,
    "typed-index": TYPED_INDEX,
    "untyped-index": UNTYPED_INDEX,
    "of-index": OF_INDEX,
    "of-nothing": OF_NOTHING,
}
TREE["data-field"] = replace(
    TREE["data-field"], files={**TREE["data-field"].files, sha256(b"{}").hexdigest(): b"{}"}
)


@pytest.fixture(scope="module", params=binaries())
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), {NAME: TREE}, program=str(request.param())) as running:
        yield running
        assert not running.complaints()


def both(registry: Site, path: str) -> Response:
    """The answer to GET, after that to HEAD was seen to be the same without a body."""
    get, head = registry.get(path), registry.get(path, method="HEAD")
    names = ("Content-Type", "Content-Length", "Docker-Content-Digest")
    assert (head.status, head.body) == (get.status, b"")
    assert [head.header(name) for name in names] == [get.header(name) for name in names]
    return get


def test_ping(registry: Site) -> None:
    assert registry.get("/v2/").status == 200


# -- pull ------------------------------------------------------------------------------------------


def test_every_manifest_is_there_by_tag_and_by_digest(registry: Site) -> None:
    for tag, built in TREE.items():
        for reference in (tag, built.digest):
            answer = both(registry, f"/v2/{NAME}/manifests/{reference}")
            assert (answer.status, answer.body) == (200, built.raw), (tag, reference)
            assert answer.header("Content-Type") == json.loads(built.raw)["mediaType"]
            assert answer.header("Content-Length") == str(len(built.raw))
            assert answer.header("Docker-Content-Digest") == built.digest


def test_every_child_and_every_blob_is_there(registry: Site) -> None:
    for built in TREE.values():
        for digest, raw in built.manifests.items():
            answer = both(registry, f"/v2/{NAME}/manifests/{digest}")
            assert (answer.status, answer.body) == (200, raw)
            assert answer.header("Docker-Content-Digest") == digest
    blobs = {digest: blob for tag, built in TREE.items() for digest, blob in referred(built).items()}
    assert b"" in blobs.values()
    for digest, content in blobs.items():
        answer = both(registry, f"/v2/{NAME}/blobs/{digest}")
        assert (answer.status, answer.body) == (200, content)
        assert answer.header("Content-Length") == str(len(content))
        assert answer.header("Docker-Content-Digest") == digest


def referred(built: Built) -> dict[str, bytes]:
    """The blobs of ``built`` that a manifest of it names; the builders leave others beside them."""
    text = b"".join(built.manifests.values()).decode()
    return {digest: content for digest, content in built.blobs.items() if digest in text}


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("500-1499", 500, 1499), ("500-", 500, 2047), ("-500", 1548, 2047), ("2000-5000", 2000, 2047)],
)
def test_a_blob_can_be_asked_for_in_part(registry: Site, wanted: str, first: int, last: int) -> None:
    answer = registry.get(f"/v2/{NAME}/blobs/{digest_of(LONG_BLOB)}", Range=f"bytes={wanted}")
    assert (answer.status, answer.body) == (206, LONG_BLOB[first : last + 1])
    assert answer.header("Content-Range") == f"bytes {first}-{last}/{len(LONG_BLOB)}"
    assert answer.header("Content-Length") == str(last + 1 - first)


@pytest.mark.parametrize("wanted", ["500-0", "5000-10000"])
def test_a_part_that_there_is_not_is_416(registry: Site, wanted: str) -> None:
    answer = registry.get(f"/v2/{NAME}/blobs/{digest_of(LONG_BLOB)}", Range=f"bytes={wanted}")
    assert (answer.status, answer.code) == (416, "SIZE_INVALID")


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/{NAME}/blobs/{NOWHERE}",
        f"/v2/{NAME}/manifests/{NOWHERE}",
        f"/v2/{NAME}/manifests/missing",
        f"/v2/{NAME}/manifests/.INVALID_MANIFEST_NAME",
    ],
)
def test_what_is_not_here_is_404(registry: Site, path: str) -> None:
    answer = both(registry, path)
    assert answer.status == 404
    assert answer.code in CODES


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("digest", ["sha256:totallywrong", "sha256:baddigeststring"])
def test_a_malformed_digest_of_a_manifest_is_the_error_for_every_method(
    registry: Site, method: str, digest: str
) -> None:
    """The suite puts a manifest there, among its tests of pulls: 405 would be a failure."""
    body = b"blablabla" if method == "PUT" else b""
    answer = registry.get(f"/v2/{NAME}/manifests/{digest}", method=method, body=body)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert answer.header("Allow") is None


# -- content discovery: tags -----------------------------------------------------------------------

TAGS = sorted(TREE)


def tags(registry: Site, arguments: str = "") -> list[str]:
    answer = registry.get(f"/v2/{NAME}/tags/list{arguments}")
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
    document = answer.json()
    assert document.keys() == {"name", "tags"}
    assert document["name"] == NAME
    return list(document["tags"])


def test_all_tags_are_listed(registry: Site) -> None:
    assert tags(registry) == TAGS


def test_n_limits_the_tags_and_last_is_where_they_go_on(registry: Site) -> None:
    half = len(TAGS) // 2
    first = tags(registry, f"?n={half}")
    assert first == TAGS[:half]
    assert tags(registry, f"?n={half}&last={first[-1]}") == TAGS[half : 2 * half]
    assert tags(registry, f"?last={first[-1]}") == TAGS[half:]
    assert tags(registry, "?n=0") == []


def test_the_link_leads_on_until_there_is_no_more(registry: Site) -> None:
    found, path = [], f"/v2/{NAME}/tags/list?n=5"
    while path:
        answer = registry.get(path)
        found += answer.json()["tags"]
        link = answer.header("Link") or ""
        assert not link or link.endswith('>; rel="next"')
        path = link.removeprefix("<").partition(">")[0]
    assert found == TAGS


# -- content discovery: referrers ------------------------------------------------------------------


def referrers(registry: Site, subject: str, arguments: str = "") -> tuple[list[Any], str | None]:
    answer = registry.get(f"/v2/{NAME}/referrers/{subject}{arguments}")
    assert (answer.status, answer.header("Content-Type")) == (200, OCI_INDEX)
    document = answer.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    return document["manifests"], answer.header("OCI-Filters-Applied")


def expected(*found: Built) -> list[Any]:
    entries = []
    for built in found:
        document = json.loads(built.raw)
        artifact_type = document.get("artifactType") or document.get("config", {}).get("mediaType")
        entries.append(
            {
                **descriptor(built.raw, built.media_type),
                **({"artifactType": artifact_type} if artifact_type else {}),
                **NOTE,
            }
        )
    return sorted(entries, key=lambda entry: str(entry["digest"]))


def test_of_an_unknown_digest_there_are_none(registry: Site) -> None:
    assert referrers(registry, NOWHERE) == ([], None)


@pytest.mark.parametrize(
    ("subject", "found"),
    [
        (SUBJECT.digest, (CONFIG_ONLY, TYPED_1, TYPED_2, TYPED_INDEX, UNTYPED_INDEX)),
        (INDEX_SUBJECT.digest, (OF_INDEX,)),
        (digest_of(b"missing content"), (OF_NOTHING,)),
    ],
    ids=["of an image", "of an index", "of what is missing"],
)
def test_all_are_listed_with_type_and_annotations(
    registry: Site, subject: str, found: tuple[Built, ...]
) -> None:
    listed, applied = referrers(registry, subject)
    assert sorted(listed, key=lambda entry: str(entry["digest"])) == expected(*found)
    assert applied is None


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (EXAMPLE_1, (TYPED_1, TYPED_INDEX)),
        (EXAMPLE_2, (TYPED_2,)),
        ("application/vnd.oci.image.config.v1+json", (CONFIG_ONLY,)),
        ("application/none", ()),
    ],
)
def test_a_type_filters_and_the_answer_says_so(registry: Site, wanted: str, found: tuple[Built, ...]) -> None:
    listed, applied = referrers(registry, SUBJECT.digest, f"?artifactType={quote(wanted, safe='')}")
    assert sorted(listed, key=lambda entry: str(entry["digest"])) == expected(*found)
    assert applied == "artifactType"


def test_referrers_of_a_malformed_digest_are_a_bad_request(registry: Site) -> None:
    answer = registry.get(f"/v2/{NAME}/referrers/sha256:totallywrong")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
