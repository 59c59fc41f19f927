"""The files of config/ for nginx as an operator would use them: sites of ours beside another, and parts for a
site of one's own (the include, the log of pulls, the cache in front)."""

import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scr_watchd.publish.nginx import inspect
from tests.clients.real_images import Workshop, assert_same, pull, skopeo
from tests.daemons import Site, daemon, free_port, public_directory, scr_watchd, site, start_nginx
from tests.engines import run
from tests.http import ask
from tests.nginxes import require
from tests.trees import image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parent.parent.parent / "config"


@pytest.fixture
def directory() -> Iterator[Path]:
    with public_directory() as made:
        yield made


@contextmanager
def own_site(directory: Path) -> Iterator[Site]:
    """A site of one's own without a word of ours; nginx is not started yet."""
    with site(directory / "site", directory / "state", program=require("nginx"), start=False) as made:
        text = made.config.read_text()
        ours = re.search(r"server \{\s*listen [^}]*server\*\.conf;\s*\}", text)
        assert ours
        made.config.write_text(re.sub(r"include [^;]*/nginx/current/h[^;]*;", "", text.replace(ours[0], "")))
        yield made


def example(name: str, directory: Path) -> str:
    """A file of config/ for generations in ``directory``/state."""
    text = (CONFIG / name).read_text()
    assert "/var/lib/scr-watchd/" in text
    return text.replace("/var/lib/scr-watchd/", f"{directory}/state/")


@contextmanager
def beside_another(directory: Path, text: str, source: str) -> Iterator[tuple[Site, Path]]:
    """A site in its file of its own: what serves it, and the image app:1 that it serves."""
    images, state = directory / "images", directory / "state"
    images.mkdir()
    with (
        own_site(directory) as made,
        daemon("run", images, "--state", state, "--nginx-config", made.config) as process,
    ):
        until(lambda: (state / "nginx" / "current").exists())
        text = re.sub(r"listen 443 ssl([^;]*);", rf"listen 127.0.0.1:{made.port} ssl\1;", text)
        text = re.sub(r"listen 80;", f"listen 127.0.0.1:{made.port};", text)
        (made.directory / "conf.d" / "registry.conf").write_text(text)
        start_nginx(made, require("nginx"))
        skopeo("copy", "--quiet", source, f"dir:{images}/app:1")
        process.says(r"^app:1 is there")
        yield made, images / "app:1"
        assert made.other().body == b"the other site"


def test_the_example_site_serves_beside_another(directory: Path, tmp_path: Path) -> None:
    source = Workshop(tmp_path / "workshop").build("app")
    with beside_another(directory, example("nginx-site.conf", directory), source) as (made, target):
        assert_same(pull(made.registry, "app:1", tmp_path / "came"), target)


def test_the_example_with_tls_and_passwords(directory: Path, tmp_path: Path) -> None:
    certificates, openssl = directory / "certificates", require("openssl")
    certificates.mkdir()
    run(
        openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", certificates / "key.pem", "-out", certificates / "ca.crt",
    )  # fmt: skip
    passwords = directory / "passwords"
    passwords.write_text(f"reader:{run(openssl, 'passwd', '-apr1', 'secret').strip()}\n")
    text = example("nginx-tls-auth.conf", directory)
    for directive, file in (
        ("ssl_certificate", certificates / "ca.crt"),
        ("ssl_certificate_key", certificates / "key.pem"),
        ("auth_basic_user_file", passwords),
    ):
        text = re.sub(rf"^( *){directive} .*;", rf"\1{directive} {file};", text, flags=re.MULTILINE)
    source = Workshop(tmp_path / "workshop").build("app")
    trust = ("--src-cert-dir", certificates)
    with beside_another(directory, text, source) as (made, target):
        address = f"localhost:{made.port}"
        came = pull(address, "app:1", tmp_path / "came", *trust, "--src-creds", "reader:secret")
        assert_same(came, target)
        with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
            pull(address, "app:1", tmp_path / "no", *trust, "--src-no-creds")


def snippets(directory: Path) -> tuple[str, str]:
    """nginx-http.conf and nginx-server.conf with the places of this test."""
    http, server = (example(f"nginx-{name}.conf", directory) for name in ("http", "server"))
    return http, server.replace("/var/log/nginx/", f"{directory}/")


def host(directory: Path, made: Site) -> None:
    """A site of one's own with one more line in its server, as the comments say."""
    http, server = snippets(directory)
    (made.directory / "snippets").mkdir()
    (made.directory / "snippets" / "scr-watchd.conf").write_text(server)
    (made.directory / "conf.d" / "00-scr-watchd.conf").write_text(http)
    (made.directory / "conf.d" / "own.conf").write_text(
        f"server {{ listen 127.0.0.1:{made.port}; include snippets/scr-watchd.conf; "
        "location / { return 200 mine; } }"
    )


