"""What may happen in a history: each event is a value that is printed as it is written.

An event that makes no sense where it comes, such as removing what is not there, does nothing: so a history
may lose any of its events, and stays one.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from scr_watchd.publish import state as records
from scr_watchd.publish.publisher import Step
from scr_watchd.publish.state import Request
from tests.histories.contents import (
    CONTENTS,
    Way,
    clear,
    files_in,
    files_of_directory,
    files_of_layout,
    write,
)
from tests.histories.world import Hints, World
from tests.nginxes import require
from tests.private_mounts import mount, unmount


class Event(Protocol):
    def happen(self, world: World) -> None: ...


@dataclass(frozen=True)
class Drop:
    """An image comes to ``path``, or its first ``pieces``."""

    path: str
    what: str
    way: Way = "skopeo"
    pieces: int | None = None

    def happen(self, world: World) -> None:
        _write(world, self.path, files_of_directory(self.what), self.way, self.pieces)


@dataclass(frozen=True)
class Layout:
    """An OCI layout comes to ``path`` with images by what they are called, or its first ``pieces``."""

    path: str
    entries: tuple[tuple[str, str], ...]
    way: Way = "skopeo"
    pieces: int | None = None

    def happen(self, world: World) -> None:
        _write(world, self.path, files_of_layout(self.entries), self.way, self.pieces)


@dataclass(frozen=True)
class Remove:
    """Whatever is at ``path`` goes."""

    path: str

    def happen(self, world: World) -> None:
        _attempt(world, self.path, lambda path: clear(path))


@dataclass(frozen=True)
class Rename:
    """``path`` gets another name; with ``over`` what has that already goes, else the two are exchanged."""

    path: str
    other: str
    over: bool = True

    def happen(self, world: World) -> None:
        aside = world.outside / "exchanged"

        def rename(path: Path) -> None:
            other = world.root / self.other
            if not os.path.lexists(path) or other == path:
                return
            if os.path.lexists(other):
                if self.over:
                    clear(other)
                else:
                    other.rename(aside)
            other.parent.mkdir(parents=True, exist_ok=True)
            path.rename(other)
            if os.path.lexists(aside):
                aside.rename(path)

        _attempt(world, self.path, rename, self.other)
        if os.path.lexists(aside):
            clear(aside)


@dataclass(frozen=True)
class Away:
    """``path`` is moved out of the tree, or comes back."""

    path: str

    def happen(self, world: World) -> None:
        there = world.outside / self.path.replace("/", "-")

        def move(here: Path) -> None:
            if os.path.lexists(here):
                clear(there)
                here.rename(there)
            elif os.path.lexists(there):
                here.parent.mkdir(parents=True, exist_ok=True)
                there.rename(here)

        _attempt(world, self.path, move)


@dataclass(frozen=True)
class Link:
    """``path`` becomes a symbolic link to ``other``."""

    path: str
    other: str

    def happen(self, world: World) -> None:
        def link(path: Path) -> None:
            clear(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(os.path.relpath(world.root / self.other, path.parent))

        _attempt(world, self.path, link)


@dataclass(frozen=True)
class Copy:
    """``other`` is copied to ``path`` as `cp -a` does, or as `cp -al`: by hard links."""

    path: str
    other: str
    by_links: bool = False

    def happen(self, world: World) -> None:
        def copy(path: Path) -> None:
            other = world.root / self.other
            if path.exists() or not other.is_dir() or path.is_relative_to(other):
                return
            how = os.link if self.by_links else shutil.copy2
            shutil.copytree(other, path, symlinks=True, copy_function=how)

        _attempt(world, self.path, copy)


@dataclass(frozen=True)
class Touch:
    """Something happens to the n-th file below ``path``, or to the directory itself if it is ``n`` -1: it
    gets another mode, is cut off or rotten (with the times that it had), or it is removed."""

    path: str
    n: int
    how: Literal["0600", "0644", "0700", "0755", "cut", "rot", "remove", "mend", "become a link"]

    def happen(self, world: World) -> None:
        _attempt(world, self.path, lambda path: self._touch(world, path))

    def _touch(self, world: World, directory: Path) -> None:
        files = [directory] if self.n < 0 and directory.is_dir() else files_in(directory)
        if not files or directory.is_symlink():
            return
        file = files[max(self.n, 0) % len(files)]
        if file.is_dir():
            if self.how in ("0700", "0755"):
                file.chmod(int(self.how, 8))
            return
        world.is_damaged |= file.stat().st_nlink > 1 or self.how == "mend"
        match self.how:
            case "remove":
                file.unlink()
            case "cut":
                os.truncate(file, max(0, file.stat().st_size - 1))
            case "rot":
                store = world.passes.mirror.store
                _rot(file, leaves_no_trace=store is not None and store.prover.is_complete)
            case "mend":
                _mend(file)
            case "become a link":
                moved = world.outside / file.name
                file.rename(moved)
                file.symlink_to(moved)
            case mode:
                file.chmod(int(mode, 8))


@dataclass(frozen=True)
class Hardlink:
    """`hardlink -c` over the tree: files with the same content become one."""

    def happen(self, world: World) -> None:
        subprocess.run([require("hardlink"), "-c", world.root], check=True, capture_output=True)
        world.touch(".")


@dataclass(frozen=True)
class Look:
    """One pass in between."""

    full: bool = True
    hints: Hints = "none"

    def happen(self, world: World) -> None:
        world.look(full=self.full, hints=self.hints)


@dataclass(frozen=True)
class Restart:
    """The daemon ends between two passes, and begins again, perhaps with another nginx."""

    other_nginx: bool = False

    def happen(self, world: World) -> None:
        world.restart(other_nginx=self.other_nginx)


@dataclass(frozen=True)
class Kill:
    """The next pass is killed after this step."""

    step: Step

    def happen(self, world: World) -> None:
        world.dies_at = self.step


@dataclass(frozen=True)
class KillAt:
    """The next pass is killed at its n-th call that changes something."""

    count: int

    def happen(self, world: World) -> None:
        world.axe_at = self.count


@dataclass(frozen=True)
class Within:
    """Something happens in the middle of the next pass, after a step of it."""

    step: Step
    event: "Drop | Remove | Rename | Touch"

    def happen(self, world: World) -> None:
        world.within = self.step, lambda: self.event.happen(world)


@dataclass(frozen=True)
class Clock:
    """The clock of the machine is so many seconds wrong from now on."""

    seconds: float

    def happen(self, world: World) -> None:
        world.clock = self.seconds


@dataclass(frozen=True)
class Ask:
    """What an operator asks of the daemon."""

    what: Request

    def happen(self, world: World) -> None:
        records.request(world.passes.mirror.publisher.state, self.what, "now")


@dataclass(frozen=True)
class Lose:
    """The n-th file of the store goes, or with -1 all of it, or something else of STATE."""

    what: Literal["store", "published.json", "nginx", "current"]
    n: int = 0

    def happen(self, world: World) -> None:
        state = world.passes.settings.state
        world.is_damaged = True
        match self.what:
            case "store":
                place = world.passes.mirror.store.place.path if world.passes.mirror.store else None
                if place is not None and place.is_dir():
                    own = {place / ".lock", place / ".proven"}
                    files = [path for path in sorted(place.rglob("*")) if not path.is_dir()]
                    some = [path for path in files if path not in own]
                    for path in some if self.n < 0 else some[self.n % len(some) :][:1] if some else []:
                        path.unlink()
            case "published.json":
                (state / "published.json").unlink(missing_ok=True)
            case "nginx":
                shutil.rmtree(state / "nginx", ignore_errors=True)
            case "current":
                (state / "nginx" / "current").unlink(missing_ok=True)


@dataclass(frozen=True)
class Mount:
    """The n-th disk is mounted at ``path``; an empty path is the root itself."""

    path: str
    n: int

    def happen(self, world: World) -> None:
        place, disk = world.root / self.path, world.outside / f"disk{self.n}"
        if place.is_dir() and not place.is_symlink() and len(world.mounts) < 3:
            disk.mkdir(exist_ok=True)
            mount("--bind", disk, place)
            world.mounts.append(place)
            world.touch(".")


@dataclass(frozen=True)
class Unmount:
    """What was mounted last is taken away."""

    def happen(self, world: World) -> None:
        if world.mounts:
            unmount(world.mounts.pop())
            world.touch(".")


def _write(world: World, path: str, files: dict[str, bytes], way: Way, pieces: int | None) -> None:
    def write_there(directory: Path) -> None:
        if way == "in place":
            there = [directory / name for name in files]
            world.is_damaged |= any(each.is_file() and each.stat().st_nlink > 1 for each in there)
        write(directory, files, way, pieces)

    _attempt(world, path, write_there)


def _attempt(world: World, path: str, act: Callable[[Path], None], *more: str) -> None:
    """Do it, if what is there lets one."""
    world.touch(path, *more)
    try:
        act(world.root / path)
    except OSError:
        return  # a file where a directory is needed, say: then it ends half way, as a tool would


def _rot(file: Path, *, leaves_no_trace: bool) -> None:
    """Exchange a byte in place, and leave no trace in the size, nor in the time of modification once what is
    proven was noted: before, a time that somebody sets back is believed."""
    status = file.stat()
    with file.open("r+b") as stream:
        byte = stream.read(1) or b"x"
        stream.seek(0)
        stream.write(bytes([byte[0] ^ 1]))
    if leaves_no_trace:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _mend(file: Path) -> None:
    """Write in place what belongs there."""
    name = file.name.partition(".")[0]
    if (content := CONTENTS.get(name)) is not None:
        file.write_bytes(content)
