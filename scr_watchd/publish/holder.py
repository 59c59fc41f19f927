"""Which daemon has a state directory, told from files that anybody may have written."""

import errno
import fcntl
import os
import signal

import msgspec

from scr_watchd.files import NotRegularError, close, read_file
from scr_watchd.publish.state import LOCK_FLAGS, MOST_PID, STATUS_BYTES, State, demand_file, pid_in

_COMMAND_BYTES = 64 << 10


def running(state: State) -> int | None:
    """The process id of the daemon that has ``state``, 0 if its lock does not say, or ``None`` if there
    is none. It is what the lock says, and may be that of any process: see ``is_daemon``."""
    try:
        descriptor = os.open(state.lock, os.O_RDONLY | LOCK_FLAGS)
        demand_file(descriptor)
    except PermissionError:  # another user's: then what its status says has to do
        return _told_pid(state)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotRegularError) or error.errno in (
            errno.ELOOP,
            errno.ENXIO,
        ):
            return None  # no daemon has made that
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return pid_in(descriptor)
    else:
        return None
    finally:
        close(descriptor)


def _told_pid(state: State) -> int | None:
    """The process that last wrote the status, if it still is one of ours."""
    try:
        pid = msgspec.json.decode(read_file(state.status, limit=STATUS_BYTES), type=_Told).pid
    except (OSError, ValueError, RecursionError):
        return None
    return pid if 0 < pid <= MOST_PID and is_daemon(pid, state) else None


class _Told(msgspec.Struct):
    pid: int


def is_daemon(pid: int, state: State) -> bool:
    """Whether process ``pid`` is a scr-watchd that may have ``state``: its owner's, or root's. Numbers
    that are read in a state are whatever its owner wants them to be."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(_COMMAND_BYTES).split(b"\0")
        owner = os.stat(f"/proc/{pid}").st_uid
        if owner not in (0, os.stat(state.path).st_uid):
            return False
    except OSError:
        return False
    ours = (os.path.basename(word) in (b"scr-watchd", b"scr_watchd") for word in words)
    stays = (word in (b"run", b"serve") for word in words[1:])
    return any(each and then for each, then in zip(ours, stays, strict=False))


def tell(pid: int, state: State) -> None:
    """Have the daemon ``pid`` of ``state`` look at once, if it is one and we may signal it; without that
    it looks within two seconds. Process 1 is never signalled for a number in a file."""
    if pid <= 1:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if is_daemon(pid, state):
            signal.pidfd_send_signal(descriptor, signal.SIGUSR1)
    except OSError:
        return
    finally:
        close(descriptor)
