"""The state directory: where everything lies, who may write it, and what commands ask for.

STATE/lock              held by the one daemon that works here; holds its process id
STATE/status.json       for `scr-watchd status`
STATE/metrics.prom      the same for Prometheus
STATE/progress.json     what is under way and takes its time, as long as it does
STATE/published.json    the catalog that nginx is known to serve, and its generation (see records.py)
STATE/pending           the same for a generation that is switched to but not confirmed
STATE/readers.json      which masters of nginx have read that generation (see readers.py)
STATE/*.request         what a command asks of the daemon
STATE/nginx/current     -> generations/ID/, what nginx includes
STATE/store/            links to blobs, copies of manifests (see store.py)
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import (
    NotRegularError,
    close,
    make_directory,
    read_file,
    write_atomically,
)

STATUS_BYTES = 64 << 20  # 100,000 Problems
_REQUEST_BYTES = 64
_PID_BYTES = 20
LOCK_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
MOST_PID = 1 << 22  # the kernel's PID_MAX_LIMIT

_TRIES, _TRY_SECONDS = 10, 0.05


@dataclass(frozen=True, slots=True)
class State:
    """The paths of one state directory."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.prom"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def published(self) -> Path:
        return self.path / "published.json"

    @property
    def pending(self) -> Path:
        return self.path / "pending"

    @property
    def readers(self) -> Path:
        return self.path / "readers.json"

    @property
    def nginx(self) -> Path:
        return self.path / "nginx"

    @property
    def generations(self) -> Path:
        return self.nginx / "generations"

    @property
    def serve(self) -> Path:
        return self.path / "serve"

    @property
    def own(self) -> Iterator[Path]:
        """What lies here and is nobody's but root's, ours or the directory's owner's."""
        yield from (self.lock, self.status, self.metrics, self.progress)
        yield from (self.published, self.pending, self.readers)
        yield from (self.path / f"{what}.request" for what in REQUESTS)
        yield from (self.serve, self.serve / "nginx.conf", self.serve / "nginx.pid", self.path / "check")
        yield from (self.nginx, self.nginx / "current", self.generations)
        for directory, names, files in os.walk(self.generations):
            yield from (Path(directory, name) for name in (*names, *files))


class Lock:
    """The lock of a state directory: whoever has it is its only daemon."""

    def __init__(self, state: State) -> None:
        """Take the lock; the directory is created if need be.

        Raises ``ScrWatchdError`` naming the process that has it, or what is wrong with the directory.
        """
        self._state = state
        self._descriptor = _lock(state)

    def keep(self) -> None:
        """Take the lock again if its file was removed: the directory may lie in a tree that others
        mirror. Raises like the first time."""
        try:
            now = self._state.lock.stat()
        except FileNotFoundError:
            now = None
        if now is None or not os.path.samestat(now, os.fstat(self._descriptor)):
            before, self._descriptor = self._descriptor, _lock(self._state)
            close(before)

    def beat(self) -> None:
        """Leave a sign of life: the lock's own words again, for their time."""
        with contextlib.suppress(OSError):  # that a disk is full is no reason to end
            _sign(self._descriptor)

    def release(self) -> None:
        close(self._descriptor)


@contextlib.contextmanager
def locked(state: State) -> Iterator[Lock]:
    """Be the only daemon of this state directory. Raises like ``Lock``."""
    lock = Lock(state)
    try:
        yield lock
    finally:
        lock.release()


def _lock(state: State) -> int:
    try:
        make_directory(state.path)
        # for nobody else: who can open it could hold it, and no daemon would start
        descriptor = os.open(state.lock, os.O_RDWR | os.O_CREAT | LOCK_FLAGS, 0o600)
        demand_file(descriptor)
    except OSError as error:
        raise ScrWatchdError(
            f"cannot write the state directory {state.path}: {error.strerror}",
            hint="name a directory that you may write with --state",
        ) from error
    for tries_left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if tries_left:  # a command that looks whether a daemon runs holds it for a moment
                time.sleep(_TRY_SECONDS)
                continue
            holder = pid_in(descriptor) or "unknown"
            close(descriptor)
            raise ScrWatchdError(
                f"another scr-watchd (process {holder}) works on {state.path}",
                hint="stop that one, or give this one a state directory of its own with --state",
            ) from error
        except OSError:
            close(descriptor)
            raise
        break
    with contextlib.suppress(OSError):  # a full disk: then who holds the lock is not told
        os.ftruncate(descriptor, 0)
        _sign(descriptor)
    return descriptor


def _sign(descriptor: int) -> None:
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def silent_seconds(state: State) -> float:
    """How long ago the daemon of ``state`` gave its last sign of life."""
    return max(0.0, time.time() - state.lock.stat().st_mtime)


def demand_file(descriptor: int) -> None:
    """Close ``descriptor`` and raise ``NotRegularError`` if it is something else."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegularError(errno.ENXIO, "the lock is not a regular file")
    except OSError:
        close(descriptor)
        raise


def pid_in(descriptor: int) -> int:
    """The process id that a lock holds; 0 if it holds something else."""
    text = os.pread(descriptor, _PID_BYTES, 0).strip()
    return int(text) if text.isdigit() and int(text) <= MOST_PID else 0


# -- requests: what a command asks of the daemon, also of one that does not run now -----------------

Request = Literal["accept", "prune"]
REQUESTS: tuple[Request, ...] = ("accept", "prune")


def request(state: State, what: Request, text: str = "") -> None:
    """Leave a request. The daemon looks every two seconds, and at once when SIGUSR1 tells it."""
    write_atomically(_request_file(state, what), text.encode())


def requested(state: State, what: Request) -> str | None:
    """The text of a request that is still there. What cannot be read asks for nothing."""
    try:
        return read_file(_request_file(state, what), limit=_REQUEST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def left(state: State) -> frozenset[tuple[int, int]]:
    """What tells the requests that are there from others that come later."""
    found = set()
    for what in REQUESTS:
        with contextlib.suppress(OSError):
            status = os.lstat(_request_file(state, what))
            found.add((status.st_ino, status.st_mtime_ns))
    return frozenset(found)


def answered(state: State, what: Request) -> None:
    _request_file(state, what).unlink(missing_ok=True)


def _request_file(state: State, what: Request) -> Path:
    return state.path / f"{what}.request"
