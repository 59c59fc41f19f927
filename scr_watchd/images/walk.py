"""One walk through the images tree: what is in each directory, and what is wrong with it."""

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path

from scr_watchd.files import Reader, open_directory, read_regular
from scr_watchd.images import layout as layouts
from scr_watchd.images import links, mistakes
from scr_watchd.images.directory import MANIFEST, Shelf, examine, last_change, tag_directory
from scr_watchd.images.findings import Findings
from scr_watchd.images.layout import Layout
from scr_watchd.images.reference import Place, RefusedError, layout_place, place
from scr_watchd.images.seen import (
    Seen,
    SeenImage,
    SeenLayout,
    SeenRefusal,
    fingerprint,
    identity,
    identity_of_tag,
    kept,
)
from scr_watchd.images.sparse import LOSING_SECONDS
from scr_watchd.images.way import closed_to
from scr_watchd.oci.manifest import MANIFEST_BYTES
from scr_watchd.words import shell

DEEPEST = 128  # a repository name of 255 characters has at most 128 parts
# names of no concern: hidden ones, and what writers use until they are done
_IGNORED = (".", "dir-put-blob", "oci-put-blob", "lost+found")
_TEMPORARY = ".hardlink-temporary"
_NAME_OF = attrgetter("name")
_PASSED_BY = 64  # unchanged directories between two calls of progress: a network may take long for each
_LARGE_BYTES = 1 << 20
_LARGE_BYTES_OF_A_LOOK = 16 << 20  # a second and a half of each owner
_RACY_SECONDS = 2  # a second change within one clock tick may leave the same timestamps (kernel < 6.13)


class _NotYetError(RefusedError):
    """An image that is looked at in a later look."""


