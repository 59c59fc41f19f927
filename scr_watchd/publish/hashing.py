"""Do the bytes of a blob have the digest that its name says? Small ones at once, others in a thread.

A thread, because a blob may have many gigabytes and others must not wait for it. It reads and puts
down its result; everything else is done by whoever asks again after ``wake``. Owners of files take turns, so
that what one drops, such as a sparse file of many terabytes, keeps nobody else waiting. What no link can be
made of is copied while it is hashed.
"""

import math
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import new as new_hash
from pathlib import Path
from queue import SimpleQueue

from scr_watchd import threads
from scr_watchd.files import close, open_directory
from scr_watchd.oci.names import Digest
from scr_watchd.publish.copying import Copying, Target

_BUFFER_BYTES = 256 * 1024
_NICE = 10
_TURN_SECONDS = 1.0
_RETRY_SECONDS = 60.0  # after a copy that could not be written

Identity = tuple[int, int, int]
"""Inode, size and modification time in nanoseconds: what tells a file from what it was. Not the
change time, which linking the file changes."""


def identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns


Owner = tuple[str, str]
_What = tuple[Identity, Digest, str]
"""A file, its digest, and where its copy is to be, if one is wanted."""


@dataclass(frozen=True, slots=True)
class Job:
    """``file`` of the directory ``path``, below a root if that is relative, is to have ``digest``. It
    belongs to ``uid``, and is copied to ``target``."""

    path: str
    file: str
    identity: Identity
    digest: Digest
    uid: int = 0
    target: Target | None = None

    @property
    def what(self) -> "_What":
        return self.identity, self.digest, self.target.path if self.target is not None else ""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """``done`` bytes of ``size`` were read of the file ``path`` below the root."""

    path: str
    done: int
    size: int


