"""Looks at one tag directory: is everything there that its manifest needs?"""

import os
import stat
from collections.abc import Mapping
from hashlib import sha256

from scr_watchd.files import NotRegularError, Reader, read_regular
from scr_watchd.images.reference import RefusedError
from scr_watchd.oci.catalog import ManifestFile
from scr_watchd.oci.manifest import MANIFEST_BYTES, Descriptor, Manifest, ManifestError, parse
from scr_watchd.oci.names import Digest
from scr_watchd.words import printable, shell

MANIFEST = "manifest.json"


def examine(
    directory: int,
    entries: Mapping[str, os.stat_result],
    *,
    path: str,
    reader: Reader,
    digest: Digest | None = None,
) -> tuple[tuple[ManifestFile, ...], tuple[Descriptor, ...]]:
    """The manifests, the image's own first, and the blobs of the image in ``directory``.

    ``entries`` are the directory's files with their ``lstat``; ``path`` is for messages. Raises
    ``RefusedError`` unless every manifest and blob is a regular file of exactly the declared size
    that ``reader`` may read, and every manifest has its digest (and the first one ``digest``).
    """
    return _Examination(directory, entries, path, reader).image(digest)


class _Examination:
    def __init__(
        self, directory: int, entries: Mapping[str, os.stat_result], path: str, reader: Reader
    ) -> None:
        self._directory = directory
        self._entries = entries
        self._path = path
        self._reader = reader
        self._manifests: dict[Digest, ManifestFile] = {}
        self._children: dict[Digest, Descriptor] = {}
        self._queue: list[Descriptor] = []
        self._blobs: dict[Digest, Descriptor] = {}

    def image(self, expected: Digest | None) -> tuple[tuple[ManifestFile, ...], tuple[Descriptor, ...]]:
        self._manifest(MANIFEST, expected)
        for child in self._queue:  # grows while indexes are found in indexes, at any depth
            self._child(child)
        blobs = [blob for blob in self._blobs.values() if self._present(blob)]
        return tuple(self._manifests.values()), tuple(blobs)

    def _manifest(self, file: str, expected: Digest | None) -> None:
        raw = self._read(file)
        digest = Digest(f"sha256:{sha256(raw).hexdigest()}")
        if expected is not None and digest != expected:
            raise RefusedError(
                f"{file} has digest {digest}, not {expected}: it was damaged or changed", self._repeat()
            )
        manifest = self._parse(file, raw)
        self._manifests[digest] = ManifestFile(digest, manifest.media_type, len(raw), file, manifest.referral)
        for blob in manifest.blobs:
            self._add_blob(blob)
        for child in manifest.manifests:
            self._add_child(child)

    def _add_child(self, child: Descriptor) -> None:
        known = self._children.get(child.digest)
        if known is None:
            self._children[child.digest] = child
            self._queue.append(child)
        elif known.size != child.size:
            raise RefusedError(f"two of its indexes give {child.digest} different sizes", self._repeat())

    def _child(self, child: Descriptor) -> None:
        if child.digest.algorithm != "sha256":
            raise RefusedError(f"its manifest {child.digest} is not named by a sha256 digest", self._repeat())
        file = f"{child.digest.hex}.{MANIFEST}"
        if file not in self._entries:
            raise RefusedError(
                f"the index names {child.digest}, and {file} is not there",
                f"Copy every platform: {self._copy('--all ')}",
            )
        self._demand(file, child.size, f"manifest {child.digest}")
        self._manifest(file, child.digest)

    def _add_blob(self, blob: Descriptor) -> None:
        known = self._blobs.get(blob.digest, blob)
        if known.size != blob.size:
            raise RefusedError(f"two of its manifests give {blob.digest} different sizes", self._repeat())
        self._blobs[blob.digest] = known if blob.optional else blob

    def _present(self, blob: Descriptor) -> bool:
        if blob.digest.hex in self._entries:
            self._demand(blob.digest.hex, blob.size, f"blob {blob.digest}")
            return True
        if blob.optional:
            return False
        missing = [each for each in self._blobs.values() if each.digest.hex not in self._entries]
        count = f" ({len(missing)} of {len(self._blobs)} blobs are)" if len(self._blobs) > 1 else ""
        raise RefusedError(f"blob {blob.digest} is missing{count}", self._repeat())

    def _demand(self, file: str, size: int, what: str) -> None:
        status = self._entries[file]
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{what} is {_kind(status)}, not a regular file", self._repeat())
        if status.st_size != size:
            raise RefusedError(
                f"{what} has {status.st_size} bytes instead of {size}: it is cut off, or still being copied",
                self._repeat(),
            )
        self._permit(file, status)

    def _permit(self, file: str, status: os.stat_result) -> None:
        if not self._reader.may_read(status):
            raise RefusedError(
                f"nginx may not read {file} (mode {stat.S_IMODE(status.st_mode):04o})",
                f"Permit it: chmod -R go+rX {shell(self._path)}",
            )

    def _read(self, file: str) -> bytes:
        status = self._entries[file]
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{file} is {_kind(status)}, not a regular file", self._repeat())
        self._permit(file, status)
        try:
            raw, _ = read_regular(file, within=self._directory, limit=MANIFEST_BYTES)
        except NotRegularError as error:
            raise RefusedError(f"{file} cannot be used: {error.strerror}", self._repeat()) from error
        except PermissionError as error:
            raise RefusedError(
                f"scr-watchd may not read {file}", f"Permit it: chmod -R go+rX {shell(self._path)}"
            ) from error
        return raw

    def _parse(self, file: str, raw: bytes) -> Manifest:
        try:
            return parse(raw)
        except ManifestError as error:
            remedy = (
                f"Convert it: {self._copy('--format v2s2 ')}" if "schema 1" in str(error) else self._repeat()
            )
            raise RefusedError(f"{file} cannot be used: {printable(str(error))}", remedy) from error

    def _repeat(self) -> str:
        return f"Wait for the copy to end, or repeat it: {self._copy()}"

    def _copy(self, options: str = "") -> str:
        return f"skopeo copy {options}docker://SOURCE {shell(f'dir:{self._path}')}"


def _kind(status: os.stat_result) -> str:
    for test, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(status.st_mode):
            return name
    return "a device"