class Walk:
    """What it found is in ``seen`` and ``found``. Directories that are as ``before`` are not read."""

    def __init__(
        self,
        root: Path,
        descriptor: int,
        found: Findings,
        before: Seen,
        reader: Reader,
        *,
        progress: Callable[[], None],
        light: bool = False,
        known: Findings | None = None,
    ) -> None:
        self._root = os.path.realpath(root)
        self._descriptor = descriptor
        self._found = found
        self._before = before
        self._known = known or found
        self._reader = reader
        self._progress = progress
        self._light = light
        self._settled_ns = time.time_ns() - _RACY_SECONDS * 10**9
        self._quiet_ns = time.time_ns() - int(LOSING_SECONDS) * 10**9
        self.seen: Seen = {}
        self.directories = 1
        self._spent: Counter[int] = Counter()

    def root(self, *, parents: bool) -> None:
        if parents and (closed := closed_to(self._reader, self._found.root)):
            self._found.told("", [closed])
            return
        statuses = entries_of(self._descriptor)
        self._root_itself(statuses)
        self._below(self._descriptor, "", statuses, depth=1)

    def _root_itself(self, statuses: dict[str, os.stat_result]) -> None:
        with self._found.at("", os.fstat(self._descriptor).st_uid):
            if layouts.is_layout(self._descriptor, statuses):
                statuses.pop(layouts.BLOBS, None)
                raise mistakes.layout_in_the_root(self._found.root)
            if MANIFEST in statuses:
                raise mistakes.in_the_root(self._found.root)

    def _below(self, parent: int, path: str, statuses: dict[str, os.stat_result], *, depth: int) -> None:
        for number, (name, status) in enumerate(statuses.items()):
            if number % _PASSED_BY == 0:
                self._progress()
            below = f"{path}/{name}" if path else name
            if not stat.S_ISDIR(status.st_mode):
                self._file(below, status, statuses)
            elif not (self._light and self._is_as_before(parent, name, below, status)):
                with self._found.at(below, status.st_uid):
                    self._directory(parent, name, below, status, depth)

    def _file(self, path: str, status: os.stat_result, beside: Mapping[str, os.stat_result]) -> None:
        """What is no directory, but may lead to one or be an archive of one."""
        if stat.S_ISLNK(status.st_mode):
            with self._found.at(path, status.st_uid):
                self._link(path, status.st_uid)
        elif MANIFEST not in beside and (wrong := mistakes.archive(self._found.full(path), beside)):
            self._found.problem(path, wrong.reason, wrong.remedy, status.st_uid)

    # -- directories -----------------------------------------------------------------------------

    def _directory(self, parent: int, name: str, path: str, status: os.stat_result, depth: int) -> None:
        if depth > DEEPEST:
            raise RefusedError("it lies too deep for a repository name", "Move it further up")
        self._progress()
        self._permit(path, status)
        with open_directory(name, within=parent) as descriptor:
            statuses = entries_of(descriptor)
            self.directories += 1
            with self._found.at(path, status.st_uid):
                self._one(descriptor, path, statuses, status=status, owner=status.st_uid)
            known = self.seen.get(path)
            if known is not None and not known.nested:
                return
            if layouts.is_layout(descriptor, statuses):
                statuses.pop(layouts.BLOBS, None)
            self._below(descriptor, path, statuses, depth=depth + 1)

    def _is_as_before(self, parent: int, name: str, path: str, status: os.stat_result) -> bool:
        """Whether nothing has happened to an image directory, nor to a layout, since it was looked into."""
        known = self._before.get(path)
        if known is None or not known.settled or known.nested:
            return False
        match known:
            case SeenRefusal():
                return False  # what it lacks may come without a change of the directory
            case SeenLayout():
                if known.identity != identity(status, *layouts.statuses(parent, name)):
                    return False
                self._found.told(path, known.problems)
                self.directories += known.directories
            case SeenImage():
                try:
                    manifest = os.stat(f"{name}/{MANIFEST}", dir_fd=parent, follow_symlinks=False)
                except OSError:
                    return False  # it has none, or is not readable: the listing will tell
                if known.identity != identity_of_tag(status, manifest):
                    return False
                if known.image.path == path:
                    path = known.image.path  # one string, not two that are equal
        self.directories += 1
        self.seen[path] = known
        return True

    def _one(
        self,
        descriptor: int,
        path: str,
        statuses: dict[str, os.stat_result],
        *,
        status: os.stat_result,
        owner: int,
        real: str | None = None,
    ) -> None:
        """The image, if any, in the directory itself; ``real`` is where a symbolic link led."""
        if layouts.is_layout(descriptor, statuses):
            self._layout(descriptor, path, statuses, status=status, real=real or path, owner=owner)
            return
        if MANIFEST not in statuses:
            self._without_manifest(path, statuses)
            return
        now = identity_of_tag(status, statuses[MANIFEST])
        entries = fingerprint(statuses, MANIFEST)
        known = self._before.get(path)
        if isinstance(known, SeenLayout) or (
            known is not None and (known.identity, known.entries, known.settled) != (now, entries, True)
        ):
            known = None
        match known:
            case SeenImage(image=image) if (image.path, image.owner) == (real or path, owner):
                self.seen[path if real else image.path] = known
                return
            case SeenRefusal(real=there) if there == (real or path):
                self._found.is_unfinished_path(path)
                self.seen[path] = known
                raise RefusedError(known.reason, known.remedy)
        manifests = [each for name, each in statuses.items() if name.endswith(MANIFEST)]
        newest = max(each.st_ctime_ns for each in (status, *manifests))
        settled, nested = newest < self._settled_ns, _has_directories(statuses)
        where = self._where(descriptor, path)
        content = tag_directory(Shelf(descriptor, statuses), self._found.full(path))
        try:
            spend = partial(self._spend, owner)
            found = examine(content, MANIFEST, reader=self._reader, digest=where.digest, spend=spend)
        except (RefusedError, OSError) as error:
            self._found.is_unfinished_at(path, where)
            if isinstance(error, RefusedError) and not isinstance(error, _NotYetError):
                self.seen[path] = SeenRefusal(
                    now, entries, settled, nested, real or path, error.reason, error.remedy
                )
            raise
        label = path if real else ""
        image = found.image(real or path, where.repository, where.tag, files=entries, owner=owner, link=label)
        before = self._before.get(path)
        if isinstance(before, SeenImage) and before.image == image:
            image = before.image
        changed = last_change(descriptor) if image.absent else 0
        settled = settled and changed < self._quiet_ns
        self.seen[path] = SeenImage(now, entries, settled, nested, image, changed)

    def _spend(self, owner: int, size: int) -> None:
        """Have nobody wait for another's large manifests: some are read in each look."""
        if size > _LARGE_BYTES:
            self._spent[owner] += size
            if self._spent[owner] > _LARGE_BYTES_OF_A_LOOK:
                raise _NotYetError(
                    "it waits for its turn: its owner has many large manifests", "Wait for the next looks"
                )

    def _where(self, descriptor: int, path: str) -> Place:
        try:
            return place(path, prefix=self._found.prefix, root=self._found.root)
        except RefusedError:
            if _is_archive(descriptor):
                raise mistakes.unpacked(self._found.full(path)) from None
            raise

    def _without_manifest(self, path: str, statuses: dict[str, os.stat_result]) -> None:
        if _has_directories(statuses) or mistakes.LAYER in statuses:
            return
        self._found.is_unfinished_path(path)
        if statuses and not any(mistakes.is_called_archive(name) for name in statuses):
            full = self._found.full(path)
            raise RefusedError(
                "it has no manifest.json: a copy is under way, or was broken off",
                "Wait for the copy to end, or repeat it: skopeo copy docker://SOURCE "
                f"{shell(f'dir:{full}')}, or remove it: rm -r {shell(full)}",
            )

    # -- OCI layouts -----------------------------------------------------------------------------

    def _layout(
        self,
        descriptor: int,
        path: str,
        statuses: dict[str, os.stat_result],
        *,
        status: os.stat_result,
        real: str,
        owner: int,
    ) -> None:
        """The images of a layout. While it cannot be known which those are, what was published stays."""
        within = layouts.statuses(descriptor, ".")
        now = identity(status, *within)
        full = self._found.full(path)
        where = layout_place(path, prefix=self._found.prefix, root=self._found.root)
        layout = Layout(descriptor, statuses, where=where, path=full, real=real, owner=owner)
        known = self._before.get(path)
        if not isinstance(known, SeenLayout) or (known.real, known.owner) != (real, owner):
            known = None
        try:
            with layout.shelves(self._reader) as shelves:
                if known is None or known.identity != now or not _is_whole(known, shelves):
                    found = layout.look(
                        shelves,
                        reader=self._reader,
                        progress=self._progress,
                        spend=partial(self._spend, owner),
                    )
                    newest = [each.st_ctime_ns for each in (status, *within)]
                    newest += [layouts.changed_ns(each, shelves) for each in found.images]
                    is_sparse = any(each.absent for each in found.images)
                    changed = layout.last_change(shelves) if is_sparse else 0
                    settled = max(newest) < self._settled_ns and changed < self._quiet_ns
                    label = path if real != path else ""
                    images = [replace(each, link=label) for each in found.images] if label else found.images
                    known = SeenLayout(
                        now,
                        settled and not found.unfinished,
                        _has_directories(statuses, beside=layouts.BLOBS),
                        real,
                        kept(images, known),
                        found.problems(owner),
                        len(shelves) + 1,
                        owner,
                        changed,
                    )
                    self._found.is_unfinished(path, *found.unfinished)
        except layouts.PrivateError:
            raise
        except (RefusedError, OSError):
            if where.tag is not None:
                self._found.is_unfinished_at(path, where)
            elif where.digest is None:
                self._found.hidden.add(path)  # it may have any tag
            raise
        self._found.told(path, known.problems)
        self.directories += known.directories
        self.seen[path] = known

    # -- symbolic links --------------------------------------------------------------------------

    def _link(self, path: str, owner: int) -> None:
        self._progress()
        self._found.links[path] = ""
        real = links.target(path, self._root, self._found)
        if real is None:
            return
        self._found.links[path] = real
        parts = real.split("/")
        for count in range(1, len(parts) + 1):
            status = os.stat("/".join(parts[:count]), dir_fd=self._descriptor, follow_symlinks=False)
            self._permit(path, status)
        with open_directory(real, within=self._descriptor) as descriptor:
            statuses = entries_of(descriptor)
            is_layout = layouts.is_layout(descriptor, statuses)
            if is_layout and not _is_tag(path):
                raise links.to_layout(self._found.full(path), f"{self._root}/{real}")
            if MANIFEST not in statuses and not is_layout:
                self._found.is_unfinished_path(path)
                if any(stat.S_ISDIR(each.st_mode) for each in statuses.values()):
                    raise links.to_repository()
                return  # the target is being copied, and has a Problem of its own
            self._one(descriptor, path, statuses, status=os.fstat(descriptor), owner=owner, real=real)

    def _permit(self, path: str, status: os.stat_result) -> None:
        if not self._reader.may_enter(status):
            raise RefusedError(
                f"nginx may not enter it (mode {stat.S_IMODE(status.st_mode):04o})",
                f"Permit it: chmod -R go+rX {shell(self._found.full(path))}",
            )