class Hasher:
    """Hashes files below ``root``, each once, however many want to know of it.

    ``wake`` is called from its thread when there is news that should not wait for the next look:
    somebody waits for it, or it is bad. Where no thread can be started, ``submit`` does the job itself,
    and calls ``progress``.
    """

    def __init__(
        self, root: Path, wake: Callable[[], None], *, progress: Callable[[], None] = lambda: None
    ) -> None:
        self.under_way: UnderWay | None = None
        """What its thread is at."""
        self._root = root
        self._wake = wake
        self._progress = progress
        self._jobs: dict[int, deque[Job]] = {}
        """What is to be done, by the user whose it is; whose turn is next comes first."""
        self._done: SimpleQueue[tuple[_What, bool | None, str]] = SimpleQueue()
        self._owners: dict[_What, set[Owner]] = {}
        self._urgent: set[_What] = set()
        self._results: dict[_What, bool] = {}
        self.knows_rot = False
        """Whether some file was found not to have its digest."""
        self._failures: dict[_What, tuple[str, float]] = {}
        """Why a copy could not be written, and when (monotonic)."""
        self._copies: dict[str, _What] = {}
        """What is being copied, or lies ready, by where: two files may be to become the same."""
        self._sizes: dict[_What, int] = {}
        """The disk that the copies take that are being written."""
        self._copying_bytes = 0
        self._has_thread = False
        self._turn = threading.Lock()
        """Whether there is a thread is decided by one at a time."""

    def result(self, file: Identity, digest: Digest) -> bool | None:
        """Whether ``file`` has ``digest``, as of the last ``news``; ``None`` if that is not known."""
        return self._results.get((file, digest, ""))

    def remember(self, file: Identity, digest: Digest, matches: bool) -> None:  # noqa: FBT001 - a result
        """Know of a file that somebody else has hashed."""
        self._results[file, digest, ""] = matches
        self.knows_rot |= not matches

    # -- copies --------------------------------------------------------------------------------------

    def copied(self, job: Job) -> bool | None:
        """Whether the copy that ``job`` makes lies ready; not if the file has another digest, and ``None`` if
        that is not known."""
        matches = self._results.get(job.what)
        return None if matches and self._copies.get(job.what[2]) != job.what else matches

    def is_copying(self, path: str) -> bool:
        """Whether a copy is being written to ``path``."""
        return self._copies.get(path) in self._owners

    def failure(self, job: Job) -> str:
        """Why ``job`` could not make a copy just now, if it could not."""
        reason, at = self._failures.get(job.what, ("", -math.inf))
        return reason if time.monotonic() < at + _RETRY_SECONDS else ""

    def forget_copy(self, path: str) -> None:
        """A copy that lay ready at ``path`` was taken away."""
        if (what := self._copies.pop(path, None)) is not None:
            self._results.pop(what, None)

    def has_copy(self, path: str) -> bool:
        """Whether a copy is being written to ``path``, or lies ready there."""
        return path in self._copies

    @property
    def has_copies(self) -> bool:
        """Whether any copy is being written, or lies ready."""
        return bool(self._copies)

    @property
    def copying_bytes(self) -> int:
        """What those take that are being written."""
        return self._copying_bytes

    # -- work ----------------------------------------------------------------------------------------

    def forget_good(self) -> None:
        """Forget the results that everybody has seen; those that are bad stay."""
        self._results = {what: matches for what, matches in self._results.items() if not matches or what[2]}

    def news(self) -> set[Owner]:
        """The owners of the jobs that were done since the last time."""
        owners: set[Owner] = set()
        for _ in range(self._done.qsize()):
            what, matches, failure = self._done.get()
            if matches is not None:
                self._results[what] = matches
                self.remember(what[0], what[1], matches)
            if not matches and self._copies.get(what[2]) == what:
                del self._copies[what[2]]
            self._copying_bytes -= self._sizes.pop(what, 0)
            self._failures.pop(what, None)
            if failure and what[2]:
                self._failures[what] = failure, time.monotonic()
            owners |= self._owners.pop(what)
            self._urgent.discard(what)
        return owners

    @property
    def is_idle(self) -> bool:
        """Whether all that was submitted is done, and told of."""
        return not self._owners

    @property
    def has_news(self) -> bool:
        return not self._done.empty()

    def submit(self, job: Job, *, owner: Owner, urgent: bool) -> None:
        """Have ``job`` done, unless it is under way; ``owner`` is who wants to know."""
        what = job.what
        if self.is_copying(what[2]):
            what = self._copies[what[2]]
        if urgent:
            self._urgent.add(what)
        if what in self._owners:
            self._owners[what].add(owner)
        else:
            self._owners[what] = {owner}
            if job.target is not None:
                self._copies[what[2]], self._sizes[what] = what, job.target.size
                self._copying_bytes += job.target.size
            with self._turn:
                self._jobs.setdefault(job.uid, deque()).append(job)
        self.go_on()

    def go_on(self) -> None:
        """Have what is left done, should the thread have died."""
        with self._turn:
            if self._has_thread or not self._jobs:
                return
            self._has_thread = True
        if not threads.start(self._work, name="hasher"):  # there is no memory, or no process may be added
            self._do_all(lambda _: self._progress())

    def _next(self) -> Job | None:
        """The job whose turn it is; with none the thread ends, because nobody says when a hasher is done
        with."""
        with self._turn:
            for uid in self._jobs:
                jobs = self._jobs.pop(uid)
                self._jobs[uid] = jobs
                return jobs[0]
            self._has_thread = False
            self.under_way = None
            return None

    def _is_done(self, job: Job, matches: bool | None, failure: str = "") -> None:  # noqa: FBT001 - a result
        with self._turn:
            self._jobs[job.uid].popleft()
            if not self._jobs[job.uid]:
                del self._jobs[job.uid]
        self._done.put((job.what, matches, failure))
        if not matches or job.what in self._urgent:
            self._wake()

    def _work(self) -> None:
        self._do_all(lambda _: None, nice=_NICE)

    def _do_all(self, progress: Callable[[int], None], *, nice: int = 0) -> None:
        under_way: dict[int, tuple[Hashing, int]] = {}
        try:
            if nice:
                with suppress(OSError):  # a sandbox may forbid even that
                    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
            while (job := self._next()) is not None:
                hashing, done = under_way.pop(job.uid) if job.uid in under_way else (self._begin(job), 0)
                until = time.monotonic() + _TURN_SECONDS
                try:
                    while time.monotonic() < until:
                        count = next(hashing)
                        done += count
                        self.under_way = UnderWay(f"{job.path}/{job.file}", done, job.identity[1])
                        progress(count)
                    under_way[job.uid] = hashing, done
                except StopIteration as end:
                    self._is_done(job, end.value)
                except (OSError, MemoryError, RuntimeError) as error:  # the last: no memory for a lock
                    # it went away, or cannot be read: the scan tells of that
                    self._is_done(job, None, getattr(error, "strerror", "") or str(error) or repr(error))
        except BaseException:
            self._has_thread = False
            raise

    def _begin(self, job: Job) -> "Hashing":
        with ExitStack() as stack:
            below = None if job.path.startswith("/") else stack.enter_context(open_directory(self._root))
            directory = stack.enter_context(open_directory(job.path, within=below))
            copying = stack.enter_context(Copying(job.target)) if job.target is not None else None
            return (
                yield from _hashing(
                    job.file, job.digest, within=directory, expected=job.identity, copying=copying
                )
            )


Hashing = Generator[int, None, bool | None]
"""Yields how many bytes were read just now, and returns what ``has_digest`` does."""


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
    hashing = _hashing(file, digest, within=within, expected=expected)
    try:
        while True:
            progress(next(hashing))
    except StopIteration as end:
        found: bool | None = end.value
        return found


def _hashing(
    file: str, digest: Digest, *, within: int, expected: Identity | None, copying: Copying | None = None
) -> Hashing:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=within)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode) or (expected is not None and identity(before) != expected):
            return None
        hashed = new_hash(digest.algorithm, usedforsecurity=False)
        buffer = bytearray(_BUFFER_BYTES)
        view = memoryview(buffer)
        while count := os.readv(descriptor, [buffer]):
            hashed.update(view[:count])
            if copying is not None:
                copying.write(bytes(view[:count]))
            yield count
            status = os.fstat(descriptor)
            if identity(status) != identity(before) or (expected is not None and status.st_nlink == 0):
                return None
        matches = hashed.hexdigest() == digest.hex
        if matches and copying is not None:
            copying.finish(descriptor)
        return matches
    finally:
        close(descriptor)
