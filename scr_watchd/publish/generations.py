"""The three files that nginx includes, as directories of which one is current.

    STATE/nginx/generations/ID/{hash,http,server}.conf
    STATE/nginx/current -> generations/ID

One rename(2) of the link changes all three at once, also on an upgrade or when going back.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.files import make_directory, sync_directory, write_atomically


@dataclass(frozen=True, slots=True)
class Candidate:
    """A generation on disk that nginx has not accepted yet."""

    id: str
    path: Path


class Generations:
    """The generations in one directory."""

    def __init__(self, directory: Path) -> None:
        self.current = directory / "current"
        self._generations = directory / "generations"

    def current_id(self) -> str | None:
        """The id of the current generation; ``None`` if there is none, or if its files are gone."""
        try:
            target = self.current.readlink()
        except FileNotFoundError:
            return None
        return target.name if (self.current / "http.conf").is_file() else None

    def stage(self, generation: str, files: Mapping[str, bytes]) -> Candidate:
        """Write a generation beside the current one, to survive a power cut from here on."""
        path = self._generations / generation
        if not _holds(path, files):
            make_directory(self._generations)
            new = self._generations / f".{generation}.new"
            for leftover in (new, path):
                shutil.rmtree(leftover, ignore_errors=True)
            make_directory(new)
            for name, content in files.items():
                write_atomically(new / name, content)
            new.rename(path)
            sync_directory(self._generations)
        return Candidate(generation, path)

    def switch(self, generation: str) -> None:
        """Make ``generation`` the one that nginx reads next.

        A reader sees the old one or the new one, whole: the link is made beside the old and renamed
        over it.
        """
        new = self.current.with_name(".current.new")
        new.unlink(missing_ok=True)
        new.symlink_to(Path("generations") / generation)
        new.rename(self.current)
        sync_directory(self.current.parent)

    def prune(self, *, keep: frozenset[str]) -> None:
        """Remove every generation but the current one and those to ``keep``."""
        for name in os.listdir(self._generations):
            if name not in keep and name != self.current_id():
                shutil.rmtree(self._generations / name)


def _holds(path: Path, files: Mapping[str, bytes]) -> bool:
    try:
        return all((path / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False
