"""Says what happened: lines on standard error, STATE/status.json and metrics.prom, the service manager."""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from scr_watchd import __version__
from scr_watchd.daemon import events, metrics, notices
from scr_watchd.daemon import status as statuses
from scr_watchd.daemon.events import Event
from scr_watchd.daemon.metrics import Tally
from scr_watchd.daemon.notices import name, platforms, serving
from scr_watchd.daemon.outcome import Failed, Found, Outcome, Unchanged
from scr_watchd.daemon.status import ProblemStatus, Status, UnlinkedStatus, counted
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.files import Reader
from scr_watchd.oci.catalog import Catalog, Problem, Reference
from scr_watchd.oci.names import RepositoryName, Tag
from scr_watchd.publish.outcome import Changes, Deferred, Published, Rejected, Unconfirmed
from scr_watchd.publish.place import StorePlace, is_mount_point
from scr_watchd.publish.sight import Sight
from scr_watchd.words import printable

log = logging.getLogger("scr_watchd")

_MANY = 20  # more changes than this are counted instead of listed
_LOOK_AGAIN_SECONDS = 2.0
_FRESH_SECONDS = 120.0  # somebody may be mending it now, and a chmod causes no file event
_PINNED_SECONDS = 600.0
_METRICS_SECONDS = 30.0  # that they are young is how an alert knows that we live
_YOUNG_SECONDS = 3.0  # a copy under way looks broken: what is not served is only said once it stays so


