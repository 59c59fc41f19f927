"""The three files that nginx includes, as directories of which one is current.

    STATE/nginx/generations/ID/{hash,http,server}.conf
    STATE/nginx/current -> generations/ID

One rename(2) of the link changes all three at once, also on an upgrade or when going back.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.errors import may_pass
from scr_watchd.files import (
    NotRegularError,
    make_inside,
    read_file,
    sync_directory,
    write_synced,
)

_FILE_BYTES = 1 << 30  # what renders to more, no nginx has room for


@dataclass(frozen=True, slots=True)
class Candidate:
    """A generation on disk that nginx has not accepted yet."""

    id: str
    path: Path


class Generations:
    """The generations in one directory."""

    def __init__(self, directory: Path) -> None:
        self.current = directory / "current"
        self._state = directory.parent
        self.directory = directory / "generations"
        self._intact: dict[str, _Marks] = {}

    def __contains__(self, generation: str) -> bool:
        return bool(generation) and (self.directory / generation).is_dir()

    def current_id(self) -> str | None:
        """The id of the current generation; ``None`` if there is none, or if its files are gone."""
        try:
            target = self.current.readlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # not a link
                return None
            raise
        try:
            return target.name if stat.S_ISREG((self.current / "http.conf").stat().st_mode) else None
        except OSError as error:
            if may_pass(error):
                raise
            return None

    def read(self, generation: str) -> dict[str, bytes]:
        """The files of a generation; what cannot be one of ours is left out."""
        path = self.directory / generation
        found = {}
        for name in sorted(os.listdir(path)):
            with contextlib.suppress(NotRegularError):
                found[name] = read_file(path / name, limit=_FILE_BYTES)
        return found

    def is_intact(self, generation: str) -> bool:
        """Whether nobody has touched the files of a generation since we wrote it, or vouched for it."""
        return self._intact.get(generation) == _marks(self.directory / generation)

    def vouch(self, generation: str) -> None:
        """The files of a generation are as they should be."""
        self._intact[generation] = _marks(self.directory / generation)

    def stage(self, generation: str, files: Mapping[str, bytes]) -> Candidate:
        """Write a generation beside the current one, to survive a power cut from here on."""
        path = self.directory / generation
        new, old = (self.directory / f".{generation}.{what}" for what in ("new", "old"))
        for former in (new, old):
            shutil.rmtree(former, ignore_errors=True)
        make_inside(self._state, str(new.relative_to(self._state)))
        for name, content in files.items():
            write_synced(new / name, content)
        sync_directory(new)
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                old.rename(path)  # it may be current, and what is damaged serves better than nothing
            raise
        sync_directory(self.directory)
        shutil.rmtree(old, ignore_errors=True)
        self.vouch(generation)
        return Candidate(generation, path)

    def switch(self, generation: str) -> None:
        """Make ``generation`` the one that nginx reads next.

        A reader sees the old one or the new one, whole: the link is made beside the old and renamed
        over it.
        """
        new = self.current.with_name(".current.new")
        new.unlink(missing_ok=True)
        new.symlink_to(Path("generations") / generation)
        if self.current.is_dir() and not self.current.is_symlink():
            shutil.rmtree(self.current)  # not ours, and in the way
        new.rename(self.current)
        sync_directory(self.current.parent)

    def discard(self, generation: str) -> None:
        """Remove a generation that is not current."""
        shutil.rmtree(self.directory / generation)
        self._intact.pop(generation, None)

    def prune(self, *, keep: frozenset[str]) -> None:
        """Remove every generation but the current one and those to ``keep``."""
        for name in os.listdir(self.directory):
            if name not in keep and name != self.current_id():
                self.discard(name)


_Marks = tuple[tuple[str, int, int, int], ...]


def _marks(path: Path) -> _Marks:
    """What tells the files in ``path`` from what they were."""
    try:
        with os.scandir(path) as entries:
            statuses = [(entry.name, entry.stat()) for entry in entries]
    except OSError as error:
        if may_pass(error):
            raise
        return ()
    return tuple(sorted((name, each.st_ino, each.st_size, each.st_mtime_ns) for name, each in statuses))
