"""What signals mean to a daemon."""

import contextlib
import signal
from collections.abc import Iterator
from queue import SimpleQueue
from types import FrameType

from scr_watchd.daemon.loop import Wake
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.errors import Stopped


@contextlib.contextmanager
def signals(inbox: SimpleQueue[Wake], pulse: Pulse, *, hangup: Wake) -> Iterator[None]:
    """Have SIGTERM and SIGINT stop us, SIGHUP mean ``hangup``, SIGUSR1 ask for a look, and SIGCHLD
    tell of a child. What waits is ``Stopped``, and the block ends there."""
    meanings = {
        signal.SIGTERM: Wake.STOP,
        signal.SIGINT: Wake.STOP,
        signal.SIGHUP: hangup,
        signal.SIGUSR1: Wake.NOW,
        signal.SIGCHLD: Wake.CHILD,
    }

    def put(number: int, _frame: FrameType | None) -> None:
        wake = meanings[signal.Signals(number)]
        inbox.put(wake)  # SimpleQueue.put may interrupt itself
        if wake is Wake.STOP:
            pulse.stop()

    before = {number: signal.signal(number, put) for number in meanings}
    try:
        with contextlib.suppress(Stopped):
            yield
    finally:
        for number, handler in before.items():
            # a second Ctrl-C must not spoil an orderly end
            signal.signal(number, signal.SIG_IGN if number in (signal.SIGTERM, signal.SIGINT) else handler)
