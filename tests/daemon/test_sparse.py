"""Sparse indexes through whole passes: what is published, what stays, and what a broken copy takes away."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scr_watchd.images.sparse import Ripening
from scr_watchd.settings import Settings
from tests.daemons import public_directory
from tests.passes import Passes
from tests.trees import Built, image, index, without, write_blob, write_image, write_layout
from tests.waiting import until

AMD64, ARM64 = image("amd64"), image("arm64")
BOTH = index(AMD64, ARM64, platforms=("linux/amd64", "linux/arm64"))
NEW_AMD64, NEW_ARM64 = image("new amd64"), image("new arm64")
NEW = index(NEW_AMD64, NEW_ARM64, platforms=("linux/amd64", "linux/arm64"))


@pytest.fixture
def passes() -> Iterator[Passes]:
    with public_directory() as directory:
        (directory / "images").mkdir()
        made = Passes(Settings(root=directory / "images", state=directory / "state"))
        made.mirror.ripe.ripening = Ripening(quiet_seconds=0.3, losing_seconds=3600)
        yield made


def manifests(passes: Passes) -> set[str]:
    """What nginx has for `app` by digest."""
    directory = passes.settings.state / "store" / "app" / ".manifests"
    return {f"sha256:{each.name}" for each in directory.glob("[0-9]/*")}


def digests(*images: Built) -> set[str]:
    return {each.digest for each in images}


@pytest.mark.parametrize("form", ["dir", "oci"])
def test_a_sparse_index_is_published_once_nothing_changes_there(passes: Passes, form: str) -> None:
    began = time.time()
    drop(passes.settings.root, without(BOTH, ARM64), form)
    passes.look()
    assert passes.served() == {}
    found = passes.mirror.found
    assert [each.reason for each in found.unripe] == ["1 of its 2 platforms is not there: linux/arm64"]
    assert began < found.look_again_at < time.time() + 0.3
    assert found.problems == ()

    def look() -> dict[str, str]:
        passes.look(full=False)
        return passes.served()

    until(look, lambda served: served == {"app:1": BOTH.digest})
    assert manifests(passes) == digests(BOTH, AMD64)
    assert passes.mirror.found.sparse == {("app", "1"): "1 of 2 platforms: linux/amd64"}
    complete(passes.settings.root, form)
    passes.look()
    assert manifests(passes) == digests(BOTH, AMD64, ARM64)
    assert passes.mirror.found.sparse == {}


def drop(root: Path, built: Built, form: str) -> None:
    if form == "dir":
        write_image(root / "app:1", built)
    else:
        write_layout(root / "app", ("1", built))


def complete(root: Path, form: str) -> None:
    """Add what is missing, the manifest last."""
    if form == "dir":
        write_image(root / "app:1", BOTH)
    else:
        for content in (*ARM64.files.values(), ARM64.raw):
            write_blob(root / "app", content)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("new", [BOTH, NEW], ids=["the same index", "a new version"])
def test_a_platform_that_is_served_is_not_lost_to_a_copy_that_was_broken_off(
    passes: Passes,
    new: Built,
    restart: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    directory = write_image(passes.settings.root / "app:1", BOTH)
    passes.look()
    assert manifests(passes) == digests(BOTH, AMD64, ARM64)
    for each in directory.iterdir():
        each.unlink()
    write_image(directory, without(new, ARM64, NEW_ARM64))
    if restart:
        passes.start()
    for full in (True, False, True):
        passes.look(full=full)
        assert passes.served() == {"app:1": BOTH.digest}
        assert manifests(passes) == digests(BOTH, AMD64, ARM64)
        assert passes.mirror.found.pinned == (("app", "1"),)
    passes.mirror.ripe.ripening = Ripening(quiet_seconds=0, losing_seconds=0)
    passes.look()
    assert passes.served() == {"app:1": new.digest}


def test_a_sparse_index_stays_while_its_directory_is_copied_again(passes: Passes) -> None:
    """Its absent platform was never there: the pin has all of it."""
    passes.mirror.ripe.ripening = Ripening(quiet_seconds=0)
    directory = write_image(passes.settings.root / "app:1", without(BOTH, ARM64))
    passes.look()
    assert passes.served() == {"app:1": BOTH.digest}
    (directory / "manifest.json").unlink()
    passes.start()
    for _ in range(2):
        passes.look()
        assert passes.served() == {"app:1": BOTH.digest}
        assert manifests(passes) == digests(BOTH, AMD64)


def test_a_pin_of_which_the_store_has_lost_a_platform_is_not_kept(passes: Passes) -> None:
    directory = write_image(passes.settings.root / "app:1", BOTH)
    passes.look()
    (directory / "manifest.json").unlink()
    passes.look()
    assert passes.served() == {"app:1": BOTH.digest}
    store = passes.settings.state / "store" / "app" / ".manifests" / "1"
    (store / ARM64.digest[7:]).unlink()
    passes.look()
    assert passes.served() == {}


def test_a_sparse_index_of_a_layout_is_served_on_while_its_neighbour_is_copied(passes: Passes) -> None:
    passes.mirror.ripe.ripening = Ripening(quiet_seconds=0)
    layout = write_layout(passes.settings.root / "app", ("1", without(BOTH, ARM64)))
    passes.look()
    passes.mirror.ripe.ripening = Ripening()
    (layout / "blobs" / "sha256" / ".temporary").touch()
    for full in (True, False):
        passes.look(full=full)
        assert passes.served() == {"app:1": BOTH.digest}
        assert (passes.mirror.found.unripe, passes.mirror.found.pinned) == ((), ())


def test_a_clock_that_is_wrong_does_not_keep_an_index_waiting(passes: Passes) -> None:
    directory = write_image(passes.settings.root / "app:1", without(BOTH, ARM64))
    tomorrow = time.time() + 86_400
    os.utime(directory / "version", (tomorrow, tomorrow))

    def look() -> dict[str, str]:
        passes.look(full=False)
        return passes.served()

    until(look, lambda served: served == {"app:1": BOTH.digest})
