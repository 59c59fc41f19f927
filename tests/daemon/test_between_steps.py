"""What others do to the tree, the store, the disk and the clock between the steps of a pass."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scr_watchd.settings import Settings
from tests.daemon.test_passes import away, closed, once, rot, settled, stored, without_manifest
from tests.daemons import public_directory
from tests.endurance.hosts import image_of, layer
from tests.passes import Passes
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, write_image
from tests.waiting import until


@pytest.fixture
def passes() -> Iterator[Passes]:
    """Of an empty images directory."""
    with public_directory() as directory:
        (directory / "images").mkdir()
        yield Passes(Settings(root=directory / "images", state=directory / "state"))


@pytest.mark.parametrize("step", ["store", "check", "switch", "reload"])
def test_a_store_that_is_emptied_within_a_pass_is_mended(passes: Passes, step: str) -> None:
    built = image("one")
    write_image(passes.settings.root / "other:1", built)
    passes.look()
    settled(passes)
    write_image(passes.settings.root / "app:1", built)
    passes.at = once(step, lambda: shutil.rmtree(passes.settings.state / "store" / "app"))
    passes.look()
    for _ in range(2):
        passes.look()
    assert passes.served() == {"app:1": built.digest, "other:1": built.digest}
    assert all(stored(passes, digest).exists() for digest in built.blobs)


@pytest.mark.parametrize("leave", [without_manifest, closed, away])
def test_what_rots_unseen_while_another_image_is_added_is_not_published_again(
    passes: Passes, leave: Callable[[Path], Callable[[], object]]
) -> None:
    """What is added moves STORE/.proven on, which the pinned image was never looked at for."""
    built = image("one")
    directory = write_image(passes.settings.root / "app:1", built)
    passes.look()
    settled(passes)
    come_back = leave(directory)
    passes.look()
    blob = next(path for path in (passes.settings.root).rglob(min(built.blobs)[7:]))
    rot(blob)
    proven, changed = passes.settings.state / "store" / ".proven", blob.stat().st_ctime_ns

    def add_another() -> int:
        write_image(passes.settings.root / "other:1", image(str(time.time())))
        passes.look()
        return proven.stat().st_mtime_ns

    until(add_another, lambda now: now > changed)
    settled(passes)
    come_back()
    until(passes.look_and_tell, lambda served: "app:1" not in served, seconds=5)


def test_a_rotten_file_is_not_served_for_another_repository(passes: Passes) -> None:
    """A light look sees that app:1 was written anew, and not that other:1 has the same file."""
    built = image("one")
    one = write_image(passes.settings.root / "app:1", built)
    other = write_image(passes.settings.root / "other:1", built)
    for digest in built.blobs:
        (other / digest[7:]).unlink()
        os.link(one / digest[7:], other / digest[7:])
    passes.look()
    settled(passes)
    time.sleep(2.1)
    passes.look()
    rot(one / min(built.blobs)[7:])
    write_image_manifest_again(one)
    passes.look(full=False)
    missing = [name for name in passes.served() if not stored(passes, min(built.blobs), name[:-2]).exists()]
    assert missing == []


def write_image_manifest_again(directory: Path) -> None:
    manifest = directory / "manifest.json"
    raw = manifest.read_bytes()
    manifest.unlink()
    manifest.write_bytes(raw)


def test_a_problem_of_a_failed_pass_is_told_by_the_next(passes: Passes) -> None:
    write_image(passes.settings.root / "app:1", image("one"))
    passes.look()
    write_image(passes.settings.root / "NOT A NAME" / "1", image("one"))
    broken = [True]

    def break_once(step: str) -> None:
        if broken and step == "scan":
            broken.pop()
            raise OSError(5, "Input/output error")

    passes.at = break_once
    passes.look()
    passes.look()
    assert passes.mirror.found.problems


@pytest.mark.parametrize("seconds", [100, -100])
def test_a_clock_that_is_set_leaves_what_is_proven_proven(
    passes: Passes, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Set back, it is all hashed again: no ctime tells any more what is older than what."""
    write_image(passes.settings.root / "app:1", image("one"))
    passes.look()
    settled(passes)
    proven = passes.settings.state / "store" / ".proven"
    noted, before = proven.stat().st_mtime, time.time
    monkeypatch.setattr(time, "time", lambda: before() + seconds)
    until(
        lambda: (passes.look(), proven.exists() and proven.stat().st_mtime)[1],
        lambda now: now == noted if seconds > 0 else 0 < now < noted - 90,
    )
    assert sorted(passes.served()) == ["app:1"]


