"""The world of a history: a tree, what lies outside of it, a daemon without its loop, and who may kill it.

Time is scaled: what a daemon takes for too recent to be believed is two seconds, and here some ticks of the
kernel's clock, which pass before each look.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from unittest.mock import patch

from scr_watchd.daemon.outcome import Outcome
from scr_watchd.images import walk
from scr_watchd.images.sparse import Ripening
from scr_watchd.images.tree import Tree
from scr_watchd.oci.catalog import Catalog, Reference
from scr_watchd.oci.names import Digest
from scr_watchd.publish import proof
from scr_watchd.publish.nginx import Nginx, inspect
from scr_watchd.publish.outcome import Published
from scr_watchd.publish.publisher import Step
from scr_watchd.settings import Settings
from tests.nginxes import require, wheel_nginx
from tests.passes import Passes
from tests.private_mounts import unmount

_TICKS_SECONDS = 0.012
_FOREVER_SECONDS = 3600
_LOOKS = 8
_MEMORY = Path("/dev/shm")  # another file system than the oracle's store, and faster

Hints = Literal["none", "right", "all", "wrong"]
"""What a look is told of where something happened: nothing, all that did, every path, or others."""

Served = dict[Reference, Digest]


class KilledError(BaseException):
    """The process was ended here, as by kill -9."""


@dataclass(frozen=True)
class Begin:
    """How a history begins. ``is_checked`` says that nginx tests each generation, and not only the last."""

    grace_seconds: int = 0
    hold_seconds: int = 0
    verify: Literal["new", "size"] = "new"
    links: Literal["hard", "symbolic"] = "hard"
    is_checked: bool = True


@dataclass
class Axe:
    """Kills at the n-th call of the main thread that changes something; then nothing more is changed, as
    by a process that is dead, until that is over."""

    left: int | None = None
    is_dead: bool = False
    _is_listening: bool = False

    def fall_at(self, count: int) -> None:
        if not self._is_listening:
            self._is_listening = True
            sys.addaudithook(self._heard)
        self.left = count

    def lift(self) -> None:
        self.left, self.is_dead = None, False

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left is None or not _changes(event, arguments):
            return
        if threading.current_thread() is threading.main_thread():
            self.left -= 1
            self.is_dead = self.is_dead or self.left < 0
            if self.is_dead:
                raise KilledError(event)


_CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.chmod"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
AXE = Axe()


def _changes(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        return isinstance(flags := arguments[2], int) and bool(flags & _WRITES)
    return event in _CHANGES or event == "subprocess.Popen"


@dataclass
class World:
    """``root`` is the images directory, ``outside`` lies beside it on the same disk."""

    directory: Path
    begin: Begin
    passes: Passes = field(init=False)
    dies_at: Step | None = None
    """The next pass is killed after this step,"""
    axe_at: int | None = None
    """or at so many calls that change something."""
    within: tuple[Step, Callable[[], None]] | None = None
    """What happens in the next pass, after a step."""
    is_damaged: bool = False
    """Whether the store may have lost what it must keep: somebody wrote to it, or to files linked there."""
    clock: float = 0
    touched: set[str] = field(default_factory=set)
    """The paths (relative to the root) where something happened since the last look: the right hints."""
    ever: set[tuple[str, str]] = field(default_factory=set)
    """Every manifest that was served, by its repository and digest."""
    mounts: list[Path] = field(default_factory=list)
    sparse_seconds: float = _FOREVER_SECONDS
    _nginx: int = 0

    def __post_init__(self) -> None:
        for each in (self.root, self.outside):
            each.mkdir()
        self.is_damaged = self.begin.links == "symbolic"
        store = "auto" if self.begin.links == "hard" else str(elsewhere(self) / "store")
        self.passes = Passes(
            Settings(
                root=self.root,
                state=self.directory / "state",
                store=store,
                grace_seconds=self.begin.grace_seconds,
                hold_seconds=self.begin.hold_seconds,
                verify=self.begin.verify,
            ),
            self._at,
            program(0, is_asked=self.begin.is_checked),
        )
        self.ripen(self.sparse_seconds)

    @property
    def root(self) -> Path:
        return self.directory / "images"

    @property
    def outside(self) -> Path:
        return self.directory / "outside"

    @property
    def tree(self) -> Tree:
        """What the last look saw."""
        return self.passes.mirror._tree or Tree()

    @property
    def catalog(self) -> Catalog:
        return self.passes.mirror.publisher.confirmed.catalog

    def touch(self, *paths: str) -> None:
        self.touched.update(paths)

    # -- the daemon --------------------------------------------------------------------------------

    def restart(self, *, other_nginx: bool = False) -> None:
        """The daemon begins anew, as a process does."""
        AXE.lift()
        self._nginx += other_nginx
        self.passes.nginx = program(self._nginx % 2, is_asked=self.begin.is_checked)
        self.passes.start()
        self.ripen(self.sparse_seconds)

    def ripen(self, seconds: float) -> None:
        """From now on a sparse index waits for so long."""
        self.sparse_seconds = seconds
        self.passes.mirror.ripe.ripening = Ripening(quiet_seconds=seconds, losing_seconds=seconds)

    def _at(self, step: str) -> None:
        if self.within is not None and self.within[0] == step:
            self.within[1]()
        if step == self.dies_at:
            raise KilledError(step)

    def look(self, *, full: bool = True, hints: Hints = "none") -> Outcome | None:
        """One pass; ``None`` if the daemon was killed in it, and began anew."""
        time.sleep(_TICKS_SECONDS)  # the kernel's clock must tick, which nothing else shows
        current = self.passes.mirror.publisher.current.catalog.tags()  # a kill may leave it unconfirmed
        before = {tag: digest for tag, digest in self.catalog.tags().items() if tag in current}
        if self.axe_at is not None:
            AXE.fall_at(self.axe_at)
        try:
            outcome = self.passes.look(full=full, hints=self._hints(hints))
        except KilledError:
            self.restart()
            return None
        finally:
            AXE.lift()
            self.dies_at = self.axe_at = self.within = None
        self.touched.clear()
        self.ever |= {(each.name, digest) for each in self.catalog.repositories for digest in each.pullable}
        if full and not self.is_damaged:
            self._demand_what_stays(before, outcome)
        return outcome

    def _hints(self, which: Hints) -> frozenset[str] | None:
        every = {os.path.relpath(each, self.root) for each, _, _ in os.walk(self.root)}
        match which:
            case "none":
                return None
            case "right":
                return frozenset(self.touched)
            case "all":
                return frozenset(every)
            case "wrong":
                return frozenset({*sorted(every - self.touched)[:2], "no/such", "../outside"})

    def _demand_what_stays(self, before: Served, outcome: Outcome) -> None:
        """What was served, and is there without being complete, is served as it was."""
        now = self.catalog.tags()
        for (name, tag), digest in before.items():
            found = self.tree.of(name)
            is_there = tag in found.unfinished or is_hidden(self.tree, name, tag)
            if is_there and all(each.tag != tag for each in found.images):
                assert now.get((name, tag)) == digest, f"{name}:{tag} did not stay: {outcome}"

    def quiet(self) -> Outcome:
        """Nothing happens any more: look until nothing changes."""
        self.ripen(0)
        outcomes: list[Outcome | None] = []
        while len(outcomes) < _LOOKS:
            is_undisturbed = self.within is None
            outcomes.append(self.look())
            store = self.passes.mirror.store
            is_idle = store is None or (store.prover.hasher.is_idle and not self.passes.mirror.found.waiting)
            if is_undisturbed and is_idle and not isinstance(outcomes[-1], Published | None):
                self.ripen(_FOREVER_SECONDS)
                return outcomes[-1]
        raise AssertionError(f"it does not come to rest: {outcomes}")

    def end(self) -> None:
        AXE.lift()
        self.passes.close()
        while self.mounts:
            unmount(self.mounts.pop())


def is_hidden(tree: Tree, name: str, tag: str) -> bool:
    """Whether a tag would lie in a directory that cannot be looked into."""
    paths = (f"{name}/{tag}", f"{name}:{tag}")
    return any(not each or f"{path}/".startswith(f"{each}/") for each in tree.hidden for path in paths)


@contextmanager
def world(begin: Begin) -> Iterator[World]:
    """A new one, in which time is scaled."""
    with TemporaryDirectory(prefix="scrworld", dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        Path(name).chmod(0o755)
        with TemporaryDirectory(prefix="scrworld") as elsewhere:
            (Path(name) / "elsewhere").symlink_to(elsewhere)
            Path(elsewhere).chmod(0o755)
            made = World(Path(name), begin)
            with (
                patch.object(walk, "_RACY_SECONDS", _TICKS_SECONDS * 0.8),
                patch.object(proof, "_MARGIN_SECONDS", _TICKS_SECONDS * 0.8),
                patch.object(time, "time", _moved(time.time, made, 1)),
                patch.object(time, "time_ns", _moved(time.time_ns, made, 10**9)),
            ):
                try:
                    yield made
                finally:
                    made.end()


@cache
def program(number: int, *, is_asked: bool) -> Nginx:
    """Debian's, or the newest. One that is not asked takes all, in a tenth of the time."""
    found = inspect(wheel_nginx() if number else require("nginx"))
    return found if is_asked else replace(found, path=require("true"))


def _moved(clock: Callable[[], float], world: World, units: int) -> Callable[[], float]:
    return lambda: clock() + int(world.clock * units)


def elsewhere(world: World) -> Path:
    """A directory on another disk."""
    return (world.directory / "elsewhere").resolve()
