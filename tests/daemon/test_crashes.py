"""kill -9 at every step of a pass: what nginx includes is whole, and the next start ends the work."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scr_watchd.publish.publisher import STEPS
from tests.daemons import Site, public_directory, remove, scr_watchd, site, start_nginx
from tests.nginxes import require
from tests.trees import Built, image, write_image

pytestmark = pytest.mark.slow

# A pass as `run --once` makes it, ended by the kernel at a step.
KILLED = """
import os, signal, sys
from scr_watchd.commands import run, running

step = sys.argv.pop(1)
build = running.build

def build_to_be_killed(*arguments, **more):
    keeper = build(*arguments, **more)
    keeper.mirror.publisher.reached = lambda at: os.kill(os.getpid(), signal.SIGKILL) if at == step else None
    return keeper

run.build = build_to_be_killed
sys.exit(run.run(run.parser().parse_args(sys.argv[1:])))
"""

OLD: dict[str, Built] = {"app:1": image("one"), "app:2": image("two"), "gone:1": image("gone")}
NEW: dict[str, Built] = {"app:1": image("one, replaced"), "app:2": image("two"), "new:1": image("new")}


@pytest.fixture
def directory() -> Iterator[Path]:
    with public_directory() as made:
        yield made


def lay_out(images: Path, tree: dict[str, Built]) -> None:
    for path in images.iterdir():
        remove(path)
    for name, built in tree.items():
        write_image(images / name, built)


def served(host: Site) -> dict[str, bytes]:
    """Every tag that nginx serves, with its manifest; each blob of it must be there too."""
    found = {}
    for name in host.ask("/v2/_catalog").json()["repositories"]:
        for tag in host.tags(name):
            found[f"{name}:{tag}"] = host.ask(f"/v2/{name}/manifests/{tag}").body
            for digest in re.findall(rb'"digest": "(sha256:\w+)"', found[f"{name}:{tag}"]):
                assert host.ask(f"/v2/{name}/blobs/{digest.decode()}").status == 200
    return found


def manifests(tree: dict[str, Built]) -> dict[str, bytes]:
    return {name: built.raw for name, built in tree.items()}


def events(log: str) -> set[tuple[str, ...]]:
    """What the lines of ``log`` tell of tags."""
    found = [json.loads(line) for line in log.splitlines()]
    return {
        (each["action"], f"{each['repository']}:{each['tag']}", each["digest"], each["before"])
        for each in found
        if "action" in each
    }


@pytest.mark.parametrize("step", STEPS)
def test_a_pass_that_is_killed_leaves_all_or_nothing(directory: Path, step: str) -> None:
    images, state, nginx = directory / "images", directory / "state", require("nginx")
    images.mkdir()
    with site(directory / "site", state, program=nginx, start=False) as host:
        places = (images, "--state", state, "--nginx", nginx, "--nginx-config", host.config)
        options = (*places, "--log-format", "json")
        lay_out(images, OLD)
        scr_watchd("run", *options, "--once", "--confirm-seconds", "0.1")
        start_nginx(host, nginx)
        assert scr_watchd("run", *options, "--once").returncode == 0
        assert served(host) == manifests(OLD)

        lay_out(images, NEW)
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, step, *map(str, options), "--once"],
            check=False,
            capture_output=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert served(host) in (manifests(OLD), manifests(NEW))
        assert host.process
        host.process.terminate()
        host.process.wait(10)
        start_nginx(host, nginx)  # a reboot: what is current is valid, and whole
        assert served(host) in (manifests(OLD), manifests(NEW))

        result = scr_watchd("run", *options, "--once")
        assert result.returncode == 0, result.stderr
        assert served(host) == manifests(NEW)
        assert events(killed.stderr.decode() + result.stderr) == {
            ("published", "new:1", NEW["new:1"].digest, None),
            ("replaced", "app:1", NEW["app:1"].digest, OLD["app:1"].digest),
            ("removed", "gone:1", None, OLD["gone:1"].digest),
        }, "repeated perhaps, lost never"
        assert not (state / "pending").exists()
        assert len(list((state / "nginx" / "generations").iterdir())) <= 2
