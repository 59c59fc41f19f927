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


@pytest.mark.parametrize("scenario", [a_disk_comes_back_within_a_pass, a_disk_goes_away_within_a_pass])
def test_no_image_is_lost_to_a_mount_between_two_steps(scenario: Callable[[], None]) -> None:
    run_with_private_mounts(scenario)
