"""Looks at an OCI layout (image specification, "Image Layout"): its images, and their tags.

A layout is a repository, and its tags are what the descriptors in its index.json are called there; or several
repositories, as ``naming`` has it. One whose directory is called NAME:TAG or NAME@DIGEST is that image,
whatever it is called inside.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from scr_watchd.files import NotRegularError, Reader, open_directory, read_regular
from scr_watchd.images.directory import MANIFEST, Content, Shelf, examine, kind, last_change, permit
from scr_watchd.images.mistakes import not_json
from scr_watchd.images.naming import (
    INDEX,
    NAME,
    Entry,
    Listed,
    Named,
    Names,
    names,
    with_homes,
    without,
    without_names,
)
from scr_watchd.images.reference import Place, RefusedError
from scr_watchd.oci.catalog import Image, Problem, Reference, label
from scr_watchd.oci.manifest import MANIFEST_BYTES, ManifestError, foreign, parse
from scr_watchd.oci.names import Digest, Tag
from scr_watchd.words import copy_again, printable, shell

LAYOUT = "oci-layout"
BLOBS = "blobs"
_SHELVES = {"sha256": f"{BLOBS}/sha256", "sha512": f"{BLOBS}/sha512"}

_What = TypeVar("_What", bound=msgspec.Struct)


class PrivateError(RefusedError):
    """A layout with blobs where nginx may not go: a decision of its owner."""


@dataclass(slots=True)
class Found:
    """The complete images of a layout; what is wrong with the others, by the place that messages name;
    and the tag of each image that is not complete."""

    images: list[Image] = field(default_factory=list)
    refused: list[tuple[str, RefusedError]] = field(default_factory=list)
    unfinished: list[Reference] = field(default_factory=list)

    def problems(self, owner: int) -> tuple[Problem, ...]:
        return tuple(Problem(printable(place), why.reason, why.remedy, owner) for place, why in self.refused)


class _Index(msgspec.Struct, rename="camel"):
    schema_version: int
    manifests: list[Listed] | None = None  # umoci writes null for none


class _Version(msgspec.Struct, rename="camel"):
    image_layout_version: str


def is_layout(descriptor: int, entries: Mapping[str, os.stat_result]) -> bool:
    """Whether a directory is a layout, or becomes one: skopeo writes ``oci-layout`` late."""
    marker, blobs = entries.get(LAYOUT), entries.get(BLOBS)
    if marker is not None and not stat.S_ISDIR(marker.st_mode):
        return True
    if blobs is None or not stat.S_ISDIR(blobs.st_mode) or MANIFEST in entries:
        return False
    shelf = lstat(_SHELVES["sha256"], descriptor)
    is_tag = lstat(f"{_SHELVES['sha256']}/{MANIFEST}", descriptor) is not None  # of a repository `blobs`
    return shelf is not None and stat.S_ISDIR(shelf.st_mode) and not is_tag


def statuses(parent: int, name: str) -> list[os.stat_result]:
    """Of what changes whenever an image of the layout ``name`` comes, goes or is replaced."""
    found = (lstat(f"{name}/{path}", parent) for path in (LAYOUT, INDEX, BLOBS, *_SHELVES.values()))
    return [status for status in found if status is not None]


def tags_in(descriptor: int, where: Place, path: str) -> dict[Reference, Digest]:
    """What the layout in the open directory ``descriptor``, which lies at ``where``, says that its tags
    are; ``path`` is the directory as messages show it.

    Raises ``OSError`` or ``RefusedError`` if it cannot be read.
    """
    found = {name: lstat(name, descriptor) for name in (LAYOUT, INDEX)}
    entries = {name: status for name, status in found.items() if status is not None}
    return Layout(descriptor, entries, where=where, path=path, real="").tags()


def fingerprint(image: Image, shelves: Mapping[str, Shelf]) -> int:
    """Of the files of ``image``. Making a link to a blob changes its ctime: only manifests have one."""
    files: list[tuple[int, ...] | None] = []
    for manifest in image.manifests:
        shelf = shelves.get(manifest.algorithm)
        status = shelf.entries.get(manifest.file) if shelf else None
        files.append(status and (status.st_ctime_ns, *_identity(status)))
    for blob in image.blobs:
        status = _status(blob.digest, shelves)
        files.append(status and _identity(status))
    return hash(tuple(files))


def changed_ns(image: Image, shelves: Mapping[str, Shelf]) -> int:
    """When one of its manifests was changed last, in nanoseconds since 1970."""
    return max(shelves[each.algorithm].entries[each.file].st_ctime_ns for each in image.manifests)


class Layout:
    """The layout in the open directory ``descriptor``, which lies at ``where``.

    ``path`` is the directory as messages show it, and ``real`` relative to the root, without symbolic
    links. Nothing is read before it is asked for.
    """

    def __init__(
        self,
        descriptor: int,
        entries: Mapping[str, os.stat_result],
        *,
        where: Place,
        path: str,
        real: str,
        owner: int = 0,
    ) -> None:
        self._descriptor = descriptor
        self._entries = entries
        self._where = where
        self._path = path
        self._real = real
        self._owner = owner
        self._is_repository = where.tag is None and where.digest is None

    @contextmanager
    def shelves(self, reader: Reader) -> Iterator[dict[str, Shelf]]:
        """The blobs, for as long as they are looked at.

        Raises ``RefusedError`` if they lie elsewhere, and ``PrivateError`` if they lie where ``reader``
        may not go: a link to one of them must not publish a private directory.
        """
        with ExitStack() as stack:
            found = {}
            self._demand_open(BLOBS, reader)
            for algorithm, where in _SHELVES.items():
                if self._demand_open(where, reader):
                    shelf = stack.enter_context(open_directory(where, within=self._descriptor))
                    found[algorithm] = Shelf.of(shelf)
            yield found

    def look(
        self,
        shelves: Mapping[str, Shelf],
        *,
        reader: Reader,
        progress: Callable[[], None],
        spend: Callable[[int], None] = lambda _: None,
    ) -> Found:
        """At every image. Raises ``RefusedError`` if what it holds, or which of it is meant, is unknown."""
        found = Found()
        made = self._names(found)
        nameless: list[Image] = []
        rest = [Named(entry, self._where.repository, None) for entry in made.nameless]
        for images, every in ((found.images, made.named), (nameless, rest)):
            for each in every:
                progress()
                try:
                    images.append(self._image(each, shelves, reader, spend))
                except RefusedError as refused:
                    found.refused.append((self._place(each), refused))
                    if each.tag is not None:
                        found.unfinished.append((each.repository, each.tag))
        found.images += with_homes(nameless, found.images)
        if self._is_repository and not made.named and not made.refused:
            referrers = {each.digest for each in nameless if each.manifests[0].referral}
            if entries := [each for each in made.nameless if each.digest not in referrers]:
                may_move = all(
                    not stat.S_ISDIR(each.st_mode) for name, each in self._entries.items() if name != BLOBS
                )
                found.refused.append((self._path, without_names(entries, self._path, may_move=may_move)))
        return found

    def tags(self) -> dict[Reference, Digest]:
        """The tags, complete or not, and their sha256 digests. Raises like ``look``."""
        named = {(each.repository, each.tag): each.entry.digest for each in self._names(Found()).named}
        return {
            (name, tag): digest if digest.algorithm == "sha256" else Digest.of(self._manifest(digest) or b"")
            for (name, tag), digest in named.items()
            if tag is not None
        }

    def last_change(self, shelves: Mapping[str, Shelf]) -> int:
        """When something changed last in it, as ``directory.last_change`` says."""
        with open_directory(BLOBS, within=self._descriptor) as blobs:
            return last_change(self._descriptor, blobs, *(each.descriptor for each in shelves.values()))

    # -- what is written in it -----------------------------------------------------------------------

    def _index(self, found: Found) -> list[Entry]:
        if LAYOUT not in self._entries:
            raise RefusedError(
                f"it has blobs and no {LAYOUT}: a copy is under way, or was broken off", self._again()
            )
        version = self._decode(LAYOUT, _Version).image_layout_version
        if not version.startswith("1."):
            version = printable(version[:20])
            raise RefusedError(f"it is an OCI layout of version {version}, and 1.0.0 is read", self._again())
        entries = []
        for position, raw in enumerate(self._decode(INDEX, _Index).manifests or ()):
            try:
                entries.append(Entry.of(position, raw))
            except ValueError as error:
                reason = f"its {INDEX} names {raw.digest[:100]!a}: {error}"
                remedy = without(self._path, position, raw.digest)
                found.refused.append((self._path, RefusedError(reason, remedy)))
        return entries

    def _decode(self, file: str, what: type[_What]) -> _What:
        if file not in self._entries:
            raise RefusedError(f"it has no {file}: a copy is under way, or was broken off", self._again())
        try:
            raw = read_regular(file, within=self._descriptor, limit=MANIFEST_BYTES)[0]
        except NotRegularError as error:
            raise RefusedError(f"its {file} cannot be used: {error.strerror}", self._again()) from error
        except PermissionError as error:
            raise RefusedError(f"scr-watchd may not read its {file}", permit(self._path)) from error
        if wrong := foreign(raw):
            raise not_json(f"{self._path}/{file}", wrong, self._copy())
        try:
            return msgspec.json.decode(raw, type=what)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            why = printable(str(error)) if raw.strip() else "a copy is under way, or was broken off"
            raise RefusedError(f"its {file} cannot be used: {why}", self._again()) from error

    # -- names ---------------------------------------------------------------------------------------

    def _names(self, found: Found) -> Names:
        entries = self._index(found)
        if self._where.digest is not None:
            entry = self._by_digest(entries, self._where.digest)
            return Names([Named(entry, self._where.repository, None)])
        made = names(entries, self._where, self._path, refers=self._refers)
        found.refused += [(f"{self._path}:{name}" if name else self._path, why) for name, why in made.refused]
        return made

    def _by_digest(self, entries: Iterable[Entry], digest: Digest) -> Entry:
        for entry in entries:
            if entry.digest == digest:
                return entry
        raise RefusedError(f"its {INDEX} does not name {digest}", self._again())

    def _refers(self, entry: Entry) -> bool:
        """Whether its manifest, as far as it can be read, is about another one."""
        try:
            return parse(self._manifest(entry.digest) or b"").referral is not None
        except ManifestError:
            return False

    def _manifest(self, digest: Digest) -> bytes | None:
        try:
            with open_directory(_SHELVES[digest.algorithm], within=self._descriptor) as shelf:
                return read_regular(digest.hex, within=shelf, limit=MANIFEST_BYTES)[0]
        except OSError:
            return None

    # -- images --------------------------------------------------------------------------------------

    def _image(
        self, named: Named, shelves: Mapping[str, Shelf], reader: Reader, spend: Callable[[int], None]
    ) -> Image:
        entry = named.entry
        file, size = entry.digest.hex, entry.size
        content = Content(self._path, self._skopeo(named), shelves, is_layout=True)
        try:
            found = examine(content, file, reader=reader, digest=entry.digest, size=size, spend=spend)
        except OSError as error:
            raise RefusedError(
                f"manifest {entry.digest}, or one below it, cannot be read: {error.strerror}", self._again()
            ) from error
        image = found.image(self._real, named.repository, named.tag, owner=self._owner, below=named.below)
        return replace(image, files=fingerprint(image, shelves))

    def _demand_open(self, where: str, reader: Reader) -> bool:
        """Whether the directory ``where`` is there, and in order."""
        status = lstat(where, self._descriptor)
        if status is None:
            return False
        if not stat.S_ISDIR(status.st_mode):
            remedy = f"Remove that, and copy again: rm {shell(f'{self._path}/{where}')}; {self._copy()}"
            raise RefusedError(f"its {where} is {kind(status)}, not a directory", remedy)
        if not reader.may_enter(status):
            mode = stat.S_IMODE(status.st_mode)
            raise PrivateError(f"nginx may not enter its {where} (mode {mode:04o})", permit(self._path))
        return True

    # -- what to do ----------------------------------------------------------------------------------

    def _place(self, named: Named) -> str:
        """What messages call an image, as skopeo would, and as ``Image.place`` does."""
        if not self._is_repository or (named.tag is None and not named.below):
            return self._path
        return f"{self._path}:{label(named.below, named.tag, named.entry.digest)}"

    def _skopeo(self, named: Named) -> str:
        if not self._is_repository:
            return f"dir:{self._path}"
        if named.below and named.entry.named_by == NAME:
            return f"oci:{self._path}:{named.entry.name}"
        return f"oci:{self._path}:{label(named.below, named.tag or Tag('TAG'), named.entry.digest)}"

    def _again(self) -> str:
        return f"Wait for the copy to end, or repeat it: {self._copy()}"

    def _copy(self) -> str:
        if self._is_repository:
            return copy_again(f"oci:{self._path}:TAG")
        return copy_again(f"dir:{self._path}", stale=self._path)  # skopeo writes no layout with a colon


def _status(digest: Digest, shelves: Mapping[str, Shelf]) -> os.stat_result | None:
    shelf = shelves.get(digest.algorithm)
    return shelf.entries.get(digest.hex) if shelf else None


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
    )


def lstat(path: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None  # not there, or not for us to see: opening it will tell
