"""What a scanner remembers, and what it must look at again.

The manifests are large, so that the bytes that this thread read tell whether one of them was.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scr_watchd.files import ANYBODY, Reader
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from tests.scans import nothing
from tests.trees import Built, image, index, make_images, write_image
from tests.waiting import until

LARGE = 200_000
SETTLED_SECONDS = 2.1


def large(seed: str) -> Built:
    return image(seed, annotations={"padding": "x" * LARGE})


def bytes_read(action: Callable[[], object]) -> int:
    def so_far() -> int:
        return int(Path("/proc/thread-self/io").read_text().split()[1])

    before = so_far()
    action()
    return so_far() - before


def reads(action: Callable[[], object]) -> bool:
    return bytes_read(action) > LARGE


def tags(found: Tree) -> dict[str, str]:
    return {f"{each.repository}:{each.tag}": each.digest for each in found.images}


def blob(tag: Path) -> Path:
    return min(each for each in tag.iterdir() if len(each.name) == 64)


def rewrite(path: Path, content: bytes) -> None:
    """Change a file in place and hide it: the same inode, and the time of before."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trees with ``a:1`` and the index ``b:1``, old enough for their timestamps to be trusted."""
    top = tmp_path_factory.mktemp("trees")
    content = {"a": {"1": large("a")}, "b": {"1": index(image("b"), image("c"))}}
    roots = [make_images(top / str(number), content) for number in range(18)]
    made = time.time()
    until(time.time, lambda now: now > made + SETTLED_SECONDS)
    return iter(roots)


@pytest.fixture
def root(trees: Iterator[Path]) -> Path:
    return next(trees)


@pytest.fixture
def scanner(root: Path) -> Scanner:
    return Scanner(root, reader=ANYBODY)


def test_what_has_not_changed_is_not_read_again(scanner: Scanner) -> None:
    assert reads(scanner.full)
    first = scanner.full()
    for again in (scanner.light, scanner.full):
        assert not reads(again)
        found = again()
        assert found == first
        assert all(new is old for new, old in zip(found.images, first.images, strict=True))


def test_a_first_light_scan_finds_everything(scanner: Scanner) -> None:
    assert scanner.light() == scanner.full()


def test_what_changed_lately_is_looked_at_again_once_it_is_old(tmp_path: Path) -> None:
    """A change within the tick of the clock in which we looked would leave no trace."""
    scanner = Scanner(make_images(tmp_path / "images", {"a": {"1": large("a")}}), reader=ANYBODY)
    made = time.time()
    first = scanner.full()
    assert reads(scanner.light)
    assert scanner.light().images[0] is first.images[0]
    until(time.time, lambda now: now > made + SETTLED_SECONDS)
    assert reads(scanner.light)
    assert not reads(scanner.light)
    assert not reads(scanner.full)


@pytest.mark.parametrize("depth", ["light", "full"])
def test_a_manifest_that_was_changed_in_place_is_seen(root: Path, scanner: Scanner, depth: str) -> None:
    scanner.full()
    other = large("b")
    for name, content in other.files.items():
        (root / "a" / "1" / name).write_bytes(content)
    rewrite(root / "a" / "1" / "manifest.json", other.raw)
    found = scanner.light() if depth == "light" else scanner.full()
    assert tags(found)["a:1"] == other.digest


def test_a_light_scan_sees_what_comes_and_goes(root: Path, scanner: Scanner) -> None:
    before = tags(scanner.full())
    write_image(root / "new" / "1", image("new"))
    assert tags(scanner.light()) == {**before, "new:1": image("new").digest}
    shutil.rmtree(root / "a" / "1")
    (root / "new" / "1").rename(root / "new" / "2")
    assert tags(scanner.light()) == {"b:1": before["b:1"], "new:2": image("new").digest}
    shutil.rmtree(root / "b")
    shutil.rmtree(root / "new")
    assert scanner.light() == nothing(root)


def test_a_light_scan_sees_a_blob_that_was_removed(root: Path, scanner: Scanner) -> None:
    scanner.full()
    blob(root / "a" / "1").unlink()
    found = scanner.light()
    assert list(tags(found)) == ["b:1"]
    assert found.unfinished == {("a", "1")}


def test_a_light_scan_looks_at_every_file_of_an_incomplete_image(root: Path, scanner: Scanner) -> None:
    path = blob(root / "a" / "1")
    content = path.read_bytes()
    os.truncate(path, 1)
    assert list(tags(scanner.full())) == ["b:1"]
    path.write_bytes(content)
    assert list(tags(scanner.light())) == ["a:1", "b:1"]


def test_why_an_image_is_refused_is_remembered(root: Path, scanner: Scanner) -> None:
    """Else whoever has large manifests of images that lack something has them read in each look."""
    missing = blob(root / "a" / "1")
    missing.unlink()
    made = time.time()
    until(time.time, lambda now: now > made + SETTLED_SECONDS)
    first = scanner.full()
    assert first.unfinished == {("a", "1")}
    for again in (scanner.full, scanner.light):
        assert not reads(again)
        assert again() == first
    missing.write_bytes(b"x")
    (problem,) = scanner.light().problems
    assert "has 1 bytes instead of" in problem.reason


