"""Mirror hosts: a tree, what scr-watchd makes of it, and the daemon beside an nginx."""

import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

from scr_watchd.commands.memory import collect
from scr_watchd.commands.running import Keeper, Lasting, build
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.daemon.timetable import EVERYTHING, Look
from scr_watchd.files import ANYBODY
from scr_watchd.images.places import EVERYWHERE
from scr_watchd.publish.nginx import inspect
from scr_watchd.publish.reload import Reloading
from scr_watchd.publish.site import Site as NginxSite
from scr_watchd.settings import Settings
from tests.benchmarks import measure
from tests.benchmarks.servers import RECOMMENDED, Serving, nginx
from tests.benchmarks.trees import Tree
from tests.nginxes import require
from tests.waiting import until

_SECONDS_TO_STOP = 300  # it finishes the pass that it is in


@dataclass(frozen=True)
class Mirror:
    """A tree, the directory that holds all else, and the state directory's name there."""

    tree: Tree
    directory: Path
    state_name: str = "state"

    @property
    def state(self) -> Path:
        return self.directory / self.state_name

    @property
    def current(self) -> Path:
        return self.state / "nginx" / "current"

    @property
    def http(self) -> str:
        return f"{RECOMMENDED} include {self.current}/hash*.conf; include {self.current}/http*.conf;"

    @property
    def server(self) -> str:
        return f"include {self.current}/server*.conf;"

    def fresh(self, number: int) -> "Mirror":
        """The same tree on a host where scr-watchd never ran. What was before is not removed: a file
        system that has just lost 10,000 files makes new ones slowly."""
        return replace(self, state_name=f"state{number}")

    def publish(self) -> None:
        """Publish the tree for an nginx that will be started later."""
        with passes(self) as here:
            here.full()


class Passes:
    """The daemon without its loop, its watch and its reloads, to measure single passes."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def light(self) -> float:
        """Make a pass; returns its CPU seconds, children included."""
        return self._look(Look({EVERYWHERE: True}, full=False))

    def full(self) -> float:
        return self._look(EVERYTHING)

    def at(self, *hints: str) -> float:
        """Make a pass that looks where something happened."""
        return self._look(Look(dict.fromkeys(hints, True), full=False))

    def _look(self, look: Look) -> float:
        def make() -> None:
            self._keeper.look(look)
            collect()

        return cpu_seconds(make)


@contextmanager
def passes(mirror: Mirror) -> Iterator[Passes]:
    never = Reloading("none", lambda: mirror.state / "nginx.pid", (), None, by_process=False, seconds=1)
    lasting = Lasting()
    mirror.state.mkdir(exist_ok=True)  # as the lock of a daemon does
    gc.disable()  # as the loop does
    keeper = build(
        Settings(root=mirror.tree.root, state=mirror.state, watch="poll"),
        NginxSite(inspect(require("nginx")), None, test_seconds=60),
        never,
        reader=ANYBODY,
        worker_user=lambda: None,
        own_nginx=False,
        inbox=SimpleQueue(),
        pulse=Pulse(Notifier(environment={})),
        lasting=lasting,
    )
    try:
        yield Passes(keeper)
    finally:
        gc.enable()
        gc.unfreeze()
        for descriptor in lasting.locks.values():  # else no other could use the store
            os.close(descriptor)


def publish_by(checkout: Path, mirror: Mirror) -> Mirror:
    """What the scr-watchd of another checkout publishes of the tree, for an nginx started later."""
    other = replace(mirror, state_name="beside")
    measure.run(
        [
            sys.executable, "-m", "scr_watchd", "run", mirror.tree.root, "--once", "--state", other.state,
            "--reload", "none", "--nginx", require("nginx"), "--nginx-config", other.directory / "no.conf",
        ],
        cwd=checkout,
    )  # fmt: skip
    return other


@dataclass
class Daemon:
    """A running `scr-watchd run`, and how long it took to say READY=1."""

    process: subprocess.Popen[bytes]
    log: Path
    seconds_to_ready: float

    def cpu(self) -> float:
        return measure.cpu([self.process.pid])

    def resident(self) -> float:
        """Megabytes of memory, once no pass is under way."""
        self.settle()
        return measure.megabytes(measure.status(self.process.pid, "VmRSS"))

    def switches(self) -> int:
        """How often its threads woke up."""
        return sum(
            measure.status(int(task.name), "voluntary_ctxt_switches")
            for task in Path(f"/proc/{self.process.pid}/task").iterdir()
        )

    def rescan(self) -> float:
        """The CPU seconds of one look at everything."""
        before, woken = measure.cpu_of_threads(self.process.pid), self.switches()
        self.process.send_signal(signal.SIGUSR1)
        until(lambda: self.switches() > woken)
        self.settle()
        return measure.cpu_of_threads(self.process.pid) - before

    def settle(self) -> None:
        """Wait until no pass is under way: the second look, and the watch, come after READY."""
        until(self._is_idle, seconds=300)

    def _is_idle(self) -> bool:
        before = measure.cpu_of_threads(self.process.pid)
        time.sleep(2)  # longer than it waits for anything but the next rescan
        # each two seconds it looks for requests, which takes a fraction of a millisecond
        return measure.cpu_of_threads(self.process.pid) - before < 0.01

    def said(self) -> str:
        return self.log.read_text()


@contextmanager
def running(mirror: Mirror, config: Path, *settings: object, seconds: float = 600) -> Iterator[Daemon]:
    """`scr-watchd run` beside the nginx of ``config``, READY within ``seconds``."""
    with tempfile.TemporaryDirectory(prefix="scrnotify") as directory:
        log = Path(directory, "log")
        with log.open("wb") as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(f"{directory}/notify")
            notified.settimeout(seconds)
            began = time.monotonic()
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "scr_watchd", "run", str(mirror.tree.root),
                    "--state", str(mirror.state), "--nginx", require("nginx"),
                    "--nginx-config", str(config), *map(str, settings),
                ],
                env={**os.environ, "NOTIFY_SOCKET": f"{directory}/notify"},
                stdout=stream, stderr=stream,
            )  # fmt: skip
            with _stopping(process):
                while b"READY=1" not in notified.recv(4096):
                    pass
                took = time.monotonic() - began
                notified.close()  # nobody reads on, and a full queue would stop the daemon
                try:
                    yield Daemon(process, log, took)
                except AssertionError as error:
                    error.add_note(log.read_text())
                    raise


@contextmanager
def _stopping(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def site(mirror: Mirror, *, workers: int = 2) -> Iterator[tuple[Serving, Path]]:
    """An nginx that serves what ``mirror`` has published, and its configuration. Before the first
    generation there is nothing under /v2/ but what this site itself answers."""
    directory = mirror.directory / "site"
    ping = "" if mirror.current.exists() else "location = /v2/ { return 200 up; }"
    with nginx(directory, mirror.http, ping or mirror.server, workers=workers) as serving:
        if ping:
            config = directory / "nginx.conf"
            config.write_text(config.read_text().replace(ping, mirror.server))
        yield serving, directory / "nginx.conf"


def cpu_seconds(action: Callable[[], object]) -> float:
    """What ``action`` costs this process and its children."""
    before = _own_cpu()
    action()
    return _own_cpu() - before


def _own_cpu() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
