"""Bounds of lists: what is beyond is named, and what is within does not suffer."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from scr_watchd.daemon.resolve import catalog_of
from scr_watchd.files import ANYBODY
from scr_watchd.images.bounds import Bounded, within_bounds
from scr_watchd.images.scan import Scanner
from scr_watchd.oci import bounds
from scr_watchd.oci.bounds import Claim
from scr_watchd.oci.catalog import Catalog, Image, ManifestFile, Problem, told
from scr_watchd.oci.manifest import MediaType, Referral
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.render.http_conf import render
from tests import trees

APP, OTHER = RepositoryName("app"), RepositoryName("other")
SUBJECT = Digest(f"sha256:{'f' * 64}")


def image(number: int, *, name: RepositoryName = APP, referral: Referral | None = None) -> Image:
    digest = Digest(f"sha256:{number:064x}")
    tag = Tag(f"{number:06d}")
    manifest = ManifestFile(digest, MediaType.OCI_MANIFEST, 1, "manifest.json", referral)
    return Image(f"{name}/{tag}", name, tag, (manifest,), ())


def referrer(number: int, **annotations: str) -> Image:
    return image(number, referral=Referral(SUBJECT, "a/b", annotations))


def test_within_bounds_nothing_changes() -> None:
    images = (image(1), referrer(2, a="b"), image(3, name=OTHER))
    assert within_bounds(images) == Bounded(images)


def test_the_first_tags_of_a_repository_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TAGS", 3)
    images = [image(number) for number in (5, 1, 4, 2)] + [image(9, name=OTHER)]
    digest_only = replace(image(7), tag=None)
    bounded = within_bounds([*images, digest_only])
    kept, complaints = bounded.images, bounded.complaints
    assert [each.tag for each in kept] == ["000001", "000004", "000002", "000009", None]
    ((at_fault, reason, remedy),) = complaints
    assert at_fault == images[0]
    assert reason == "app has 4 tags, and the first 3 are served"
    assert remedy


def test_a_hundred_thousand_tags_are_within_bounds() -> None:
    images = [image(number) for number in range(100_000)]
    assert within_bounds(images).complaints == ()
    assert len(within_bounds([*images, image(100_000)]).images) == 100_000


def test_the_first_referrers_of_a_subject_are_listed_and_all_can_be_pulled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "REFERRERS", 2)
    images = tuple(referrer(number) for number in (3, 1, 2))
    bounded = within_bounds(images)
    kept, complaints = bounded.images, bounded.complaints
    assert kept == images
    ((at_fault, reason, _),) = complaints
    assert at_fault == referrer(3)
    assert reason == f"{SUBJECT} has 3 referrers in app, and the first 2 are listed"
    (repository,) = catalog_of(kept).repositories
    assert list(repository.referrers) == sorted([referrer(1).digest, referrer(2).digest])
    assert len(repository.manifests) == 3


def test_a_referrer_with_too_many_annotations_is_listed_without_them() -> None:
    most = referrer(1, a="x" * (bounds.ANNOTATION_BYTES - 1))
    more = referrer(2, a="é" * (bounds.ANNOTATION_BYTES // 2))
    bounded = within_bounds([most, more])
    kept, complaints = bounded.images, bounded.complaints
    assert kept[1] is more  # another object would have the store hash its blobs again, at each look
    ((at_fault, reason, _),) = complaints
    assert at_fault == more
    assert "16,385 bytes of annotations" in reason
    (repository,) = catalog_of(kept).repositories
    annotations = [each.referral.annotations for each in repository.referrers.values()]
    assert sorted(map(len, annotations)) == [0, 1]


def test_a_referrer_with_a_type_that_is_too_long_is_listed_without_one() -> None:
    most, more = (image(number, referral=Referral(SUBJECT, f"a/{'b' * number}")) for number in (253, 254))
    bounded = within_bounds([most, more])
    kept, complaints = bounded.images, bounded.complaints
    ((at_fault, reason, _),) = complaints
    assert at_fault == more
    assert "256 characters" in reason
    (repository,) = catalog_of(kept).repositories
    types = [each.referral.artifact_type for each in repository.referrers.values()]
    assert sorted(map(len, types)) == [0, 255]


def test_a_scan_names_what_is_beyond_a_bound(tmp_path: Path) -> None:
    subject = trees.image("subject")
    about: dict[str, Any] = {
        "subject": trees.descriptor(subject.raw, subject.media_type),
        "annotations": {"a": "x" * 20_000},
    }
    root = trees.make_images(tmp_path, {"app": {"1": subject, "sbom": trees.image("sbom", **about)}})
    scan = Scanner(root, reader=ANYBODY).full()
    assert len(scan.images) == 2
    (problem,) = scan.problems
    assert problem.path == f"{root}/app/sbom"
    assert "20,001 bytes of annotations" in problem.reason
    assert Scanner(root, reader=ANYBODY).full() == scan


# -- rooms, and who has them ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "room", "kept"),
    [
        pytest.param({1: 5, 2: 5}, 10, {1: 5, 2: 5}, id="all fit"),
        pytest.param({1: 20}, 10, {1: 10}, id="one alone has all of it"),
        pytest.param({1: 20, 2: 20}, 10, {1: 5, 2: 5}, id="two that want it all have a half each"),
        pytest.param({1: 20, 2: 2}, 10, {1: 8, 2: 2}, id="who needs less leaves the rest"),
        pytest.param({1: 20, 2: 2, 3: 9}, 12, {1: 5, 2: 2, 3: 5}, id="to all others"),
    ],
)
def test_a_room_is_shared_fairly(wanted: dict[int, int], room: int, kept: dict[int, int]) -> None:
    claims = [Claim(owner, (f"{n:02}",), 1) for owner, many in wanted.items() for n in range(many)]
    answers = []
    for order in (claims, claims[::-1]):
        beyond, _ = bounds.left_out(order, room)
        left = set(claims) - set(beyond)
        assert Counter(each.owner for each in left) == kept
        assert all(each.key[0] < f"{kept[each.owner]:02}" for each in left), "the first by name"
        answers.append(left)
    assert answers[0] == answers[1], "whatever the order"


def owned(images: Iterable[Image], owner: int) -> list[Image]:
    return [replace(each, owner=owner) for each in images]


def test_whoever_has_too_much_is_named_and_nobody_else_loses_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = owned([image(number) for number in range(200)], 1001)
    mine = owned([image(number, name=OTHER) for number in range(20)], 1002)
    monkeypatch.setattr(bounds, "TREE_COST", 15_000)
    found = within_bounds([*theirs, *mine])
    assert [each for each in found.images if each.owner == 1002] == mine
    kept = [each for each in found.images if each.owner == 1001]
    assert 50 < len(kept) < 200
    assert kept == theirs[: len(kept)]
    assert found.beyond == {(APP, each.tag) for each in theirs[len(kept) :]}
    ((at_fault, reason, _),) = found.complaints
    assert at_fault == theirs[len(kept)]
    assert "uid 1001 has in this tree" in reason
    assert f"{200 - len(kept)} tags from app:{at_fault.tag} on are not served" in reason
    assert within_bounds([*mine, *theirs[::-1]]).beyond == found.beyond


def test_referrers_that_are_too_large_together_are_unlisted_and_can_be_pulled() -> None:
    images = owned([referrer(number, a="$" * 16_000) for number in range(100)], 1001)
    found = within_bounds(images)
    assert found.images == tuple(images)
    assert found.beyond == frozenset()
    (repository,) = catalog_of(found.images, unlisted=found.unlisted).repositories
    assert 5 < len(repository.referrers) < 20
    assert set(repository.manifests) == {*repository.referrers, *found.unlisted[APP]}
    ((_, reason, _),) = found.complaints
    assert "referrers are in no list, and can be pulled by digest" in reason


def test_a_referrer_that_another_owner_has_too_stays_in_its_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "REFERRERS", 4)
    mine = owned([replace(referrer(9), tag=Tag("mine"))], 1002)
    theirs = owned([referrer(number) for number in range(10)], 1001)
    assert len(within_bounds([*theirs, *mine]).unlisted[APP]) == 6
    assert mine[0].digest not in within_bounds([*theirs, *mine]).unlisted[APP]


def test_spellings_of_a_tag_have_a_bound() -> None:
    spelled = [
        replace(image(number), tag=Tag("".join(letters)))
        for number, letters in enumerate(product("aA", "bB", "cC", "dD", "eE", "fF"))
    ]
    found = within_bounds([image(1), *spelled])
    assert len(found.images) == 1 + bounds.SPELLINGS
    ((_, reason, _),) = found.complaints
    assert reason == "64 tags of app differ from abcdef in case at most, and the first 32 are served"


LONG = RepositoryName("/".join(["n" * 50] * 5))


@pytest.mark.parametrize(
    "images",
    [
        pytest.param([image(n) for n in range(30)], id="tags"),
        pytest.param([image(n) for n in range(3000)], id="a long list of tags"),
        pytest.param([replace(image(n), tag=Tag(f"{n:0128}")) for n in range(500)], id="long tags"),
        pytest.param([image(n, name=RepositoryName(f"r{n}")) for n in range(500)], id="repositories"),
        pytest.param([image(n, name=RepositoryName(f"{LONG}/{n}")) for n in range(300)], id="long names"),
        pytest.param([replace(image(n), tag=None) for n in range(1)], id="by digest only"),
        pytest.param([referrer(n) for n in range(3)], id="referrers"),
        pytest.param([referrer(n, a="$\u00e9\U0001f600x" * 400) for n in range(40)], id="long referrers"),
    ],
)
def test_nothing_costs_less_than_what_is_rendered(
    images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each within a room that is one byte smaller than what nginx would read finds no place for all."""
    fixed = len(render(Catalog(), store="/s").files["http.conf"])
    catalog = catalog_of(images)
    manifests = sum(78 + 8 for repository in catalog.repositories for _ in repository.manifests)
    rendered = len(render(catalog, store="/s").files["http.conf"]) - fixed - manifests
    monkeypatch.setattr(bounds, "REPOSITORY_COST", rendered - 1)
    monkeypatch.setattr(bounds, "TREE_COST", rendered - 1)
    assert within_bounds(images).complaints


