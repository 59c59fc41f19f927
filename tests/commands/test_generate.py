"""`scr-watchd generate`: what it prints is read by a real nginx, and answers like a registry."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha512
from pathlib import Path

import pytest

from scr_watchd.render.http_conf import render
from scr_watchd.render.single_file import LONGEST_NAME
from tests.clients.real_images import Workshop, skopeo
from tests.daemons import free_port, public_directory, scr_watchd
from tests.http import Response
from tests.nginxes import Running, binaries, nginx_with
from tests.render.site import catalog_with, exchange, spellings
from tests.render.test_http_contract import FOREVER, error_headers, file_headers, headers
from tests.trees import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Built,
    image,
    index,
    make_images,
    write_image,
    write_layout,
)

NO_BLOB = f"sha256:{'0' * 64}"
NO_SHA512 = f"sha512:{'0' * 128}"
COSIGN = f"sha256-{'a1' * 32}.sig"
LONG_NAME = ("long." * 51)[: LONGEST_NAME - 1] + "x"
MANY_TAGS = [f"{'release' * 15}-{number:05d}" for number in range(80)]  # 9 KB of a list

ALPINE = image("alpine")
DOCKER = image("docker", media_type=DOCKER_MANIFEST)
NESTED = index(index(image("deep")), image("shallow"))
MANY = image("many")

TREE: dict[str, dict[str, Built]] = {
    "alpine": {
        "3.20": ALPINE,
        "docker": DOCKER,
        "bare": image("bare", media_type=None),
        "RC1": image("upper"),
        "rc1": image("lower"),
        COSIGN: image("signature"),
        "default": image("default"),
        "t" * 128: image("long"),
    },
    "multi": {
        "oci": index(image("amd64"), image("arm64")),
        "docker": index(DOCKER, media_type=DOCKER_LIST),
        "nested": NESTED,
        "bare": index(image("child"), media_type=None),
    },
    "a": {"1": image("a")},
    "a/b": {"1": image("a/b")},
    "a/manifests": {"1": image("a/manifests"), "list": image("list")},
    "a/manifests/tags": {"1": image("a/manifests/tags")},
    "a/blobs": {"1": image("a/blobs")},
    "a/tags": {"list": image("a/tags")},
    "a-b/c": {"1": image("a-b/c")},
    "include/default": {"server": image("words of nginx")},
    **{
        LONG_NAME[-length:].strip("."): {"1": image(f"{length}"), "T." * 64: ALPINE}
        for length in (100, 170, 200)
    },
    LONG_NAME: {"1": image("longest"), "t." * 64: ALPINE, "t." * 63 + "tt": DOCKER},
    "many": dict.fromkeys(MANY_TAGS, MANY),
}

ALONE = ("", "include registry.conf;")
# Settings that a site may well have for its own pages.
IN_A_SITE = (
    "gzip on; gzip_types *; gzip_min_length 0; disable_symlinks on; map $host $not_ours { default 1; }",
    """
    charset utf-8; charset_types *; default_type text/html; types { text/html sig; }
    expires 30d; etag off; if_modified_since off; add_header X-Site everywhere always;
    client_max_body_size 1k; autoindex on; index manifest.json; root /;
    error_page 400 401 403 404 405 412 416 500 503 /error.html; recursive_error_pages on;
    location = /error.html { internal; return 200 "a page of the site"; }
    location / { return 200 "the site"; }
    location ~ manifests { return 200 "a location of the site"; }
    set $scr_repo nobody; rewrite ^/old/(.*)$ /v2/$1;
    include registry.conf;
    """,
)


def generate(*arguments: object) -> bytes:
    """What the command prints; it must have nothing to complain of."""
    result = scr_watchd("generate", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.encode()


@dataclass
class Registry:
    """An nginx that includes what was generated from ``root``."""

    nginx: Running
    root: Path

    def get(self, path: str, *, method: str = "GET", body: bytes = b"", **named: str) -> Response:
        fields = {name.replace("_", "-"): value for name, value in named.items()}
        return self.nginx.ask(path, method=method, headers=fields, body=body)

    def complaints(self) -> list[str]:
        """What nginx logged, but for the question whether it is up, to which a bare server has no page."""
        lines = (self.nginx.directory / "stderr").read_text().splitlines()
        return [line for line in lines if "html/index.html" not in line]


@contextmanager
def registry_of(
    root: Path,
    text: bytes,
    *,
    program: str | None = None,
    around: tuple[str, str] = ALONE,
    files: Mapping[str, bytes] | None = None,
) -> Iterator[Registry]:
    http, server = around
    with nginx_with(http, server, files={"registry.conf": text, **(files or {})}, program=program) as nginx:
        yield Registry(nginx, root)


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module", params=[ALONE, IN_A_SITE], ids=["alone", "in a site"])
def around(request: pytest.FixtureRequest) -> tuple[str, str]:
    http, server = request.param
    return http, server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("generate") / "images", TREE)


@pytest.fixture(scope="module")
def registry(root: Path, program: str, around: tuple[str, str]) -> Iterator[Registry]:
    with registry_of(root, generate(root), program=program, around=around) as running:
        yield running
        assert not running.complaints()


def serves(running: Registry, name: str, images: Mapping[str, Built], *, authorization: str = "") -> None:
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


# -- the contract ----------------------------------------------------------------------------------


def test_every_image_is_there(registry: Registry) -> None:
    for name, images in TREE.items():
        if name != "many":
            serves(registry, name, images)


@pytest.mark.parametrize(
    ("path", "document", "cached"),
    [
        ("/v2/", {}, None),
        ("/v2/?ns=docker.io", {}, None),
        ("/v2/multi/tags/list", {"name": "multi", "tags": ["bare", "docker", "nested", "oci"]}, "no-cache"),
        ("/v2/alpine/tags/list", {"name": "alpine", "tags": sorted(TREE["alpine"])}, "no-cache"),
        ("/v2/many/tags/list", {"name": "many", "tags": MANY_TAGS}, "no-cache"),
        ("/v2/_catalog", {"repositories": sorted(TREE)}, "no-cache"),
        ("/v2/_catalog?n=1", {"repositories": sorted(TREE)}, "no-cache"),
    ],
)
def test_lists_are_json_in_ascii_order(
    registry: Registry, path: str, document: object, cached: str | None
) -> None:
    answer = registry.get(path)
    assert (answer.status, answer.json()) == (200, document)
    expected = error_headers(answer) | {"Cache-Control": cached or ""}
    assert headers(answer) == {name: value for name, value in expected.items() if value}


def test_the_way_to_the_slash_is_relative(registry: Registry) -> None:
    answer = registry.get("/v2")
    assert answer.status == 301
    assert headers(answer) == {
        "Content-Type": "text/html",
        "Content-Length": str(len(answer.body)),
        "Location": "/v2/",
        "Docker-Distribution-Api-Version": "registry/2.0",
        "X-Content-Type-Options": "nosniff",
    }


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
    registry: Registry, name: str, tag: str, media_type: str
) -> None:
    built = TREE[name][tag]
    file = registry.root / name / tag / "manifest.json"
    for reference, cached in ((tag, "no-cache"), (built.digest, FOREVER)):
        answer = registry.get(f"/v2/{name}/manifests/{reference}")
        assert (answer.status, answer.body) == (200, built.raw)
        assert headers(answer) == file_headers(file, media_type, built.digest, cached)


def test_children_of_nested_indexes_have_the_type_that_they_are(registry: Registry) -> None:
    for digest, media_type in (
        (index(image("deep")).digest, OCI_INDEX),
        (image("deep").digest, OCI_MANIFEST),
    ):
        file = registry.root / "multi" / "nested" / f"{digest[7:]}.manifest.json"
        answer = registry.get(f"/v2/multi/manifests/{digest}")
        assert headers(answer) == file_headers(file, media_type, digest, FOREVER)


def test_a_blob_has_exactly_these_headers(registry: Registry) -> None:
    for digest, content in ALPINE.blobs.items():
        answer = registry.get(f"/v2/alpine/blobs/{digest}")
        assert (answer.status, answer.body) == (200, content)
        file = registry.root / "alpine" / "3.20" / digest[7:]
        assert headers(answer) == {
            **file_headers(file, "application/octet-stream", digest, FOREVER),
            "Accept-Ranges": "bytes",
        }


def kinds_of_files() -> list[str]:
    return [
        "/v2/alpine/manifests/3.20",
        f"/v2/alpine/manifests/{ALPINE.digest}",
        f"/v2/alpine/blobs/{next(iter(ALPINE.blobs))}",
    ]


@pytest.mark.parametrize("path", kinds_of_files(), ids=["tag", "manifest", "blob"])
def test_what_a_client_has_already_is_not_sent_again(registry: Registry, path: str) -> None:
    full = headers(registry.get(path, Accept_Encoding="gzip"))
    answer = registry.get(path, If_None_Match=full["ETag"])
    assert (answer.status, answer.body) == (304, b"")
    for name in ("Content-Type", "Content-Length", "Accept-Ranges"):
        full.pop(name, None)
    assert headers(answer) == full
    answer = registry.get(path, If_Match='"0-0"')
    assert (answer.status, answer.code) == (412, "UNKNOWN")
    assert headers(answer) == error_headers(answer)


def test_parts_of_a_blob_can_be_asked_for(registry: Registry) -> None:
    digest, content = next(iter(ALPINE.blobs.items()))
    whole = registry.get(f"/v2/alpine/blobs/{digest}")
    one = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=3-9")
    assert (one.status, one.body) == (206, content[3:10])
    expected = headers(whole) | {"Content-Length": "7", "Content-Range": f"bytes 3-9/{len(content)}"}
    del expected["Accept-Ranges"]
    assert headers(one) == expected
    several = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=0-1,4-6")
    assert several.status == 206
    assert several.body.count(b"Content-Type: application/octet-stream\r\n") == 2
    beyond = registry.get(f"/v2/alpine/blobs/{digest}", Range="bytes=9999-")
    assert (beyond.status, beyond.code) == (416, "SIZE_INVALID")
    assert headers(beyond)["Content-Type"] == "application/json"


def endpoints() -> list[str]:
    """At least one for each location of the file."""
    return [
        "/v2",
        "/v2/",
        "/v2/_catalog",
        "/v2/alpine/tags/list",
        *kinds_of_files(),
        "/v2/alpine/manifests/unknown",
        "/v2/alpine/manifests/sha256:malformed",
        f"/v2/alpine/manifests/{NO_BLOB}",
        f"/v2/alpine/blobs/{NO_BLOB}",
        "/v2/alpine/blobs/malformed",
        "/v2/alpine/blobs/uploads/",
        "/v2/unknown/tags/list",
        "/v2/unknown/manifests/1",
        "/v2/UPPER/tags/list",
        "/v2/no/such/endpoint",
    ]


@pytest.mark.parametrize("path", endpoints())
def test_head_is_get_without_the_body(registry: Registry, path: str) -> None:
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
        ("/v2/a/blobs/tags/list", 200, ""),
        ("/v2/a/blobs/blobs/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/alpine/manifests/unknown", 404, "MANIFEST_UNKNOWN"),
        ("/v2/alpine/manifests/Rc1", 404, "MANIFEST_UNKNOWN"),
        ("/v2/alpine/manifests/3.2", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/manifests/{'t' * 127}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/alpine/manifests/not%20a%20tag", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/manifests/{NO_BLOB}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/manifests/{NO_SHA512}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/manifests/{next(iter(ALPINE.blobs))}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/multi/manifests/{ALPINE.digest}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/alpine/blobs/{NO_BLOB}", 404, "BLOB_UNKNOWN"),
        (f"/v2/alpine/blobs/{NO_SHA512}", 404, "BLOB_UNKNOWN"),
        (f"/v2/alpine/blobs/{ALPINE.digest}", 404, "BLOB_UNKNOWN"),
        (f"/v2/multi/blobs/{next(iter(ALPINE.blobs))}", 404, "BLOB_UNKNOWN"),
        ("/v2/Alpine/tags/list", 400, "NAME_INVALID"),
        ("/v2/ALPINE/manifests/3.20", 400, "NAME_INVALID"),
        ("/v2/al..pine/manifests/3.20", 400, "NAME_INVALID"),
        ("/v2/alpine%22/tags/list", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 256}/tags/list", 400, "NAME_INVALID"),
        ("/v2/Alpine/blobs/sha256:0", 400, "NAME_INVALID"),
        ("/v2/alpine/blobs/sha256:0", 400, "DIGEST_INVALID"),
        ("/v2/unknown/blobs/sha256:0", 400, "DIGEST_INVALID"),
        ("/v2/alpine/blobs/latest", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/blobs/{NO_BLOB}0", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/blobs/sha512:{'0' * 64}", 400, "DIGEST_INVALID"),
        ("/v2/alpine/manifests/sha256:0", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/manifests/{ALPINE.digest.upper()}", 400, "DIGEST_INVALID"),
        (f"/v2/alpine/manifests/{NO_BLOB}:", 400, "DIGEST_INVALID"),
        ("/v2/alpine%0a/manifests/3.20", 404, "UNSUPPORTED"),
        ("/v2/alpine", 404, "UNSUPPORTED"),
        ("/v2/alpine/", 404, "UNSUPPORTED"),
        ("/v2/alpine/manifests/", 404, "UNSUPPORTED"),
        ("/v2/alpine/manifests/3.20/", 404, "UNSUPPORTED"),
        ("/v2/alpine/tags/", 404, "UNSUPPORTED"),
        ("/v2/alpine/tags/other", 404, "UNSUPPORTED"),
        ("/v2/alpine/tags/list/", 404, "UNSUPPORTED"),
        ("/v2/tags/list", 404, "UNSUPPORTED"),
        ("/v2/_catalog/", 404, "UNSUPPORTED"),
        ("/v2/_scr/generation", 404, "UNSUPPORTED"),
        ("/v2/%22%5c%0a/", 404, "UNSUPPORTED"),
        ("/v2/" + "a/manifests/" * 580, 404, "UNSUPPORTED"),
        ("/v2/a/manifests/" + ":" * 7000 + "/", 404, "UNSUPPORTED"),
        ("/v2/" + "a-" * 3500 + "/tags/list", 400, "NAME_INVALID"),
        ("/v2/alpine/manifests/" + "A" * 7000, 404, "MANIFEST_UNKNOWN"),
    ],
)
def test_errors_are_those_of_the_specification(registry: Registry, path: str, status: int, code: str) -> None:
    answer = registry.get(path)
    assert answer.status == status
    if status != 200:
        assert answer.code == code
        assert headers(answer) == error_headers(answer)


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X"])
def test_nothing_can_be_pushed(registry: Registry, method: str) -> None:
    for path in (*endpoints(), f"/v2/new/blobs/uploads/?mount={NO_BLOB}"):
        answer = registry.get(path, method=method, body=b"x" * 2_000_000 if method != "X" else b"")
        assert (answer.status, answer.code) == (405, "UNSUPPORTED"), path
        assert headers(answer) == error_headers(answer, allow=True), path
        assert "skopeo copy" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("path", kinds_of_files(), ids=["tag", "manifest", "blob"])
def test_every_spelling_of_a_url_has_the_same_answer(registry: Registry, path: str) -> None:
    plain = registry.get(path)
    for spelling in spellings(path):
        answer = registry.get(spelling)
        assert (answer.status, answer.body, headers(answer)) == (200, plain.body, headers(plain)), spelling


def test_the_rest_of_the_site_is_its_own(registry: Registry, around: tuple[str, str]) -> None:
    if around == IN_A_SITE:
        assert registry.get("/").body == b"the site"
        assert registry.get("/v2extra").body == b"the site"
        assert registry.get("/my/manifests").body == b"a location of the site"
        assert registry.get("/old/alpine/manifests/3.20").body == ALPINE.raw


def test_a_layer_may_be_named_by_sha512(tmp_path: Path, program: str) -> None:
    content = b"a layer that its manifest names by sha512"
    digest = f"sha512:{sha512(content).hexdigest()}"
    built = image("sha512", layers=0)
    layer = f'"layers": [{{"mediaType": "x", "digest": "{digest}", "size": {len(content)}}}]'
    raw = built.raw.replace(b'"layers": []', layer.encode())
    write_image(tmp_path / "app:1", Built(raw, OCI_MANIFEST, {**built.files, digest[7:]: content}))
    with registry_of(tmp_path, generate(tmp_path), program=program) as running:
        answer = running.get(f"/v2/app/blobs/{digest}")
        assert (answer.body, answer.header("Docker-Content-Digest")) == (content, digest)


def test_an_oci_layout_is_served_from_where_its_blobs_lie(tmp_path: Path, program: str) -> None:
    write_layout(tmp_path / "library" / "app", ("1", ALPINE), ("nested", NESTED))
    write_layout(tmp_path / "app:1", (None, MANY))
    with registry_of(tmp_path, generate(tmp_path), program=program) as running:
        serves(running, "library/app", {"1": ALPINE, "nested": NESTED})
        serves(running, "app", {"1": MANY})
        assert running.complaints() == []


# -- what happens to the tree afterwards -------------------------------------------------------------


def test_a_file_that_vanished_is_not_found(tmp_path: Path, program: str, around: tuple[str, str]) -> None:
    root = make_images(tmp_path / "images", {"alpine": {"1": ALPINE}})
    with registry_of(root, generate(root), program=program, around=around) as running:
        digest = next(iter(ALPINE.blobs))
        (root / "alpine" / "1" / "manifest.json").unlink()
        (root / "alpine" / "1" / digest[7:]).unlink()
        for path, code in (
            (f"blobs/{digest}", "BLOB_UNKNOWN"),
            ("manifests/1", "MANIFEST_UNKNOWN"),
            (f"manifests/{ALPINE.digest}", "MANIFEST_UNKNOWN"),
        ):
            answer = running.get(f"/v2/alpine/{path}")
            assert (answer.status, answer.code) == (404, code)
            assert headers(answer) == error_headers(answer)
            answer = running.get(f"/v2/alpine/{path}", method="POST")
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
            assert headers(answer) == error_headers(answer, allow=True)


def test_what_becomes_a_link_later_is_refused(tmp_path: Path, program: str, around: tuple[str, str]) -> None:
    """Whoever may write to the tree must not have nginx read what lies elsewhere."""
    (tmp_path / "secret").write_text("secret")
    root = make_images(tmp_path / "images", {"alpine": {"1": ALPINE}})
    (tmp_path / "way").symlink_to("images")
    with registry_of(
        root, generate(root, "--server-root", tmp_path / "way"), program=program, around=around
    ) as running:
        digest = next(iter(ALPINE.blobs))
        assert running.get(f"/v2/alpine/blobs/{digest}").status == 200, "the way to the tree may be a link"
        for name in (digest[7:], "manifest.json"):
            (root / "alpine" / "1" / name).unlink()
            (root / "alpine" / "1" / name).symlink_to(tmp_path / "secret")
        for path in (f"blobs/{digest}", "manifests/1", f"manifests/{ALPINE.digest}"):
            answer = running.get(f"/v2/alpine/{path}")
            assert (answer.status, answer.code) == (403, "DENIED")


# -- access rules ------------------------------------------------------------------------------------

PASSWORDS = {"passwords": b"reader:{PLAIN}right\n"}
RIGHT = "Basic " + base64.b64encode(b"reader:right").decode()
METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "COPY", "BREW"]


def location_of(text: str, url: str) -> str:
    """The `location` line of the file that nginx chooses for ``url``."""
    lines = re.findall(r'^ *location (?:(=|\^~|~) )?(\S+|".*") \{$', text, re.MULTILINE)
    exact = [path for kind, path in lines if kind == "=" and path == url]
    longest = max(
        (path for kind, path in lines if kind == "^~" and url.startswith(path)), key=len, default=""
    )
    patterns = [
        path.strip('"').replace("?<", "?P<").replace(r"\z", r"\Z") for kind, path in lines if kind == "~"
    ]
    inside = [pattern for pattern in patterns if longest == "/v2/" and re.search(pattern, url)]
    return str([*exact, *inside, longest][0])


def test_every_location_has_a_url_here(tmp_path: Path) -> None:
    text = generate(make_images(tmp_path, {"alpine": {"3.20": ALPINE}})).decode()
    lines = re.findall(r'^ *location (?:=|\^~|~) (\S+|".*") \{$', text, re.MULTILINE)
    assert len(lines) + len(re.findall(r"^location @", text, re.MULTILINE)) == text.count("location ") - len(
        re.findall(r"#.* location ", text)
    )
    more = [f"/v2/alpine/blobs/{digest}" for digest in ALPINE.blobs]
    known = {location_of(text, url) for url in [*endpoints(), *more]}
    wanted = {line.strip('"').replace("?<", "?P<").replace(r"\z", r"\Z") for line in lines}
    assert known == wanted


def requests() -> Iterator[tuple[str, str]]:
    for url in endpoints():
        yield from ((method, url) for method in METHODS)
        for spelling in spellings(url):
            yield from ((method, spelling) for method in ("GET", "HEAD", "PUT"))


def is_refusal(answer: Response, *, method: str, status: int, code: str) -> bool:
    return (
        answer.status == status
        and answer.header("Content-Type") == "application/json"
        and answer.header("Docker-Distribution-Api-Version") == "registry/2.0"
        and answer.header("Docker-Content-Digest") is None
        and (answer.body == b"" if method == "HEAD" else answer.code == code)
    )


@pytest.mark.parametrize(
    ("rules", "status", "code"),
    [
        ('auth_basic "images"; auth_basic_user_file passwords;', 401, "UNAUTHORIZED"),
        ("deny all;", 403, "DENIED"),
        (
            'satisfy any; deny all; auth_basic "images"; auth_basic_user_file passwords;',
            401,
            "UNAUTHORIZED",
        ),
        ("auth_request /auth; location = /auth { internal; return 403; }", 403, "DENIED"),
    ],
    ids=["auth_basic", "deny", "satisfy any", "auth_request"],
)
def test_who_may_not_read_gets_nothing_but_401_or_403(
    root: Path, program: str, rules: str, status: int, code: str
) -> None:
    around = ("", f"{rules} client_max_body_size 1k; include registry.conf;")
    with registry_of(root, generate(root), program=program, around=around, files=PASSWORDS) as running:
        for method, url in requests():
            answer = running.get(url, method=method)
            assert is_refusal(answer, method=method, status=status, code=code), (method, url, answer)
        if status == 401:
            serves(running, "alpine", TREE["alpine"], authorization=RIGHT)
            assert running.get("/v2/_catalog", Authorization=RIGHT).status == 200
            assert running.get("/v2/", Authorization=RIGHT).json() == {}


def test_a_rule_for_some_repositories_holds_for_each_of_their_urls(tmp_path: Path, program: str) -> None:
    tree = {"public": {"1": image("public")}, "internal/app": {"1": image("internal")}}
    root = make_images(tmp_path, tree)
    around = (
        'map $scr_repo $realm { default off; ~^internal/ "internal images"; }',
        "auth_basic $realm; auth_basic_user_file passwords; include registry.conf;",
    )
    with registry_of(root, generate(root), program=program, around=around, files=PASSWORDS) as running:
        built = tree["internal/app"]["1"]
        for path in (
            "tags/list",
            "manifests/1",
            "manifests/unknown",
            f"manifests/{built.digest}",
            f"manifests/{NO_BLOB}",
            *(f"blobs/{digest}" for digest in built.blobs),
            f"blobs/{NO_BLOB}",
            "blobs/malformed",
        ):
            for name in ("internal/app", "internal/unknown"):
                url = f"/v2/{name}/{path}"
                for spelling in [url, *spellings(url), f"/v2/public/../{url[4:]}"]:
                    for method in ("GET", "HEAD", "PUT"):
                        answer = running.get(spelling, method=method)
                        assert is_refusal(answer, method=method, status=401, code="UNAUTHORIZED"), spelling
        serves(running, "internal/app", tree["internal/app"], authorization=RIGHT)
        serves(running, "public", tree["public"])
        assert running.get("/elsewhere").status == 404
        assert not [line for line in running.complaints() if "uninitialized" in line]


def test_too_many_requests_are_said_with_the_status_of_the_site(root: Path, program: str) -> None:
    for status in (429, 503):
        http = "limit_req_zone $scheme zone=few:1m rate=1r/m;"
        server = f"limit_req zone=few; limit_req_status {status}; include registry.conf;"
        with registry_of(root, generate(root), program=program, around=(http, server)) as running:
            answers = [running.get("/v2/alpine/manifests/3.20") for _ in range(3)]
            assert (answers[-1].status, answers[-1].code) == (status, "TOOMANYREQUESTS")
            assert headers(answers[-1]) == error_headers(answers[-1])


# -- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["mirror", "mirror/", "/mirror/", "a/b"])
def test_a_prefix_goes_before_every_name(tmp_path: Path, program: str, prefix: str) -> None:
    tree = {name: images for name, images in TREE.items() if len(name) < 50 and name != "many"}
    root = make_images(tmp_path, tree)
    with registry_of(root, generate(root, "--name-prefix", prefix), program=program) as running:
        name = prefix.strip("/")
        serves(running, f"{name}/alpine", TREE["alpine"])
        serves(running, f"{name}/a/manifests", TREE["a/manifests"])
        assert running.get("/v2/alpine/tags/list").code == "NAME_UNKNOWN"
        assert running.get("/v2/_catalog").json() == {
            "repositories": [f"{name}/{each}" for each in sorted(tree)]
        }


def test_the_tree_may_lie_elsewhere_on_the_server(root: Path, tmp_path: Path, program: str) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.symlink_to(root)
    text = generate(root, "--server-root", f"{elsewhere}/")
    assert str(root).encode() not in text
    with registry_of(root, text, program=program) as running:
        serves(running, "alpine", TREE["alpine"])


@pytest.mark.parametrize(
    ("option", "below"),
    [("$registry_root", ""), ("${registry_root}", ""), ("$registry_root/images", "/..")],
)
def test_the_site_may_say_in_a_variable_where_the_tree_lies(
    root: Path, program: str, option: str, below: str
) -> None:
    text = generate(root, "--server-root", option)
    assert str(root).encode() not in text
    around = ("", f"set $registry_root {os.path.normpath(f'{root}{below}')}; include registry.conf;")
    with registry_of(root, text, program=program, around=around) as running:
        serves(running, "alpine", TREE["alpine"])
        serves(running, "multi", TREE["multi"])
        assert not running.complaints()


def test_several_trees_share_a_server_and_one_set_of_constants(tmp_path: Path, program: str) -> None:
    """In whatever order they are included, and below other prefixes or none."""
    trees = {
        "": {"app": {"1": image("app")}, "many": dict.fromkeys(MANY_TAGS, MANY)},
        "mirror": {"app": {"1": image("mirror")}},
        "other/one": {"app": {"2": image("other")}, "many": {"3": MANY}},
    }
    files = {"constants.conf": generate("--only-constants")}
    for number, (prefix, tree) in enumerate(trees.items()):
        root = make_images(tmp_path / str(number), tree)
        files[f"{number}.conf"] = generate(root, "--omit-constants", "--name-prefix", prefix)
    for order in (["constants", "0", "1", "2"], ["2", "1", "constants", "0"], ["0", "1", "2", "constants"]):
        server = "".join(f"include {name}.conf;" for name in order)
        with nginx_with("", server, files=files, program=program) as nginx:
            running = Registry(nginx, tmp_path)
            for prefix, tree in trees.items():
                for name, images in tree.items():
                    serves(running, f"{prefix}/{name}".lstrip("/"), images)
            by_include = [
                f"{list(trees)[int(each)]}/{name}".lstrip("/")
                for each in order
                if each != "constants"
                for name in trees[list(trees)[int(each)]]
            ]
            assert running.get("/v2/_catalog").json() == {"repositories": by_include}
            assert running.get("/v2/mirror/unknown/tags/list").code == "NAME_UNKNOWN"
            assert running.get("/v2/mirror/app/manifests/1", method="PUT").status == 405
            assert not running.complaints()


def test_both_halves_are_the_whole(root: Path) -> None:
    assert generate(root) == generate(root, "--omit-constants") + generate("--only-constants")


def test_constants_alone_are_a_registry_without_images(tmp_path: Path, program: str) -> None:
    with registry_of(tmp_path, generate("--only-constants"), program=program) as running:
        assert running.get("/v2/").json() == {}
        assert running.get("/v2/_catalog").json() == {"repositories": []}
        assert running.get("/v2/any/manifests/1").code == "NAME_UNKNOWN"
        assert not running.complaints()


def test_the_root_is_the_working_directory_unless_named(root: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "scr_watchd", "generate"],
        cwd=root,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == generate(root)


def test_beside_the_files_of_a_daemon_in_the_same_nginx(root: Path, program: str) -> None:
    """Another server {} of this nginx is served by `scr-watchd run`."""
    rendered = render(catalog_with([("daemon", "1", b"x")]), store="/nowhere")
    http = 'include hash.conf; include http.conf; map $scr_repo $realm { default off; daemon "its"; }'
    other = "auth_basic $realm; auth_basic_user_file passwords; include server.conf;"
    with public_directory() as directory:
        extra = f"server {{ listen unix:{directory}/other.sock; {other} }}"
        files = {**rendered.files, **PASSWORDS, "registry.conf": generate(root)}
        with nginx_with(http, "include registry.conf;", files=files, program=program, extra=extra) as nginx:
            serves(Registry(nginx, root), "alpine", TREE["alpine"])
            daemons = Registry(Running(f"{directory}/other.sock", nginx.directory, nginx.process), root)
            assert daemons.get("/v2/daemon/tags/list").status == 401
            assert daemons.get("/v2/daemon/tags/list", Authorization=RIGHT).json()["tags"] == ["1"]


# -- output --------------------------------------------------------------------------------------------


def test_a_file_is_replaced_in_one_step_and_a_link_to_it_stays(root: Path, tmp_path: Path) -> None:
    live, link = tmp_path / "live.conf", tmp_path / "enabled.conf"
    live.write_text("# the old one\n")
    link.symlink_to("live.conf")
    old = live.stat().st_ino
    assert generate(root, "-o", link) == b""
    assert live.read_bytes() == generate(root)
    assert link.is_symlink()
    assert live.stat().st_ino != old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enabled.conf", "live.conf"]


def test_many_at_once_leave_a_whole_file_at_every_moment(root: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.conf"
    whole = generate(root)
    live.write_bytes(whole)
    command = [sys.executable, "-m", "scr_watchd", "generate", str(root), "-o", str(live)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(8)]
    while any(each.poll() is None for each in running):
        assert live.read_bytes() == whole
    assert [each.communicate(timeout=10)[1] for each in running] == [b""] * 8
    assert [each.returncode for each in running] == [0] * 8
    assert [path.name for path in tmp_path.iterdir()] == ["live.conf"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        pytest.param(["{tmp}/missing"], 1, "cannot be read", id="no such root"),
        pytest.param(["{tmp}/file"], 1, "cannot be read", id="a file"),
        pytest.param(["{tmp}/empty"], 1, "no image to serve", id="an unmounted disk"),
        pytest.param(["{tmp}/broken"], 1, "no image to serve", id="nothing but broken images"),
        pytest.param(["{tmp}/dollar$"], 1, "--server-root", id="a root that nginx cannot be told"),
        pytest.param(["{tmp}/images", "--name-prefix", "UPPER"], 2, "lower-case", id="a bad prefix"),
        pytest.param(["{tmp}/images", "--server-root", "images"], 2, "absolute", id="a relative root"),
        pytest.param(["{tmp}/images", "--server-root", "/a$b"], 2, "nginx cannot", id="a $ in the middle"),
        pytest.param(["{tmp}/images", "--server-root", "$"], 2, "variable", id="no variable"),
        pytest.param(["{tmp}/images", "--server-root", "$a b"], 2, "variable", id="a bad variable"),
        pytest.param(
            ["{tmp}/images", "--only-constants", "--omit-constants"], 2, "not allowed", id="nothing at all"
        ),
    ],
)
def test_what_fails_prints_nothing_and_leaves_the_live_file(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    make_images(tmp_path / "images", {"app": {"1": ALPINE}})
    make_images(tmp_path / "dollar$", {"app": {"1": ALPINE}})
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    broken = make_images(tmp_path / "broken", {"app": {"1": ALPINE}})
    (broken / "app" / "1" / next(iter(ALPINE.blobs))[7:]).unlink()
    live = tmp_path / "live.conf"
    live.write_text("# the old one\n")
    named = [each.replace("{tmp}", str(tmp_path)) for each in arguments]
    for more in ([], ["-o", live]):
        result = scr_watchd("generate", *named, *more)
        assert (result.returncode, result.stdout) == (status, ""), result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert live.read_text() == "# the old one\n"


def test_a_directory_that_cannot_be_written_is_a_sentence(root: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "missing" / "file", tmp_path, "/dev/stdout"):
        result = scr_watchd("generate", root, "-o", output)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("scr-watchd: ")
        assert "Traceback" not in result.stderr


def test_one_broken_image_hides_no_other(tmp_path: Path, program: str) -> None:
    root = make_images(tmp_path / "images", {"good": {"1": ALPINE}, "bad": {"1": DOCKER, "2": ALPINE}})
    (root / "bad" / "1" / next(iter(DOCKER.blobs))[7:]).unlink()
    live = tmp_path / "live.conf"
    result = scr_watchd("generate", root, "-o", live)
    assert (result.returncode, result.stdout) == (3, "")
    assert f"not served: {root}/bad/1\n  blob sha256:" in result.stderr
    assert "skopeo copy docker://SOURCE" in result.stderr
    with registry_of(root, live.read_bytes(), program=program) as running:
        serves(running, "good", {"1": ALPINE})
        serves(running, "bad", {"2": ALPINE})


# -- hostile directories -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"with space",
        b"quo'te",
        b'double"quote',
        b"back\\slash",
        b"trailing\\",
        b"semi;colon",
        b"{ braces }",
        b"#comment",
        b"new\\nline",
        b"*?[a]",
        b"percent%20",
        "umläut".encode(),
        b"\xff\xfe",
        b"@NAME@ @LIST@ @TAGS@ @BLOBS@",
        b"x" * 250,
    ],
)
def test_a_root_of_any_name_is_served(tmp_path: Path, program: str, name: bytes) -> None:
    root = make_images(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)), {"app": {"1": ALPINE}})
    assert generate(root, "-o", tmp_path / "registry.conf") == b""
    with registry_of(root, (tmp_path / "registry.conf").read_bytes(), program=program) as running:
        serves(running, "app", {"1": ALPINE})


@pytest.mark.parametrize("name", [b"dol$lar", b"new\nline", b"\x01", b"$scr_repo", b"d" * 250 + b"$"])
def test_a_path_that_nginx_cannot_be_told_is_a_problem_and_not_a_broken_file(
    tmp_path: Path, program: str, name: bytes
) -> None:
    """Names and tags are parsed, but a link may lead to a directory of any name."""
    root = make_images(tmp_path / "images", {"app": {"1": ALPINE}})
    target = os.fsdecode(os.fsencode(root) + b"/.hidden/" + name)
    write_image(Path(target), DOCKER)
    (root / "app" / "2").symlink_to(target)
    (root / "app" / "3").symlink_to(root / "app" / "1")
    result = scr_watchd("generate", root, "-o", tmp_path / "registry.conf")
    assert result.returncode == 3
    assert f"not served: {root}/.hidden/" in result.stderr
    assert "nginx cannot be told" in result.stderr
    with registry_of(root, (tmp_path / "registry.conf").read_bytes(), program=program) as running:
        serves(running, "app", {"1": ALPINE, "3": ALPINE})
        assert running.get(f"/v2/app/manifests/{DOCKER.digest}").code == "MANIFEST_UNKNOWN"


def test_a_link_may_lead_to_a_directory_of_an_odd_name(tmp_path: Path, program: str) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": ALPINE}})
    odd = write_image(root / ".it's; {odd}", DOCKER)
    (root / "app" / "2").symlink_to(odd)
    with registry_of(root, generate(root), program=program) as running:
        serves(running, "app", {"1": ALPINE, "2": DOCKER})


def test_a_name_that_no_location_can_have_is_a_problem(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": ALPINE}, LONG_NAME[:-1] + "xx": {"1": DOCKER}})
    result = scr_watchd("generate", root)
    assert result.returncode == 3
    assert f"of more than {LONGEST_NAME} characters, and this has {LONGEST_NAME + 1}\n" in result.stderr
    assert LONG_NAME[:-1] not in result.stdout


# -- real clients --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Where each kind of image comes from, and skopeo's options that keep it that kind."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    single = workshop.build("single")
    both = workshop.build_list("both", amd64="for amd64", arm64="for arm64")
    return {
        "oci": (single, ("--format", "oci")),
        "v2s2": (single, ("--format", "v2s2", "--dest-compress")),
        "list": (both, ("--all",)),
        "v2s2-list": (both, ("--all", "--format", "v2s2")),
    }


@pytest.mark.slow
def test_real_images_come_back_as_they_went_in(
    sources: dict[str, tuple[str, tuple[str, ...]]], tmp_path: Path, program: str
) -> None:
    root = tmp_path / "an odd 'root'"
    (root / "library").mkdir(parents=True)
    for kind, (source, options) in sources.items():
        skopeo("copy", "--quiet", *options, source, f"dir:{root}/library/{kind}:1.0")
    address = f"127.0.0.1:{free_port()}"
    around = ("", f"listen {address}; include registry.conf;")
    with registry_of(root, generate(root, "--name-prefix", "mirror"), program=program, around=around):
        for kind in sources:
            name = f"docker://{address}/mirror/library/{kind}:1.0"
            came, went = tmp_path / kind, root / "library" / f"{kind}:1.0"
            skopeo("copy", "--quiet", "--all", "--src-tls-verify=false", name, f"dir:{came}")
            assert_same(came, went)
            assert '"Architecture": "amd64"' in skopeo("inspect", "--tls-verify=false", name)
        listed = skopeo("list-tags", "--tls-verify=false", f"docker://{address}/mirror/library/oci")
        assert '"Tags": [\n        "1.0"\n    ]' in listed


def assert_same(came: Path, went: Path) -> None:
    """Every file that went in came out, but for skopeo's note of its own version."""
    names = {path.name for path in went.iterdir()} - {"version"}
    assert {path.name for path in came.iterdir()} - {"version"} == names
    for name in names:
        assert (came / name).read_bytes() == (went / name).read_bytes(), name
