"""What `run` and `serve` share: from Settings to a mirror, and the loop around it."""

import contextlib
import ctypes
import gc
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

from scr_watchd.daemon import loop
from scr_watchd.daemon import status as statuses
from scr_watchd.daemon.loop import Hooks, Wake
from scr_watchd.daemon.metrics import Tally
from scr_watchd.daemon.mirror import Host, Mirror
from scr_watchd.daemon.outcome import Failed, Outcome, Unchanged
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.daemon.report import Reporter
from scr_watchd.daemon.resolve import Policy
from scr_watchd.daemon.timetable import Rhythm
from scr_watchd.daemon.watch import Watch
from scr_watchd.errors import ConfigurationError, ScrWatchdError, Stopped
from scr_watchd.files import ANYBODY, Reader
from scr_watchd.images.scan import Scanner
from scr_watchd.oci.names import RepositoryName
from scr_watchd.publish import place
from scr_watchd.publish.generations import Generations
from scr_watchd.publish.hashing import Hasher
from scr_watchd.publish.master import NotRunningError, Process, call_when_ended
from scr_watchd.publish.outcome import Published
from scr_watchd.publish.proof import Prover
from scr_watchd.publish.publisher import Publisher
from scr_watchd.publish.reload import Reloading, find_master
from scr_watchd.publish.site import Site
from scr_watchd.publish.state import State, left
from scr_watchd.publish.store import Store
from scr_watchd.render import page
from scr_watchd.render.http_conf import initial, render
from scr_watchd.settings import Settings

log = logging.getLogger("scr_watchd")

Inbox = SimpleQueue[Wake]

_WAITING_HINTS = 64
_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_PIECE_BYTES = 256 * 1024
_PASSES_PER_COLLECTION = 100  # of everything that is known: a fifth of a second in a tree of 10,000 tags


@dataclass(slots=True)
class Keeper:
    """A mirror and what keeps it turning."""

    mirror: Mirror
    watch: Watch
    reporter: Reporter
    rhythm: Rhythm
    look_again: Callable[[], None]
    watched: set[Process]
    """The masters of nginx whose end a thread waits for."""

    hints: int = 0
    """How often something is known to have changed; counted in other threads."""
    _hints_before: int = 0
    _requests: frozenset[tuple[int, int]] = frozenset()
    _settled: bool = False
    _is_first: bool = True

    def look(self, *, full: bool) -> Outcome:
        """Make a pass. The first one does not wait for the watch, which takes as long as the pass in a
        large tree; the next, soon after, sees what changed meanwhile."""
        if self._is_first:
            self.look_again()
        else:
            self.watch.ensure()
        self._is_first = False
        expected = not self._settled or self.hints != self._hints_before or not self.watch.is_trusted
        self._hints_before = self.hints
        self._requests = left(self.mirror.publisher.state)  # this pass finds them
        outcome = self.mirror.run_pass(full=full)
        self._follow_nginx()
        self._settled = isinstance(outcome, Published | Unchanged) and not self.mirror.is_in_flux
        if full and not isinstance(outcome, Failed):
            # a chmod or a symbolic link's target causes no event; a tag that appears always does
            told = expected or self.hints != self._hints_before
            surprised = not told and isinstance(outcome, Published) and bool(outcome.changes.added)
            self.watch.compare(directories=self.mirror.scanner.directories, surprised=surprised)
        self.reporter.watch = self.watch.state
        self.reporter.watch_mode = self.watch.mode
        self.reporter.store = self.mirror.store.place if self.mirror.store else None
        self.reporter.reader = self.mirror.scanner.reader
        return outcome

    def _follow_nginx(self) -> None:
        """Look again as soon as the master of nginx ends that reads what we publish: if that ends an
        upgrade, the one before answers again, with what it has read long ago."""
        with contextlib.suppress(NotRunningError):
            master = find_master(self.mirror.publisher.reloading)
            if master not in self.watched:
                self.watched.add(master)
                call_when_ended(master, self.look_again)

    def asked(self) -> bool:
        """Whether there are requests that no pass has seen. One that stays until it can be granted is no
        news."""
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

    mirror = Mirror(
        scanner=Scanner(
            settings.root,
            reader=reader,
            parents=not own_nginx,  # whoever serves a directory by hand may have it in a private home
            prefix=settings.name_prefix,
            progress=pulse,
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

    watch = Watch(settings.root, hint, events=settings.watch != "poll", progress=pulse)
    keeper = Keeper(mirror, watch, reporter, rhythm, look_again=put, watched=lasting.masters)
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

    hooks = Hooks(
        look=lambda *, full: now.look(full=full),
        has_events=lambda: now.watch.is_trusted,
        report=report,
        reconfigure=reconfigure,
        progress=pulse,
        seconds_to_ping=pulse.seconds,
        tend=tend,
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


def give_back() -> None:
    """Have what a pass needs for a moment, such as the text of all maps, go back to the system when it is
    freed: once it has freed such a piece, glibc would take the next from its heap, where small ones
    keep it (mallopt(3), M_MMAP_THRESHOLD)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have none
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_PIECE_BYTES)


def collect(*, everything: bool = False) -> None:
    """Collect the cycles of this pass, and of it alone: Python's own collector would go through all that
    is known of a large tree several times in each pass, for as long as the pass itself takes. A cycle
    that outlives its pass waits for ``everything``."""
    if everything:
        gc.unfreeze()
    gc.collect()
    gc.freeze()


def _watcher_died(arguments: threading.ExceptHookArgs, inbox: Inbox) -> None:
    log.info(
        "the file watcher failed (%s: %s); it begins anew", arguments.exc_type.__name__, arguments.exc_value
    )
    inbox.put(Wake.NOW)


@contextlib.contextmanager
def signals(inbox: Inbox, pulse: Pulse, *, hangup: Wake) -> Iterator[None]:
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


def _mirrors(settings: Settings) -> dict[str, str]:
    """The prefix of names for each mirrored host, with its "/"."""
    prefixes = {}
    for host, prefix in settings.mirrors.items():
        try:
            prefixes[host] = f"{RepositoryName.parse(prefix.rstrip('/'))}/" if prefix else ""
        except ValueError as error:
            raise ConfigurationError(f"mirrors has {host} = {prefix!a}: {error}") from error
    return prefixes
