"""What tells us of changes, and how it finds out that it does not any more."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from scr_watchd.daemon.watch import Watch
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.waiting import until


class Hints:
    """Counts hints."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1

    def come_after(self, change: object) -> None:
        """Do ``change`` and wait for a hint."""
        before = self.count
        assert callable(change)
        change()
        until(lambda: self.count, lambda count: count > before)


@pytest.fixture
def quiet_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of watchdog that dies is the point of some tests, not a fault of them."""
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, Watch, Hints]]:
    root = tmp_path / "images"
    (root / "a" / "1").mkdir(parents=True)
    hints = Hints()
    watch = Watch(root, hints, events=True)
    watch.ensure()
    yield root, watch, hints
    watch.close()


def test_changes_at_any_depth_are_hints(watched: tuple[Path, Watch, Hints]) -> None:
    root, watch, hints = watched
    assert watch.is_trusted
    hints.come_after((root / "new").mkdir)
    hints.come_after((root / "a" / "1" / "manifest.json").touch)
    hints.come_after((root / "a" / "1" / "manifest.json").unlink)
    hints.come_after(lambda: (root / "a").rename(root / "b"))
    hints.come_after(lambda: shutil.rmtree(root / "b"))
    watch.compare(directories=2, surprised=False)
    assert watch.state == "file events"


def test_reading_is_no_hint(watched: tuple[Path, Watch, Hints]) -> None:
    root, _, hints = watched
    (root / "a" / "1" / "blob").write_bytes(b"x")
    hints.come_after((root / "marker").touch)
    until(lambda: _quiet(hints, root))
    before = hints.count
    for _ in range(100):
        (root / "a" / "1" / "blob").read_bytes()
        list((root / "a" / "1").iterdir())
    hints.come_after((root / "last").touch)
    assert hints.count <= before + 4, "of 200 reads none is told of, only the two files made around them"


def _quiet(hints: Hints, root: Path) -> bool:
    """Whether all events so far were delivered: a new file's two, made and closed, come through alone."""
    before = hints.count
    (root / "a" / f"m{before}").touch()
    until(lambda: hints.count, lambda count: count >= before + 2)
    return hints.count == before + 2


def test_what_happens_in_hidden_directories_of_the_root_is_no_hint(
    watched: tuple[Path, Watch, Hints],
) -> None:
    root, _, hints = watched
    (root / ".scr-watchd").mkdir()
    until(lambda: _quiet(hints, root))
    before = hints.count
    (root / ".scr-watchd" / "store").mkdir()
    (root / ".scr-watchd" / "store" / "x").touch()
    hints.come_after((root / "last").touch)
    assert hints.count <= before + 2


@pytest.mark.usefixtures("quiet_threads")
def test_a_watch_that_dies_begins_anew(watched: tuple[Path, Watch, Hints], tmp_path: Path) -> None:
    """These changes make watchdog 7.1 raise KeyError in a thread; every object of it stays alive."""
    root, watch, hints = watched
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        threads = list(watch._threads)
        trash = tmp_path / "trash"
        trash.mkdir()
        (root / "a" / "1").rename(trash / "1")
        (root / "a" / "1").mkdir()
        (root / "a" / "1").rmdir()
        shutil.rmtree(trash)
        (root / "a" / "1").mkdir()
        until(lambda: not all(thread.is_alive() for thread in threads) or watch.is_trusted)  # noqa: B023
        until(lambda: _alive_after_ensure(watch), seconds=15)
        hints.come_after((root / "a" / "1" / "file").touch)
        (root / "a" / "1" / "file").unlink()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def _alive_after_ensure(watch: Watch) -> bool:
    watch.ensure()
    return watch.is_trusted and all(thread.is_alive() for thread in watch._threads)


def test_a_root_that_is_replaced_is_watched_anew(watched: tuple[Path, Watch, Hints]) -> None:
    root, watch, hints = watched
    root.rename(root.with_name("old"))
    (root / "b").mkdir(parents=True)
    watch.ensure()
    hints.come_after((root / "b" / "1").mkdir)


def test_a_root_that_comes_later_is_watched_then(tmp_path: Path) -> None:
    hints = Hints()
    watch = Watch(tmp_path / "later", hints, events=True)
    watch.ensure()
    assert (watch.is_trusted, watch.state) == (False, "polling until there is a directory to watch")
    (tmp_path / "later").mkdir()
    watch.ensure()
    hints.come_after((tmp_path / "later" / "a").mkdir)
    watch.close()


