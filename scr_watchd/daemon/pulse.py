"""The pulse: what every step and every wait calls, and by which others see that we go on.

systemd's watchdog is told, `status` finds a sign of life, and a wait ends when we are to end.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from scr_watchd.daemon.systemd import Notifier
from scr_watchd.errors import Stopped

_FINISH_SECONDS = 0.5  # a pass that is nearly over may end as usual
_BEAT_SECONDS = 10.0
_SHOW_SECONDS = 1.0


@dataclass(slots=True)
class Pulse:
    """``beat`` leaves a sign of life in the state directory, once there is one that is ours."""

    notifier: Notifier
    beat: Callable[[], None] = lambda: None
    show: Callable[[], None] = lambda: None
    """Tells of what is under way."""
    is_busy: Callable[[], bool] = lambda: False
    """Whether anything is that a thread of ours does."""
    _beat_at: float = -math.inf
    _show_at: float = -math.inf
    _end_at: float = math.inf

    def stop(self) -> None:
        """Have the pass that is under way end soon; a signal handler may call it."""
        self._end_at = min(self._end_at, time.monotonic() + _FINISH_SECONDS)

    def __call__(self) -> None:
        """Call after real work and in each turn of a wait, as often as you like.

        Raises ``Stopped`` half a second after ``stop``: whatever was under way is cut off, as a crash
        would, and the next start goes on.
        """
        now = time.monotonic()
        if now >= self._end_at:
            raise Stopped
        self.notifier.progress()
        if now >= self._beat_at:
            self._beat_at = now + _BEAT_SECONDS
            self.beat()
        if now >= self._show_at:
            self._show_at = now + _SHOW_SECONDS
            self.show()

    def seconds(self) -> float:
        """How long the main loop may wait before it calls again."""
        now = time.monotonic()
        show_at = self._show_at if self.is_busy() else math.inf
        return min(self.notifier.seconds_to_ping(), max(0.0, min(self._beat_at, show_at) - now))
