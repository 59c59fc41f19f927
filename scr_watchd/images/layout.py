"""Looks at an OCI layout (image specification, "Image Layout"): its images, and their tags.

A layout is a repository, and its tags are what the descriptors in its index.json are called there.
One whose directory is called NAME:TAG or NAME@DIGEST is that image, whatever it is called inside.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from scr_watchd.files import NotRegularError, Reader, open_directory, read_regular
from scr_watchd.images.directory import MANIFEST, Content, Shelf, examine, kind
from scr_watchd.images.reference import Place, RefusedError
from scr_watchd.oci.catalog import Image, Problem
from scr_watchd.oci.manifest import MANIFEST_BYTES
from scr_watchd.oci.names import Digest, Tag
from scr_watchd.words import copy_again, printable, shell

LAYOUT = "oci-layout"
INDEX = "index.json"
BLOBS = "blobs"
_SHELVES = {"sha256": f"{BLOBS}/sha256", "sha512": f"{BLOBS}/sha512"}

_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]*:(?P<tag>[^:/@]+)(?:@[^@]+)?")

_What = TypeVar("_What", bound=msgspec.Struct)


class PrivateError(RefusedError):
    """A layout with blobs where nginx may not go: a decision of its owner."""


@dataclass(slots=True)
class Found:
    """The complete images of a layout; what is wrong with the others, by the place that messages name;
    and the tag of each image that is not complete."""

    images: list[Image] = field(default_factory=list)
    refused: list[tuple[str, RefusedError]] = field(default_factory=list)
    unfinished: list[Tag | None] = field(default_factory=list)

    def problems(self, owner: int) -> tuple[Problem, ...]:
        return tuple(Problem(printable(place), why.reason, why.remedy, owner) for place, why in self.refused)


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    annotations: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """What the image is called; empty if nothing says so."""
        annotations = self.annotations or {}
        return annotations.get(_NAME) or annotations.get(_FULL_NAME) or ""


class _Index(msgspec.Struct, rename="camel"):
    schema_version: int
    manifests: list[_Descriptor] | None = None  # umoci writes null for none


class _Version(msgspec.Struct, rename="camel"):
    image_layout_version: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """One descriptor of index.json, and its position there, by which commands find it."""

    position: int
    digest: Digest
    size: int
    name: str


def tag_of(name: str) -> Tag | None:
    """The tag in what an image of a layout is called: all of it if that is a tag, else what follows the
    last colon of a reference such as ``HOST:PORT/NAME:TAG@DIGEST``."""
    reference = _REFERENCE.fullmatch(name)
    try:
        return Tag.parse(reference["tag"] if reference else name)
    except ValueError:
        return None


def is_layout(descriptor: int, entries: Mapping[str, os.stat_result]) -> bool:
    """Whether a directory is a layout, or becomes one: skopeo writes ``oci-layout`` late."""
    marker, blobs = entries.get(LAYOUT), entries.get(BLOBS)
    if marker is not None and not stat.S_ISDIR(marker.st_mode):
        return True
    if blobs is None or not stat.S_ISDIR(blobs.st_mode) or MANIFEST in entries:
        return False
    shelf = _lstat(_SHELVES["sha256"], descriptor)
    is_tag = _lstat(f"{_SHELVES['sha256']}/{MANIFEST}", descriptor) is not None  # of a repository `blobs`
    return shelf is not None and stat.S_ISDIR(shelf.st_mode) and not is_tag


def statuses(parent: int, name: str) -> list[os.stat_result]:
    """Of what changes whenever an image of the layout ``name`` comes, goes or is replaced."""
    paths = (LAYOUT, INDEX, BLOBS, *_SHELVES.values())
    found = (_lstat(f"{name}/{path}", parent) for path in paths)
    return [status for status in found if status is not None]


def tags_in(descriptor: int, where: Place, path: str) -> dict[Tag, Digest]:
    """What the layout in the open directory ``descriptor``, which lies at ``where``, says that its tags
    are; ``path`` is the directory as messages show it.

    Raises ``OSError`` or ``RefusedError`` if it cannot be read.
    """
    found = {name: _lstat(name, descriptor) for name in (LAYOUT, INDEX)}
    entries = {name: status for name, status in found.items() if status is not None}
    return Layout(descriptor, entries, where=where, path=path, real="").tags()


def fingerprint(image: Image, shelves: Mapping[str, Shelf]) -> int:
    """Of the files of ``image``. Making a link to a blob changes its ctime: only manifests have one."""
    files: list[tuple[int, ...] | None] = []
    for manifest in image.manifests:
        status = _status(manifest.digest, shelves)
        files.append(status and (status.st_ctime_ns, *_identity(status)))
    for blob in image.blobs:
        status = _status(blob.digest, shelves)
        files.append(status and _identity(status))
    return hash(tuple(files))


def changed_ns(image: Image, shelves: Mapping[str, Shelf]) -> int:
    """When one of its manifests was changed last, in nanoseconds since 1970."""
    return max(shelves["sha256"].entries[manifest.file].st_ctime_ns for manifest in image.manifests)


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
                    found[algorithm] = Shelf(shelf, _listing(shelf))
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
        entries = self._index(found)
        for entry, tag in self._named(entries, found):
            progress()
            try:
                found.images.append(self._image(entry, tag, shelves, reader, spend))
            except RefusedError as refused:
                found.refused.append((self._place(tag), refused))
                found.unfinished.append(tag)
        if self._is_repository and not any(entry.name for entry in entries):
            referrers = {each.digest for each in found.images if each.manifests[0].referral}
            if nameless := [each for each in entries if each.digest not in referrers]:
                found.refused.append((self._path, self._nameless(nameless)))
        return found

    def tags(self) -> dict[Tag, Digest]:
        """The tags, complete or not. Raises like ``look``."""
        nobody = Found()
        named = self._named(self._index(nobody), nobody)
        return {tag: entry.digest for entry, tag in named if tag is not None}

    # -- what is written in it -----------------------------------------------------------------------

    def _index(self, found: Found) -> list[_Entry]:
        if LAYOUT not in self._entries:
            raise RefusedError(
                f"it has blobs and no {LAYOUT}: a copy is under way, or was broken off", self._again()
            )
        version = self._decode(LAYOUT, _Version).image_layout_version
        if not version.startswith("1."):
            raise RefusedError(
                f"it is an OCI layout of version {printable(version[:20])}, and 1.0.0 is what is read",
                self._again(),
            )
        entries = []
        for position, raw in enumerate(self._decode(INDEX, _Index).manifests or ()):
            try:
                entries.append(_Entry(position, Digest.parse(raw.digest), raw.size, raw.name))
            except ValueError as error:
                reason = f"its {INDEX} names {raw.digest[:100]!a}: {error}"
                found.refused.append((self._path, RefusedError(reason, self._without(position))))
        return entries

    def _decode(self, file: str, what: type[_What]) -> _What:
        if file not in self._entries:
            raise RefusedError(f"it has no {file}: a copy is under way, or was broken off", self._again())
        try:
            raw, _ = read_regular(file, within=self._descriptor, limit=MANIFEST_BYTES)
        except NotRegularError as error:
            raise RefusedError(f"its {file} cannot be used: {error.strerror}", self._again()) from error
        except PermissionError as error:
            raise RefusedError(f"scr-watchd may not read its {file}", self._permit()) from error
        try:
            return msgspec.json.decode(raw, type=what)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            why = printable(str(error)) if raw.strip() else "a copy is under way, or was broken off"
            raise RefusedError(f"its {file} cannot be used: {why}", self._again()) from error

    # -- names ---------------------------------------------------------------------------------------

    def _named(self, entries: list[_Entry], found: Found) -> list[tuple[_Entry, Tag | None]]:
        """Each image with each of its tags, and those that have none once."""
        if self._where.digest is not None:
            return [(self._by_digest(entries, self._where.digest), None)]
        if self._where.tag is not None:
            named = self._single(entries, self._where.tag)
        else:
            named = list(self._by_name(entries, found))
        tagged = {entry.digest for entry, _ in named}
        # what a tag named before: skopeo leaves it there without a name
        rest = {each.digest: each for each in entries if not each.name and each.digest not in tagged}
        return [*named, *((entry, None) for entry in rest.values())]

    def _by_digest(self, entries: Iterable[_Entry], digest: Digest) -> _Entry:
        for entry in entries:
            if entry.digest == digest:
                return entry
        raise RefusedError(f"its {INDEX} does not name {digest}", self._again())

    def _single(self, entries: list[_Entry], tag: Tag) -> list[tuple[_Entry, Tag | None]]:
        named = [entry for entry in entries if entry.name]
        images = {entry.digest: entry for entry in named or entries}
        if len(images) > 1:
            raise RefusedError(
                f"its name has a tag, and it holds {len(images)} images",
                "Name it as a repository; then their tags are what they are called in it: "
                f"mv {shell(self._path)} {shell(self._free_name())}",
            )
        return [(entry, tag) for entry in images.values()]

    def _by_name(self, entries: Iterable[_Entry], found: Found) -> Iterator[tuple[_Entry, Tag | None]]:
        seen: dict[Tag, Digest] = {}
        for entry in entries:
            tag = tag_of(entry.name)
            if tag is not None and tag not in seen:
                seen[tag] = entry.digest
                yield entry, tag
            elif tag is not None and seen[tag] != entry.digest:
                reason = f"{self._where.repository}:{tag} is there twice in its {INDEX}, as another image"
                found.refused.append((self._place(tag), RefusedError(reason, self._without(entry.position))))
            elif tag is None and entry.name:
                reason = f"{entry.digest} is called {entry.name[:100]!a} in it, which names no tag"
                remedy = self._call(entry, _like_a_tag(entry))
                found.refused.append((self._path, RefusedError(reason, remedy)))

    def _nameless(self, entries: list[_Entry]) -> RefusedError:
        images = {entry.digest for entry in entries}
        first = entries[0]
        reason = (
            f"{first.digest} has no name in it, and can be pulled by digest only"
            if len(images) == 1
            else f"its {len(images)} images have no names in it, and can be pulled by digest only"
        )
        is_alone = all(not _is_directory(each) for name, each in self._entries.items() if name != BLOBS)
        tagged = f"{self._path}:latest"
        if len(images) == 1 and is_alone and not os.path.lexists(tagged):
            return RefusedError(reason, f"Name it: mv {shell(self._path)} {shell(tagged)}")
        return RefusedError(reason, self._call(first, "latest"))

    # -- images --------------------------------------------------------------------------------------

    def _image(
        self,
        entry: _Entry,
        tag: Tag | None,
        shelves: Mapping[str, Shelf],
        reader: Reader,
        spend: Callable[[int], None],
    ) -> Image:
        if entry.digest.algorithm != "sha256":
            raise RefusedError(
                f"its manifest {entry.digest} is not named by a sha256 digest", self._without(entry.position)
            )
        skopeo = f"oci:{self._path}:{tag or 'TAG'}" if self._is_repository else f"dir:{self._path}"
        content = Content(self._path, skopeo, shelves, is_layout=True)
        try:
            manifests, blobs = examine(
                content,
                entry.digest.hex,
                reader=reader,
                digest=entry.digest,
                size=entry.size,
                spend=spend,
            )
        except OSError as error:
            raise RefusedError(
                f"manifest {entry.digest}, or one below it, cannot be read: {error.strerror}", self._again()
            ) from error
        image = Image(self._real, self._where.repository, tag, manifests, blobs, owner=self._owner)
        return replace(image, files=fingerprint(image, shelves))

    def _demand_open(self, where: str, reader: Reader) -> bool:
        """Whether the directory ``where`` is there, and in order."""
        status = _lstat(where, self._descriptor)
        if status is None:
            return False
        if not _is_directory(status):
            remedy = f"Remove that, and copy again: rm {shell(f'{self._path}/{where}')}; {self._copy()}"
            raise RefusedError(f"its {where} is {kind(status)}, not a directory", remedy)
        if not reader.may_enter(status):
            mode = stat.S_IMODE(status.st_mode)
            raise PrivateError(f"nginx may not enter its {where} (mode {mode:04o})", self._permit())
        return True

    # -- what to do ----------------------------------------------------------------------------------

    def _place(self, tag: Tag | None) -> str:
        """What messages call an image, as skopeo would, and as ``Image.place`` does."""
        return f"{self._path}:{tag}" if self._is_repository and tag is not None else self._path

    def _permit(self) -> str:
        return f"Permit it: chmod -R go+rX {shell(self._path)}"

    def _again(self) -> str:
        return f"Wait for the copy to end, or repeat it: {self._copy()}"

    def _copy(self) -> str:
        if self._is_repository:
            return copy_again(f"oci:{self._path}:TAG")
        # skopeo cannot write a layout with a colon in its name
        return copy_again(f"dir:{self._path}", stale=self._path)

    def _free_name(self) -> str:
        parent, _, leaf = self._path.rpartition("/")
        name = f"{parent}/{leaf.partition(':')[0]}"
        return f"{name}-layout" if os.path.lexists(name) else name

    def _call(self, entry: _Entry, tag: str) -> str:
        entry_is = f"(.manifests[{entry.position}]|select(.digest=={json.dumps(entry.digest)}))"
        return f"Name it: {self._edit(f'{entry_is}.annotations[{json.dumps(_NAME)}]={json.dumps(tag)}')}"

    def _without(self, position: int) -> str:
        return f"Remove it: {self._edit(f'del(.manifests[{position}])')}"

    def _edit(self, change: str) -> str:
        index, new = f"{self._path}/{INDEX}", f"{self._path}/.{INDEX}.new"
        return f"jq -c {shell(change)} {shell(index)} >{shell(new)} && mv {shell(new)} {shell(index)}"


def _like_a_tag(entry: _Entry) -> str:
    """A tag that looks like the name of ``entry``."""
    reference = entry.name.partition("@")[0]
    name, colon, tag = reference.rpartition(":")
    wanted = tag if colon and name else "latest" if "/" in reference else reference
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", wanted).strip(".-")[:128] or entry.digest.hex[:12]


def _listing(descriptor: int) -> dict[str, os.stat_result]:
    found = {}
    with os.scandir(descriptor) as entries:
        for entry in entries:
            try:
                found[entry.name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went away meanwhile
    return found


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


def _is_directory(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode)


def _lstat(path: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None  # not there, or not for us to see: opening it will tell