def test_a_root_that_is_a_symbolic_link_is_watched_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    hints = Hints()
    watch = Watch(tmp_path / "link", hints, events=True)
    watch.ensure()
    hints.come_after((tmp_path / "real" / "a").mkdir)
    hints.come_after((tmp_path / "real" / "a" / "1").mkdir)
    watch.close()


def test_a_surprise_makes_it_begin_anew_and_later_each_time(watched: tuple[Path, Watch, Hints]) -> None:
    root, watch, hints = watched
    watch.compare(directories=3, surprised=True)
    assert watch.state == "polling: a change came without a file event"
    watch.ensure()
    assert watch.state == "file events"
    watch.compare(directories=3, surprised=True)
    watch.ensure()
    assert not watch.is_trusted, "the second time it waits"
    until(lambda: _alive_after_ensure(watch))
    hints.come_after((root / "new").mkdir)


def test_an_overflow_makes_it_begin_anew(tmp_path: Path) -> None:
    """The reader is stopped while more events come than the kernel keeps."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip(f"the kernel keeps {limit} events, too many to overflow here")
    script = f"""
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from scr_watchd.daemon import watch as module
root = Path({str(tmp_path)!r}) / "images"
(root / "a").mkdir(parents=True)
hints = []
watch = module.Watch(root, lambda: hints.append(1), events=True)
watch.ensure()
(shared,) = [each for each in watch._threads if type(each).__name__ == "InotifyFD"]
first = watch._observer
with shared._lock:  # the reader cannot go on
    for number in range({limit} // 2 + 10):
        (root / "a" / str(number)).mkdir()
        (root / "a" / str(number)).rmdir()
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.waiting import until
until(lambda: module._ENDED in watch._threads)
assert hints
watch.ensure()
until(lambda: watch.ensure() or watch.is_trusted)
assert watch._observer is not first
hints.clear()
(root / "b").mkdir()
until(lambda: hints)
watch.close()
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "overflow" not in result.stderr, "it is told in our words, not in watchdog's"


def test_directories_without_a_watch_are_noticed(watched: tuple[Path, Watch, Hints]) -> None:
    _, watch, _ = watched
    watch.compare(directories=50, surprised=False)
    assert watch.is_trusted, "a new directory gets its watch a moment later"
    watch.compare(directories=50, surprised=False)
    assert watch.state.startswith("file events, and polling: only 3 of 50 directories have a watch")
    watch.compare(directories=3, surprised=False)
    assert watch.state == "file events"


def test_polling_by_setting_asks_for_no_events(tmp_path: Path) -> None:
    watch = Watch(tmp_path, Hints(), events=False)
    watch.ensure()
    assert (watch.is_trusted, watch.state) == (False, "polling: watch is set to poll")


def test_where_something_happened_is_told(watched: tuple[Path, Watch, Hints], tmp_path: Path) -> None:
    root, watch, hints = watched
    watch.take()
    hints.come_after((root / "a" / "2").mkdir)
    until(watch.take, lambda found: "a/2" in found)
    hints.come_after((root / "a" / "1" / "manifest.json").touch)
    until(watch.take, lambda found: set(found) == {"a/1/"})
    hints.come_after(lambda: (root / "a" / "latest").symlink_to("1"))
    until(watch.take, lambda found: "a/latest" in found)
    hints.come_after(lambda: (root / "a" / "2").rename(tmp_path / "away"))
    until(watch.take, lambda found: "a/2" in found)


def a_disk_is_mounted() -> None:
    with TemporaryDirectory() as top:
        root, beside = Path(top, "images"), Path(top, "beside")
        (root / "a").mkdir(parents=True)
        beside.mkdir()
        watch = Watch(root, Hints(), events=True)
        watch.ensure()
        assert not watch.has_moved()
        mount("-t", "tmpfs", "none", beside)
        assert not watch.has_moved(), "what is mounted elsewhere is nobody's concern"
        for place in (root / "a", root):
            mount("-t", "tmpfs", "none", place)
            assert watch.has_moved()
            assert not watch.ensure(), "a watch that begins has missed what happened before"
            assert watch.ensure()
            (place / "new").mkdir()
            until(watch.take, lambda found: any(each.endswith("new") for each in found))
        for place in (root, root / "a"):
            unmount(place)
            assert watch.has_moved()
            watch.ensure()
        unmount(beside)
        watch.close()


def test_a_disk_that_is_mounted_around_the_root_is_noticed() -> None:
    run_with_private_mounts(a_disk_is_mounted)
