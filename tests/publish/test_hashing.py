"""Are the bytes of a file what its name says? At once, and in a thread."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256, sha512
from pathlib import Path
from queue import SimpleQueue

import pytest

from scr_watchd.files import ANYBODY, open_directory
from scr_watchd.oci.names import Digest
from scr_watchd.publish.copying import Target
from scr_watchd.publish.hashing import Hasher, Job, has_digest, identity
from tests.waiting import until

CONTENT = bytes(range(256)) * 4096
SHA256 = Digest(f"sha256:{sha256(CONTENT).hexdigest()}")
SHA512 = Digest(f"sha512:{sha512(CONTENT).hexdigest()}")
OWNER, BUSY = ("app", "1"), ("busy", "1")


def check(path: Path, digest: Digest, progress: Callable[[int], None] = lambda _: None) -> bool | None:
    with open_directory(path.parent) as directory:
        return has_digest(path.name, digest, within=directory, progress=progress)


# -- at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "digest", "answer"),
    [
        pytest.param(CONTENT, SHA256, True, id="sha256"),
        pytest.param(CONTENT, SHA512, True, id="sha512"),
        pytest.param(CONTENT[:-1] + b"x", SHA256, False, id="the last byte is wrong"),
        pytest.param(CONTENT[:-1], SHA256, False, id="it is cut off"),
        pytest.param(CONTENT + b"x", SHA512, False, id="it is too long"),
        pytest.param(b"", SHA256, False, id="it is empty"),
        pytest.param(b"", Digest(f"sha256:{sha256().hexdigest()}"), True, id="it is empty, and should be"),
        pytest.param(CONTENT, Digest(f"sha512:{SHA256.hex * 2}"), False, id="another algorithm"),
    ],
)
def test_whether_a_file_has_its_digest(
    tmp_path: Path,
    content: bytes,
    digest: Digest,
    answer: bool,  # noqa: FBT001 - a table
) -> None:
    file = tmp_path / "blob"
    file.write_bytes(content)
    assert check(file, digest) is answer


def test_progress_is_told_of_every_byte(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(CONTENT)
    told: list[int] = []
    assert check(file, SHA256, told.append)
    assert (sum(told), len(told) > 1) == (len(CONTENT), True)


def test_a_file_that_changes_while_it_is_read_is_neither_good_nor_bad(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(CONTENT)
    assert check(file, SHA256, lambda _: os.utime(file)) is None
    assert check(file, SHA256, lambda _: os.truncate(file, 10)) is None


def test_a_file_that_is_replaced_while_it_is_read_is_what_was_opened(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(CONTENT)
    (tmp_path / "new").write_bytes(b"new")
    assert check(file, SHA256, lambda _: _move(tmp_path / "new", file)) is True


def test_another_file_than_the_expected_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(CONTENT)
    expected = identity(file.stat())
    (tmp_path / "new").write_bytes(CONTENT)
    (tmp_path / "new").rename(file)
    with open_directory(tmp_path) as directory:
        read: list[int] = []
        answer = has_digest("blob", SHA256, within=directory, expected=expected, progress=read.append)
        assert (answer, read) == (None, [])
        now = identity(file.stat())
        assert has_digest("blob", SHA256, within=directory, expected=now) is True


def test_a_link_that_is_made_to_a_file_does_not_make_it_another(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(CONTENT)
    before = identity(file.stat())
    os.link(file, tmp_path / "link")
    file.chmod(0o600)
    assert identity(file.stat()) == before


def test_what_is_no_regular_file_is_neither_and_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert check(tmp_path / "fifo", SHA256) is None
    (tmp_path / "directory").mkdir()
    assert check(tmp_path / "directory", SHA256) is None
    assert check(Path("/dev/zero"), SHA256) is None


def test_what_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(CONTENT)
    (tmp_path / "link").symlink_to("blob")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("link", "socket", "missing"):
            with pytest.raises(OSError, match=r"Too many levels|No such"):
                check(tmp_path / name, SHA256)


def _move(source: Path, target: Path) -> None:
    if source.exists():
        source.rename(target)


# -- in a thread -------------------------------------------------------------------------------------


class Clerk:
    """A hasher, and who is woken by it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.woken: SimpleQueue[str] = SimpleQueue()
        self.hasher = Hasher(root, lambda: self.woken.put(threading.current_thread().name))

    def write(self, name: str, content: bytes = CONTENT) -> Path:
        path = self.root / "app" / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def submit(
        self,
        path: Path,
        digest: Digest = SHA256,
        *,
        owner: tuple[str, str] = OWNER,
        urgent: bool = True,
        uid: int = 0,
    ) -> Job:
        job = Job(str(path.parent.relative_to(self.root)), path.name, identity(path.lstat()), digest, uid)
        self.hasher.submit(job, owner=owner, urgent=urgent)
        return job

    def result(self, job: Job) -> bool | None:
        return self.hasher.result(job.identity, job.digest)

    def news(self, count: int = 1) -> list[tuple[str, str]]:
        """Everybody who has news, once there have been as many."""
        found: list[tuple[str, str]] = []
        while len(found) < count:
            until(lambda: self.hasher.has_news)
            found += self.hasher.news()
        return sorted(found)


