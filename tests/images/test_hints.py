"""A look at hinted places finds what a look at everything finds; whatever is hinted, nothing is lost."""

import ctypes
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scr_watchd.files import ANYBODY, Reader
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from tests.fuzzing import modest
from tests.trees import image, index, make_images, without, write_image, write_layout

ONE, TWO = image("1"), image("2")
BOTH = index(ONE, TWO)
IMAGES = [ONE, TWO, BOTH, without(BOTH, TWO)]
NOBODY = Reader(65534, frozenset({65534}))
PARTS = ["a", "b", "1", "2", "a:1", "b:2", "blobs", "x.tar", ".new"]
FILES = ["manifest.json", "oci-layout", "index.json", "x.tar", "version", "dir-put-blob1"]

paths = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("/".join)
targets = st.one_of(paths, paths.map(lambda path: f"../{path}"))
Step = tuple[str, str, object]
steps = st.one_of(
    st.tuples(st.just("image"), paths, st.integers(0, len(IMAGES) - 1)),
    st.tuples(st.just("layout"), paths, st.sampled_from([("1",), ("1", "2"), ("x/y:1", "z:2"), (None,)])),
    st.tuples(st.just("remove"), paths, st.none()),
    st.tuples(st.just("move"), paths, paths),
    st.tuples(st.just("exchange"), paths, paths),
    st.tuples(st.just("link"), paths, targets),
    st.tuples(st.just("directory"), paths, st.none()),
    st.tuples(st.just("file"), paths, st.sampled_from(FILES)),
    st.tuples(st.just("break"), paths, st.integers(0, 9)),
)


class World:
    """A tree, and the hints that file events would give of what happens in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hints: set[str] = set()

    def do(self, step: Step) -> None:
        kind, path, what = step
        before = self._everything()
        try:
            getattr(self, f"_{kind}")(self.root / path, what)
        except OSError:
            return  # a file where a directory should be, a directory moved into itself
        finally:
            after = self._everything()
            self.hints |= {each for each in {**before, **after} if before.get(each) != after.get(each)}

    def _everything(self) -> dict[str, tuple[int, ...]]:
        """What lies at each path, which is another thing after it was exchanged."""
        found = {}
        for directory, directories, files in os.walk(self.root):
            for name in (*directories, *files):
                path = f"{directory}/{name}"
                status = os.lstat(path)
                is_file = not os.path.isdir(path) or os.path.islink(path)
                times = (status.st_mtime_ns, status.st_size) if is_file else ()
                found[os.path.relpath(path, self.root)] = (status.st_ino, status.st_mode, *times)
        return found

    def _image(self, path: Path, number: int) -> None:
        write_image(path, IMAGES[number])

    def _layout(self, path: Path, names: tuple[str | None, ...]) -> None:
        write_layout(path, *zip(names, (ONE, TWO), strict=False))

    def _remove(self, path: Path, _: None) -> None:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _move(self, path: Path, to: str) -> None:
        path.rename(self.root / to)

    def _exchange(self, path: Path, other: str) -> None:
        renameat2(path, self.root / other)

    def _link(self, path: Path, target: str) -> None:
        path.symlink_to(target)

    def _directory(self, path: Path, _: None) -> None:
        path.mkdir(parents=True)

    def _file(self, path: Path, name: str) -> None:
        (path / name).write_bytes(b"{}")

    def _break(self, path: Path, number: int) -> None:
        files = sorted(each for each in path.iterdir() if each.is_file())
        if files:
            each = files[number % len(files)]
            each.write_bytes(b"rotten") if number < 5 else each.unlink()


def renameat2(one: Path, two: Path) -> None:
    """Exchange two names (renameat2(2), RENAME_EXCHANGE)."""
    libc, here, exchange = ctypes.CDLL(None, use_errno=True), -100, 2
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(two), exchange) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def everything(root: Path, reader: Reader = ANYBODY) -> Tree:
    return Scanner(root, reader=reader).full()


def told(found: Tree) -> list[tuple[str, str]]:
    return [(each.path, each.reason) for each in found.problems]


def same(found: Tree, expected: Tree) -> None:
    assert found.repositories == expected.repositories
    # a remedy names what was free when it was made
    assert set(told(found)) == set(told(expected))
    assert (found.hidden, found.changed) == (expected.hidden, expected.changed)


@modest
@given(st.lists(st.lists(steps, min_size=1, max_size=5), min_size=1, max_size=6))
def test_hints_of_all_that_happens_are_as_good_as_a_look_at_everything(history: list[list[Step]]) -> None:
    with TemporaryDirectory() as top:
        world = World(Path(top))
        scanner = Scanner(world.root, reader=ANYBODY)
        scanner.full()
        for some in history:
            before = scanner.light()
            world.hints.clear()
            for step in some:
                world.do(step)
            hasty = scanner.at(dict.fromkeys(world.hints, False))
            complete = {(each.repository, each.tag) for each in hasty.images}
            there = {(each.repository, each.tag) for each in before.images if each.tag}
            assert there <= complete | hasty.unfinished
            twice = {each for each in hasty.problems if "is there twice" in each.reason}
            assert set(hasty.problems) - twice <= set(before.problems)
            found = scanner.at(dict.fromkeys(world.hints, True))
            same(found, everything(world.root))
            assert scanner.at(dict.fromkeys(world.hints, True)) is found


@modest
@given(
    st.lists(st.tuples(steps, st.dictionaries(paths | st.just(""), st.booleans(), max_size=4)), max_size=8),
)
def test_wrong_hints_do_no_harm(history: list[tuple[Step, dict[str, bool]]]) -> None:
    with TemporaryDirectory() as top:
        world = World(Path(top))
        scanner = Scanner(world.root, reader=ANYBODY)
        scanner.full()
        for step, hints in history:
            world.do(step)
            scanner.at(hints)
        same(scanner.light(), everything(world.root))


def test_a_reader_that_is_exchanged_while_the_root_is_away_judges_all_anew(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": ONE, "2": TWO}})
    scanner = Scanner(root, reader=ANYBODY)
    scanner.full()
    scanner.at({"a/1": True})
    root.rename(tmp_path / "away")
    scanner.reader = NOBODY
    with pytest.raises(FileNotFoundError):
        scanner.light()
    (tmp_path / "away").rename(root)
    shutil.rmtree(root / "a" / "2")
    same(scanner.at({"a/1": True}), everything(root, NOBODY))
    shutil.rmtree(root / "a" / "1")
    same(scanner.at({"a/1": True, "a/": True}), everything(root, NOBODY))
