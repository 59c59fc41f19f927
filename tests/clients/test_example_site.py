"""The files of config/ as an operator would use them: beside a second site, pulled from for real."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scr_watchd.publish.nginx import inspect, temp_paths, user_directive
from tests.clients.real_images import Workshop, skopeo
from tests.daemons import daemon, free_port, public_directory
from tests.http import ask
from tests.nginxes import require
from tests.waiting import until

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parent.parent.parent / "config"


@pytest.fixture
def directory() -> Iterator[Path]:
    with public_directory() as made:
        yield made


def start(directory: Path, example: str, other_port: int) -> subprocess.Popen[bytes]:
    """An nginx as Debian configures it: conf.d is read inside http {}, and there is another site."""
    (directory / "conf.d").mkdir()
    (directory / "conf.d" / "registry.conf").write_text(example)
    (directory / "conf.d" / "zother.conf").write_text(
        f'server {{ listen 127.0.0.1:{other_port}; location / {{ return 200 "the other site"; }} }}'
    )
    binary = inspect(require("nginx"))
    (directory / "nginx.conf").write_text(
        f"""
        {user_directive(os.geteuid())}
        daemon off;
        pid {directory}/nginx.pid;
        error_log {directory}/error.log;
        events {{ worker_connections 256; }}
        http {{
            access_log off;
            {temp_paths(binary, directory)}
            include {directory}/conf.d/*.conf;
        }}
        """
    )
    return subprocess.Popen([binary.path, "-p", directory, "-c", directory / "nginx.conf"])


def answers(address: str) -> bool:
    try:
        ask(address, "/")
    except OSError:
        return False
    return True


def test_the_example_site_serves_beside_another(directory: Path, tmp_path: Path) -> None:
    images, state, port, other = directory / "images", directory / "state", free_port(), free_port()
    images.mkdir()
    example = (CONFIG / "nginx-site.conf").read_text()
    assert "/var/lib/scr-watchd/" in example
    example = example.replace("/var/lib/scr-watchd/", f"{state}/")
    example = re.sub(r"listen 80;", f"listen 127.0.0.1:{port};", example)
    source = Workshop(tmp_path / "workshop").build("app")
    with daemon("run", images, "--state", state, "--nginx-config", directory / "nginx.conf") as process:
        until(lambda: (state / "nginx" / "current").exists())
        nginx = start(directory, example, other)
        try:
            until(lambda: answers(f"127.0.0.1:{other}"))
            skopeo("copy", "--quiet", source, f"dir:{images}/app:1")
            process.says(r"^app:1 is there")
            skopeo(
                "copy",
                "--quiet",
                "--src-tls-verify=false",
                f"docker://127.0.0.1:{port}/app:1",
                f"dir:{tmp_path}/came",
            )
            assert (tmp_path / "came" / "manifest.json").read_bytes() == (
                images / "app:1" / "manifest.json"
            ).read_bytes()
            assert ask(f"127.0.0.1:{other}", "/").body == b"the other site"
        finally:
            nginx.terminate()
            nginx.wait(10)


def test_the_example_with_tls_and_passwords(directory: Path, tmp_path: Path) -> None:
    images, state, port, other = directory / "images", directory / "state", free_port(), free_port()
    images.mkdir()
    certificates = directory / "certificates"
    certificates.mkdir()
    openssl = require("openssl")
    _run(
        openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", certificates / "key.pem", "-out", certificates / "ca.crt",
    )  # fmt: skip
    passwords = directory / "passwords"
    passwords.write_text(f"reader:{_run(openssl, 'passwd', '-apr1', 'secret').strip()}\n")
    example = (CONFIG / "nginx-tls-auth.conf").read_text().replace("/var/lib/scr-watchd/", f"{state}/")
    example = re.sub(
        r"^( *)ssl_certificate .*;", rf"\1ssl_certificate {certificates}/ca.crt;", example, flags=re.MULTILINE
    )
    example = re.sub(
        r"^( *)ssl_certificate_key .*;",
        rf"\1ssl_certificate_key {certificates}/key.pem;",
        example,
        flags=re.MULTILINE,
    )
    example = re.sub(
        r"^( *)auth_basic_user_file .*;", rf"\1auth_basic_user_file {passwords};", example, flags=re.MULTILINE
    )
    example = re.sub(r"listen 443 ssl([^;]*);", rf"listen 127.0.0.1:{port} ssl\1;", example)
    example = re.sub(r"listen 80;", f"listen 127.0.0.1:{free_port()};", example)
    source = Workshop(tmp_path / "workshop").build("app")
    with daemon("run", images, "--state", state, "--nginx-config", directory / "nginx.conf") as process:
        until(lambda: (state / "nginx" / "current").exists())
        nginx = start(directory, example, other)
        try:
            until(lambda: answers(f"127.0.0.1:{other}"))
            skopeo("copy", "--quiet", source, f"dir:{images}/app:1")
            process.says(r"^app:1 is there")
            pull = ("copy", "--quiet", "--src-cert-dir", certificates)
            skopeo(
                *pull,
                "--src-creds",
                "reader:secret",
                f"docker://localhost:{port}/app:1",
                f"dir:{tmp_path}/came",
            )
            assert (tmp_path / "came" / "manifest.json").read_bytes() == (
                images / "app:1" / "manifest.json"
            ).read_bytes()
            with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
                skopeo(*pull, "--src-no-creds", f"docker://localhost:{port}/app:1", f"dir:{tmp_path}/no")
        finally:
            nginx.terminate()
            nginx.wait(10)


def _run(*command: object) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout
