"""What both registries answer alike, the daemon's and that of `generate`: the tests that they share.

A module has them by a class of its own, and a fixture ``registry`` that serves ``tree``, which has all
that ``TREE`` has:

    class TestContract(Contract):
        tree = TREE
"""

from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from hashlib import sha512
from pathlib import Path
from typing import ClassVar

import pytest

from tests.http import Response
from tests.render.site import Served, exchange, spellings
from tests.trees import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Built,
    image,
    index,
    index_by_sha512,
)

NO_BLOB = f"sha256:{'0' * 64}"
NO_SHA512 = f"sha512:{'0' * 128}"
NO_REFERENCE = "/v2/alpine/manifests/sha256:malformed"
COSIGN = f"sha256-{'a1' * 32}.sig"
FOREVER = "public, max-age=31536000, immutable"

ALPINE = image("alpine")
DOCKER = image("docker", media_type=DOCKER_MANIFEST)
NESTED = index(index(image("deep")), image("shallow"))


def with_sha512_layer() -> Built:
    content = b"a layer that its manifest names by sha512"
    name = sha512(content).hexdigest()
    layer = {"mediaType": "application/x", "digest": f"sha512:{name}", "size": len(content)}
    built = image("sha512", layers=0, layers_=[layer])
    raw = built.raw.replace(b'"layers": [], "layers_"', b'"layers"')
    return replace(built, raw=raw, files={**built.files, name: content})


TREE: dict[str, dict[str, Built]] = {
    "alpine": {
        "3.20": ALPINE,
        "docker": DOCKER,
        "bare": image("bare", media_type=None),
        "RC1": image("upper"),
        "rc1": image("lower"),
        COSIGN: image("signature"),
    },
    "multi": {
        "oci": index(image("amd64"), image("arm64")),
        "docker": index(DOCKER, media_type=DOCKER_LIST),
        "nested": NESTED,
        "bare": index(image("child"), media_type=None),
    },
    "sha512": {"1": with_sha512_layer(), "children": index_by_sha512(ALPINE, DOCKER)},
}

# Settings that a site may well have for its own pages, in its http {} and in its server {}.
SITE_HTTP = "gzip on; gzip_types *; gzip_min_length 0;"
SITE_SERVER = """
    charset utf-8; charset_types *; default_type text/html; types { text/html sig; }
    expires 30d; etag off; if_modified_since off; add_header X-Site everywhere always;
    client_max_body_size 1k; autoindex on; index manifest.json; root /;
    error_page 400 401 403 404 405 412 416 500 503 /error.html; recursive_error_pages on;
    location = /error.html { internal; return 200 "a page of the site"; }
"""

FILES = [
    "/v2/alpine/manifests/3.20",
    f"/v2/alpine/manifests/{ALPINE.digest}",
    f"/v2/alpine/blobs/{next(iter(ALPINE.blobs))}",
]
ENDPOINTS = [
    "/v2",
    "/v2/",
    "/v2/_catalog",
    "/v2/_scr/generation",
    "/v2/alpine/tags/list",
    *FILES,
    "/v2/alpine/manifests/unknown",
    NO_REFERENCE,
    f"/v2/alpine/manifests/{NO_BLOB}",
    f"/v2/alpine/blobs/{NO_BLOB}",
    "/v2/alpine/blobs/malformed",
    "/v2/alpine/blobs/uploads/",
    "/v2/unknown/tags/list",
    "/v2/unknown/manifests/1",
    "/v2/UPPER/tags/list",
    "/v2/no/such/endpoint",
]
WRITING = ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "X"]

each_file = pytest.mark.parametrize("path", FILES, ids=["tag", "manifest", "blob"])


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
        **({"Retry-After": "1"} if response.status in (429, 503) else {}),
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


def serves(running: Served, name: str, images: Mapping[str, Built], *, authorization: str = "") -> None:
    """Every tag, manifest and blob of the repository is there."""

    def get(path: str) -> Response:
        return running.get(f"/v2/{name}/{path}", Authorization=authorization)

    assert get("tags/list").json() == {"name": name, "tags": sorted(images)}
    for tag, built in images.items():
        assert get(f"manifests/{tag}").body == built.raw, (name, tag)
        for digest, raw in built.manifests.items():
            answer = get(f"manifests/{digest}")
            assert (answer.body, answer.header("Docker-Content-Digest")) == (raw, digest), (name, tag)
        for digest, content in built.blobs.items():
            answer = get(f"blobs/{digest}")
            assert (answer.body, answer.header("Docker-Content-Digest")) == (content, digest), (name, tag)


def is_error(answer: Response, status: int, code: str, *, allow: bool = False, path: str = "") -> None:
    assert (answer.status, answer.code) == (status, code), path
    assert headers(answer) == error_headers(answer, allow=allow), path


