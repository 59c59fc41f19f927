"""When the next look is due, and how deep it goes. Pure: time comes in as a number."""

import math
from dataclasses import dataclass, field

from scr_watchd.daemon.debounce import Debounce
from scr_watchd.daemon.outcome import Failed, Outcome, Unchanged
from scr_watchd.publish.outcome import Deferred, Published, Rejected, Unconfirmed


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds. ``poll_seconds`` is the time between two light passes where there are no file events,
    and where the last pass did not succeed; otherwise the rescan alone, a full pass, makes sure that
    nothing was missed."""

    quiet_seconds: float
    max_wait_seconds: float
    min_reload_seconds: float
    rescan_seconds: float = 10.0
    poll_seconds: float = 2.0


@dataclass(slots=True)
class Timetable:
    """Times are seconds of any monotonic clock. ``again_at`` is when somebody asked for a look."""

    rhythm: Rhythm
    full_at: float = -math.inf  # the first pass needs no event
    light_at: float = math.inf
    again_at: float = math.inf
    earliest: float = -math.inf
    _rest: float = 0.0
    _debounce: Debounce = field(init=False)

    def __post_init__(self) -> None:
        self._debounce = Debounce(self.rhythm.quiet_seconds, self.rhythm.max_wait_seconds)

    @property
    def due(self) -> float:
        wanted = min(self.full_at, self.light_at, self.again_at, self._debounce.deadline)
        return max(self.earliest, wanted)

    def changed(self, now: float) -> None:
        """Something changed in the tree."""
        self._debounce.changed(now)

    def reconfigured(self, rhythm: Rhythm) -> None:
        """The settings were read again: look at everything now."""
        self.rhythm = rhythm
        self._debounce = Debounce(rhythm.quiet_seconds, rhythm.max_wait_seconds)
        self.asked()

    def asked(self) -> None:
        """Somebody wants a look at everything now."""
        self.full_at = -math.inf

    def looking(self) -> None:
        """A look begins: what changed until now is covered by it, what changes from now on is not."""
        self._debounce.reset()

    def wanted(self, again_at: float, now: float, *, cpu: float) -> None:
        """Somebody wants another look, which ``cpu`` seconds of the last one are the cost of."""
        self.again_at = max(again_at, now + 10 * cpu)

    def looked(
        self, outcome: Outcome, now: float, *, full: bool, cpu: float, wall: float, events: bool
    ) -> None:
        """A look ended ``now``, having cost ``cpu`` and ``wall`` seconds; ``events`` come or do not."""
        if isinstance(outcome, Unchanged):  # what looking costs, without the cost of publishing
            self._rest = max(50 * cpu, 5 * wall)
        if full:
            # the first look publishes, and what looking alone costs is not known yet
            rest = self._rest or 5 * wall
            self.full_at = now + max(self.rhythm.rescan_seconds, rest)
        self.light_at = math.inf if events else now + max(self.rhythm.poll_seconds, self._rest)
        match outcome:
            case Published():
                self.earliest = now + self.rhythm.min_reload_seconds
            case Unchanged():
                self.earliest = -math.inf
            case Rejected() | Failed() | Unconfirmed() | Deferred():
                # whoever repairs something changes no image, so no event tells of it
                self.earliest = now + self.rhythm.min_reload_seconds
                self.light_at = now + max(self.rhythm.poll_seconds, 10 * cpu)
