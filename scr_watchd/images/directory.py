"""Looks at one image: is everything there that its manifest needs?"""

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from scr_watchd.files import NotRegularError, Reader, read_regular
from scr_watchd.images.mistakes import is_archive, not_json, unpacked
from scr_watchd.images.moves import LAYOUT, has_others
from scr_watchd.images.reference import RefusedError
from scr_watchd.oci.catalog import Image, ManifestFile
from scr_watchd.oci.manifest import MANIFEST_BYTES, Descriptor, Manifest, ManifestError, foreign, parse
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.words import copy_again, printable, shell

MANIFEST = "manifest.json"
_LARGE_BYTES = 1 << 20
_MANIFESTS_BYTES = 4 * MANIFEST_BYTES  # of one image, with all that its indexes name


@dataclass(frozen=True, slots=True)
class Shelf:
    """An open directory of content, and its entries with their ``lstat``."""

    descriptor: int
    entries: Mapping[str, os.stat_result]

    @classmethod
    def of(cls, descriptor: int) -> "Shelf":
        found = {}
        with os.scandir(descriptor) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it went away meanwhile
                    found[entry.name] = entry.stat(follow_symlinks=False)
        return cls(descriptor, found)


@dataclass(frozen=True, slots=True)
class Content:
    """The files that an image is looked for in: by the algorithm of their digests, the shelves they lie on.

    A manifest that an index names is a file of its hex digits and ``suffix``. ``path`` is the image's
    directory, as messages show it, and ``skopeo`` what skopeo calls the image.
    """

    path: str
    skopeo: str
    shelves: Mapping[str, Shelf]
    suffix: str = ""
    is_layout: bool = False

    def status(self, file: str, algorithm: str = "sha256") -> os.stat_result | None:
        shelf = self.shelves.get(algorithm)
        return None if shelf is None else shelf.entries.get(file)

    def copy(self, options: str = "", *, instead_of: str = "") -> str:
        """The command that copies the image again, ``instead_of`` a file that is at fault."""
        is_directory = self.skopeo.startswith("dir:")
        if is_directory and has_others(self.path):  # skopeo would remove them
            parent, _, leaf = self.path.rpartition("/")
            new = f"{parent}/.new-{leaf}"
            remove = f"rm -r {' '.join(shell(f'{self.path}/{each}') for each in LAYOUT)} && "
            return (
                f"{copy_again(f'dir:{new}', options=options)} && {remove if self.is_layout else ''}"
                f"mv {shell(new)}/* {shell(self.path)}/ && rmdir {shell(new)}"
            )
        stale = f"{self.path}/{instead_of}" if self.is_layout and instead_of else ""
        if self.is_layout and is_directory:
            stale = self.path
        return copy_again(self.skopeo, options=options, stale=stale)


