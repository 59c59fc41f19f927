"""The store: what nginx serves from. It holds no bytes of its own but copies of manifests.

    STORE/REPOSITORY/.blobs/ALGORITHM/HEX   a link to the file in the images tree
    STORE/REPOSITORY/.manifests/TYPE/HEX    a copy, because a manifest may be rewritten in place

What a digest names in a repository is a file of that repository, and nothing else says so. Where a
manifest lies says its media type too, by ``MediaType.number``.

A hard link keeps a blob's bytes while a writer wipes its directory and copies it again, so that the
last complete version stays pullable. Where none can be made the link is symbolic, and only that is
lost. Names that start with a dot cannot be repository names, so nothing here can collide.

What the store holds may be taken away or damaged at any time. Each ``take`` looks whether the
directories are as it left them, and mends what is not from the tree.
"""

import errno
import os
import shutil
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue

from scr_watchd import threads
from scr_watchd.files import (
    ANYBODY,
    FileId,
    NotRegularError,
    Reader,
    create,
    file_id,
    make_directory,
    make_inside,
    open_directory,
    open_inside,
    read_regular,
    write_all,
)
from scr_watchd.oci.catalog import Image, ManifestFile, Problem, by_repository, label
from scr_watchd.oci.manifest import MANIFEST_BYTES, Descriptor, ManifestError, MediaType, parse
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.hashing import Hasher, Job, has_digest, identity
from scr_watchd.publish.place import StorePlace
from scr_watchd.words import copy_again, printable

# link(2): another mount, not permitted (fs.protected_hardlinks), too many links, not supported
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
_BATCH = 4096  # manifests that are written before they are synced
_SLICE = 64  # files that a thread syncs before it tells of them; fewer are not worth one
_SYNCS = 16  # at a time, so that one commit of the file system's journal does for many
_SILENCE_SECONDS = 0.2  # of all that help, before what they have is done again
_INLINE_BYTES = 64 * 1024 * 1024  # of an image: hashed at once, in some tens of milliseconds
_INLINE_BYTES_OF_A_PASS = 256 * 1024 * 1024

_Key = tuple[RepositoryName, str]
_Mark = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Taken:
    """What is safe in the store, what is not and why, and how many images wait for their hashes."""

    images: tuple[Image, ...]
    problems: tuple[Problem, ...] = ()
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Open:
    """The directory for blobs that is open: of which repository and algorithm."""

    of: tuple[str, str]
    descriptor: int
    place: str


