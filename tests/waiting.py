"""Waiting for something observable, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(observe: Callable[[], T], wanted: Callable[[T], object] = bool, *, seconds: float = 10) -> T:
    """Call ``observe`` until ``wanted`` of its value holds; return the value, or fail with the last."""
    deadline = time.monotonic() + seconds
    while True:
        value = observe()
        if wanted(value):
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s still {value!r}")
        time.sleep(0.02)
