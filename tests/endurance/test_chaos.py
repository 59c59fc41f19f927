"""Everything at once and for long: the daemon stays as small as it was, and right.

Ten minutes of it: SCR_WATCHD_CHAOS_SECONDS=600 pytest -n 0 -rP tests/endurance/test_chaos.py
"""

import json
import os
import re
import signal
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from tests.daemons import Daemon, daemon, remove, start_nginx
from tests.endurance.hosts import (
    CHAOS_SECONDS,
    Host,
    candidates,
    expected,
    host,
    image_of,
    say,
    served,
)
from tests.trees import image, index, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

PAUSE_SECONDS = 0.1
QUIET_MOMENTS = 6
LARGE = 70 * 2**20  # more than is hashed at once: the hasher's thread has something to do
PATHS = [f"{name}{form}{tag}" for name in ("app", "library/tool") for form in ":/" for tag in range(6)]
large = image_of("large", [bytes(LARGE)])


@dataclass(frozen=True)
class Sample:
    at: float
    rss_kib: int
    descriptors: int
    threads: int


@dataclass
class Chaos:
    """What can happen, one thing after the other."""

    host: Host
    process: Daemon
    random: Random
    done: dict[str, int] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def step(self) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (30, self.drop),
            (8, self.remove),
            (8, self.rename),
            (8, self.break_something),
            (1, self.drop_a_large_one),
            (4, self.hang_up),
            (2, self.restart_nginx),
            (3, self.reload_nginx),
        ]
        (action,) = self.random.choices([each for _, each in actions], [weight for weight, _ in actions])
        action()
        self.done[action.__name__] = self.done.get(action.__name__, 0) + 1

    def drop(self) -> None:
        seed = f"{self.random.random()}"
        built = index(image(seed), image("shared")) if self.random.random() < 0.3 else image(seed)
        path = self.any_path()
        if path.exists() and self.random.random() < 0.5:
            remove(path)
        write_image(path, built)

    def drop_a_large_one(self) -> None:
        path = self.host.images / "large" / str(self.random.randrange(2))
        if path.exists():
            remove(path)
        write_image(path, large)

    def remove(self) -> None:
        if (path := self.any_path()).exists():
            remove(path)

    def rename(self) -> None:
        path, other = self.any_path(), self.any_path()
        if path.exists() and not other.exists():
            other.parent.mkdir(parents=True, exist_ok=True)
            path.rename(other)

    def break_something(self) -> None:
        path = self.any_path()
        if path.exists() and (files := sorted(path.iterdir())):
            file = self.random.choice(files)
            if self.random.random() < 0.5:
                file.unlink()
            else:
                file.write_bytes(self.random.choice([b"", b"{", b"\xff" * 100]))

    def hang_up(self) -> None:
        self.process.process.send_signal(signal.SIGHUP)

    def reload_nginx(self) -> None:
        assert self.host.site.process
        self.host.site.process.send_signal(signal.SIGHUP)

    def restart_nginx(self) -> None:
        assert self.host.site.process
        self.host.site.process.terminate()
        self.host.site.process.wait(10)
        start_nginx(self.host.site, self.host.nginx)

    def any_path(self) -> Path:
        return self.host.images / self.random.choice(PATHS)

    # -- looking ---------------------------------------------------------------------------------------

    def sample(self) -> Sample:
        pid = self.process.process.pid
        status = Path(f"/proc/{pid}/status").read_text()
        rss, threads = (
            int(re.findall(rf"^{key}:\s+(\d+)", status, re.MULTILINE)[0]) for key in ("VmRSS", "Threads")
        )
        return Sample(time.monotonic(), rss, len(os.listdir(f"/proc/{pid}/fd")), threads)

    def disagreement(self) -> str:
        """What is served and is not what the tree has; a tag that is incomplete there may stay."""
        now, tree, there = served(self.host.site), expected(self.host.images), candidates(self.host.images)
        for reference in {*now, *tree}:
            if now.get(reference) != tree.get(reference) and (reference in tree or reference not in there):
                return f"{reference} is {now.get(reference)}, not {tree.get(reference)}"
        return ""

    def quiet(self) -> Sample:
        """Wait until the daemon has nothing more to do, and for it to say so."""
        until(self.disagreement, lambda wrong: not wrong, seconds=30)
        status = self.host.state / "status.json"
        until(lambda: json.loads(status.read_text())["confirmed"], seconds=30)
        seen: list[Sample] = []

        def is_steady() -> bool:
            seen.append(self.sample())
            recent = [each for each in seen if each.at > seen[-1].at - 1]
            alike = len({(each.descriptors, each.threads) for each in recent}) == 1
            return alike and seen[-1].at - seen[0].at > 1

        until(is_steady, seconds=30)
        return seen[-1]


def test_the_daemon_is_after_chaos_as_it_was_before() -> None:
    seed = int(os.environ.get("SCR_WATCHD_CHAOS_SEED", str(time.time_ns() % 2**32)))
    say(f"SCR_WATCHD_CHAOS_SEED={seed}")
    with host("--grace-seconds", "3", "--hold-seconds", "0") as here:
        here.start()
        with daemon(*here.arguments()) as process:
            chaos = Chaos(here, process, Random(seed))
            chaos.drop_a_large_one()
            quiet = [chaos.quiet()]
            began, pause = time.monotonic(), threading.Event()
            for moment in range(QUIET_MOMENTS):
                while time.monotonic() < began + CHAOS_SECONDS * (moment + 1) / QUIET_MOMENTS:
                    chaos.step()
                    chaos.samples.append(chaos.sample())
                    pause.wait(PAUSE_SECONDS)
                quiet.append(chaos.quiet())
            _clean(here)
            until(lambda: served(here.site) == expected(here.images), seconds=30)
            assert "Traceback" not in process.said()
            watch = json.loads((here.state / "status.json").read_text())["watch"]
            reloads = here.reloads()
    say(f"{CHAOS_SECONDS} s of chaos, {reloads} reloads, watch: {watch}; {chaos.done}")
    _judge(chaos.samples, quiet, began)


def _clean(here: Host) -> None:
    """Remove what is incomplete or rotten, which the daemon may serve as it was or not at all."""
    for there in candidates(here.images).values():
        for each in there:
            if each.rotten or not each.digest:
                remove(here.images / each.path)


def _judge(samples: list[Sample], quiet: list[Sample], began: float) -> None:
    warm = [each.rss_kib for each in samples if each.at > began + CHAOS_SECONDS / 4]
    third = len(warm) // 3
    first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
    say(f"RSS in KiB: first third {first:.0f}, last third {last:.0f} ({last / first:.3f}), most {max(warm)}")
    say(f"descriptors at quiet moments: {[each.descriptors for each in quiet]}")
    say(f"threads at quiet moments: {[each.threads for each in quiet]}")
    assert last <= 1.05 * first
    assert len({(each.descriptors, each.threads) for each in quiet}) == 1
