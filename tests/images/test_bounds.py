"""Bounds of lists: what is beyond is named, and what is within does not suffer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scr_watchd.daemon.resolve import catalog_of
from scr_watchd.files import ANYBODY
from scr_watchd.images.bounds import within_bounds
from scr_watchd.images.scan import Scanner
from scr_watchd.oci import bounds
from scr_watchd.oci.catalog import Image, ManifestFile
from scr_watchd.oci.manifest import MediaType, Referral
from scr_watchd.oci.names import Digest, RepositoryName, Tag
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
    assert within_bounds(images) == (images, [])


def test_the_first_tags_of_a_repository_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TAGS", 3)
    images = [image(number) for number in (5, 1, 4, 2)] + [image(9, name=OTHER)]
    digest_only = replace(image(7), tag=None)
    kept, complaints = within_bounds([*images, digest_only])
    assert [each.tag for each in kept] == ["000001", "000004", "000002", "000009", None]
    ((at_fault, reason, remedy),) = complaints
    assert at_fault == images[0]
    assert reason == "app has 4 tags, and the first 3 are served"
    assert remedy


def test_a_hundred_thousand_tags_are_within_bounds() -> None:
    images = [image(number) for number in range(100_000)]
    assert within_bounds(images)[1] == []
    assert len(within_bounds([*images, image(100_000)])[0]) == 100_000


def test_the_first_referrers_of_a_subject_are_listed_and_all_can_be_pulled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "REFERRERS", 2)
    images = tuple(referrer(number) for number in (3, 1, 2))
    kept, complaints = within_bounds(images)
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
    kept, complaints = within_bounds([most, more])
    assert kept[1] is more  # another object would have the store hash its blobs again, at each look
    ((at_fault, reason, _),) = complaints
    assert at_fault == more
    assert "16,385 bytes of annotations" in reason
    (repository,) = catalog_of(kept).repositories
    annotations = [each.referral.annotations for each in repository.referrers.values()]
    assert sorted(map(len, annotations)) == [0, 1]


def test_a_referrer_with_a_type_that_is_too_long_is_listed_without_one() -> None:
    most, more = (image(number, referral=Referral(SUBJECT, f"a/{'b' * number}")) for number in (253, 254))
    kept, complaints = within_bounds([most, more])
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
