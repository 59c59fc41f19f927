"""What there is to serve, and what there is not: Image, Repository, Catalog, Problem."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from scr_watchd.oci import bounds
from scr_watchd.oci.manifest import Descriptor, MediaType, Referral
from scr_watchd.oci.names import Digest, RepositoryName, Tag

Reference = tuple[RepositoryName, Tag]
"""``NAME:TAG``, parsed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the tree that is not served. All three are printable text without line breaks.
    ``owner`` is the user whose it is, where that is known."""

    path: str
    reason: str
    remedy: str
    owner: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}. {self.remedy}"


def told(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """``problems`` by path, as many as there is room for, which owners share; of each owner the number
    of those that are not among them."""
    found = sorted(problems, key=lambda problem: problem.path)
    if len(found) <= bounds.PROBLEMS:
        return tuple(found)
    keys = [(each.path, str(number)) for number, each in enumerate(found)]
    claims = [
        bounds.Claim(-1 if each.owner is None else each.owner, key, 1)
        for key, each in zip(keys, found, strict=True)
    ]
    beyond = {each.key: each.owner for each in bounds.left_out(claims, bounds.PROBLEMS)[0]}
    kept = [each for key, each in zip(keys, found, strict=True) if key not in beyond]
    numbers = Counter(beyond.values())
    for key, each in zip(keys, found, strict=True):
        if number := numbers.pop(beyond.get(key, -2), 0):
            reason = f"{number:,} more like it have the same owner, and are not named here"
            kept.append(Problem(each.path, reason, "Mend or remove those that are named", each.owner))
    return tuple(sorted(kept, key=lambda problem: problem.path))


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A manifest as a file of an image; ``file`` is its name in its directory, which is that of another
    algorithm where ``named_by`` says so."""

    digest: Digest
    media_type: MediaType
    size: int
    file: str
    referral: Referral | None = None
    named_by: str = ""

    @property
    def algorithm(self) -> str:
        """That of the digest that the file is named by."""
        return self.named_by or self.digest.algorithm


@dataclass(frozen=True, slots=True)
class Image:
    """A complete image in the tree: every manifest and blob is there with its declared size.

    ``path`` is its directory relative to the root, free of symbolic links: one in skopeo's ``dir:``
    form, which has the files in itself, or an OCI layout, which may have many images. ``tag`` is ``None``
    for an image that is reachable by digest only. The first of ``manifests`` is the image's own,
    the others are the children of an index. ``files`` changes whenever one of its files does, even if
    it says the same. ``owner`` is the user whose directory it is, or whose ``link`` that leads to it: a
    path like ``path``, empty if there is none. ``below`` is the part of the repository's name that a layout
    of several repositories gives it. ``platforms`` are those of an index that are there, and ``absent``
    those that are not, by design.
    """

    path: str
    repository: RepositoryName
    tag: Tag | None
    manifests: tuple[ManifestFile, ...]
    blobs: tuple[Descriptor, ...]
    files: int = 0
    owner: int = 0
    link: str = ""
    platforms: tuple[str, ...] = ()
    absent: tuple[Descriptor, ...] = ()
    below: str = ""

    @property
    def digest(self) -> Digest:
        return self.manifests[0].digest

    @property
    def called(self) -> Tag | Digest:
        """What tells an image from the others of its repository."""
        return self.tag or self.digest

    @property
    def is_in_layout(self) -> bool:
        """Only a layout has even the first manifest under its digest: said by what is there anyway,
        since there may be 100,000 images."""
        return self.manifests[0].file != "manifest.json"

    @property
    def some_platforms(self) -> str:
        """Which platforms of a sparse index are there, in words; of any other image nothing."""
        if not self.absent:
            return ""
        count = len(self.platforms) + len(self.absent)
        return f"{len(self.platforms)} of {count} platforms: {', '.join(self.platforms)}"

    def directory(self, algorithm: str) -> str:
        """Where content with digests of ``algorithm`` lies, blobs by their hex digits."""
        return f"{self.path}/blobs/{algorithm}" if self.is_in_layout else self.path

    @property
    def place(self) -> str:
        """What messages call its place, relative to the root: a link by its own name. For one image of
        several in a layout it is skopeo's ``LAYOUT:TAG``."""
        path = self.link or self.path
        if self.below:
            return f"{path}:{label(self.below, self.tag, self.digest)}"
        if self.is_in_layout and self.tag is not None and ":" not in path.rpartition("/")[2]:
            return f"{path}:{self.tag}"
        return path


def label(below: str, tag: Tag | None, digest: Digest) -> str:
    """What tells an image from the others of its layout: its tag, and in one of several repositories more."""
    if not below:
        return tag or digest
    return f"{below}:{tag}" if tag is not None else f"{below}@{digest}"


