"""Puts one blob into its place in the store: a hard link, a symbolic one, or a copy."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from scr_watchd.files import Reader, close
from scr_watchd.oci.catalog import Image, label
from scr_watchd.oci.manifest import Descriptor
from scr_watchd.oci.names import Tag
from scr_watchd.publish.batch import Batch
from scr_watchd.publish.copying import Target, Unlinked, allocated, copy_name, mount_id, on_mount, why
from scr_watchd.publish.hashing import identity
from scr_watchd.publish.place import StorePlace
from scr_watchd.publish.proof import Prover, RottenError, UncopiedError, WaitingError
from scr_watchd.words import copy_again, printable, shell

# link(2): another mount or volume, not permitted (fs.protected_hardlinks), too many links, not supported
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


class UnusableError(Exception):
    """A blob or manifest that cannot be published."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(slots=True)
class Means:
    """What links are made with, from the tree whose directory ``root`` is a descriptor of, and which is shown
    as ``path``. ``reader`` must be able to read what is served. Of other ``mounts`` there is nothing but
    symbolic links."""

    place: StorePlace
    path: Path
    root: int
    reader: Reader
    prover: Prover
    batch: Batch
    progress: Callable[[], None]
    mounts: dict[str, Unlinked] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class File:
    """A blob as a file of the tree, in the open directory ``source``; in the store it is, or will be, in
    the open ``directory``, whose path is ``place``."""

    image: Image
    blob: Descriptor
    source: int
    status: os.stat_result
    directory: int
    place: str

    @property
    def name(self) -> str:
        return self.blob.digest.hex


