"""How long the tests look for what breaks: FUZZ_EXAMPLES=20000 looks longer than CI does."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))

modest = settings(
    max_examples=EXAMPLES,
    deadline=None,  # the machine is shared; what hangs is ended by ``ends_within``
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@contextmanager
def ends_within(seconds: int) -> Iterator[None]:
    """Fail what blocks, or goes on for longer."""

    def fail(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"it did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
