"""The parts of config/ for a site of one's own: the include, the log of pulls, the cache in front."""

import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from scr_watchd.publish.nginx import inspect
from tests.daemons import Site, daemon, free_port, public_directory, scr_watchd, site, start_nginx
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


def snippets(directory: Path) -> tuple[str, str]:
    """nginx-http.conf and nginx-server.conf with the places of this test."""
    state = directory / "state"
    http, server = ((CONFIG / f"nginx-{name}.conf").read_text() for name in ("http", "server"))
    return (
        http.replace("/var/lib/scr-watchd/", f"{state}/"),
        server.replace("/var/lib/scr-watchd/", f"{state}/").replace("/var/log/nginx/", f"{directory}/"),
    )


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
    made.config.write_text(without_us(made.config.read_text()))


def without_us(config: str) -> str:
    """The main configuration of tests/daemons.py, with its other site only."""
    ours = re.search(r"server \{\s*listen [^}]*server\*\.conf;\s*\}", config)
    assert ours
    return re.sub(r"include [^;]*/nginx/current/h[^;]*;", "", config.replace(ours[0], ""))


def test_one_line_in_a_server_is_enough_and_the_log_tells_who_pulls(directory: Path) -> None:
    images, state = directory / "images", directory / "state"
    built = image("app")
    write_image(images / "app:1", built)
    with site(directory / "site", state, program=require("nginx"), start=False) as made:
        host(directory, made)
        start_nginx(made, require("nginx"))
        assert ask(made.registry, "/v2/").body == b"mine", "nginx starts before scr-watchd has ever run"
        with daemon("run", images, "--state", state, "--nginx-config", made.config) as process:
            process.says(r"^app:1 is there")
            for reference in ("1", built.digest, "2"):
                made.ask(f"/v2/app/manifests/{reference}", headers={"User-Agent": "docker/27"})
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
    hashed = subprocess.run(
        [require("openssl"), "passwd", "-apr1", "secret"], capture_output=True, text=True, check=True
    )
    passwords.write_text(f"puller:{hashed.stdout}")
    example = (CONFIG / "nginx-tls-auth.conf").read_text().replace("/var/lib/scr-watchd/", f"{state}/")
    example = re.sub(r"^ *ssl_.*;$", "", example, flags=re.MULTILINE)
    example = example.replace("/etc/nginx/registry.htpasswd;", f"{passwords};")
    with site(directory / "site", state, program=require("nginx"), start=False) as made:
        made.config.write_text(without_us(made.config.read_text()))
        ours = made.directory / "conf.d" / "ours.conf"
        ours.write_text(example.replace("listen 443 ssl;", f"listen 127.0.0.1:{made.port};"))
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
    with site(directory / "site", state, program=require("nginx"), start=False) as made:
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
