"""Keeps what is served and listed within the bounds, and says what is beyond. Referrers beyond theirs are
in no list, and can still be pulled by digest; tags beyond theirs are not served."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scr_watchd.oci import bounds
from scr_watchd.oci.bounds import Claim
from scr_watchd.oci.catalog import Image, Reference, as_listed, by_repository
from scr_watchd.oci.manifest import Referral
from scr_watchd.oci.names import Digest, RepositoryName

Complaint = tuple[Image, str, str]
"""An image at fault, or one of several, the reason, and the remedy."""

Unlisted = Mapping[RepositoryName, frozenset[Digest]]
"""Referrers that are in no list, by repository."""

_Referrer = tuple[Image, Digest, Referral]
_Key = tuple[int, tuple[str, ...]]

_TAG, _REFERRER = "0", "1"  # of an owner's room, tags take theirs first
_REMEDY = "Remove what nobody needs any more, or serve it from a tree of its own"


@dataclass(frozen=True, slots=True)
class Bounded:
    """The images that are served. ``beyond`` are tags that are complete and have no room."""

    images: tuple[Image, ...]
    complaints: tuple[Complaint, ...] = ()
    beyond: frozenset[Reference] = frozenset()
    unlisted: Unlisted = field(default_factory=dict)

    @property
    def by_repository(self) -> dict[RepositoryName, tuple[Image, ...]]:
        return {name: tuple(some) for name, some in by_repository(self.images).items()}


def within_bounds(images: Iterable[Image]) -> Bounded:
    """``images`` without what is beyond a bound. It follows from them and their owners alone; where they
    are few, none is looked at closely."""
    kept = tuple(images)
    ledger = _Ledger(kept, _referrers(kept))
    ledger.settle()
    return ledger.bounded()


@dataclass(frozen=True, slots=True)
class Weight:
    """What a repository takes of the tree's room at most, and what is to be said of its images whatever
    else there is. If it is not ``light``, it may be beyond a bound of its own."""

    cost: int
    is_light: bool
    complaints: tuple[Complaint, ...] = ()


def weigh(images: tuple[Image, ...]) -> Weight:
    """What the ``images`` of a repository weigh."""
    refer = _referrers(images)
    cost = sum([bounds.name_cost(len(images[0].repository)) for _ in {each.owner for each in images}])
    cost += sum([bounds.tag_cost(len(each.tag or ""), long_list=True) for each in images])
    cost += bounds.CHILD * sum([len(each.manifests) for each in images])
    is_light = len(images) <= bounds.TAGS and not _are_spelled_alike(images)
    complaints: tuple[Complaint, ...] = ()
    if refer:
        ledger = _Ledger(images, refer)
        ledger.settle()
        bounded = ledger.bounded()
        is_light = is_light and not bounded.unlisted
        complaints = bounded.complaints
        cost += sum(each.cost for each in ledger.referrers)
    return Weight(cost, is_light and cost <= bounds.REPOSITORY_COST, complaints)


def fit(weights: Iterable[Weight]) -> bool:
    """Whether all of them are within their bounds, and together within the tree's: then ``within_bounds``
    leaves out nothing."""
    every = list(weights)
    cost = sum([each.cost for each in every])
    return cost <= bounds.TREE_COST and all(each.is_light for each in every)


def _referrers(images: Iterable[Image]) -> list["_Referrer"]:
    return [
        (image, each.digest, each.referral)
        for image in images
        for each in image.manifests
        if each.referral is not None
    ]


def _are_many(images: tuple[Image, ...], besides: int = 0) -> bool:
    """Whether some bound of tags may be reached, with ``besides`` taken by referrers."""
    tags = [image.tag for image in images if image.tag is not None]
    if _are_spelled_alike(images):
        return True
    names = {(image.owner, image.repository) for image in images}
    most = sum([bounds.name_cost(len(name)) for _, name in names]) + besides
    most += bounds.CHILD * sum([len(image.manifests) for image in images])
    longest = bounds.tag_cost(len(max(tags, key=len, default="")), long_list=True)
    if len(tags) <= bounds.TAGS and most + longest * len(images) <= min(
        bounds.REPOSITORY_COST, bounds.TREE_COST
    ):
        return False
    costs: Counter[str] = Counter()
    for image in images:
        costs[image.repository] += bounds.tag_cost(len(image.tag or ""), long_list=True)
    counts = Counter([image.repository for image in images])
    return (
        max(counts.values()) > bounds.TAGS
        or most + max(costs.values()) > bounds.REPOSITORY_COST
        or most + sum(costs.values()) > bounds.TREE_COST
    )


def _are_spelled_alike(images: Iterable[Image]) -> bool:
    odd = [
        (each.repository, each.tag.lower()) for each in images if each.tag and each.tag.lower() != each.tag
    ]
    return len(odd) >= bounds.SPELLINGS and max(Counter(odd).values()) >= bounds.SPELLINGS


class _Ledger:
    """What all images claim, without what was struck out for having no room."""

    def __init__(self, images: tuple[Image, ...], refer: list[_Referrer]) -> None:
        self._images = images
        self._of: dict[_Key, Image] = {}
        self._struck: set[_Key] = set()
        self._complaints = list(_of_contents(refer))
        self.referrers = self._claims_of_referrers(refer)
        besides = sum([each.cost for each in self.referrers])
        self._tags = self._claims_of_tags() if _are_many(images, besides) else []

    def settle(self) -> None:
        """Apply one bound after the other: what one strikes out takes no room of the next."""
        tags, referrers = self._tags, self.referrers
        spelled = tags if _are_spelled_alike(self._images) else []
        for of, beyond, most in self._strike(spelled, _spelling, bounds.SPELLINGS, by_number=True):
            name, tag = beyond[0].key[1:3]
            like = f"{len(of):,} tags of {name} differ from {tag.lower()} in case at most"
            self._complain(beyond[0], f"{like}, and {most} are served", "Remove some of them")
        for of, beyond, most in self._strike(tags, _repository, bounds.TAGS, by_number=True):
            reason = f"{beyond[0].key[1]} has {len(of):,} tags, and {most} are served"
            self._complain(beyond[0], reason, "Remove tags, or divide the repository")
        for of, beyond, most in self._strike(referrers, _subject, bounds.REFERRERS, by_number=True):
            name, subject = beyond[0].key[1:3]
            reason = f"{subject} has {len(of):,} referrers in {name}, and {most} are listed"
            self._complain(beyond[0], reason, "Remove some of its signatures or SBOMs")
        for group, room in (
            (_subject, bounds.SUBJECT_COST),
            (_repository, bounds.REPOSITORY_COST),
            (_tree, bounds.TREE_COST),
        ):
            claims = referrers if group is _subject else [*tags, *referrers]
            for of, beyond, most in self._strike(claims, group, room):
                self._complain(beyond[0], _reason(of, beyond, group(beyond[0].key), most), _REMEDY)

    def bounded(self) -> Bounded:
        """What is left. A referrer of several owners is listed if it has a place with one of them."""
        if not self._struck:
            return Bounded(self._images, tuple(self._complaints))
        kept = tuple(each for each in self._images if _key_of(each) not in self._struck)
        beyond = {(each.repository, each.tag) for each in self._images if each.tag is not None}
        beyond -= {(each.repository, each.tag) for each in kept if each.tag is not None}
        listed = {each.key for each in self.referrers if each[:2] not in self._struck}
        unlisted: dict[RepositoryName, set[Digest]] = {}
        for each in self.referrers:
            if each.key not in listed:
                unlisted.setdefault(RepositoryName(each.key[1]), set()).add(Digest(each.key[3]))
        return Bounded(
            kept,
            tuple(self._complaints),
            frozenset(beyond),
            {name: frozenset(digests) for name, digests in unlisted.items()},
        )

    def _strike(
        self,
        claims: list[Claim],
        group: Callable[[Sequence[str]], str],
        room: int,
        *,
        by_number: bool = False,
    ) -> Iterator[tuple[list[Claim], list[Claim], str]]:
        """Strike out what has no room in its group. Yields of each owner in it the claims, those that are
        beyond, and how much there is room for."""
        rest = [each for each in claims if each[:2] not in self._struck] if self._struck else claims
        groups = {"": rest}
        if _taken(rest, by_number=by_number) > room:
            groups = _grouped((each for each in rest if not by_number or each.key[2]), group)
        for members in groups.values():
            if _taken(members, by_number=by_number) <= room:
                continue
            if by_number:
                members = [each._replace(cost=1) for each in members]
            beyond, share = bounds.left_out(members, room)
            self._struck.update(each[:2] for each in beyond)
            for owner in sorted({each.owner for each in beyond}):
                theirs = [each for each in beyond if each.owner == owner]
                of = members if by_number else [each for each in members if each.owner == owner]
                most = f"the first {share:,}" if by_number else _size(share)
                yield of, theirs, f"{most} of uid {owner}" if by_number and share < room else most

    def _complain(self, claim: Claim, reason: str, remedy: str) -> None:
        self._complaints.append((self._of[claim[:2]], reason, remedy))

    def _claims_of_tags(self) -> list[Claim]:
        """Of each tag, and before an owner's first tag in a repository, of its name."""
        sizes: Counter[str] = Counter()
        for image in self._images:
            sizes[image.repository] += len(image.tag or "") + 3
        costs: dict[_Key, int] = {}
        for image in self._images:
            name, tag = image.repository, image.tag
            named = image.owner, (_TAG, name, "")
            if named not in costs:
                costs[named] = bounds.name_cost(len(name))
                self._of[named] = image
            key = _key_of(image)
            long_list = sizes[name] > bounds.TOKEN_BYTES
            cost = bounds.CHILD if tag is None else bounds.tag_cost(len(tag), long_list=long_list)
            costs[key] = costs.get(key, 0) + cost + bounds.CHILD * (len(image.manifests) - 1)
            self._of[key] = image
        return [Claim(*key, cost) for key, cost in costs.items()]

    def _claims_of_referrers(self, refer: list[_Referrer]) -> list[Claim]:
        sizes: Counter[tuple[str, str]] = Counter()
        texts = {}
        for image, digest, referral in refer:
            listed = as_listed(referral)
            key = image.owner, (_REFERRER, image.repository, referral.subject, digest)
            pairs = listed.annotations.items()
            texts[key] = bounds.descriptor_size(
                listed.artifact_type, *(text for pair in pairs for text in pair)
            )
            sizes[key[1][1:3]] += texts[key]
            self._of[key] = image
        return [
            Claim(*key, bounds.referrer_cost(size, long_list=sizes[key[1][1:3]] > bounds.TOKEN_BYTES))
            for key, size in texts.items()
        ]


