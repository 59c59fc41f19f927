"""One pass: look at the whole tree and make nginx serve it.

    scan -> store -> resolve -> render -> stage -> check -> switch -> check the site -> reload -> confirm

A pass may be cut off between any two of these. What nginx includes is whole at every moment, and the
next pass finishes the work: a generation that is switched to stays `pending` until it is confirmed.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from scr_watchd.daemon.outcome import (
    Changes,
    Failed,
    Found,
    Outcome,
    Published,
    Rejected,
    Unchanged,
    Unconfirmed,
    Waiting,
)
from scr_watchd.daemon.resolve import Before, Policy, Resolved, resolve
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import ANYBODY, Reader
from scr_watchd.images.scan import Scan, Scanner
from scr_watchd.oci.catalog import Catalog
from scr_watchd.publish import nginx as programs
from scr_watchd.publish import state as records
from scr_watchd.publish.generations import Generations
from scr_watchd.publish.nginx import Nginx, NginxError
from scr_watchd.publish.reload import Proof, Reloading, crowd, reload
from scr_watchd.publish.state import Record, State
from scr_watchd.publish.store import Store, Taken
from scr_watchd.render.http_conf import Rendered, initial, render

_LOW_DISK = 0.05
_LOW_DISK_GRACE_SECONDS = 60.0
_PRUNE_SECONDS = 60.0  # `prune` without --now spares the pulls that are under way
_HOLD_OFF_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Site:
    """The nginx that serves. ``config`` is its main configuration, ``None`` where it is not ours to
    test: another user's, another container's, or scr-watchd's own."""

    nginx: Nginx
    config: Path | None
    reloading: Reloading
    test_seconds: float


@dataclass(slots=True)
class World:
    """All that a pass works on, and what passes remember of each other."""

    state: State
    scanner: Scanner
    open_store: Callable[[bool], Store]
    """Chooses the store's place and opens it, trusting what is there already or not; called once
    there is a root to link from."""
    generations: Generations
    site: Site
    policy: Policy
    list_repositories: bool
    progress: Callable[[], None]
    worker_user: Callable[[], Reader | None]
    """Asks who must be able to read what is served; ``None`` while nobody can tell."""
    record: Record = field(default_factory=lambda: Record("", Catalog()))
    """What the current generation was rendered from."""
    served: Catalog = field(default_factory=Catalog)
    """What nginx was last known to answer from."""
    confirmed: bool = False
    """Whether nginx is known to answer from the current generation."""
    first: bool = True
    """Whether nothing was ever published from this state directory."""
    reached: Callable[[str], None] = lambda _: None
    """Told of each step of a pass that is done; tests end the process there."""
    reloaded_at: float = float("-inf")
    refused_by_site: bool = False
    included: bool = False
    """Whether the site was seen to include our files."""
    untested: str = ""
    """Why the site's configuration could not be tested, if it could not."""
    store: Store | None = None
    store_inode: int = 0
    """The root that the store was opened for."""
    scan: Scan | None = None
    """The scan after which nothing was left to do; until ``until`` (seconds since 1970)."""
    until: float = 0.0
    found: Found = field(default_factory=Found)


def recall(world: World) -> str:
    """Take up what the last daemon left: its generation, confirmed or pending, else an initial one.

    Returns what was wrong with its notes, or an empty text. Raises ``OSError`` if the state
    directory cannot be used.
    """
    damaged = ""
    try:
        published = records.read_published(world.state)
        pending = records.read_pending(world.state)
    except ValueError as error:
        published = pending = None
        damaged = f"what was noted in {world.state.path} is damaged, so that the tree alone decides: {error}"
    world.first = published is None and pending is None
    current = _current(world)
    if published is not None:
        world.record = published
        world.served = published.catalog
        world.confirmed = published.generation == current
    if pending is not None and pending.generation == current:
        world.record = pending
        world.confirmed = False
    return damaged


def reconcile(world: World, *, full: bool) -> Outcome:
    """Make one pass, with a full or a light look at the tree."""
    try:
        return _pass(world, full=full)
    except NginxError as error:
        return Failed(str(error))
    except ScrWatchdError as error:
        return Failed(f"{error.message}: {error.hint}")
    except OSError as error:
        if error.filename in (world.scanner.root, str(world.scanner.root)):
            return Failed(
                f"the images directory {world.scanner.root} cannot be read: {error.strerror}. What was "
                "published stays; mount or create the directory and it is looked at again"
            )
        where = error.filename or world.state.path  # a full disk is told of without a name
        return Failed(f"{where}: {error.strerror or error}. What was published stays")