def tag_directory(shelf: Shelf, path: str) -> Content:
    """What lies in skopeo's ``dir:`` form: everything in one directory."""
    shelves = dict.fromkeys(("sha256", "sha512"), shelf)
    return Content(path, f"dir:{path}", shelves, suffix=f".{MANIFEST}")


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image is made of, as ``Image`` has it."""

    manifests: tuple[ManifestFile, ...]
    blobs: tuple[Descriptor, ...]
    platforms: tuple[str, ...]
    absent: tuple[Descriptor, ...]

    def image(
        self,
        path: str,
        repository: RepositoryName,
        tag: Tag | None,
        *,
        files: int = 0,
        owner: int,
        link: str = "",
        below: str = "",
    ) -> Image:
        return Image(
            path,
            repository,
            tag,
            self.manifests,
            self.blobs,
            files,
            owner,
            link,
            self.platforms,
            self.absent,
            below,
        )


def examine(
    content: Content,
    first: str,
    *,
    reader: Reader,
    digest: Digest | None = None,
    size: int | None = None,
    spend: Callable[[int], None] = lambda _: None,
) -> Contents:
    """The manifests, the image's own first, and the blobs of the image whose manifest is ``first``.

    Raises ``RefusedError`` unless every manifest and blob is a regular file of exactly the declared size
    that ``reader`` may read, and every manifest has its digest (and the first one ``digest`` and
    ``size``). Of the children of an index one must be there; others may be absent. ``spend`` is told the size
    of each manifest before it is read, and may raise it too.
    """
    return _Examination(content, reader, spend).image(first, digest, size)


def last_change(*directories: int) -> int:
    """When something changed last in open directories that a copy may be under way in, in nanoseconds
    since 1970. Making a link to a file changes its ctime, and that of no directory."""
    found = []
    for directory in directories:
        found.append(os.fstat(directory).st_ctime_ns)
        with os.scandir(directory) as entries:  # of all: a temporary name may be all that changes
            for entry in entries:
                with suppress(FileNotFoundError):
                    found.append(entry.stat(follow_symlinks=False).st_mtime_ns)
    return max(found)


class _Examination:
    def __init__(self, content: Content, reader: Reader, spend: Callable[[int], None]) -> None:
        self._spend = spend
        self._content = content
        self._reader = reader
        self._manifests: dict[Digest, ManifestFile] = {}
        self._children: dict[Digest, Descriptor] = {}
        self._queue: list[Descriptor] = []
        self._blobs: dict[Digest, Descriptor] = {}
        self._platforms: list[str] = []
        self._absent: list[Descriptor] = []
        self._read_bytes = 0

    def image(self, first: str, expected: Digest | None, size: int | None) -> Contents:
        if size is not None and expected is not None:
            self._demand(first, size, f"manifest {expected}", expected.algorithm, is_manifest=True)
        self._manifest(first, expected)
        for child in self._queue:  # grows while indexes are found in indexes, at any depth
            self._child(child)
        blobs = [blob for blob in self._blobs.values() if self._present(blob)]
        return Contents(
            tuple(self._manifests.values()), tuple(blobs), tuple(self._platforms), tuple(self._absent)
        )

    def _manifest(self, file: str, expected: Digest | None) -> Manifest:
        algorithm = expected.algorithm if expected is not None else "sha256"
        raw = self._read(file, algorithm)
        self._demand_json(file, raw, algorithm)
        digest = Digest.of(raw, algorithm)
        if expected is not None and digest != expected:
            raise RefusedError(
                f"{file} has digest {digest}, not {expected}: it was damaged or changed", self._repeat(file)
            )
        manifest = self._parse(file, raw)
        referral = manifest.referral
        if not self._manifests and algorithm != "sha256":  # what a tag leads to has a sha256 digest too
            own = Digest.of(raw)
            self._manifests[own] = ManifestFile(
                own, manifest.media_type, len(raw), file, referral, named_by=algorithm
            )
            referral = None
        self._manifests[digest] = ManifestFile(digest, manifest.media_type, len(raw), file, referral)
        for blob in manifest.blobs:
            self._add_blob(blob)
        for child in manifest.manifests:
            self._add_child(child)
        platforms = [each for each in manifest.manifests if not each.optional] or manifest.manifests
        if platforms and not any(self._status_of_child(each) for each in platforms):
            raise RefusedError(
                f"{file} is an index, and nothing is there of what it names",
                f"Wait for the copy to end, or repeat it: {self._content.copy('--all ')}",
            )
        return manifest

    def _add_child(self, child: Descriptor) -> None:
        known = self._children.get(child.digest)
        if known is None:
            self._children[child.digest] = child
            self._queue.append(child)
        elif known.size != child.size:
            raise RefusedError(f"two of its indexes give {child.digest} different sizes", self._repeat())

    def _child(self, child: Descriptor) -> None:
        file = child.digest.hex + self._content.suffix
        if self._status_of_child(child) is None:
            if not child.optional:
                self._absent.append(child)
            return
        self._demand(file, child.size, f"manifest {child.digest}", child.digest.algorithm, is_manifest=True)
        if not self._manifest(file, child.digest).manifests and not child.optional:
            self._platforms.append(child.called)

    def _status_of_child(self, child: Descriptor) -> os.stat_result | None:
        return self._content.status(child.digest.hex + self._content.suffix, child.digest.algorithm)

    def _add_blob(self, blob: Descriptor) -> None:
        known = self._blobs.get(blob.digest, blob)
        if known.size != blob.size:
            raise RefusedError(f"two of its manifests give {blob.digest} different sizes", self._repeat())
        self._blobs[blob.digest] = known if blob.optional else blob

    def _present(self, blob: Descriptor) -> bool:
        if self._status(blob) is not None:
            self._demand(blob.digest.hex, blob.size, f"blob {blob.digest}", blob.digest.algorithm)
            return True
        if blob.optional:
            return False
        missing = [each for each in self._blobs.values() if self._status(each) is None]
        count = f" ({len(missing)} of {len(self._blobs)} blobs are)" if len(self._blobs) > 1 else ""
        raise RefusedError(f"blob {blob.digest} is missing{count}", self._repeat())

    def _status(self, blob: Descriptor) -> os.stat_result | None:
        return self._content.status(blob.digest.hex, blob.digest.algorithm)

    def _demand_json(self, file: str, raw: bytes, algorithm: str) -> None:
        if what := foreign(raw):
            at_fault = f"blobs/{algorithm}/{file}" if self._content.is_layout else file
            copy = self._content.copy(instead_of=at_fault)
            raise not_json(f"{self._content.path}/{at_fault}", what, copy)

    def _demand(
        self, file: str, size: int, what: str, algorithm: str = "sha256", *, is_manifest: bool = False
    ) -> None:
        status = self._content.status(file, algorithm)
        if status is None:
            raise RefusedError(f"{what} is missing", self._repeat())
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{what} is {kind(status)}, not a regular file", self._repeat(file, algorithm))
        if status.st_size != size:
            if is_manifest:
                self._demand_json(file, self._read(file, algorithm), algorithm)
            raise RefusedError(
                f"{what} has {status.st_size} bytes instead of {size}: it is cut off, or still being copied",
                self._repeat(file, algorithm),
            )
        self._permit(file, status)

    def _permit(self, file: str, status: os.stat_result) -> None:
        if not self._reader.may_read(status):
            raise RefusedError(
                f"nginx may not read {file} (mode {stat.S_IMODE(status.st_mode):04o})",
                permit(self._content.path),
            )

    def _read(self, file: str, algorithm: str) -> bytes:
        shelf = self._content.shelves[algorithm]
        status = shelf.entries[file]
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{file} is {kind(status)}, not a regular file", self._repeat(file))
        self._permit(file, status)
        self._read_bytes += status.st_size
        if self._read_bytes > _MANIFESTS_BYTES:
            raise RefusedError(
                f"its manifests have more than {_MANIFESTS_BYTES >> 20} MiB together",
                "Make it smaller",
            )
        self._spend(status.st_size)
        try:
            raw, _ = read_regular(file, within=shelf.descriptor, limit=MANIFEST_BYTES)
        except NotRegularError as error:
            raise RefusedError(f"{file} cannot be used: {error.strerror}", self._repeat(file)) from error
        except PermissionError as error:
            raise RefusedError(f"scr-watchd may not read {file}", permit(self._content.path)) from error
        return raw

    def _parse(self, file: str, raw: bytes) -> Manifest:
        try:
            return _parse_large(raw) if len(raw) > _LARGE_BYTES else parse(raw)
        except ManifestError as error:
            if is_archive(raw):
                raise unpacked(self._content.path) from error
            remedy = (
                f"Convert it: {self._content.copy('--format v2s2 ')}"
                if "schema 1" in str(error)
                else self._repeat(file)
            )
            raise RefusedError(f"{file} cannot be used: {printable(str(error))}", remedy) from error

    def _repeat(self, file: str = "", algorithm: str = "sha256") -> str:
        at_fault = f"blobs/{algorithm}/{file}" if file else ""
        return f"Wait for the copy to end, or repeat it: {self._content.copy(instead_of=at_fault)}"


_parse_large = lru_cache(maxsize=1)(parse)  # whoever links one into many tags has it parsed once


def permit(path: str) -> str:
    return f"Permit it: chmod -R go+rX {shell(path)}"


def kind(status: os.stat_result) -> str:
    """What a file that should be a regular one is instead."""
    for test, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(status.st_mode):
            return name
    return "a device"
