"""Commands that root runs on a state of somebody else: they can do nothing that he could not."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import scr_watchd as package
from scr_watchd.publish.holder import is_daemon, running
from scr_watchd.publish.state import State
from tests.commands.test_run import Host, host
from tests.daemons import Daemon, daemon, public_directory, scr_watchd, start_nginx
from tests.nginxes import require_root
from tests.trees import image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

__all__ = ["host"]  # a fixture

_HE = 54321  # a user that no passwd file has heard of


@dataclass
class Home:
    """A tree and a state of somebody else, and what is root's beside them."""

    root: Path
    state: Path
    roots: Path

    def is_as_it_was(self) -> bool:
        return list(self.roots.iterdir()) == []


@pytest.fixture
def home() -> Iterator[Home]:
    require_root("only root can run commands on what is somebody else's")
    with public_directory() as directory:
        made = Home(directory / "images", directory / "images" / ".scr-watchd", directory / "roots")
        made.state.mkdir(parents=True)
        made.roots.mkdir()
        for path in (made.root, made.state):
            os.chown(path, _HE, _HE)
        yield made


@contextmanager
def held(state: Path, text: str) -> Iterator[None]:
    """A lock that somebody has, with ``text`` in it."""
    (state / "lock").write_text(text)
    os.chown(state / "lock", _HE, _HE)
    with (state / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def victim(called: str = "victim") -> Iterator[subprocess.Popen[bytes]]:
    """A process of root's that SIGUSR1 would end."""
    process = subprocess.Popen(["sh", "-c", "read _", called, "run"], stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.communicate()


def is_well(process: subprocess.Popen[bytes]) -> bool:
    """Whether ``process`` got no deadly signal: one that was sent is in SigPnd, or has ended it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return process.poll() is None and "State:\tS" in status and "SigPnd:\t0000000000000000" in status


# -- signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["prune", "accept"])
def test_a_number_in_a_lock_is_no_reason_to_signal_a_process(home: Home, verb: str) -> None:
    with victim() as process, held(home.state, str(process.pid)):
        result = scr_watchd(verb, "--state", home.state)
        assert (result.returncode, is_well(process)) == (0, True), result.stderr
        assert (home.state / f"{verb}.request").stat().st_uid == _HE, "his request, and his it stays"


def test_a_number_in_a_status_is_that_of_a_daemon_or_of_none(home: Home) -> None:
    """Who may not read the lock has nothing else to go by."""
    look = (
        "import os, sys; from pathlib import Path; from scr_watchd.publish.holder import running;"
        "from scr_watchd.publish.state import State;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "print(running(State(Path(sys.argv[1]))))"
    )
    (home.state / "lock").touch(mode=0o600)
    with victim("described") as process:
        for number in (process.pid, -process.pid, -1, 10**30):
            (home.state / "status.json").write_text(json.dumps({"pid": number}))
            result = subprocess.run(
                [sys.executable, "-c", look, home.state],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert result.stdout == "None\n"


@pytest.mark.parametrize("number", ["-1", "0", "1", "-2"])
def test_no_number_stands_for_many_processes(home: Home, number: str) -> None:
    """In a namespace of its own: -1 is everybody that root may signal."""
    script = '(exec sleep 60) & "$@"; said=$?; kill -0 $! || exit 9; kill -9 $!; exit $said'
    with held(home.state, number):
        result = subprocess.run(
            [
                "unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "sh", "-c", script, "sh",
                sys.executable, "-m", "scr_watchd", "prune", home.root,
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def test_only_a_daemon_of_root_or_of_the_owner_is_one(host: Host) -> None:
    state = State(host.state)
    with _quiet_daemon(host) as process:
        assert is_daemon(process.process.pid, state)
        assert not is_daemon(os.getpid(), state)
        if os.geteuid() == 0:
            with daemon("status", "--state", host.state) as command:
                assert not is_daemon(command.process.pid, state)
            he = subprocess.Popen(
                ["sh", "-c", "read _", "scr-watchd", "run"], user=_HE, stdin=subprocess.PIPE
            )
            assert not is_daemon(he.pid, state)
            os.chown(host.state, _HE, _HE)
            assert is_daemon(process.process.pid, state), "root's may work for anybody"
            he.communicate()


# -- links -------------------------------------------------------------------------------------------


def test_a_link_as_the_state_leads_root_nowhere(home: Home) -> None:
    home.state.rmdir()
    home.state.symlink_to(home.roots)
    os.lchown(home.state, _HE, _HE)
    (home.roots / "lock").write_text("")
    (home.roots / "lock").chmod(0o600)
    result = scr_watchd("prune", home.root)
    assert result.returncode == 1
    assert "Permission denied" in result.stderr
    assert [each.name for each in home.roots.iterdir()] == ["lock"]


def test_a_link_of_one_user_to_the_state_of_another_is_refused(home: Home) -> None:
    os.chown(home.roots, _HE + 1, _HE + 1)
    home.state.rmdir()
    home.state.symlink_to(home.roots)
    os.lchown(home.state, _HE, _HE)
    result = scr_watchd("prune", "--state", home.state)
    assert result.returncode == 1
    assert f"links of one user to the state of another ({_HE}, {_HE + 1})" in result.stderr
    assert home.is_as_it_was()


def test_a_link_of_roots_is_followed(home: Home) -> None:
    """An operator may keep the state of the service on another disk."""
    link = home.roots.parent / "link"
    (home.roots / "relative").symlink_to("../images/.scr-watchd")
    link.symlink_to(home.roots / "relative")
    assert scr_watchd("prune", "--state", link).returncode == 0
    assert (home.state / "prune.request").stat().st_uid == _HE


def test_a_loop_of_links_is_a_sentence(home: Home) -> None:
    loop = home.roots / "loop"
    loop.symlink_to("loop")
    result = scr_watchd("prune", "--state", loop)
    assert result.returncode == 1
    assert "Too many levels of symbolic links" in result.stderr


# -- becoming the owner ------------------------------------------------------------------------------


def test_who_cannot_become_the_owner_refuses_and_says_how(home: Home) -> None:
    (home.state / "lock").write_text("")
    for verb in ("prune", "status"):
        result = subprocess.run(
            ["setpriv", "--bounding-set", "-all", sys.executable, "-m", "scr_watchd", verb, home.root],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.returncode == 1, result.stdout
        assert f"is a state of user {_HE}, and root may not become that user here" in result.stderr
        assert f"docker exec -u {_HE} CONTAINER" in result.stderr
    assert not (home.state / "prune.request").exists()


@pytest.mark.parametrize("verb", ["prune", "accept", "status", "wait", "check"])
def test_the_owner_need_not_be_able_to_read_the_program(home: Home, verb: str) -> None:
    """All that a command needs is imported before it becomes somebody else."""
    write_image(home.root / "app:1", image("first"))
    with public_directory() as place:
        shutil.copytree(Path(package.__file__).parent, place / "private" / "scr_watchd")
        (place / "private").chmod(0o700)
        root, state = str(home.root), str(home.state)
        more = {"wait": ["app:1", root, "--timeout", "0"], "accept": ["--state", state]}
        result = subprocess.run(
            [sys.executable, "-m", "scr_watchd", verb, *more.get(verb, [root])],
            cwd=place / "private", capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    wanted = {"status": 4, "wait": 4}.get(verb, 0)
    assert (result.returncode, result.stderr) == (wanted, "")


def test_a_command_has_the_groups_of_the_owner_and_no_capability(home: Home) -> None:
    look = (
        "import sys; from pathlib import Path; from scr_watchd.commands.owner import as_owner;"
        "from scr_watchd.publish.state import State; as_owner(State(Path(sys.argv[1])));"
        "print(Path('/proc/self/status').read_text())"
    )
    os.chown(home.state, _HE, 0)  # a group that he is not in: a directory may have it from the one above
    result = subprocess.run(
        [sys.executable, "-c", look, home.state], capture_output=True, text=True, check=True, timeout=60
    )
    rows = dict(line.partition(":")[::2] for line in result.stdout.splitlines())
    assert set(rows["Uid"].split()) == {str(_HE)}
    assert "0" not in rows["Gid"].split()
    assert rows["Groups"].split() == []
    assert int(rows["CapPrm"], 16) == int(rows["CapEff"], 16) == 0


def test_a_request_is_found_without_a_signal(host: Host) -> None:
    """The owner of the state may not signal root's daemon."""
    require_root("only root can have a state of somebody else's")
    with _quiet_daemon(host) as process:
        os.chown(host.state, _HE, _HE)
        for verb in ("accept", "prune"):
            result = scr_watchd(verb, "--state", host.state)
            assert (result.returncode, result.stderr) == (0, "")
            assert (host.state / f"{verb}.request").stat().st_uid == _HE
            until(lambda name=f"{verb}.request": not (host.state / name).exists(), seconds=8)  # type: ignore[misc]
        assert running(State(host.state)) == process.process.pid


@contextmanager
def _quiet_daemon(host: Host) -> Iterator[Daemon]:
    """A daemon that looks when it is told, and else in an hour."""
    if os.geteuid() == 0:
        host.start_with_other_workers()  # root's would be refused in a state of somebody else
    else:
        host.initial()
        start_nginx(host.site, host.nginx)
    with daemon(*host.arguments(), "--rescan-seconds", "3600") as process:
        process.says("^serving 0 images")
        yield process


def test_what_is_no_request_does_not_wake_the_daemon_for_ever(host: Host) -> None:
    with _quiet_daemon(host) as process:
        os.mkfifo(host.state / "accept.request")
        (host.state / "prune.request").write_text("")
        until(lambda: not (host.state / "prune.request").exists(), seconds=8)
        assert process.process.poll() is None
        assert (host.state / "accept.request").is_fifo()


def test_check_knows_the_reader_of_a_state_that_is_named(home: Home) -> None:
    """An image that only its owner may read is served where nginx runs as the owner."""
    directory = write_image(home.root / "app:1", image("first"))
    for path in (directory, *directory.iterdir()):
        path.chmod(0o700)
        os.chown(path, _HE, _HE)
    assert scr_watchd("check", home.root).returncode == 3
    state = home.roots / "state"
    state.mkdir()
    os.chown(state, _HE, _HE)
    (state / "status.json").write_text(json.dumps({"root": str(home.root), "reader": [_HE, []]}))
    assert scr_watchd("check", home.root, "--state", state).returncode == 0


# -- what a state says -------------------------------------------------------------------------------


def test_a_status_cannot_command_a_terminal(home: Home) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e"
    status = {
        "pid": 5, "root": evil, "state": f"/tmp; {evil} rm -rf /", "message": f"serving\n{evil}",
        "generation": evil, "watch": evil, "store": evil, "links": evil, "held": [evil], "pinned": [evil],
        "problems": [{"path": evil, "reason": evil, "remedy": evil}],
    }  # fmt: skip
    (home.state / "status.json").write_text(json.dumps(status))
    for more in ([], ["--json"]):
        result = scr_watchd("status", home.root, *more)
        assert result.returncode == 4
        assert "x1b]0;owned" in result.stdout
        assert all(" " <= each <= "~" or each == "\n" for each in result.stdout)
        if not more:
            assert f"scr-watchd accept --state {home.state}\n" in result.stdout, "and gives it no command"


def test_a_lock_of_text_is_the_lock_of_nobody_known(home: Home) -> None:
    with held(home.state, "\x1b[2Jtext"):
        result = scr_watchd("status", home.root)
        assert (result.returncode, result.stderr) == (75, "")
        assert result.stdout == "running, first pass under way\n"
        result = scr_watchd("run", home.root, "--state", home.state, "--once")
        assert result.returncode == 1
        assert "another scr-watchd (process unknown) works on" in result.stderr


def test_who_hangs_is_not_told_by_the_number_of_somebody_else(home: Home) -> None:
    """Or root would be advised to kill it."""
    with victim() as process, held(home.state, str(process.pid)):
        os.utime(home.state / "lock", (0, 0))
        result = scr_watchd("status", home.root)
        assert result.returncode == 4
        assert result.stdout.startswith("hanging:    the daemon gave no sign of life for ")
        assert "kill" not in result.stdout


@pytest.mark.parametrize("kind", ["FIFO", "link", "directory"])
def test_what_is_no_lock_is_held_by_nobody_and_taken_by_nobody(home: Home, kind: str) -> None:
    lock = home.state / "lock"
    match kind:
        case "FIFO":
            os.mkfifo(lock)
        case "link":
            lock.symlink_to(home.roots / "made")
        case _:
            lock.mkdir()
    assert scr_watchd("status", home.root).returncode == 4
    result = scr_watchd("run", home.root, "--state", home.state, "--once")
    assert result.returncode == 1
    assert "cannot write the state directory" in result.stderr
    assert home.is_as_it_was()


@pytest.mark.parametrize("name", ["published.json", "pending"])
def test_what_is_no_note_is_said_and_survived(host: Host, name: str) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    (host.state / name).unlink(missing_ok=True)
    os.mkfifo(host.state / name)
    result = scr_watchd(*host.arguments("--once"))
    assert result.returncode == 0, result.stderr
    assert "is damaged, and the tree decides: " in result.stderr
