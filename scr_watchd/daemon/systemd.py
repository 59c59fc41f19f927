"""Tells the service manager how it goes (sd_notify(3)); does nothing where there is none."""

import os
import re
import time
from collections.abc import Mapping

import sdnotify


class Notifier:
    """A guarded sdnotify: that module swallows every error, encodes Latin-1, and lets a line break
    in a value set other variables."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        there = bool(environment.get("NOTIFY_SOCKET"))
        self._socket = sdnotify.SystemdNotifier() if there else None
        self._interval = _watchdog_seconds(environment) / 2 if there else 0.0
        self._ping_at = 0.0
        self._ready = False

    def ready(self, status: str) -> None:
        """The first pass is over."""
        if not self._ready:
            self._send("READY=1", f"STATUS={status}")
            self._ready = True
        else:
            self.status(status)

    def reloading(self) -> None:
        """The settings are read again; ends with the next ``ready``."""
        self._ready = False
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping")

    def progress(self) -> None:
        """Call after real work, as often as you like; pings the watchdog at half of its time."""
        now = time.monotonic()
        if self._interval and now >= self._ping_at:
            self._ping_at = now + self._interval
            self._send("WATCHDOG=1")

    def seconds_to_ping(self) -> float:
        """How long the main loop may wait before it calls ``progress`` again."""
        if not self._interval:
            return float("inf")
        return max(0.0, self._ping_at - time.monotonic())

    def _send(self, *assignments: str) -> None:
        if self._socket is not None:
            clean = [re.sub(r"[^ -~]+", " ", each) for each in assignments]
            self._socket.notify("\n".join(clean))


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """0 if there is no watchdog, or if it is meant for another process (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environment.get("WATCHDOG_USEC", "0")
    return int(text) / 1_000_000 if text.isdecimal() else 0.0
