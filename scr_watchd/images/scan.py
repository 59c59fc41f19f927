"""Walks the images tree and says what is in it. The scan is the truth; file events are only hints.

A scanner remembers what it saw: a directory that has not changed is not read again. ``full`` looks
at every file, ``light`` only at directories and their manifest.json, which is enough for whatever
writers usually do and costs a fifth. Of an OCI layout it looks at index.json instead, and at the
directories of blobs.
"""

import errno
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

from scr_watchd.files import FileId, Reader, file_id, open_directory, read_regular
from scr_watchd.images import layout as layouts
from scr_watchd.images import mistakes
from scr_watchd.images.bounds import Unlisted, within_bounds
from scr_watchd.images.directory import MANIFEST, Shelf, examine, last_change, tag_directory
from scr_watchd.images.layout import Layout
from scr_watchd.images.moves import free, is_image, move
from scr_watchd.images.reference import Place, RefusedError, layout_place, place
from scr_watchd.images.sparse import LOSING_SECONDS, Key, Unripe, key_of
from scr_watchd.oci.catalog import Image, Problem, Reference
from scr_watchd.oci.manifest import MANIFEST_BYTES
from scr_watchd.words import printable, shell

_DEEPEST = 128  # a repository name of 255 characters has at most 128 parts
# names of no concern: hidden ones, and what writers use until they are done
_IGNORED = (".", "dir-put-blob", "oci-put-blob", "lost+found")
_TEMPORARY = ".hardlink-temporary"
_SIX = attrgetter("st_dev", "st_ino", "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns")
_NAME_OF = attrgetter("name")
_PASSED_BY = 64  # unchanged directories between two calls of progress: a network may take long for each
_RACY_SECONDS = 2  # a second change within one clock tick may leave the same timestamps (kernel < 6.13)


