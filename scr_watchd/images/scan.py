"""Scans the images tree again and again. The scan is the truth; file events are only hints.

A scanner remembers what it saw: a directory that has not changed is not read again. ``full`` looks
at every file, ``light`` only at directories and their manifest.json, which is enough for whatever
writers usually do and costs a fifth. Of an OCI layout it looks at index.json instead, and at the
directories of blobs. ``at`` looks where something is said to have happened.
"""

import os
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from scr_watchd.files import FileId, Reader, file_id, open_directory
from scr_watchd.images.bounds import Bounded
from scr_watchd.images.findings import Findings
from scr_watchd.images.groups import Groups
from scr_watchd.images.places import EVERYWHERE, Cover, Place, PlacesWalk
from scr_watchd.images.seen import Seen
from scr_watchd.images.tree import Tree, repositories_of
from scr_watchd.images.walk import Walk
from scr_watchd.oci.catalog import Image, Problem, Reference
from scr_watchd.oci.names import RepositoryName
from scr_watchd.words import printable

_FEW = 100  # paths that are put in order one by one


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
        self.progress = progress
        self._seen: Seen = {}
        self._paths: list[str] | None = None
        """Those of ``_seen`` in their order, once they are needed."""
        self._found = self._nothing()
        self._groups = Groups(str(root))
        self._had_room = True
        self._tree = Tree()
        self._judged_for = reader
        self.directories = 0
        """How many directories the last look at everything came to, with the root."""
        self.incomplete: frozenset[str] = frozenset()
        """The hints of the last look of which more is to come, or is to be said."""
        self.recent: frozenset[str] = frozenset()
        """Those where something changed so recently that another change may have left the same timestamps."""

    def full(self) -> Tree:
        """Look at every file. Raises ``OSError`` if the root itself cannot be read: a missing mount
        must not look like a deletion."""
        return self._everything(light=False)

    def light(self) -> Tree:
        """Look at every directory and manifest.json, and at every file of those that changed, that
        were incomplete, or that changed so recently that their timestamps may lie. Raises like
        ``full``."""
        return self._everything(light=True)

    def at(self, hints: Mapping[str, bool], *, full: bool = False) -> Tree:
        """Look at what the ``hints`` name (see ``places``), and at the symbolic links that lead there. At
        those that are not settled nothing is said to be wrong or gone yet: a tag that was there is
        unfinished. ``EVERYWHERE`` is one as well, of a ``full`` or a light look. Raises like ``full``."""
        with open_directory(self.root) as descriptor:
            is_known = file_id(os.fstat(descriptor)) == self._tree.root and self._judged_for == self.reader
            if is_known and not (self._parents and self._found.knows("")):
                self._at(descriptor, hints, full=full)
                return self._tree
        return self._everything(light=not full)

    @property
    def uneasy(self) -> list[str]:
        """Where another look may find something else though no event tells of it: what is wrong may be mended
        by a chmod, and a sparse image is served once nothing has changed for a while."""
        found = self._found
        sparse = [path for path, each in self._seen.items() if each.changed and not each.settled]
        return [*{*found.problems, *found.unfinished, *found.vanishing, *found.hidden}, *sparse]

    # -- at everything -------------------------------------------------------------------------------

    def _everything(self, *, light: bool) -> Tree:
        before = self._seen if self._judged_for == self.reader else {}
        found = self._nothing()
        with open_directory(self.root) as descriptor:
            walk = Walk(
                self.root, descriptor, found, before, self.reader, progress=self.progress, light=light
            )
            walk.root(parents=self._parents)
            root = file_id(os.fstat(descriptor))
        self.directories, self._judged_for = walk.directories, self.reader
        self.incomplete = self.recent = frozenset()
        if root != self._tree.root or walk.seen != self._seen or found != self._found:
            exchanged = _exchanged(self._seen, walk.seen)
            self._seen, self._found, self._paths = walk.seen, found, None
            self._groups.change(walk.seen, *exchanged)
            self._tell(root)
        return self._tree

    # -- at places -----------------------------------------------------------------------------------

    def _at(self, descriptor: int, hints: Mapping[str, bool], *, full: bool) -> None:
        before, found, progress = self._found, self._nothing(), self.progress
        walk = PlacesWalk(
            self.root,
            descriptor,
            found,
            self._seen,
            self.reader,
            progress=progress,
            light=not full,
            known=before,
        )
        places = walk.at(hints)
        hasty = {each for hint, some in places.items() if not hints[hint] for each in some}
        judged = {each for some in places.values() for each in some}
        leading = [link for link, real in before.links.items() if any(each.meets(real) for each in judged)]
        linked = walk.links(_beside(judged, leading))
        judged |= set(linked)
        if all(hints.values()):
            judged |= set(walk.links(_beside(judged, before.links)))  # one link may lead to another
        else:
            hasty |= set(linked)
        unfinished = set(found.unfinished)
        doubtful = self._merge(walk.seen, found, judged, Cover(hasty))
        if EVERYWHERE in hints:
            self.directories = walk.directories
            self.incomplete, self.recent = frozenset(hints if doubtful else ()), frozenset()
            return
        doubtful |= unfinished
        self.incomplete = frozenset(
            hint
            for hint, some in places.items()
            if not (some or hints[hint]) or any(each.has(path) for each in some for path in doubtful)
        )
        new = [path for path, each in walk.seen.items() if not each.settled]
        self.recent = frozenset(
            hint for hint, some in places.items() if any(each.has(path) for each in some for path in new)
        )

    def _merge(self, seen: Seen, found: Findings, judged: Collection[Place], hasty: Cover) -> set[str]:
        """Take up what was ``seen`` and ``found`` where it was ``judged``. Returns of which paths more
        is to be said later."""
        self._paths = sorted(self._seen) if self._paths is None else self._paths
        old = {path: self._seen[path] for place in judged for path in place.among(self._paths)}
        cover, former = Cover(judged), self._nothing()
        self._found.move([path for path in self._found.paths if cover.has(path)], former)
        doubtful = set()
        for path in [path for path in found.problems if hasty.has(path)]:
            told = [each for each in found.problems[path] if each in former.problems.get(path, ())]
            if told != found.problems[path]:
                doubtful.add(path)
                found.problems[path] = told
        there = {tag for each in seen.values() for tag in _tags(each.images)}
        for path in [path for path in {*old, *former.vanishing} if hasty.has(path)]:
            tags = _tags(old[path].images if path in old else ()) | former.vanishing.get(path, set())
            if tags := tags - there:
                found.vanishing[path] = tags
        doubtful |= {*found.vanishing}
        if found != former or seen != old:
            names = {name for each in (former, found) for name, _ in each.waiting}
            self._found.take(found)
            self._put(old, seen)
            names |= self._groups.change(self._seen, *_exchanged(old, seen))
            self._tell(self._tree.root, names)
        else:
            self._found.take(former)
        return doubtful

    def _put(self, old: Seen, new: Seen) -> None:
        gone, come = [path for path in old if path not in new], [path for path in new if path not in old]
        for path in gone:
            del self._seen[path]
        self._seen.update(new)
        if self._paths is None or len(gone) + len(come) > _FEW:
            self._paths = None
            return
        for path in gone:
            del self._paths[bisect_left(self._paths, path)]
        for path in come:
            insort(self._paths, path)

    # -- what follows --------------------------------------------------------------------------------

    def _tell(self, root: FileId, only: Collection[RepositoryName] | None = None) -> None:
        """Make a tree of all that was found; where nothing else has changed, of ``only`` these repositories
        anew."""
        found, has_room = self._found, self._groups.have_room()
        bounded = Bounded((), self._groups.complaints) if has_room else self._groups.bounded()
        some = only if has_room and self._had_room else None
        self._had_room = has_room
        images = self._groups.images(some) if has_room else bounded.by_repository
        complaints = [
            Problem(printable(found.full(image.place)), reason, remedy, image.owner)
            for image, reason, remedy in bounded.complaints
        ]
        every = (*found.problems.values(), self._groups.problems, complaints)
        self._tree = Tree(
            root,
            repositories_of(images, bounded, found.waiting, self._tree.repositories, some),
            tuple(sorted((each for part in every for each in part), key=lambda each: each.path)),
            tuple(sorted(found.hidden)),
            self._groups.changed,
        )

    def _nothing(self) -> Findings:
        return Findings(str(self.root), self._prefix)


def _exchanged(old: Seen, new: Seen) -> tuple[dict[str, Collection[Image]], dict[str, Collection[Image]]]:
    """The images that are gone and those that came, by their paths."""
    return (
        {path: each.images for path, each in old.items() if new.get(path) is not each},
        {path: each.images for path, each in new.items() if old.get(path) is not each},
    )


def _beside(places: Iterable[Place], paths: Iterable[str]) -> list[str]:
    """Those of ``paths`` that lie in none of ``places``."""
    cover = Cover(places)
    return [each for each in paths if not cover.has(each)]


def _tags(images: Iterable[Image]) -> set[Reference]:
    return {(each.repository, each.tag) for each in images if each.tag is not None}
