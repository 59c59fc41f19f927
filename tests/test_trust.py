"""Who could exchange what a path leads to: the rule, case by case."""

import os
import pwd
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scr_watchd.trust import stranger, weak_place, weak_way
from tests.daemons import public_directory

NOBODY = 65534


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory of ours below a sticky one, with the way ``a/b`` in it."""
    with public_directory() as directory:
        (directory / "a" / "b").mkdir(parents=True)
        yield directory


def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can have a directory of somebody else's")


def set_acl(directory: Path, *, user: int, permissions: int) -> None:
    """What `setfacl -m u:USER:PERMISSIONS` writes (acl(5), and the kernel's posix_acl_xattr.h)."""
    anyone = 0xFFFFFFFF
    entries = ((1, 7, anyone), (2, permissions, user), (4, 5, anyone), (16, 7, anyone), (32, 5, anyone))
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(directory, "system.posix_acl_access", value)
    except OSError:
        pytest.skip("this file system has no ACL")


def test_what_only_we_can_write_is_relied_on(top: Path) -> None:
    assert weak_way(top / "a" / "b") == ""
    assert weak_place(top / "a" / "b") == ""


def test_what_is_not_there_is_judged_as_far_as_it_goes(top: Path) -> None:
    assert weak_place(top / "a" / "later" / "deeper") == ""
    (top / "a").chmod(0o777)
    assert weak_place(top / "a" / "later") == f"everybody may write {top}/a (mode 0777)"


def belongs(top: Path) -> str:
    os.chown(top / "a", NOBODY, -1)
    return f"{top}/a belongs to nobody"


def open_to_all(top: Path) -> str:
    (top / "a").chmod(0o757)
    return f"everybody may write {top}/a (mode 0757)"


def open_to_a_group(top: Path) -> str:
    os.chown(top / "a", -1, NOBODY)
    (top / "a").chmod(0o775)
    return f"the group nogroup may write {top}/a (mode 0775)"


def open_by_acl(top: Path) -> str:
    set_acl(top / "a", user=NOBODY, permissions=7)
    return f"the group root may write {top}/a (mode 0775)"


def sticky_with_a_strangers_child(top: Path) -> str:
    (top / "a").chmod(0o1777)
    os.chown(top / "a" / "b", NOBODY, -1)
    return f"what lies in {top}/a belongs to nobody"


def link_of_a_stranger(top: Path) -> str:
    (top / "real").mkdir()
    (top / "a" / "b").rmdir()
    (top / "a" / "b").symlink_to(top / "real")
    os.chown(top / "a" / "b", NOBODY, -1, follow_symlinks=False)
    (top / "a").chmod(0o1777)
    return f"what lies in {top}/a belongs to nobody"


def link_through_a_weak_directory(top: Path) -> str:
    (top / "weak" / "b").mkdir(parents=True)
    (top / "weak").chmod(0o777)
    (top / "a" / "b").rmdir()
    (top / "a" / "b").symlink_to("../weak/b")
    return f"everybody may write {top}/weak (mode 0777)"


def links_in_a_circle(top: Path) -> str:
    (top / "a" / "b").rmdir()
    (top / "a" / "b").symlink_to("b")
    return f"{top}/a/b cannot be looked at: Too many levels of symbolic links"


@pytest.mark.parametrize(
    "weaken",
    [
        belongs,
        open_to_all,
        open_to_a_group,
        open_by_acl,
        sticky_with_a_strangers_child,
        link_of_a_stranger,
        link_through_a_weak_directory,
        links_in_a_circle,
    ],
)
def test_a_way_that_somebody_else_can_turn_is_weak(top: Path, weaken: Callable[[Path], str]) -> None:
    as_root()
    reason = weaken(top)
    assert weak_way(top / "a" / "b" / "c") == reason
    assert weak_place(top / "a" / "b" / "c") == reason


def test_a_place_is_judged_itself_and_the_end_of_a_way_is_not(top: Path) -> None:
    as_root()
    os.chown(top / "a" / "b", NOBODY, -1)
    assert weak_way(top / "a" / "b") == ""
    assert weak_place(top / "a" / "b") == f"{top}/a/b belongs to nobody"


def test_sticky_counts_where_what_lies_there_is_ours(top: Path) -> None:
    (top / "a").chmod(0o1777)
    assert weak_place(top / "a" / "b") == ""
    assert weak_place(top / "a") == ""
    assert weak_place(top / "a" / "later") == ""


def test_a_group_of_ones_own_with_nobody_else_in_it_counts_as_oneself(top: Path) -> None:
    """umask 002, the default of Ubuntu and Fedora."""
    as_root()
    daemon = pwd.getpwnam("daemon")
    (top / "a").chmod(0o775)
    os.chown(top / "a", daemon.pw_uid, daemon.pw_gid)

    def judged(group: int) -> str:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setgroups([group])
            os.setgid(group)
            os.setuid(daemon.pw_uid)
            os.write(writing, weak_place(top / "a").encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            reason = told.read()
        assert os.waitpid(child, 0)[1] == 0
        return reason

    assert judged(daemon.pw_gid) == ""
    assert judged(NOBODY) == f"the group daemon may write {top}/a (mode 0775)", "we are not in it"
    os.chown(top / "a", -1, NOBODY)
    assert judged(NOBODY) == f"the group nogroup may write {top}/a (mode 0775)", "nobody is in it, too"


def test_what_lies_in_a_place_belongs_to_root_us_or_its_owner(top: Path) -> None:
    as_root()
    paths = [top / "a", top / "a" / "b", top / "gone"]
    assert stranger(top, paths) == ""
    os.chown(top / "a" / "b", NOBODY, -1)
    assert stranger(top, paths) == f"{top}/a/b belongs to nobody"
    os.chown(top, NOBODY, -1)
    assert stranger(top, paths) == ""