def former_names(images: Iterable[Image]) -> dict[tuple[RepositoryName, Tag, Digest], Reference]:
    """What images of layouts of several repositories were called while theirs were of one, by that."""
    return {
        (RepositoryName(image.repository.removesuffix(f"/{image.below}")), image.tag, image.digest): (
            image.repository,
            image.tag,
        )
        for image in images
        if image.below and image.tag is not None
    }


def by_repository(images: Iterable[Image]) -> dict[RepositoryName, list[Image]]:
    """``images`` in the same order, those of each repository for themselves."""
    found: dict[RepositoryName, list[Image]] = {}
    for image in images:
        found.setdefault(image.repository, []).append(image)
    return found


@dataclass(frozen=True, slots=True)
class Referrer:
    """What a list of referrers says of a manifest, besides its digest and media type."""

    size: int
    referral: Referral


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository. ``tags`` are in ASCII order, as tag lists must be (distribution
    specification, "Listing Tags"); ``manifests`` hold every manifest that is here to stay, and ``leaving``
    those that can be pulled by digest only for a while; ``referrers`` are those of ``manifests`` that have
    a subject, which need not be there."""

    name: RepositoryName
    tags: Mapping[Tag, Digest]
    manifests: Mapping[Digest, MediaType]
    referrers: Mapping[Digest, Referrer] = field(default_factory=dict)
    leaving: Mapping[Digest, MediaType] = field(default_factory=dict)

    @property
    def listed(self) -> bool:
        """Whether lists name it: not if all that it has is about to go."""
        return bool(self.manifests)

    @property
    def pullable(self) -> dict[Digest, MediaType]:
        """Every manifest that can be pulled by its digest."""
        return {**self.manifests, **self.leaving}


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every repository, by name in ASCII order: equal catalogs render to equal bytes."""

    repositories: tuple[Repository, ...] = ()

    def tags(self) -> dict[Reference, Digest]:
        return {
            (repository.name, tag): digest
            for repository in self.repositories
            for tag, digest in repository.tags.items()
        }


def as_listed(referral: Referral) -> Referral:
    """``referral`` without its annotations, or its type, if they are beyond their bound."""
    if bounds.size_of(referral.annotations) > bounds.ANNOTATION_BYTES:
        referral = replace(referral, annotations={})
    if len(referral.artifact_type) > bounds.ARTIFACT_TYPE_LENGTH:
        referral = replace(referral, artifact_type="")
    return referral


class CatalogBuilder:
    """Collects tags and manifests in any order; ``catalog`` sorts them once."""

    def __init__(self) -> None:
        self._tags: dict[RepositoryName, dict[Tag, Digest]] = {}
        self._manifests: dict[RepositoryName, dict[Digest, MediaType]] = {}
        self._referrers: dict[RepositoryName, dict[Digest, Referrer]] = {}
        self._leaving: dict[RepositoryName, dict[Digest, MediaType]] = {}

    def manifest(self, name: RepositoryName, digest: Digest, media_type: MediaType) -> None:
        self._manifests.setdefault(name, {})[digest] = media_type

    def leaving(self, name: RepositoryName, digest: Digest, media_type: MediaType) -> None:
        """Add a manifest that is about to go, unless it also stays."""
        self._leaving.setdefault(name, {})[digest] = media_type

    def referrer(self, name: RepositoryName, digest: Digest, referrer: Referrer) -> None:
        """List a manifest that is, or will be, added to the same repository, with its subject; without
        its annotations or its type if they are beyond their bound."""
        listed = as_listed(referrer.referral)
        if listed is not referrer.referral:
            referrer = replace(referrer, referral=listed)
        self._referrers.setdefault(name, {})[digest] = referrer

    def tag(self, name: RepositoryName, tag: Tag, digest: Digest) -> None:
        """Point ``tag`` at a manifest that is, or will be, added to the same repository."""
        self._tags.setdefault(name, {})[tag] = digest

    def catalog(self) -> Catalog:
        return Catalog(
            tuple(
                Repository(
                    name=name,
                    tags=dict(sorted(self._tags.get(name, {}).items())),
                    manifests=dict(sorted(self._manifests.get(name, {}).items())),
                    referrers=_first(self._referrers.get(name, {})),
                    leaving={
                        digest: media_type
                        for digest, media_type in sorted(self._leaving.get(name, {}).items())
                        if digest not in self._manifests.get(name, {})
                    },
                )
                for name in sorted(self._manifests.keys() | self._leaving.keys())
            )
        )


def _first(referrers: Mapping[Digest, Referrer]) -> dict[Digest, Referrer]:
    """The first referrers of each subject, in the order of their digests."""
    counts: Counter[Digest] = Counter()
    kept = {}
    for digest, referrer in sorted(referrers.items()):
        counts[referrer.referral.subject] += 1
        if counts[referrer.referral.subject] <= bounds.REFERRERS:
            kept[digest] = referrer
    return kept
