"""The loop: wait for a reason to look, look, report. Only this thread acts; others put a Wake."""

import enum
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from scr_watchd.daemon.outcome import Outcome
from scr_watchd.daemon.timetable import Rhythm, Timetable

_LONGEST_WAIT = 3600.0


class Wake(enum.Enum):
    CHANGED = "something changed below the root"
    RELOAD = "the settings may have changed; look at everything"
    NOW = "somebody asked for something; look at everything"
    CHILD = "a child process ended"
    STOP = "stop"


class Look(Protocol):
    def __call__(self, *, full: bool) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop calls; all of it in its own thread.

    ``look`` makes a pass, ``has_events`` says whether file events come, ``report`` takes an outcome
    and returns when (monotonic) it wants another look, ``reconfigure`` reads the settings again,
    ``tend`` looks after a child and returns when it wants to be called next, ``progress`` is called
    at least every ``seconds_to_ping``.
    """

    look: Look
    has_events: Callable[[], bool]
    report: Callable[[Outcome], float]
    reconfigure: Callable[[], Rhythm]
    progress: Callable[[], None]
    seconds_to_ping: Callable[[], float]
    tend: Callable[[], float] = lambda: math.inf


def run(inbox: "SimpleQueue[Wake]", hooks: Hooks, rhythm: Rhythm) -> None:
    """Keep nginx in step with the images tree until told to stop."""
    timetable = Timetable(rhythm)
    tend_at = hooks.tend()
    while True:
        wake = _next(inbox, until=min(timetable.due, tend_at), ping=hooks.seconds_to_ping)
        hooks.progress()
        now = time.monotonic()
        match wake:
            case Wake.STOP:
                return
            case Wake.CHANGED:
                timetable.changed(now)
            case Wake.RELOAD:
                timetable.reconfigured(hooks.reconfigure())
            case Wake.NOW:
                timetable.asked()
            case Wake.CHILD:
                tend_at = hooks.tend()
            case None:
                pass
        if now >= tend_at:
            tend_at = hooks.tend()
        if now >= timetable.due:  # asked after every wake: a steady stream of them must not put it off
            _look(hooks, timetable, now)


def _look(hooks: Hooks, timetable: Timetable, began: float) -> None:
    full = began >= timetable.full_at
    timetable.looking()
    cpu = time.process_time()
    outcome = hooks.look(full=full)
    now = time.monotonic()
    timetable.looked(
        outcome,
        now,
        full=full,
        cpu=time.process_time() - cpu,
        wall=now - began,
        events=hooks.has_events(),
    )
    timetable.again_at = hooks.report(outcome)


def _next(inbox: "SimpleQueue[Wake]", *, until: float, ping: Callable[[], float]) -> Wake | None:
    """The next wake; ``None`` when it is time to look, to tend, or to tell the service manager."""
    wait = min(until - time.monotonic(), ping(), _LONGEST_WAIT)
    try:
        return inbox.get(timeout=max(0.0, wait))
    except Empty:
        return None