def refuses_a_push(running: Served, path: str, method: str) -> None:
    """A push of any size gets an answer that its client can show."""
    answer = running.get(path, method=method, body=b"x" * 3_000_000 if method != "X" else b"")
    is_error(answer, 405, "UNSUPPORTED", allow=True, path=path)
    assert "skopeo copy" in answer.json()["errors"][0]["message"]


def misses_what_vanishes(running: Served) -> None:
    """``running`` serves ALPINE as alpine:1, and loses its manifest and a blob."""
    digest = next(iter(ALPINE.blobs))
    running.manifest_file("alpine", "1", ALPINE.digest).unlink()
    running.blob_file("alpine", "1", digest).unlink()
    for path, code in (
        (f"blobs/{digest}", "BLOB_UNKNOWN"),
        ("manifests/1", "MANIFEST_UNKNOWN"),
        (f"manifests/{ALPINE.digest}", "MANIFEST_UNKNOWN"),
    ):
        is_error(running.get(f"/v2/alpine/{path}"), 404, code, path=path)
        refuses_a_push(running, f"/v2/alpine/{path}", "POST")


class Contract:
    tree: ClassVar[Mapping[str, Mapping[str, Built]]]

    def test_lists_are_json_in_ascii_order(self, registry: Served) -> None:
        lists: dict[str, object] = {
            "/v2/": {},
            "/v2/?ns=docker.io": {},
            "/v2/_catalog": {"repositories": sorted(self.tree)},
            **{
                f"/v2/{name}/tags/list": {"name": name, "tags": sorted(self.tree[name])} for name in self.tree
            },
        }
        for path, document in lists.items():
            answer = registry.get(path)
            assert (answer.status, answer.json()) == (200, document), path
            expected = error_headers(answer)
            if document == {}:
                del expected["Cache-Control"]
            assert headers(answer) == expected, path

    def test_the_way_to_the_slash_is_relative_and_needs_no_host(self, registry: Served) -> None:
        """Behind a proxy nginx knows neither the scheme nor the port that the client used."""
        answer = registry.get("/v2")
        assert answer.status == 301
        expected = error_headers(answer) | {"Content-Type": "text/html", "Location": "/v2/"}
        del expected["Cache-Control"]
        assert headers(answer) == expected

    def test_every_image_is_there(self, registry: Served) -> None:
        for name, images in self.tree.items():
            serves(registry, name, images)

    @pytest.mark.parametrize(
        ("name", "tag", "media_type"),
        [
            pytest.param("alpine", "3.20", OCI_MANIFEST, id="an OCI manifest"),
            pytest.param("alpine", "docker", DOCKER_MANIFEST, id="a Docker manifest"),
            pytest.param("alpine", "bare", OCI_MANIFEST, id="a manifest without mediaType"),
            pytest.param("alpine", COSIGN, OCI_MANIFEST, id="a cosign tag"),
            pytest.param("multi", "oci", OCI_INDEX, id="an OCI index"),
            pytest.param("multi", "docker", DOCKER_LIST, id="a Docker list"),
            pytest.param("multi", "bare", OCI_INDEX, id="an index without mediaType"),
        ],
    )
    def test_a_manifest_has_exactly_these_headers(
        self, registry: Served, name: str, tag: str, media_type: str
    ) -> None:
        built = TREE[name][tag]
        file = registry.manifest_file(name, tag, built.digest)
        for reference, cached in ((tag, "no-cache"), (built.digest, FOREVER)):
            answer = registry.get(f"/v2/{name}/manifests/{reference}")
            assert (answer.status, answer.body) == (200, built.raw)
            assert headers(answer) == file_headers(file, media_type, built.digest, cached)

    def test_children_of_nested_indexes_have_the_type_that_they_are(self, registry: Served) -> None:
        inner = index(image("deep"))
        for digest, media_type in ((inner.digest, OCI_INDEX), (image("deep").digest, OCI_MANIFEST)):
            file = registry.manifest_file("multi", "nested", digest)
            answer = registry.get(f"/v2/multi/manifests/{digest}")
            assert headers(answer) == file_headers(file, media_type, digest, FOREVER)

    def test_a_manifest_that_is_named_by_sha512_is_served_by_that_digest(self, registry: Served) -> None:
        for built in (ALPINE, DOCKER):
            digest = f"sha512:{sha512(built.raw).hexdigest()}"
            file = registry.manifest_file("sha512", "children", digest)
            for method in ("GET", "HEAD"):
                answer = registry.get(f"/v2/sha512/manifests/{digest}", method=method)
                assert answer.status == 200
                assert headers(answer) == file_headers(file, built.media_type, digest, FOREVER)
                assert answer.body == (built.raw if method == "GET" else b"")
            assert registry.get(f"/v2/sha512/manifests/{built.digest}").code == "MANIFEST_UNKNOWN"
            assert registry.get(f"/v2/alpine/manifests/{digest}").code == "MANIFEST_UNKNOWN"

    def test_a_blob_has_exactly_these_headers(self, registry: Served) -> None:
        for name, tag in (("alpine", "3.20"), ("sha512", "1")):
            for digest, content in TREE[name][tag].blobs.items():
                answer = registry.get(f"/v2/{name}/blobs/{digest}")
                assert (answer.status, answer.body) == (200, content)
                file = registry.blob_file(name, tag, digest)
                assert headers(answer) == {
                    **file_headers(file, "application/octet-stream", digest, FOREVER),
                    "Accept-Ranges": "bytes",
                }

    # -- conditions, ranges and encodings ----------------------------------------------------------

    @each_file
    def test_what_a_client_has_already_is_not_sent_again(self, registry: Served, path: str) -> None:
        full = headers(registry.get(path))
        answer = registry.get(path, If_None_Match=full["ETag"])
        assert (answer.status, answer.body) == (304, b"")
        for name in ("Content-Type", "Content-Length", "Accept-Ranges"):
            full.pop(name, None)
        assert headers(answer) == full
        assert registry.get(path, If_None_Match='"0-0"').status == 200
        assert registry.get(path, If_Modified_Since=full["Last-Modified"]).status == 304
        assert registry.get(path, If_Modified_Since=formatdate(0, usegmt=True)).status == 200

    @each_file
    def test_a_precondition_that_does_not_hold_is_said_in_json(self, registry: Served, path: str) -> None:
        is_error(registry.get(path, If_Match='"0-0"'), 412, "UNKNOWN")

    def test_part_of_a_blob_can_be_asked_for(self, registry: Served) -> None:
        digest, content = next(iter(ALPINE.blobs.items()))
        whole = registry.get(f"/v2/alpine/blobs/{digest}")
        answer = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=3-9")
        assert (answer.status, answer.body) == (206, content[3:10])
        expected = headers(whole) | {"Content-Length": "7", "Content-Range": f"bytes 3-9/{len(content)}"}
        del expected["Accept-Ranges"]
        assert headers(answer) == expected

    def test_several_parts_of_a_blob_can_be_asked_for_at_once(self, registry: Served) -> None:
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

    def test_a_range_beyond_the_end_is_said_in_json(self, registry: Served) -> None:
        digest, content = next(iter(ALPINE.blobs.items()))
        answer = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=9999-")
        assert (answer.status, answer.code) == (416, "SIZE_INVALID")
        found = headers(answer)
        assert found["Content-Type"] == "application/json"
        assert found["Content-Range"] == f"bytes */{len(content)}"
        assert found["Docker-Distribution-Api-Version"] == "registry/2.0"

    def test_a_resumed_download_goes_on_only_if_the_blob_is_the_same(self, registry: Served) -> None:
        digest, content = next(iter(ALPINE.blobs.items()))
        etag = registry.get(f"/v2/alpine/blobs/{digest}").header("ETag") or ""
        same = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=5-", If_Range=etag)
        other = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=5-", If_Range='"0-0"')
        assert (same.status, same.body) == (206, content[5:])
        assert (other.status, other.body) == (200, content)

    @pytest.mark.parametrize("wanted", ["bytes=1-2", "bytes=1-2,4-5", "bytes=9999-"])
    def test_a_manifest_is_always_sent_whole(self, registry: Served, wanted: str) -> None:
        """nginx would give the 416 of a manifest two Content-Types."""
        for path in FILES[:2]:
            answer = registry.get(path, Range=wanted)
            assert (answer.status, answer.body) == (200, ALPINE.raw)
            assert "Accept-Ranges" not in headers(answer)

    @each_file
    def test_content_is_never_compressed(self, registry: Served, path: str) -> None:
        assert headers(registry.get(path, Accept_Encoding="gzip, br, zstd")) == headers(registry.get(path))

    @pytest.mark.parametrize("path", ENDPOINTS)
    def test_head_is_get_without_the_body(self, registry: Served, path: str) -> None:
        get = registry.get(path)
        head = exchange(
            registry.nginx, f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        lines, _, body = head.partition(b"\r\n\r\n")
        status, *fields = lines.decode().split("\r\n")
        assert (status.split()[1], body) == (str(get.status), b"")
        found = dict(field.split(": ", 1) for field in fields)
        assert len(found) == len(fields)
        assert headers(Response(get.status, tuple(found.items()), b"")) == headers(get)

    # -- errors ------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            ("/v2/unknown/tags/list", 404, "NAME_UNKNOWN"),
            ("/v2/unknown/manifests/latest", 404, "NAME_UNKNOWN"),
            (f"/v2/unknown/manifests/{NO_BLOB}", 404, "NAME_UNKNOWN"),
            (f"/v2/unknown/blobs/{NO_BLOB}", 404, "NAME_UNKNOWN"),
            (f"/v2/{'a' * 255}/tags/list", 404, "NAME_UNKNOWN"),
            ("/v2/alpin/manifests/3.20", 404, "NAME_UNKNOWN"),
            ("/v2/alpine/alpine/manifests/3.20", 404, "NAME_UNKNOWN"),
            ("/v2/a/b/c/tags/list", 404, "NAME_UNKNOWN"),
            ("/v2/a/blobs/blobs/tags/list", 404, "NAME_UNKNOWN"),
            ("/v2/alpine/manifests/unknown", 404, "MANIFEST_UNKNOWN"),
            ("/v2/alpine/manifests/Rc1", 404, "MANIFEST_UNKNOWN"),
            ("/v2/alpine/manifests/3.2", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/alpine/manifests/{'t' * 127}", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/alpine/manifests/{'u' * 128}", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/alpine/manifests/{'t' * 129}", 404, "MANIFEST_UNKNOWN"),
            ("/v2/alpine/manifests/" + "A" * 7000, 404, "MANIFEST_UNKNOWN"),
            ("/v2/alpine/manifests/-not-a-tag", 404, "MANIFEST_UNKNOWN"),
            ("/v2/alpine/manifests/not%20a%20tag", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/alpine/manifests/{NO_BLOB}", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/alpine/manifests/{NO_SHA512}", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/alpine/manifests/{next(iter(ALPINE.blobs))}", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/multi/manifests/{ALPINE.digest}", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/alpine/blobs/{NO_BLOB}", 404, "BLOB_UNKNOWN"),
            (f"/v2/alpine/blobs/{NO_SHA512}", 404, "BLOB_UNKNOWN"),
            # A manifest that is served as a blob leaves the wrong type in containerd's store.
            (f"/v2/alpine/blobs/{ALPINE.digest}", 404, "BLOB_UNKNOWN"),
            (f"/v2/multi/blobs/{next(iter(ALPINE.blobs))}", 404, "BLOB_UNKNOWN"),
            ("/v2/Alpine/tags/list", 400, "NAME_INVALID"),
            ("/v2/ALPINE/manifests/3.20", 400, "NAME_INVALID"),
            ("/v2/-alpine/manifests/3.20", 400, "NAME_INVALID"),
            ("/v2/al..pine/manifests/3.20", 400, "NAME_INVALID"),
            ("/v2/al___pine/manifests/3.20", 400, "NAME_INVALID"),
            ("/v2/alpine%22/tags/list", 400, "NAME_INVALID"),
            (f"/v2/{'a' * 256}/tags/list", 400, "NAME_INVALID"),
            ("/v2/" + "a-" * 3500 + "/tags/list", 400, "NAME_INVALID"),
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
            ("/v2/alpine%0a/manifests/3.20", 404, "UNSUPPORTED"),
            ("/v2/alpine", 404, "UNSUPPORTED"),
            ("/v2/alpine/", 404, "UNSUPPORTED"),
            ("/v2/alpine/manifests/", 404, "UNSUPPORTED"),
            ("/v2/alpine/manifests/3.20/", 404, "UNSUPPORTED"),
            ("/v2/alpine/tags/", 404, "UNSUPPORTED"),
            ("/v2/alpine/tags/other", 404, "UNSUPPORTED"),
            ("/v2/alpine/tags/list/", 404, "UNSUPPORTED"),
            ("/v2/manifests/latest", 404, "UNSUPPORTED"),
            ("/v2/tags/list", 404, "UNSUPPORTED"),
            ("/v2/_catalog/", 404, "UNSUPPORTED"),
            ("/v2/_scr/", 404, "UNSUPPORTED"),
            ("/v2/%22%5c%0a/", 404, "UNSUPPORTED"),
            ("/v2/" + "a/manifests/" * 580, 404, "UNSUPPORTED"),
            ("/v2/a/manifests/" + ":" * 7000 + "/", 404, "UNSUPPORTED"),
        ],
    )
    def test_errors_are_those_of_the_specification(
        self, registry: Served, path: str, status: int, code: str
    ) -> None:
        is_error(registry.get(path), status, code)

    @pytest.mark.parametrize("method", WRITING)
    def test_nothing_can_be_pushed(self, registry: Served, method: str) -> None:
        for path in (*ENDPOINTS, f"/v2/new/blobs/uploads/?mount={NO_BLOB}"):
            if path != NO_REFERENCE:  # see test_conformance.py
                refuses_a_push(registry, path, method)

    @each_file
    def test_every_spelling_of_a_url_has_the_same_answer(self, registry: Served, path: str) -> None:
        plain = registry.get(path)
        for spelling in spellings(path):
            answer = registry.get(spelling)
            assert (answer.status, answer.body, headers(answer)) == (200, plain.body, headers(plain)), (
                spelling
            )
