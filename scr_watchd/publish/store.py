"""The store: what nginx serves from.

    STORE/REPOSITORY/.blobs/ALGORITHM/HEX   a link to the file in the images tree, or a copy (``copying``)
    STORE/REPOSITORY/.manifests/TYPE/HEX    a copy, because a manifest may be rewritten in place

What a digest names in a repository is a file of that repository, and nothing else says so. Where a
manifest lies says its media type too, by ``MediaType.number``. Names that start with a dot cannot be
repository names, so nothing here can collide.

What the store holds may be taken away or damaged at any time. Each pass looks whether the directories
are as it left them (``Linked.marks``), and mends what is not from the tree.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scr_watchd.errors import may_pass
from scr_watchd.files import ANYBODY, FileId, Reader, directories, file_id, open_directory, read_regular
from scr_watchd.oci.catalog import Image, ManifestFile
from scr_watchd.oci.manifest import MANIFEST_BYTES, Descriptor, ManifestError, MediaType, parse
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.batch import Batch, mark
from scr_watchd.publish.copying import copy_name
from scr_watchd.publish.link import Linked, Linker, Rotten, followed, is_good
from scr_watchd.publish.place import PROBE, StorePlace
from scr_watchd.publish.proof import Prover, Unseen

_Opened = Callable[[str], int]
_ABSENT = (FileNotFoundError, NotADirectoryError)


class Store:
    """The store of one images tree, ``root``, at ``place``."""

    def __init__(
        self, place: StorePlace, root: Path, prover: Prover, *, progress: Callable[[], None] = lambda: None
    ) -> None:
        self.place = place
        self.prover = prover
        self.root_id: FileId = (0, 0)
        """The images directory that it was opened for."""
        self.is_known = False
        """Whether everything in it was looked at."""
        self._root = root
        self._progress = progress
        self._reader = ANYBODY
        self._former_copies = f"{place.path}/.manifests/sha256"
        """Where version 0.1 had the manifests of all repositories."""

    @contextmanager
    def linking(
        self, root: FileId, reader: Reader, hashed: dict[str, set[str]] | None = None
    ) -> Iterator[Linker]:
        """What links from the images directory, as a look has found it; when the block ends, all that was
        written survives a power cut. ``hashed`` images are looked at again.

        Raises ``OSError`` if the images directory is another one by now: a disk that was mounted or went
        away.
        """
        self._reader = reader
        with open_directory(self._root) as now:
            if file_id(os.fstat(now)) != root:
                raise OSError(errno.ESTALE, "it was exchanged while it was looked at", str(self._root))
            batch = Batch(self.place.path, self._progress)
            yield Linker(
                self.place, self._root, now, reader, self.prover, batch, self._progress, hashed=hashed or {}
            )
            batch.sync()
        if not self.prover.trusting:
            self.prover.hash_the_rest()

    def drop(self, rotten: Rotten, repositories: Iterable[RepositoryName]) -> set[RepositoryName]:
        """Remove every link to a rotten file: a repository may have it that the file was renamed from.
        Returns of which."""
        dropped = set()
        algorithm, file = rotten.digest.algorithm, rotten.digest.hex
        with open_directory(self.place.path) as store:
            for name in repositories:
                with (
                    suppress(FileNotFoundError, NotADirectoryError),
                    open_directory(f"{name}/.blobs/{algorithm}", within=store) as directory,
                ):
                    if file_id(os.stat(file, dir_fd=directory, follow_symlinks=False)) == rotten.file:
                        os.unlink(file, dir_fd=directory)
                        dropped.add(name)
        return dropped

    def image(self, repository: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
        """The image as the store still has it; ``None`` if anything is missing but children of an index, of
        which only who published it knows whether they were ever there. Raises ``OSError`` if that cannot be
        known now: what is pinned must not be taken for lost."""
        manifests: dict[Digest, ManifestFile] = {}
        blobs: dict[Digest, Descriptor] = {}
        absent: dict[Digest, Descriptor] = {}
        platforms: list[str] = []
        queue = [Descriptor(digest, 0)]
        try:
            for child in queue:  # grows while indexes are found in indexes
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
            with self._opened() as opened:
                present = [blob for blob in blobs.values() if self._has(opened, repository, blob)]
                owner = _status(opened, repository, present[0]).st_uid if present else 0
        except (OSError, ManifestError) as error:
            if isinstance(error, OSError) and may_pass(error):
                raise
            return None
        if any(not blob.optional for blob in blobs.values() if blob not in present):
            return None
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

    def only_here(self, images: Iterable[Image], copied: Container[tuple[RepositoryName, str]] = ()) -> int:
        """The bytes of the blobs of ``images`` that nothing but the store holds. Of those that are ``copied``
        the tree has the file."""
        here = (
            status
            for image, blob, _, status in self._found(images)
            if (image.repository, blob.digest.hex) not in copied
            and stat.S_ISREG(status.st_mode)
            and status.st_nlink == 1
        )
        return sum({status.st_ino: status.st_size for status in here}.values())

    def unseen(self, images: Iterable[Image]) -> Iterator[Unseen]:
        """The files of ``images``, or what symbolic links lead to."""
        for _, blob, directory, status in self._found(images):
            name = blob.digest.hex
            if (found := self._followed(name, directory, status)) is not None:
                yield Unseen(directory, name, found)

    def has(self, image: Image) -> bool:
        """Whether an image that ``image`` gave is still there, whole."""
        try:
            with self._opened() as opened:
                for each in image.manifests:
                    directory = opened(f"{image.repository}/.manifests/{each.media_type.number}")
                    os.stat(each.digest.hex, dir_fd=directory, follow_symlinks=False)
                return all(self._has(opened, image.repository, blob) for blob in image.blobs)
        except _ABSENT:
            return False

    # -- what goes -----------------------------------------------------------------------------------

    def repositories(self) -> Iterator[RepositoryName]:
        """Every directory of the store that may hold blobs or manifests. A probe that could not be removed
        goes."""
        with suppress(FileNotFoundError), open_directory(self.place.path) as store:
            for path, names, files, _ in os.fwalk(".", dir_fd=store):
                for name in files:
                    if path == "." and name.startswith(PROBE):
                        os.unlink(name, dir_fd=store)
                if path != "." and not {".blobs", ".manifests"}.isdisjoint(names):
                    yield RepositoryName(path[2:])
                names[:] = [name for name in names if not name.startswith(".")]

    def prune(self, repository: RepositoryName, images: Iterable[Image]) -> int:
        """Remove what none of ``images`` needs of a repository, and what is empty then. Returns how many
        files that were: only what can be ours, since others may lie in a store that was chosen by hand."""
        needed = list(images)
        blobs = {blob.digest.hex for image in needed for blob in image.blobs}
        copies = {copy_name(name): name for name in blobs} if self.prover.hasher.has_copies else {}

        def is_needed(below: str, name: str) -> bool:
            path = f"{self.place.path}/{repository}/.blobs/{below}/{name}"
            return name in blobs or (name in copies and self.prover.hasher.has_copy(path))

        spare = {blob.digest.algorithm for image in needed for blob in image.blobs} if copies else set()
        removed = self._prune_files(f"{repository}/.blobs", is_needed, spare=spare)
        manifests = {
            f"{each.media_type.number}/{each.digest.hex}" for image in needed for each in image.manifests
        }
        removed += self._prune_files(
            f"{repository}/.manifests", lambda below, name: f"{below}/{name}" in manifests
        )
        with suppress(FileNotFoundError), open_directory(self.place.path) as store:
            way = str(repository)
            while way and not _listing(way, store):
                os.rmdir(way, dir_fd=store)
                way = way.rpartition("/")[0]
        return removed

    def _prune_files(
        self, top: str, is_needed: Callable[[str, str], bool], *, spare: Container[str] = ()
    ) -> int:
        """Remove the files below ``top``, a directory of the store, that are not needed, and what is empty
        then, but the directories ``spare``. What a link leads to is not ours to remove."""
        removed = 0
        try:
            with open_directory(self.place.path) as store, open_directory(top, within=store) as opened:
                for below, _, files, directory in os.fwalk(".", topdown=False, dir_fd=opened):
                    below = os.path.normpath(below)
                    for name in files:
                        if not is_needed(below, name):
                            os.unlink(name, dir_fd=directory)
                            removed += 1
                    if below not in spare and not os.listdir(directory):
                        os.rmdir(os.path.normpath(f"{top}/{below}"), dir_fd=store)
        except FileNotFoundError:
            pass
        except NotADirectoryError as error:
            error.filename = f"{self.place.path}/{top}"
            raise
        return removed

    def prune_former(self) -> None:
        """Remove what version 0.1 kept elsewhere. Call it once nginx is known to read another generation
        than one of that version."""
        with suppress(OSError), open_directory(self.place.path) as store:
            with open_directory(".manifests", within=store) as directory:
                shutil.rmtree("sha256", ignore_errors=True, dir_fd=directory)
            os.rmdir(".manifests", dir_fd=store)

    # -- what is there -------------------------------------------------------------------------------

    @contextmanager
    def _opened(self) -> Iterator[_Opened]:
        """Opens directories of the store, by their paths in it."""
        with open_directory(self.place.path) as store, directories(store) as opened:
            yield opened

    def _found(self, images: Iterable[Image]) -> Iterator[tuple[Image, Descriptor, int, os.stat_result]]:
        """The blobs of ``images`` that are there, the directory of each, and what is there."""
        for image in images:
            with suppress(*_ABSENT), self._opened() as opened:  # each anew: there may be thousands
                for blob in image.blobs:
                    with suppress(*_ABSENT):
                        directory = opened(_blobs(image.repository, blob))
                        yield image, blob, directory, _status(opened, image.repository, blob)

    def _has(self, opened: _Opened, repository: RepositoryName, blob: Descriptor) -> bool:
        try:
            status, directory = _status(opened, repository, blob), opened(_blobs(repository, blob))
            return is_good(self._followed(blob.digest.hex, directory, status), blob, self._reader)
        except _ABSENT:
            return False

    def _followed(self, name: str, directory: int, status: os.stat_result) -> os.stat_result | None:
        if not stat.S_ISLNK(status.st_mode):
            return status
        with open_directory(self._root) as root:
            return followed(name, directory, status, place=self.place, root=root, reader=self._reader)

    def _copy_of(self, repository: RepositoryName, digest: Digest) -> bytes:
        """The bytes of a manifest that the store has. Raises ``FileNotFoundError`` if it has them not, or
        not as they were: a copy may be linked by others, and written to. One of version 0.1 comes to where
        it lies now."""
        base = f"{self.place.path}/{repository}/.manifests"
        places = [f"{base}/{media_type.number}" for media_type in MediaType]
        for place in (*places, self._former_copies):
            try:
                with open_directory(place) as directory:
                    raw, _ = read_regular(digest.hex, within=directory, limit=MANIFEST_BYTES)
            except OSError as error:
                if may_pass(error):
                    raise
                continue
            if Digest.of(raw, digest.algorithm) != digest:
                continue
            ours = f"{base}/{parse(raw).media_type.number}"
            if place == self._former_copies:
                batch = Batch(self.place.path, self._progress)
                batch.write(f"{ours}/{digest.hex}", raw, digest)
                batch.sync()
            if place in (ours, self._former_copies):
                return raw
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{places[0]}/{digest.hex}")


def _blobs(repository: RepositoryName, blob: Descriptor) -> str:
    return f"{repository}/.blobs/{blob.digest.algorithm}"


def _status(opened: _Opened, repository: RepositoryName, blob: Descriptor) -> os.stat_result:
    """Whose an image was, a hard link tells."""
    return os.stat(blob.digest.hex, dir_fd=opened(_blobs(repository, blob)), follow_symlinks=False)


def remark(linked: Linked) -> None:
    """Note that the directories of a repository are as we left them; not of one that is gone."""
    linked.marks = {
        path: before if (now := mark(path)) == (0, 0) else now for path, before in linked.marks.items()
    }


def _listing(path: str, within: int) -> list[str]:
    with open_directory(path, within=within) as directory:
        return os.listdir(directory)