def test_many_large_manifests_are_read_some_in_each_look(tmp_path: Path) -> None:
    """So that nobody waits long for what another has dropped."""
    root = tmp_path / "images"
    for number in range(12):
        built = image(str(number), annotations={"padding": "x" * (3 << 20)})
        write_image(root / f"large:{number}", built)
    write_image(root / "small:1", image("small"))
    scanner = Scanner(root, reader=ANYBODY)
    made = time.time()
    until(time.time, lambda now: now > made + SETTLED_SECONDS)
    counts = [len(scanner.full().images) for _ in range(4)]
    assert counts == [6, 11, 13, 13]


def test_a_full_scan_sees_a_blob_that_was_truncated_in_place(root: Path, scanner: Scanner) -> None:
    scanner.full()
    os.truncate(blob(root / "a" / "1"), 1)
    found = scanner.full()
    assert list(tags(found)) == ["b:1"]
    assert "has 1 bytes instead of" in found.problems[0].reason


def test_a_full_scan_sees_a_blob_that_became_private(root: Path, scanner: Scanner) -> None:
    scanner.full()
    blob(root / "a" / "1").chmod(0o600)
    assert list(tags(scanner.full())) == ["b:1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_full_scan_sees_a_blob_that_changed_hands(root: Path) -> None:
    path = blob(root / "a" / "1")
    path.chmod(0o640)
    os.chown(path, 1, 2)
    scanner = Scanner(root, reader=Reader(1, frozenset({2})))
    assert list(tags(scanner.full())) == ["a:1", "b:1"]
    os.chown(path, 0, 0)
    assert list(tags(scanner.full())) == ["b:1"]


def test_a_full_scan_sees_the_child_of_an_index_that_was_changed_in_place(
    root: Path, scanner: Scanner
) -> None:
    scanner.full()
    child = root / "b" / "1" / f"{image('b').digest[7:]}.manifest.json"
    rewrite(child, child.read_bytes().swapcase())
    assert list(tags(scanner.full())) == ["a:1"]


def test_a_light_scan_sees_a_directory_that_became_private(root: Path, scanner: Scanner) -> None:
    scanner.full()
    (root / "a").chmod(0o700)
    found = scanner.light()
    assert list(tags(found)) == ["b:1"]
    assert found.hidden == ()


def test_a_link_to_a_blob_from_elsewhere_does_not_make_its_image_be_read_again(
    root: Path, scanner: Scanner
) -> None:
    """Publishing makes such links, and would set off the next look at everything."""
    scanner.full()
    os.link(blob(root / "a" / "1"), root / "elsewhere")
    for again in (scanner.light, scanner.full, scanner.light):
        assert not reads(again)


def test_a_link_is_followed_anew_when_its_target_moved(root: Path, scanner: Scanner) -> None:
    """The directory it leads to is the same one, under another name."""
    (root / "c:1").symlink_to("a/1")
    assert [each.path for each in scanner.full().images] == ["a/1", "b/1", "a/1"]
    (root / "a").rename(root / "z")
    (root / "c:1").unlink()
    (root / "c:1").symlink_to("z/1")
    assert [each.path for each in scanner.light().images] == ["b/1", "z/1", "z/1"]


def test_another_reader_judges_everything_anew(root: Path) -> None:
    blob(root / "a" / "1").chmod(0o600)
    scanner = Scanner(root, reader=Reader(os.geteuid()))
    assert list(tags(scanner.full())) == ["a:1", "b:1"]
    scanner.reader = ANYBODY
    assert list(tags(scanner.light())) == ["b:1"]
    scanner.reader = Reader(os.geteuid())
    assert list(tags(scanner.light())) == ["a:1", "b:1"]


def test_a_scan_that_fails_forgets_nothing(root: Path, scanner: Scanner) -> None:
    first = scanner.full()
    away = root.rename(root.with_name("away"))
    with pytest.raises(FileNotFoundError):
        scanner.light()
    away.rename(root)
    assert scanner.light().images[0] is first.images[0]


@pytest.mark.parametrize(("depth", "looked_into"), [("light", 1 + 200), ("full", 1 + 200 + 200)])
def test_progress_is_told_often(tmp_path: Path, depth: str, looked_into: int) -> None:
    """Of every directory and link that is looked into, and once in a while among those passed by."""
    root = make_images(tmp_path / "images", {"a": {str(number): image() for number in range(200)}})
    for number in range(200):
        (root / "a" / f"link{number}").symlink_to(str(number))
    made = time.time()
    until(time.time, lambda now: now > made + SETTLED_SECONDS)
    calls: list[None] = []
    scanner = Scanner(root, reader=ANYBODY, progress=lambda: calls.append(None))
    scanner.full()
    calls.clear()
    getattr(scanner, depth)()
    assert len(calls) == looked_into + 1 + math.ceil(400 / 64)
