"""Reading what others may have written, and writing what others may be reading.

The images tree belongs to whoever drops images in. Everything here that reads it is relative to an
open directory, follows no symbolic link, cannot block on a FIFO, and bounds what it reads.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


FileId = tuple[int, int]
"""Device and inode: what tells a file, for as long as it is there, from every other one."""


def file_id(status: os.stat_result) -> FileId:
    return status.st_dev, status.st_ino


class NotRegularError(OSError):
    """What is asked for is there, but is no regular file that may be read whole."""


class NotOursError(OSError):
    """A directory that we were to work in is a link, or somebody else's."""


_NOT_OURS = "it is a symbolic link, or somebody else's; look at what it is, and remove it"


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody whose permission to read is judged by modes: a user and its groups.

    A ``uid`` of ``None`` stands for anybody: only what everyone may read.
    """

    uid: int | None = None
    gids: frozenset[int] = frozenset()

    def may_read(self, status: os.stat_result) -> bool:
        return self._may(status, stat.S_IROTH)

    def may_enter(self, status: os.stat_result) -> bool:
        return self._may(status, stat.S_IXOTH)

    def _may(self, status: os.stat_result, bit: int) -> bool:
        if self.uid == 0:
            return True
        if self.uid == status.st_uid:
            bit <<= 6
        elif status.st_gid in self.gids:
            bit <<= 3
        return bool(status.st_mode & bit)


ANYBODY = Reader()


def mounts() -> Iterator[tuple[str, str, str]]:
    """Every mount: where it is, its number, and its type (proc_pid_mountinfo(5))."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        number, _, _, _, escaped, *_ = left.split()
        yield re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), escaped), number, right.split()[0]


def mounts_around(root: Path) -> frozenset[tuple[str, str]]:
    """What is mounted at, above and below ``root``: where, and the number of that very mount."""
    real = os.path.realpath(root)
    return frozenset(
        (point, number)
        for point, number, _ in mounts()
        if f"{real}/".startswith(f"{point.rstrip('/')}/") or point.startswith(f"{real}/")
    )


