"""Waiting for something observable, with a deadline; and doing something meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def meanwhile(act: Callable[[int], object], *, pause: float) -> Iterator[None]:
    """Do something again and again, in a thread."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.wait(pause):
            act(number)
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