class _UnusableError(Exception):
    """A blob or manifest that cannot be published."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class _WaitingError(Exception):
    """A blob whose bytes are still being hashed."""


@dataclass(slots=True)
class _Look:
    """What a ``take`` has found so far; ``kept`` by repository."""

    kept: dict[str, list[Image]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    waiting: list[Image] = field(default_factory=list)

    def keep(self, image: Image) -> None:
        self.kept.setdefault(image.repository, []).append(image)


class Store:
    """The store of one images tree at ``place``. Remembers which images it has taken.

    With a ``hasher`` a blob is hashed before it is published for the first time. With ``trusting`` the
    first ``take`` publishes first and hashes afterwards: on a first start over an old tree.
    """

    def __init__(
        self,
        place: StorePlace,
        root: Path,
        *,
        hasher: Hasher | None = None,
        trusting: bool = False,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.place = place
        self._root = root
        self._progress = progress
        self._hasher = hasher
        self._trusting = trusting
        self._former_copies = f"{place.path}/.manifests/sha256"
        """Where version 0.1 had the manifests of all repositories."""
        self._taken: Mapping[str, list[Image]] = {}
        self._waiting: tuple[Image, ...] = ()
        self._jobs: list[tuple[Job, _Key, bool]] = []
        self._symbolic: set[RepositoryName] = set()
        self._dropped: set[RepositoryName] = set()
        self._marks: dict[str, _Mark] = {}
        self._dirty: set[str] = set()
        self._ours: set[str] = set()
        """The directories for manifests that were looked at in this ``take``."""
        self._unsynced: dict[str, str] = {}
        self._inline_left = 0
        self._open: _Open | None = None
        self._touched: set[str] = set()
        self._reader = ANYBODY
        self._pruned_for: dict[str, list[Image]] | None = None

    @property
    def is_there(self) -> bool:
        """Whether the store is as the last pass left it: it may lie where others remove it."""
        return all(_mark(path) == mark for path, mark in self._marks.items())

    @property
    def has_news(self) -> bool:
        """Whether hashes are known that the last ``take`` waited for."""
        return self._hasher is not None and self._hasher.has_news

    def take(self, images: Iterable[Image], *, root: FileId | None = None, reader: Reader = ANYBODY) -> Taken:
        """Link and copy what ``images`` need; they were seen below ``root``, and ``reader`` must be able to
        read them.

        An image that changed since it was scanned, one that ``reader`` may not read any more, and one with
        a blob whose bytes are not what its name says, comes back as a ``Problem``. Raises ``OSError`` if
        the store cannot be written, or if the images directory is another one by now: a disk that was
        mounted or went away.
        """
        wanted = by_repository(images)
        again, hashed = self._to_look_at_again(wanted)
        if self._reader != reader:
            self._reader = reader
            again |= wanted.keys()
        before, self._taken = self._taken, {}  # if anything fails below, the next pass does all again
        self._unsynced.clear()
        self._inline_left = _INLINE_BYTES_OF_A_PASS
        self._dropped.clear()
        self._ours.clear()
        look = _Look()
        with open_directory(self._root) as now, self._closing():
            if root is not None and file_id(os.fstat(now)) != root:
                raise OSError(errno.ESTALE, "it was exchanged while it was looked at", str(self._root))
            for name, group in wanted.items():
                self._progress()
                if before.get(name) == group and name not in again and name not in hashed:
                    look.kept[name] = group
                    continue
                old = {_called(image): image for image in before.get(name, ())}
                for image in group:
                    self._progress()
                    known = old.get(_called(image))
                    if known is image and name not in again and _called(image) not in hashed.get(name, ()):
                        look.keep(image)
                    else:
                        self._attempt(now, image, look, changed=known is not None and known is not image)
            while self._dropped:  # what was rotten may have been served for others too
                dropped, self._dropped = self._dropped, set()
                for name in sorted(dropped):
                    for image in look.kept.pop(name, []):
                        self._attempt(now, image, look, changed=False)
        self._sync()
        self._taken = look.kept
        self._waiting = tuple(look.waiting)
        if self._hasher is not None:
            self._hasher.forget_good()
        if not self._trusting:
            self.hash_the_rest()
        self._trusting = False
        return Taken(tuple(chain(*look.kept.values())), tuple(look.problems), len(look.waiting))

    def hash_the_rest(self) -> None:
        """Begin to hash what a trusting ``take`` did not. Call it when all is published: the thread would
        take its time from that."""
        jobs, self._jobs = self._jobs, []
        for job, owner, urgent in jobs:
            if self._hasher is not None:
                self._hasher.submit(job, owner=owner, urgent=urgent)
        if self._hasher is not None:
            self._hasher.go_on()

    def image(self, repository: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
        """The image as the store still has it; ``None`` if anything is missing but children of an index, of
        which only the catalog knows whether they were ever there."""
        manifests: dict[Digest, ManifestFile] = {}
        blobs: dict[Digest, Descriptor] = {}
        absent: dict[Digest, Descriptor] = {}
        platforms: list[str] = []
        queue = [Descriptor(digest, 0)]
        try:
            while queue:
                child = queue.pop(0)
                wanted = child.digest
                if wanted in manifests or wanted in absent:
                    continue
                try:
                    raw = self._copy_of(repository, wanted)
                except FileNotFoundError:
                    if not manifests:
                        raise
                    absent[wanted] = child
                    continue
                manifest = parse(raw)
                if manifests and not manifest.manifests and not child.optional:
                    platforms.append(child.called)
                manifests[wanted] = ManifestFile(
                    wanted, manifest.media_type, len(raw), wanted.hex, manifest.referral
                )
                blobs |= {blob.digest: blob for blob in manifest.blobs}
                queue += manifest.manifests
        except (OSError, ManifestError):
            return None
        present = [blob for blob in blobs.values() if self._has(repository, blob)]
        if any(not blob.optional for blob in blobs.values() if blob not in present):
            return None
        owner = self._owner(repository, present)
        return Image(
            "",
            repository,
            tag,
            tuple(manifests.values()),
            tuple(present),
            owner=owner,
            platforms=tuple(platforms),
            absent=tuple(each for each in absent.values() if not each.optional),
        )

    def _owner(self, repository: RepositoryName, blobs: list[Descriptor]) -> int:
        """Whose an image was: a hard link tells."""
        try:
            return self._blob(repository, blobs[0].digest).lstat().st_uid
        except (FileNotFoundError, IndexError):
            return 0

    def prune(self, images: Iterable[Image], *, spare: Collection[RepositoryName] = ()) -> int:
        """Remove everything that none of ``images`` needs, nor an image that waits for its hashes; from the
        repositories to ``spare`` nothing.

        Returns how many files that were. Only what can be ours: other files may lie in a store that
        was chosen by hand. The first time all of the store is looked at, later what has changed.
        """
        needed = by_repository((*images, *self._waiting))
        before, self._pruned_for = self._pruned_for, None  # if anything fails below, all is looked at again
        if before is None:
            changed = {*self._repositories(), *needed}
        else:
            differ = {name for name in {*before, *needed} if before.get(name) != needed.get(name)}
            changed = differ | self._touched
        removed = 0
        for name in sorted(changed.difference(spare), reverse=True):  # a repository may lie below another
            self._progress()
            removed += self._prune_repository(name, needed.get(name, []))
        self._touched.clear()
        self._pruned_for = None if spare else needed
        return removed

    def prune_former(self) -> None:
        """Remove what version 0.1 kept elsewhere. Call it once nginx is known to read another generation
        than one of that version."""
        with suppress(OSError), open_directory(self.place.path) as store:
            with open_directory(".manifests", within=store) as directory:
                shutil.rmtree("sha256", ignore_errors=True, dir_fd=directory)
            os.rmdir(".manifests", dir_fd=store)

    def _repositories(self) -> Iterator[str]:
        """Every directory of the store that may hold blobs or manifests."""
        base = str(self.place.path)
        for path, names, _ in os.walk(base):
            if path != base and not {".blobs", ".manifests"}.isdisjoint(names):
                yield path[len(base) + 1 :]
            names[:] = [name for name in names if not name.startswith(".")]

    def _prune_repository(self, repository: str, images: list[Image]) -> int:
        """Remove what none of ``images`` needs of a repository, and what is empty then."""
        blobs = {blob.digest.hex for image in images for blob in image.blobs}
        removed = self._prune_files(f"{repository}/.blobs", lambda _, name: name in blobs)
        copies = {
            f"{each.media_type.number}/{each.digest.hex}" for image in images for each in image.manifests
        }
        removed += self._prune_files(
            f"{repository}/.manifests", lambda path, name: f"{os.path.basename(path)}/{name}" in copies
        )
        self._remove_empty(repository)
        return removed

    def _prune_files(self, top: str, is_needed: Callable[[str, str], bool]) -> int:
        """Remove the files below ``top``, a directory of the store, that are not needed, and what is empty
        then. What a link leads to is not ours to remove."""
        removed = 0
        try:
            with open_directory(self.place.path) as store, open_directory(top, within=store) as opened:
                for below, _, files, directory in os.fwalk(".", topdown=False, dir_fd=opened):
                    path = os.path.normpath(f"{self.place.path}/{top}/{below}")
                    for name in files:
                        if not is_needed(path, name):
                            os.unlink(name, dir_fd=directory)
                            removed += 1
                    if os.listdir(directory):
                        if path in self._marks:
                            self._marks[path] = _mark(path)
                    else:
                        os.rmdir(os.path.normpath(f"{top}/{below}"), dir_fd=store)
                        self._marks.pop(path, None)
        except FileNotFoundError:
            pass
        except NotADirectoryError as error:
            error.filename = f"{self.place.path}/{top}"
            raise
        return removed

    def _remove_empty(self, repository: str) -> None:
        """Remove the directory of a repository and those above it, as far as they are empty."""
        while repository and _is_empty(f"{self.place.path}/{repository}"):
            os.rmdir(f"{self.place.path}/{repository}")
            repository = repository.rpartition("/")[0]

    def only_here(self, images: Iterable[Image]) -> int:
        """The bytes of the blobs of ``images`` that nothing but the store holds."""
        sizes: dict[int, int] = {}
        for image in images:
            for blob in image.blobs:
                try:
                    status = self._blob(image.repository, blob.digest).lstat()
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    sizes[status.st_ino] = status.st_size
        return sum(sizes.values())

    def _to_look_at_again(self, wanted: Mapping[str, list[Image]]) -> tuple[set[str], dict[str, set[str]]]:
        """Repositories whose directories others changed, or with links that lead to the files of an
        image that is gone or cut off; and images by repository of which new hashes are known."""
        again: set[str] = set()
        for path, mark in list(self._marks.items()):
            if _mark(path) != mark:
                repository = path[len(str(self.place.path)) + 1 :].partition("/.")[0]
                again.add(repository)
                self._touched.add(repository)
                del self._marks[path]
        for name, kept in self._taken.items():
            group = wanted.get(name, [])
            if kept != group:
                new = {_called(image): image for image in group}
                same = [new.get(_called(image)) for image in kept]
                if None in same or (name in self._symbolic and same != kept):
                    again.add(name)
        hashed: dict[str, set[str]] = {}
        for repository, called in self._hasher.news() if self._hasher is not None else ():
            hashed.setdefault(repository, set()).add(called)
        return again, hashed

    # -- blobs -------------------------------------------------------------------------------------

    def _attempt(self, root: int, image: Image, look: _Look, *, changed: bool) -> None:
        self._touched.add(image.repository)
        try:
            self._take(root, image, changed=changed)
        except _UnusableError as error:
            look.problems.append(_problem(self._root, image, error))
        except _WaitingError:
            look.waiting.append(image)
        else:
            look.keep(image)

    def _take(self, root: int, image: Image, *, changed: bool) -> None:
        waits = False
        try:
            with _sources(root, image, self._reader) as source:
                for blob in image.blobs:
                    try:
                        self._take_blob(source(blob.digest.algorithm), image, blob, changed=changed)
                    except _WaitingError:
                        waits = True  # the others may be hashed meanwhile
                if waits:
                    raise _WaitingError
                for manifest in image.manifests:
                    self._take_manifest(source(manifest.algorithm), image.repository, manifest)
        except (FileNotFoundError, NotADirectoryError, NotRegularError, PermissionError) as error:
            raise _changed(str(error.strerror)) from error

    def _take_blob(self, source: int, image: Image, blob: Descriptor, *, changed: bool) -> None:
        file = blob.digest.hex
        before = os.stat(file, dir_fd=source, follow_symlinks=False)
        if not stat.S_ISREG(before.st_mode) or before.st_size != blob.size:
            raise _changed(f"blob {blob.digest} is not the file it was")
        if not self._reader.may_read(before):
            raise _changed(f"nginx may not read blob {blob.digest}")
        directory, place = self._directory(image.repository, blob.digest.algorithm)
        existing = _lstat(file, directory)
        if existing is None or not self._is_good(f"{place}/{file}", existing, blob):
            if not self._trusting:
                self._prove(source, image, blob, before, wait=True)
            self._link(source, directory, image, blob, before, replace=existing is not None)
            self._dirty.add(place)
            if self._trusting:
                self._prove(source, image, blob, before, wait=False)
        else:
            self._look_again(source, image, blob, before, existing, changed=changed)
        self._marks.setdefault(place, (0, 0))

    def _look_again(
        self,
        source: int,
        image: Image,
        blob: Descriptor,
        before: os.stat_result,
        existing: os.stat_result,
        *,
        changed: bool,
    ) -> None:
        """At a blob that the store has: was the file written to, or copied anew?"""
        file = blob.digest.hex
        directory, place = self._directory(image.repository, blob.digest.algorithm)
        if stat.S_ISLNK(existing.st_mode):
            self._symbolic.add(image.repository)
            leads_here = os.readlink(file, dir_fd=directory) == self._target(image, blob.digest)
            if leads_here and self.place.hard_links:  # of a time when none could be made
                self._link(source, directory, image, blob, before, replace=True)
                self._dirty.add(place)
        else:
            leads_here = (existing.st_dev, existing.st_ino) == (before.st_dev, before.st_ino)
        # bytes that are there twice: ours are the last link to the old ones, or of another disk
        is_last = existing.st_nlink == 1 if self.place.hard_links else stat.S_ISREG(existing.st_mode)
        is_double = is_last and not leads_here
        if not (changed or is_double or self._is_known(before, blob)):
            return
        try:
            proven = self._prove(source, image, blob, before, wait=False)
        except _UnusableError:
            if leads_here and stat.S_ISLNK(existing.st_mode):
                self._drop(image.repository, place, file)
            raise
        if proven and not leads_here and stat.S_ISREG(existing.st_mode):
            self._link(source, directory, image, blob, before, replace=True)
            self._dirty.add(place)

    def _link(
        self,
        source: int,
        directory: int,
        image: Image,
        blob: Descriptor,
        before: os.stat_result,
        *,
        replace: bool,
    ) -> None:
        file = blob.digest.hex
        new = f".{file}.new" if replace else file
        if replace:
            _unlink(new, directory)
        # what was judged is linked, by its descriptor: by its name it could be another by now
        judged = os.open(file, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            status = os.fstat(judged)
            if identity(status) != identity(before) or not self._reader.may_read(status):
                raise _changed(f"blob {blob.digest} was replaced")
            linked = self._hard_link(judged, directory, new)
        finally:
            os.close(judged)
        if not linked:
            os.symlink(self._target(image, blob.digest), new, dir_fd=directory)
            self._symbolic.add(image.repository)
        if replace:
            os.rename(new, file, src_dir_fd=directory, dst_dir_fd=directory)

    def _target(self, image: Image, digest: Digest) -> str:
        """What a symbolic link to a blob says."""
        return f"{self.place.root_seen_as}/{image.directory(digest.algorithm)}/{digest.hex}"

    def _drop_rotten(self, blob: Descriptor, status: os.stat_result) -> None:
        """Drop every link to a rotten file: a repository may have it that the file was renamed from."""
        if status.st_nlink == 1:
            return
        base = str(self.place.path)
        for path, names, _ in os.walk(base):
            place = f"{path}/.blobs/{blob.digest.algorithm}"
            existing = _lstat(f"{place}/{blob.digest.hex}") if ".blobs" in names else None
            if existing is not None and existing.st_ino == status.st_ino:
                self._drop(RepositoryName(path[len(base) + 1 :]), place, blob.digest.hex)
            names[:] = [name for name in names if not name.startswith(".")]

    def _drop(self, repository: RepositoryName, place: str, file: str) -> None:
        """Remove a link: what is served is true, or is not served."""
        os.unlink(f"{place}/{file}")
        self._dirty.add(place)
        self._dropped.add(repository)

    def _hard_link(self, judged: int, directory: int, new: str) -> bool:
        if not self.place.hard_links:
            return False
        try:
            os.link(f"/proc/self/fd/{judged}", new, dst_dir_fd=directory, follow_symlinks=True)
        except OSError as error:
            if error.errno in _CANNOT_LINK:
                return False
            raise
        return True

    def _has(self, repository: RepositoryName, blob: Descriptor) -> bool:
        link = self._blob(repository, blob.digest)
        try:
            return self._is_good(str(link), link.lstat(), blob)
        except FileNotFoundError:
            return False

    def _is_good(self, link: str, status: os.stat_result, blob: Descriptor) -> bool:
        """Whether ``link`` leads to a file of the right size that nginx may read; a symbolic one is
        followed as nginx would, with its idea of the root translated to ours."""
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(link)
            seen = self.place.root_seen_as
            if not target.startswith(f"{seen}/"):
                return False
            try:
                status = os.lstat(f"{self._root}{target[len(seen) :]}")
            except OSError:
                return False
        right = stat.S_ISREG(status.st_mode) and status.st_size == blob.size
        return right and self._reader.may_read(status)

    def _blob(self, repository: RepositoryName, digest: Digest) -> Path:
        return self.place.path / repository / ".blobs" / digest.algorithm / digest.hex

    def _directory(self, repository: RepositoryName, algorithm: str) -> tuple[int, str]:
        """A descriptor of the directory for blobs, open until another is asked for, and its path."""
        if self._open is None or self._open.of != (repository, algorithm):
            self._close()
            path = f"{repository}/.blobs/{algorithm}"
            make_directory(self.place.path)
            descriptor = open_inside(self.place.path, path)
            self._open = _Open((repository, algorithm), descriptor, f"{self.place.path}/{path}")
        return self._open.descriptor, self._open.place

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open.descriptor)
            self._open = None

    @contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._close()

    # -- what the bytes are --------------------------------------------------------------------------

    def _prove(
        self, source: int, image: Image, blob: Descriptor, status: os.stat_result, *, wait: bool
    ) -> bool:
        """Whether the blob is known to have its digest.

        Raises ``_UnusableError`` if it is known not to, and ``_WaitingError`` if that must be waited
        for.
        """
        if self._hasher is None:
            return True
        what = identity(status)
        known = self._hasher.result(what, blob.digest)
        if known is None and self._is_small(image):
            known = has_digest(
                blob.digest.hex,
                blob.digest,
                within=source,
                expected=what,
                progress=lambda _: self._progress(),
            )
            self._inline_left -= blob.size
            if known is None:
                raise _changed(f"blob {blob.digest} changed while it was read")
            self._hasher.remember(what, blob.digest, known)
        if known:
            return True
        if known is False:
            self._drop_rotten(blob, status)
            directory = image.directory(blob.digest.algorithm)
            file = f"{self._root}/{directory}/{blob.digest.hex}"
            raise _UnusableError(
                f"the bytes of {printable(file)} are not those that its name says",
                self._copy_again(image, file),
            )
        job = Job(image.directory(blob.digest.algorithm), blob.digest.hex, what, blob.digest)
        self._jobs.append((job, (image.repository, _called(image)), wait))
        if wait:
            raise _WaitingError
        return False

    def _copy_again(self, image: Image, file: str) -> str:
        path = f"{self._root}/{image.path}"
        if not image.is_in_layout:
            return f"Copy it again: {copy_again(f'dir:{path}')}"
        if ":" in image.path.rpartition("/")[2]:  # skopeo cannot write such a layout
            return f"Copy it again: {copy_again(f'dir:{path}', stale=path)}"
        skopeo = f"oci:{path}:{label(image.below, image.tag or Tag('TAG'), image.digest)}"
        return f"Copy it again: {copy_again(skopeo, stale=file)}"

    def _is_small(self, image: Image) -> bool:
        size = sum(blob.size for blob in image.blobs)
        return not self._trusting and size <= min(_INLINE_BYTES, self._inline_left)

    def _is_known(self, status: os.stat_result, blob: Descriptor) -> bool:
        """Whether a hash has come, or was wrong."""
        return self._hasher is not None and self._hasher.result(identity(status), blob.digest) is not None

    # -- manifests ---------------------------------------------------------------------------------

    def _take_manifest(self, source: int, repository: RepositoryName, manifest: ManifestFile) -> None:
        place = self._place_of(repository, manifest.media_type)
        self._marks.setdefault(place, (0, 0))
        if place not in self._ours:
            self._make(place)
        copy, new = f"{place}/{manifest.digest.hex}", f"{place}/.{manifest.digest.hex}.new"
        if new in self._unsynced or _is_copy(copy, manifest):
            return
        raw, _ = read_regular(manifest.file, within=source, limit=MANIFEST_BYTES)
        if Digest.of(raw, manifest.digest.algorithm) != manifest.digest:
            raise _changed(f"{manifest.file} is not what it was")
        self._write_copy(copy, new, raw, manifest.digest)

    def _copy_of(self, repository: RepositoryName, digest: Digest) -> bytes:
        """The bytes of a manifest that the store has. Raises ``FileNotFoundError`` if it has them not, or
        not as they were: a copy may be linked by others, and written to. One of version 0.1 comes to where
        it lies now."""
        places = [self._place_of(repository, media_type) for media_type in MediaType]
        for place in (*places, self._former_copies):
            try:
                with open_directory(place) as directory:
                    raw, _ = read_regular(digest.hex, within=directory, limit=MANIFEST_BYTES)
            except OSError:
                continue
            if Digest.of(raw, digest.algorithm) != digest:
                continue
            ours = self._place_of(repository, parse(raw).media_type)
            if place == self._former_copies:
                self._write_copy(f"{ours}/{digest.hex}", f"{ours}/.{digest.hex}.new", raw, digest)
                self._sync()
            if place in (ours, self._former_copies):
                return raw
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{places[0]}/{digest.hex}")

    def _place_of(self, repository: RepositoryName, media_type: MediaType) -> str:
        return f"{self.place.path}/{repository}/.manifests/{media_type.number}"

    def _make(self, place: str) -> None:
        """Make a directory of the store, and the store itself, which somebody may have removed."""
        make_directory(self.place.path)
        make_inside(self.place.path, os.path.relpath(place, self.place.path))
        self._ours.add(place)

    def _write_copy(self, copy: str, new: str, raw: bytes, digest: Digest) -> None:
        """Write ``new``, which becomes ``copy`` with the next ``_sync``."""
        moment = _moment(digest)
        try:
            descriptor = create(new)
        except FileNotFoundError:
            self._make(os.path.dirname(new))
            descriptor = create(new)
        try:
            write_all(descriptor, raw)
            os.fchmod(descriptor, 0o644)
            os.utime(descriptor, (moment, moment))
        finally:
            os.close(descriptor)
        self._unsynced[new] = copy
        if len(self._unsynced) >= _BATCH:
            self._sync()

    def _sync(self) -> None:
        """Have everything that was written since the last time survive a power cut."""
        self._fsync(self._unsynced)
        for new, copy in self._unsynced.items():
            os.rename(new, copy)
            self._dirty.add(os.path.dirname(copy))
        self._unsynced.clear()
        self._fsync(self._dirty)
        for place in self._dirty:
            self._marks[place] = _mark(place)
        self._dirty.clear()
        for place, mark in self._marks.items():
            if mark == (0, 0):  # seen for the first time, and in order
                self._marks[place] = _mark(place)

    def _fsync(self, paths: Collection[str]) -> None:
        """Sync ``paths``, with the help of threads. Their words are not waited for: what they do not tell
        of, such as one that ran out of memory, is done here, and twice does no harm."""
        every = list(paths)
        slices = {start: every[start : start + _SLICE] for start in range(0, len(every), _SLICE)}
        todo = deque(slices)
        done: SimpleQueue[tuple[int, OSError | None]] = SimpleQueue()

        def help_out() -> None:
            for start in _emptied(todo):
                try:
                    _fsync_all(slices[start])
                    done.put((start, None))
                except OSError as error:
                    done.put((start, error))

        try:
            for _ in range(min(_SYNCS, len(slices) - 1)):
                if not threads.start(help_out, name="sync"):
                    break
            left = dict(slices)
            for start in _emptied(todo):
                _fsync_all(left.pop(start), self._progress)
            while left:
                try:
                    start, error = done.get(timeout=_SILENCE_SECONDS)
                except Empty:
                    _, late = left.popitem()
                    _fsync_all(late, self._progress)
                    continue
                self._progress()
                left.pop(start, None)
                if error is not None:
                    raise error
        finally:
            todo.clear()


@contextmanager
def _sources(root: int, image: Image, reader: Reader) -> Iterator[Callable[[str], int]]:
    """Opens the directories that content of ``image`` lies in, by the algorithm of its digest."""
    opened: dict[str, int] = {}
    with ExitStack() as stack:

        def source(algorithm: str) -> int:
            path = image.directory(algorithm)
            if path not in opened:
                opened[path] = stack.enter_context(open_directory(path, within=root, reader=reader))
            return opened[path]

        yield source


def _called(image: Image) -> str:
    """What tells an image from the others of its repository."""
    return image.tag or image.digest


def _problem(root: Path, image: Image, error: _UnusableError) -> Problem:
    return Problem(printable(f"{root}/{image.place}"), error.reason, error.remedy, image.owner)


def _changed(what: str) -> _UnusableError:
    return _UnusableError(
        f"it changed while it was published: {what}",
        "Nothing to do if it is being copied: the next pass looks again.",
    )


def _is_copy(path: str, manifest: ManifestFile) -> bool:
    """Whether ``path`` is our copy, and not a link that somebody put there to save space."""
    status = _lstat(path)
    return (
        status is not None
        and stat.S_ISREG(status.st_mode)
        and status.st_size == manifest.size
        and status.st_nlink == 1
        and int(status.st_mtime) == _moment(manifest.digest)
    )


def _moment(digest: Digest) -> int:
    """A modification time made from the digest, in the years 2000 to 2019.

    nginx's ETag is time and size: two manifests of one size must not share it, and replicas must
    agree on it.
    """
    return 946_684_800 + int(digest.hex[:8], 16) % 631_152_000


def _mark(path: str) -> _Mark:
    """What changes when somebody adds or removes a name in ``path``; ``(0, 0)`` if it is gone."""
    status = _lstat(path)
    return (status.st_ino, status.st_mtime_ns) if status is not None else (0, 0)


def _lstat(path: str, directory: int | None = None) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _unlink(name: str, directory: int | None = None) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _is_empty(path: str) -> bool:
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return False


def _emptied(todo: "deque[int]") -> Iterator[int]:
    """What is in ``todo``, each for one of the threads that take from it."""
    while True:
        try:
            yield todo.popleft()
        except IndexError:
            return


def _fsync_all(paths: Iterable[str], progress: Callable[[], None] = lambda: None) -> None:
    for path in paths:
        _fsync(path)
        progress()


def _fsync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
