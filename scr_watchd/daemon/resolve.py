"""From what is in the tree, and what was published before, to what is to be served. Pure."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from scr_watchd.daemon.guard import held_since, is_another
from scr_watchd.files import FileId
from scr_watchd.images.bounds import Unlisted, within_bounds
from scr_watchd.images.scan import Scan
from scr_watchd.oci.catalog import (
    Catalog,
    CatalogBuilder,
    Image,
    ManifestFile,
    Reference,
    Referrer,
    Repository,
    by_repository,
    former_names,
)
from scr_watchd.oci.names import Digest, RepositoryName, Tag

StoredImage = Callable[[RepositoryName, Tag | None, Digest], Image | None]
Leaving = Mapping[tuple[RepositoryName, Digest], float]
_Tagged = tuple[RepositoryName, Tag, Digest]
_NONE: frozenset[Digest] = frozenset()


class Plain(NamedTuple):
    """A repository of nothing but images of the tree, those images, and which of them no list has."""

    images: list[Image]
    repository: Repository
    unlisted: frozenset[Digest]


@dataclass(frozen=True, slots=True)
class Before:
    """What was published last, and what was noted about it; times are seconds since 1970. What is the
    same as in ``plain``, which the last answer brought, need not be looked at again."""

    catalog: Catalog
    leaving: Leaving
    held_since: float | None
    root: FileId
    plain: Mapping[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """``prefix`` goes before every repository name. What was replaced or removed stays reachable by
    digest for ``grace_seconds``; what left before ``pruned`` does not. ``hold_seconds`` of 0, and
    ``accepted``, let removals pass, and so does a hold that has lasted (``held_for``) as long. The mounts
    around the root may have ``moved``."""

    prefix: str = ""
    grace_seconds: float = 0
    hold_seconds: float = 0
    pruned: float = -math.inf
    accepted: bool = False
    held_for: float = 0
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """``served`` is all of it: the images of the tree, and those that stay for a while. ``until`` is
    when the answer changes by itself."""

    catalog: Catalog
    served: tuple[Image, ...]
    pinned: tuple[Reference, ...]
    held: tuple[Reference, ...]
    held_since: float | None
    leaving: Leaving
    until: float
    plain: Mapping[str, Plain]

    @property
    def only_stored(self) -> tuple[Image, ...]:
        """What is served and not in the tree."""
        return tuple(image for image in self.served if not image.path)


def resolve(
    scan: Scan,
    images: tuple[Image, ...],
    before: Before,
    *,
    stored: StoredImage,
    policy: Policy,
    now: float,
) -> Resolved:
    """What to serve, given the ``images`` of ``scan`` that are in the store.

    A published tag whose directory is there without a complete image is being copied, or was broken;
    one below a directory that cannot be looked into may be anything; one that was scanned and is not
    among ``images`` changed, or waits to be checked. Each is *pinned*: it stays as it was, as long as
    ``stored`` has all of it. A tag whose directory is gone is gone, unless the guard *holds* it. What
    is gone leaves every list at once, and can be pulled by digest for the grace period.
    """
    groups = by_repository(images)
    same = _same(groups, before, scan.unlisted)
    looked_at = [image for name, group in groups.items() if name not in same for image in group]
    repositories = [each for each in before.catalog.repositories if each.name not in same]
    pinned, vanished = _missing(scan, looked_at, repositories, policy.prefix)
    since = held_since(
        tags=sum(len(repository.tags) for repository in before.catalog.repositories),
        vanished=len(vanished),
        moved=policy.moved or is_another(scan.root, before.root),
        since=before.held_since,
        held_for=policy.held_for,
        now=now,
        hold_seconds=0 if policy.accepted else policy.hold_seconds,
    )
    whole = _whole(before.catalog, stored)
    # while removals are held the store may lie on the disk that is away: then its word counts for
    # nothing, and all stays in the catalog, so that all is there again with the disk
    find = whole if since is None else _known(before.catalog, whole)
    pins = _stored(pinned, find)
    holds = _stored(vanished, find) if since is not None else ()
    # what stays has bounds of its own: what others drop takes nothing from it, nor it from them
    bounded = within_bounds((*pins, *holds))
    staying, unlisted = set(map(id, bounded.images)), _united(scan.unlisted, bounded.unlisted)
    pins, holds = (tuple(each for each in some if id(each) in staying) for some in (pins, holds))
    present = (*looked_at, *pins, *holds)
    leaving = _leaving(present, repositories, before.leaving, policy, now)
    going = {key: image for key in leaving if (image := find(key[0], None, key[1])) is not None}
    leaves = set(map(id, within_bounds(going.values()).images))
    going = {key: image for key, image in going.items() if id(image) in leaves}
    ends = [_end(left, policy.grace_seconds) for key, left in leaving.items() if key in going]
    if since is not None:
        ends.append(now + policy.hold_seconds - policy.held_for)
    made = catalog_of(present, going.values(), unlisted).repositories
    beside = {image.repository for image in (*pins, *holds, *going.values())}
    new: dict[str, Plain] = {
        each.name: Plain(groups[each.name], each, scan.unlisted.get(each.name, _NONE))
        for each in made
        if each.name not in beside
    }
    return Resolved(
        catalog=Catalog(tuple(sorted((*same.values(), *made), key=lambda each: each.name))),
        served=(*images, *pins, *holds, *going.values()),
        pinned=_references(pins),
        held=_references(holds),
        held_since=since,
        leaving={key: leaving[key] for key in going},
        until=min(ends, default=math.inf),
        plain={**{name: before.plain[name] for name in same}, **new},
    )


def _same(groups: Mapping[str, list[Image]], before: Before, unlisted: Unlisted) -> dict[str, Repository]:
    """The repositories that were plain and are made of the same images again."""
    found: dict[str, Repository] = {}
    for each in before.catalog.repositories:
        known = before.plain.get(each.name)
        if known is None or known.repository is not each:
            continue
        if known.images == groups.get(each.name) and known.unlisted == unlisted.get(each.name, _NONE):
            found[each.name] = each
    return found


def _united(one: Unlisted, other: Unlisted) -> Unlisted:
    return {name: one.get(name, _NONE) | other.get(name, _NONE) for name in {*one, *other}}


def catalog_of(
    images: Iterable[Image], going: Iterable[Image] = (), unlisted: Unlisted | None = None
) -> Catalog:
    """The catalog that has every tag and every manifest of ``images``, and as leaving the manifests of
    ``going``, which no list names any more; no list names the ``unlisted`` referrers either."""
    hidden = unlisted or {}
    builder = CatalogBuilder()
    for image in images:
        for manifest in image.manifests:
            builder.manifest(image.repository, manifest.digest, manifest.media_type)
            if manifest.referral is not None and manifest.digest not in hidden.get(image.repository, _NONE):
                referrer = Referrer(manifest.size, manifest.referral)
                builder.referrer(image.repository, manifest.digest, referrer)
        if image.tag is not None:
            builder.tag(image.repository, image.tag, image.digest)
    for image in going:
        for manifest in image.manifests:
            builder.leaving(image.repository, manifest.digest, manifest.media_type)
    return builder.catalog()


def _missing(
    scan: Scan, images: Iterable[Image], before: Iterable[Repository], prefix: str
) -> tuple[list[_Tagged], list[_Tagged]]:
    """The published tags that are not among ``images``: those to pin, and those that are gone."""
    present: dict[RepositoryName, set[Tag | None]] = {}
    for image in images:
        present.setdefault(image.repository, set()).add(image.tag)
    missing = [
        (repository.name, tag, repository.tags[tag])
        for repository in before
        for tag in sorted(repository.tags.keys() - present.get(repository.name, set()))
    ]
    if not missing:
        return [], []
    renamed = former_names(scan.images)
    of_layouts = {(each.repository, each.tag, each.digest) for each in scan.images if each.is_in_layout}
    there = scan.unfinished | {(image.repository, image.tag) for image in scan.images}
    pinned: list[_Tagged] = []
    vanished: list[_Tagged] = []
    for name, tag, digest in missing:
        if (name, tag) in scan.beyond:
            continue  # neither: it is there, and has no room any more
        if (name, tag, digest) in renamed or any((each, tag, digest) in of_layouts for each in _above(name)):
            continue  # it is there by another name: its layout came to have several repositories, or one
        stays = (name, tag) in there or _is_hidden(name.removeprefix(prefix), tag, scan.hidden)
        (pinned if stays else vanished).append((name, tag, digest))
    return pinned, vanished


def _above(name: str) -> Iterator[RepositoryName]:
    """``a/b`` and ``a`` of ``a/b/c``."""
    while name := name.rpartition("/")[0]:
        yield RepositoryName(name)


def _whole(catalog: Catalog, stored: StoredImage) -> StoredImage:
    """Like ``stored``, but nothing where a child of an index is missing that ``catalog`` has: another that is
    absent was never there."""
    repositories = {each.name: each for each in catalog.repositories}

    def find(name: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
        image = stored(name, tag, digest)
        if image is None or not image.absent or name not in repositories:
            return image
        lost = repositories[name].pullable.keys() & {each.digest for each in image.absent}
        return None if lost else image

    return find


def _known(catalog: Catalog, stored: StoredImage) -> StoredImage:
    """Like ``stored``, but where that has nothing an image as far as ``catalog`` knows it."""
    repositories = {each.name: each for each in catalog.repositories}

    def find(name: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
        image = stored(name, tag, digest)
        if image is None and name in repositories and digest in repositories[name].pullable:
            image = Image("", name, tag, (_known_manifest(repositories[name], digest),), ())
        return image

    return find


def _known_manifest(repository: Repository, digest: Digest) -> ManifestFile:
    referrer = repository.referrers.get(digest)
    size, referral = (referrer.size, referrer.referral) if referrer else (0, None)
    return ManifestFile(digest, repository.pullable[digest], size, "", referral)


def _stored(tagged: Iterable[_Tagged], stored: StoredImage) -> tuple[Image, ...]:
    found = (stored(name, tag, digest) for name, tag, digest in tagged)
    return tuple(image for image in found if image is not None)


def _leaving(
    present: Iterable[Image], before: Iterable[Repository], known: Leaving, policy: Policy, now: float
) -> Leaving:
    """When each manifest left that was published, is not ``present``, and has grace left."""
    kept: dict[RepositoryName, set[Digest]] = {}
    for image in present:
        kept.setdefault(image.repository, set()).update(manifest.digest for manifest in image.manifests)
    leaving = {}
    for repository in before:
        for digest in sorted(repository.pullable.keys() - kept.get(repository.name, set())):
            key = repository.name, digest
            left = min(known.get(key, now), now)  # a clock may have been set back
            if left >= policy.pruned and now < _end(left, policy.grace_seconds):
                leaving[key] = left
    return leaving


def _end(left: float, grace_seconds: float) -> float:
    """When the grace of what ``left`` ends: at few moments, so that one pass does for many."""
    step = max(1.0, grace_seconds / 4)
    return math.ceil((left + grace_seconds) / step) * step if grace_seconds else left


def _references(images: Iterable[Image]) -> tuple[Reference, ...]:
    return tuple((image.repository, image.tag) for image in images if image.tag is not None)


def _is_hidden(name: str, tag: str, hidden: Iterable[str]) -> bool:
    paths = (f"{name}/{tag}", f"{name}:{tag}")
    return any(not each or path == each or path.startswith(f"{each}/") for each in hidden for path in paths)
