"""What stays published although the tree does not show it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scr_watchd.daemon.resolve import Holding, Offer, Policy, Served, catalog_of, resolve
from scr_watchd.images.bounds import Bounded
from scr_watchd.images.tree import RepositoryImages, Tree, repositories_of
from scr_watchd.oci import bounds
from scr_watchd.oci.catalog import Catalog, Image, ManifestFile, Reference, by_repository
from scr_watchd.oci.manifest import MediaType, Referral
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.records import Loss

OLD = Digest(f"sha256:{'a' * 64}")
NEW = Digest(f"sha256:{'b' * 64}")
APP: Reference = (RepositoryName("lib/app"), Tag("1"))
NOW = 1_000_000.0


def image(reference: Reference = APP, digest: Digest = OLD) -> Image:
    name, tag = reference
    return Image(f"{name}/{tag}", name, tag, (ManifestFile(digest, MediaType.OCI_MANIFEST, 1, "m"),), ())


def stored(name: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
    return Image("", name, tag, (ManifestFile(digest, MediaType.OCI_MANIFEST, 1, "m"),), ())


def lost(name: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
    return None


def scan(*, images: tuple[Image, ...] = (), unfinished: bool = False, hidden: tuple[str, ...] = ()) -> Tree:
    return tree(images, frozenset({APP} if unfinished else ()), hidden)


def tree(
    images: tuple[Image, ...],
    unfinished: frozenset[Reference] = frozenset(),
    hidden: tuple[str, ...] = (),
    bounded: Bounded | None = None,
) -> Tree:
    kept = bounded or Bounded(images)
    return Tree(repositories=repositories_of(kept.by_repository, kept, unfinished, {}), hidden=hidden)


Leaving = Mapping[tuple[RepositoryName, Digest], float]


@dataclass(frozen=True)
class Before:
    """What was published."""

    catalog: Catalog = field(default_factory=lambda: catalog_of([image()]))
    leaving: Leaving = field(default_factory=dict)
    held_since: float | None = None
    lost: Loss = field(default_factory=Loss)


@dataclass(frozen=True)
class Answer(Before):
    """What is to be."""

    pinned: tuple[Reference, ...] = ()
    held: tuple[Reference, ...] = ()
    until: float = math.inf
    served: Mapping[RepositoryName, Served] = field(default_factory=dict)


def resolved(
    seen: Tree,
    images: tuple[Image, ...] = (),
    *,
    before: Before | None = None,
    policy: Policy | None = None,
    moved: bool = False,
    held_for: float = 0,
    store: object = stored,
    now: float = NOW,
    at_rest: Mapping[RepositoryName, Served] | None = None,
) -> Answer:
    """``images`` of the tree that was ``seen`` are in the store, and repositories ``at_rest`` are served as
    they were."""
    before, rest = before or Before(), at_rest or {}
    published = {each.name: each for each in before.catalog.repositories}
    groups = by_repository(images)
    names = {*seen.repositories, *groups, *published} - rest.keys()
    answer = resolve(
        {
            name: Offer(
                seen.repositories.get(name) or RepositoryImages(name),
                tuple(groups.get(name, ())),
                published.get(name),
                {digest: since for (of, digest), since in before.leaving.items() if of == name},
            )
            for name in sorted(names)
        },
        Holding(len(before.catalog.tags()), moved, before.held_since, held_for, before.lost),
        hidden=seen.hidden,
        stored=store,  # type: ignore[arg-type]
        policy=policy or Policy(),
        now=now,
    )
    served = {**rest, **answer.served}
    found = (each.repository for _, each in sorted(served.items()))
    leaving = {(name, digest): left for name in served for digest, left in served[name].leaving.items()}
    catalog = Catalog(tuple(each for each in found if each is not None))
    stays = (answer.held_since, answer.lost, answer.pinned, answer.held)
    return Answer(catalog, leaving, *stays, answer.until, served)


@pytest.mark.parametrize(
    ("seen", "stays"),
    [
        pytest.param(scan(), False, id="a directory that is gone is gone"),
        pytest.param(scan(unfinished=True), True, id="one without a complete image stays"),
        pytest.param(scan(images=(image(),)), True, id="one that changed before it was stored stays"),
        pytest.param(scan(hidden=("lib/app/1",)), True, id="one that cannot be looked into stays"),
        pytest.param(scan(hidden=("lib/app:1",)), True, id="in its other form too"),
        pytest.param(scan(hidden=("lib",)), True, id="one below such a directory stays"),
        pytest.param(scan(hidden=("",)), True, id="all stay if the root is such a directory"),
        pytest.param(scan(hidden=("lib/ap", "lib/app/10", "li")), False, id="a like name does not count"),
    ],
)
def test_which_published_tags_stay(seen: Tree, stays: bool) -> None:  # noqa: FBT001 - a table
    answer = resolved(seen)
    assert answer.pinned == ((APP,) if stays else ())
    assert (APP in answer.catalog.tags()) == stays


SIGNATURE = ManifestFile(NEW, MediaType.OCI_MANIFEST, 5, "m", Referral(OLD, "x/y", {"by": "me"}))


def test_a_referrer_is_listed_while_its_tag_is_and_leaves_the_lists_with_it() -> None:
    signed = (image(), Image("lib/app/sig", APP[0], Tag("sig"), (SIGNATURE,), ()))
    before = Before(catalog_of(signed))
    assert list(before.catalog.repositories[0].referrers) == [NEW]
    gone = resolved(scan(), (image(),), before=before, policy=Policy(grace_seconds=100))
    (repository,) = gone.catalog.repositories
    assert (set(repository.manifests), set(repository.leaving)) == ({OLD}, {NEW})
    assert gone.catalog.repositories[0].referrers == {}


def test_referrers_stay_with_a_disk_that_is_away() -> None:
    """Not even the store can be asked then."""
    before = Before(catalog_of([Image("", *APP, (SIGNATURE,), ())]), held_since=NOW - 1)
    held = resolved(scan(), before=before, policy=Policy(hold_seconds=100), store=lost)
    assert held.held == (APP,)
    assert held.catalog == before.catalog


def test_what_is_in_the_store_no_more_cannot_stay() -> None:
    assert resolved(scan(unfinished=True), store=lost).catalog == Catalog()


def test_a_tag_that_is_there_needs_no_pin() -> None:
    answer = resolved(scan(unfinished=True), (image(digest=NEW),))
    assert answer.pinned == ()
    assert answer.catalog.tags() == {APP: NEW}


def test_a_prefix_is_no_part_of_the_path() -> None:
    reference = (RepositoryName("mirror/lib/app"), Tag("1"))
    before = Before(catalog_of([image(reference)]))
    assert resolved(scan(hidden=("lib",)), before=before, policy=Policy(prefix="mirror/")).pinned == (
        reference,
    )


def test_what_was_replaced_can_be_pulled_by_digest_until_its_grace_ends() -> None:
    policy = Policy(grace_seconds=100)
    answer = resolved(scan(), (image(digest=NEW),), policy=policy)
    (repository,) = answer.catalog.repositories
    assert repository.tags == {APP[1]: NEW}
    assert (set(repository.manifests), set(repository.leaving)) == ({NEW}, {OLD})
    assert answer.leaving == {(APP[0], OLD): NOW}
    assert NOW + 100 <= answer.until <= NOW + 125
    later = answer
    soon = resolved(scan(), (image(digest=NEW),), before=later, policy=policy, now=answer.until - 1)
    assert soon.leaving == answer.leaving
    done = resolved(scan(), (image(digest=NEW),), before=later, policy=policy, now=answer.until)
    assert (done.leaving, done.until) == ({}, math.inf)
    assert set(done.catalog.repositories[0].pullable) == {NEW}


def test_a_repository_without_images_is_in_no_list_during_its_grace() -> None:
    (repository,) = resolved(scan(), policy=Policy(grace_seconds=100)).catalog.repositories
    assert (repository.listed, repository.tags, set(repository.leaving)) == (False, {}, {OLD})


def test_what_comes_back_within_its_grace_is_no_longer_leaving() -> None:
    before = Before(catalog_of([], [image()]), {(APP[0], OLD): NOW - 50})
    answer = resolved(scan(), (image(),), before=before, policy=Policy(grace_seconds=100))
    assert answer.leaving == {}
    assert answer.catalog.repositories[0].listed


def test_graces_end_together() -> None:
    ends = {
        resolved(scan(), policy=Policy(grace_seconds=400), now=NOW + seconds).until for seconds in range(100)
    }
    assert len(ends) <= 2


@pytest.mark.parametrize(
    ("policy", "leaves"),
    [
        pytest.param(Policy(grace_seconds=100, pruned=NOW + 1), True, id="pruned now"),
        pytest.param(Policy(grace_seconds=100, pruned=NOW - 60), False, id="pruned, but it left just now"),
        pytest.param(Policy(), True, id="no grace"),
    ],
)
def test_when_grace_ends_early(policy: Policy, leaves: bool) -> None:  # noqa: FBT001 - a table
    assert (resolved(scan(), policy=policy).leaving == {}) == leaves


def test_a_clock_that_was_set_back_does_not_prolong_a_grace_for_ever() -> None:
    before = Before(catalog_of([], [image()]), {(APP[0], OLD): NOW + 10**6})
    assert resolved(scan(), before=before, policy=Policy(grace_seconds=100)).until <= NOW + 125


def many(count: int) -> tuple[Image, ...]:
    return tuple(image((RepositoryName("app"), Tag(str(number)))) for number in range(count))


@pytest.mark.parametrize(
    ("there", "remain", "moved", "held"),
    [
        pytest.param(10, 4, False, 6, id="more than half of ten vanish"),
        pytest.param(10, 5, False, 0, id="half of ten vanish"),
        pytest.param(9, 0, False, 0, id="all of nine vanish"),
        pytest.param(9, 8, True, 1, id="one of nine vanishes, and the root is another directory"),
        pytest.param(9, 9, True, 0, id="the root is another directory, and all are there"),
    ],
)
def test_when_removals_are_held(there: int, remain: int, moved: bool, held: int) -> None:  # noqa: FBT001 - a table
    before = Before(catalog_of(many(there)))
    policy = Policy(hold_seconds=1000)
    answer = resolved(scan(), many(remain), before=before, policy=policy, moved=moved)
    assert len(answer.held) == held
    assert (answer.held_since is not None) == bool(held)
    assert len(answer.catalog.tags()) == remain + held


def tags(*numbers: int) -> tuple[Image, ...]:
    return tuple(image((RepositoryName("app"), Tag(str(number)))) for number in numbers)


HOUR = Policy(grace_seconds=3600, hold_seconds=86_400)


def last_of(*trees: tuple[Image, ...], policy: Policy = HOUR, seconds: float = 60) -> Answer:
    """What is to be after passes that found these, so many seconds apart."""
    answer = resolved(scan(), trees[0], before=Before(Catalog()), policy=HOUR)
    for number, images in enumerate(trees[1:]):
        answer = resolved(scan(), images, before=answer, policy=policy, now=NOW + number * seconds)
    return answer


@pytest.mark.parametrize(
    ("trees", "held"),
    [
        pytest.param([many(20), many(11), ()], 20, id="half, and then half of the rest"),
        pytest.param([many(count) for count in range(20, 8, -1)], 11, id="one by one"),
        pytest.param([many(count) for count in range(20, 9, -1)], 0, id="half of them one by one"),
        pytest.param([many(9 - count) for count in range(9)], 0, id="all of nine one by one"),
        pytest.param([many(20), tags(*range(9, 20), 20), tags(20)], 20, id="and one came meanwhile"),
        pytest.param(
            [tags(*range(at, at + 20)) for at in range(55)], 0, id="each day another, as the oldest goes"
        ),
        pytest.param(
            [tags(*range((at + 1) // 2, at // 2 + 20)) for at in range(55)], 0, id="the oldest goes first"
        ),
        pytest.param(
            [many(10), many(30), *(many(count) for count in range(30, 9, -1))], 0, id="as many as came before"
        ),
        pytest.param([many(20), many(12), many(20), many(12), many(6)], 14, id="some came back meanwhile"),
    ],
)
def test_what_is_lost_bit_by_bit_comes_back_unless_others_came(
    trees: list[tuple[Image, ...]], held: int
) -> None:
    answer = last_of(*trees)
    assert len(answer.held) == held
    assert len(answer.catalog.tags()) == held + len(trees[-1])


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        pytest.param(HOUR, 3600, id="its grace is over"),
        pytest.param(replace(HOUR, pruned=NOW + 9000), 60, id="it was pruned"),
        pytest.param(replace(HOUR, grace_seconds=0), 60, id="there is no grace"),
        pytest.param(replace(HOUR, hold_seconds=0), 60, id="there is no guard"),
        pytest.param(replace(HOUR, accepted=True), 60, id="it is accepted"),
    ],
)
def test_when_what_was_lost_is_forgotten(policy: Policy, seconds: float) -> None:
    trees = [many(count) for count in range(20, 0, -1)]
    assert last_of(*trees).held
    assert not last_of(*trees, policy=policy, seconds=seconds).held


def test_additions_go_on_while_removals_are_held() -> None:
    new = image((RepositoryName("new"), Tag("1")), NEW)
    before = Before(catalog_of(many(10)))
    answer = resolved(scan(), (new,), before=before, policy=Policy(hold_seconds=1000))
    assert len(answer.catalog.tags()) == 11


@pytest.mark.parametrize(
    ("policy", "held_for"),
    [
        pytest.param(Policy(hold_seconds=1000, accepted=True), 0, id="it is accepted"),
        pytest.param(Policy(hold_seconds=1000), 1000, id="its time is over"),
        pytest.param(Policy(hold_seconds=0), 0, id="there is no guard"),
    ],
)
def test_when_a_hold_ends(policy: Policy, held_for: float) -> None:
    before = Before(catalog_of(many(10)), held_since=NOW)
    policy = replace(policy, grace_seconds=100)
    answer = resolved(scan(), before=before, policy=policy, held_for=held_for)
    assert (answer.held, answer.held_since, answer.catalog.tags()) == ((), None, {})


def test_a_clock_that_is_set_ends_no_hold() -> None:
    before = Before(catalog_of(many(10)), held_since=NOW)
    answer = resolved(
        scan(), before=before, policy=Policy(hold_seconds=1000), held_for=5, now=NOW + 2 * 86_400
    )
    assert len(answer.held) == 10


def test_where_the_mounts_changed_any_number_is_held() -> None:
    before = Before(catalog_of(many(5)))
    answer = resolved(scan(), many(4), before=before, policy=Policy(hold_seconds=1000), moved=True)
    assert len(answer.held) == 1


def test_a_hold_goes_on_for_what_vanishes_later_and_ends_when_all_come_back() -> None:
    before = Before(catalog_of(many(10)), held_since=NOW - 5)
    policy = Policy(hold_seconds=1000)
    answer = resolved(scan(), many(9), before=before, policy=policy, held_for=5)
    assert (len(answer.held), answer.held_since, answer.until) == (1, NOW - 5, NOW + 995)
    assert resolved(scan(), many(10), before=before, policy=policy, held_for=5).held_since is None


def test_what_has_no_room_any_more_is_neither_held_nor_pinned() -> None:
    """Else the bounds would end where they are needed: what was published would stay beside what came."""
    before = Before(catalog_of(many(20)))
    beyond = frozenset((each.repository, each.tag) for each in many(20)[4:] if each.tag is not None)
    seen = tree(many(4), beyond, ("",), Bounded(many(4), beyond=beyond))
    answer = resolved(seen, many(4), before=before, policy=Policy(hold_seconds=1000))
    assert (answer.held, answer.held_since, answer.pinned) == ((), None, ())
    assert len(answer.catalog.tags()) == 4


def test_what_is_held_has_bounds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who drops and removes, again and again, must not fill what nginx reads with what is held."""
    monkeypatch.setattr(bounds, "TREE_COST", 2000)
    before = Before(catalog_of(many(100)))
    answer = resolved(scan(), before=before, policy=Policy(hold_seconds=1000))
    assert 5 < len(answer.held) < 30