@pytest.fixture
def clerk(tmp_path: Path) -> Clerk:
    return Clerk(tmp_path)


@contextmanager
def busy(clerk: Clerk) -> Iterator[None]:
    """While the thread is at something that takes a while, jobs stay in the queue."""
    path = clerk.write("busy", b"")
    os.truncate(path, 2**40)
    clerk.submit(path, owner=BUSY, urgent=False)
    try:
        yield
    finally:
        os.truncate(path, 0)  # and so it ends


def test_results_come_by_news(clerk: Clerk) -> None:
    good = clerk.submit(clerk.write("good"), owner=("app", "good"))
    bad = clerk.submit(clerk.write("bad", b"bad"), owner=("app", "bad"))
    assert clerk.result(good) is None
    assert clerk.news(2) == [("app", "bad"), ("app", "good")]
    assert (clerk.result(good), clerk.result(bad)) == (True, False)
    assert not clerk.hasher.has_news
    assert clerk.hasher.news() == set()


def test_good_results_are_forgotten_and_bad_ones_stay(clerk: Clerk) -> None:
    """Of a good file there is nothing more to say; a bad one would be read again at every look."""
    good = clerk.submit(clerk.write("good"))
    bad = clerk.submit(clerk.write("bad", b"bad"), owner=("app", "2"))
    clerk.news(2)
    clerk.hasher.forget_good()
    assert (clerk.result(good), clerk.result(bad)) == (None, False)


def test_a_file_is_read_once_however_many_want_to_know_of_it(clerk: Clerk) -> None:
    path = clerk.write("good")
    with busy(clerk):
        for number in range(100):
            clerk.submit(path, owner=("app", str(number)))
    assert len(clerk.news(101)) == 101
    assert [clerk.woken.get(timeout=10) for _ in range(2)] == ["hasher", "hasher"], "for both files"
    assert clerk.woken.empty()


def test_one_file_may_be_asked_about_for_two_digests(clerk: Clerk) -> None:
    path = clerk.write("good")
    first, second = clerk.submit(path), clerk.submit(path, SHA512, owner=("app", "2"))
    other = clerk.submit(path, Digest(f"sha256:{'0' * 64}"), owner=("app", "3"))
    clerk.news(3)
    assert [clerk.result(each) for each in (first, second, other)] == [True, True, False]


def test_who_waits_is_woken_from_the_thread_and_by_bad_news_everybody(clerk: Clerk) -> None:
    clerk.submit(clerk.write("nobody waits"), urgent=False)
    clerk.submit(clerk.write("bad", b"bad"), owner=("app", "2"), urgent=False)
    clerk.submit(clerk.write("somebody waits"), owner=("app", "3"), urgent=True)
    clerk.news(3)
    assert [clerk.woken.get(timeout=10) for _ in range(2)] == ["hasher", "hasher"]
    assert clerk.woken.empty()


def test_the_news_is_there_before_anybody_is_woken(clerk: Clerk) -> None:
    for number in range(50):
        clerk.submit(clerk.write(str(number), str(number).encode()))
        clerk.woken.get(timeout=10)
        assert clerk.hasher.has_news
        clerk.news()


def test_a_file_that_vanished_has_no_result_and_may_come_again(clerk: Clerk) -> None:
    path = clerk.write("blob")
    with busy(clerk):
        job = clerk.submit(path)
        path.unlink()
    assert clerk.news(2) == [OWNER, BUSY]
    assert clerk.result(job) is None
    again = clerk.submit(clerk.write("blob"))
    assert clerk.news() == [OWNER]
    assert clerk.result(again) is True


def test_a_directory_that_was_exchanged_for_a_link_is_not_followed(clerk: Clerk) -> None:
    path = clerk.write("blob")
    with busy(clerk):
        job = clerk.submit(path, owner=("app", "2"))
        (clerk.root / "app").rename(clerk.root / "elsewhere")
        (clerk.root / "app").symlink_to("elsewhere")
    clerk.news(2)
    assert clerk.result(job) is None


def test_a_file_that_was_replaced_meanwhile_has_no_result(clerk: Clerk) -> None:
    path = clerk.write("blob")
    with busy(clerk):
        job = clerk.submit(path, owner=("app", "2"))
        clerk.write("new").rename(path)
    clerk.news(2)
    assert clerk.result(job) is None


