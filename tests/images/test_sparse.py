"""Indexes of which some platforms are there: what is served of them, and when."""

import os
import shutil
import time
from pathlib import Path

import pytest

from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.images.sparse import LOSING_SECONDS, QUIET_SECONDS, Ripening, key_of
from scr_watchd.images.tree import Tree
from scr_watchd.oci.catalog import Image
from scr_watchd.oci.manifest import Descriptor
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from tests.daemon.test_resolve import image as resolved
from tests.trees import Built, image, index, make_images, without, write_blob, write_image, write_layout

AMD64, ARM64, PROOF = image("amd64"), image("arm64"), image("attestation")
BOTH = index(AMD64, ARM64, platforms=("linux/amd64", "linux/arm64/v8"))
SPARSE = without(BOTH, ARM64)


def scan(root: Path) -> Tree:
    return Scanner(root, reader=ANYBODY).full()


def only_image(root: Path) -> Image:
    found = scan(root)
    assert found.problems == ()
    (one,) = found.images
    return one


# -- what is there of it -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["dir", "oci"])
def test_an_index_is_an_image_with_the_platforms_that_are_there(tmp_path: Path, form: str) -> None:
    if form == "dir":
        write_image(tmp_path / "app:1", SPARSE)
    else:
        write_layout(tmp_path / "app", ("1", SPARSE))
    found = only_image(tmp_path)
    assert (found.digest, found.some_platforms) == (BOTH.digest, "1 of 2 platforms: linux/amd64")
    assert {each.digest for each in found.manifests} == {BOTH.digest, AMD64.digest}
    assert {each.digest for each in found.blobs} == set(AMD64.blobs)
    assert [(each.digest, each.called) for each in found.absent] == [(ARM64.digest, "linux/arm64/v8")]


def test_a_whole_index_has_all_of_its_platforms_and_no_changes(tmp_path: Path) -> None:
    write_image(tmp_path / "app:1", BOTH)
    found = scan(tmp_path)
    assert found.images[0].platforms == ("linux/amd64", "linux/arm64/v8")
    assert (found.images[0].absent, found.images[0].some_platforms, dict(found.changed)) == ((), "", {})


def test_platforms_in_indexes_in_an_index_are_counted_one_by_one(tmp_path: Path) -> None:
    whole = index(BOTH, index(image("arm/v7"), platforms=("linux/arm/v7",)), image("plain"))
    write_image(
        tmp_path / "app:1", without(whole, ARM64, index(image("arm/v7"), platforms=("linux/arm/v7",)))
    )
    found = only_image(tmp_path)
    plain = f"{image('plain').digest[:19]}..."
    assert found.some_platforms == f"2 of 4 platforms: {plain}, linux/amd64"


def test_an_index_in_an_index_needs_one_platform_too(tmp_path: Path) -> None:
    write_image(tmp_path / "app:1", without(index(BOTH, image("plain")), AMD64, ARM64))
    assert "nothing is there of what it names" in scan(tmp_path).problems[0].reason


@pytest.mark.parametrize(
    "said",
    [
        pytest.param('"annotations": {"vnd.docker.reference.type": "attestation-manifest"}', id="annotation"),
        pytest.param('"platform": {"architecture": "unknown", "os": "unknown"}', id="unknown platform"),
    ],
)
def test_an_attestation_is_no_platform(tmp_path: Path, said: str) -> None:
    raw = index(AMD64, PROOF).raw.decode()
    head, _, tail = raw.rpartition("}]")
    whole = Built(f"{head}, {said}}}]{tail}".encode(), BOTH.media_type, index(AMD64, PROOF).files)
    write_image(tmp_path / "whole:1", whole)
    assert PROOF.digest in {each.digest for each in only_image(tmp_path).manifests}
    shutil.rmtree(tmp_path / "whole:1")
    write_image(tmp_path / "app:1", without(whole, PROOF))
    found = only_image(tmp_path)
    assert (found.absent, scan(tmp_path).changed) == ((), {})
    shutil.rmtree(tmp_path / "app:1")
    write_image(tmp_path / "app:1", without(whole, AMD64))
    assert "nothing is there of what it names" in scan(tmp_path).problems[0].reason


def test_a_platform_that_is_there_and_not_whole_keeps_all_of_it_back(tmp_path: Path) -> None:
    directory = write_image(tmp_path / "app:1", without(index(AMD64, ARM64, image("third")), image("third")))
    (directory / min(ARM64.blobs)[7:]).unlink()
    found = scan(tmp_path)
    assert found.images == ()
    assert found.unfinished == {("app", "1")}
    assert "is missing" in found.problems[0].reason


@pytest.mark.parametrize(
    "platform", ['{"os": "li\\nux", "architecture": "x"}', "[]", "7", '{"os": 1}', '"a"']
)
def test_a_platform_that_is_nonsense_is_called_by_its_digest(tmp_path: Path, platform: str) -> None:
    raw = BOTH.raw.replace(b'{"os": "linux", "architecture": "arm64", "variant": "v8"}', platform.encode())
    assert raw != BOTH.raw
    write_image(tmp_path / "app:1", Built(raw, BOTH.media_type, SPARSE.files))
    assert [each.called for each in only_image(tmp_path).absent] == [f"{ARM64.digest[:19]}..."]


