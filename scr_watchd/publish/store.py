"""The store: what nginx serves from. It holds no bytes of its own but copies of manifests.

    STORE/REPOSITORY/.blobs/ALGORITHM/HEX   a link to the file in the images tree
    STORE/.manifests/sha256/HEX             a copy, because a manifest may be rewritten in place

A hard link keeps a blob's bytes while a writer wipes its directory and copies it again, so that the
last complete version stays pullable. Where none can be made the link is symbolic, and only that is
lost. Names that start with a dot cannot be repository names, so nothing here can collide.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

from scr_watchd.files import NotRegularError, make_directory, open_directory, read_regular, sync_directory
from scr_watchd.oci.catalog import Image, ManifestFile, Problem
from scr_watchd.oci.manifest import MANIFEST_BYTES, Descriptor, ManifestError, parse
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.place import StorePlace

# link(2): another mount, not permitted (fs.protected_hardlinks), too many links, not supported
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
_BATCH = 256  # manifests that are written before they are synced, so that one journal commit does for all

_Key = tuple[RepositoryName, str]


class _ChangedError(Exception):
    """A file is no longer what the scan saw; the text says which."""


class Store:
    """The store of one images tree at ``place``. Remembers which images it has taken."""

    def __init__(self, place: StorePlace, root: Path, *, progress: Callable[[], None] = lambda: None) -> None:
        self.place = place
        self._root = root
        self._progress = progress
        self._taken: dict[_Key, Image] = {}
        self._symbolic: set[RepositoryName] = set()
        self._dirty: set[Path] = set()
        self._unsynced: dict[Path, Path] = {}

    def take(self, images: Iterable[Image]) -> tuple[tuple[Image, ...], tuple[Problem, ...]]:
        """Link and copy what ``images`` need; return those that are safe in the store.

        An image that changed since it was scanned comes back as a ``Problem``; the pass that its
        change causes will see it anew. Raises ``OSError`` if the store cannot be written.
        """
        if not self.is_there():
            self._taken.clear()  # the first time, or somebody removed the store
            make_directory(self._manifests)
        wanted = {_key(image): image for image in images}
        again = self._to_look_at_again(wanted)
        kept: dict[_Key, Image] = {}
        problems: list[Problem] = []
        taken, self._taken = self._taken, {}  # if anything fails below, the next pass does all again
        self._unsynced.clear()
        with open_directory(self._root) as root:
            for key, image in wanted.items():
                self._progress()
                if taken.get(key) is not image or image.repository in again:
                    try:
                        self._take(root, image)
                    except _ChangedError as error:
                        problems.append(
                            Problem(
                                f"{self._root}/{image.path}",
                                f"it changed while it was published: {error}",
                                "Nothing to do if it is being copied: the next pass looks again.",
                            )
                        )
                        continue
                kept[key] = image
        self._sync()
        self._taken = kept
        return tuple(kept.values()), tuple(problems)

    def is_there(self) -> bool:
        """Whether the store still exists: it may lie where an ``rsync --delete`` removes it."""
        return self._manifests.is_dir()

    def image(self, repository: RepositoryName, tag: Tag, digest: Digest) -> Image | None:
        """The image as the store still has it, whole; ``None`` if anything is missing."""
        manifests: dict[Digest, ManifestFile] = {}
        blobs: dict[Digest, Descriptor] = {}
        queue = [digest]
        with open_directory(self._manifests) as directory:
            while queue:
                wanted = queue.pop()
                if wanted in manifests:
                    continue
                try:
                    raw, _ = read_regular(wanted.hex, within=directory, limit=MANIFEST_BYTES)
                    manifest = parse(raw)
                except (OSError, ManifestError):
                    return None
                manifests[wanted] = ManifestFile(wanted, manifest.media_type, len(raw), wanted.hex)
                blobs |= {blob.digest: blob for blob in manifest.blobs}
                queue += [child.digest for child in manifest.manifests]
        present = [blob for blob in blobs.values() if self._has(repository, blob)]
        if any(not blob.optional for blob in blobs.values() if blob not in present):
            return None
        return Image("", repository, tag, tuple(manifests.values()), tuple(present))

    def prune(self, images: Iterable[Image]) -> None:
        """Remove everything that none of ``images`` needs."""
        manifests: set[str] = set()
        blobs: dict[str, set[str]] = {}
        for image in images:
            manifests |= {manifest.digest.hex for manifest in image.manifests}
            blobs.setdefault(image.repository, set()).update(blob.digest.hex for blob in image.blobs)
        for name in os.listdir(self._manifests):
            if name not in manifests:
                (self._manifests / name).unlink()
        base = str(self.place.path)
        for path, _, files in os.walk(base, topdown=False):
            if path == base or path.startswith(f"{base}/.manifests"):
                continue
            repository, _, rest = path[len(base) + 1 :].partition("/.blobs")
            needed = blobs.get(repository, set())
            for name in files:
                if not rest or name not in needed:
                    Path(path, name).unlink()
            if not os.listdir(path):
                Path(path).rmdir()

    # -- blobs -------------------------------------------------------------------------------------

    def _take(self, root: int, image: Image) -> None:
        try:
            with open_directory(image.path, within=root) as source:
                for blob in image.blobs:
                    self._take_blob(source, image, blob)
                for manifest in image.manifests:
                    self._take_manifest(source, manifest)
        except (FileNotFoundError, NotADirectoryError, NotRegularError) as error:
            raise _ChangedError(error.strerror) from error

    def _take_blob(self, source: int, image: Image, blob: Descriptor) -> None:
        file = blob.digest.hex
        link = self._blob(image.repository, blob.digest)
        before = os.stat(file, dir_fd=source, follow_symlinks=False)
        if not stat.S_ISREG(before.st_mode) or before.st_size != blob.size:
            raise _ChangedError(f"blob {blob.digest} is not the file it was")
        try:
            existing = link.lstat()
        except FileNotFoundError:
            existing = None
            make_directory(link.parent)
        if existing is not None and self._is_good(link, existing, blob):
            if stat.S_ISLNK(existing.st_mode):
                self._symbolic.add(image.repository)
            return
        new = link if existing is None else link.with_name(f".{file}.new")
        if new is not link:
            new.unlink(missing_ok=True)
        if self._hard_link(source, file, new):
            after = new.lstat()
            if after.st_ino != before.st_ino or after.st_size != blob.size:
                new.unlink()
                raise _ChangedError(f"blob {blob.digest} was replaced")
        else:
            new.symlink_to(f"{self.place.root_seen_as}/{image.path}/{file}")
            self._symbolic.add(image.repository)
        if new is not link:
            new.rename(link)
        self._dirty.add(link.parent)

    def _hard_link(self, source: int, file: str, new: Path) -> bool:
        if not self.place.hard_links:
            return False
        try:
            os.link(file, new, src_dir_fd=source, follow_symlinks=False)
        except OSError as error:
            if error.errno in _CANNOT_LINK:
                return False
            raise
        return True

    def _has(self, repository: RepositoryName, blob: Descriptor) -> bool:
        link = self._blob(repository, blob.digest)
        try:
            return self._is_good(link, link.lstat(), blob)
        except FileNotFoundError:
            return False

    def _is_good(self, link: Path, status: os.stat_result, blob: Descriptor) -> bool:
        """Whether ``link`` leads to a file of the right size; a symbolic one is followed as nginx
        would, with its idea of the root translated to ours."""
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(link)
            seen = self.place.root_seen_as
            if not target.startswith(f"{seen}/"):
                return False
            try:
                status = os.lstat(f"{self._root}{target[len(seen) :]}")
            except OSError:
                return False
        return stat.S_ISREG(status.st_mode) and status.st_size == blob.size

    def _to_look_at_again(self, wanted: dict[_Key, Image]) -> set[RepositoryName]:
        """Repositories with symbolic links, some of which may lead into a directory that is gone."""
        return {
            image.repository
            for key, image in self._taken.items()
            if image.repository in self._symbolic and wanted.get(key) is not image
        }

    def _blob(self, repository: RepositoryName, digest: Digest) -> Path:
        return self.place.path / repository / ".blobs" / digest.algorithm / digest.hex

    # -- manifests ---------------------------------------------------------------------------------

    @property
    def _manifests(self) -> Path:
        return self.place.path / ".manifests" / "sha256"

    def _take_manifest(self, source: int, manifest: ManifestFile) -> None:
        copy = self._manifests / manifest.digest.hex
        if copy in self._unsynced.values():
            return
        try:
            status = copy.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_size == manifest.size:
                return
        except FileNotFoundError:
            pass
        raw, _ = read_regular(manifest.file, within=source, limit=MANIFEST_BYTES)
        if sha256(raw).hexdigest() != manifest.digest.hex:
            raise _ChangedError(f"{manifest.file} is not what it was")
        new = copy.with_name(f".{manifest.digest.hex}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fchmod(descriptor, 0o644)
        moment = _moment(manifest.digest)
        os.utime(new, (moment, moment))
        self._unsynced[new] = copy
        if len(self._unsynced) >= _BATCH:
            self._sync()

    def _sync(self) -> None:
        """Have everything that was written since the last time survive a power cut."""
        for new in self._unsynced:
            descriptor = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for new, copy in self._unsynced.items():
            new.rename(copy)
            self._dirty.add(copy.parent)
        self._unsynced.clear()
        for directory in self._dirty:
            sync_directory(directory)
        self._dirty.clear()


def _key(image: Image) -> _Key:
    return image.repository, image.tag or image.digest


def _moment(digest: Digest) -> int:
    """A modification time made from the digest, in the years 2000 to 2019.

    nginx's ETag is time and size: two manifests of one size must not share it, and replicas must
    agree on it.
    """
    return 946_684_800 + int(digest.hex[:8], 16) % 631_152_000
