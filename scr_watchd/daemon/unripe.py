"""Takes sparse images out of a tree that are not served yet, and says which have another name than before."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from scr_watchd.daemon.entry import Entry
from scr_watchd.daemon.resolve import StoredImage
from scr_watchd.images.sparse import Ripening, Unripe
from scr_watchd.images.tree import Tree
from scr_watchd.oci.catalog import Catalog, Image, Reference, former_names
from scr_watchd.oci.names import RepositoryName


@dataclass(slots=True)
class Ripe:
    """Remembers its last answer: a tree in which nothing has changed is the very same object."""

    ripening: Ripening = field(default_factory=Ripening)
    _of: Tree = field(default_factory=Tree)
    _unripe: tuple[Unripe, ...] = ()
    _answer: Tree = field(default_factory=Tree)

    def without_unripe(self, tree: Tree, published: Catalog, stored: StoredImage) -> Tree:
        """The tree without the sparse images that are not served yet, given what is ``published``."""
        if not tree.changed:
            return tree
        tags = {each.name: each.tags for each in published.repositories}

        def served(image: Image) -> Image | None:
            digest = tags.get(image.repository, {}).get(image.tag) if image.tag is not None else None
            return stored(image.repository, image.tag, digest) if digest is not None else None

        unripe = self.ripening.unripe(tree.images, tree.changed, now=time.time(), served=served)
        if tree is not self._of or unripe != self._unripe:
            self._answer = tree.without(unripe, self._answer)
            self._of, self._unripe = tree, unripe
        return self._answer


def renamed(
    tree: Tree, before: Catalog, after: Catalog, entries: Mapping[RepositoryName, Entry]
) -> tuple[tuple[Reference, Reference], ...]:
    """The old and the new names of images whose layout has several repositories now, for as long as what had
    the old name can be pulled there."""
    if not (names := former_names(tree.images)):
        return ()
    old, new = before.tags(), after.tags()
    return tuple(
        ((name, tag), now)
        for (name, tag, digest), now in names.items()
        if (name, tag) not in new
        and now in new
        and (old.get((name, tag)) == digest or (name in entries and digest in entries[name].served.leaving))
    )