@dataclass(frozen=True, slots=True)
class Scan:
    """The tree at one moment, in the order of the paths.

    ``root`` is the directory that was walked, whatever has come to lie at its path since. ``unfinished``
    are the tags whose directory is there without a complete image. ``hidden`` are the directories
    (relative to the root, which is empty) that could not be looked into, and layouts whose index.json
    cannot be read: of them, therefore, nothing may be taken for deleted. ``beyond`` are the tags, and
    ``unlisted`` the referrers, that are complete and for which the bounds leave no room. ``changed`` says
    of each sparse image when something changed last where it lies, in nanoseconds since 1970; ``unripe`` are
    those that were taken out of ``images`` for that.
    """

    images: tuple[Image, ...]
    problems: tuple[Problem, ...]
    unfinished: frozenset[Reference]
    hidden: tuple[str, ...]
    root: FileId = (0, 0)
    beyond: frozenset[Reference] = frozenset()
    unlisted: Unlisted = field(default_factory=dict)
    changed: Mapping[Key, int] = field(default_factory=dict)
    unripe: tuple[Unripe, ...] = ()

    @property
    def look_again_at(self) -> float:
        """When (seconds since 1970) another look finds more, though nothing changes."""
        return min((each.until for each in self.unripe), default=math.inf)

    def without(self, unripe: tuple[Unripe, ...]) -> "Scan":
        """The same, as long as what is ``unripe`` is not served."""
        if not unripe:
            return self
        waiting = {key_of(each.image) for each in unripe}
        return replace(
            self,
            images=tuple(each for each in self.images if key_of(each) not in waiting),
            unfinished=self.unfinished | {each.reference for each in unripe if each.reference},
            unripe=unripe,
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found at a path: identities as hashes, because there may be 100,000 of them."""

    identity: int
    entries: int
    settled: bool
    nested: bool
    image: Image
    changed: int = 0

    @property
    def images(self) -> tuple[Image, ...]:
        return (self.image,)


@dataclass(frozen=True, slots=True)
class _KnownLayout:
    """What was found in an OCI layout. One with an image that is not complete is never settled. ``changed``
    says when something changed last in it, if it has a sparse image."""

    identity: int
    settled: bool
    nested: bool
    real: str
    images: tuple[Image, ...]
    problems: tuple[Problem, ...]
    directories: int
    owner: int
    changed: int = 0


_Memory = dict[str, _Known | _KnownLayout]
_Findings = tuple[tuple[Problem, ...], frozenset[Reference], tuple[str, ...], FileId]


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
        self._memory: _Memory = {}
        self._last: tuple[_Findings, Scan] | None = None
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
        self.directories = walk.directories
        findings = walk.findings
        if self._last is None or findings != self._last[0] or walk.seen != self._memory:
            self._last = findings, walk.result()
        self._memory = walk.seen
        return self._last[1]


class _AnsweringFor:
    """Lets what goes wrong at a path hide nothing beside it. A class, since there is one for each
    directory, and a generator takes three times as long."""

    __slots__ = ("_owner", "_path", "_walk")

    def __init__(self, walk: "_Walk", path: str, owner: int) -> None:
        self._walk = walk
        self._path = path
        self._owner = owner

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return error is not None and self._walk.answer(self._path, error, self._owner)


class _Walk:
    """One scan under way."""

    def __init__(
        self,
        root: Path,
        *,
        reader: Reader,
        prefix: str,
        progress: Callable[[], None],
        before: _Memory,
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
        self._quiet_ns = time.time_ns() - int(LOSING_SECONDS) * 10**9
        self.seen: _Memory = {}
        self.directories = 1
        self._descriptor = -1
        self._root_id: FileId = (0, 0)
        self._problems: list[Problem] = []
        self._unfinished: set[Reference] = set()
        self._hidden: list[str] = []

    @property
    def findings(self) -> _Findings:
        """What was found besides ``seen``: with it, all that a result is made of."""
        return (
            tuple(self._problems),
            frozenset(self._unfinished),
            tuple(self._hidden),
            self._root_id,
        )

    def result(self) -> Scan:
        found = [(path, image) for path in sorted(self.seen) for image in self.seen[path].images]
        keys = [(image.repository, image.tag or image.digest) for _, image in found]
        images = dict(zip(keys, found, strict=True))
        if len(images) < len(found):
            images = self._each_once(found)
        bounded = within_bounds(image for _, image in images.values())
        for image, reason, remedy in bounded.complaints:
            self._problem(image.place, reason, remedy, image.owner)
        return Scan(
            images=bounded.images,
            problems=tuple(sorted(self._problems, key=lambda problem: problem.path)),
            unfinished=frozenset(self._unfinished),
            hidden=tuple(sorted(set(self._hidden))),
            root=self._root_id,
            beyond=bounded.beyond,
            unlisted=bounded.unlisted,
            changed={key: self.seen[path].changed for key, (path, image) in images.items() if image.absent},
        )

    def _each_once(self, found: list[tuple[str, Image]]) -> dict[Key, tuple[str, Image]]:
        """The image of each name. What lies at its own path outranks what a layout above calls so."""
        images: dict[Key, tuple[str, Image]] = {}
        for path, image in sorted(found, key=lambda each: -len(each[0]) if each[1].below else -(2**31)):
            first = images.setdefault(key_of(image), (path, image))[1]
            if first.digest != image.digest:
                reason = f"{image.repository}:{image.tag} is there twice, as another image in "
                self._problem(
                    image.place if image.below else path,
                    reason + printable(first.place),
                    "Take one of them out, the directory or its name in the layout above"
                    if image.below
                    else f"Give it another tag: {move(self._full(path), free(self._full(path)))}",
                    image.owner,
                )
        return dict(sorted(images.items(), key=lambda each: each[1][0]))

    def root(self, descriptor: int, *, parents: bool) -> None:
        self._descriptor = descriptor
        self._root_id = file_id(os.fstat(descriptor))
        way = [*reversed(Path(self._root).parents), Path(self._root)] if parents else []
        for each in way:
            if not self._reader.may_enter(each.stat()):
                mode = stat.S_IMODE(each.stat().st_mode)
                self._problem(
                    "",
                    f"nginx may not enter {printable(str(each))} (mode {mode:04o})",
                    f"Permit it: chmod o+x {shell(str(each))}",
                    each.stat().st_uid,
                )
                return
        statuses = _entries(descriptor)
        with _AnsweringFor(self, "", os.fstat(descriptor).st_uid):
            if layouts.is_layout(descriptor, statuses):
                statuses.pop(layouts.BLOBS, None)
                raise mistakes.layout_in_the_root(self._shown)
            if MANIFEST in statuses:
                raise mistakes.in_the_root(self._shown)
        self._below(descriptor, "", statuses, depth=1)

    def _below(self, parent: int, path: str, statuses: dict[str, os.stat_result], *, depth: int) -> None:
        is_image = MANIFEST in statuses
        for number, (name, status) in enumerate(statuses.items()):
            if number % _PASSED_BY == 0:
                self._progress()
            below = f"{path}/{name}" if path else name
            if stat.S_ISDIR(status.st_mode):
                if self._light and self._is_as_before(parent, name, below, status):
                    continue
                with _AnsweringFor(self, below, status.st_uid):
                    self._directory(parent, name, below, status, depth)
            elif stat.S_ISLNK(status.st_mode):
                with _AnsweringFor(self, below, status.st_uid):
                    self._link(below, status.st_uid)
            elif not is_image and (wrong := mistakes.archive(self._full(below), statuses)):
                self._problem(below, wrong.reason, wrong.remedy, status.st_uid)

    # -- directories -----------------------------------------------------------------------------

    def _directory(self, parent: int, name: str, path: str, status: os.stat_result, depth: int) -> None:
        if depth > _DEEPEST:
            raise RefusedError("it lies too deep for a repository name", "Move it further up")
        self._progress()
        self._permit(path, status)
        with open_directory(name, within=parent) as descriptor:
            statuses = _entries(descriptor)
            self.directories += 1
            with _AnsweringFor(self, path, status.st_uid):
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
        if isinstance(known, _KnownLayout):
            if known.identity != _identity(status, *layouts.statuses(parent, name)):
                return False
            self._problems += known.problems
            self.directories += known.directories
        else:
            try:
                manifest = os.stat(f"{name}/{MANIFEST}", dir_fd=parent, follow_symlinks=False)
            except OSError:
                return False  # it has none, or is not readable: the listing will tell
            if known.identity != _identity_of_tag(status, manifest):
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
        identity = _identity_of_tag(status, statuses[MANIFEST])
        entries = _fingerprint(statuses)
        known = self._before.get(path)
        known = known if isinstance(known, _Known) else None
        if (
            known is not None
            and known.identity == identity
            and known.entries == entries
            and known.settled
            and known.image.path == (real or path)
            and known.image.owner == owner
        ):
            self.seen[path if real else known.image.path] = known
            return
        manifests = [each for name, each in statuses.items() if name.endswith(MANIFEST)]
        newest = max(each.st_ctime_ns for each in (status, *manifests))
        image = replace(self._examine(descriptor, path, real or path, statuses, entries), owner=owner)
        if known is not None and known.image == image:
            image = known.image
        nested = _has_directories(statuses)
        changed = last_change(descriptor) if image.absent else 0
        settled = newest < self._settled_ns and changed < self._quiet_ns
        self.seen[path] = _Known(identity, entries, settled, nested, image, changed)

    def _examine(
        self, descriptor: int, path: str, real: str, statuses: dict[str, os.stat_result], entries: int
    ) -> Image:
        try:
            where = place(path, prefix=self._prefix, root=self._shown)
        except RefusedError:
            if _is_archive(descriptor):
                raise mistakes.unpacked(self._full(path)) from None
            raise
        content = tag_directory(Shelf(descriptor, statuses), self._full(path))
        try:
            found = examine(content, MANIFEST, reader=self._reader, digest=where.digest)
        except (RefusedError, OSError):
            self._is_unfinished(where)
            raise
        return Image(
            real,
            where.repository,
            where.tag,
            found.manifests,
            found.blobs,
            entries,
            platforms=found.platforms,
            absent=found.absent,
        )

    def _without_manifest(self, path: str, statuses: dict[str, os.stat_result]) -> None:
        if _has_directories(statuses) or mistakes.LAYER in statuses:
            return
        self._is_unfinished_path(path)
        if statuses and not any(mistakes.is_called_archive(name) for name in statuses):
            raise RefusedError(
                "it has no manifest.json: a copy is under way, or was broken off",
                "Wait for the copy to end, or repeat it: skopeo copy docker://SOURCE "
                f"{shell(f'dir:{self._full(path)}')}, or remove it: rm -r {shell(self._full(path))}",
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
        identity = _identity(status, *within)
        where = layout_place(path, prefix=self._prefix, root=self._shown)
        layout = Layout(descriptor, statuses, where=where, path=self._full(path), real=real, owner=owner)
        known = self._before.get(path)
        now = (
            known if isinstance(known, _KnownLayout) and (known.real, known.owner) == (real, owner) else None
        )
        try:
            with layout.shelves(self._reader) as shelves:
                if now is None or now.identity != identity or not _is_whole(now, shelves):
                    found = layout.look(shelves, reader=self._reader, progress=self._progress)
                    newest = [each.st_ctime_ns for each in (status, *within)]
                    newest += [layouts.changed_ns(each, shelves) for each in found.images]
                    is_sparse = any(each.absent for each in found.images)
                    changed = layout.last_change(shelves) if is_sparse else 0
                    settled = max(newest) < self._settled_ns and changed < self._quiet_ns
                    now = _KnownLayout(
                        identity,
                        settled and not found.unfinished,
                        _has_directories(statuses, beside=layouts.BLOBS),
                        real,
                        _kept(found.images, now),
                        found.problems(owner),
                        len(shelves) + 1,
                        owner,
                        changed,
                    )
                    self._unfinished.update(found.unfinished)
        except layouts.PrivateError:
            raise
        except (RefusedError, OSError):
            self._is_unknown(path, where)
            raise
        self._problems += now.problems
        self.directories += now.directories
        self.seen[path] = now

    def _is_unknown(self, path: str, where: Place) -> None:
        """Hold on to every tag that the layout at ``path`` may have."""
        if where.tag is not None:
            self._is_unfinished(where)
        elif where.digest is None:
            self._hidden.append(path)

    # -- symbolic links --------------------------------------------------------------------------

    def _link(self, path: str, owner: int) -> None:
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
            link = shell(self._full(path))
            raise RefusedError(
                f"it is a symbolic link out of the images directory, to {printable(target)}",
                f"Copy the image instead: rm {link} && cp -r {shell(target)} {link}"
                if is_image(target)
                else f"Remove it: rm {link}",
            )
        real = os.path.relpath(target, self._root)
        parts = real.split("/")
        for count in range(1, len(parts) + 1):
            status = os.stat("/".join(parts[:count]), dir_fd=self._descriptor, follow_symlinks=False)
            self._permit(path, status)
        with open_directory(real, within=self._descriptor) as descriptor:
            status = os.fstat(descriptor)
            statuses = _entries(descriptor)
            if layouts.is_layout(descriptor, statuses) and not _is_tag(path):
                raise RefusedError(
                    "it is a symbolic link to an OCI layout, which is a repository; only a tag may be one",
                    f"Give the image another tag in its layout instead: rm {shell(self._full(path))}; skopeo "
                    f"copy --all {shell(f'oci:{target}:TAG')} {shell(f'oci:{target}:NEW')}",
                )
            if MANIFEST not in statuses and not layouts.is_layout(descriptor, statuses):
                self._is_unfinished_path(path)
                if any(stat.S_ISDIR(each.st_mode) for each in statuses.values()):
                    raise RefusedError(
                        "it is a symbolic link to a repository; only a tag may be one",
                        "Link each tag by itself: ln -s ../OLD/TAG NEW/TAG",
                    )
                return  # the target is being copied, and has a Problem of its own
            self._one(descriptor, path, statuses, status=status, owner=owner, real=real)

    # -- what goes wrong -------------------------------------------------------------------------

    def answer(self, path: str, error: BaseException, owner: int) -> bool:
        """Turn what went wrong at ``path`` into a Problem, unless it is none of the tree's."""
        match error:
            case RefusedError():
                self._problem(path, error.reason, error.remedy, owner)
            case FileNotFoundError() | NotADirectoryError():
                # it went away, or was replaced, while we looked: the next pass sees what it is now
                with suppress(RefusedError):
                    self._is_unfinished_path(path)
            case OSError():
                self._hidden.append(path)
                self._problem(
                    path,
                    f"scr-watchd cannot look into it: {error.strerror}",
                    f"Permit it: chmod -R go+rX {shell(self._full(path))}"
                    if isinstance(error, PermissionError)
                    else "Look for a failing disk or mount: dmesg | tail",
                    owner,
                )
            case _:
                return False
        return True

    def _permit(self, path: str, status: os.stat_result) -> None:
        if not self._reader.may_enter(status):
            raise RefusedError(
                f"nginx may not enter it (mode {stat.S_IMODE(status.st_mode):04o})",
                f"Permit it: chmod -R go+rX {shell(self._full(path))}",
            )

    def _problem(self, path: str, reason: str, remedy: str, owner: int) -> None:
        self._problems.append(Problem(printable(self._full(path)), reason, remedy, owner))

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


def _entries(descriptor: int) -> dict[str, os.stat_result]:
    """What is in a directory, by name in their order."""
    statuses = {}
    with os.scandir(descriptor) as entries:
        for entry in sorted(entries, key=_NAME_OF):
            name = entry.name
            if name.startswith(_IGNORED) or name.endswith(_TEMPORARY):
                continue
            try:
                statuses[name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went away meanwhile
    return statuses


def _has_directories(statuses: dict[str, os.stat_result], *, beside: str = "") -> bool:
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


def _is_whole(known: _KnownLayout, shelves: Mapping[str, Shelf]) -> bool:
    """Whether a layout that was complete still has the very files of its images."""
    return known.settled and all(each.files == layouts.fingerprint(each, shelves) for each in known.images)


def _kept(images: Iterable[Image], before: _KnownLayout | None) -> tuple[Image, ...]:
    """``images``, but where one is as it was ``before``, the very same object: then it is not new."""
    known = {(each.tag, each.digest): each for each in before.images} if before else {}
    old = ((known.get((each.tag, each.digest)), each) for each in images)
    return tuple(each if same != each or same is None else same for same, each in old)


def _identity(*statuses: os.stat_result | None) -> int:
    """Only all six together see every change; times alone miss what restores them."""
    return hash(tuple(each and _SIX(each) for each in statuses))


def _identity_of_tag(one: os.stat_result, two: os.stat_result) -> int:
    """The same of a tag directory and its manifest, written out: a light pass is made of little else."""
    return hash((
        one.st_dev, one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns, one.st_ctime_ns,
        two.st_dev, two.st_ino, two.st_mode, two.st_size, two.st_mtime_ns, two.st_ctime_ns,
    ))  # fmt: skip


def _fingerprint(statuses: dict[str, os.stat_result]) -> int:
    """Of the files of a directory. Making a link to a blob changes its ctime: only manifests have one."""
    parts: list[str | int] = []
    for name, each in statuses.items():
        parts += name, each.st_ino, each.st_mode, each.st_uid, each.st_gid, each.st_size, each.st_mtime_ns
        if name.endswith(MANIFEST):
            parts.append(each.st_ctime_ns)
    return hash(tuple(parts))
