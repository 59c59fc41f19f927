"""A command that root runs on the state of somebody else becomes that user first: it can do nothing then
that he could not, whatever he has put there."""

import contextlib
import errno
import os
import pwd
import stat
from pathlib import Path

from scr_watchd.errors import ScrWatchdError, cure
from scr_watchd.publish.holder import running
from scr_watchd.publish.state import State
from scr_watchd.words import printable

_ROOT = 0
_NOGROUP = 65534
_MOST_LINKS = 40  # as the kernel's path_resolution(7)
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NOWHERE = Path("/proc/self/fd/none")


def as_owner(state: State) -> tuple[State, int | None]:
    """``state`` as its owner has it, for good if we were root, and the daemon that ``running`` finds.

    Root's state is one by its descriptor: what its path leads to later is
    nothing to us. The daemon is looked for before, since the lock of one that
    runs as root in a directory of somebody else is for root alone. All modules
    that the command needs must have been imported.

    Raises ``ScrWatchdError`` if we cannot become the owner, or if the path leads through links of one
    user to the directory of another.
    """
    if os.geteuid() != _ROOT:
        return state, running(state)
    try:
        descriptor, owners = _find(state.path)
    except (FileNotFoundError, NotADirectoryError):
        return State(_NOWHERE), None
    except OSError as error:
        told = f"{printable(str(state.path))} cannot be opened: {error.strerror}"
        raise ScrWatchdError(told, hint=cure(error)) from error
    held = State(Path(f"/proc/self/fd/{descriptor}"))
    pid = running(held)
    match sorted(owners - {_ROOT}):
        case []:
            pass
        case [uid]:
            _become(uid, state.path)
        case several:
            raise ScrWatchdError(
                f"{printable(str(state.path))} leads through links of one user to the state of another "
                f"({', '.join(map(str, several))})",
                hint="name the directory where it really lies with --state",
            )
    return held, pid


def _find(path: Path) -> tuple[int, set[int]]:
    """A descriptor of the directory ``path``, kept for as long as the process, and the owners of it and of
    the links that lead to it. One who owns a directory on the way can have put only his own there."""
    parts = list(reversed(path.parts[1:]))
    owners = set()
    links = 0
    here = os.open("/", _PATH)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: os.close(here))
        while parts:
            part = parts.pop()
            below = os.open(part, _PATH, dir_fd=here)
            status = os.fstat(below)
            if not stat.S_ISLNK(status.st_mode):
                here, above = below, here
                os.close(above)
                continue
            target = os.readlink("", dir_fd=below)
            os.close(below)
            owners.add(status.st_uid)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            parts += [each for each in reversed(target.split("/")) if each]
            if target.startswith("/"):
                os.close(here)
                here = os.open("/", _PATH)
        status = os.fstat(here)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        stack.pop_all()
    return here, owners | {status.st_uid}


def _become(uid: int, path: Path) -> None:
    """Be user ``uid`` from now on, and in his groups: not that of the directory, which may not be his."""
    try:
        entry = pwd.getpwuid(uid)
        group, groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        group, groups = _NOGROUP, []
    try:
        os.setgroups(groups)
        os.setresgid(group, group, group)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise ScrWatchdError(
            f"{printable(str(path))} is a state of user {uid}, and root may not become that user here: "
            f"{error.strerror}",
            hint=f"be that user: docker exec -u {uid} CONTAINER scr-watchd, or sudo -u '#{uid}' scr-watchd",
        ) from error