def test_a_referrer_that_no_list_has_can_be_pulled_and_comes_back_when_there_is_room() -> None:
    images = (image(), Image("lib/app/sig", APP[0], Tag("sig"), (SIGNATURE,), ()))
    full = tree(images, bounded=Bounded(images, unlisted={APP[0]: frozenset({NEW})}))
    first = resolved(full, images)
    (repository,) = first.catalog.repositories
    assert (set(repository.manifests), repository.referrers) == ({OLD, NEW}, {})
    (again,) = resolved(scan(images=images), images, before=first).catalog.repositories
    assert list(again.referrers) == [NEW]


NAMES = [RepositoryName(each) for each in ("a", "a/b", "c")]
DIGESTS = [Digest(f"sha256:{digit * 64}") for digit in "0123"]


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[Tree, tuple[Image, ...], bool]]:
    """Trees one after the other, what of each is in the store, and whether the root moved."""
    made: dict[tuple[Reference, Digest], Image] = {}
    found: list[tuple[Tree, tuple[Image, ...], bool]] = []
    last = Tree()
    for _ in range(draw(st.integers(2, 6))):
        references = draw(
            st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([Tag("1"), Tag("2")])), unique=True)
        )
        images = []
        for reference in references:
            digest = draw(st.sampled_from(DIGESTS))
            images.append(made.setdefault((reference, digest), image(reference, digest)))
        kept = [each for each in images if draw(st.integers(0, 9))]
        unfinished = draw(st.frozensets(st.tuples(st.sampled_from(NAMES), st.just(Tag("1"))), max_size=1))
        hidden = draw(st.sampled_from([(), (), ("a/b",), ("",)]))
        every = Bounded(tuple(images))
        repositories = repositories_of(every.by_repository, every, unfinished, last.repositories)
        last = Tree(repositories=repositories, hidden=hidden)
        found.append((last, tuple(kept), draw(st.sampled_from([False, False, False, True]))))
    return found


@given(steps(), st.sampled_from([0, 30]), st.sampled_from([0, 30]), st.sampled_from([stored, lost]))
def test_what_is_at_rest_need_not_be_looked_at(
    history: list[tuple[Tree, tuple[Image, ...], bool]], grace: int, hold: int, store: object
) -> None:
    policy = Policy(grace_seconds=grace, hold_seconds=hold)
    before, last = Answer(Catalog()), Tree()
    linked: dict[RepositoryName, list[Image]] = {}
    for number, (seen, images, moved) in enumerate(history):
        groups = by_repository(images)
        at_rest = {
            name: served
            for name, served in before.served.items()
            if not served.only_stored
            and name not in {of for of, _ in before.lost.gone}
            and seen.repositories.get(name) is last.repositories.get(name)
            and groups.get(name) == linked.get(name)
            and [*served.images] == groups.get(name, [])
        }
        asked = {"policy": policy, "moved": moved, "store": store, "now": NOW + 10 * number}
        answer = resolved(seen, images, before=before, at_rest=at_rest, **asked)  # type: ignore[arg-type]
        anew = resolved(seen, images, before=before, **asked)  # type: ignore[arg-type]
        assert replace(answer, served={}) == replace(anew, served={})
        before, last, linked = answer, seen, groups
