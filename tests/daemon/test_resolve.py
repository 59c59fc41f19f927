"""What stays published although the tree does not show it."""

import pytest

from scr_watchd.daemon.resolve import catalog_of, pins
from scr_watchd.images.scan import Scan
from scr_watchd.oci.catalog import Image, ManifestFile, Reference
from scr_watchd.oci.manifest import MediaType
from scr_watchd.oci.names import Digest, RepositoryName, Tag

OLD = Digest(f"sha256:{'a' * 64}")
APP: Reference = (RepositoryName("lib/app"), Tag("1"))


def image(reference: Reference = APP) -> Image:
    name, tag = reference
    return Image(f"{name}/{tag}", name, tag, (ManifestFile(OLD, MediaType.OCI_MANIFEST, 1, "m"),), ())


def scan(*, images: tuple[Image, ...] = (), unfinished: bool = False, hidden: tuple[str, ...] = ()) -> Scan:
    return Scan(images, (), frozenset({APP} if unfinished else ()), hidden)


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
def test_which_published_tags_stay(seen: Scan, stays: bool) -> None:  # noqa: FBT001 - a table
    published = catalog_of([image()])
    pinned = pins(seen, (), published, stored=lambda name, tag, digest: image((name, tag)), prefix="")
    assert pinned == ((image(),) if stays else ())


def test_what_is_in_the_store_no_more_cannot_stay() -> None:
    published = catalog_of([image()])
    assert pins(scan(unfinished=True), (), published, stored=lambda *_: None, prefix="") == ()


def test_a_tag_that_is_there_needs_no_pin() -> None:
    published = catalog_of([image()])
    assert pins(scan(unfinished=True), (image(),), published, stored=lambda *_: image(), prefix="") == ()


def test_a_prefix_is_no_part_of_the_path() -> None:
    reference = (RepositoryName("mirror/lib/app"), Tag("1"))
    published = catalog_of([image(reference)])
    seen = scan(hidden=("lib",))
    assert pins(seen, (), published, stored=lambda *_: image(reference), prefix="mirror/") != ()