@dataclass(slots=True)
class Reporter:
    """Reports one outcome after another, each change once.

    ``own_nginx`` says that nginx ends with us, ``last`` is the status that a former daemon left.
    ``address`` is where images can be pulled from, if we know; ``patient`` False says at once what is
    not served; ``may_write`` tells whether the files still lie where nobody else could exchange them.
    ``for_machines`` has each tag be a line of its own, however many there are.
    """

    status_file: Path
    metrics_file: Path
    notifier: Notifier
    root: Path
    state: Path
    own_nginx: bool = False
    last: Status | None = None
    address: str = ""
    patient: bool = True
    may_write: Callable[[], bool] = lambda: True
    prefix: str = ""
    for_machines: bool = False
    store: StorePlace | None = None
    watch: str = ""
    watch_mode: str = ""
    reader: Reader = field(default_factory=Reader)
    tally: Tally = field(default_factory=Tally)
    sight: Sight = field(default_factory=Sight)
    """What was last seen of nginx."""
    note: str = ""
    """The last words for the service manager."""
    _up: bool | None = None
    _said: str = ""
    _advised: str = ""
    _unwritten: set[Path] = field(default_factory=set)
    _now: Status | None = None
    _measured: Status | None = None
    _measured_at: float = -math.inf
    _held: frozenset[Reference] = frozenset()
    _renamed: set[tuple[Reference, Reference]] = field(default_factory=set)
    _pinned: dict[Reference, float] = field(default_factory=dict)
    _first: bool = True
    _ages: dict[Problem, float] = field(default_factory=dict)
    _told: set[Problem] = field(default_factory=set)

    def report(self, outcome: Outcome, found: Found, *, now: float | None = None) -> float:
        """Say what is new in ``outcome`` of a pass, and in what it ``found``; return when (monotonic, like
        ``now``) another pass would tell more."""
        now = time.monotonic() if now is None else now
        match outcome:
            case Published(generation, changes, unproven):
                self._serving(found, changes.count)
                if unproven:
                    self._say(logging.WARNING, f"nginx was not confirmed to have reloaded: {unproven}")
                else:
                    self._say(logging.INFO, "")
                clock = time.time()
                served = _served(found, generation, confirmed=True)
                self._write(
                    "published", serving(found), found, **served, confirmed_at=clock, changed_at=clock
                )
            case Unchanged(generation):
                self._say(logging.INFO, "")
                if self._first:
                    self._serving(found, 0)
                self._write("unchanged", serving(found), found, **_served(found, generation, confirmed=True))
            case Unconfirmed(generation, _, reason):
                line = f"generation {generation} is not confirmed: {reason}"
                self._say(logging.WARNING, line)
                self._write("unconfirmed", line, found, **_served(found, generation, confirmed=False))
            case Deferred(reason):
                self._say(logging.INFO, f"publishing waits: {reason}")
                self._write("waiting", f"publishing waits: {reason}", found)
            case Rejected(whose, words):
                line = f"nginx refuses {whose} configuration, so the last generation stays: {words}"
                remedy = (
                    "Repair that file; scr-watchd goes on by itself then"
                    if whose == "the site's"
                    else f"Please report this with {self.state}/nginx"
                )
                self._say(logging.ERROR, f"{line}\n{remedy}")
                self._write("rejected", f"{line}. {remedy}", found)
            case Failed(reason):
                self._say(logging.ERROR, reason)
                self._write("failed", reason, None)
        self._first = False
        self._nginx()
        self._measure(now)
        if isinstance(outcome, Failed):
            return math.inf
        if found.advice not in ("", self._advised):
            self._advised = found.advice
            log.info("%s", self._advised)
        for line in notices.renames(found, self._renamed):
            log.warning("%s", line)
        self._renamed = set(found.renamed)
        self._holding(found)
        self._pinning(found, now)
        again = now + max(0.0, found.look_again_at - time.time())
        return min(again, self._problems(found.problems, now))

    def tell(self, changes: Changes, before: Catalog, generation: str, found: Found) -> None:
        """Say what ``generation``, confirmed by now and rendered from what was ``found``, does to the tags of
        the catalog ``before``."""
        if self.for_machines or changes.count <= _MANY:
            refused = notices.refused(found, str(self.root), self.prefix) if changes.removed else {}
            for event in events.of_publication(changes, before, generation):
                why = refused.get((event.repository, event.tag), "")
                log.info("%s", self._words(event, found, why), extra={"event": event})
        else:
            kinds = {"appeared": changes.added, "replaced": changes.replaced, "gone": changes.removed}
            told = [f"{len(tags)} {what}" for what, tags in kinds.items() if tags]
            log.info("images: %s", ", ".join(told))

    def saw(self, sight: Sight) -> None:
        """Say between two passes what is new of nginx."""
        if sight == self.sight:
            return
        self.sight = sight
        self._nginx()
        if self._now is not None:
            self._show(self._now)
            self._measure(time.monotonic())
        elif sight.up is False:
            self.notifier.status(sight.reason)

    # -- lines -------------------------------------------------------------------------------------

    def _words(self, event: Event, found: Found, why: str) -> str:
        called = f"{event.repository}:{event.tag}"
        if event.action == "removed":
            return f"{called} is no longer served: {why}" if why else f"{called} is gone"
        some = platforms(found, (RepositoryName(event.repository or ""), Tag(event.tag or "")))
        if event.action == "published":
            return f"{called}{some} is there{self._pull(called)} ({event.digest})"
        return f"{called}{some} was replaced ({event.digest})"

    def _say(self, level: int, line: str) -> None:
        """Say how it goes, once; an empty line stands for "well", and is said after trouble only."""
        if line == self._said:
            return
        if line:
            log.log(level, "%s", line)
        elif self._said:
            log.info("all is well again")
        self._said = line

    def _nginx(self) -> None:
        before, self._up = self._up, self.sight.up
        if self._up is False and before is not False and self.sight.reason not in self._said:
            log.warning("%s", statuses.down(self.sight, own_nginx=self.own_nginx))
        elif self._up and before is False:
            log.info("nginx runs again (process %d)", self.sight.pid)

    def _holding(self, found: Found) -> None:
        new = {tag: digest for tag, digest in found.held.items() if tag not in self._held}
        if self.for_machines:
            for event in events.of_held(new, generation=self._generation):
                called = f"{event.repository}:{event.tag}"
                log.warning("%s is held: %s", called, event.reason, extra={"event": event})
        if found.held_since is not None and not self._held:
            log.warning(
                "%s vanished at once, and stay published: is a disk not mounted? To let them go: "
                "scr-watchd accept --state %s",
                counted(len(found.held), "image"),
                self.state,
            )
        elif self._held and found.held_since is None:
            log.info("no removal is held any more")
        self._held = frozenset(found.held)

    def _pinning(self, found: Found, now: float) -> None:
        """A copy that was killed leaves its tag as it was for ever: say so, once, after a while."""
        self._pinned = {tag: self._pinned.get(tag, now) for tag in found.pinned}
        for tag, since in self._pinned.items():
            if now - since >= _PINNED_SECONDS:
                log.warning(
                    "%s is served as it was %d minutes ago: its directory still holds no complete image. "
                    "Copy it again, or remove the directory to remove the tag",
                    name(tag),
                    (now - since) // 60,
                )
                self._pinned[tag] = math.inf  # said

    def _serving(self, found: Found, changed: int) -> None:
        if changed or self._first:
            log.info("%s", serving(found))
        if self._first and self.address and found.example and not 0 < changed <= _MANY:
            log.info("for example%s", self._pull(name(found.example)))
        if self._first and not found.tags:
            mounted = is_mount_point(self.root)
            how = notices.first_image(self.root, is_container=os.getpid() == 1, has_mount=mounted)
            log.info("there is no image in %s; %s", self.root, how)

    def _pull(self, called: str) -> str:
        return f": docker pull {self.address}/{called}" if self.address else ""

    @property
    def _generation(self) -> str:
        """What nginx answers from, as far as we know."""
        status = self._now or self.last
        return status.generation if status else ""

    def _problems(self, problems: tuple[Problem, ...], now: float) -> float:
        old_enough = now - (_YOUNG_SECONDS if self.patient else 0)
        self._ages = {problem: self._ages.get(problem, now) for problem in problems}
        self._told &= set(problems)
        due = [each for each in problems if self._ages[each] <= old_enough and each not in self._told]
        shown = due if self.for_machines else due[:_MANY]
        for problem in shown:
            event = events.of_problem(
                problem, root=str(self.root), prefix=self.prefix, generation=self._generation
            )
            log.warning("not served: %s", problem, extra={"event": event})
        if len(due) > len(shown):
            log.warning("not served: %d more; see scr-watchd status", len(due) - _MANY)
        self._told.update(due)
        youngest = max(self._ages.values(), default=-math.inf)
        return now + _LOOK_AGAIN_SECONDS if now - youngest < _FRESH_SECONDS else math.inf

    # -- status ------------------------------------------------------------------------------------

    def _write(self, kind: str, line: str, found: Found | None, **served: Any) -> None:
        """Write the status; ``served`` are those of its fields that say what nginx answers with."""
        last = self._now or self.last or Status()
        new = structs.replace(
            last,
            version=__version__,
            pid=os.getpid(),
            root=printable(str(self.root)),
            state=printable(str(self.state)),
            own_nginx=self.own_nginx,
            outcome=kind,
            message=line,
            problems=_told(found.problems) if found else last.problems,
            waiting=found.waiting if found else last.waiting,
            leaving=found.leaving if found else last.leaving,
            watch=self.watch,
            watch_mode=self.watch_mode,
            store=printable(str(self.store.path)) if self.store else "",
            links=_links(self.store),
            links_cost=self.store.cost if self.store else "",
            reader=(self.reader.uid, tuple(sorted(self.reader.gids))),
            **(notices.in_status(found) if found else {}),
            **served,
        )
        self._now = new
        self.tally.passes[kind] += 1
        self._show(new)

    def _show(self, status: Status) -> None:
        new = statuses.seen(status, self.sight)
        count, line = len(new.problems), new.message
        note = f"{line}; {count} not served, see scr-watchd status" if count else line
        self.note = note.partition("\n")[0]
        self.notifier.ready(self.note)
        if (self._first or new != self.last) and self._put(
            self.status_file, lambda: statuses.write(self.status_file, new)
        ):
            self.last = new

    def _measure(self, now: float) -> None:
        """Write the metrics if they tell of something new, and else from time to time."""
        status = statuses.seen(self._now, self.sight) if self._now else None
        if status is None or (status == self._measured and now < self._measured_at + _METRICS_SECONDS):
            return
        path = self.metrics_file
        if self._put(path, lambda: metrics.write(path, status, self.tally, clock=time.time())):
            self._measured, self._measured_at = status, now

    def _put(self, path: Path, write: Callable[[], None]) -> bool:
        """Whether ``path`` could be written; that it could not is said once."""
        if not self.may_write():  # which the pass has said
            return False
        try:
            write()
        except OSError as error:
            if path not in self._unwritten:
                log.error("%s cannot be written: %s", path, error.strerror)  # noqa: TRY400 - it is not a bug
            self._unwritten.add(path)
            return False
        self._unwritten.discard(path)
        return True


def _served(found: Found, generation: str, *, confirmed: bool) -> dict[str, Any]:
    return {
        "generation": generation,
        "confirmed": confirmed,
        "repositories": found.repositories,
        "images": found.tags,
        "pinned": tuple(map(name, found.pinned)),
        "held": tuple(map(name, found.held)),
        "held_since": found.held_since,
        "only_stored_bytes": found.only_stored_bytes,
        "copied_bytes": found.copied_bytes,
        "unlinked": tuple(
            UnlinkedStatus(each.kind, each.path, each.reason, each.remedy, each.size)
            for each in found.unlinked
        ),
    }


def _told(problems: tuple[Problem, ...]) -> tuple[ProblemStatus, ...]:
    return tuple(ProblemStatus(each.path, each.reason, each.remedy, each.owner) for each in problems)


def _links(store: StorePlace | None) -> str:
    if store is None:
        return ""
    return "hard" if store.hard_links else f"symbolic: {store.obstacle}"
