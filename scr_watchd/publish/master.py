"""The nginx that serves, as a row of the process table: find its master, signal it, see it reload.

`nginx -s reload` and a HUP succeed before anything has happened, and go on succeeding when nginx
refuses the configuration. What proves a reload is a new worker of the same master, started after
the signal, with every old one gone or on its way out.
"""

import contextlib
import os
import re
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scr_watchd import threads
from scr_watchd.errors import may_pass
from scr_watchd.files import Reader, close, read_file

_POLL_SECONDS = 0.02
_PID_FILE_BYTES = 64
_TITLE = re.compile(r"[a-z]+: (master|worker) process(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Process:
    """A process; ``started`` (clock ticks since boot) tells it from a later one with its number."""

    pid: int
    started: int


class NotRunningError(Exception):
    """There is no nginx to signal; the text says how that was found out."""


class HiddenError(NotRunningError):
    """Whether there is one cannot be seen from here."""


class NotPermittedError(Exception):
    """There is an nginx, and this process may not signal it; the text says which."""


def by_pid_file(path: Path) -> Process:
    """The master that ``path`` names. Raises ``NotRunningError`` also if the file is empty, as
    `nginx -t` leaves it, or names a process that is no nginx master."""
    try:
        # of serve's, in STATE, anybody may have made something else; an operator's may be a link
        text = read_file(Path(os.path.realpath(path)), limit=_PID_FILE_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        if path.with_name(f"{path.name}.oldbin").exists():
            upgrading = f"nginx is being upgraded, and its new master has not written {path} yet"
            raise NotRunningError(upgrading) from None
        raise NotRunningError(f"nginx does not run (there is no pid file {path})") from None
    except OSError as error:
        if may_pass(error):
            raise
        raise HiddenError(f"the pid file {path} cannot be read: {error.strerror}") from error
    if not text.isdecimal():
        raise NotRunningError(f"nginx does not run (the pid file {path} holds no process number)")
    pid = int(text)
    if _role(pid) != "master":
        raise NotRunningError(
            f"nginx does not run (process {pid}, of the pid file {path}, is no nginx master)"
        )
    return Process(pid, _stat(pid)[1])


def by_process_table() -> Process:
    """The only nginx master there is, or what it is being upgraded to. Raises ``NotRunningError`` if there
    are none or several."""
    parents = {pid: _stat(pid)[0] for pid in _pids() if _role(pid) == "master"}
    masters = [pid for pid, parent in parents.items() if parent not in parents]
    match masters:
        case [pid]:
            children = [Process(each, _stat(each)[1]) for each, parent in parents.items() if parent == pid]
            # what a master forks is called master for a moment, and has no worker
            return next((each for each in children if workers(each)), Process(pid, _stat(pid)[1]))
        case []:
            seen = "no process is an nginx master"
            if os.getpid() != 1:
                raise NotRunningError(f"nginx does not run ({seen})")
            # alone in our process namespace, as a container ordinarily is
            seen += "; this container sees its own processes only: have it share nginx's, see "
            raise HiddenError(f"nginx does not run ({seen}docs/containers.md)")
        case _:
            numbers = ", ".join(map(str, masters))
            raise HiddenError(f"there are several nginx masters ({numbers}): set nginx_pid_file")


def upgraded_from(master: Process) -> Process | None:
    """The master whose place ``master`` is to take (USR2), as long as that one lives."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        parent = _stat(master.pid)[0]
        if _role(parent) == "master":
            return Process(parent, _stat(parent)[1])
    return None


def accepts(master: Process) -> bool:
    """Whether a worker of ``master`` takes new requests."""
    return not all(workers(master).values())


def workers(master: Process) -> dict[Process, bool]:
    """The workers of ``master``, each with whether it is shutting down."""
    found = {}
    for pid in _pids():
        try:
            parent, started = _stat(pid)
            title = _TITLE.fullmatch(_command(pid)) if parent == master.pid else None
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title and title[1] == "worker":
            found[Process(pid, started)] = "shutting down" in title["rest"]
    return found


def working_in(directory: Path) -> list[Process]:
    """Every nginx process, masters first, whose working directory is ``directory``, or was one of that
    name that somebody removed."""
    removed = f"{os.path.realpath(directory)} (deleted)"  # as proc_pid_cwd(5) has it
    found = []
    for pid in _pids():
        try:
            role = _role(pid)
            cwd = f"/proc/{pid}/cwd"
            if role and (os.readlink(cwd) == removed or os.path.samefile(cwd, directory)):
                found.append((role, Process(pid, _stat(pid)[1])))
        except OSError as error:
            if may_pass(error):
                raise
            continue  # it ended meanwhile, or is another user's and so not ours
    return [process for _, process in sorted(found, key=lambda each: each[0])]


def of_session(session: int) -> list[Process]:
    """Every nginx process of a session, whose number is that of the process that began it. Also root,
    if it is root of a container, cannot tell the workers of another user by where they work."""
    found = []
    for pid in _pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if _role(pid) and os.getsid(pid) == session:
                found.append(Process(pid, _stat(pid)[1]))
    return found


def worker_user(master: Process) -> Reader | None:
    """Whom the workers of ``master`` run as; ``None`` if there are none, or none may be seen."""
    for worker in workers(master):
        try:
            status = Path(f"/proc/{worker.pid}/status").read_text()
        except OSError:
            continue
        ids = {
            key: [int(each) for each in value.split()]
            for key, value in re.findall(r"^(Uid|Gid|Groups):(.*)$", status, re.MULTILINE)
        }
        return Reader(ids["Uid"][1], frozenset({ids["Gid"][1], *ids["Groups"]}))
    return None


def hang_up(master: Process) -> None:
    """Tell ``master`` to read its configuration again."""
    send(master, signal.SIGHUP)


def send(process: Process, number: signal.Signals) -> None:
    """Signal exactly ``process``. Raises ``NotRunningError`` or ``NotPermittedError``."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        raise NotRunningError(f"nginx (process {process.pid}) has ended") from None
    try:
        if _stat(process.pid)[1] != process.started:
            raise NotRunningError(f"nginx (process {process.pid}) has ended")
        signal.pidfd_send_signal(descriptor, number)
    except (FileNotFoundError, ProcessLookupError):
        raise NotRunningError(f"nginx (process {process.pid}) has ended") from None
    except PermissionError:
        owner = os.stat(f"/proc/{process.pid}").st_uid
        or_else = "give it the capability CAP_KILL" if os.geteuid() == 0 else "as root"
        raise NotPermittedError(
            f"user {os.geteuid()} may not signal nginx (process {process.pid} of user {owner}): run "
            f"scr-watchd as user {owner} or {or_else}, or set reload to command or none"
        ) from None
    finally:
        close(descriptor)


def call_when_ended(process: Process, call: Callable[[], None]) -> None:
    """Have a thread call ``call`` once ``process`` has ended: until then nothing need wake us."""

    def wait() -> None:
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError:  # no such process, or no descriptor left: then a pass sees it
            return
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        ended.poll()
        close(descriptor)
        call()

    threads.start(wait, name="nginx")  # if it cannot be had, the next pass sees it all the same


def reap_orphans(*, keep: int | None = None) -> None:
    """As process 1, which inherits whom nobody waits for, wait for all that have ended but ``keep``."""
    while os.getpid() == 1:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == keep:
            return
        os.waitpid(ended.si_pid, 0)


def wait_until_idle(master: Process, *, seconds: float, progress: Callable[[], None]) -> bool:
    """Wait until ``master`` waits for signals, for ``seconds`` at most; whether it came to that.

    Between two signals nginx sleeps with none of them blocked (sigsuspend(2)), and while it reads a
    configuration and starts workers it blocks them all. So once it was seen idle, every worker that
    is not there yet will come from a configuration that is yet to be read, unless it takes the place
    of one that crashed.
    """
    deadline = time.monotonic() + seconds
    while _blocks_hang_up(master):
        if time.monotonic() >= deadline:
            return False
        progress()
        time.sleep(_POLL_SECONDS)
    return True


def wait_for_reload(
    master: Process, before: set[Process], *, seconds: float, progress: Callable[[], None]
) -> str:
    """Wait until the workers of ``master`` are new ones; ``before`` were there when it was idle, after
    what it is to read was in place and before the signal.

    Returns an empty text once no worker of ``before`` takes requests and a new one does, else, after
    ``seconds``, what is still missing.
    """
    deadline = time.monotonic() + seconds
    while True:
        now = workers(master)
        if not alive(master):
            return f"nginx (process {master.pid}) ended"
        new = [worker for worker, leaving in now.items() if worker not in before and not leaving]
        old = [worker.pid for worker, leaving in now.items() if worker in before and not leaving]
        if new and not old:
            return ""
        if time.monotonic() >= deadline:
            return (
                f"nginx started no new worker within {seconds:g} s: it refused the reload, and its "
                "error log says why"
                if not new
                else f"old workers of nginx go on answering ({', '.join(map(str, old))})"
            )
        progress()
        time.sleep(_POLL_SECONDS)


def alive(process: Process) -> bool:
    """Whether ``process`` still runs; a zombie, which nobody has waited for, does not."""
    try:
        return _stat(process.pid)[1] == process.started and _command(process.pid) != ""
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_master(process: Process) -> bool:
    """Whether ``process`` still runs, and is a master of nginx."""
    return alive(process) and _role(process.pid) == "master"


def are_visible() -> bool:
    """Whether the processes of other users can be seen here (proc(5), hidepid)."""
    return os.access("/proc/1/stat", os.R_OK)


def _blocks_hang_up(process: Process) -> bool:
    """Whether a HUP that is sent to ``process`` now would have to wait (proc_pid_status(5), SigBlk)."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    blocked = re.search(r"^SigBlk:\s*([0-9a-f]+)", status, re.MULTILINE)
    return blocked is not None and bool(int(blocked[1], 16) & 1 << signal.SIGHUP - 1)


def _role(pid: int) -> str:
    try:
        title = _TITLE.fullmatch(_command(pid))
    except OSError as error:
        if may_pass(error):
            raise
        return ""
    return title[1] if title else ""


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("ascii", "replace")


def _stat(pid: int) -> tuple[int, int]:
    """The parent and the start time (proc_pid_stat(5), fields 4 and 22)."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])
