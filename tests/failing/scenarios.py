"""What a pass may have to do, each a small tree and what happens to it."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.trees import docker_save, image, index, without, write_image, write_layout

Step = Callable[[Path], object]
"""Does something to the images."""

ONE, TWO, NEW = image("one"), image("two"), image("one, replaced")
BOTH = index(ONE, TWO, platforms=("linux/amd64", "linux/arm64"))


@dataclass(frozen=True)
class Scenario:
    """A pass after ``change``, which follows passes over what ``prepare`` made, unless it ``is_first``.
    ``copies``: no hard links can be made; ``hashes``: every blob waits for the thread."""

    name: str
    prepare: Step
    change: Step = lambda images: None
    is_first: bool = False
    copies: bool = False
    hashes: bool = False
    restarts: bool = False
    """The daemon begins anew before the pass; that may fail, too."""
    settings: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def two(images: Path) -> None:
    write_image(images / "app:1", ONE)
    write_image(images / "other:1", TWO)


def replace(images: Path) -> None:
    shutil.rmtree(images / "app:1")
    write_image(images / "app:1", NEW)


def remove(images: Path) -> None:
    shutil.rmtree(images / "app:1")


def unfinish(images: Path) -> None:
    (images / "app:1" / "manifest.json").unlink()
    (images / "app:1" / min(ONE.blobs)[7:]).unlink()


def pinned(images: Path) -> None:
    two(images)
    write_image(images / "app:2", TWO)


def sparse(images: Path) -> None:
    two(images)
    write_image(images / "both:1", without(BOTH, TWO))


def bundle(images: Path) -> None:
    write_layout(images / "layout", ("1", ONE), ("2", TWO))


def add_bundle(images: Path) -> None:
    docker_save(images / "bundle", ("docker.io/library/app:1", ONE), ("docker.io/library/nginx:1", NEW))


def add(images: Path) -> None:
    write_image(images / "app:2", NEW)


def unfinish_and_replace(images: Path) -> None:
    unfinish(images)
    add(images)


SCENARIOS = (
    Scenario("first", two, is_first=True),
    Scenario("same", two),
    Scenario("add", two, add),
    Scenario("replace", two, replace),
    Scenario("remove", two, remove),
    Scenario("pin", pinned, unfinish),
    Scenario("sparse", two, sparse),
    Scenario("layouts", bundle, add_bundle),
    Scenario("copy", two, replace, copies=True),
    Scenario("hash", two, replace, hashes=True),
    Scenario("restart", pinned, unfinish_and_replace, restarts=True),
)
BY_NAME = {each.name: each for each in SCENARIOS}
