"""What was seen in the tree, by repository: a change of one costs the others nothing."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from scr_watchd.images.bounds import Bounded, Complaint, Weight, fit, weigh, within_bounds
from scr_watchd.images.moves import free, move
from scr_watchd.images.seen import Seen
from scr_watchd.images.sparse import Key, key_of
from scr_watchd.oci.catalog import Image, Problem, by_repository
from scr_watchd.oci.names import RepositoryName
from scr_watchd.words import printable

Images = Mapping[str, Collection[Image]]
"""By the path of the directory, the link or the layout that has them."""


@dataclass(frozen=True, slots=True)
class _Group:
    """``images`` in the order of their paths, of those with one name the first. ``changed`` says when
    something changed last where a sparse one lies."""

    images: tuple[Image, ...]
    problems: tuple[Problem, ...]
    changed: Mapping[Key, int]
    weight: Weight


class Groups:
    """The images of each repository, in a tree that messages show as ``root``."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._paths: dict[RepositoryName, list[str]] = {}
        self._groups: dict[RepositoryName, _Group] = {}

    def change(self, seen: Seen, gone: Images, new: Images) -> set[RepositoryName]:
        """Have images be ``gone`` and ``new`` ones come; ``seen`` is all that there is now. Returns the
        repositories of which something differs."""
        for path, images in gone.items():
            for name in {image.repository for image in images}:
                self._paths[name].remove(path)
        for path, images in new.items():
            for name in {image.repository for image in images}:
                self._paths.setdefault(name, []).append(path)
        before = {id(image) for images in gone.values() for image in images}
        after = {id(image) for images in new.values() for image in images}
        differ = before ^ after
        every = (image for images in (*gone.values(), *new.values()) for image in images)
        changed = {each.repository for each in every if id(each) in differ or each.absent}
        split: dict[str, dict[RepositoryName, list[Image]]] = {}
        for name in changed:
            if paths := self._paths[name]:
                paths.sort()
                self._groups[name] = self._group(name, paths, seen, split)
            else:
                del self._paths[name]
                self._groups.pop(name, None)
        return changed

    def have_room(self) -> bool:
        """Whether nothing is beyond a bound."""
        return fit(group.weight for group in self._groups.values())

    def images(self, only: Iterable[RepositoryName] | None) -> dict[RepositoryName, tuple[Image, ...]]:
        """Of all repositories, in the order of their paths, or of ``only`` some."""
        every = sorted(self._groups, key=lambda name: (self._paths[name][0], name)) if only is None else only
        return {name: self._groups[name].images for name in every if name in self._groups}

    @property
    def complaints(self) -> tuple[Complaint, ...]:
        """What is to be said of single images, where all have room."""
        return tuple(each for group in self._groups.values() for each in group.weight.complaints)

    def bounded(self) -> Bounded:
        """What has room where not all have, and what is to be said of the rest."""
        return within_bounds(image for group in self._groups.values() for image in group.images)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with images beside others."""
        return [each for group in self._groups.values() for each in group.problems]

    @property
    def changed(self) -> dict[Key, int]:
        """When something changed last where a sparse image lies."""
        return {key: at for group in self._groups.values() for key, at in group.changed.items()}

    def _group(
        self,
        name: RepositoryName,
        paths: Iterable[str],
        seen: Seen,
        split: dict[str, dict[RepositoryName, list[Image]]],
    ) -> _Group:
        """What lies at its own path outranks what a layout above calls so. ``split`` are images of layouts
        with several repositories."""
        every: list[tuple[str, Image]] = []
        for path in paths:
            images = seen[path].images
            if len(images) > 1:
                if path not in split:
                    split[path] = by_repository(images)
                images = tuple(split[path][name])
            every += [(path, image) for image in images]
        if any(image.below for _, image in every):
            every.sort(key=lambda each: -len(each[0]) if each[1].below else -(2**31))
        kept: dict[Key, tuple[str, Image]] = {}
        problems = []
        for path, image in every:
            first = kept.setdefault(key_of(image), (path, image))[1]
            if first.digest != image.digest:
                problems.append(self._twice(path, image, first))
        images = tuple(image for _, image in sorted(kept.values(), key=lambda each: each[0]))
        changed = {key_of(image): seen[path].changed for path, image in kept.values() if image.absent}
        return _Group(images, tuple(problems), changed, weigh(images))

    def _twice(self, path: str, image: Image, first: Image) -> Problem:
        full = f"{self._root}/{path}"
        return Problem(
            printable(f"{self._root}/{image.place}" if image.below else full),
            f"{image.repository}:{image.tag} is there twice, as another image in {printable(first.place)}",
            "Take one of them out, the directory or its name in the layout above"
            if image.below
            else f"Give it another tag: {move(full, free(full))}",
            image.owner,
        )
