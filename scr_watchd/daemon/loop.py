"""The loop: wait for a reason to look, look, report. Only this thread acts; others put a Wake."""

import enum
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from scr_watchd.daemon.hints import SOON_SECONDS
from scr_watchd.daemon.outcome import Outcome
from scr_watchd.daemon.timetable import Look, Looked, Rhythm, Timetable
from scr_watchd.images.places import EVERYWHERE

_LONGEST_WAIT = 3600.0
_ASKED_SECONDS = 2.0


class Wake(enum.Enum):
    CHANGED = "something changed below the root"
    RELOAD = "the settings may have changed; look at everything"
    NOW = "somebody asked for something; look at everything"
    CHILD = "a child process ended, or nginx"
    STOP = "stop"


class Pass(Protocol):
    def __call__(self, look: Look) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop calls; all of it in its own thread.

    ``ready`` says whether file events were watched for since the last look, as far as there are any.
    ``look`` makes a pass, ``hints`` are those that came since the last time, ``looked`` tells how the last
    look went, given when it began, and ``uneasy`` where another may find something else though no event
    tells of it. ``report`` takes an outcome and returns when (monotonic) it wants another look,
    ``reconfigure`` reads the settings again, ``tend`` looks after nginx and returns when it wants to be
    called next, ``progress`` is called at least every ``seconds_to_ping``. ``asked`` says whether somebody
    left a request since the last time, who may not be permitted to signal us, or whether the images
    directory may be another than it was: no file event tells of a mount.
    """

    ready: Callable[[], bool]
    look: Pass
    hints: Callable[[], list[str]]
    looked: Callable[[float], Looked]
    uneasy: Callable[[], list[str]]
    report: Callable[[Outcome], float]
    reconfigure: Callable[[], Rhythm]
    progress: Callable[[], None]
    seconds_to_ping: Callable[[], float]
    tend: Callable[[], float] = lambda: math.inf
    asked: Callable[[], bool] = lambda: False


def run(inbox: "SimpleQueue[Wake]", hooks: Hooks, rhythm: Rhythm) -> None:
    """Keep nginx in step with the images tree until told to stop."""
    timetable = Timetable(rhythm)
    tend_at = hooks.tend()
    asked_at = -math.inf
    while True:
        wakes = _next(inbox, until=min(timetable.due, tend_at, asked_at), ping=hooks.seconds_to_ping)
        hooks.progress()
        now = time.monotonic()
        if Wake.STOP in wakes:
            return
        if Wake.CHANGED in wakes:
            timetable.changed(hooks.hints(), now)
        if Wake.RELOAD in wakes:
            timetable.reconfigured(hooks.reconfigure())
        if Wake.NOW in wakes:
            timetable.asked()
        if Wake.CHILD in wakes or now >= tend_at:
            tend_at = hooks.tend()
        if now >= asked_at:
            asked_at = now + _ASKED_SECONDS
            if hooks.asked():
                timetable.asked()
        if now >= timetable.due:  # asked after every wake: a steady stream of them must not put it off
            if not hooks.ready():
                timetable.changed([EVERYWHERE], now - SOON_SECONDS)
            look = timetable.look(now, hooks.uneasy)
            outcome = hooks.look(look)
            after = hooks.looked(now)
            timetable.looked(look, outcome, after)
            timetable.wanted(hooks.report(outcome), after)


def _next(inbox: "SimpleQueue[Wake]", *, until: float, ping: Callable[[], float]) -> set[Wake]:
    """What wakes us, all of it at once; nothing when it is time to look, to tend, or to tell the
    service manager."""
    wait = min(until - time.monotonic(), ping(), _LONGEST_WAIT)
    wakes = set()
    try:
        wakes.add(inbox.get(timeout=max(0.0, wait)))
        while True:
            wakes.add(inbox.get_nowait())
    except Empty:
        return wakes
