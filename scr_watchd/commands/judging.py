"""Judges where a daemon works: at its start, and again in each pass. The rule is that of `trust`."""

import logging
import os
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from scr_watchd.commands.running import Keeper
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import Reader
from scr_watchd.publish.place import StorePlace, is_mount_point
from scr_watchd.publish.state import State
from scr_watchd.publish.store import Store
from scr_watchd.settings import Settings
from scr_watchd.trust import stranger, weak_place, weak_way

log = logging.getLogger("scr_watchd")

DERIVED = "derived from root"
"""The origin of a state that `serve` chose."""


@dataclass(slots=True)
class Judge:
    """Judges ``root``, ``state`` and a store. Of state and store, ``named`` are those that the operator named
    (never a root because it was named): that is a decision, and worth a warning only."""

    root: Path
    state: State
    named: Container[str]
    root_workers: bool = False
    """Whether nginx's workers run as root; else it is seen once nginx runs."""
    _warned: set[str] = field(default_factory=set)
    _seen: tuple[int, ...] = ()

    def check_state(self) -> None:
        """Raise ``ScrWatchdError`` if somebody else could exchange the state, or owns something in it."""
        path = self.state.path
        self._check("state", path)
        seen = tuple(map(_changed_at, (path, self.state.serve, self.state.nginx, self.state.generations)))
        if seen != self._seen:  # else nobody has put anything there since
            foreign = stranger(path, self.state.own)
            if foreign:
                raise _foreign(path, foreign)
            self._seen = seen

    def check_store(self, place: StorePlace) -> None:
        """The same for the store."""
        self._check("store", place.path)
        foreign = stranger(place.path, place.own)
        if foreign:
            raise _foreign(place.path, foreign)

    def warn(self, text: str) -> None:
        """Log ``text``, once."""
        if text and text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)

    def check_workers(self, place: StorePlace) -> None:
        """Raise ``ScrWatchdError`` if workers of nginx that run as root would serve what others can
        exchange: they could be made to read any file."""
        reason = against_root_workers(self.root, self.state.path, place)
        if reason:
            raise ScrWatchdError(
                f"nginx's workers run as root, but {reason}",
                hint="have them run as somebody else (in nginx's configuration: user www-data;), or keep the "
                "images, the state and the store on one mount, where root alone may write them and every "
                "directory above them",
            )

    def watch_over(self, keeper: Keeper, *, keep_lock: Callable[[], None]) -> None:
        """Have each pass of ``keeper`` judge anew."""
        mirror = keeper.mirror
        host = mirror.host
        ask, open_store = host.worker_user, host.open_store

        def before_pass() -> None:
            self.check_state()
            keep_lock()
            self._check("state", self.state.path)  # it may have been made anew, by somebody who was faster
            if mirror.store is not None and not self._holds("store", mirror.store.place.path):
                mirror.store = None  # then another place is chosen
            check(mirror.scanner.reader)

        def worker_user() -> Reader | None:
            reader = ask()
            check(reader)
            return reader

        def opened(trusting: bool) -> Store:  # noqa: FBT001 - the one question
            store = open_store(trusting)
            self.check_store(store.place)
            check(mirror.scanner.reader, store.place)
            self.warn(store.place.cost)
            return store

        def check(reader: Reader | None, place: StorePlace | None = None) -> None:
            is_root = self.root_workers or (reader is not None and reader.uid == 0)
            host.has_root_workers |= is_root
            place = mirror.store.place if place is None and mirror.store is not None else place
            if is_root and place is not None:
                self.check_workers(place)

        host.worker_user, host.open_store, host.keep_lock = worker_user, opened, before_pass
        keeper.reporter.may_write = self.may_write

    def may_write(self) -> bool:
        """Whether the state may be written."""
        with suppress(OSError):
            return self._holds("state", self.state.path)
        return False

    def _holds(self, what: str, path: Path) -> bool:
        try:
            self._check(what, path)
        except ScrWatchdError:
            return False
        return True

    def _check(self, what: str, path: Path) -> None:
        reason = weak_place(path)
        if not reason or reason in self._warned:  # of a store in a state that was warned of, too
            return
        line = f"the {what} {path} can be exchanged by others: {reason}"
        if what not in self.named and (weak_way(path) or not is_mount_point(path)):
            raise ScrWatchdError(
                line,
                hint=f"have it and every directory above it belong to {_us()}, writable by nobody else, "
                f"or name one that is so with --{what}",
            )
        self._warned.add(reason)
        self.warn(f"{line}. Whoever can do so decides what nginx reads in there")


def judge_of(settings: Settings, origins: Mapping[str, str]) -> Judge:
    """A judge of what ``settings`` name; their origins tell what the operator named."""
    named = {
        name
        for name in ("state", "store")
        if origins[name] not in ("default", DERIVED) and getattr(settings, name) != "auto"
    }
    return Judge(settings.root, State(settings.state), named)


def against_root_workers(root: Path, state: Path, place: StorePlace) -> str:
    """Why workers that run as root may not serve this, as a clause; empty if they may."""
    if not place.hard_links:
        return (
            f"the store {place.path} has symbolic links, and who writes the images could have root read any "
            f"file through them ({place.obstacle})"
        )
    for path in (root, state, place.path):
        reason = weak_place(path)
        if reason:
            return f"{path} can be exchanged by others: {reason}"
    return ""


def _foreign(place: Path, reason: str) -> ScrWatchdError:
    return ScrWatchdError(
        f"somebody else put something into {place}: {reason}",
        hint="look at what it is; remove it, or give it to the owner of that directory",
    )


def _changed_at(directory: Path) -> int:
    try:
        return directory.lstat().st_ctime_ns
    except OSError:
        return 0


def _us() -> str:
    return "root" if os.geteuid() == 0 else "root or you"
