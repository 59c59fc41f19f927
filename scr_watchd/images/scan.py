"""Scans the images tree again and again. The scan is the truth; file events are only hints.

A scanner remembers what it saw: a directory that has not changed is not read again. ``full`` looks
at every file, ``light`` only at directories and their manifest.json, which is enough for whatever
writers usually do and costs a fifth. Of an OCI layout it looks at index.json instead, and at the
directories of blobs.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scr_watchd.files import Reader, file_id, open_directory
from scr_watchd.images.bounds import within_bounds
from scr_watchd.images.findings import Findings
from scr_watchd.images.moves import free, move
from scr_watchd.images.seen import Seen
from scr_watchd.images.sparse import Key, key_of
from scr_watchd.images.tree import Tree, repositories_of
from scr_watchd.images.walk import Walk
from scr_watchd.oci.catalog import Image
from scr_watchd.words import printable


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
        self._found = Findings(str(root), prefix)
        self._tree = Tree()
        self._judged_for = reader
        self.directories = 0
        """How many directories the last scan looked into, with the root."""

    def full(self) -> Tree:
        """Look at every file. Raises ``OSError`` if the root itself cannot be read: a missing mount
        must not look like a deletion."""
        return self._scan(light=False)

    def light(self) -> Tree:
        """Look at every directory and manifest.json, and at every file of those that changed, that
        were incomplete, or that changed so recently that their timestamps may lie. Raises like
        ``full``."""
        return self._scan(light=True)

    def _scan(self, *, light: bool) -> Tree:
        if self._judged_for != self.reader:
            self._seen = {}
            self._judged_for = self.reader
        found = Findings(str(self.root), self._prefix)
        with open_directory(self.root) as descriptor:
            walk = Walk(
                self.root, descriptor, found, self._seen, self.reader, progress=self.progress, light=light
            )
            walk.root(parents=self._parents)
            root = file_id(os.fstat(descriptor))
        if root != self._tree.root or walk.seen != self._seen or found != self._found:
            # told of last, and not compared: what follows from all that was seen
            self._found = replace(found, problems=list(found.problems))
            images = _images(walk.seen, found)
            bounded = within_bounds(image for _, image in images)
            for image, reason, remedy in bounded.complaints:
                found.problem(image.place, reason, remedy, image.owner)
            self._tree = Tree(
                root,
                repositories_of(bounded, found.unfinished, self._tree.repositories),
                tuple(sorted(found.problems, key=lambda problem: problem.path)),
                tuple(sorted(found.hidden)),
                {key_of(image): walk.seen[path].changed for path, image in images if image.absent},
            )
        self._seen = walk.seen
        self.directories = walk.directories
        return self._tree


def _images(seen: Seen, found: Findings) -> list[tuple[str, Image]]:
    """The images, in the order of their paths; of those with one name the first. What lies at its own path
    outranks what a layout above calls so."""
    images: dict[Key, tuple[str, Image]] = {}
    every = [(path, image) for path in sorted(seen) for image in seen[path].images]
    if any(image.below for _, image in every):
        every.sort(key=lambda each: -len(each[0]) if each[1].below else -(2**31))
    for path, image in every:
        first = images.setdefault(key_of(image), (path, image))[1]
        if first.digest != image.digest:
            full, other = found.full(path), printable(first.place)
            found.problem(
                image.place if image.below else path,
                f"{image.repository}:{image.tag} is there twice, as another image in {other}",
                "Take one of them out, the directory or its name in the layout above"
                if image.below
                else f"Give it another tag: {move(full, free(full))}",
                image.owner,
            )
    return sorted(images.values(), key=lambda each: each[0])
