"""Pulls go on while everything changes: none may fail, and none may be anything but true."""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.clients.real_images import skopeo
from tests.daemons import daemon, remove
from tests.endurance.hosts import Host, expected, host, image_of, layer, say, served, untrue
from tests.nginxes import require
from tests.trees import Built, digest_of, image, index, write_image
from tests.waiting import meanwhile, until

pytestmark = pytest.mark.slow

CLIENTS = 3
SLOW_BYTES_PER_SECOND = 10**6
CHUNK = 2**16

base = layer("base", 2**20)
steady = {
    ("base", "1"): image_of("base 1", [base, layer("one", 2**16)]),
    ("base", "2"): image_of("base 2", [base, layer("two", 2**16)]),
    ("library/tool", "RC1"): image_of("tool", [layer("tool", 2**18), b"small"]),
}
versions = [image_of(f"live {each}", [base, layer(each, 2**20), layer(each, 10)]) for each in ("a", "b")]
leaving = image_of("leaving", [layer("leaving 1", 8 * 2**20), layer("leaving 2", 2**20)])


@dataclass
class Figures:
    """What happened to those who pulled."""

    load: dict[str, Any] = field(default_factory=dict)
    skopeo: Counter[str] = field(default_factory=Counter)
    skopeo_faults: list[str] = field(default_factory=list)
    slow_digest: str = ""
    slow_faults: list[str] = field(default_factory=list)
    reloads: int = 0
    seconds: float = 0

    def say(self, title: str) -> None:
        load = self.load
        say(f"{title}: {self.reloads} reloads in {self.seconds:.0f} s")
        for name in ("requests", "pulls", "connections", "closed_idle", "mismatches", "statuses", "versions"):
            say(f"  raw load, {name}: {load[name]}")
        say(f"  raw load, faults: {load['faults'][:5]}")
        say(f"  skopeo: {dict(self.skopeo)}, faults: {len(self.skopeo_faults)} {self.skopeo_faults[:1]}")


def test_pulls_see_no_difference_while_everything_changes(tmp_path: Path) -> None:
    big = image_of("big", [layer("big", 100 * 2**20)])
    with host() as here:
        figures = _under_fire(here, tmp_path, copies=50, big=big)
    figures.say("links are hard")
    assert figures.reloads >= 20
    assert figures.load["statuses"] == {}
    assert figures.load["mismatches"] == 0
    assert figures.load["faults"] == []
    assert figures.load["closed_idle"] <= CLIENTS * figures.reloads
    assert figures.skopeo_faults == []
    assert set(figures.skopeo) == {built.digest for built in versions}, "it saw both"
    assert figures.slow_faults == []
    assert figures.slow_digest == digest_of(layer("big", 100 * 2**20))