def me() -> Reader:
    """The user that this process runs as."""
    return Reader(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


@contextlib.contextmanager
def open_directory(
    path: str | Path, *, within: int | None = None, reader: Reader | None = None
) -> Iterator[int]:
    """A descriptor of the directory ``path``; below ``within`` no component may be a symbolic link, nor one
    that ``reader`` may not enter: ``PermissionError``."""
    parts = [] if within is None else str(path).split("/")
    if within is None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        descriptor = os.open(parts[0], _DIRECTORY, dir_fd=within)
    try:
        _may_be_entered(descriptor, reader, path)
        for part in parts[1:]:
            below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            close(descriptor)
            descriptor = below
            _may_be_entered(descriptor, reader, path)
        yield descriptor
    finally:
        close(descriptor)


def close(descriptor: int) -> None:
    """Close what was only read, or is synced. An error is of no concern then, and it is closed all the same
    (close(2))."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


@contextlib.contextmanager
def directories(within: int, *, reader: Reader | None = None) -> Iterator[Callable[[str], int]]:
    """Opens directories below ``within`` like ``open_directory``, each once, until the block ends."""
    opened: dict[str, int] = {}
    with contextlib.ExitStack() as stack:

        def descriptor(path: str) -> int:
            if path not in opened:
                opened[path] = stack.enter_context(open_directory(path, within=within, reader=reader))
            return opened[path]

        yield descriptor


def _may_be_entered(descriptor: int, reader: Reader | None, path: str | Path) -> None:
    if reader is not None and not reader.may_enter(os.fstat(descriptor)):
        raise PermissionError(errno.EACCES, "nginx may not enter it", str(path))


def read_regular(name: str, *, within: int, limit: int) -> tuple[bytes, os.stat_result]:
    """The whole regular file ``name`` of the directory ``within``, and its status.

    Raises ``NotRegularError`` for anything else, for a file of more than ``limit`` bytes and for one
    that changed while it was read.
    """
    try:
        descriptor = os.open(name, _FILE, dir_fd=within)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotRegularError(error.errno, "it is not a regular file") from error
        raise
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise NotRegularError(errno.ENXIO, "it is not a regular file")
        if before.st_size > limit:
            raise NotRegularError(errno.ENXIO, f"it has {before.st_size} bytes, more than {limit}")
        content = os.read(descriptor, before.st_size + 1)  # one more, to see whether it has grown
        while len(content) < before.st_size and (more := os.read(descriptor, before.st_size)):
            content += more
        after = os.fstat(descriptor)
    finally:
        close(descriptor)
    if len(content) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise NotRegularError(errno.ENXIO, "it changed while it was read")
    return content, before


def read_file(path: Path, *, limit: int) -> bytes:
    """The whole regular file ``path``, whose name is no symbolic link. Raises like ``read_regular``."""
    with open_directory(path.parent) as directory:
        return read_regular(path.name, within=directory, limit=limit)[0]


def write_all(descriptor: int, content: bytes) -> None:
    """Write ``content``. A file object would do, and ask the kernel four things more: it matters where
    10,000 files are written."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` in one step: a reader, or a crash, finds the old content or the new, whole."""
    with open_directory(path.parent) as directory:
        with _beside(path, content, mode, within=directory) as descriptor:
            os.fsync(descriptor)
        os.fsync(directory)


def swap_in(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` in one step for readers; a power cut may leave anything. For what is written
    often, and made anew after a start: it does not make the disk work."""
    with open_directory(path.parent) as directory, _beside(path, content, mode, within=directory):
        pass


def write_synced(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file that nobody reads yet: its bytes survive a power cut, and its name does once its
    directory is synced."""
    with _written(path, content, mode) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _beside(path: Path, content: bytes, mode: int, *, within: int) -> Iterator[int]:
    """A descriptor of a file with ``content`` that becomes ``path``, in the directory ``within``, when the
    block ends."""
    temporary = f".{path.name}.new"
    try:
        with _written(temporary, content, mode, within=within) as descriptor:
            yield descriptor
        os.rename(temporary, path.name, src_dir_fd=within, dst_dir_fd=within)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=within)  # the next one may have no room beside it
        if error.filename in (None, temporary):
            error.filename = str(path.with_name(temporary))
        raise


@contextlib.contextmanager
def _written(name: str | Path, content: bytes, mode: int, *, within: int | None = None) -> Iterator[int]:
    """A descriptor of the new file ``name``, which has ``content`` and ``mode``, whatever the umask is."""
    descriptor = create(name, within=within)
    try:
        write_all(descriptor, content)
        os.fchmod(descriptor, mode)
        yield descriptor
    finally:
        os.close(descriptor)


def create(name: str | Path, *, within: int | None = None) -> int:
    """A descriptor of a file that nobody had before. What is there goes first: a crash left it behind,
    or somebody planted it, such as a link to what we were to write to, or a FIFO to wait at."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, 0o600, dir_fd=within)
    except FileExistsError:
        os.unlink(name, dir_fd=within)
        return os.open(name, flags, 0o600, dir_fd=within)


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` survive a power cut."""
    with open_directory(path) as descriptor:
        os.fsync(descriptor)


def is_there(path: str | Path) -> bool:
    """Whether there is anything called ``path``. Unlike ``os.path.lexists`` it raises ``OSError`` if that
    cannot be known now."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def make_directory(path: Path) -> None:
    """``mkdir -p`` with modes that nginx's workers can pass, whatever the umask is."""
    if is_there(path):
        return
    make_directory(path.parent)
    with open_directory(path.parent) as parent:
        close(_open_or_make(path.name, parent))


def open_inside(place: Path, path: str) -> int:
    """A descriptor of the directory ``path`` in ``place``; what is not there is made.

    No component of ``path`` may be a symbolic link, or belong to anybody but root, us and the owner of
    ``place``: then it raises ``NotOursError``, for somebody put it there to have us work in it.
    """
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owners = {0, os.geteuid(), os.fstat(descriptor).st_uid}
        for part in path.split("/"):
            below = _open_or_make(part, descriptor)
            close(descriptor)
            descriptor = below
            if os.fstat(descriptor).st_uid not in owners:
                raise NotOursError(errno.EPERM, _NOT_OURS, f"{place}/{path}")  # noqa: TRY301 - see below
    except BaseException as error:
        close(descriptor)
        if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotOursError(errno.EPERM, _NOT_OURS, f"{place}/{path}") from error
        raise
    return descriptor


def make_inside(place: Path, path: str) -> None:
    """Like ``open_inside``, for who needs no descriptor."""
    close(open_inside(place, path))


def _open_or_make(name: str, parent: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        try:
            # not closed at first: nginx may look for what will lie in it, and a crash would leave it so. An
            # ACL that it inherits grants no more than this mode has: nobody may write
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:  # somebody was faster
            return os.open(name, _DIRECTORY, dir_fd=parent)
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            os.fchmod(descriptor, 0o755)
        except BaseException:
            close(descriptor)
            raise
        return descriptor