def test_ten_thousand_tags_are_not_even_looked_at() -> None:
    images = tuple(image(number) for number in range(10_000))
    began = time.process_time()
    assert within_bounds(images) == Bounded(images)
    assert time.process_time() - began < 0.1


def test_an_owner_is_that_of_the_directory_or_of_the_link(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    root = trees.make_images(tmp_path, {"app": {"1": trees.image("one")}})
    trees.write_layout(root / "layout", ("1", trees.image("two")))
    (root / "app" / "link").symlink_to("1")
    (root / "broken:1").mkdir()
    for path, owner in (("app/1", 1001), ("layout", 1002), ("app/link", 1003), ("broken:1", 1004)):
        os.chown(root / path, owner, -1, follow_symlinks=False)
    (root / "broken:1" / "manifest.json").write_text("{")
    scan = Scanner(root, reader=ANYBODY).full()
    assert {f"{each.repository}:{each.tag}": each.owner for each in scan.images} == {
        "app:1": 1001, "app:link": 1003, "layout:1": 1002,
    }  # fmt: skip
    assert [each.owner for each in scan.problems] == [1004]


def test_problems_have_a_bound_and_one_owner_does_not_hide_those_of_another() -> None:
    many = [Problem(f"/a/{n:05}", "it is broken", "Mend it", 1001) for n in range(5000)]
    mine = Problem("/z", "it is broken", "Mend it", 1002)
    kept = told([*many, mine])
    assert mine in kept
    assert len(kept) == bounds.PROBLEMS + 1
    (rest,) = [each for each in kept if each.reason.endswith("not named here")]
    assert rest.reason.startswith("4,001 more")
    assert rest.owner == 1001
    assert told([mine, *many[:3]]) == (*many[:3], mine)
