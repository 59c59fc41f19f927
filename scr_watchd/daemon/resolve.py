"""From what is in the tree, and what was published before, to what is to be served. Pure."""

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from scr_watchd.daemon.guard import held_since, not_forgotten, with_more
from scr_watchd.images.bounds import Unlisted, within_bounds
from scr_watchd.images.tree import RepositoryImages
from scr_watchd.oci.catalog import (
    Catalog,
    CatalogBuilder,
    Image,
    ManifestFile,
    Reference,
    Referrer,
    Repository,
    by_repository,
)
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.records import Loss

StoredImage = Callable[[RepositoryName, Tag | None, Digest], Image | None]
_Tagged = tuple[RepositoryName, Tag, Digest]
_NONE: frozenset[Digest] = frozenset()


class Standing(enum.Enum):
    """What a tag can be in a pass. The scan decides on the first four, linking on the fifth.

    A published tag that is there, and not COMPLETE in the store, stays *pinned* as it was, as long as the
    store has all of it; one BEYOND a bound goes. One that VANISHED goes, unless the guard *holds* it: it
    counts these, and no others. What goes is *expiring*: in no list, and there by digest for its grace.
    """

    COMPLETE = "it is in the tree and in the store"
    UNFINISHED = "its directory is there without a complete image"
    HIDDEN = "it lies where nobody can look"
    BEYOND = "it is complete, and a bound leaves no room for it"
    UNLINKED = "it is complete, and changed since, or its bytes wait to be hashed"
    VANISHED = "its directory is gone"


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is of a repository: what the tree has, the ``images`` of that which are in the store, what
    was ``published``, and since when (seconds since 1970) manifests of it are ``leaving``."""

    found: RepositoryImages
    images: tuple[Image, ...] = ()
    published: Repository | None = None
    leaving: Mapping[Digest, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """What to serve of a repository, the very object of before if it is the same. ``images`` are all that
    the store must have, of which those ``only_stored`` stay for a while although the tree has them not."""

    repository: Repository | None = None
    images: tuple[Image, ...] = ()
    only_stored: tuple[Image, ...] = ()
    leaving: Mapping[Digest, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """``prefix`` goes before every repository name. What was replaced or removed stays reachable by
    digest for ``grace_seconds``; what left before ``pruned`` does not. Removals are held for
    ``hold_seconds``; with 0, or where they are ``accepted``, they pass."""

    prefix: str = ""
    grace_seconds: float = 0
    hold_seconds: float = 0
    pruned: float = -math.inf
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """What the guard goes by: how many ``tags`` are published, whether the root or the mounts around it
    ``moved``, ``since`` when (seconds since 1970) removals are held, and ``held_for`` how long that is, by
    a clock that nobody sets; or what was ``lost`` without being held."""

    tags: int = 0
    moved: bool = False
    since: float | None = None
    held_for: float = 0
    lost: Loss = field(default_factory=Loss)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What to serve of each repository, and which tags that the tree has not stay. ``until`` is when the
    answer changes by itself."""

    served: Mapping[RepositoryName, Served]
    pinned: tuple[Reference, ...]
    held: tuple[Reference, ...]
    held_since: float | None
    until: float
    lost: Loss


def resolve(
    offers: Mapping[RepositoryName, Offer],
    holding: Holding,
    *,
    hidden: Iterable[str] = (),
    is_renamed: Callable[[RepositoryName, Tag, Digest], bool] = lambda *_: False,
    stored: StoredImage,
    policy: Policy,
    now: float,
) -> Resolved:
    """What to serve of the repositories of which something changed, or may change by itself; ``hidden`` are
    directories of the tree that cannot be looked into (see ``Tree``). What ``is_renamed`` did not vanish."""
    pinned, gone = _missing(offers, tuple(hidden), policy.prefix)
    vanished = [each for each in gone if not is_renamed(*each)]
    before, lost = _lost(offers, holding, vanished, policy, now)
    since = held_since(
        tags=holding.tags,
        vanished=len(vanished),
        before=before,
        lost=lost,
        moved=holding.moved,
        since=holding.since,
        held_for=holding.held_for,
        now=now,
        hold_seconds=0 if policy.accepted else policy.hold_seconds,
    )
    if since is not None and holding.since is None and not holding.moved:  # what was lost before comes back
        earlier = {key: digest for key, digest in lost.gone.items() if (*key, digest) not in vanished}
        vanished += _still_gone(offers, earlier, tuple(hidden), policy.prefix)
    # while removals are held the store may lie on the disk that is away: then its word counts for
    # nothing, and all stays as published, so that all is there again with the disk
    whole = _whole(offers, stored)
    find = whole if since is None else _known(offers, whole)
    pins = _stored(pinned, find)
    holds = _stored(vanished, find) if since is not None else ()
    # what stays has bounds of its own: what others drop takes nothing from it, nor it from them
    bounded = within_bounds((*pins, *holds))
    staying = set(map(id, bounded.images))
    unlisted = _united({name: each.found.unlisted for name, each in offers.items()}, bounded.unlisted)
    pins, holds = (tuple(each for each in some if id(each) in staying) for some in (pins, holds))
    present = (*(image for each in offers.values() for image in each.images), *pins, *holds)
    left = _leaving(present, offers, policy, now)
    going = {key: image for key in left if (image := find(key[0], None, key[1])) is not None}
    leaves = set(map(id, within_bounds(going.values()).images))
    going = {key: image for key, image in going.items() if id(image) in leaves}
    ends = [_end(left[key], policy.grace_seconds) for key in going]
    if since is not None:
        ends.append(now + policy.hold_seconds - holding.held_for)
    made = {each.name: each for each in catalog_of(present, going.values(), unlisted).repositories}
    only_stored = by_repository((*pins, *holds, *going.values()))
    leaving: dict[RepositoryName, dict[Digest, float]] = {}
    for name, digest in going:
        leaving.setdefault(name, {})[digest] = left[name, digest]
    return Resolved(
        served={
            name: _served(offer, made.get(name), only_stored.get(name, []), leaving.get(name, {}))
            for name, offer in offers.items()
        },
        pinned=_references(pins),
        held=_references(holds),
        held_since=since,
        until=min(ends, default=math.inf),
        lost=lost if since is None and holding.since is None else Loss(),
    )


