"""Copies of blobs of which no hard link can be made: why that is, whether there is room, and writing them.

A copy is written beside its place, as .HEX.copy, and has its name once it is whole and synced.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from scr_watchd.files import Reader, close, create, mounts, open_inside, write_all
from scr_watchd.words import printable, shell

_FREE = 0.10  # of the store's disk: no copy takes it
_SLICE_BYTES = 32 * 1024 * 1024  # written before it is synced: others wait for that
_PAGE_BYTES = 4096
_ACL = "system.posix_acl_access"
_MANY_LINKS = 1000
_NAMED = 20  # files; the others are counted

Kind = Literal["mount", "symbolic", "copy"]


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A blob, or all that lies on a mount, of which no hard link can be made: ``path`` is served by a
    symbolic link, or a copy of ``size`` bytes; why, and what to do."""

    kind: Kind
    path: str
    reason: str
    remedy: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a copy is written: as ``.HEX.copy`` into ``directory`` of the store, for ``reader``.
    ``size`` is how much disk that takes."""

    store: Path
    directory: str
    name: str
    reader: Reader
    size: int

    @property
    def path(self) -> str:
        """Where it lies until it is whole, and in its place."""
        return f"{self.store}/{self.directory}/{copy_name(self.name)}"


def copy_name(name: str) -> str:
    return f".{name}.copy"


def allocated(status: os.stat_result) -> int:
    """What a copy takes: holes stay holes."""
    return min(status.st_size, status.st_blocks * 512)


def is_room(store: Path, size: int) -> bool:
    """Whether enough of the store's disk is free with ``size`` bytes more on it."""
    disk = os.statvfs(store)
    return disk.f_bavail * disk.f_frsize - size >= _FREE * disk.f_blocks * disk.f_frsize


class Copying:
    """A copy that is being written, of the open file ``source``; what was not finished is gone when the
    block ends."""

    def __init__(self, target: Target) -> None:
        self._to = target
        self._size = self._unsynced = 0
        self._is_finished = False
        self._directory = open_inside(target.store, target.directory)
        try:
            self._file = create(copy_name(target.name), within=self._directory)
        except BaseException:
            close(self._directory)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close(self._file)
        if not self._is_finished:
            with suppress(OSError):
                os.unlink(copy_name(self._to.name), dir_fd=self._directory)
        close(self._directory)

    def write(self, content: bytes) -> None:
        """Write what comes next. Zeros are a hole."""
        # a page for itself only where it is worth it
        step = _PAGE_BYTES if bytes(_PAGE_BYTES) in content else len(content)
        for start in range(0, len(content), step):
            page = content[start : start + step]
            if page.count(0) < len(page):
                os.lseek(self._file, self._size + start, os.SEEK_SET)
                write_all(self._file, page)
                self._unsynced += len(page)
        self._size += len(content)
        if self._unsynced >= _SLICE_BYTES:
            self._unsynced = 0
            os.fdatasync(self._file)
            if not is_room(self._to.store, 0):  # somebody else took it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def finish(self, source: int) -> None:
        """Have it survive a power cut, and be read by whom the ``source`` may be read by, and nobody else.

        Raises ``PermissionError`` if that cannot be so.
        """
        os.ftruncate(self._file, self._size)
        status = os.fstat(source)
        os.utime(self._file, ns=(status.st_atime_ns, status.st_mtime_ns))  # nginx makes an ETag of it
        self._allow(source, status)
        if not self._to.reader.may_read(os.fstat(self._file)):
            raise PermissionError(errno.EACCES, "nothing would let nginx read a copy, and nobody else")
        os.fsync(self._file)
        self._is_finished = True

    def _allow(self, source: int, status: os.stat_result) -> None:
        acl = _acl(source)
        with suppress(OSError):
            os.fchown(self._file, -1, status.st_gid)
        mode = stat.S_IMODE(status.st_mode) & 0o755 | 0o600
        if os.fstat(self._file).st_gid != status.st_gid:  # then only what everybody may read has readers
            mode = 0o644 if acl is None and mode & 0o044 == 0o044 else 0o600
            acl = None
        if acl is not None:
            os.setxattr(self._file, _ACL, acl)
        elif _acl(self._file) is not None:  # inherited from the store
            os.removexattr(self._file, _ACL)
        os.fchmod(self._file, mode)
        with suppress(OSError):  # last, since only a file's owner may do the rest
            os.fchown(self._file, status.st_uid, -1)


def _acl(file: int) -> bytes | None:
    try:
        return os.getxattr(file, _ACL)
    except OSError:
        return None


# -- why ---------------------------------------------------------------------------------------------


def may_be_refused(status: os.stat_result) -> bool:
    """Whether it is worth asking for a link to a file before it is hashed."""
    return _is_privileged(status) or status.st_uid != os.geteuid() or status.st_nlink > _MANY_LINKS


def mount_id(descriptor: int) -> str:
    """The number of the mount that an open file is on (proc_pid_fdinfo(5)). Not its device: there are file
    systems where everybody may make a volume with a device of its own, or a quota that no link passes."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")


def on_mount(number: str) -> Unlinked:
    """What all of the mount ``number`` is served by."""
    point = printable(next((each for each, found, _ in mounts() if found == number), "another mount"))
    return Unlinked(
        "mount",
        point,
        "it is a mount below the images, which hard links cannot cross, so that all of it is served by "
        "symbolic links: who writes there can have nginx serve any file that its workers may read, until the "
        "next look",
        "Give it a scr-watchd of its own, or keep its images on the mount of the others",
    )


def why(status: os.stat_result, error: OSError, path: str) -> tuple[str, str]:
    """Why no hard link can be made of a file, and the line that cures it."""
    file = shell(path)
    if error.errno == errno.EMLINK:
        cure = f"Give it links of its own: cp -p {file} {file}.new && mv {file}.new {file}"
        return "it has as many links as its file system allows", cure
    if error.errno == errno.EXDEV:
        return (
            "it is in another volume or project of its file system",
            "Keep the images and the store in one",
        )
    if _is_privileged(status):
        return "it has a set-uid or set-gid bit", f"Take it away: chmod u-s,g-s {file}"
    if status.st_uid != os.geteuid() and error.errno in (errno.EPERM, errno.EACCES):
        return (
            f"it belongs to another user (uid {status.st_uid}), and fs.protected_hardlinks is set",
            "Run scr-watchd as that user or as root, or: sysctl fs.protected_hardlinks=0",
        )
    return f"a hard link to it fails: {error.strerror}", "See link(2) for what that means"


def _is_privileged(status: os.stat_result) -> bool:
    """As link(2) judges it where fs.protected_hardlinks is set."""
    program = stat.S_ISGID | stat.S_IXGRP
    return bool(status.st_mode & stat.S_ISUID) or status.st_mode & program == program


def told(unlinked: Iterable[Unlinked]) -> tuple[Unlinked, ...]:
    """Few words for many files: each mount once, the first of the symbolic links, and for each reason one of
    the copies, with the size of all."""
    groups: dict[tuple[str, str], list[Unlinked]] = {}
    named = 0
    for each in unlinked:
        key = each.reason if each.kind == "copy" else each.path
        if each.kind == "symbolic":
            named += 1
            key = key if named <= _NAMED else ""
        groups.setdefault((each.kind, key), []).append(each)
    found = []
    for (kind, _), some in groups.items():
        first, more = some[0], len(some) - 1
        path = f"{first.path} and {more:,} more" if more and kind != "mount" else first.path
        found.append(replace(first, path=path, size=sum(each.size for each in some)))
    return tuple(found)