class Placing:
    """Puts the blobs of one repository into their places. Of the ``unlinked`` there are no hard links."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.is_symbolic = False
        self.unlinked: dict[str, Unlinked] = {}

    # -- one link ------------------------------------------------------------------------------------

    def link(self, file: File, *, replace: bool, replaces: str = "") -> None:
        """Have a link to ``file``, or a copy, in its place, where something is already if it is to
        ``replace`` that. ``replaces`` is a symbolic link that serves it.

        Raises ``WaitingError`` until a copy lies ready.
        """
        new = f".{file.name}.new" if replace else file.name
        is_hard = False
        if self._means.place.hard_links:
            refusal = self._hard_link(file, new)
            is_hard = refusal is None
            if refusal is not None and not self._is_elsewhere(file, refusal):
                self.copy(file, refusal, replaces=replaces)
                return
            if not is_hard and replaces:
                return
            if self._means.prover.hasher.has_copies:  # one can be made by now
                self._forget_copy(file)
        if not is_hard:
            if replace:
                with suppress(FileNotFoundError):
                    os.unlink(new, dir_fd=file.directory)
            with self._judged(file):
                os.symlink(self.target(file), new, dir_fd=file.directory)
            self.is_symbolic = True
        if replace:
            os.rename(new, file.name, src_dir_fd=file.directory, dst_dir_fd=file.directory)
        self._means.batch.change(file.place)

    @contextmanager
    def _judged(self, file: File) -> Iterator[int]:
        """A descriptor of the very file that was judged: by its name it could be another by now."""
        judged = os.open(file.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=file.source)
        try:
            status = os.fstat(judged)
            if identity(status) != identity(file.status) or not self._means.reader.may_read(status):
                raise changed(f"blob {file.blob.digest} was replaced")
            yield judged
        finally:
            close(judged)

    def _hard_link(self, file: File, new: str) -> OSError | None:
        """Make a hard link ``new``, whatever is there if that is a hidden name; returns what refuses it."""
        if new != file.name:
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=file.directory)
        with self._judged(file) as judged:
            try:
                os.link(f"/proc/self/fd/{judged}", new, dst_dir_fd=file.directory, follow_symlinks=True)
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
                return error
        return None

    def refusal(self, file: File) -> OSError | None:
        """Why no hard link can be made within the mount; it is tried."""
        if not self._means.place.hard_links:
            return None
        new = f".{file.name}.new"
        try:
            refusal = self._hard_link(file, new)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return error
        if refusal is None:
            os.unlink(new, dir_fd=file.directory)
        elif self._is_elsewhere(file, refusal):
            return None
        return refusal

    def _is_elsewhere(self, file: File, refusal: OSError) -> bool:
        """Whether a link is refused because the file is on another mount: then it is symbolic."""
        if refusal.errno != errno.EXDEV:
            return False
        number = mount_id(file.source)
        if number == mount_id(file.directory):
            return False
        if number not in self._means.mounts:
            self._means.mounts[number] = on_mount(number)
        self.unlinked[file.name] = self._means.mounts[number]
        return True

    # -- copies --------------------------------------------------------------------------------------

    def copy(self, file: File, refusal: OSError, *, replaces: str = "") -> None:
        """Have a copy in its place. Raises ``WaitingError`` until one lies ready."""
        prover, target = self._means.prover, self._target_of_copy(file)
        try:
            prover.copy(file.image, file.blob, file.status, target, replaces=replaces)
        except RottenError:
            if replaces:
                return  # who looks at it finds that again
            raise self.is_rotten(file) from None
        except UncopiedError as error:
            if replaces:
                raise WaitingError from None
            reason, remedy = why(file.status, refusal, self.path_of(file))
            raise UnusableError(
                f"no hard link can be made to blob {file.name}: {reason}; and {error}", remedy
            ) from None
        hidden = copy_name(file.name)
        copy = lstat(hidden, file.directory)
        if copy is None or (copy.st_size, copy.st_mtime_ns) != (file.blob.size, file.status.st_mtime_ns):
            self._forget_copy(file)  # somebody took it away, or it is another's that is not whole
            self.copy(file, refusal, replaces=replaces)
            return
        os.rename(hidden, file.name, src_dir_fd=file.directory, dst_dir_fd=file.directory)
        self._means.batch.change(file.place)
        prover.copied(target.path, copy, file.blob.digest)
        self.is_copy(file, copy, refusal)

    def _forget_copy(self, file: File) -> None:
        hasher, path = self._means.prover.hasher, self._target_of_copy(file).path
        if hasher.has_copy(path):
            hasher.forget_copy(path)
            with suppress(FileNotFoundError):
                os.unlink(copy_name(file.name), dir_fd=file.directory)

    def _target_of_copy(self, file: File) -> Target:
        directory = os.path.relpath(file.place, self._means.place.path)
        return Target(
            self._means.place.path, directory, file.name, self._means.reader, allocated(file.status)
        )

    def path_of(self, file: File) -> str:
        return f"{self._means.path}/{file.image.directory(file.blob.digest.algorithm)}/{file.name}"

    def target(self, file: File) -> str:
        """What a symbolic link to a blob says."""
        directory = file.image.directory(file.blob.digest.algorithm)
        return f"{self._means.place.root_seen_as}/{directory}/{file.name}"

    def is_rotten(self, file: File) -> UnusableError:
        path = self.path_of(file)
        return UnusableError(
            f"the bytes of {printable(path)} are not those that its name says",
            _copy_again(f"{self._means.path}/{file.image.path}", file, path),
        )

    def is_copy(self, file: File, status: os.stat_result, refusal: OSError) -> None:
        reason, remedy = why(file.status, refusal, self.path_of(file))
        self.unlinked[file.name] = Unlinked(
            "copy", printable(self.path_of(file)), reason, remedy, allocated(status)
        )


def _copy_again(path: str, rotten: File, file: str) -> str:
    parent, _, leaf = path.rpartition("/")
    image = rotten.image
    if not image.is_in_layout and not _has_others(rotten.source):
        return f"Copy it again: {copy_again(f'dir:{path}')}"
    if image.is_in_layout and ":" not in leaf:
        skopeo = f"oci:{path}:{label(image.below, image.tag or Tag('TAG'), image.digest)}"
        return f"Copy it again: {copy_again(skopeo, stale=file)}"
    # skopeo cannot write a layout of such a name, and empties a directory: what is good there must stay
    new = f"{parent}/.new"
    move = f"mv {shell(f'{new}/{os.path.basename(file)}')} {shell(file)} && rm -r {shell(new)}"
    return f"Copy it again: {copy_again(f'dir:{new}')} && {move}"


def _has_others(directory: int) -> bool:
    """Whether there may be other images in the directory of one."""
    with os.scandir(directory) as entries:
        return any(not each.is_file(follow_symlinks=False) for each in entries if each.name[0] != ".")


def changed(what: str) -> UnusableError:
    return UnusableError(
        f"it changed while it was published: {what}",
        "Nothing to do if it is being copied: the next pass looks again.",
    )


def lstat(path: str, directory: int | None = None) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
