"""Orders of events within and between passes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scr_watchd.settings import Settings
from tests.daemons import public_directory
from tests.passes import Passes
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, write_image

NAMES = [f"app:{number}" for number in range(5)]
STEPS = ("scan", "store", "stage", "check", "pending", "switch")


@pytest.fixture
def passes() -> Iterator[Passes]:
    """Of an empty images directory."""
    with public_directory() as directory:
        (directory / "images").mkdir()
        yield Passes(Settings(root=directory / "images", state=directory / "state"))


def stored(passes: Passes, digest: str, name: str = "app") -> Path:
    return passes.settings.state / "store" / name / ".blobs" / "sha256" / digest[7:]


# -- what is private ---------------------------------------------------------------------------------


def test_a_private_directory_that_takes_the_place_of_a_judged_one_is_not_linked(passes: Passes) -> None:
    """Its manifest was known, and what was scanned looked alike."""
    images, built = passes.settings.root, image("secret")
    private = write_image(images / ".private", built)
    private.chmod(0o700)
    alike = write_image(images / "app:1", built)
    for digest, content in built.blobs.items():
        (alike / digest[7:]).write_bytes(bytes(len(content)))

    def exchange() -> None:
        alike.rename(images / ".alike")
        private.rename(alike)

    passes.at = once("scan", exchange)
    for _ in range(2):
        passes.look()
        assert passes.served() == {}
        assert not any(stored(passes, digest).exists() for digest in built.blobs)
    alike.chmod(0o755)
    passes.look()
    assert passes.served() == {"app:1": built.digest}


def test_a_blob_that_may_not_be_read_any_more_is_served_from_another_copy(passes: Passes) -> None:
    images, built = passes.settings.root, image("one")
    write_image(images / "app:1", built)
    write_image(images / "app:2", built)
    passes.look()
    assert passes.served() == {"app:1": built.digest, "app:2": built.digest}
    blob = min(built.blobs)
    linked = next(
        path for tag in "12" if (path := images / f"app:{tag}" / blob[7:]).samefile(stored(passes, blob))
    )
    linked.chmod(0o600)
    for again in (passes.look, passes.start):
        again()
        passes.look()
        assert passes.served() == {"app:1": built.digest, "app:2": built.digest}
        assert stored(passes, blob).stat().st_mode & 0o004


def test_a_tag_whose_blob_may_not_be_read_any_more_is_not_served(passes: Passes) -> None:
    images, built = passes.settings.root, image("one")
    directory = write_image(images / "app:1", built)
    passes.look()
    (directory / min(built.blobs)[7:]).chmod(0o600)
    passes.look()
    assert passes.served() == {}
    (directory / min(built.blobs)[7:]).chmod(0o644)
    passes.look()
    assert passes.served() == {"app:1": built.digest}


# -- mounts ------------------------------------------------------------------------------------------


@contextmanager
def published() -> Iterator[tuple[Passes, Path, Path]]:
    """Five images of a disk, which is mounted at the images directory: the passes and both directories."""
    with public_directory() as directory:
        images, disk = directory / "images", directory / "disk"
        images.mkdir()
        disk.mkdir()
        mount("-t", "tmpfs", "tmpfs", disk)
        try:
            for name in NAMES:
                write_image(disk / name, image(name))
            mount("--bind", disk, images)
            passes = Passes(Settings(root=images, state=directory / "state"))
            passes.look()
            assert sorted(passes.served()) == NAMES
            yield passes, images, disk
        finally:
            for path in (images, disk):
                while path.is_mount():
                    unmount(path)


def once(step: str, act: Callable[[], None]) -> Callable[[str], None]:
    """What acts after the first ``step``."""
    left = [act]
    return lambda done: left.pop()() if done == step and left else None


def a_disk_comes_back_within_a_pass() -> None:
    """An empty mount point was scanned, and the disk is there again when the next step asks."""
    for step in STEPS:
        with published() as (passes, images, disk):
            unmount(images)
            passes.at = once(step, lambda images=images, disk=disk: mount("--bind", disk, images))  # type: ignore[misc]
            for _ in range(2):
                passes.look()
                assert sorted(passes.served()) == NAMES, step


def a_disk_below_the_root_goes_away() -> None:
    """It has few images, and the root is the same."""
    with public_directory() as directory:
        images, disk = directory / "images", directory / "images" / "disk"
        disk.mkdir(parents=True)
        mount("-t", "tmpfs", "tmpfs", disk)
        write_image(images / "own:1", image("own"))
        write_image(disk / "app:1", image("one"))
        passes = Passes(Settings(root=images, state=directory / "state"))
        passes.look()
        unmount(disk)
        for _ in range(2):
            passes.look()
            assert sorted(passes.served()) == ["disk/app:1", "own:1"]


def a_disk_goes_away_within_a_pass() -> None:
    for step in STEPS:
        with published() as (passes, images, disk):
            write_image(disk / "new:1", image("new"))
            passes.at = once(step, lambda images=images: unmount(images))  # type: ignore[misc]
            passes.look()
            for _ in range(2):
                passes.look()
                assert set(NAMES) <= set(passes.served()), step
            mount("--bind", disk, images)
            passes.look()
            assert sorted(passes.served()) == [*NAMES, "new:1"], step


@pytest.mark.parametrize(
    "scenario",
    [a_disk_comes_back_within_a_pass, a_disk_goes_away_within_a_pass, a_disk_below_the_root_goes_away],
)
def test_no_image_is_lost_to_a_mount(scenario: Callable[[], None]) -> None:
    run_with_private_mounts(scenario)
