"""When the next look is due, and how deep it goes. Pure: time comes in as a number."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from scr_watchd.daemon.hints import SOON_SECONDS, Hints
from scr_watchd.daemon.outcome import Failed, Outcome, Unchanged
from scr_watchd.images.places import ALL, EVERYWHERE
from scr_watchd.publish.outcome import Deferred, Published, Rejected, Unconfirmed

_BURST = 3
_REST = 10  # times what a look costs
_LONGEST_REST = 1.0
_SELDOM = 333  # times what a full look costs, where events tell of changes: 0.3 % of a core
_LONGEST_BETWEEN = 600.0


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds. ``poll_seconds`` is the time between two looks where there are no file events, and where the
    last pass did not succeed; otherwise the rescan alone, a full look, makes sure that nothing was missed.
    Three reloads may follow one another, and one more each ``min_reload_seconds``."""

    quiet_seconds: float
    max_wait_seconds: float
    min_reload_seconds: float
    rescan_seconds: float = 10.0
    poll_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """Where, and whether what is gone or wrong there is so already, see ``Hints.take``; ``full``: at every
    file."""

    hints: Mapping[str, bool]
    full: bool


EVERYTHING = Look(ALL, full=True)


@dataclass(frozen=True, slots=True)
class Looked:
    """A look that ``began`` then; its pass ended ``now``. ``cpu`` seconds are what the look alone cost.
    ``events`` come or do not; see ``Hints.looked`` for the rest."""

    began: float
    now: float
    cpu: float
    events: bool
    incomplete: Collection[str] = ()
    recent: Collection[str] = ()

    @property
    def wall(self) -> float:
        """What its pass took, in seconds."""
        return self.now - self.began


@dataclass(slots=True)
class Timetable:
    """Times are seconds of any monotonic clock. ``asked_at`` is when somebody asked for a look at everything,
    ``again_at`` when the state of what is known is to be looked at, ``pass_at`` when a pass is to be made."""

    rhythm: Rhythm
    asked_at: float = -math.inf  # the first pass needs no event
    full_at: float = math.inf
    light_at: float = math.inf
    again_at: float = math.inf
    pass_at: float = math.inf
    earliest: float = -math.inf
    hints: Hints = field(init=False)
    _reloads: float = _BURST
    _reloaded_at: float = -math.inf
    _rest: float = 0.0

    def __post_init__(self) -> None:
        self.hints = Hints(self.rhythm.quiet_seconds, self.rhythm.max_wait_seconds)

    @property
    def due(self) -> float:
        wanted = min(self.asked_at, self.full_at, self.light_at, self.again_at, self.pass_at, self.hints.due)
        return max(self.earliest, wanted)

    def changed(self, hints: Iterable[str], now: float) -> None:
        """Something changed in the tree, there; or, without ``hints``, in what we know of it."""
        some = list(hints)
        self.hints.add(some, now)
        if not some:
            self.pass_at = min(self.pass_at, now + SOON_SECONDS)

    def reconfigured(self, rhythm: Rhythm) -> None:
        """The settings were read again: look at everything now."""
        self.rhythm = rhythm
        self.hints = Hints(rhythm.quiet_seconds, rhythm.max_wait_seconds)
        self.asked()

    def asked(self) -> None:
        """Somebody wants a look at everything now."""
        self.asked_at = -math.inf

    def look(self, now: float, uneasy: Callable[[], Iterable[str]]) -> Look:
        """The look that is due; ``uneasy`` says where something may be other than it was."""
        self.pass_at = math.inf
        if now >= self.asked_at:
            self.asked_at = math.inf
            self.hints.forget()
            return EVERYTHING
        full = now >= self.full_at
        if full or now >= self.light_at:
            self.hints.add([EVERYWHERE], now - SOON_SECONDS)
        if now >= self.again_at:
            self.hints.add(uneasy(), now - SOON_SECONDS)
            self.again_at = math.inf
        return Look(self.hints.take(now), full=full)

    def looked(self, look: Look, outcome: Outcome, after: Looked) -> None:
        """``look`` was made."""
        now, rhythm = after.now, self.rhythm
        if isinstance(outcome, Failed):
            self.hints.add([EVERYWHERE], now)  # what was to be seen may not have been
        else:
            self.hints.looked(look.hints, after.began, incomplete=after.incomplete, recent=after.recent)
        if isinstance(outcome, Unchanged) and EVERYWHERE in look.hints:  # without the cost of publishing
            self._rest = max(50 * after.cpu, 5 * after.wall)
        if look.full:
            # the first look publishes, and what looking alone costs is not known yet
            rest = self._rest or 5 * after.wall
            seldom = min(_LONGEST_BETWEEN, _SELDOM * after.cpu) if after.events else 0.0
            self.full_at = now + max(rhythm.rescan_seconds, rest, seldom)
        if not after.events:
            self.light_at = now + max(rhythm.poll_seconds, self._rest)
        else:
            self.light_at = math.inf
        self.earliest = now + min(_LONGEST_REST, _REST * after.cpu)
        match outcome:
            case Published():
                self._count_reload(now)
            case Unchanged():
                pass
            case Rejected() | Failed() | Unconfirmed() | Deferred():
                # whoever repairs something changes no image, so no event tells of it
                self.earliest = now + rhythm.min_reload_seconds
                self.again_at = now + max(rhythm.poll_seconds, _REST * after.cpu)

    def wanted(self, again_at: float, after: Looked) -> None:
        """Somebody wants another look at what is not well."""
        self.again_at = min(self.again_at, max(again_at, after.now + _REST * after.cpu))

    def _count_reload(self, now: float) -> None:
        """Take one of those that may follow one another; where there is none left, wait for the next."""
        between = self.rhythm.min_reload_seconds
        if between > 0:
            self._reloads = min(_BURST, self._reloads + (now - self._reloaded_at) / between) - 1
            self.earliest = max(self.earliest, now + max(0.0, 1 - self._reloads) * between)
        self._reloaded_at = now
