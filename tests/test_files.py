"""Reading what others wrote, writing what others read: nothing blocks, nothing is followed."""

import os
import socket
from pathlib import Path

import pytest

from scr_watchd.files import (
    ANYBODY,
    NotOursError,
    NotRegularError,
    Reader,
    make_directory,
    me,
    open_directory,
    open_inside,
    read_regular,
    sync_directory,
    write_atomically,
)

OWNER, GROUP = 1000, 2000


def read(directory: Path, name: str, limit: int = 100) -> bytes:
    with open_directory(directory) as descriptor:
        return read_regular(name, within=descriptor, limit=limit)[0]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_regular_file_is_read_whole_with_its_status(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    with open_directory(tmp_path) as descriptor:
        content, status = read_regular("file", within=descriptor, limit=100)
    assert content == b"x" * 100
    assert (status.st_size, status.st_ino) == (100, (tmp_path / "file").stat().st_ino)


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 101)
    with pytest.raises(NotRegularError, match="it has 101 bytes, more than 100"):
        read(tmp_path, "file")


def test_an_enormous_sparse_file_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 2**40)
    with pytest.raises(NotRegularError, match="more than 100"):
        read(tmp_path, "file")


@pytest.mark.parametrize("kind", ["fifo", "link", "dangling", "loop", "directory", "socket", "device"])
def test_what_is_no_regular_file_is_refused_without_blocking(tmp_path: Path, kind: str) -> None:
    odd = tmp_path / "odd"
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "fifo":
                os.mkfifo(odd)
            case "link":
                odd.symlink_to("/etc/passwd")
            case "dangling":
                odd.symlink_to("nothing")
            case "loop":
                odd.symlink_to("odd")
            case "directory":
                odd.mkdir()
            case "socket":
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(tmp_path)  # the path of a socket must be short
                    listener.bind("odd")
            case _:
                if os.geteuid() != 0:
                    pytest.skip("only root makes devices")
                os.mknod(odd, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
        before = descriptors()
        with pytest.raises(NotRegularError, match="it is not a regular file"):
            read(tmp_path, "odd")
        assert descriptors() == before


def test_a_file_that_is_gone_is_not_called_irregular(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path, "gone")


def test_a_directory_is_opened_through_real_directories_only(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    before = descriptors()
    with open_directory(tmp_path) as root:
        with open_directory("a/b", within=root) as descriptor:
            assert os.path.samestat(os.fstat(descriptor), (tmp_path / "a" / "b").stat())
        for path in ("link", "link/b"):
            with pytest.raises(OSError), open_directory(path, within=root):  # noqa: PT011 - ELOOP or ENOTDIR
                pass
    assert descriptors() == before


def test_the_root_itself_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with open_directory(tmp_path / "link") as descriptor:
        assert os.path.samestat(os.fstat(descriptor), tmp_path.stat())


@pytest.mark.parametrize(
    ("reader", "mode", "allowed"),
    [
        pytest.param(ANYBODY, 0o005, True, id="anybody, open to all"),
        pytest.param(ANYBODY, 0o770, False, id="anybody, open to owner and group"),
        pytest.param(Reader(OWNER), 0o500, True, id="owner, open to the owner"),
        pytest.param(Reader(OWNER), 0o077, False, id="owner, open to all others"),
        pytest.param(Reader(1, frozenset({GROUP})), 0o050, True, id="group, open to the group"),
        pytest.param(Reader(1, frozenset({GROUP})), 0o707, False, id="group, open to all others"),
        pytest.param(Reader(OWNER, frozenset({GROUP})), 0o070, False, id="owner before group"),
        pytest.param(Reader(1, frozenset({2})), 0o005, True, id="stranger, open to all"),
        pytest.param(Reader(1, frozenset({2})), 0o770, False, id="stranger, closed"),
        pytest.param(Reader(0), 0o000, True, id="root"),
    ],
)
def test_modes_are_judged_as_the_kernel_does(reader: Reader, mode: int, *, allowed: bool) -> None:
    status = os.stat_result((0o100000 | mode, 1, 1, 1, OWNER, GROUP, 0, 0, 0, 0))
    assert reader.may_read(status) is allowed
    assert reader.may_enter(status) is allowed


def test_reading_and_entering_are_two_permissions() -> None:
    for mode, may_read, may_enter in ((0o004, True, False), (0o001, False, True)):
        status = os.stat_result((mode, 1, 1, 1, OWNER, GROUP, 0, 0, 0, 0))
        assert (ANYBODY.may_read(status), ANYBODY.may_enter(status)) == (may_read, may_enter)


def test_i_may_read_my_own_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    assert me().may_read((tmp_path / "file").stat())


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """Whoever has the old file open goes on reading the old content."""
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with path.open("rb") as reading:
        write_atomically(path, b"new")
        assert reading.read() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_the_umask_does_not_hide_what_is_written(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "open", b"")
        write_atomically(tmp_path / "private", b"", mode=0o600)
        make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_what_a_crash_left_behind_does_not_stop_the_next_write(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"half of something longer")
    write_atomically(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "FIFO"])
def test_what_was_planted_in_the_place_of_the_temporary_is_neither_written_nor_waited_for(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    match kind:
        case "symbolic link":
            (tmp_path / ".file.new").symlink_to("victim")
        case "hard link":
            (tmp_path / ".file.new").hardlink_to(tmp_path / "victim")
        case _:
            os.mkfifo(tmp_path / ".file.new")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["link", "file", "a stranger's"])
def test_a_directory_inside_is_made_and_never_somebody_elses(tmp_path: Path, kind: str) -> None:
    os.close(open_inside(tmp_path, "a/b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755
    (tmp_path / "a" / "b").rmdir()
    before = descriptors()
    match kind:
        case "link":
            (tmp_path / "a" / "b").symlink_to(tmp_path)
        case "file":
            (tmp_path / "a" / "b").touch()
        case _:
            if os.geteuid() != 0:
                pytest.skip("only root can have a directory of somebody else's")
            (tmp_path / "a" / "b").mkdir()
            os.chown(tmp_path / "a" / "b", 65534, -1)
    with pytest.raises(NotOursError, match="somebody else's"):
        open_inside(tmp_path, "a/b/c")
    assert descriptors() == before
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_a_new_directory_can_be_written_by_nobody_else_and_entered_by_nginx_from_the_first_moment_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree may have a default ACL, which counts instead of the umask; then nothing may be planted."""
    before, seen = os.umask(0), []
    monkeypatch.setattr(os, "fchmod", lambda descriptor, _: seen.append(os.fstat(descriptor).st_mode & 0o777))
    try:
        os.close(open_inside(tmp_path, "a/b"))
    finally:
        os.umask(before)
    assert seen == [0o755, 0o755]


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    make_directory(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_the_names_of_a_directory_can_be_synced(tmp_path: Path) -> None:
    sync_directory(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_directory(tmp_path / "gone")