def _pass(world: World, *, full: bool) -> Outcome:
    _learn_reader(world)
    scan = world.scanner.full() if full else world.scanner.light()
    store = _store(world)
    current = _current(world)
    if _is_settled(world, store, scan, current):
        return Unchanged(world.found, current)

    world.scan = None
    world.reached("scan")
    taken = store.take(scan.images)
    world.reached("store")
    resolved = _resolve(world, store, scan, taken)
    world.found = _found(resolved, scan, taken, store)
    rendered = render(resolved.catalog, store=store.place.seen_as, list_repositories=world.list_repositories)
    record = _record(world, rendered, resolved)

    if rendered.id == current and world.confirmed:
        if (record.held_since, record.root_inode) != (world.record.held_since, world.record.root_inode):
            records.write_published(world.state, record)
        world.record = record
        _settle(world, store, scan, taken, resolved)
        return Unchanged(world.found, rendered.id)
    crowded = _crowded(world)
    if crowded:
        return Waiting(world.found, crowded)
    rejected = _still_refused(world)
    if rejected is None and rendered.id != current:
        rejected = _switch(world, rendered, record, before=current)
    elif rejected is None:
        records.write_pending(world.state, record)
    if rejected is not None:
        return rejected
    outcome = _reload(world, record, missing=_missing_include(world, rendered.id))
    if isinstance(outcome, Published):
        _settle(world, store, scan, taken, resolved)
        world.reached("confirm")
        if resolved.held_since is None:
            store.prune(resolved.served)
        world.reached("prune")
        world.generations.prune(keep=frozenset({current, rendered.id}))
    return outcome


def _current(world: World) -> str:
    """The id of the current generation; where it is gone, an initial one takes its place."""
    current = world.generations.current_id()
    if current is None:
        rendered = initial()
        world.generations.stage(rendered.id, rendered.files)
        world.generations.switch(rendered.id)
        world.confirmed = False
        return rendered.id
    return current


def _store(world: World) -> Store:
    """The store, opened again for another root: where links can be made may be elsewhere then. Not for
    one that may only be the mount point of a disk that is away."""
    inode = os.stat(world.scanner.root).st_ino
    known = world.record.root_inode in (0, inode)
    if world.store is None or (known and world.store_inode != inode):
        world.store = world.open_store(world.first)
        world.store_inode = inode
    return world.store


def _learn_reader(world: World) -> None:
    if world.scanner.reader == ANYBODY:
        reader = world.worker_user()
        if reader is not None:
            world.scanner.reader = reader


# -- what there is to do -----------------------------------------------------------------------------


def _is_settled(world: World, store: Store, scan: Scan, current: str) -> bool:
    """Whether nothing has happened since a pass after which nothing was left to do."""
    return (
        scan == world.scan
        and world.confirmed
        and current == world.record.generation
        and store.is_there
        and not store.has_news
        and time.time() < world.until
        and not any(records.requested(world.state, what) is not None for what in ("accept", "prune"))
    )


def _settle(world: World, store: Store, scan: Scan, taken: Taken, resolved: Resolved) -> None:
    """Note that nothing is left to do, unless something is: an image in flux, or one that is served
    from symbolic links into a directory that is being emptied."""
    in_flux = taken.problems or (resolved.pinned and not store.place.hard_links)
    world.scan = None if in_flux else scan
    world.until = resolved.until
    for what in ("accept", "prune"):
        records.answered(world.state, what)


def _resolve(world: World, store: Store, scan: Scan, taken: Taken) -> Resolved:
    now = time.time()
    pruned = records.requested(world.state, "prune")
    policy = replace(
        world.policy,
        grace_seconds=_grace(world.policy.grace_seconds, store),
        pruned=float("-inf") if pruned is None else now if pruned == "now" else now - _PRUNE_SECONDS,
        accepted=records.requested(world.state, "accept") is not None,
    )
    before = world.record
    return resolve(
        scan,
        taken.images,
        Before(before.catalog, before.leaving, before.held_since, before.root_inode),
        stored=store.image,
        policy=policy,
        root_inode=os.stat(world.scanner.root).st_ino,
        now=now,
    )


def _grace(seconds: float, store: Store) -> float:
    """The grace period, shorter while the disk of the store is nearly full."""
    disk = os.statvfs(store.place.path)
    if disk.f_blocks and disk.f_bavail / disk.f_blocks < _LOW_DISK:
        return min(seconds, _LOW_DISK_GRACE_SECONDS)
    return seconds


