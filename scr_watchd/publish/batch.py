"""What is written into the store in one go, and survives a power cut together."""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from scr_watchd import threads
from scr_watchd.files import close, create, make_directory, make_inside, write_all
from scr_watchd.oci.names import Digest

_MANY = 4096  # manifests that are written before they are synced
_SLICE = 64  # files that a thread syncs before it tells of them; fewer are not worth one
_SYNCS = 16  # at a time, so that one commit of the file system's journal does for many
_SILENCE_SECONDS = 0.2  # of all that help, before what they have is done again

Mark = tuple[int, int]
UNMARKED: Mark = (-1, -1)


@dataclass(slots=True)
class Batch:
    """Files that are written beside their names, and directories that have new names, until ``sync``.
    ``place`` is the store."""

    place: Path
    progress: Callable[[], None]
    _unsynced: dict[str, str] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _made: set[str] = field(default_factory=set)

    def change(self, directory: str) -> None:
        """Have the names in ``directory`` synced."""
        self._changed.add(directory)

    def has(self, file: str) -> bool:
        return file in self._unsynced

    def make(self, directory: str) -> None:
        """Make a directory of the store, and the store itself, which somebody may have removed."""
        if directory not in self._made:
            make_directory(self.place)
            make_inside(self.place, os.path.relpath(directory, self.place))
            self._made.add(directory)

    def write(self, file: str, raw: bytes, digest: Digest) -> None:
        """Write a manifest. It has its name ``file`` after the next ``sync``."""
        directory, _, name = file.rpartition("/")
        new = f"{directory}/.{name}.new"
        try:
            descriptor = create(new)
        except FileNotFoundError:
            self._made.discard(directory)
            self.make(directory)
            descriptor = create(new)
        try:
            write_all(descriptor, raw)
            os.fchmod(descriptor, 0o644)
            os.utime(descriptor, (moment(digest),) * 2)
        finally:
            os.close(descriptor)
        self._unsynced[file] = new
        if len(self._unsynced) >= _MANY:
            self.sync()

    def sync(self) -> None:
        """Have everything that was written since the last time survive a power cut."""
        self._fsync(self._unsynced.values())
        for file, new in self._unsynced.items():
            os.rename(new, file)
            self._changed.add(os.path.dirname(file))
        self._unsynced.clear()
        self._fsync(self._changed)
        self._changed.clear()

    def _fsync(self, paths: Collection[str]) -> None:
        """Sync ``paths``, with the help of threads. Their words are not waited for: what they do not tell
        of, such as one that ran out of memory, is done here, and twice does no harm."""
        every = list(paths)
        slices = {start: every[start : start + _SLICE] for start in range(0, len(every), _SLICE)}
        todo = deque(slices)
        done: SimpleQueue[tuple[int, OSError | None]] = SimpleQueue()

        def help_out() -> None:
            for start in _emptied(todo):
                try:
                    _fsync_all(slices[start])
                    done.put((start, None))
                except OSError as error:
                    done.put((start, error))

        try:
            for _ in range(min(_SYNCS, len(slices) - 1)):
                if not threads.start(help_out, name="sync"):
                    break
            left = dict(slices)
            for start in _emptied(todo):
                _fsync_all(left.pop(start), self.progress)
            while left:
                try:
                    start, error = done.get(timeout=_SILENCE_SECONDS)
                except Empty:
                    _, late = left.popitem()
                    _fsync_all(late, self.progress)
                    continue
                self.progress()
                left.pop(start, None)
                if error is not None:
                    raise error
        finally:
            todo.clear()


def moment(digest: Digest) -> int:
    """A modification time made from the digest, in the years 2000 to 2019.

    nginx's ETag is time and size: two manifests of one size must not share it, and replicas must
    agree on it.
    """
    return 946_684_800 + int(digest.hex[:8], 16) % 631_152_000


def mark(path: str) -> Mark:
    """What changes when somebody adds or removes a name in ``path``; ``(0, 0)`` if it is gone."""
    with suppress(FileNotFoundError, NotADirectoryError):
        status = os.lstat(path)
        return status.st_ino, status.st_mtime_ns
    return 0, 0


def _emptied(todo: "deque[int]") -> Iterator[int]:
    """What is in ``todo``, each for one of the threads that take from it."""
    while True:
        try:
            yield todo.popleft()
        except IndexError:
            return


def _fsync_all(paths: Iterable[str], progress: Callable[[], None] = lambda: None) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            close(descriptor)
        progress()