def is_ignored(name: str) -> bool:
    return name.startswith(_IGNORED) or name.endswith(_TEMPORARY)


def entries_of(descriptor: int) -> dict[str, os.stat_result]:
    """What is in a directory, by name in their order."""
    statuses = {}
    with os.scandir(descriptor) as entries:
        for entry in sorted(entries, key=_NAME_OF):
            name = entry.name
            if is_ignored(name):
                continue
            try:
                statuses[name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went away meanwhile
    return statuses


def _has_directories(statuses: Mapping[str, os.stat_result], *, beside: str = "") -> bool:
    kinds = {stat.S_IFMT(each.st_mode) for name, each in statuses.items() if name != beside}
    return not kinds.isdisjoint((stat.S_IFDIR, stat.S_IFLNK))


def _is_tag(path: str) -> bool:
    """Whether the directory itself is called NAME:TAG or NAME@DIGEST."""
    leaf = path.rpartition("/")[2]
    return ":" in leaf or "@" in leaf


def _is_archive(descriptor: int) -> bool:
    try:
        return mistakes.is_archive(read_regular(MANIFEST, within=descriptor, limit=MANIFEST_BYTES)[0])
    except OSError:
        return False


def _is_whole(known: SeenLayout, shelves: Mapping[str, Shelf]) -> bool:
    """Whether a layout that was complete still has the very files of its images."""
    return known.settled and all(each.files == layouts.fingerprint(each, shelves) for each in known.images)