def _lost(
    offers: Mapping[RepositoryName, Offer],
    holding: Holding,
    vanished: list[_Tagged],
    policy: Policy,
    now: float,
) -> tuple[Loss, Loss]:
    """What was lost before, and what is with what ``vanished`` and came now."""
    if policy.accepted or not policy.hold_seconds or not holding.tags:  # what was there first came for none
        return Loss(), Loss()
    before = not_forgotten(holding.lost, now=now, seconds=policy.grace_seconds, pruned=policy.pruned)
    came = {
        (name, image.tag)
        for name, offer in offers.items()
        for image in offer.images
        if image.tag is not None and (offer.published is None or image.tag not in offer.published.tags)
    }
    gone = {(name, tag): digest for name, tag, digest in vanished}
    return before, with_more(before, gone, came, tags=holding.tags, now=now)


def _still_gone(
    offers: Mapping[RepositoryName, Offer],
    gone: Mapping[Reference, Digest],
    hidden: tuple[str, ...],
    prefix: str,
) -> list[_Tagged]:
    return [
        (name, tag, digest)
        for (name, tag), digest in gone.items()
        if name in offers and _standing(tag, offers[name].found, set(), hidden, prefix) is Standing.VANISHED
    ]


def _served(
    offer: Offer, made: Repository | None, staying: list[Image], leaving: Mapping[Digest, float]
) -> Served:
    repository = offer.published if made == offer.published else made
    return Served(repository, (*offer.images, *staying), tuple(staying), leaving)


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
    offers: Mapping[RepositoryName, Offer], hidden: tuple[str, ...], prefix: str
) -> tuple[list[_Tagged], list[_Tagged]]:
    """The published tags that are to be pinned, and those that are gone."""
    pinned: list[_Tagged] = []
    vanished: list[_Tagged] = []
    for name, offer in offers.items():
        tags = offer.published.tags if offer.published is not None else {}
        missing = tags.keys() - {image.tag for image in offer.images}
        there = {image.tag for image in offer.found.images} if missing else set()
        for tag in sorted(missing):
            match _standing(tag, offer.found, there, hidden, prefix):
                case Standing.VANISHED:
                    vanished.append((name, tag, tags[tag]))
                case Standing.UNFINISHED | Standing.HIDDEN | Standing.UNLINKED:
                    pinned.append((name, tag, tags[tag]))
                case Standing.BEYOND | Standing.COMPLETE:
                    pass
    return pinned, vanished


def _standing(
    tag: Tag, found: RepositoryImages, there: set[Tag | None], hidden: tuple[str, ...], prefix: str
) -> Standing:
    """Of a published tag that is not in the store as the tree has it; ``there`` are complete in the tree."""
    if tag in found.beyond:
        return Standing.BEYOND
    if tag in found.unfinished:
        return Standing.UNFINISHED
    if tag in there:
        return Standing.UNLINKED
    if _is_hidden(found.name.removeprefix(prefix), tag, hidden):
        return Standing.HIDDEN
    return Standing.VANISHED


def _whole(offers: Mapping[RepositoryName, Offer], stored: StoredImage) -> StoredImage:
    """Like ``stored``, but nothing where a child of an index is missing that was published: another that is
    absent was never there."""

    def find(name: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
        image = stored(name, tag, digest)
        published = offers[name].published
        if image is None or not image.absent or published is None:
            return image
        return None if published.pullable.keys() & {each.digest for each in image.absent} else image

    return find


def _known(offers: Mapping[RepositoryName, Offer], stored: StoredImage) -> StoredImage:
    """Like ``stored``, but where that has nothing an image as far as it was published."""

    def find(name: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
        image = stored(name, tag, digest)
        published = offers[name].published
        if image is None and published is not None and digest in published.pullable:
            image = Image("", name, tag, (_known_manifest(published, digest),), ())
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
    present: Iterable[Image], offers: Mapping[RepositoryName, Offer], policy: Policy, now: float
) -> dict[tuple[RepositoryName, Digest], float]:
    """When each manifest left that was published, is not ``present``, and has grace left."""
    kept: dict[RepositoryName, set[Digest]] = {}
    for image in present:
        kept.setdefault(image.repository, set()).update(manifest.digest for manifest in image.manifests)
    leaving = {}
    for name, offer in offers.items():
        pullable = offer.published.pullable if offer.published is not None else {}
        for digest in sorted(pullable.keys() - kept.get(name, set())):
            left = min(offer.leaving.get(digest, now), now)  # a clock may have been set back
            if left >= policy.pruned and now < _end(left, policy.grace_seconds):
                leaving[name, digest] = left
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
