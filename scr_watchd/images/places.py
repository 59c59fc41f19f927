"""Looks at single places of the images tree: at what hints name, and finds there what a look at everything
would.

A hint is a path, relative to the root, at which something was made, removed or written, whatever it is now.
One that ends in "/" tells of some files in that directory.
"""

import os
import stat
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType

from scr_watchd.files import open_directory
from scr_watchd.images import layout as layouts
from scr_watchd.images.directory import MANIFEST
from scr_watchd.images.walk import DEEPEST, Walk, entries_of, is_ignored

EVERYWHERE = ""
ALL: Mapping[str, bool] = MappingProxyType({EVERYWHERE: True})
"""The hint that something changed somewhere, some time ago."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk looked: at ``path`` and at all below it or, if it is ``shallow``, at ``path`` itself and
    at those of its entries that are no ``directories``."""

    path: str
    is_shallow: bool = False
    directories: frozenset[str] = frozenset()

    def has(self, path: str) -> bool:
        if path == self.path:
            return True
        if self.is_shallow:
            parent, _, name = path.rpartition("/")
            return parent == self.path and name not in self.directories
        return self.path == EVERYWHERE or path.startswith(f"{self.path}/")

    def among(self, paths: Sequence[str]) -> list[str]:
        """Those of ``paths``, which are sorted, that lie in it."""
        if self.path == EVERYWHERE:
            return [each for each in paths if self.has(each)]
        at = bisect_left(paths, self.path)
        itself = paths[at : at + 1] if paths[at : at + 1] == [self.path] else []
        below = paths[bisect_left(paths, f"{self.path}/") : bisect_left(paths, f"{self.path}0")]
        return [*itself, *(each for each in below if self.has(each))]

    def meets(self, path: str) -> bool:
        """Whether one lies in the other."""
        return self.has(path) or self.path.startswith(f"{path}/")


class PlacesWalk(Walk):
    """A walk that goes to single places only, or ``EVERYWHERE``."""

    def at(self, hints: Mapping[str, bool]) -> dict[str, list[Place]]:
        """Look at what the ``hints`` name, which are settled or not: then nothing is to be said of a file
        beside which there is no image, and of what lies around something that is gone. Returns the places
        of each hint; what several name is looked at once."""
        found: dict[str, list[Place]] = {}
        whole: dict[str, list[Place]] = {}
        for hint in sorted(hints):
            above = next((each for each in with_those_above(hint.rstrip("/")) if each in whole), None)
            found[hint] = whole[above] if above is not None else self._at(hint, is_settled=hints[hint])
            whole |= {each.path: [each] for each in found[hint] if not each.is_shallow}
        return found

    def links(self, links: Iterable[str]) -> list[Place]:
        """Look at symbolic links again: nothing need have happened to one for it to lead elsewhere."""
        return [place for link in links for place in self._at(link, is_settled=False)]

    def _at(self, hint: str, *, is_settled: bool) -> list[Place]:
        if hint == EVERYWHERE:
            self.root(parents=False)
            return [Place(EVERYWHERE)]
        path, parts = "", [each for each in hint.split("/") if each]
        with ExitStack() as stack:
            parent = above = self._descriptor
            name, status, depth = "", os.fstat(parent), 0
            for part in parts:
                below = f"{path}/{part}" if path else part
                try:
                    found = None if is_ignored(part) else os.stat(part, dir_fd=parent, follow_symlinks=False)
                except OSError:
                    around = self._files(above, parent, name, path, status, depth) if is_settled else []
                    return [Place(below), *around]
                if found is not None and stat.S_ISLNK(found.st_mode):
                    self._file(below, found, {})
                    return [Place(below)]
                if found is None or not stat.S_ISDIR(found.st_mode):
                    break
                above, name, status, path, depth = parent, part, found, below, depth + 1
                if below == hint or self._is_known(below) or depth > DEEPEST:
                    return self._whole(above, name, path, status, depth, light=below != hint)
                if not self._reader.may_enter(status):
                    return self._whole(above, name, path, status, depth)
                try:
                    parent = stack.enter_context(open_directory(name, within=above))
                except OSError:
                    return self._whole(above, name, path, status, depth)
                if _is_layout(parent):
                    return self._whole(above, name, path, status, depth)
            if path and layouts.lstat(MANIFEST, parent):
                return self._whole(above, name, path, status, depth)
            return self._files(above, parent, name, path, status, depth) if is_settled else []

    def _is_known(self, path: str) -> bool:
        """Whether something was found at ``path`` itself: what lies in it may be part of that."""
        return path in self._before or self._known.knows(path)

    def _whole(
        self, parent: int, name: str, path: str, status: os.stat_result, depth: int, *, light: bool = False
    ) -> list[Place]:
        """Look at a directory and all below it; ``light`` at what was known there."""
        self._light = light
        with self._found.at(path, status.st_uid):
            self._directory(parent, name, path, status, depth)
        return [Place(path)]

    def _files(
        self, above: int, descriptor: int, name: str, path: str, status: os.stat_result, depth: int
    ) -> list[Place]:
        """Look at what directories below it do not change: at a directory itself, and at its files."""
        statuses = entries_of(descriptor)
        if path and MANIFEST in statuses:
            return self._whole(above, name, path, status, depth)
        if path:
            with self._found.at(path, status.st_uid):
                self._one(descriptor, path, statuses, status=status, owner=status.st_uid)
        else:
            self._root_itself(statuses)
        directories = {each for each, found in statuses.items() if stat.S_ISDIR(found.st_mode)}
        for each, found in statuses.items():
            if each not in directories:
                self._file(f"{path}/{each}" if path else each, found, statuses)
        return [Place(path, is_shallow=True, directories=frozenset(directories))]


class Cover:
    """Several places."""

    def __init__(self, places: Iterable[Place]) -> None:
        every = tuple(places)
        self._whole = {each.path for each in every if not each.is_shallow}
        self._shallow = [each for each in every if each.is_shallow]

    def has(self, path: str) -> bool:
        if self._whole and any(each in self._whole for each in with_those_above(path)):
            return True
        return any(each.has(path) for each in self._shallow)


def with_those_above(path: str) -> Iterable[str]:
    """``path``, and what it lies in, up to ``EVERYWHERE``."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield EVERYWHERE


def _is_layout(descriptor: int) -> bool:
    found = {name: layouts.lstat(name, descriptor) for name in (layouts.LAYOUT, layouts.BLOBS, MANIFEST)}
    return layouts.is_layout(descriptor, {name: each for name, each in found.items() if each is not None})
