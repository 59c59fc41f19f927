"""STATE/progress.json: what is under way and takes its time, hashing and the first look."""

import re
import time
from pathlib import Path

import msgspec

from scr_watchd.daemon.status import Count, size
from scr_watchd.files import read_file
from scr_watchd.words import shown

_LONG = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")  # a digest that is a file's name
_FILE_BYTES = 64 << 10
_RECENT_SECONDS = 15.0


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


def recent(path: Path) -> str:
    """What a daemon is about, if it has told of that just now; else an empty text."""
    try:
        if time.time() - path.lstat().st_mtime > _RECENT_SECONDS:
            return ""
        return shown(str(msgspec.json.decode(read_file(path, limit=_FILE_BYTES), type=Progress)))
    except (OSError, ValueError, RecursionError):
        return ""
