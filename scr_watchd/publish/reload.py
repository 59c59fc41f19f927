"""Has nginx read the current generation, and finds out whether it did."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scr_watchd.publish import master as processes
from scr_watchd.publish.master import NotPermittedError, NotRunningError, Process
from scr_watchd.publish.nginx import NginxError, run_reload_command

if TYPE_CHECKING:
    from scr_watchd.publish.answering import Question

_CROWD = 4

Way = Literal["signal", "process", "command", "none"]


@dataclass(frozen=True, slots=True)
class Reloading:
    """How nginx is told, and how its obedience is proven.

    ``way``: a HUP to the master of ``pid_file`` (asked anew each time: a configuration may name
    another, or come later than we), a HUP to the only master of the process table,
    ``command``, or nothing, where others watch the link. The proof is an answer to ``question``,
    else the process table if ``by_process``, else none.
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
    proof: Proof
    reason: str = ""


def find_master(how: Reloading) -> Process:
    """The nginx that is to be told. Raises ``NotRunningError``."""
    return processes.by_process_table() if how.way == "process" else processes.by_pid_file(how.pid_file())


def crowd(how: Reloading) -> str:
    """What to wait for before the next reload: several times as many workers that only finish their
    downloads as there are at work. Empty if it need not wait."""
    try:
        workers = processes.workers(find_master(how))
    except NotRunningError:
        return ""
    leaving = sum(workers.values())
    working = len(workers) - leaving
    if leaving <= _CROWD * max(1, working):
        return ""
    return f"{leaving} old workers of nginx still finish downloads; their memory is spared for a minute"


def reload(how: Reloading, generation: str, *, progress: Callable[[], None]) -> Verdict:
    """Have nginx read the current generation, whose id is ``generation``; wait for the proof."""
    try:
        master = find_master(how)
    except NotRunningError as error:
        if how.way in ("signal", "process"):
            return Verdict(Proof.ABSENT, str(error))
        master = None
    watched = master if how.question is None and how.by_process and how.way != "none" else None
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
        return _ask(how.question, generation, seconds=how.seconds, progress=progress)
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
