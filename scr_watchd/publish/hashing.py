"""Do the bytes of a blob have the digest that its name says? Small ones at once, others in a thread.

A thread, because a blob may have many gigabytes and others must not wait for it. It reads and puts
down its result; everything else is done by whoever asks again after ``wake``.
"""

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import new as new_hash
from pathlib import Path
from queue import SimpleQueue

from scr_watchd.files import open_directory
from scr_watchd.oci.names import Digest

_BUFFER_BYTES = 256 * 1024
_NICE = 10

Identity = tuple[int, int, int]
"""Inode, size and modification time in nanoseconds: what tells a file from what it was. Not the
change time, which linking the file changes."""


def identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Job:
    """``file`` of the directory ``path`` below a root is to have ``digest``; ``owner`` is who wants
    to know."""

    path: str
    file: str
    identity: Identity
    digest: Digest
    owner: tuple[str, str]


class Hasher:
    """Hashes files below ``root``; ``wake`` is called, from its thread, when a result is there."""

    def __init__(self, root: Path, wake: Callable[[], None]) -> None:
        self._root = root
        self._wake = wake
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._submitted: set[Identity] = set()
        self._results: dict[Identity, bool] = {}
        self._news: SimpleQueue[Job] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def result(self, what: Identity) -> bool | None:
        """Whether the file has its digest; ``None`` while that is not known."""
        return self._results.get(what)

    def forget(self, what: Identity) -> None:
        self._results.pop(what, None)
        self._submitted.discard(what)

    def news(self) -> list[Job]:
        """The jobs that were done since the last time."""
        return [self._news.get() for _ in range(self._news.qsize())]

    @property
    def has_news(self) -> bool:
        return not self._news.empty()

    def submit(self, job: Job) -> None:
        if job.identity in self._submitted:
            return
        self._submitted.add(job.identity)
        self._jobs.put(job)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="hasher", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            job = self._jobs.get()
            try:
                with open_directory(self._root) as root, open_directory(job.path, within=root) as directory:
                    matches = has_digest(job.file, job.digest, within=directory, expected=job.identity)
            except OSError:
                matches = None  # it went away, or cannot be read: the scan tells of that
            if matches is None:
                self._submitted.discard(job.identity)
            else:
                self._results[job.identity] = matches
            self._news.put(job)
            self._wake()


def has_digest(
    file: str,
    digest: Digest,
    *,
    within: int,
    expected: Identity | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> bool | None:
    """Whether ``file`` of the directory ``within`` has ``digest``; ``None`` if it is not, or does not
    stay, the regular file ``expected``. ``progress`` is told of bytes as they are read.

    Raises ``OSError`` if it cannot be read.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=within)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode) or (expected is not None and identity(before) != expected):
            return None
        hashed = new_hash(digest.algorithm, usedforsecurity=False)
        buffer = bytearray(_BUFFER_BYTES)
        view = memoryview(buffer)
        while count := stream.readinto(buffer):
            hashed.update(view[:count])
            progress(count)
        if identity(os.fstat(descriptor)) != identity(before):
            return None
    return hashed.hexdigest() == digest.hex
