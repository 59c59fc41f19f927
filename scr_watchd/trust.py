"""Who else could exchange what we rely on: one rule, the same for root and for users.

A path leads where we think if nobody but root and us can make it lead elsewhere (Debian's sshd judges so
too). Every directory that is passed on the way to it, also on the way of symbolic links,

- belongs to root or to us, and
- cannot be written by others, nor by a group (of an ACL the mode's group bits are the mask, so it shows
  there), unless that is our own group and has nobody else in it (umask 002),
- unless it is sticky, and what is passed next belongs to root or to us, or is not there yet.

A place, such as a state or a store, must be such a directory itself. An images tree need not: others write
it. It is asked

- of the state, before it is locked, after that, and in each pass. One that fails is a refusal; a warning if
  the operator named it, or if it is a mount point that such a way leads to (`commands/judging`)
- of each place that `serve` may choose for its state; the next is taken (`commands/places`)
- of a store below the root, when it is chosen and in each pass; STATE/store is taken (`publish/place`)
- of the root, the state and the store, for workers that run as root: they never serve symbolic links, nor
  what others can exchange (`commands/judging`).

What lies in a place belongs to root, to us or to the owner of that place (`stranger`; directories that we
make or use in there are opened by `files.open_inside`). Only blobs keep the owners of their files.
"""

import errno
import functools
import grp
import os
import pwd
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from scr_watchd.errors import may_pass

_MOST_LINKS = 40  # as the kernel has it, path_resolution(7)
_GROUP_SECONDS = 600  # who is in a group is asked again after so long
_ACL = "system.posix_acl_access"

_Step = tuple[str, os.stat_result, os.stat_result | None]


def weak_way(path: Path) -> str:
    """What lets somebody else make ``path`` lead elsewhere, as a clause; empty if nothing does. Raises
    ``OSError`` if the machine lacks what it takes to look."""
    return _weakness(_steps(path))


def weak_place(path: Path) -> str:
    """The same, and what lets somebody else exchange what lies in the directory ``path``."""
    return _weakness(_steps(path, into=True))


def stranger(place: Path, paths: Iterable[Path]) -> str:
    """Of ``paths``, which lie in ``place``, the first that is somebody else's than root, us and the owner
    of ``place``, as a clause."""
    try:
        owners = {0, os.geteuid(), place.stat().st_uid}
    except FileNotFoundError:
        return ""
    for path in paths:
        try:
            owner = path.lstat().st_uid
        except (FileNotFoundError, NotADirectoryError):
            continue
        if owner not in owners:
            return f"{path} belongs to {_user(owner)}"
    return ""


def _weakness(steps: Iterator[_Step]) -> str:
    try:
        return next(filter(None, map(_reason, steps)), "")
    except OSError as error:
        if may_pass(error):
            raise
        return f"{error.filename} cannot be looked at: {error.strerror}"


def _steps(path: Path, *, into: bool = False) -> Iterator[_Step]:
    """Every directory that is passed on the way to ``path``, its status, and that of what is looked up in
    it; with ``into`` the directory that it leads to as well. The way ends at what is not there."""
    here, passed = "/", os.lstat("/")
    names, links = list(reversed(path.parts[1:])), 0
    while names:
        name = names.pop()
        there = os.path.dirname(here) if name == ".." else os.path.join(here, name)
        try:
            status = os.lstat(there)
        except FileNotFoundError:
            yield here, passed, None
            return
        if name != "..":  # out of a directory no name is looked up that somebody could exchange
            yield here, passed, status
        if not stat.S_ISLNK(status.st_mode):
            here, passed = there, status
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), there)
        target = os.readlink(there)
        if target.startswith("/"):
            here, passed = "/", os.lstat("/")
        names += reversed([part for part in target.split("/") if part not in ("", ".")])
    if into:
        yield here, passed, None


def _reason(step: _Step) -> str:
    directory, status, following = step
    ours = (0, os.geteuid())
    if not stat.S_ISDIR(status.st_mode):
        return f"{directory} is no directory"
    if status.st_uid not in ours:
        return f"{directory} belongs to {_user(status.st_uid)}"
    if not _is_shared(directory, status):
        return ""
    if not status.st_mode & stat.S_ISVTX:
        who = "everybody" if status.st_mode & stat.S_IWOTH else f"the group {_group(status.st_gid)}"
        return f"{who} may write {directory} (mode {stat.S_IMODE(status.st_mode):04o})"
    if following is not None and following.st_uid not in ours:
        return f"what lies in {directory} belongs to {_user(following.st_uid)}"
    return ""


def _is_shared(directory: str, status: os.stat_result) -> bool:
    """Whether somebody but root and us may write ``directory``."""
    if status.st_mode & stat.S_IWOTH:
        return True
    if not status.st_mode & stat.S_IWGRP:
        return False
    is_private = _is_private(status.st_gid, os.geteuid(), int(time.monotonic() // _GROUP_SECONDS))
    return not is_private or _has_acl(directory)


def _has_acl(directory: str) -> bool:
    try:
        os.getxattr(directory, _ACL, follow_symlinks=False)
    except OSError:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _is_private(gid: int, uid: int, _period: int) -> bool:
    """Whether ``gid`` is a group of ours with nobody but root and us in it."""
    if gid not in (os.getegid(), *os.getgroups()):
        return False
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(gid).gr_mem}
    except KeyError:  # who knows who is in it
        return False
    return members | {each.pw_uid for each in pwd.getpwall() if each.pw_gid == gid} <= {0, uid}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
