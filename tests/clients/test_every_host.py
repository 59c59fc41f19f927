"""Behind an air gap: the files of docs/clients.md for a mirror of every registry, and an upstream.

Nobody may ask it, neither for what the mirror has nor for what it has not.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.clients.real_images import Workshop, skopeo
from tests.daemons import daemon, public_directory
from tests.documents import block
from tests.engines import containerd, run
from tests.networks import ADDRESS, network
from tests.nginxes import require
from tests.trees import digest_of
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.clients]

MIRROR = "127.0.0.1:5000"
IMAGES = ["quay.io/team/app:1", "quay.io:8443/team/app:1", "docker.io/library/alpine:3"]
ABSENT = "quay.io/team/absent:1"
UPSTREAM = """
import selectors, socket, sys
ready = selectors.DefaultSelector()
for port in sys.argv[2:]:
    ready.register(socket.create_server((sys.argv[1], int(port))), selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in ready.select():
        key.fileobj.accept()[0].close()
        print("asked", flush=True)
"""


@dataclass(frozen=True)
class Gap:
    """A network in which there are a mirror and an upstream; ``before`` leads into it."""

    directory: Path
    before: tuple[str, ...]
    digest: str

    @property
    def asked(self) -> int:
        """How often somebody turned to an upstream."""
        return (self.directory / "upstream").read_text().count("asked")


@contextmanager
def upstream(directory: Path, before: tuple[str, ...]) -> Iterator[None]:
    log = directory / "upstream"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", UPSTREAM, ADDRESS, "80", "443", "8443"], stdout=output
        )
    try:
        until(lambda: "ready" in log.read_text())
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def gap() -> Iterator[Gap]:
    with (
        public_directory() as directory,
        network("quay.io", "registry-1.docker.io") as before,
        upstream(directory, before),
    ):
        workshop = Workshop(directory / "workshop")
        workshop.directory.mkdir()
        source, images = workshop.build("app", content="an image"), directory / "images"
        for target in (images / name.replace(":8443", "_8443") for name in IMAGES):
            target.parent.mkdir(parents=True)
            skopeo("copy", "--quiet", source, f"dir:{target}")
        digest = digest_of((images / IMAGES[0] / "manifest.json").read_bytes())
        settings = directory / "config.toml"
        settings.write_text(block("docs/clients.md", "A mirror for every registry", "mirrors = {"))
        with daemon("serve", images, "-l", MIRROR, "-c", settings, before=before) as process:
            process.says(f"^serving {len(IMAGES)} images")
            yield Gap(directory, before, digest)


numbers = count()


def test_containerd_asks_the_mirror_alone(gap: Gap) -> None:
    text = block("docs/clients.md", "A mirror for every registry", "# containerd:")
    hosts = gap.directory / "hosts"
    (hosts / "_default").mkdir(parents=True)
    (hosts / "_default" / "hosts.toml").write_text(
        text.replace("https://mirror.example.com", f"http://{MIRROR}")
    )
    with containerd(before=gap.before) as engine:
        for name in IMAGES:
            space = ("--namespace", f"pull{next(numbers)}")
            engine.ctr(*space, "images", "pull", "--hosts-dir", hosts, name)
            assert gap.digest in engine.ctr(*space, "images", "ls")
        with pytest.raises(AssertionError, match="not found"):
            engine.ctr("images", "pull", "--hosts-dir", hosts, ABSENT)
        assert gap.asked == 0
        (hosts / "_default" / "hosts.toml").write_text(
            text.replace("https://mirror.example.com", "http://127.0.0.1:1")
        )
        with pytest.raises(AssertionError, match="connect"):
            engine.ctr("images", "pull", "--hosts-dir", hosts, ABSENT)
        assert gap.asked == 0, "not even if the mirror is down"


def test_podman_asks_the_mirror_alone(gap: Gap) -> None:
    text = block("docs/clients.md", "A mirror for every registry", "# podman, CRI-O:")
    file = gap.directory / "registries.conf"
    file.write_text(text.replace("mirror.example.com", MIRROR))
    where = ("--root", gap.directory / "root", "--runroot", gap.directory / "run", "--storage-driver", "vfs")

    def podman(*arguments: object) -> str:
        command = (*gap.before, require("podman"), *where, *arguments)
        return run(*map(str, command), CONTAINERS_REGISTRIES_CONF=str(file))

    podman("pull", "--quiet", "--tls-verify=false", IMAGES[0])
    assert gap.digest in podman("images", "--digests")
    with pytest.raises(AssertionError, match="name unknown"):
        podman("pull", "--quiet", "--tls-verify=false", ABSENT)
    assert gap.asked == 0


def test_an_upstream_that_is_asked_is_seen(gap: Gap) -> None:
    """What the others rely on: without `server` containerd turns to it for what the mirror does not have."""
    hosts = gap.directory / "without"
    (hosts / "_default").mkdir(parents=True)
    (hosts / "_default" / "hosts.toml").write_text(f'[host."http://{MIRROR}"]\n')
    before = gap.asked
    with (
        containerd(before=gap.before) as engine,
        pytest.raises(AssertionError, match="failed to do request"),
    ):
        engine.ctr("images", "pull", "--hosts-dir", hosts, ABSENT)
    until(lambda: gap.asked > before)
