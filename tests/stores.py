"""A store that is given whole trees, as a pass does it: what it has of each repository is remembered."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from scr_watchd.files import ANYBODY, Reader, file_id
from scr_watchd.images.tree import Tree
from scr_watchd.oci.catalog import Image, Problem, by_repository
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.hashing import Hasher
from scr_watchd.publish.link import Linked
from scr_watchd.publish.place import StorePlace
from scr_watchd.publish.proof import Prover
from scr_watchd.publish.store import Store, remark


@dataclass
class Taken:
    images: tuple[Image, ...]
    problems: tuple[Problem, ...]
    waiting: int


@dataclass
class Stored:
    """The store at ``place`` of the tree ``root``; what it has, whole, when this begins, and what it takes
    later, counts as published."""

    place: StorePlace
    root: Path
    hasher: Hasher | None = None
    trusting: bool = False
    progress: Callable[[], None] = lambda: None
    linked: dict[RepositoryName, Linked] = field(default_factory=dict)
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        hasher = self.hasher or Hasher(self.root, lambda: None)
        prover = Prover(hasher, self.place.path, self.progress, self.trusting, self.hasher is not None)
        self.store = Store(self.place, self.root, prover, progress=self.progress)

    def take(self, tree: Tree | Iterable[Image], *, reader: Reader = ANYBODY) -> Taken:
        images = by_repository(tree.images if isinstance(tree, Tree) else tree)
        root = tree.root if isinstance(tree, Tree) else file_id(self.root.stat())
        hashed = self.store.prover.begin()
        for name in {*self.linked, *images}:
            self.linked.setdefault(name, Linked())
        todo, again = [*images], False
        with self.store.linking(root, reader, hashed) as linker:
            while todo:
                for name in todo:
                    before = self.linked[name]
                    known = before.images or self._former(images[name])
                    published = {(each.tag or each.digest, each.digest) for each in known}
                    self.linked[name] = linker.link(name, images[name], before, published, again=again)
                rotten, linker.rotten = linker.rotten, []
                repositories = [*self.store.repositories()] if rotten else []
                dropped = {name for each in rotten for name in self.store.drop(each, repositories)}
                todo = sorted(dropped & images.keys())
                again = True
        for name, each in list(self.linked.items()):
            if name not in images:
                del self.linked[name]
            remark(each)
        self.store.prover.end(began=None)
        every = self.linked.values()
        return Taken(
            tuple(image for each in every for image in each.images),
            tuple(problem for each in every for problem in each.problems),
            sum(len(each.waiting) for each in every),
        )

    def _former(self, images: Iterable[Image]) -> list[Image]:
        return [each for each in images if self.image(each.repository, each.tag, each.digest) is not None]

    @property
    def has_news(self) -> bool:
        return self.store.prover.hasher.has_news

    @property
    def is_there(self) -> bool:
        return not any(each.is_disturbed for each in self.linked.values())

    def image(self, name: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
        return self.store.image(name, tag, digest)

    def prune(self, images: Iterable[Image]) -> int:
        needed = by_repository((*images, *(image for each in self.linked.values() for image in each.waiting)))
        names = sorted({*self.store.repositories(), *needed}, reverse=True)
        removed = sum(self.store.prune(name, needed.get(name, ())) for name in names)
        for each in self.linked.values():
            remark(each)
        return removed

    def only_here(self, images: Iterable[Image]) -> int:
        return self.store.only_here(images)

    def hash_the_rest(self) -> None:
        self.store.prover.hash_the_rest()

    def prune_former(self) -> None:
        self.store.prune_former()
