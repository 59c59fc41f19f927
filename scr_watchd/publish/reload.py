"""Has nginx read the current generation, and finds out whether it did."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scr_watchd.publish import master as processes
from scr_watchd.publish.master import NotPermittedError, NotRunningError, Process
from scr_watchd.publish.nginx import NginxError, run_reload_command
from scr_watchd.publish.readers import Readers

if TYPE_CHECKING:
    from scr_watchd.publish.answering import Question

_MANY = 4

Way = Literal["signal", "process", "command", "none"]


@dataclass(frozen=True, slots=True)
class Reloading:
    """How nginx is told, and how its obedience is proven.

    ``way``: a HUP to the master of ``pid_file`` (asked anew each time: a configuration may name
    another, or come later than we), a HUP to the only master of the process table,
    ``command``, or nothing, where others watch the link. The proof is an answer to ``question``, and that
    no old worker takes requests any more, where it was us who told; else the process table if
    ``by_process``, else none.
    """

    way: Way
    pid_file: Callable[[], Path]
    command: tuple[str, ...]
    question: "Question | None"
    by_process: bool
    seconds: float


class Proof(enum.Enum):
    CONFIRMED = "confirmed"
    UNSEEN = "unseen"
    """nginx was told, and nothing says whether it obeyed: nobody asked, or we may not look."""
    ABSENT = "absent"
    """nginx does not run. It will read the generation when it starts."""
    MISSING = "missing"
    """nginx runs and has not obeyed, or could not be told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reader`` is the master that has read the generation, though another may still answer beside it."""

    proof: Proof
    reason: str = ""
    reader: Process | None = None


def find_master(how: Reloading) -> Process:
    """The nginx that is to be told; while it is upgraded (USR2), the new one. Raises ``NotRunningError``."""
    try:
        return processes.by_process_table() if how.way == "process" else processes.by_pid_file(how.pid_file())
    except (FileNotFoundError, ProcessLookupError):
        raise NotRunningError("nginx ended at this moment") from None


def is_astray(how: Reloading, readers: Readers) -> bool:
    """Whether an nginx answers that is not of those ``readers``: another than was confirmed."""
    try:
        master = find_master(how)
    except NotRunningError:
        return False
    return not readers.have(master) or _stale(processes.upgraded_from(master), readers)


def _stale(old: Process | None, readers: Readers) -> bool:
    """Whether the master before an upgrade still answers, and not with what is current."""
    return old is not None and not readers.have(old) and processes.accepts(old)


def lingering_workers(how: Reloading) -> str:
    """What to wait for before the next reload: several times as many workers that only finish their
    downloads as there are at work. Empty if it need not wait."""
    try:
        workers = processes.workers(find_master(how))
    except NotRunningError:
        return ""
    leaving = sum(workers.values())
    working = len(workers) - leaving
    if leaving <= _MANY * max(1, working):
        return ""
    return f"{leaving} old workers of nginx still finish downloads; their memory is spared for a minute"


def reload(how: Reloading, generation: str, readers: Readers, *, progress: Callable[[], None]) -> Verdict:
    """Have nginx read the current generation, whose id is ``generation``, unless it is one of its
    ``readers``; wait for the proof.

    The master before an upgrade is never told: it would start its workers again with what it read long
    ago. Whoever upgrades ends it, or not; that is not waited for.
    """
    try:
        master = find_master(how)
    except NotRunningError as error:
        if how.way in ("signal", "process"):
            return Verdict(Proof.ABSENT, str(error))
        return _tell(how, generation, None, progress)
    old = processes.upgraded_from(master)
    stale = _stale(old, readers)
    if stale and (at_work := processes.workers(master)) and all(at_work.values()):
        reason = (
            f"nginx's upgrade is taken back, and its new master (process {master.pid}) still finishes "
            "downloads: end it with TERM, or the old one goes on with what it read before"
        )
        return Verdict(Proof.MISSING, reason)
    if not readers.have(master):
        verdict = _tell(how, generation, master, progress)
    elif how.question is not None:
        verdict = _ask(how.question, generation, seconds=how.seconds, progress=progress)
    else:
        verdict = Verdict(Proof.CONFIRMED)
    if verdict.proof in (Proof.ABSENT, Proof.MISSING):
        return verdict
    if old is not None and _stale(old, readers):
        reason = f"nginx is being upgraded: WINCH or QUIT the old master (process {old.pid})"
        return Verdict(Proof.MISSING, reason, master)
    return replace(verdict, reader=master)


def _tell(how: Reloading, generation: str, master: Process | None, progress: Callable[[], None]) -> Verdict:
    """Tell nginx, whose master that is if it may be seen, and wait for the proof."""
    told_by_us = how.way in ("signal", "process")
    by_process = told_by_us if how.question is not None else how.by_process and how.way != "none"
    watched = master if by_process else None
    if watched and not processes.wait_until_idle(watched, seconds=how.seconds, progress=progress):
        # at a reload that somebody else began, say, with what was current then
        return Verdict(Proof.MISSING, f"nginx (process {watched.pid}) was busy for {how.seconds:g} s")
    before = set(processes.workers(watched)) if watched else set()
    try:
        match how.way:
            case "signal" | "process":
                assert master is not None
                processes.hang_up(master)
            case "command":
                run_reload_command(how.command, seconds=how.seconds, progress=progress)
            case "none":
                pass
    except NotRunningError as error:
        return Verdict(Proof.ABSENT, str(error))
    except (NotPermittedError, NginxError) as error:
        return Verdict(Proof.MISSING, str(error))
    if how.question is not None:
        verdict = _ask(how.question, generation, seconds=how.seconds, progress=progress)
        if verdict.proof is not Proof.CONFIRMED or not before:  # whose workers may be hidden from us
            return verdict
    if watched:
        missing = processes.wait_for_reload(watched, before, seconds=how.seconds, progress=progress)
        return Verdict(Proof.MISSING, missing) if missing else Verdict(Proof.CONFIRMED)
    return Verdict(Proof.UNSEEN, "nothing is set by which to prove it")


def _ask(question: "Question", generation: str, *, seconds: float, progress: Callable[[], None]) -> Verdict:
    # an HTTP client and TLS are a third of an idle daemon: only who asks for them has them
    from scr_watchd.publish import answering

    try:
        missing = answering.wait_for_answer(question, generation, seconds=seconds, progress=progress)
    except answering.CannotSeeError as error:
        return Verdict(Proof.UNSEEN, str(error))
    return Verdict(Proof.MISSING, missing) if missing else Verdict(Proof.CONFIRMED)
