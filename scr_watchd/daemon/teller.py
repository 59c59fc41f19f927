"""Tells what is under way while it is: on a terminal, to the service manager, and in STATE/progress.json."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from scr_watchd.daemon import logs
from scr_watchd.daemon.progress import Progress
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.files import swap_in
from scr_watchd.publish.hashing import UnderWay
from scr_watchd.words import printable

_YOUNG_SECONDS = 1.0  # what is over sooner needs no words


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
        logs.terminal.show(str(progress))
        self.notifier.status(str(progress))
        with contextlib.suppress(OSError):  # a full disk is told of elsewhere
            if self.may_write():
                swap_in(self.file, msgspec.json.encode(progress))

    def _end(self) -> None:
        if not self._has_told:
            return
        self._has_told = False
        logs.terminal.wipe()
        if note := self.note():
            self.notifier.status(note)
        with contextlib.suppress(OSError):
            if self.may_write():
                self.file.unlink(missing_ok=True)