def test_there_is_one_thread_and_it_is_nice_and_there_is_none_without_work(clerk: Clerk) -> None:
    before = set(threading.enumerate())
    assert Clerk(clerk.root).hasher.news() == set()
    assert set(threading.enumerate()) == before
    with busy(clerk):
        for number in range(10):
            clerk.submit(clerk.write(str(number)), owner=("app", str(number)))
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon, "it keeps nobody from ending"
        assert thread.native_id
        nice = until(lambda: _nice(thread.native_id or 0), lambda nice: nice > 0)
        assert nice == _nice(threading.get_native_id()) + 10
    clerk.news(11)


def test_what_one_user_drops_keeps_another_waiting_for_a_turn_at_most(clerk: Clerk) -> None:
    with busy(clerk):
        job = clerk.submit(clerk.write("blob"), uid=1000)
        assert until(clerk.hasher.news, seconds=5) == {OWNER}
        assert clerk.result(job) is True
        assert not clerk.hasher.is_idle, "the other goes on"
    clerk.news(1)


def test_what_is_deleted_is_not_read_to_its_end(clerk: Clerk) -> None:
    path = clerk.write("endless", b"")
    os.truncate(path, 2**40)
    clerk.submit(path)
    path.unlink()
    assert clerk.news() == [OWNER]
    assert clerk.hasher.is_idle


def _nice(task: int) -> int:
    """proc_pid_stat(5), field 19."""
    return int(Path(f"/proc/self/task/{task}/stat").read_text().rpartition(")")[2].split()[16])


# -- copies ------------------------------------------------------------------------------------------


def copied(tmp_path: Path, content: bytes) -> tuple[Hasher, Job]:
    """A hasher with a job that copies a file of that content."""
    (tmp_path / "root").mkdir()
    (tmp_path / "store").mkdir(mode=0o755)
    file = tmp_path / "root" / "blob"
    file.write_bytes(content)
    file.chmod(0o644)
    target = Target(tmp_path / "store", "here", "blob", ANYBODY, len(content))
    digest = Digest(f"sha256:{sha256(content).hexdigest()}")
    return Hasher(tmp_path / "root", lambda: None), Job(
        ".", "blob", identity(file.stat()), digest, target=target
    )


def test_a_file_is_copied_while_it_is_hashed(tmp_path: Path) -> None:
    content = CONTENT[: 2**20 - 1] + bytes(2**20) + b"\0" + CONTENT + bytes(2**20)
    hasher, job = copied(tmp_path, content)
    hasher.submit(job, owner=OWNER, urgent=True)
    assert hasher.copying_bytes == len(content)
    assert until(hasher.news) == {OWNER}
    assert (hasher.copied(job), hasher.result(job.identity, job.digest)) == (True, True)
    assert hasher.copying_bytes == 0
    copy = tmp_path / "store" / "here" / ".blob.copy"
    assert copy.read_bytes() == content
    assert copy.stat().st_blocks * 512 < len(content) - 2**20


def test_a_copy_that_was_forgotten_under_way_does_not_lie_ready(tmp_path: Path) -> None:
    hasher, job = copied(tmp_path, CONTENT)
    hasher.submit(job, owner=OWNER, urgent=True)
    assert job.target is not None
    hasher.forget_copy(job.target.path)
    assert until(hasher.news) == {OWNER}
    assert hasher.copied(job) is None


def test_two_files_that_are_to_become_one_copy_are_copied_once(tmp_path: Path) -> None:
    hasher, job = copied(tmp_path, CONTENT)
    other = tmp_path / "root" / "other"
    other.write_bytes(CONTENT)
    hasher.submit(job, owner=OWNER, urgent=True)
    hasher.submit(replace(job, file="other", identity=identity(other.stat())), owner=BUSY, urgent=True)
    assert until(hasher.news) == {OWNER, BUSY}
    assert hasher.is_idle


def test_a_copy_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    hasher, job = copied(tmp_path, CONTENT)
    (tmp_path / "store" / "here").write_text("in the way")
    hasher.submit(job, owner=OWNER, urgent=True)
    assert until(hasher.news) == {OWNER}
    assert hasher.copied(job) is None
    assert "somebody else's" in hasher.failure(job)
    assert not hasher.has_copies


def test_bytes_that_are_not_what_they_should_be_leave_no_copy(tmp_path: Path) -> None:
    hasher, job = copied(tmp_path, CONTENT)
    job = replace(job, digest=Digest(f"sha256:{'0' * 64}"))
    hasher.submit(job, owner=OWNER, urgent=True)
    assert until(hasher.news) == {OWNER}
    assert hasher.copied(job) is False
    assert not [*(tmp_path / "store" / "here").iterdir()]
