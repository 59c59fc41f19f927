"""Orders of events within and between passes."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import structs

from scr_watchd.publish.state import request
from scr_watchd.settings import Settings
from tests.daemons import public_directory
from tests.passes import Passes
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, write_image
from tests.waiting import until

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


# -- what has rotted ---------------------------------------------------------------------------------


def settled(passes: Passes) -> None:
    """Look until nothing waits for its hashes, nor for its proof to be noted."""
    store = passes.mirror.store
    assert store is not None
    until(
        lambda: (passes.look(), passes.mirror.found.waiting, store.prover.is_complete)[1:],
        lambda found: found == (0, True),
    )


def rot(path: Path) -> None:
    """Exchange a byte in place, and leave no trace in the size or the time of modification."""
    status = path.stat()
    with path.open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def without_manifest(directory: Path) -> Callable[[], object]:
    manifest = directory / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    return lambda: manifest.write_bytes(content)


def closed(directory: Path) -> Callable[[], object]:
    directory.chmod(0o700)
    return lambda: directory.chmod(0o755)


def away(directory: Path) -> Callable[[], object]:
    other = directory.parent / ".away"
    directory.rename(other)
    return lambda: other.rename(directory)


@pytest.mark.parametrize("leave", [without_manifest, closed, away])
@pytest.mark.parametrize("restarts", [False, True])
def test_what_rots_while_nobody_can_look_is_not_published_again(
    passes: Passes,
    leave: Callable[[Path], Callable[[], object]],
    restarts: bool,  # noqa: FBT001 - a table
) -> None:
    built = image("one")
    directory = write_image(passes.settings.root / "app:1", built)
    passes.look()
    assert passes.served() == {"app:1": built.digest}
    settled(passes)
    come_back = leave(directory)
    passes.look()
    blob = next(path for path in (passes.settings.root).rglob(min(built.blobs)[7:]))
    rot(blob)
    come_back()
    if restarts:
        passes.start()
    until(passes.look_and_tell, lambda served: served == {}, seconds=20)


def test_a_restart_hashes_nothing_again(passes: Passes) -> None:
    for name in NAMES:
        write_image(passes.settings.root / name, image(name))
    passes.look()
    settled(passes)
    passes.start()
    passes.look()
    store = passes.mirror.store
    assert store is not None
    assert store.prover.hasher.is_idle, "it knows what is proven"
    assert sorted(passes.served()) == NAMES


def test_a_pinned_blob_that_is_cut_off_in_place_is_found(passes: Passes) -> None:
    built = image("one")
    directory = write_image(passes.settings.root / "app:1", built)
    passes.look()
    (directory / "manifest.json").unlink()
    passes.look()
    assert passes.served() == {"app:1": built.digest}
    os.truncate(directory / min(built.blobs)[7:], 1)
    passes.look(full=False)
    assert passes.served() == {}


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


def test_what_is_lost_bit_by_bit_comes_back_also_after_a_restart(passes: Passes) -> None:
    """Some of it in repositories at rest, with an image that another tag has too."""
    images, twice = passes.settings.root, image("twice")
    for number in range(10):
        write_image(images / f"app{number}:1", image(str(number)))
        write_image(images / f"twice{number % 2}:{number}", twice)
    before = passes.look_and_tell()
    assert len(before) == 20
    for number in range(7):
        shutil.rmtree(images / f"app{number}:1")
    shutil.rmtree(images / "twice0:0")
    passes.look()
    passes.start()
    assert len(passes.look_and_tell()) == 12
    for number in (1, 3, 5):
        shutil.rmtree(images / f"twice1:{number}")
    assert passes.look_and_tell() == before
    assert len(passes.mirror.found.held) == 11
    request(passes.mirror.publisher.state, "accept")
    assert len(passes.look_and_tell()) == 9
    shutil.rmtree(images / "app7:1")
    assert len(passes.look_and_tell()) == 8


def another_disk_with_the_same_number() -> None:
    """The root of each new file system has the same inode number; an empty one is mounted by mistake."""
    for kind in ("ext4", "xfs"):
        with public_directory() as directory:
            images = directory / "images"
            images.mkdir()
            disks = [directory / f"{number}.img" for number in range(2)]
            for disk in disks:
                with disk.open("wb") as file:
                    file.truncate(320 << 20)
                subprocess.run([f"mkfs.{kind}", "-q", disk], check=True)
            mount("-o", "loop", disks[0], images)
            images.chmod(0o755)
            for number in range(9):
                write_image(images / f"app:{number}", image(str(number)))
            passes = Passes(Settings(root=images, state=directory / "state"))
            passes.look()
            assert len(passes.served()) == 9
            inode = images.stat().st_ino
            unmount(images)
            mount("-o", "loop", disks[1], images)
            images.chmod(0o755)
            assert images.stat().st_ino == inode
            for _ in range(2):
                passes.look()
                assert len(passes.mirror.found.held) == len(passes.served()) == 9
            unmount(images)
            mount("-o", "loop", disks[0], images)
            passes.look()
            assert len(passes.served()) == 9
            assert not passes.mirror.found.held
            unmount(images)


def inodes_run_out_while_the_store_is_opened() -> None:
    """It has symbolic links then, and hard ones again as soon as there are inodes."""
    with public_directory() as directory:
        disk = directory / "disk"
        disk.mkdir()
        mount("-t", "tmpfs", "-o", "nr_inodes=200", "tmpfs", disk)
        try:
            write_image(disk / "images" / "app:1", image("one"))
            passes = Passes(Settings(root=disk / "images", state=disk / "state"))
            passes.look()
            fillers = disk / "fillers"
            fillers.mkdir()
            with contextlib.suppress(OSError):
                for number in range(200):
                    (fillers / str(number)).touch()
            passes.start()
            passes.look()
            store = passes.mirror.store
            assert store is not None
            assert not store.place.hard_links
            for path in fillers.iterdir():
                path.unlink()
            write_image(disk / "images" / "app:2", image("two"))
            passes.look()
            assert sorted(passes.served()) == ["app:1", "app:2"]
            assert passes.mirror.store is not None
            assert passes.mirror.store.place.hard_links
            assert not any(path.is_symlink() for path in (disk / "state" / "store").rglob("*"))
        finally:
            unmount(disk)


@pytest.mark.parametrize(
    "scenario",
    [a_disk_comes_back_within_a_pass, a_disk_goes_away_within_a_pass, a_disk_below_the_root_goes_away],
)
def test_no_image_is_lost_to_a_mount(scenario: Callable[[], None]) -> None:
    run_with_private_mounts(scenario)


def test_another_disk_is_known_by_its_device() -> None:
    run_with_private_mounts(another_disk_with_the_same_number)


def test_links_are_hard_again_when_inodes_are() -> None:
    run_with_private_mounts(inodes_run_out_while_the_store_is_opened)


def test_the_page_is_in_the_store_from_the_first_pass_and_comes_back(passes: Passes) -> None:
    directory = passes.settings.state / "store" / ".page"
    passes.look()
    (file,) = directory.iterdir()
    file.unlink()
    passes.look(full=False)
    assert list(directory.iterdir()) == [file]


def test_the_page_goes_with_browse_and_a_former_page_with_its_generation(passes: Passes) -> None:
    write_image(passes.settings.root / "app" / "1", image("a"))
    passes.look()
    directory = passes.settings.state / "store" / ".page"
    (file,) = directory.iterdir()
    former = directory / f"{'0' * 64}.html"
    former.write_bytes(b"of another version")
    write_image(passes.settings.root / "app" / "2", image("b"))
    passes.look()
    assert list(directory.iterdir()) == [file]
    passes.settings = structs.replace(passes.settings, browse=False)
    passes.start()
    for tag in ("3", "4"):  # until then a worker may have the generation before
        write_image(passes.settings.root / "app" / tag, image(tag))
        passes.look()
    assert not directory.exists()
