"""Is there an nginx that serves? The daemon looks every few seconds, and a command when it is asked.

What is published says nothing of that: an nginx that was stopped answers nobody.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import structs

from scr_watchd.errors import cure
from scr_watchd.publish import master as processes
from scr_watchd.publish.master import HiddenError, NotRunningError, Process
from scr_watchd.publish.reload import Reloading, Way, find_master

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """Part of STATE/status.json, with all that a command needs to look for itself."""

    up: bool | None = None
    """``None`` where nginx cannot be seen: that is no reason to think that it is down."""
    reason: str = ""
    """Why it is not up, or not to be seen."""
    pid: Number = 0
    started: Number = 0
    """The master that was last seen, as a ``Process``."""
    way: Way = "signal"
    pid_file: str = ""
    namespace: Number = 0
    """In which process numbers mean this (pid_namespaces(7))."""

    @property
    def master(self) -> Process | None:
        return Process(self.pid, self.started) if self.pid else None


def look(how: Reloading, last: Process | None) -> Sight:
    """Look for the master that ``how`` leads to; ``last`` is the one that was seen before."""
    master, path, reason = last, "", ""
    up: bool | None = True
    try:
        try:
            if how.way != "process":
                found = how.pid_file()
                path, how = str(found), replace(how, pid_file=lambda: found)
            master = find_master(how)
        except NotRunningError as error:
            if last is None or not processes.is_master(last):  # else only its pid file is away
                up, reason = _judged(how, last, error)
    except OSError as error:
        up, reason = None, f"it cannot be looked for: {error.strerror}. {cure(error)}"
    return Sight(
        up=up,
        reason=reason,
        pid=master.pid if master else 0,
        started=master.started if master else 0,
        way=how.way,
        pid_file=path if path.isascii() and path.isprintable() else "",
        namespace=_namespace(),
    )


def _judged(how: Reloading, last: Process | None, error: NotRunningError) -> tuple[bool | None, str]:
    if isinstance(error, HiddenError):
        return None, str(error)
    if not processes.are_visible():
        return None, "other users' processes are hidden here (mount option hidepid)"
    if last is None and how.way in ("command", "none"):
        return None, f"it is told by others (reload = {how.way}), and has no pid file here"
    return False, str(error)


def look_again(told: Sight, *, is_recent: bool) -> Sight:
    """What is to be seen from here of the nginx that a daemon ``told`` of; its word, if that
    ``is_recent``, where nothing can be seen."""
    if not told.namespace:  # nobody has looked yet
        return told
    if told.namespace != _namespace():
        seen = structs.replace(told, up=None, reason="it runs in another container")
    else:
        how = Reloading(
            way=told.way,
            pid_file=lambda: Path(told.pid_file),
            command=(),
            question=None,
            by_process=True,
            seconds=0,
        )
        seen = look(how, told.master)
    return told if seen.up is None and is_recent else seen


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
