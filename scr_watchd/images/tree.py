"""The images tree at one moment, by repository."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from scr_watchd.files import FileId
from scr_watchd.images.bounds import Bounded
from scr_watchd.images.sparse import Key, Unripe, key_of
from scr_watchd.oci.catalog import Image, Problem, Reference, former_names
from scr_watchd.oci.names import Digest, RepositoryName, Tag


@dataclass(frozen=True, slots=True)
class RepositoryImages:
    """What the tree has of a repository.

    ``images`` are complete and have room, in the order of their paths. ``unfinished`` are the tags whose
    directory is there without a complete image; ``beyond`` those that are complete and for which the
    bounds leave no room, as they leave none for the ``unlisted`` referrers in any list.
    """

    name: RepositoryName
    images: tuple[Image, ...] = ()
    unfinished: frozenset[Tag] = frozenset()
    beyond: frozenset[Tag] = frozenset()
    unlisted: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class Tree:
    """All that was found. A repository is the very same object as in the look before if nothing of it
    has changed: that is how the rest knows what has.

    ``root`` is the directory that was walked, whatever has come to lie at its path since. ``hidden`` are
    the directories (relative to the root, which is empty) that could not be looked into, and layouts
    whose index.json cannot be read: of them, therefore, nothing may be taken for deleted. ``changed`` says
    of each sparse image when something changed last where it lies, in nanoseconds since 1970; ``unripe`` are
    those that were taken out of ``images`` for that.
    """

    root: FileId = (0, 0)
    repositories: Mapping[RepositoryName, RepositoryImages] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    hidden: tuple[str, ...] = ()
    changed: Mapping[Key, int] = field(default_factory=dict)
    unripe: tuple[Unripe, ...] = ()

    def without(self, unripe: tuple[Unripe, ...], before: "Tree | None" = None) -> "Tree":
        """The same, as long as what is ``unripe`` is not served; repositories that are as ``before`` are the
        objects of then."""
        if not unripe:
            return self
        waiting = {key_of(each.image) for each in unripe}
        repositories = dict(self.repositories)
        for name in {each.image.repository for each in unripe}:
            found = self.repositories[name]
            tags = {each.image.tag for each in unripe if each.image.repository == name and each.image.tag}
            new = replace(
                found,
                images=tuple(each for each in found.images if key_of(each) not in waiting),
                unfinished=found.unfinished | tags,
            )
            old = before.repositories.get(name) if before else None
            repositories[name] = old if old is not None and old == new else new
        return replace(self, repositories=repositories, unripe=unripe)

    def of(self, name: RepositoryName) -> RepositoryImages:
        return self.repositories.get(name) or RepositoryImages(name)

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(image for each in self.repositories.values() for image in each.images)

    @property
    def unfinished(self) -> frozenset[Reference]:
        return frozenset((each.name, tag) for each in self.repositories.values() for tag in each.unfinished)


class Renames:
    """Whether a tag is in the tree by another name, since its layout came to have several repositories, or
    one. Asked of what has vanished only: it is made when it is needed."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._names: set[tuple[RepositoryName, Tag | None, Digest]] | None = None
        self._former: Mapping[tuple[RepositoryName, Tag, Digest], Reference] = {}

    def __call__(self, name: RepositoryName, tag: Tag, digest: Digest) -> bool:
        if self._names is None:
            layouts = [each for each in self._tree.images if each.is_in_layout]
            self._former = former_names(layouts)
            self._names = {(each.repository, each.tag, each.digest) for each in layouts}
        parents = [name[: -len(end)] for end in _ends(name)]
        return (name, tag, digest) in self._former or any(
            (RepositoryName(each), tag, digest) in self._names for each in parents
        )


def _ends(name: str) -> list[str]:
    """``/b/c`` and ``/c`` of ``a/b/c``."""
    parts = name.split("/")
    return ["/" + "/".join(parts[count:]) for count in range(1, len(parts))]


def repositories_of(
    images: Mapping[RepositoryName, tuple[Image, ...]],
    bounded: Bounded,
    unfinished: Iterable[Reference],
    before: Mapping[RepositoryName, RepositoryImages],
    only: Collection[RepositoryName] | None = None,
) -> dict[RepositoryName, RepositoryImages]:
    """What was found, by repository; those that are as ``before`` are the objects of then, and so are all but
    ``only`` these."""
    waiting, beyond = _tags(unfinished), _tags(bounded.beyond)
    none: frozenset[Tag] = frozenset()
    found = {} if only is None else dict(before)
    for name in only if only is not None else {**images, **waiting, **beyond}:
        new = RepositoryImages(
            name,
            images.get(name, ()),
            waiting.get(name, none),
            beyond.get(name, none),
            bounded.unlisted.get(name, frozenset()),
        )
        if new.images or new.unfinished or new.beyond:
            old = before.get(name)
            found[name] = old if old == new and old is not None else new
        else:
            found.pop(name, None)
    return found


def _tags(references: Iterable[Reference]) -> dict[RepositoryName, frozenset[Tag]]:
    found: dict[RepositoryName, set[Tag]] = {}
    for name, tag in references:
        found.setdefault(name, set()).add(tag)
    return {name: frozenset(tags) for name, tags in found.items()}