def _taken(claims: list[Claim], *, by_number: bool) -> int:
    return len(claims) if by_number else sum([each.cost for each in claims])


# -- what takes a room together ----------------------------------------------------------------------


def _grouped(claims: Iterable[Claim], group: Callable[[Sequence[str]], str]) -> dict[str, list[Claim]]:
    groups: dict[str, list[Claim]] = {}
    for each in claims:
        groups.setdefault(group(each.key), []).append(each)
    return groups


def _spelling(key: Sequence[str]) -> str:
    return f"{key[1]}:{key[2].lower()}"


def _repository(key: Sequence[str]) -> str:
    return key[1]


def _subject(key: Sequence[str]) -> str:
    return f"{key[1]}@{key[2]}"


def _tree(_: Sequence[str]) -> str:
    return "this tree"


# -- what is said ------------------------------------------------------------------------------------


def _reason(of: list[Claim], beyond: list[Claim], group: str, most: str) -> str:
    tags = [each.key for each in beyond if each.key[0] == _TAG and each.key[2]]
    referrers = sum(each.key[0] == _REFERRER for each in beyond)
    said = []
    if tags:
        said.append(f"{len(tags):,} tags from {tags[0][1]}:{tags[0][2]} on are not served")
    if referrers:
        said.append(f"{referrers:,} referrers are in no list, and can be pulled by digest")
    if not said:
        said.append("images without a tag are not served")
    size = _size(sum(each.cost for each in of))
    takes = f"what uid {of[0].owner} has in {group} takes {size} in nginx's configuration"
    return f"{takes}, and there is room for {most}: {', and '.join(said)}"


def _size(number: int) -> str:
    return f"{number / 1e6:.1f} MB"


def _of_contents(refer: list[_Referrer]) -> Iterator[Complaint]:
    """What of a single referrer is not listed."""
    for image, _, referral in refer:
        size = bounds.size_of(referral.annotations)
        if size > bounds.ANNOTATION_BYTES:
            reason = f"it has {size:,} bytes of annotations, and is listed as a referrer without them"
            remedy = f"Put them into a layer: at most {bounds.ANNOTATION_BYTES:,} bytes are listed"
            yield image, reason, remedy
        length = len(referral.artifact_type)
        if length > bounds.ARTIFACT_TYPE_LENGTH:
            reason = f"its artifact type has {length:,} characters, and it is listed without one"
            remedy = f"Make it again with a type of at most {bounds.ARTIFACT_TYPE_LENGTH} characters"
            yield image, reason, remedy


def _key_of(image: Image) -> _Key:
    return image.owner, (_TAG, image.repository, image.tag or "")
