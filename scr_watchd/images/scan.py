"""Walks the images tree and says what is in it. The scan is the truth; file events are only hints.

A scanner remembers what it saw: a directory that has not changed is not read again. ``full`` looks
at every file, ``light`` only at directories and their manifest.json, which is enough for whatever
writers usually do and costs a fifth.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.files import Reader, open_directory
from scr_watchd.images.bounds import within_bounds
from scr_watchd.images.directory import MANIFEST, examine
from scr_watchd.images.reference import Place, RefusedError, place
from scr_watchd.oci.catalog import Image, Problem, Reference
from scr_watchd.words import printable, shell

_DEEPEST = 128  # a repository name of 255 characters has at most 128 parts
_RACY_SECONDS = 2  # a second change within one clock tick may leave the same timestamps (kernel < 6.13)


@dataclass(frozen=True, slots=True)
class Scan:
    """The tree at one moment, in the order of the paths.

    ``unfinished`` are the tags whose directory is there without a complete image. ``hidden`` are the
    directories (relative to the root, which is empty) that could not be looked into, and below which,
    therefore, nothing may be taken for deleted.
    """

    images: tuple[Image, ...]
    problems: tuple[Problem, ...]
    unfinished: frozenset[Reference]
    hidden: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found at a path: identities as hashes, because there may be 100,000 of them."""

    identity: int
    entries: int
    settled: bool
    nested: bool
    image: Image