def test_an_image_whose_hashes_arrived_in_a_failed_pass_is_published(passes: Passes) -> None:
    write_image(passes.settings.root / "app:1", image("one"))
    passes.look()
    settled(passes)
    big = image_of("big", [layer("big", 70_000_000)])  # too big to be hashed at once
    write_image(passes.settings.root / "big:1", big)
    passes.look()
    assert passes.mirror.found.waiting == 1

    def fail(step: str) -> None:
        if step == "scan":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    passes.at = fail  # in each pass that hears of a hash
    until(lambda: (passes.look(), passes.mirror.store and passes.mirror.store.prover.hasher.is_idle)[1])
    passes.at = lambda _: None
    until(passes.look_and_tell, lambda served: "big:1" in served, seconds=3)


def test_hashes_are_forgotten_beside_a_rotten_blob(passes: Passes) -> None:
    directory = write_image(passes.settings.root / "app:1", image("one"))
    blob = directory / min(image("one").blobs)[7:]
    blob.write_bytes(bytes(blob.stat().st_size))
    known = []
    for number in range(10):
        write_image(passes.settings.root / "app:2", image(str(number)))
        passes.look()
        for _ in range(2):
            until(lambda: (passes.look(), passes.mirror.found.waiting)[1], lambda waiting: waiting == 0)
        if number % 3 == 0:
            time.sleep(2.1)
            passes.look()
            passes.look()
            store = passes.mirror.store
            assert store is not None
            assert store.prover.hasher is not None
            known.append(len(store.prover.hasher._results))
    assert known[-1] <= known[0], known


def test_a_store_that_is_gone_with_the_last_image_fails_no_pass(passes: Passes) -> None:
    directory = write_image(passes.settings.root / "app:1", image("one"))
    passes.look()
    shutil.rmtree(directory)
    shutil.rmtree(passes.settings.state / "store")
    passes.look()
    assert passes.served() == {}


def a_disk_is_full_when_a_tag_is_replaced() -> None:
    with public_directory() as directory:
        for hole in range(0, 400, 4):
            disk = directory / f"disk{hole}"
            disk.mkdir()
            mount("-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", disk)
            (disk / "images").mkdir()
            old, new = image("old"), image("new")
            tag = write_image(disk / "images" / "app:1", old)
            passes = Passes(Settings(root=disk / "images", state=disk / "state"))
            passes.look()
            assert passes.served() == {"app:1": old.digest}
            for path in list(tag.iterdir()):
                path.unlink()
            write_image(tag, new)
            fill = disk / "fill"
            subprocess.run(["dd", "if=/dev/zero", f"of={fill}", "bs=4096"], capture_output=True, check=False)
            os.truncate(fill, max(0, fill.stat().st_size - hole * 1024))
            for _ in range(3):
                outcome = passes.look()
                for digest in passes.served().values():
                    built = old if digest == old.digest else new
                    assert all(stored(passes, each).exists() for each in built.blobs), (hole, outcome)
                    (copy,) = (disk / "state/store/app/.manifests").rglob(digest[7:])
                    assert copy.read_bytes() == built.raw, (hole, outcome)
                assert passes.served(), (hole, outcome)
            fill.unlink()
            passes.look()
            assert passes.served() == {"app:1": new.digest}, hole
            unmount(disk)


def test_a_full_disk_loses_nothing() -> None:
    run_with_private_mounts(a_disk_is_full_when_a_tag_is_replaced)
