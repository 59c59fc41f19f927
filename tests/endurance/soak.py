"""Everything at once, at random, for as long as one likes: writers with the tools of the trade, pullers who
compare bytes, kill -9 of the daemon and of nginx, and a disk that is full and has room again.

Now and then all of it stops: then what is served is what a fresh daemon would serve, and every byte of it
is true. In the end all but what was there first goes, and the daemon is as it was.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from scr_watchd.publish import master
from tests.daemons import public_directory, scr_watchd, site, start_nginx
from tests.endurance.hosts import Host, blobs_of, image_of, layer, say, served, untrue
from tests.endurance.writers import Writer, clean
from tests.histories.oracle import Fresh
from tests.http import Response, ask
from tests.nginxes import require
from tests.private_mounts import mount, unmount
from tests.trees import digest_of, write_image
from tests.waiting import until

STEADY = {
    f"steady:{number}": image_of(f"steady {number}", [layer(f"steady {number}", 200_000)])
    for number in range(4)
}
_DISK = "600m"
_WRITERS, _PULLERS = 3, 2
_CALM_SECONDS = 60  # for all to be served that is there, on a busy machine


@dataclass(frozen=True)
class Sample:
    """What a daemon takes, and what lies in STATE beside the store."""

    rss_kib: int
    descriptors: int
    threads: int
    files: int
    stored: int


@dataclass
class Soak:
    host: Host
    random: Random
    scratch: Path
    log: Path
    stop: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    pulled: Counter[str] = field(default_factory=Counter)
    down: list[tuple[float, float]] = field(default_factory=list)
    """From when to when nginx was down."""
    process: subprocess.Popen[bytes] | None = None

    # -- the daemon and nginx ------------------------------------------------------------------------

    def start_daemon(self) -> None:
        argv = [sys.executable, "-m", "scr_watchd", *map(str, self.host.arguments())]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill_daemon(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.start_daemon()

    def kill_nginx(self) -> None:
        """With its workers, which would go on serving, and keep the port."""
        process = self.host.site.process
        assert process is not None
        began = time.monotonic()
        self.down.append((began, began + 3600))
        workers = master.workers(master.Process(process.pid, 0))
        process.kill()
        process.wait()
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        until(lambda: _has_started(self.host), seconds=_CALM_SECONDS)
        self.down[-1] = began, time.monotonic() + 0.1

    def reload_nginx(self) -> None:
        assert self.host.site.process is not None
        self.host.site.process.send_signal(signal.SIGHUP)

    def fill_disk(self) -> None:
        """It has no room for a while."""
        fill = self.host.images.parent / "fill"
        with suppress(OSError), fill.open("wb") as stream:
            while not self.stop.is_set():
                stream.write(bytes(2**20))
        self.stop.wait(self.random.uniform(1, 6))
        fill.unlink()

    # -- trouble, and calm ---------------------------------------------------------------------------

    def trouble(self, seconds: float) -> None:
        """All at once."""
        self.stop.clear()
        writers = [
            Writer(self.host.images, self.scratch, Random(self.random.random())) for _ in range(_WRITERS)
        ]
        work = [
            *(lambda each=each: each.write(self.stop) for each in writers),
            *(lambda seed=seed: self.pull(Random(seed)) for seed in range(_PULLERS)),
        ]
        threads = [threading.Thread(target=self._guarded, args=(each,)) for each in work]
        for thread in threads:
            thread.start()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.stop.wait(self.random.uniform(0.5, 4))
            act = self.random.choice(
                [self.kill_daemon, self.kill_nginx, self.reload_nginx, self.fill_disk, self.hang_up]
            )
            act()
            self.done[act.__name__] += 1
        self.stop.set()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        for each in writers:
            self.done += each.done

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is told, and the soak fails
            self.faults.append(f"{type(error).__name__}: {error}")

    def hang_up(self) -> None:
        """Not before it hears signals: it would end."""
        if self.process is not None and self.status()["pid"] == self.process.pid:
            self.process.send_signal(signal.SIGHUP)

    def calm(self) -> Sample:
        """Wait until all that is there is served, and nothing else, and look at every byte of it."""
        fresh = Fresh(self.host.images, self.scratch)
        expected = {
            (str(name), str(tag)): str(digest) for (name, tag), digest in fresh.catalog.tags().items()
        }
        until(lambda: self.process and self.status()["pid"] == self.process.pid, seconds=_CALM_SECONDS)
        self.hang_up()

        def difference() -> dict[tuple[str, str], tuple[object, object]]:
            status = self.status()
            waiting = {each["image"] for each in status["unripe"]}
            apart = {(n, t) for n, _, t in (each.rpartition(":") for each in {*status["pinned"], *waiting})}
            now = served(self.host.site)
            return {
                each: (now.get(each), expected.get(each))
                for each in {*now, *expected} - apart
                if now.get(each) != expected.get(each)
            }

        until(difference, lambda found: not found, seconds=_CALM_SECONDS)
        sparse = {digest for digest in expected.values() if _is_sparse(self.host, digest)}
        for (name, _), digest in served(self.host.site).items():  # what is not served yet is apart
            self.faults += untrue(self.host.site, name, digest, sparse)
        until(lambda: self.status()["confirmed"] and not self.status()["waiting"], seconds=_CALM_SECONDS)
        return self.sample()

    def status(self) -> dict[str, Any]:
        return dict(json.loads((self.host.state / "status.json").read_text()))

    def sample(self) -> Sample:
        """Once the daemon is at rest."""
        assert self.process is not None
        seen: list[tuple[int, int]] = []

        def look() -> bool:
            seen.append(_takes(self.process.pid)[1:] if self.process else (0, 0))
            return len(seen) > 40 and len(set(seen[-40:])) == 1

        until(look, seconds=_CALM_SECONDS)
        rss, descriptors, threads = _takes(self.process.pid)
        store = self.host.state / "store"
        every = [path for path in self.host.state.rglob("*") if not path.is_dir()]
        stored = [path for path in every if path.is_relative_to(store)]
        return Sample(rss, descriptors, threads, len(every) - len(stored), len(stored))

    # -- pullers -------------------------------------------------------------------------------------

    def pull(self, random: Random) -> None:
        """What was there first is always there, and true; of anything else only that it is true is asked."""
        steady = [("steady", each.rpartition(":")[2]) for each in STEADY]
        while not self.stop.wait(0.05):
            others = list(served_names(self.host, self.ask))
            name, tag = random.choice(steady if random.random() < 0.5 or not others else others)
            self._pull(name, tag)

    def _pull(self, name: str, tag: str) -> None:
        answer = self.ask(f"/v2/{name}/manifests/{tag}")
        if answer is None or not self._is_true(name, answer, answer.header("Docker-Content-Digest") or ""):
            return
        document = json.loads(answer.body)
        for digest in blobs_of(document):
            blob = self.ask(f"/v2/{name}/blobs/{digest}")
            if blob is not None:
                self._is_true(name, blob, digest)
        self.pulled[name.partition("/")[0]] += 1

    def _is_true(self, name: str, answer: Response, digest: str) -> bool:
        if answer.status == 200 and digest_of(answer.body) == digest:
            return True
        if name == "steady" or answer.status not in (403, 404, 503):
            self.faults.append(f"{name} {digest}: {answer.status}, {len(answer.body)} bytes")
        self.pulled[f"{answer.status}"] += 1
        return False

    def ask(self, path: str) -> Response | None:
        """``None`` if nginx was down meanwhile."""
        began = time.monotonic()
        try:
            return ask(self.host.site.registry, path)
        except (OSError, http.client.HTTPException) as error:
            now = time.monotonic()
            if not any(began <= end and now >= begin for begin, end in list(self.down)):
                self.faults.append(f"{path}: {type(error).__name__}: {error}")
            return None


def served_names(host: Host, ask: Callable[[str], Response | None]) -> Iterator[tuple[str, str]]:
    answer = ask("/v2/_catalog")
    for name in answer.json()["repositories"] if answer is not None and answer.status == 200 else ():
        tags = ask(f"/v2/{name}/tags/list")
        for tag in tags.json()["tags"] if tags is not None and tags.status == 200 else ():
            yield name, tag


def _has_started(host: Host) -> bool:
    """The port of one that was killed may be in use for a moment."""
    try:
        start_nginx(host.site, host.nginx)
    except AssertionError:
        return False
    return host.site.process is not None and host.site.process.poll() is None


def _is_sparse(host: Host, digest: str) -> bool:
    """Whether children of an index may be absent: here all indexes may be."""
    return any(b'"manifests"' in path.read_bytes() for path in host.state.glob(f"store/**/{digest[7:]}"))


def _takes(pid: int) -> tuple[int, int, int]:
    status = Path(f"/proc/{pid}/status").read_text()
    rss, threads = (
        int(re.findall(rf"^{key}:\s+(\d+)", status, re.MULTILINE)[0]) for key in ("VmRSS", "Threads")
    )
    return rss, len(os.listdir(f"/proc/{pid}/fd")), threads


@contextmanager
def _soak(seed: int) -> Iterator[Soak]:
    with ExitStack() as stack:
        directory = stack.enter_context(public_directory())
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="scrsoak")))
        scratch.chmod(0o755)
        disk = directory / "disk"
        disk.mkdir()
        mount("-t", "tmpfs", "-o", f"size={_DISK},mode=755", "tmpfs", disk)
        stack.callback(unmount, disk)
        (disk / "images").mkdir()
        nginx = require("nginx")
        made = stack.enter_context(site(directory / "site", disk / "state", program=nginx, start=False))
        # workers of root's could read what nobody else may
        made.config.write_text(made.config.read_text().replace("user root root;", "user nobody nogroup;"))
        here = Host(
            disk / "images", disk / "state", made, nginx, ("--grace-seconds", "5", "--hold-seconds", "0")
        )
        for name, built in STEADY.items():
            write_image(here.images / name, built)
        here.start()
        soak = Soak(here, Random(seed), scratch, directory / "log")
        soak.start_daemon()
        try:
            yield soak
        except AssertionError as error:
            error.add_note(f"{soak.log.read_text()[-3000:]}\n{soak.status()}\n{soak.faults[:9]}\n{soak.done}")
            raise
        finally:
            assert soak.process is not None
            soak.process.terminate()
            soak.process.wait(30)


def run(minutes: float, seed: int) -> list[str]:
    """Returns what went wrong; says its figures."""
    say(f"seed {seed}")
    with _soak(seed) as soak:
        began = time.monotonic()
        samples = [soak.calm()]
        rounds = max(2, round(minutes / 2))
        for _ in range(rounds):
            soak.trouble(minutes * 60 / rounds)
            samples.append(soak.calm())
        clean(soak.host.images, keep=STEADY)
        until(
            lambda: soak.status()["leaving"] == 0 and len(served(soak.host.site)) == len(STEADY),
            seconds=_CALM_SECONDS,
        )
        scr_watchd("prune", "--now", "--state", soak.host.state)
        samples.append(soak.calm())
        wrong = [*soak.faults, *judge(samples)]
        said, traceback, rest = soak.log.read_text().partition("Traceback")
        if traceback:
            wrong.append(f"{said[-500:]}{traceback}{rest[:3000]}")
        say(f"{time.monotonic() - began:.0f} s, {soak.host.reloads()} reloads, done: {dict(soak.done)}")
        say(f"pulled, by the first part of the name, and other answers: {dict(soak.pulled)}")
        for sample in samples:
            say(sample)
        return wrong


def judge(samples: list[Sample]) -> list[str]:
    """What is different: three files more are the generation before, which stays. Memory may grow by a third
    and 8 MiB."""
    first, last = samples[0], samples[-1]
    wrong = []
    # one descriptor comes and goes: a daemon just begun has 9, or 10
    if last.descriptors > first.descriptors + 1 or last.threads != first.threads:
        wrong.append(f"descriptors or threads: {first}, then {last}")
    if last.files > first.files + 3 or last.stored != first.stored:
        wrong.append(f"files: {first}, then {last}")
    if last.rss_kib > 1.3 * first.rss_kib + 8192:
        wrong.append(f"memory: {first}, then {last}")
    return wrong
