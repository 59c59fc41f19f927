"""All that is remembered of a repository from one pass to the next: each fact once."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from operator import is_

from scr_watchd.daemon.resolve import Served
from scr_watchd.files import Reader
from scr_watchd.images.tree import RepositoryImages, Tree
from scr_watchd.oci.catalog import Catalog, Problem, Repository
from scr_watchd.oci.names import Digest, RepositoryName
from scr_watchd.publish.copying import Unlinked
from scr_watchd.publish.link import Linked
from scr_watchd.publish.store import Store, remark
from scr_watchd.render.http_conf import Fragment, fragments_of


@dataclass(slots=True)
class Entry:
    """What the tree had, what is in the store of that, what it was resolved to, and how that was rendered.
    Each step looks again at what is not the very same object; an entry that is forgotten makes a pass dearer,
    and finds the same."""

    found: RepositoryImages | None = None
    linked: Linked = field(default_factory=Linked)
    served: Served = field(default_factory=Served)
    fragment: Fragment | None = None
    is_tidy: bool = False
    """Whether the store has nothing of it but what it needs."""

    def forget(self) -> None:
        """Look at all of it again."""
        self.found, self.linked, self.is_tidy = None, Linked(), False

    def is_at_rest(
        self, found: RepositoryImages | None, published: Repository | None, *, is_close: bool
    ) -> bool:
        """Whether there is nothing to do, if the tree has that and that was published; what ``is_close`` asks
        the store as well."""
        return (
            self.found is found
            and self.served.repository is published
            and self.is_tidy
            and not self.linked.problems
            and not (is_close and self.linked.is_disturbed)
        )

    @property
    def is_gone(self) -> bool:
        return self.found is None and self.served.repository is None


class Entries(dict[RepositoryName, Entry]):
    """Those of all repositories that the tree has, or that are published."""

    def dirty(
        self, tree: Tree, published: Iterable[Repository], hashed: Collection[str], *, is_close: bool
    ) -> list[RepositoryName]:
        """The repositories with something to do, ``hashed`` images among them; and, if it ``is_close``, those
        whose directories in the store are not what they were."""
        known = {each.name: each for each in published}
        new = [name for name in tree.repositories if name not in self]
        return new + [
            name
            for name, entry in self.items()
            if name in hashed
            or not entry.is_at_rest(tree.repositories.get(name), known.get(name), is_close=is_close)
        ]

    def link(
        self,
        names: Iterable[RepositoryName],
        tree: Tree,
        store: Store,
        reader: Reader,
        hashed: dict[str, set[str]],
    ) -> set[RepositoryName]:
        """Bring what the tree has of the repositories ``names`` into the store, also images that were
        ``hashed`` since. Returns of which repositories that is: of more, if what is rotten was served for
        others too. Raises like ``Store.linking``, and then looks at all of them again."""
        for name in names:
            self.setdefault(name, Entry()).is_tidy = False
        linked: set[RepositoryName] = set()
        todo, again = list(names), False
        try:
            with store.linking(tree.root, reader, hashed) as linker:
                while todo:
                    for name in todo:
                        entry = self[name]
                        published = _published(entry.served.repository)
                        images = tree.of(name).images
                        entry.linked = linker.link(name, images, entry.linked, published, again=again)
                        linked.add(name)
                    rotten, linker.rotten = linker.rotten, []
                    todo = sorted({name for each in rotten for name in store.drop(each, self)})
                    again = True
        except BaseException:
            for name in (*linked, *todo):
                self[name].forget()
            raise
        for name in linked:
            self[name].found = tree.repositories.get(name)
            remark(self[name].linked)
        return linked

    def forget(self) -> None:
        for entry in self.values():
            entry.forget()

    def catalog(self, before: Catalog) -> Catalog:
        """All that is to be served: ``before`` itself if that is the same."""
        served = [self[name].served.repository for name in sorted(self)]
        found = tuple(each for each in served if each is not None)
        is_same = len(found) == len(before.repositories) and all(map(is_, found, before.repositories))
        return before if is_same else Catalog(found)

    def fragments(self, catalog: Catalog) -> list[Fragment]:
        """Of ``catalog``, each rendered only if it is not what it was."""
        known = {name: each.fragment for name, each in self.items() if each.fragment is not None}
        found = fragments_of(catalog, known)
        for each in found:
            self[each.repository.name].fragment = each
        return found

    @property
    def staying(self) -> list[RepositoryName]:
        """The repositories of which something stays that the tree has not: the guard counts over all of them,
        so they are looked at together, as soon as there is anything to do."""
        return [name for name, each in self.items() if each.served.only_stored]

    @property
    def problems(self) -> list[Problem]:
        return [problem for each in self.values() for problem in each.linked.problems]

    @property
    def waiting(self) -> int:
        """How many images wait for their hashes."""
        return sum(len(each.linked.waiting) for each in self.values())

    @property
    def unlinked(self) -> dict[tuple[RepositoryName, str], Unlinked]:
        """What the store has no hard links of, though others are, by repository and digest."""
        return {
            (name, key): found for name, each in self.items() for key, found in each.linked.unlinked.items()
        }


def _published(repository: Repository | None) -> set[tuple[str, Digest]]:
    """The images that nginx may answer with, by what they are called."""
    if repository is None:
        return set()
    return {*repository.tags.items(), *((digest, digest) for digest in repository.manifests)}
