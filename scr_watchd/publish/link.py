"""Brings what a repository has in the tree into the store: links to blobs, copies of manifests.

What is linked is what was judged: a file is opened once, its status is read from that descriptor, and the
very descriptor is linked. A hard link keeps a blob's bytes while a writer wipes its directory and copies it
again, so that the last complete version stays pullable, and leads nowhere else. Links to another mount are
symbolic; what else refuses a hard link is copied.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

from scr_watchd.errors import may_pass
from scr_watchd.files import (
    FileId,
    NotRegularError,
    Reader,
    directories,
    file_id,
    open_directory,
    open_inside,
    read_regular,
)
from scr_watchd.oci.catalog import Image, ManifestFile, Problem
from scr_watchd.oci.manifest import MANIFEST_BYTES, Descriptor
from scr_watchd.oci.names import Digest, RepositoryName
from scr_watchd.publish.batch import UNMARKED, Mark, mark, moment
from scr_watchd.publish.copying import Unlinked, may_be_refused, why
from scr_watchd.publish.place import StorePlace
from scr_watchd.publish.placing import File, Means, Placing, UnusableError, changed, lstat
from scr_watchd.publish.proof import RottenError, WaitingError
from scr_watchd.words import printable


@dataclass(slots=True)
class Linked:
    """What the store has of a repository: ``images`` are safe in it, ``waiting`` are not until their bytes
    are hashed or copied. Of ``unlinked`` blobs it has no hard link, though others are. ``marks`` tell
    whether others disturb its directories."""

    images: tuple[Image, ...] = ()
    problems: tuple[Problem, ...] = ()
    waiting: tuple[Image, ...] = ()
    is_symbolic: bool = False
    unlinked: dict[str, Unlinked] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)

    @property
    def is_disturbed(self) -> bool:
        return any(mark(path) != before for path, before in self.marks.items())


@dataclass(frozen=True, slots=True)
class Rotten:
    """A file of the tree whose bytes do not have ``digest``."""

    file: FileId
    digest: Digest


@dataclass(slots=True)
class Linker(Means):
    """Links what repositories need. Images that were ``hashed`` are looked at again; ``rotten`` grows."""

    hashed: dict[str, set[str]] = field(default_factory=dict)
    rotten: list[Rotten] = field(default_factory=list)

    def link(
        self,
        name: RepositoryName,
        images: Collection[Image],
        before: Linked,
        published: Collection[tuple[str, Digest]],
        *,
        again: bool = False,
    ) -> Linked:
        """Link and copy what ``images`` of a repository need. ``published`` are those that nginx may answer
        with, by what they are called and digest. With ``again`` also what is ``before``, which is looked at
        if that is disturbed, or if a file may be gone that a link leads to.

        Raises ``OSError`` if the store cannot be written.
        """
        old = {image.called: image for image in before.images}
        new = {image.called: image for image in images}
        again = again or before.is_disturbed or not old.keys() <= new.keys()
        again |= before.is_symbolic and any(new.get(key) is not image for key, image in old.items())
        hashed = self.hashed.get(name, set())
        if again:
            self.prover.forget_upgrades(name)
        with _Links(self, name, published) as links:
            links.is_symbolic = before.is_symbolic and not again
            links.unlinked = dict(before.unlinked) if not again else {}
            for image in images:
                self.progress()
                known = old.get(image.called)
                if known is image and not again and image.called not in hashed:
                    links.images.append(image)
                else:
                    links.attempt(image, has_changed=known is not None and known is not image)
            marks = {**before.marks, **dict.fromkeys(links.places, UNMARKED)}
            if links.unlinked:
                needed = {blob.digest.hex for image in images for blob in image.blobs}
                links.unlinked = {key: each for key, each in links.unlinked.items() if key in needed}
            return Linked(
                tuple(links.images),
                tuple(links.problems),
                tuple(links.waiting),
                links.is_symbolic,
                links.unlinked,
                marks if not again else dict.fromkeys(links.places, UNMARKED),
            )


class _Links(Placing):
    """The links of one repository, whose directories are open meanwhile."""

    def __init__(
        self, linker: Linker, name: RepositoryName, published: Collection[tuple[str, Digest]]
    ) -> None:
        super().__init__(linker)
        self._to = linker
        self._name = name
        self._published = published
        self._stack = ExitStack()
        self._directories: dict[str, int] = {}
        self.images: list[Image] = []
        self.problems: list[Problem] = []
        self.waiting: list[Image] = []
        self.places: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def attempt(self, image: Image, *, has_changed: bool) -> None:
        """Link ``image``. One that ``has_changed`` is not believed what the store knows of it."""
        try:
            self._image(image, has_changed=has_changed)
        except UnusableError as error:
            shown = printable(f"{self._to.path}/{image.place}")
            self.problems.append(Problem(shown, error.reason, error.remedy, image.owner))
        except WaitingError:
            self.waiting.append(image)
        else:
            self.images.append(image)

    def _image(self, image: Image, *, has_changed: bool) -> None:
        waits = False
        try:
            with _sources(self._to.root, image, self._to.reader) as source:
                for blob in self._rotten_first(source, image):
                    try:
                        self._blob(source(blob.digest.algorithm), image, blob, has_changed=has_changed)
                    except WaitingError:
                        waits = True  # the others may be hashed meanwhile
                if waits:
                    raise WaitingError
                for manifest in image.manifests:
                    self._manifest(source(manifest.algorithm), manifest)
        except (FileNotFoundError, NotADirectoryError, NotRegularError, PermissionError) as error:
            raise changed(str(error.strerror)) from error

    def _rotten_first(self, source: Callable[[str], int], image: Image) -> Collection[Descriptor]:
        """The blobs, in the order in which they are linked: what is in vain need not be begun."""
        prover = self._to.prover
        if not prover.hasher.knows_rot:
            return image.blobs

        def is_good(blob: Descriptor) -> bool:
            status = os.stat(blob.digest.hex, dir_fd=source(blob.digest.algorithm), follow_symlinks=False)
            return not prover.is_rotten(status, blob.digest)

        return sorted(image.blobs, key=is_good)

    # -- blobs -------------------------------------------------------------------------------------

    def _blob(self, source: int, image: Image, blob: Descriptor, *, has_changed: bool) -> None:
        status = os.stat(blob.digest.hex, dir_fd=source, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_size != blob.size:
            raise changed(f"blob {blob.digest} is not the file it was")
        if not self._to.reader.may_read(status):
            raise changed(f"nginx may not read blob {blob.digest}")
        directory, place = self._directory(blob.digest.algorithm)
        self.places.add(place)
        file = File(image, blob, source, status, directory, place)
        existing = lstat(file.name, directory)
        if existing is not None and self._is_good(file, existing):
            self._look_again(file, existing, has_changed=has_changed)
            return
        self.unlinked.pop(file.name, None)
        replace = existing is not None
        if self._to.prover.trusting:
            self.link(file, replace=replace)
            self._prove(file, wait=False)
        else:
            if not may_be_refused(status) or self.refusal(file) is None:  # a copy is hashed anyway
                self._prove(file, wait=True)
            self.link(file, replace=replace)

    def _is_good(self, file: File, existing: os.stat_result) -> bool:
        """Whether the store has a blob already."""
        to = self._to
        found = followed(file.name, file.directory, existing, place=to.place, root=to.root, reader=to.reader)
        return is_good(found, file.blob, to.reader)

    def _look_again(self, file: File, existing: os.stat_result, *, has_changed: bool) -> None:
        """At a blob that the store has: was the file written to, or copied anew?"""
        is_hard, prover, digest = self._to.place.hard_links, self._to.prover, file.blob.digest
        is_link = stat.S_ISLNK(existing.st_mode)
        if is_link:
            self.is_symbolic = True
            leads_here = os.readlink(file.name, dir_fd=file.directory) == self.target(file)
            if leads_here and is_hard:
                self._be_rid_of_symbolic(file)
        else:
            leads_here = file_id(existing) == file_id(file.status)
            if leads_here:
                self.unlinked.pop(file.name, None)
        # bytes that are there twice: ours are the last link to the old ones, a copy, or of another disk
        is_double = not leads_here and (existing.st_nlink == 1 if is_hard else not is_link)
        is_rotten = prover.is_rotten(file.status, digest)
        if is_double and is_hard and not is_link and not is_rotten:
            refusal = self.refusal(file)
            if refusal is not None:
                self._keep_copy(file, existing, refusal)
                return
        is_proven = prover.is_proven(file.status if leads_here or is_link else existing, digest)
        if is_proven and not (has_changed or is_double or is_rotten):
            return
        is_published = self._is_published(file)
        try:
            proven = self._prove(file, wait=not is_published, is_served=is_published and leads_here)
        except UnusableError:
            if leads_here and is_link:
                self._remove(file)
            raise
        if proven and not leads_here and not is_link:
            self.link(file, replace=True)

    def _be_rid_of_symbolic(self, file: File) -> None:
        """Replace a symbolic link of a time when no hard one could be made, or of version 0.1, which serves
        until then."""
        try:
            self.link(file, replace=True, replaces=f"{file.place}/{file.name}")
        except WaitingError:
            refusal = self.refusal(file)
            if refusal is not None:
                reason, remedy = why(file.status, refusal, self.path_of(file))
                reason = f"it is served by a symbolic link until there is a copy: {reason}"
                self.unlinked[file.name] = Unlinked("symbolic", printable(self.path_of(file)), reason, remedy)

    def _keep_copy(self, file: File, existing: os.stat_result, refusal: OSError) -> None:
        """The store has a copy of what no link can be made of: are its bytes what its name says?"""
        prover, digest, is_published = self._to.prover, file.blob.digest, self._is_published(file)
        if not prover.is_proven(existing, digest):
            try:
                prover.prove(
                    file.directory,
                    file.image,
                    file.blob,
                    existing,
                    wait=not is_published,
                    is_served=is_published,
                    path=file.place,
                )
            except RottenError:  # its owner may write to it
                self._remove(file)
                self.copy(file, refusal)
                return
        self.is_copy(file, existing, refusal)

    def _is_published(self, file: File) -> bool:
        return (file.image.called, file.image.digest) in self._published

    def _remove(self, file: File) -> None:
        os.unlink(file.name, dir_fd=file.directory)
        self._to.batch.change(file.place)

    def _prove(self, file: File, *, wait: bool, is_served: bool = False) -> bool:
        image, digest, status = file.image, file.blob.digest, file.status
        try:
            return self._to.prover.prove(
                file.source, image, file.blob, status, wait=wait, is_served=is_served
            )
        except RottenError:
            if status.st_nlink > 1:
                self._to.rotten.append(Rotten(file_id(status), digest))
            raise self.is_rotten(file) from None

    def _directory(self, algorithm: str) -> tuple[int, str]:
        """A descriptor of the directory for blobs, and its path."""
        place = f"{self._to.place.path}/{self._name}/.blobs/{algorithm}"
        if algorithm not in self._directories:
            self._to.batch.make(place)
            descriptor = open_inside(self._to.place.path, f"{self._name}/.blobs/{algorithm}")
            self._stack.callback(os.close, descriptor)
            self._directories[algorithm] = descriptor
        return self._directories[algorithm], place

    # -- manifests ---------------------------------------------------------------------------------

    def _manifest(self, source: int, manifest: ManifestFile) -> None:
        place = f"{self._to.place.path}/{self._name}/.manifests/{manifest.media_type.number}"
        self.places.add(place)
        self._to.batch.make(place)
        copy = f"{place}/{manifest.digest.hex}"
        if self._to.batch.has(copy) or _is_copy(copy, manifest):
            return
        raw, _ = read_regular(manifest.file, within=source, limit=MANIFEST_BYTES)
        if Digest.of(raw, manifest.digest.algorithm) != manifest.digest:
            raise changed(f"{manifest.file} is not what it was")
        self._to.batch.write(copy, raw, manifest.digest)


@contextmanager
def _sources(root: int, image: Image, reader: Reader) -> Iterator[Callable[[str], int]]:
    """Opens the directories that content of ``image`` lies in, by its digest."""
    with directories(root, reader=reader) as opened:
        yield lambda algorithm: opened(image.directory(algorithm))


def followed(
    name: str, directory: int, status: os.stat_result, *, place: StorePlace, root: int, reader: Reader
) -> os.stat_result | None:
    """The status of what ``name`` in a directory of the store is, or leads to: a symbolic link is followed as
    nginx would, with its idea of the root translated to ours. ``None`` where that is nothing that ``reader``
    may come to."""
    if not stat.S_ISLNK(status.st_mode):
        return status
    target = os.readlink(name, dir_fd=directory)
    above, _, file = target.removeprefix(f"{place.root_seen_as}/").rpartition("/")
    if not target.startswith(f"{place.root_seen_as}/") or not above:
        return None
    try:
        with open_directory(above, within=root, reader=reader) as source:
            return os.stat(file, dir_fd=source, follow_symlinks=False)
    except OSError as error:
        if may_pass(error):
            raise
        return None


def is_good(status: os.stat_result | None, blob: Descriptor, reader: Reader) -> bool:
    """Whether that is a file of the right size that ``reader`` may read."""
    right = status is not None and stat.S_ISREG(status.st_mode) and status.st_size == blob.size
    return right and status is not None and reader.may_read(status)


def _is_copy(path: str, manifest: ManifestFile) -> bool:
    """Whether ``path`` is our copy, and not a link that somebody put there to save space."""
    status = lstat(path)
    return (
        status is not None
        and stat.S_ISREG(status.st_mode)
        and status.st_size == manifest.size
        and status.st_nlink == 1
        and int(status.st_mtime) == moment(manifest.digest)
    )
