"""What `run` and `serve` share: from Settings to a mirror, and the loop around it."""

import contextlib
import gc
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from scr_watchd.commands.memory import collect, give_back
from scr_watchd.daemon import loop
from scr_watchd.daemon import status as statuses
from scr_watchd.daemon.loop import Hooks, Wake
from scr_watchd.daemon.metrics import Tally
from scr_watchd.daemon.mirror import Host, Mirror
from scr_watchd.daemon.outcome import Failed, Outcome, Unchanged
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.daemon.report import Reporter
from scr_watchd.daemon.resolve import Policy
from scr_watchd.daemon.teller import Teller
from scr_watchd.daemon.timetable import EVERYTHING, Look, Looked, Rhythm
from scr_watchd.daemon.watch import Watch
from scr_watchd.errors import ConfigurationError, ScrWatchdError, Stopped, cure
from scr_watchd.files import ANYBODY, Reader
from scr_watchd.images.scan import Scanner
from scr_watchd.oci.names import RepositoryName
from scr_watchd.publish import place
from scr_watchd.publish.generations import Generations
from scr_watchd.publish.hashing import Hasher
from scr_watchd.publish.master import Process, call_when_ended
from scr_watchd.publish.outcome import Published
from scr_watchd.publish.proof import Prover
from scr_watchd.publish.publisher import Publisher
from scr_watchd.publish.reload import Reloading
from scr_watchd.publish.sight import Sight, look
from scr_watchd.publish.site import Site
from scr_watchd.publish.state import State, left
from scr_watchd.publish.store import Store
from scr_watchd.render import page
from scr_watchd.render.http_conf import initial, render
from scr_watchd.settings import Settings

log = logging.getLogger("scr_watchd")

Inbox = SimpleQueue[Wake]

_WAITING_HINTS = 64
_UP_SECONDS = 10.0  # its end is told of by the kernel as well
_DOWN_SECONDS = 1.0
_PASSES_PER_COLLECTION = 100  # of everything that is known: a fifth of a second in a tree of 10,000 tags


@dataclass(slots=True)
class Keeper:
    """A mirror and what keeps it turning."""

    mirror: Mirror
    watch: Watch
    reporter: Reporter
    rhythm: Rhythm
    teller: Teller
    look_again: Callable[[], None]
    nginx_ended: Callable[[], None]
    watched: set[Process]
    """The masters of nginx whose end a thread waits for."""

    hints: int = 0
    """How often something is known to have changed; counted in other threads."""
    _hints_before: int = 0
    _requests: frozenset[tuple[int, int]] = frozenset()
    _settled: bool = False
    _is_first: bool = True

    def ready(self) -> bool:
        """Whether all that happened since the last look was watched. The first one does not wait for the
        watch, which takes as long as the pass in a large tree; the next, soon after, sees what changed
        meanwhile."""
        if self._is_first:
            self.look_again()
            self._is_first = False
            return True
        return self.watch.ensure()

    def look(self, look: Look = EVERYTHING) -> Outcome:
        """Make a pass."""
        full = look.full
        expected = not self._settled or self.hints != self._hints_before or not self.watch.is_trusted
        self._hints_before = self.hints
        self._requests = left(self.mirror.publisher.state)  # this pass finds them
        outcome = self.mirror.run_pass(full=full, hints=look.hints)
        self.teller.looked = None
        self._settled = isinstance(outcome, Published | Unchanged) and not self.mirror.is_in_flux
        if full and not isinstance(outcome, Failed):
            # a chmod or a symbolic link's target causes no event; a tag that appears always does
            told = expected or self.hints != self._hints_before
            surprised = not told and isinstance(outcome, Published) and bool(outcome.changes.added)
            self.watch.compare(directories=self.mirror.scanner.directories, surprised=surprised)
        self.reporter.sight = self._sight()
        self.reporter.watch = self.watch.state
        self.reporter.watch_mode = self.watch.mode
        self.reporter.store = self.mirror.store.place if self.mirror.store else None
        self.reporter.reader = self.mirror.scanner.reader
        return outcome

    def looked(self, began: float) -> Looked:
        """How the last look went, that ``began`` then."""
        scanner = self.mirror.scanner
        return Looked(
            began,
            time.monotonic(),
            cpu=self.mirror.look_seconds,
            events=self.watch.is_trusted,
            incomplete=scanner.incomplete,
            recent=scanner.recent,
        )

    def see_nginx(self) -> float:
        """Look whether nginx runs, have it said, and return when (monotonic) to look again."""
        before = self.reporter.sight
        self.reporter.saw(self._sight())
        if before.up is False and self.reporter.sight.up:
            self.look_again()  # it may be another one than was told
        return time.monotonic() + (_DOWN_SECONDS if self.reporter.sight.up is False else _UP_SECONDS)

    def _sight(self) -> Sight:
        """What is to be seen of nginx now. As soon as its master ends it is looked for again, and so is the
        tree: if that ends an upgrade, the one before answers again, with what it has read long ago."""
        sight = look(self.mirror.publisher.reloading, self.reporter.sight.master)
        if sight.up and sight.master and sight.master not in self.watched:
            self.watched.add(sight.master)
            call_when_ended(sight.master, self.nginx_ended)
        return sight

    def asked(self) -> bool:
        """Whether there are requests that no pass has seen, or the tree may be another. A request that stays
        until it can be granted is no news."""
        if self.watch.has_moved():
            return True
        before, self._requests = self._requests, left(self.mirror.publisher.state)
        return not self._requests <= before


