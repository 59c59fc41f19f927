"""Turns file events below the images directory into hints to look again.

A hint says nothing about what changed, and none may come: the rescan finds the same, only later.
"""

import contextlib
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

# Reading is no change: with the default mask nginx at full load fills the queue and loses half its rate.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileClosedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
]

# watchdog warns of a directory that appeared while it was being walked, with a list of all watches
warnings.filterwarnings("ignore", category=RuntimeWarning, module="watchdog")


class Watch:
    """A watch on ``root`` that calls ``hint``, from another thread, when something changes.

    ``events`` False never asks the kernel for events.
    """

    def __init__(self, root: Path, hint: Callable[[], None], *, events: bool) -> None:
        self._root = root
        self._hint = hint
        self._observer: BaseObserver | None = None
        self._threads: set[threading.Thread] = set()
        self._identity: tuple[int, int] | None = None
        self.obstacle = "" if events else "watch is set to poll"
        """Why there are no file events; empty while there are."""

    @property
    def is_active(self) -> bool:
        """Whether hints can come; without an obstacle they cannot only while there is no root."""
        return self._observer is not None

    def ensure(self) -> None:
        """Start watching if nothing is watched, or if the root is another directory now; notice a
        watch that died. Call it before every scan, so that no change falls between the two."""
        if self._observer is not None:
            if self._identity != _identity(self._root):
                self.close()
            elif not all(thread.is_alive() for thread in self._threads):
                self.close()
                self.obstacle = "the watcher died"
        if self._observer is None and not self.obstacle:
            self._start()

    def close(self) -> None:
        """Stop watching; a thread that does not end is left behind, because it only gives hints."""
        observer, self._observer = self._observer, None
        if observer is not None:
            with contextlib.suppress(OSError, KeyError, RuntimeError):  # raised by a watch that died
                observer.stop()
                observer.join(timeout=1)

    def _start(self) -> None:
        identity = _identity(self._root)
        if identity is None:
            return  # there is no root to watch yet
        before = set(threading.enumerate())
        observer = Observer()
        try:
            # the real path: a watch on a symbolic link sees nothing of what is created behind it
            real = os.path.realpath(self._root)
            observer.schedule(_Hints(real, self._hint), real, recursive=True, event_filter=_EVENTS)
            observer.start()
        except OSError as error:
            self.obstacle = f"no file events: {error.strerror}"
            return
        self._observer = observer
        self._threads = set(threading.enumerate()) - before
        self._identity = identity


class _Hints(FileSystemEventHandler):
    def __init__(self, root: str, hint: Callable[[], None]) -> None:
        self._hidden = os.fsencode(root) + b"/."
        self._hint = hint

    def dispatch(self, event: FileSystemEvent) -> None:
        """Hint, unless all of it happened in a hidden directory of the root: our own store may be one."""
        paths = [os.fsencode(path) for path in (event.src_path, event.dest_path) if path]
        if not all(path.startswith(self._hidden) for path in paths):
            self._hint()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