class Scanner:
    """Scans one root again and again.

    ``reader``, which may be exchanged, is who must be able to read what is served; with ``parents``
    that includes the way to the root. ``prefix`` goes before every repository name, and ``progress``
    is called often during long scans.
    """

    def __init__(
        self,
        root: Path,
        *,
        reader: Reader,
        parents: bool = False,
        prefix: str = "",
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.root = root
        self.reader = reader
        self._parents = parents
        self._prefix = prefix
        self._progress = progress
        self._memory: dict[str, _Known] = {}
        self.directories = 0
        """How many directories the last scan looked into, with the root."""
        self._judged_for = reader

    def full(self) -> Scan:
        """Look at every file. Raises ``OSError`` if the root itself cannot be read: a missing mount
        must not look like a deletion."""
        return self._scan(light=False)

    def light(self) -> Scan:
        """Look at every directory and manifest.json, and at every file of those that changed, that
        were incomplete, or that changed so recently that their timestamps may lie. Raises like
        ``full``."""
        return self._scan(light=True)

    def _scan(self, *, light: bool) -> Scan:
        if self._judged_for != self.reader:
            self._memory.clear()
            self._judged_for = self.reader
        walk = _Walk(
            self.root,
            reader=self.reader,
            prefix=self._prefix,
            progress=self._progress,
            before=self._memory,
            light=light,
        )
        with open_directory(self.root) as descriptor:
            walk.root(descriptor, parents=self._parents)
        self._memory = walk.seen
        self.directories = walk.directories
        return walk.result()


class _Walk:
    """One scan under way."""

    def __init__(
        self,
        root: Path,
        *,
        reader: Reader,
        prefix: str,
        progress: Callable[[], None],
        before: dict[str, _Known],
        light: bool,
    ) -> None:
        self._root = os.path.realpath(root)
        self._shown = str(root)
        self._reader = reader
        self._prefix = prefix
        self._progress = progress
        self._before = before
        self._light = light
        self._settled_ns = time.time_ns() - _RACY_SECONDS * 10**9
        self.seen: dict[str, _Known] = {}
        self.directories = 1
        self._descriptor = -1
        self._problems: list[Problem] = []
        self._unfinished: set[Reference] = set()
        self._hidden: list[str] = []

    def result(self) -> Scan:
        images: dict[tuple[str, str], Image] = {}
        for path in sorted(self.seen):
            image = self.seen[path].image
            key = (image.repository, image.tag or image.digest)
            first = images.setdefault(key, image)
            if first.digest != image.digest:
                other = printable(first.path)
                self._problem(
                    path,
                    f"{image.repository}:{image.tag} is there twice, as another image in {other}",
                    f"Remove one of them: rm -r {shell(self._full(path))}",
                )
        kept, complaints = within_bounds(images.values())
        for image, reason, remedy in complaints:
            self._problem(image.path, reason, remedy)
        return Scan(
            images=tuple(kept),
            problems=tuple(sorted(self._problems, key=lambda problem: problem.path)),
            unfinished=frozenset(self._unfinished),
            hidden=tuple(sorted(self._hidden)),
        )

    def root(self, descriptor: int, *, parents: bool) -> None:
        self._descriptor = descriptor
        way = [*reversed(Path(self._root).parents), Path(self._root)] if parents else []
        for each in way:
            if not self._reader.may_enter(each.stat()):
                mode = stat.S_IMODE(each.stat().st_mode)
                self._problem(
                    "",
                    f"nginx may not enter {printable(str(each))} (mode {mode:04o})",
                    f"Permit it: chmod o+x {shell(str(each))}",
                )
                return
        statuses = _entries(descriptor)
        if MANIFEST in statuses:
            self._problem(
                "",
                "an image lies in the root itself, without repository and tag",
                f"Move its files into {shell(f'{self._shown}/NAME:TAG')}",
            )
        self._below(descriptor, "", statuses, depth=1)

    def _below(self, parent: int, path: str, statuses: dict[str, os.stat_result], *, depth: int) -> None:
        for name, status in statuses.items():
            below = f"{path}/{name}" if path else name
            if stat.S_ISDIR(status.st_mode):
                with self._answering_for(below):
                    self._directory(parent, name, below, status, depth)
            elif stat.S_ISLNK(status.st_mode):
                with self._answering_for(below):
                    self._link(below)

    # -- directories -----------------------------------------------------------------------------

    def _directory(self, parent: int, name: str, path: str, status: os.stat_result, depth: int) -> None:
        self._progress()
        known = self._before.get(path)
        identity = _identity(status, _manifest_status(parent, name))
        if (
            self._light
            and known is not None
            and known.identity == identity
            and known.settled
            and not known.nested
        ):
            self.seen[path] = known
            self.directories += 1
            return
        if depth > _DEEPEST:
            raise RefusedError("it lies too deep for a repository name", self._remove(path))
        self._permit(path, status)
        with open_directory(name, within=parent) as descriptor:
            statuses = _entries(descriptor)
            self.directories += 1
            with self._answering_for(path):
                self._one(descriptor, path, statuses, identity=identity, status=status)
            if "oci-layout" not in statuses:
                self._below(descriptor, path, statuses, depth=depth + 1)

    def _one(
        self,
        descriptor: int,
        path: str,
        statuses: dict[str, os.stat_result],
        *,
        identity: int,
        status: os.stat_result,
        real: str | None = None,
    ) -> None:
        """The image, if any, in the directory itself; ``real`` is where a symbolic link led."""
        nested = any(stat.S_ISDIR(each.st_mode) or stat.S_ISLNK(each.st_mode) for each in statuses.values())
        if MANIFEST not in statuses:
            self._without_manifest(path, statuses, nested=nested)
            return
        entries = _fingerprint(statuses)
        known = self._before.get(path)
        manifests = [each for name, each in statuses.items() if name.endswith(MANIFEST)]
        newest = max(each.st_ctime_ns for each in (status, *manifests))
        if (
            known is not None
            and known.identity == identity
            and known.entries == entries
            and known.settled
            and known.image.path == (real or path)
        ):
            image = known.image
        else:
            image = self._examine(descriptor, path, real or path, statuses, entries)
            if known is not None and known.image == image:
                image = known.image
        self.seen[path] = _Known(identity, entries, newest < self._settled_ns, nested, image)

    def _examine(
        self, descriptor: int, path: str, real: str, statuses: dict[str, os.stat_result], entries: int
    ) -> Image:
        where = place(path, prefix=self._prefix, root=self._shown)
        try:
            manifests, blobs = examine(
                descriptor, statuses, path=self._full(path), reader=self._reader, digest=where.digest
            )
        except (RefusedError, OSError):
            self._is_unfinished(where)
            raise
        return Image(real, where.repository, where.tag, manifests, blobs, entries)

    def _without_manifest(self, path: str, statuses: dict[str, os.stat_result], *, nested: bool) -> None:
        if "oci-layout" in statuses:
            raise RefusedError(
                "it is an OCI layout, and images are served from skopeo's dir: form",
                f"Convert it: skopeo copy --all {shell(f'oci:{self._full(path)}:TAG')} "
                f"{shell(f'dir:{self._full(path)}:TAG')} && rm -r {shell(self._full(path))}",
            )
        if nested:
            return
        self._is_unfinished_path(path)
        if statuses:
            raise RefusedError(
                "it has no manifest.json: a copy is under way, or was broken off",
                "Wait for the copy to end, or repeat it: skopeo copy docker://SOURCE "
                f"{shell(f'dir:{self._full(path)}')}, or remove it: rm -r {shell(self._full(path))}",
            )

    # -- symbolic links --------------------------------------------------------------------------

    def _link(self, path: str) -> None:
        """A symbolic link is a tag if it leads to a tag directory inside the root."""
        self._progress()
        try:
            # first: the kernel refuses a chain of 41 links, which realpath would follow by recursion
            is_directory = stat.S_ISDIR(os.stat(self._full_real(path)).st_mode)
            target = os.path.realpath(self._full_real(path))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            self._is_unfinished_path(path)
            raise RefusedError("it is a symbolic link to nothing", self._remove(path, "rm")) from None
        if not is_directory:
            return
        if not f"{target}/".startswith(f"{self._root}/"):
            raise RefusedError(
                f"it is a symbolic link out of the images directory, to {printable(target)}",
                f"Copy the image instead: cp -r {shell(target)} {shell(self._full(path))}",
            )
        real = os.path.relpath(target, self._root)
        parts = real.split("/")
        for count in range(1, len(parts) + 1):
            status = os.stat("/".join(parts[:count]), dir_fd=self._descriptor, follow_symlinks=False)
            self._permit(path, status)
        with open_directory(real, within=self._descriptor) as descriptor:
            status = os.fstat(descriptor)
            statuses = _entries(descriptor)
            if MANIFEST not in statuses:
                self._is_unfinished_path(path)
                if any(stat.S_ISDIR(each.st_mode) for each in statuses.values()):
                    raise RefusedError(
                        "it is a symbolic link to a repository; only a tag may be one",
                        "Link each tag by itself: ln -s ../OLD/TAG NEW/TAG",
                    )
                return  # the target is being copied, and has a Problem of its own
            identity = _identity(status, statuses[MANIFEST])
            self._one(descriptor, path, statuses, identity=identity, status=status, real=real)

    # -- what goes wrong -------------------------------------------------------------------------

    @contextmanager
    def _answering_for(self, path: str) -> Iterator[None]:
        """Turn what goes wrong at ``path`` into a Problem, so that it hides nothing beside it."""
        try:
            yield
        except RefusedError as refused:
            self._problem(path, refused.reason, refused.remedy)
        except (FileNotFoundError, NotADirectoryError):
            # it went away, or was replaced, while we looked: the next pass sees what it is now
            with suppress(RefusedError):
                self._is_unfinished_path(path)
        except OSError as error:
            self._hidden.append(path)
            self._problem(
                path,
                f"scr-watchd cannot look into it: {error.strerror}",
                f"Permit it: chmod -R go+rX {shell(self._full(path))}"
                if isinstance(error, PermissionError)
                else "Look for a failing disk or mount: dmesg | tail",
            )

    def _permit(self, path: str, status: os.stat_result) -> None:
        if not self._reader.may_enter(status):
            raise RefusedError(
                f"nginx may not enter it (mode {stat.S_IMODE(status.st_mode):04o})",
                f"Permit it: chmod -R go+rX {shell(self._full(path))}",
            )

    def _problem(self, path: str, reason: str, remedy: str) -> None:
        self._problems.append(Problem(printable(self._full(path)), reason, remedy))

    def _is_unfinished(self, where: Place) -> None:
        if where.tag is not None:
            self._unfinished.add((where.repository, where.tag))

    def _is_unfinished_path(self, path: str) -> None:
        with suppress(RefusedError):  # a name that is no tag: there is nothing to hold on to
            self._is_unfinished(place(path, prefix=self._prefix))

    def _remove(self, path: str, command: str = "rm -r") -> str:
        return f"Remove it: {command} {shell(self._full(path))}"

    def _full(self, path: str) -> str:
        return f"{self._shown}/{path}" if path else self._shown

    def _full_real(self, path: str) -> str:
        return f"{self._root}/{path}"


def _is_ignored(name: str) -> bool:
    """Names of no concern: hidden ones, and what writers use until they are done."""
    return (
        name.startswith((".", "dir-put-blob")) or name == "lost+found" or name.endswith(".hardlink-temporary")
    )


def _entries(descriptor: int) -> dict[str, os.stat_result]:
    statuses = {}
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if _is_ignored(entry.name):
                continue
            try:
                statuses[entry.name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went away meanwhile
    return statuses


def _manifest_status(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(f"{name}/{MANIFEST}", dir_fd=parent, follow_symlinks=False)
    except OSError:
        return None  # it has none, or is not readable: the listing will tell


def _identity(directory: os.stat_result, manifest: os.stat_result | None) -> int:
    """Only all six together see every change; times alone miss what restores them."""
    return hash(
        tuple(
            (each.st_dev, each.st_ino, each.st_mode, each.st_size, each.st_mtime_ns, each.st_ctime_ns)
            for each in (directory, manifest)
            if each is not None
        )
    )


def _fingerprint(statuses: dict[str, os.stat_result]) -> int:
    """Of the files of a directory. Making a link to a blob changes its ctime: only manifests have one."""
    return hash(
        tuple(
            (name, each.st_ino, each.st_mode, each.st_uid, each.st_gid, each.st_size, each.st_mtime_ns)
            + ((each.st_ctime_ns,) if name.endswith(MANIFEST) else ())
            for name, each in sorted(statuses.items())
        )
    )