@dataclass(frozen=True, slots=True)
class Lasting:
    """The locks of stores by their paths, the hashers of images trees, what was counted, and the masters of
    nginx whose end a thread waits for: as long as the process."""

    locks: dict[Path, int] = field(default_factory=dict)
    hashers: dict[Path, Hasher] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    masters: set[Process] = field(default_factory=set)


def build(
    settings: Settings,
    site: Site,
    reloading: Reloading,
    *,
    reader: Reader,
    worker_user: Callable[[], Reader | None],
    own_nginx: bool,
    inbox: Inbox,
    pulse: Pulse,
    lasting: Lasting,
) -> Keeper:
    """A keeper for ``settings``, with what the last daemon left taken up.

    ``own_nginx`` says that nginx is a child of ours, ``lasting`` is what outlives
    settings that are read again.

    Raises ``ScrWatchdError`` for settings that cannot work together, and ``OSError`` if the state
    directory cannot be used.
    """
    state = State(settings.state)
    last = statuses.last(state.status)
    if reader == ANYBODY and last is not None and not own_nginx:
        reader = Reader(last.reader[0], frozenset(last.reader[1]))  # until nginx runs, and can be asked

    def open_store(trusting: bool) -> Store:  # noqa: FBT001 - the one question
        chosen = place.choose(
            root=settings.root,
            state=settings.state,
            store=None if settings.store == "auto" else Path(settings.store),
            server_root=None if own_nginx else settings.server_root or None,
            ours=lasting.locks,
        )
        place.check_can_be_told(chosen)
        if chosen.path not in lasting.locks:
            lasting.locks[chosen.path] = place.lock(chosen.path)
        new = Hasher(settings.root, _hinter(inbox), progress=pulse)
        hasher = lasting.hashers.setdefault(settings.root, new)
        prover = Prover(hasher, chosen.path, pulse, trusting, settings.verify == "new")
        return Store(chosen, settings.root, prover, progress=pulse)

    def looked() -> None:
        teller.look()
        pulse()

    mirror = Mirror(
        scanner=Scanner(
            settings.root,
            reader=reader,
            parents=not own_nginx,  # whoever serves a directory by hand may have it in a private home
            prefix=settings.name_prefix,
            progress=looked,
        ),
        publisher=Publisher(
            state,
            Generations(state.nginx),
            site,
            reloading,
            initial=(initial().id, initial().files),
            took=lasting.tally.reload.took,
        ),
        host=Host(open_store, worker_user),
        render=partial(
            render,
            list_repositories=settings.catalog,
            mirrors=_mirrors(settings),
            browse=settings.browse,
            warning=settings.warning,
        ),
        page=(page.name(), page.page()) if settings.browse else None,
        policy=Policy(
            prefix=settings.name_prefix,
            grace_seconds=settings.grace_seconds,
            hold_seconds=0 if own_nginx else settings.hold_seconds,
        ),
        tally=lasting.tally,
    )
    damaged = mirror.recall()
    if damaged:
        log.warning("%s", damaged)
    reporter = Reporter(
        status_file=state.status,
        metrics_file=state.metrics,
        tally=lasting.tally,
        notifier=pulse.notifier,
        root=settings.root,
        state=settings.state,
        own_nginx=own_nginx,
        last=last,
        prefix=settings.name_prefix,
        for_machines=settings.log_format == "json",
    )
    mirror.publisher.tell = lambda changes, before, generation: reporter.tell(
        changes, before, generation, mirror.found
    )
    teller = Teller(
        state.progress,
        pulse.notifier,
        may_write=lambda: reporter.may_write(),
        under_way=lambda: next((now for each in lasting.hashers.values() if (now := each.under_way)), None),
        note=lambda: reporter.note,
    )
    rhythm = Rhythm(
        quiet_seconds=settings.quiet_seconds,
        max_wait_seconds=settings.max_wait_seconds,
        min_reload_seconds=settings.min_reload_seconds,
        rescan_seconds=settings.rescan_seconds,
    )
    put = _hinter(inbox)

    def hint() -> None:
        keeper.hints += 1
        put()

    def nginx_ended() -> None:
        inbox.put(Wake.CHILD)
        put()

    watch = Watch(settings.root, hint, events=settings.watch != "poll", progress=pulse)
    keeper = Keeper(
        mirror,
        watch,
        reporter,
        rhythm,
        teller,
        look_again=put,
        nginx_ended=nginx_ended,
        watched=lasting.masters,
    )
    pulse.show, pulse.is_busy = teller, lambda: teller.under_way() is not None
    return keeper