def test_one_line_in_a_server_is_enough_and_the_log_tells_who_pulls(directory: Path) -> None:
    images, state = directory / "images", directory / "state"
    built = image("app")
    write_image(images / "app:1", built)
    with own_site(directory) as made:
        host(directory, made)
        start_nginx(made, require("nginx"))
        assert ask(made.registry, "/v2/").body == b"mine", "nginx starts before scr-watchd has ever run"
        with daemon("run", images, "--state", state, "--nginx-config", made.config) as process:
            process.says(r"^app:1 is there")
            for reference in ("1", built.digest, "2"):
                made.ask(f"/v2/app/manifests/{reference}", headers={"User-Agent": "docker/27"})
            looked = {"Referer": f"http://{made.registry}/v2/_scr/"}  # the page, which pulls nothing
            assert made.ask("/v2/app/manifests/1", headers=looked).status == 200
            for digest in built.blobs:
                assert made.ask(f"/v2/app/blobs/{digest}").status == 200
            assert made.ask("/somewhere").body == b"mine"
        log = directory / "pulls.log"
        lines = until(lambda: log.read_text().splitlines(), lambda it: len(it) >= 3)
        rows = [line.split(" ", 8) for line in lines]
        assert [row[4:] for row in rows] == [
            ["200", "app", "1", built.digest, '"docker/27"'],
            ["200", "app", "-", built.digest, '"docker/27"'],
            ["404", "app", "2", "-", '"docker/27"'],
        ]
        assert evaluated(log) == ["1 127.0.0.1"]
        assert "GET /somewhere" in (directory / "access.log").read_text()


def test_the_list_of_networks_and_the_password_are_asked_together(directory: Path) -> None:
    images, state = directory / "images", directory / "state"
    write_image(images / "app:1", image("app"))
    passwords = directory / "passwords"
    passwords.write_text(f"puller:{run(require('openssl'), 'passwd', '-apr1', 'secret')}")
    text = re.sub(r"^ *ssl_.*;$", "", example("nginx-tls-auth.conf", directory), flags=re.MULTILINE)
    text = text.replace("/etc/nginx/registry.htpasswd;", f"{passwords};")
    with own_site(directory) as made:
        ours = made.directory / "conf.d" / "ours.conf"
        ours.write_text(text.replace("listen 443 ssl;", f"listen 127.0.0.1:{made.port};"))
        start_nginx(made, require("nginx"))
        credentials = {"Authorization": "Basic " + b64encode(b"puller:secret").decode()}
        with daemon("run", images, "--state", state, "--nginx-config", made.config) as process:
            process.says(r"^app:1 is there")
            answer = made.ask("/v2/app/tags/list")
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
            assert made.ask("/v2/app/tags/list", headers=credentials).status == 200
            ours.write_text(ours.read_text().replace("allow 127.0.0.0/8;", ""))
            shutil.rmtree(images / "app:1")  # a reload
            process.says(r"^app:1 is gone")
            answer = made.ask("/v2/app/tags/list", headers=credentials)
            assert (answer.status, answer.code) == (403, "DENIED")


def evaluated(log: Path) -> list[str]:
    """What the command in the comments of nginx-http.conf prints."""
    command = re.search(r"^# +(awk '\$5.*)$", (CONFIG / "nginx-http.conf").read_text(), re.MULTILINE)
    assert command
    said = subprocess.run(
        ["sh", "-ec", command[1].replace("/var/log/nginx/pulls.log", str(log))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [" ".join(line.split()) for line in said.stdout.splitlines()]


def test_nginx_accepts_the_snippets_when_what_they_include_is_gone(directory: Path) -> None:
    images, state = directory / "images", directory / "state"
    write_image(images / "app:1", image("app"))
    with own_site(directory) as made:
        host(directory, made)
        assert (
            scr_watchd("run", images, "--state", state, "--nginx-config", made.config, "--once").returncode
            == 3
        )
        check = [inspect(require("nginx")).path, "-t", "-p", str(made.directory), "-c", str(made.config)]
        subprocess.run(check, check=True, capture_output=True)
        shutil.rmtree(state)
        subprocess.run(check, check=True, capture_output=True)


def test_a_cache_in_front_keeps_digests_and_asks_again_for_tags(directory: Path) -> None:
    images, state, cache = directory / "images", directory / "state", free_port()
    write_image(images / "app:1", image("app"))
    with site(directory / "site", state, program=require("nginx"), start=False) as made:
        text = (CONFIG / "nginx-cache.conf").read_text().replace("mirror.example.com:80", made.registry)
        text = text.replace("/var/cache/nginx/registry", f"{directory}/cache").replace(
            "listen 80", f"listen 127.0.0.1:{cache}"
        )
        (made.directory / "conf.d" / "cache.conf").write_text(text)
        start_nginx(made, require("nginx"))
        with daemon("run", images, "--state", state, "--nginx-config", made.config) as process:
            process.says(r"^app:1 is there")
            made.ask("/")  # no reload is half done
            (digest, *_), address = image("app").blobs, f"127.0.0.1:{cache}"
            assert ask(address, "/v2/app/manifests/1").header("Docker-Content-Digest") == image("app").digest
            kept = [ask(address, f"/v2/app/blobs/{digest}") for _ in range(2)]
            assert [answer.header("X-Cache-Status") for answer in kept] == ["MISS", "HIT"]
            assert kept[1].body == image("app").blobs[digest]
            assert kept[1].header("Docker-Content-Digest") == digest
            assert ask(address, f"/v2/app/blobs/{digest}", headers={"Range": "bytes=1-2"}).status == 206
            assert ask(address, f"/v2/app/blobs/{digest}", method="HEAD").status == 200
            shutil.rmtree(images / "app:1")
            write_image(images / "app:1", image("new"))
            process.says(r"^app:1 was replaced")
            made.ask("/")
            assert ask(address, "/v2/app/manifests/1").header("Docker-Content-Digest") == image("new").digest
            missing = ask(address, "/v2/app/manifests/2")
            assert (missing.status, missing.code) == (404, "MANIFEST_UNKNOWN")
