"""The answers are the same however they come: by HTTP/2 and HTTP/3, by IPv6, and from a socket behind another
nginx. What they are, test_http_contract.py says of HTTP/1.1."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scr_watchd.publish.nginx import inspect
from tests.certificates import make_pair
from tests.daemons import free_port
from tests.http import Response, ask
from tests.nginxes import binaries, nginx_with, require
from tests.render.contract import ALPINE, DOCKER, NO_BLOB
from tests.render.site import OURS, Site, site
from tests.roots import root
from tests.trees import image, index

TREE = {"alpine": {"3.20": ALPINE, "docker": DOCKER}, "multi": {"1": index(ALPINE, image("other"))}}
BLOB = next(iter(ALPINE.blobs))
REQUESTS = [
    ("GET", "/v2", {}),
    ("GET", "/v2/", {}),
    ("GET", "/v2/_catalog?n=1", {}),
    ("GET", "/v2/_scr/generation", {}),
    ("GET", "/v2/alpine/tags/list", {}),
    ("GET", "/v2/alpine/manifests/3.20", {}),
    ("HEAD", "/v2/alpine/manifests/docker", {}),
    ("GET", f"/v2/multi/manifests/{ALPINE.digest}", {}),
    ("HEAD", f"/v2/alpine/blobs/{BLOB}", {}),
    ("GET", f"/v2/alpine/blobs/{BLOB}", {"Range": "bytes=3-9"}),
    ("GET", f"/v2/alpine/blobs/{BLOB}", {"Range": "bytes=9999-"}),
    ("GET", f"/v2/alpine/blobs/{NO_BLOB}", {}),
    ("GET", "/v2/unknown/tags/list", {}),
    ("PUT", "/v2/alpine/manifests/3.20", {}),
]
OF_A_CONNECTION = ("connection", "date", "server", "keep-alive", "transfer-encoding")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


def told(answer: Response) -> tuple[int, dict[str, str], bytes]:
    headers = {name.lower(): value for name, value in answer.headers}
    return (
        answer.status,
        {name: headers[name] for name in headers if name not in OF_A_CONNECTION},
        answer.body,
    )


def assert_the_same(running: Site, other: Callable[[str, str, dict[str, str]], Response]) -> None:
    for method, path, headers in REQUESTS:
        plain = running.nginx.ask(path, method=method, headers=headers)
        assert told(other(method, path, headers)) == told(plain), (method, path, headers)
    assert not running.complaints()


@contextmanager
def encrypted(tmp_path: Path, program: str, listen: str, *, more: str = "") -> Iterator[Site]:
    certificate, key = make_pair(tmp_path, "site")
    server = f"{listen} ssl_certificate {certificate}; ssl_certificate_key {key}; {more} include server.conf;"
    with site(tmp_path, TREE, program=program, http=OURS, server=server) as running:
        yield running


def by_curl(curl: str, option: str, port: int, certificate: Path) -> Callable[..., Response]:
    def asked(method: str, path: str, headers: dict[str, str]) -> Response:
        how = ("--head",) if method == "HEAD" else ("--request", method, "--dump-header", "-")
        lines = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
        output = subprocess.run(
            [curl, "--silent", "--show-error", "--max-time", "10", "--cacert", certificate, option, *how,
             *lines, f"https://127.0.0.1:{port}{path}"],
            capture_output=True, check=False,
        )  # fmt: skip
        assert output.returncode == 0, output.stderr.decode()
        head, _, body = output.stdout.partition(b"\r\n\r\n")
        status, *rows = head.decode().split("\r\n")
        assert status.split()[0] == {"--http2": "HTTP/2", "--http3-only": "HTTP/3"}[option]
        pairs = [row.partition(": ") for row in rows]
        return Response(int(status.split()[1]), tuple((name, value) for name, _, value in pairs), body)

    return asked


def test_by_http_2(tmp_path: Path, program: str) -> None:
    nginx, port = inspect(program), free_port()
    old = nginx.version < (1, 25, 1)
    listen = f"listen 127.0.0.1:{port} ssl{' http2' if old else ''};"
    with encrypted(tmp_path, program, listen, more="" if old else "http2 on;") as running:
        assert_the_same(running, by_curl(require("curl"), "--http2", port, tmp_path / "site.crt"))


def test_by_http_3_where_it_is_built_in(tmp_path: Path, program: str) -> None:
    nginx, port = inspect(program), free_port()
    if "--with-http_v3_module" not in nginx.arguments:
        assert nginx.version < (1, 25) or "wheel" in program
        return
    with encrypted(tmp_path, program, f"listen 127.0.0.1:{port} quic reuseport;") as running:
        curl = root("trixie").program("curl")
        assert_the_same(running, by_curl(curl, "--http3-only", port, tmp_path / "site.crt"))


def test_by_ipv6(tmp_path: Path, program: str) -> None:
    address = f"[::1]:{free_port()}"
    with site(tmp_path, TREE, program=program, server=f"listen {address}; include server.conf;") as running:
        assert_the_same(
            running, lambda method, path, headers: ask(address, path, method=method, headers=headers)
        )


def test_from_a_socket_behind_another_nginx(tmp_path: Path, program: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    with site(tmp_path, TREE, program=program) as running:
        behind = f"proxy_pass http://unix:{running.nginx.socket}:; proxy_set_header Host $http_host;"
        with nginx_with("", f"listen {address}; location / {{ {behind} }}", program=program):
            assert_the_same(
                running, lambda method, path, headers: ask(address, path, method=method, headers=headers)
            )
