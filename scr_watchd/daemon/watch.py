"""Turns file events below the images directory into hints to look again.

A hint says nothing about what changed, and none may come: the rescan finds the same, only later. What
gives the hints is not believed either. watchdog can lose events, lose directories, and die with every
sign of life, so each look asks whether it is what it was, and begins anew if not.
"""

import contextlib
import logging
import math
import os
import select
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Literal

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
from watchdog.observers import Observer, inotify_c
from watchdog.observers.api import BaseObserver
from watchdog.utils import BaseThread

from scr_watchd import threads
from scr_watchd.files import FileId, file_id, mounts_around
from scr_watchd.images.places import EVERYWHERE

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
_BACK_OFF_SECONDS = (0.0, 2.0, 10.0, 60.0, 300.0)
_POLL_SECONDS = 0.1
_STOP_SECONDS = 0.5
_SILENCE_SECONDS = 10.0  # in which a watch that begins comes to another directory
_MOST_HINTS = 100_000
_CALM_SECONDS = 600.0  # a watch that lived so long begins with the shortest wait again

# watchdog warns of a directory that appeared while it was being walked, with a list of all watches
warnings.filterwarnings("ignore", category=RuntimeWarning, module="watchdog")


class Watch:
    """A watch on ``root`` that calls ``hint``, from another thread, when something changes; ``take`` tells
    where.

    ``events`` False never asks the kernel for events. ``progress`` is called while a watch begins.
    """

    def __init__(
        self,
        root: Path,
        hint: Callable[[], None],
        *,
        events: bool,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = root
        self._hint = hint
        self._progress = progress
        self._events = events
        self._observer: BaseObserver | None = None
        self._threads: set[threading.Thread] = set()
        self._identity: tuple[int, int] | None = None
        self._failures = 0
        self._began = -math.inf
        self._again_at = -math.inf
        self._short_of = 0
        self._log = _Log(self._overflowed)
        self._hints: deque[str] = deque(maxlen=_MOST_HINTS)
        self._mounts: _Mounts | None = None
        self.doubt = "" if events else "watch is set to poll"
        """Why file events alone will not do, and we look every few seconds as well; empty if they do."""

    @property
    def is_trusted(self) -> bool:
        """Whether hints can be expected to come."""
        return self._observer is not None and not self.doubt

    @property
    def mode(self) -> Literal["events", "both", "poll"]:
        if self._observer is None:
            return "poll"
        return "both" if self.doubt else "events"

    @property
    def state(self) -> str:
        """For people: what tells us of changes."""
        if self._observer is None:
            return f"polling: {self.doubt}" if self.doubt else "polling until there is a directory to watch"
        return f"file events, and polling: {self.doubt}" if self.doubt else "file events"

    def take(self) -> list[str]:
        """Where something changed since the last time, relative to the root: see ``images/places``."""
        found = [self._hints.popleft() for _ in range(len(self._hints))]
        return found if len(found) < _MOST_HINTS else [EVERYWHERE]

    def ensure(self) -> bool:
        """Watch, if anything is to be watched; begin anew if the watch is not what it was. Returns whether it
        did not begin just now, so that hints have come of all that happened since the last time.

        Call it before every look, so that no change falls between the two.
        """
        before = self._observer
        if self._observer is not None:
            if self._identity != _identity(self._root):
                self.close()
            elif not all(thread.is_alive() for thread in self._threads):
                self._fail("the file watcher died")
        if self._observer is None and self._events and time.monotonic() >= self._again_at:
            self._start()
        return self._observer in (before, None)

    def has_moved(self) -> bool:
        """Whether the root is another directory than is watched, or something was mounted around it since the
        last time, of which no event tells: then the next look begins another watch."""
        if self._observer is None:
            return False
        have_changed = self._mounts is not None and self._mounts.have_changed()
        if not have_changed and self._identity == _identity(self._root):
            return False
        self.close()
        return True

    def compare(self, *, directories: int, surprised: bool) -> None:
        """Compare the watch with what a full scan found: the number of directories, and whether it was
        ``surprised``: whether something had changed of which no hint told."""
        if self._observer is None:
            return
        watches = _count_watches()
        short_of = directories - watches
        if surprised:
            self._fail("a change came without a file event")
        elif short_of > 0 and self._short_of > 0:  # twice: a new directory gets its watch a moment later
            self.doubt = (
                f"only {watches} of {directories} directories have a watch; raise "
                "fs.inotify.max_user_watches, see sysctl(8)"
            )
        elif short_of <= 0:
            self.doubt = ""
        self._short_of = short_of

    def close(self) -> None:
        """Stop watching; a thread that does not end is left behind, because it only gives hints."""
        observer, self._observer = self._observer, None
        if self._mounts is not None:
            self._mounts.close()
            self._mounts = None
        if observer is not None:
            self._log.remove()
            told = _apart(lambda: _stop(observer))
            if told is not None:
                with contextlib.suppress(Empty):
                    told.get(timeout=_STOP_SECONDS)
            _drop_shared_descriptor()

    def _start(self) -> None:
        identity = _identity(self._root)
        if identity is None:
            return  # there is no root to watch yet
        now = time.monotonic()
        before = _watchers()
        observers: list[BaseObserver] = []

        def begin() -> None:
            observer = Observer()  # which starts a thread
            observers.append(observer)
            # the real path: a watch on a symbolic link sees nothing of what is created behind it
            real = os.path.realpath(self._root)
            observer.schedule(_Hints(real, self._tell), real, recursive=True, event_filter=_EVENTS)
            observer.start()

        told = _apart(begin)
        wrong = "no thread can be started" if told is None else self._wait(told)
        self._observer = observers[0] if observers else None
        if wrong:
            self._fail(f"no file events: {wrong}")
            return
        self._log.add()
        self._mounts = _Mounts(self._root)
        self._threads = _watchers() - before
        self._identity = identity
        self._began = now
        self._short_of = 0
        self.doubt = ""

    def _wait(self, told: "SimpleQueue[str]") -> str:
        """Wait until the watch has begun, or for as long as it comes to more directories; what is wrong."""
        watches, until = -1, 0.0
        while True:
            with contextlib.suppress(Empty):
                return told.get(timeout=_POLL_SECONDS)
            self._progress()
            if time.monotonic() >= until:
                count = _count_watches()
                if count == watches:
                    return "the watcher does not begin"
                watches, until = count, time.monotonic() + _SILENCE_SECONDS

    def _fail(self, why: str) -> None:
        """Give this watch up, and wait longer with each failure before the next."""
        now = time.monotonic()
        if now - self._began > _CALM_SECONDS:
            self._failures = 0
        self._again_at = now + _BACK_OFF_SECONDS[min(self._failures, len(_BACK_OFF_SECONDS) - 1)]
        self._failures += 1
        self.close()
        self.doubt = why

    def _tell(self, path: str) -> None:
        self._hints.append(path)
        self._hint()

    def _overflowed(self) -> None:
        """Called in watchdog's thread: what the kernel dropped may be the making of a directory, which
        then has no watch. The next look begins anew."""
        self._threads = {_ENDED}
        self._hint()


class _Hints(FileSystemEventHandler):
    def __init__(self, root: str, tell: Callable[[str], None]) -> None:
        self._root = os.fsencode(root) + b"/"
        self._hidden = self._root + b"."
        self._tell = tell

    def dispatch(self, event: FileSystemEvent) -> None:
        """Tell where it happened, but for a hidden directory of the root: our own store may be one."""
        for given in (event.src_path, event.dest_path):
            path = os.fsencode(given)
            if not path.startswith(self._root) or path.startswith(self._hidden):
                continue
            is_file = not event.is_directory and not os.path.islink(path)
            relative = os.fsdecode(path[len(self._root) :])
            self._tell(f"{relative.rpartition('/')[0]}/" if is_file else relative)


class _Mounts:
    """The mounts around ``root``. That any mount of this process changes is an exceptional condition
    (proc_pid_mountinfo(5)), so that they need be read then only."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._poll = select.poll()
        self._descriptor = -1
        with contextlib.suppress(OSError):  # without one the next full look tells
            self._descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY)
            self._poll.register(self._descriptor, select.POLLPRI)
        self._known = mounts_around(root)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def have_changed(self) -> bool:
        """Whether they are not what they were the last time."""
        if not self._poll.poll(0):
            return False
        before, self._known = self._known, mounts_around(self._root)
        return self._known != before


class _Log(logging.Handler):
    """Takes what watchdog logs: that the queue overflowed is told in no other way."""

    _NAMES = ("watchdog.observers.inotify_c", "watchdog.observers.inotify")

    def __init__(self, overflowed: Callable[[], None]) -> None:
        super().__init__()
        self._overflowed = overflowed

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._overflowed()

    def add(self) -> None:
        for name in self._NAMES:
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).propagate = False

    def remove(self) -> None:
        for name in self._NAMES:
            logging.getLogger(name).removeHandler(self)


_ENDED = threading.Thread()  # stands for a watch that must begin anew: it never runs


def _drop_shared_descriptor() -> None:
    """watchdog 7.1 has one inotify descriptor for the process, and keeps it when its thread has died:
    a new observer would get the dead one. Other versions have one for each observer."""
    shared = getattr(inotify_c, "InotifyFD", None)
    if shared is not None:
        # without its lock, which a thread that never began may hold for ever
        instance, shared._instance = shared._instance, None  # noqa: SLF001 - no other way to a new one
        if instance is not None:
            _apart(lambda: _stop(instance))


def _apart(act: Callable[[], None]) -> "SimpleQueue[str] | None":
    """Have a thread of its own ``act``: watchdog waits for its threads without a deadline, in vain where
    memory ran out. What comes is what was wrong, or an empty text; ``None`` if there can be no thread."""
    told: SimpleQueue[str] = SimpleQueue()

    def run() -> None:
        try:
            act()
        except (OSError, KeyError, RuntimeError, MemoryError) as error:  # a watch that died raises any
            told.put(getattr(error, "strerror", "") or str(error) or type(error).__name__)
        else:
            told.put("")

    return told if threads.start(run, name="watch") else None


def _stop(thread: BaseThread) -> None:
    thread.stop()
    thread.join(timeout=1)


def _watchers() -> set[threading.Thread]:
    """The threads of watchdog."""
    return {each for each in threading.enumerate() if isinstance(each, BaseThread)}


def _identity(path: Path) -> FileId | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return file_id(status)


def _count_watches() -> int:
    """The watches of this process (proc_pid_fdinfo(5))."""
    count = 0
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return 0  # no descriptor is left, so nobody knows
    for name in names:
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                count += Path(f"/proc/self/fdinfo/{name}").read_text().count("inotify wd:")
        except OSError:
            continue  # the descriptor of the listing itself
    return count
