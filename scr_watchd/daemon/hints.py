"""Where something changed, and when to look there. Pure: time comes in as a number.

A complete image is to be seen at once, and what is gone or wrong only if it stays so: between two commands of
a writer nothing is taken away. So a place is looked at soon after its last event and, where there is more to
come or to be said, again and again until it is quiet.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from scr_watchd.images.places import EVERYWHERE, with_those_above

SOON_SECONDS = 0.03
"""After the last event of a place; skopeo's first comes 6 to 19 ms before its manifest is there."""

_AGAIN_SECONDS = 0.1  # then twice as much, and so on
_PATIENCE_SECONDS = 4.0  # for what is not complete, and of which no event tells any more
_OLD_SECONDS = 2.1  # are timestamps that another change would not leave as they are, see images/walk
_MOST = 1000


@dataclass(slots=True)
class _Place:
    """``first`` is the first event that no look has covered, ``since`` the first since it was quiet."""

    first: float
    since: float
    last: float
    tries: int = 0
    again_at: float = math.inf


@dataclass(slots=True)
class Hints:
    """Times are seconds of any monotonic clock."""

    quiet_seconds: float
    max_wait_seconds: float
    _places: dict[str, _Place] = field(default_factory=dict)

    def add(self, hints: Iterable[str], now: float) -> None:
        """Something happened at these paths, relative to the images directory; one that ends in "/" tells of
        files in that directory. Where too many are known at a time, that is ``EVERYWHERE``."""
        for hint in hints:
            above = (hint, *with_those_above(hint.rstrip("/")))
            name = next((each for each in above if each in self._places), hint)
            if name not in self._places and name != EVERYWHERE and len(self._places) >= _MOST:
                name = EVERYWHERE
            place = self._places.setdefault(name, _Place(now, now, now))
            place.first, place.last = min(place.first, now), max(place.last, now)

    @property
    def due(self) -> float:
        return min((self._due(each) for each in self._places.values()), default=math.inf)

    def take(self, now: float) -> dict[str, bool]:
        """The places to look at ``now``, and whether they are settled: then what is gone, or wrong, is so."""
        return {
            hint: self._is_settled(place, now)
            for hint, place in self._places.items()
            if self._due(place) <= now
        }

    def looked(
        self, hints: Iterable[str], now: float, *, incomplete: Collection[str], recent: Collection[str]
    ) -> None:
        """A look at ``hints`` began ``now``. Of those that are ``incomplete`` there is more to come or to be
        said, and at ``recent`` ones timestamps are so new that they may lie."""
        for hint in hints:
            place = self._places.get(hint)
            if place is None:
                continue
            settled, place.first = self._is_settled(place, now), math.inf
            if settled:
                place.since = place.last
            if hint in incomplete and not (settled and self._is_given_up(hint, now - place.last)):
                pause = _AGAIN_SECONDS * 2**place.tries
                place.tries += 1
                quiet = max(now, place.last + self.quiet_seconds)
                place.again_at = quiet if hint == EVERYWHERE else now + pause
                if not settled:
                    place.again_at = min(place.again_at, quiet)
            elif hint in recent and now < place.last + _OLD_SECONDS:
                place.again_at = place.last + _OLD_SECONDS
            else:
                del self._places[hint]

    def forget(self) -> None:
        """Everything is looked at."""
        self._places.clear()

    def _due(self, place: _Place) -> float:
        if place.first == math.inf:
            return place.again_at
        return min(place.again_at, place.last + SOON_SECONDS, place.first + self.max_wait_seconds)

    def _is_settled(self, place: _Place, now: float) -> bool:
        return now >= min(place.last + self.quiet_seconds, place.since + self.max_wait_seconds)

    def _is_given_up(self, hint: str, age: float) -> bool:
        return hint == EVERYWHERE or age > _PATIENCE_SECONDS
