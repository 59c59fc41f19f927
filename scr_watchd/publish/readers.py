"""Who has read the current generation: a confirmation holds for one master of nginx, and for no other.

While nginx's binary is upgraded (USR2) there are two, and one that takes over again, because the upgrade
was taken back, goes on with what it read long ago.
"""

import os
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from scr_watchd.files import read_file, swap_in
from scr_watchd.publish.master import Process

_FILE_BYTES = 64 << 10
_TICKS = os.sysconf("SC_CLK_TCK")
_READING_SECONDS = 60.0
"""nginx reads its configuration before it becomes a daemon: its master may be younger than what it read,
by as long as that takes."""


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Readers:
    """Those of one generation, current ``since`` then (seconds since boot, as a process's start is)."""

    masters: AbstractSet[Process] = frozenset()
    since: float = field(default_factory=_now)

    def have(self, master: Process) -> bool:
        """Whether ``master`` has read it: it was seen to, or found nothing else when it started."""
        return master in self.masters or master.started / _TICKS >= self.since + _READING_SECONDS


class _File(msgspec.Struct):
    generation: str
    since: float
    masters: tuple[tuple[int, int], ...]


def write(path: Path, generation: str, readers: Readers) -> None:
    """Note them for the next daemon. Without the note nginx is told once more, so nothing is synced."""
    masters = tuple(sorted((each.pid, each.started) for each in readers.masters))
    swap_in(path, msgspec.json.encode(_File(generation, readers.since, masters)))


def read(path: Path, generation: str) -> Readers:
    """What is noted of the readers of ``generation``; nobody, if nothing is."""
    try:
        noted = msgspec.json.decode(read_file(path, limit=_FILE_BYTES), type=_File)
    except (OSError, ValueError, RecursionError):
        return Readers()
    if noted.generation != generation:
        return Readers()
    if noted.since > _now():  # of another boot: whoever runs now has found it at the start
        return Readers(since=-_READING_SECONDS)
    return Readers(frozenset(Process(*each) for each in noted.masters), noted.since)
