"""When to look, given that something changes: after a quiet moment, or at the latest after a while."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Debounce:
    """Times are seconds of any monotonic clock; ``deadline`` is infinite while nothing changed."""

    quiet_seconds: float
    max_wait_seconds: float
    deadline: float = math.inf
    _first: float = math.inf

    def changed(self, now: float) -> None:
        self._first = min(self._first, now)
        self.deadline = min(now + self.quiet_seconds, self._first + self.max_wait_seconds)

    def reset(self) -> None:
        self.deadline = self._first = math.inf
