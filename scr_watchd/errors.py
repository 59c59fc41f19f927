"""The exceptions that end a command: with a sentence instead of a traceback, or because we are to end. And
the errors of the system that say nothing of a file, since they may be over in a moment."""

import difflib
import errno
from collections.abc import Iterable

_CURES = {
    errno.EMFILE: "Permit more open files: LimitNOFILE= in the unit, or ulimit -n",
    errno.ENFILE: "Permit the machine more open files: sysctl fs.file-max",
    errno.ENOMEM: "Give the machine, or the service (MemoryMax=), more memory",
    errno.EAGAIN: "Permit more processes: TasksMax= in the unit, or ulimit -u",
    errno.EIO: "Look for a failing disk or mount: dmesg | tail",
    errno.ESTALE: "Its server has another file system now: mount it again",
    errno.EROFS: "It is mounted read-only: dmesg | tail may say why, and mount -o remount,rw ends it",
    errno.ENOSPC: "Free some space, or some files: df -h and df -i tell of which there are none left",
    errno.EDQUOT: "Free some space, or permit more: quota(1)",
}


def may_pass(error: OSError) -> bool:
    """Whether the machine lacks something: then ``error`` says nothing of the file that it names, least of
    all that it is not there."""
    return error.errno in _CURES


def cure(error: OSError, otherwise: str = "") -> str:
    """What to do about ``error``, as a sentence without its full stop."""
    return _CURES.get(error.errno or 0, otherwise)


class ScrWatchdError(Exception):
    """Something that the person who started us can mend.

    ``message`` says what and where, ``hint`` what to do about it. ``status`` is the exit status:
    1 an operational failure, 2 a usage error, 78 a configuration error (sysexits' EX_CONFIG,
    for which a service manager should not try again).
    """

    def __init__(self, message: str, *, hint: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


class ConfigurationError(ScrWatchdError):
    """A setting that cannot be used; starting again without changing it is pointless."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, status=78)


class Stopped(BaseException):
    """We were asked to end during a pass. It is cut off between two steps, as a crash would; no class of
    ``Exception``, so that nobody takes it for a failure of what was waited for."""


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """A hint about ``word``, which is none of the ``known``: the nearest of them, or ``otherwise``."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise
