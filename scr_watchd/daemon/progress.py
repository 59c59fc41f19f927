"""What is under way and takes its time, hashing and the first look: on a terminal, for systemd, and in
STATE/progress.json for whoever asks meanwhile."""

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from scr_watchd.daemon import lines
from scr_watchd.daemon.status import Count, size
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.files import read_file, swap_in
from scr_watchd.publish.hashing import UnderWay
from scr_watchd.words import printable, shown

_LONG = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")  # a digest that is a file's name
_FILE_BYTES = 64 << 10
_RECENT_SECONDS = 15.0
_YOUNG_SECONDS = 1.0  # what is over sooner needs no words


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    hashing: str = ""
    """The file, below the root; ``done`` of its ``size`` bytes are read."""
    done: Count = 0
    size: Count = 0
    looked: Count = 0
    """How many directories the first look has been in."""

    def __str__(self) -> str:
        told = []
        if self.looked:
            told.append(f"looking at the images for the first time: {self.looked:,} directories so far")
        if self.hashing:
            share = f"{size(self.done)} of {size(self.size)} ({self.done / max(1, self.size):.0%})"
            short = _LONG.sub(r"\1...", self.hashing)
            told.append(f"checking the bytes: {share} of {short}")
        return "; ".join(told)


@dataclass(slots=True)
class Teller:
    """Tells what is under way, whenever it is called. ``note`` is what systemd shows else."""

    file: Path
    notifier: Notifier
    may_write: Callable[[], bool]
    under_way: Callable[[], UnderWay | None]
    note: Callable[[], str]
    looked: int | None = 0
    """Directories of the first look; ``None`` once that is over."""
    _began: float = field(default_factory=time.monotonic)
    _has_told: bool = True

    def look(self) -> None:
        """The first look has been in one more directory."""
        if self.looked is not None:
            self.looked += 1

    def __call__(self) -> None:
        hashed = self.under_way()
        is_young = time.monotonic() - self._began < _YOUNG_SECONDS
        if hashed is None and (self.looked is None or is_young):
            self._end()
            return
        progress = Progress(
            hashing=printable(hashed.path) if hashed else "",
            done=hashed.done if hashed else 0,
            size=hashed.size if hashed else 0,
            looked=self.looked or 0,
        )
        self._has_told = True
        lines.terminal.show(str(progress))
        self.notifier.status(str(progress))
        with contextlib.suppress(OSError):  # a full disk is told of elsewhere
            if self.may_write():
                swap_in(self.file, msgspec.json.encode(progress))

    def _end(self) -> None:
        if not self._has_told:
            return
        self._has_told = False
        lines.terminal.wipe()
        if note := self.note():
            self.notifier.status(note)
        with contextlib.suppress(OSError):
            if self.may_write():
                self.file.unlink(missing_ok=True)


def recent(path: Path) -> str:
    """What a daemon is about, if it has told of that just now; else an empty text."""
    try:
        if time.time() - path.lstat().st_mtime > _RECENT_SECONDS:
            return ""
        return shown(str(msgspec.json.decode(read_file(path, limit=_FILE_BYTES), type=Progress)))
    except (OSError, ValueError, RecursionError):
        return ""