def _record(world: World, rendered: Rendered, resolved: Resolved) -> Record:
    inode = os.stat(world.scanner.root).st_ino
    if resolved.held_since is not None:  # not the root as we know it, until somebody says so
        inode = world.record.root_inode or inode
    return Record(rendered.id, resolved.catalog, resolved.leaving, resolved.held_since, inode)


def _found(resolved: Resolved, scan: Scan, taken: Taken, store: Store) -> Found:
    listed = [each for each in resolved.catalog.repositories if each.listed]
    return Found(
        repositories=len(listed),
        tags=sum(len(each.tags) for each in listed),
        example=next(((each.name, tag) for each in listed for tag in each.tags), None),
        problems=tuple(sorted((*scan.problems, *taken.problems), key=lambda problem: problem.path)),
        pinned=resolved.pinned,
        held=resolved.held,
        held_since=resolved.held_since,
        waiting=taken.waiting,
        leaving=len(resolved.leaving),
        only_stored_bytes=store.only_here(resolved.only_stored),
    )


# -- making it so ------------------------------------------------------------------------------------


def _switch(world: World, rendered: Rendered, record: Record, *, before: str) -> Rejected | None:
    """Make the rendered generation current, unless nginx refuses it; then the one before stays."""
    candidate = world.generations.stage(rendered.id, rendered.files)
    world.reached("stage")
    refusal = programs.check(
        world.site.nginx,
        candidate.path,
        scratch=world.state.path / "check",
        seconds=world.site.test_seconds,
        progress=world.progress,
    )
    if refusal is not None:
        return Rejected(world.found, "ours", refusal.words)
    world.reached("check")
    records.write_pending(world.state, record)
    world.reached("pending")
    world.generations.switch(rendered.id)
    world.reached("switch")
    words = _test_site(world)
    if not words:
        world.reached("site")
        return None
    world.generations.switch(before)
    world.state.pending.unlink(missing_ok=True)
    without_us = _test_site(world)
    if not without_us:
        return Rejected(world.found, "ours", words)
    world.refused_by_site = True
    return Rejected(world.found, "the site's", without_us)


def _still_refused(world: World) -> Rejected | None:
    """Ask first where the site itself was refused, or where a generation is current and unconfirmed:
    nothing is switched or signalled before the site is in order."""
    if not world.refused_by_site and not world.state.pending.exists():
        return None
    words = _test_site(world)
    world.refused_by_site = bool(words)
    return Rejected(world.found, "the site's", words) if words else None


def _test_site(world: World) -> str:
    """What nginx has against the site's configuration; nothing where it cannot be tested."""
    if world.site.config is None or not world.site.config.exists():
        return ""
    try:
        refusal = programs.check_site(
            world.site.nginx, world.site.config, seconds=world.site.test_seconds, progress=world.progress
        )
    except NginxError as error:
        world.untested = str(error)
        return ""
    world.untested = ""
    return refusal.words if refusal else ""


def _missing_include(world: World, generation: str) -> str:
    """What to add to the site's configuration if it does not include us. Once seen, it is believed."""
    config = world.site.config
    if world.included or config is None or world.untested or not config.exists():
        return ""
    world.included = programs.includes(
        world.site.nginx, config, generation, seconds=world.site.test_seconds, progress=world.progress
    )
    if world.included:
        return ""
    current = world.generations.current
    return (
        f"{config} does not include it. Add to its http {{}}: include {current}/http*.conf; "
        f"and to a server {{}}: include {current}/server*.conf;"
    )


def _crowded(world: World) -> str:
    """Why a reload would better wait: each leaves workers behind that end with their last download,
    and each of those holds the whole of its configuration in memory."""
    if time.monotonic() - world.reloaded_at > _HOLD_OFF_SECONDS:
        return ""
    return crowd(world.site.reloading)


def _reload(world: World, record: Record, *, missing: str) -> Published | Unconfirmed:
    changes = Changes.between(world.served, record.catalog)
    world.record = record
    world.confirmed = False
    if missing:  # a reload would be for nothing, and would seem to succeed
        return Unconfirmed(world.found, record.generation, changes, missing)
    verdict = reload(world.site.reloading, record.generation, progress=world.progress)
    world.reached("reload")
    world.reloaded_at = time.monotonic()
    if verdict.proof in (Proof.ABSENT, Proof.MISSING):
        return Unconfirmed(world.found, record.generation, changes, verdict.reason)
    records.confirm_pending(world.state)
    world.confirmed = True
    world.served = record.catalog
    return Published(world.found, record.generation, changes, verdict.reason)
