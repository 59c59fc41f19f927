"""config/nginx-replicas.conf: two hosts behind one nginx that follow one master, each at its own time."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest

from tests.daemons import Site, daemon, free_port, public_directory, site, start_nginx
from tests.documents import block
from tests.http import Response, ask
from tests.nginxes import require
from tests.trees import Built, digest_of, image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parent.parent.parent / "config" / "nginx-replicas.conf"
ROUNDS = 6


@dataclass
class Replica:
    """A host: its nginx, and its copy of the master's images."""

    made: Site
    images: Path

    def follow(self, master: Path) -> None:
        """Fetch what the master has, and be known to serve it."""
        command = block("docs/recipes.md", "From a master, by rsync", "rsync -rlt")
        command = command.replace("rsync://master/images/", f"{master}/")
        command = command.replace("/var/lib/scr-watchd/images/", f"{self.images}/")
        subprocess.run(["sh", "-euc", command], check=True)
        wanted = {path.name: digest_of((path / "manifest.json").read_bytes()) for path in master.iterdir()}
        until(lambda: self.served(), lambda served: served == wanted, seconds=30)

    def served(self) -> dict[str, str | None]:
        tags = self.made.tags("app")
        return {
            f"app:{tag}": self.made.ask(f"/v2/app/manifests/{tag}").header("Docker-Content-Digest")
            for tag in tags
        }


@dataclass
class Front:
    """What clients pull from, all the time: ``lasting`` are the tags that each must get."""

    address: str
    lasting: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    pulls: int = 0

    def get(self, path: str) -> Response:
        return ask(self.address, f"/v2/app/{path}")

    def pull(self, reference: str) -> str | None:
        """The digest of all that came; ``None`` if there is no such tag. What was begun must end well."""
        found = self.get(f"manifests/{reference}")
        if found.status == 404:
            return None
        assert found.status == 200, found
        digest = found.header("Docker-Content-Digest")
        manifest = self.get(f"manifests/{digest}")
        assert digest_of(manifest.body) == digest, (reference, manifest)
        document = json.loads(manifest.body)
        for each in (document["config"], *document["layers"]):
            blob = self.get(f"blobs/{each['digest']}")
            assert digest_of(blob.body) == each["digest"], (reference, blob)
        return digest

    def pull_until(self, stop: Event) -> None:
        while not stop.is_set():
            for tag in sorted(self.lasting):
                try:
                    came = self.pull(tag)
                except (AssertionError, OSError) as error:
                    self.failed.append(f"{tag}: {error!a}")
                else:
                    self.pulls += 1
                    if came is None and tag in self.lasting:
                        self.failed.append(f"{tag}: not found")

    @contextmanager
    def under_load(self) -> Iterator[None]:
        stop = Event()
        with ThreadPoolExecutor(2) as pullers:
            running = [pullers.submit(self.pull_until, stop) for _ in range(2)]
            try:
                yield
            finally:
                stop.set()
        for each in running:
            each.result()


@contextmanager
def behind_one_name(directory: Path, *, without: str = "") -> Iterator[tuple[Front, tuple[Replica, Replica]]]:
    program = require("nginx")
    with ExitStack() as stack:
        replicas = []
        for name in ("one", "two"):
            images, state = directory / name / "images", directory / name / "state"
            images.mkdir(parents=True)
            made = stack.enter_context(site(directory / name / "site", state, program=program))
            arguments = ("--state", state, "--nginx-config", made.config, "--hold-seconds", 0)
            stack.enter_context(daemon("run", images, *arguments))
            replicas.append(Replica(made, images))
        front, port = (
            stack.enter_context(site(directory / "front", directory / "none", program=program, start=False)),
            free_port(),
        )
        text = EXAMPLE.read_text()
        assert without in text
        text = text.replace(without, "").replace("listen 80;", f"listen 127.0.0.1:{port};")
        for number, replica in enumerate(replicas, 1):
            assert f"server mirror-{number}.example.com:80;" in text
            text = text.replace(f"mirror-{number}.example.com:80", replica.made.registry)
        (front.directory / "conf.d" / "replicas.conf").write_text(text)
        start_nginx(front, program)
        yield Front(f"127.0.0.1:{port}"), (replicas[0], replicas[1])


@pytest.fixture
def directory() -> Iterator[Path]:
    with public_directory() as made:
        yield made


def test_no_pull_fails_while_the_hosts_follow_at_different_moments(directory: Path) -> None:
    master = directory / "master"
    latest = image("latest 0")
    write_image(master / "app:latest", latest)
    write_image(master / "app:old0", image("old 0"))
    with behind_one_name(directory) as (front, replicas):
        for each in replicas:
            each.follow(master)
        front.lasting |= {"latest", "old0"}
        with front.under_load():
            for number in range(1, ROUNDS + 1):
                first, second = replicas if number % 2 else replicas[::-1]
                former, latest = latest, image(f"latest {number}")
                replace(master / "app:latest", latest)
                write_image(master / f"app:old{number}", image(f"old {number}"))
                front.lasting.discard(f"old{number - 1}")
                shutil.rmtree(master / f"app:old{number - 1}")
                first.follow(master)
                front.lasting.add(f"old{number}")
                differs(front, former, latest, new=f"old{number}")
                second.follow(master)
                assert {front.pull("latest") for _ in range(10)} == {latest.digest}
                assert front.pull(former.digest) == former.digest, "who had begun with it goes on"
                assert front.pull(f"old{number - 1}") is None
            pulls = front.pulls
            stopped = replicas[0].made.process
            assert stopped
            stopped.terminate()
            until(lambda: front.pulls > pulls + 100, seconds=30)
        assert front.failed == []


def differs(front: Front, former: Built, latest: Built, *, new: str) -> None:
    """One host has followed, the other has not: what that looks like from outside."""
    assert all(front.pull(new) for _ in range(20)), "both know it, if one does"
    seen = {front.pull("latest") for _ in range(20)}
    assert len(seen) == 1, "it does not change back and forth"
    assert seen <= {former.digest, latest.digest}
    for each in (former, latest):
        assert front.pull(each.digest) == each.digest


def replace(directory: Path, built: Built) -> None:
    """As skopeo does it: everything goes, and what is new comes."""
    shutil.rmtree(directory)
    write_image(directory, built)


@pytest.mark.parametrize(
    ("without", "all_found"),
    [pytest.param("", True, id="as it is"), pytest.param(" http_404", False, id="never asked")],
)
def test_what_one_host_alone_has_is_found_because_the_other_is_asked(
    directory: Path, *, without: str, all_found: bool
) -> None:
    master = directory / "master"
    for number in range(20):
        write_image(master / f"app:{number}", image(f"app {number}"))
    with behind_one_name(directory, without=without) as (front, (first, second)):
        first.follow(master)
        assert second.served() == {}
        statuses = [front.get(f"manifests/{number}").status for number in range(20)]
        assert (set(statuses) == {200}) == all_found