# -- when something changed last ---------------------------------------------------------------------


def changed(found: Tree) -> int:
    (moment,) = found.changed.values()
    return moment


def test_what_changes_last_may_have_a_temporary_name(tmp_path: Path) -> None:
    """rsync writes one file for a minute, and nothing else changes."""
    layout = write_layout(tmp_path / "app", ("1", SPARSE))
    scanner = Scanner(tmp_path, reader=ANYBODY)
    before = changed(scanner.full())
    new = layout / "blobs" / "sha256" / f".{ARM64.digest[7:]}.q8Zx1B"
    new.write_bytes(b"a")
    later = changed(scanner.light())
    assert before < later == new.stat().st_mtime_ns
    os.utime(new, ns=(0, later + 5_000_000_000))
    assert changed(scanner.light()) == later + 5_000_000_000


def test_times_of_files_that_a_copy_keeps_do_not_make_a_directory_old(tmp_path: Path) -> None:
    """rsync -a and tar."""
    began = time.time_ns() - 10_000_000
    directory = write_image(tmp_path / "app:1", SPARSE)
    for each in (*directory.iterdir(), directory):
        os.utime(each, (0, 0))
    assert changed(scan(tmp_path)) >= began


# -- how long it waits -------------------------------------------------------------------------------

NAME, TAG = RepositoryName("app"), Tag("1")
CHILD = Descriptor(Digest(ARM64.digest), 1, platform="linux/arm64")


def sparse(digest: str = BOTH.digest) -> Image:
    made = resolved((NAME, TAG), Digest(digest))
    return Image(made.path, NAME, TAG, made.manifests, (), platforms=("linux/amd64",), absent=(CHILD,))


def whole(digest: str = BOTH.digest, *platforms: str) -> Image:
    made = resolved((NAME, TAG), Digest(digest))
    return Image("", NAME, TAG, made.manifests, (), platforms=platforms)


@pytest.mark.parametrize(
    ("before", "seconds"),
    [
        pytest.param(None, QUIET_SECONDS, id="nothing is served"),
        pytest.param(whole(AMD64.digest, "linux/amd64"), QUIET_SECONDS, id="another with what is there"),
        pytest.param(whole(AMD64.digest), QUIET_SECONDS, id="another of which nothing is known"),
        pytest.param(whole(AMD64.digest, "linux/arm64"), LOSING_SECONDS, id="another, and it would lose one"),
        pytest.param(whole(BOTH.digest, "linux/arm64"), LOSING_SECONDS, id="the same, and it would lose one"),
        pytest.param(whole(BOTH.digest, "linux/amd64"), 0, id="the same is served like that"),
    ],
)
def test_how_long_a_sparse_index_waits(before: Image | None, seconds: float) -> None:
    changes = {key_of(sparse()): 1_000 * 10**9}

    def waits(now: float) -> bool:
        found = Ripening().unripe([sparse()], changes, now=now, served=lambda _: before)
        assert all(each.until == 1_000 + seconds for each in found)
        return bool(found)

    assert waits(1_000 + seconds - 0.1) == (seconds > 0)
    assert not waits(1_000 + seconds)


def test_a_time_in_the_future_counts_from_when_it_was_first_seen() -> None:
    ripening, key = Ripening(), key_of(sparse())

    def until(moment: float, *, now: float) -> list[float]:
        return [each.until for each in ripening.unripe([sparse()], {key: int(moment * 1e9)}, now=now)]

    assert until(99_999, now=1_000) == [1_010]
    assert until(99_999, now=1_009) == [1_010]
    assert until(99_999, now=1_010) == []
    assert until(99_998, now=1_011) == [1_021]  # it changed
    assert until(1_012, now=1_020) == [1_022]  # and now it has a true time


def test_what_waits_is_left_out_and_held_on_to(tmp_path: Path) -> None:
    root = make_images(tmp_path, {"app": {"1": SPARSE, "2": AMD64}})
    found = scan(root)
    unripe = Ripening().unripe(found.images, found.changed, now=time.time())
    (one,) = unripe
    assert one.reason == "1 of its 2 platforms is not there: linux/arm64/v8"
    later = found.without(unripe)
    assert [each.tag for each in later.images] == ["2"]
    assert later.unfinished == {("app", "1")}
    assert later.unripe == (one,)
    assert found.without(()) is found


def test_blobs_that_come_later_are_found_with_what_was_known(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", ("1", SPARSE))
    scanner = Scanner(tmp_path, reader=ANYBODY)
    scanner.full()
    for content in ARM64.blobs.values():
        write_blob(layout, content)
    assert scanner.light().images[0].absent
    write_blob(layout, ARM64.raw)
    assert scanner.light().images[0].absent == ()