def _hinter(inbox: Inbox) -> Callable[[], None]:
    """Puts a hint unless many wait already: a burst of 10,000 events needs no more room."""

    def hint() -> None:
        if inbox.qsize() < _WAITING_HINTS:
            inbox.put(Wake.CHANGED)

    return hint


def keep(
    keeper: Keeper,
    inbox: Inbox,
    pulse: Pulse,
    *,
    rebuild: Callable[[], Keeper],
    tend: Callable[[], float] = lambda: math.inf,
) -> None:
    """Run the loop until it is told to stop; ``rebuild`` makes a keeper of settings read again."""
    now, passes, notifier = keeper, 0, pulse.notifier

    def reconfigure() -> Rhythm:
        nonlocal now, passes
        notifier.reloading()
        try:
            new = rebuild()
        except (ScrWatchdError, OSError) as error:
            log.error("the settings stay as they were: %s", error)  # noqa: TRY400 - a sentence will do
        else:
            now.watch.close()
            now, passes = new, -1  # nothing of the former one is needed any more
            log.info("settings read again")
        return now.rhythm

    def report(outcome: Outcome) -> float:
        nonlocal passes
        again_at = now.reporter.report(outcome, now.mirror.found)
        passes = (passes + 1) % _PASSES_PER_COLLECTION
        collect(everything=passes == 0)
        return again_at

    said = ""

    def look_after() -> float:
        nonlocal said
        try:
            again_at = min(tend(), now.see_nginx())
        except OSError as error:
            if (what := f"nginx cannot be looked after: {error.strerror}. {cure(error)}") != said:
                log.error("%s", what)  # noqa: TRY400 - it is not a bug
            said = what
            return time.monotonic() + _DOWN_SECONDS
        said = ""
        return again_at

    hooks = Hooks(
        ready=lambda: now.ready(),
        look=lambda look: now.look(look),
        hints=lambda: now.watch.take(),
        looked=lambda began: now.looked(began),
        uneasy=lambda: now.mirror.scanner.uneasy,
        report=report,
        reconfigure=reconfigure,
        progress=pulse,
        seconds_to_ping=pulse.seconds,
        tend=look_after,
        asked=lambda: now.asked(),
    )
    if keeper.mirror.publisher.is_confirmed:  # what the last daemon published is whole, and as good as a pass
        notifier.ready("serving what was published last; looking at the tree")
    threading.excepthook = lambda arguments: _watcher_died(arguments, inbox)
    give_back()
    gc.disable()
    try:
        with contextlib.suppress(Stopped):
            loop.run(inbox, hooks, keeper.rhythm)
        notifier.stopping()
    finally:
        now.watch.close()


def _watcher_died(arguments: threading.ExceptHookArgs, inbox: Inbox) -> None:
    log.info(
        "the file watcher failed (%s: %s); it begins anew", arguments.exc_type.__name__, arguments.exc_value
    )
    inbox.put(Wake.NOW)


def _mirrors(settings: Settings) -> dict[str, str]:
    """The prefix of names for each mirrored host, with its "/"."""
    prefixes = {}
    for host, prefix in settings.mirrors.items():
        before = prefix.removesuffix("*") if host == "*" else prefix
        try:
            prefixes[host] = f"{RepositoryName.parse(before.rstrip('/'))}/" if before else ""
        except ValueError as error:
            raise ConfigurationError(f"mirrors has {host} = {prefix!a}: {error}") from error
    return prefixes