def test_with_symbolic_links_only_the_tag_that_is_copied_anew_has_gaps(tmp_path: Path) -> None:
    """What docs/operations.md says that it costs; other tags do not pay, and nobody gets wrong bytes."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm, another file system to put the store on")
    with TemporaryDirectory(dir="/dev/shm", prefix="scrtest") as store:
        Path(store).chmod(0o755)
        with host("--store", store) as here:
            config = here.site.config  # workers of root's would be refused: they serve no symbolic links
            config.write_text(config.read_text().replace("user root root;", "user nobody nogroup;"))
            figures = _under_fire(here, tmp_path, copies=15, big=None)
    figures.say("links are symbolic")
    failed = sum(figures.load["statuses"].values())
    say(f"  cost: {failed} of {figures.load['requests']} requests failed, {len(figures.skopeo_faults)} pulls")
    assert figures.load["mismatches"] == 0
    assert figures.load["faults"] == []
    assert [each for each in figures.load["statuses"] if not each.startswith("404 /v2/live/")] == []


def test_a_pull_of_a_tag_that_is_removed_ends_well() -> None:
    with host() as here:
        directory = write_image(here.images / "leaving:1", leaving)
        here.start()
        with daemon(*here.arguments()) as process:
            process.says("^serving 1 image")
            connection = http.client.HTTPConnection(here.site.registry, timeout=30)
            path = "/v2/leaving/manifests/1"
            connection.request("GET", path)
            digest = digest_of(connection.getresponse().read())
            large = next(each for each, content in leaving.blobs.items() if len(content) > 2**22)
            connection.request("GET", f"/v2/leaving/blobs/{large}")
            answer = connection.getresponse()
            received = answer.read(CHUNK)
            remove(directory)
            until(lambda: here.site.ask(path).status, lambda status: status == 404)
            assert here.site.tags("leaving") == []
            assert digest_of(received + answer.read()) == large
            assert untrue(here.site, "leaving", digest) == []
            connection.close()


# -- the fire ------------------------------------------------------------------------------------------


def _under_fire(here: Host, scratch: Path, *, copies: int, big: Built | None) -> Figures:
    figures = Figures()
    sources = [write_image(scratch / f"source{number}", built) for number, built in enumerate(versions)]
    for (name, tag), built in steady.items():
        write_image(here.images / f"{name}:{tag}", built)
    write_image(here.images / "many" / "1", index(image("amd"), image("arm")))
    skopeo("copy", "-q", f"dir:{sources[0]}", f"dir:{here.images}/live:latest")
    if big is not None:
        write_image(here.images / "big:1", big)
    here.start()
    with daemon(*here.arguments()) as process:
        until(lambda: served(here.site) == expected(here.images))
        reloads, began = here.reloads(), time.monotonic()
        with _load(here, figures), _skopeo(here, scratch, figures), _slow_download(here, big, figures):
            for number in range(copies):
                _change(here, sources, number)
            until(lambda: served(here.site) == expected(here.images))
            figures.reloads = here.reloads() - reloads
        figures.seconds = time.monotonic() - began
        assert "Traceback" not in process.said()
    return figures


def _change(here: Host, sources: list[Path], number: int) -> None:
    """Copy the live tag anew, as its other version; add a tag, and remove an old one."""
    which = (number + 1) % len(versions)
    write_image(here.images / f"extra:{number}", image(f"extra {number}"))
    if number >= 3:
        remove(here.images / f"extra:{number - 3}")
    skopeo("copy", "-q", f"dir:{sources[which]}", f"dir:{here.images}/live:latest")
    if number % 5:  # else the next copy comes at once, and perhaps in the middle of a pass
        until(lambda: here.digest("live", "latest"), lambda digest: digest == versions[which].digest)


@contextmanager
def _load(here: Host, figures: Figures) -> Iterator[None]:
    targets = [
        *((name, tag, [built.digest]) for (name, tag), built in steady.items()),
        ("live", "latest", [built.digest for built in versions]),
    ]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.endurance.loader",
            here.site.registry,
            json.dumps(targets),
            str(CLIENTS),
        ],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield
        figures.load = json.loads(process.communicate(timeout=60)[0])
    finally:
        process.kill()
        process.wait()


@contextmanager
def _skopeo(here: Host, scratch: Path, figures: Figures) -> Iterator[None]:
    """Pull the live tag again and again; what comes is one of its versions, whole."""
    require("skopeo")
    source = f"docker://{here.site.registry}/live:latest"

    def pull(number: int) -> None:
        target = scratch / f"pulled{number}"
        try:
            skopeo("copy", "-q", "--src-tls-verify=false", source, f"dir:{target}")
            digest = digest_of((target / "manifest.json").read_bytes())
            built = next(each for each in versions if each.digest == digest)
            assert {name: (target / name).read_bytes() for name in built.files} == built.files
        except (AssertionError, OSError, StopIteration) as error:
            figures.skopeo_faults.append(f"{type(error).__name__}: {error}"[-200:])
        else:
            figures.skopeo[digest] += 1
            remove(target)

    with meanwhile(pull, pause=0.2):
        yield


@contextmanager
def _slow_download(here: Host, big: Built | None, figures: Figures) -> Iterator[None]:
    """Download the layer of ``big`` slowly until all is over, and then the rest of it."""
    if big is None:
        yield
        return
    over = threading.Event()
    blob = max(big.blobs, key=lambda digest: len(big.blobs[digest]))

    def download() -> None:
        connection = http.client.HTTPConnection(here.site.registry, timeout=30)
        hashed = sha256()
        try:
            connection.request("GET", f"/v2/big/blobs/{blob}")
            answer = connection.getresponse()
            while received := answer.read(CHUNK):
                hashed.update(received)
                over.wait(len(received) / SLOW_BYTES_PER_SECOND)
        except (OSError, http.client.HTTPException) as error:
            figures.slow_faults.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()
        figures.slow_digest = f"sha256:{hashed.hexdigest()}"
        if not over.is_set():
            figures.slow_faults.append("it ended before all was over")

    thread = threading.Thread(target=download)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
