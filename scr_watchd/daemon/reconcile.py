"""One pass: look at the whole tree and make nginx serve it.

    scan -> store -> resolve -> render -> stage -> check -> switch -> check the site -> reload -> confirm

A pass may be cut off between any two of these. What nginx includes is whole at every moment, and the
next pass finishes the work: a generation that is switched to stays `pending` until it is confirmed.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from scr_watchd.daemon.guard import is_another
from scr_watchd.daemon.metrics import Tally
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
from scr_watchd.daemon.resolve import Before, Plain, Policy, Resolved, resolve
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import FileId, NotRegularError, Reader, mounts_around
from scr_watchd.images.scan import Scan, Scanner
from scr_watchd.images.sparse import Ripening
from scr_watchd.oci.catalog import Catalog, Image, Problem, Reference, former_names, told
from scr_watchd.publish import included
from scr_watchd.publish import nginx as programs
from scr_watchd.publish import readers as masters
from scr_watchd.publish import state as records
from scr_watchd.publish.generations import Generations
from scr_watchd.publish.nginx import Nginx, NginxError
from scr_watchd.publish.readers import Readers
from scr_watchd.publish.reload import Proof, Reloading, crowd, is_astray, reload
from scr_watchd.publish.state import REQUESTS, Record, Request, State
from scr_watchd.publish.store import Store, Taken
from scr_watchd.render.http_conf import Memory, Rendered, initial, is_whole, render
from scr_watchd.words import printable

_ADVICE = (
    "pages of long tag lists are several times faster with a line more in {}, before http {{}}: pcre_jit on;"
)
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
    mirrors: Mapping[str, str]
    """Prefixes of names, "" or with "/" at the end, by the host that they mirror."""
    progress: Callable[[], None]
    worker_user: Callable[[], Reader | None]
    """Asks who must be able to read what is served; ``None`` while nobody can tell."""
    record: Record = field(default_factory=lambda: Record("", Catalog()))
    """What the current generation was rendered from."""
    served: Catalog = field(default_factory=Catalog)
    """What nginx was last known to answer from."""
    published: str = ""
    """The generation that nginx was last known to answer from."""
    confirmed: bool = False
    """Whether nginx is known to answer from the current generation."""
    readers: Readers = field(default_factory=Readers)
    """Which masters of nginx have read the current generation."""
    first: bool = True
    """Whether nothing was ever published from this state directory."""
    reader_is_known: bool = False
    has_root_workers: bool = False
    """Whether nginx's workers run as root, who could read whatever a link leads to."""
    reached: Callable[[str], None] = lambda _: None
    """Told of each step of a pass that is done; tests end the process there."""
    reloaded_at: float = float("-inf")
    refused_by_site: bool = False
    included: bool = False
    """Whether the site was seen to include our files."""
    untested: str = ""
    """Why the site's configuration could not be tested, if it could not."""
    store: Store | None = None
    hold_began: float | None = None
    """When (monotonic) removals began to be held, as far as this process has seen."""
    mounts: frozenset[tuple[str, str]] | None = None
    """What was mounted around the root at the last pass."""
    moved: bool = False
    """Whether that has changed since the last pass that came to its end."""
    store_root: FileId = (0, 0)
    """The root that the store was opened for."""
    seen: Scan | None = None
    scan: Scan | None = None
    """The scan after which nothing was left to do; until ``until`` (seconds since 1970)."""
    until: float = 0.0
    plain: Mapping[str, Plain] = field(default_factory=dict)
    """Repositories that need not be looked at again while their images stay the same."""
    memory: Memory = field(default_factory=dict)
    """What was rendered of each repository, likewise."""
    found: Found = field(default_factory=Found)
    keep_lock: Callable[[], None] = lambda: None
    """Makes sure that the state directory is still ours alone."""
    ripening: Ripening = field(default_factory=Ripening)
    """When sparse images were seen first whose times lie in the future."""
    tally: Tally = field(default_factory=Tally)
    """What passes have done and how long it took."""
    asked: dict[Request, str] = field(default_factory=dict)
    """What commands had asked for when the last pass decided."""


def recall(world: World) -> str:
    """Take up what the last daemon left: its generation, confirmed or pending, else an initial one.

    Returns what was wrong with its notes, or an empty text. Raises ``OSError`` if the state
    directory cannot be used.
    """
    damaged = []
    found: list[Record | None] = []
    for read in (records.read_published, records.read_pending):
        try:
            found.append(read(world.state))
        except (ValueError, NotRegularError) as error:
            found.append(None)
            why = printable(str(error))
            damaged.append(f"what was noted in {world.state.path} is damaged, and the tree decides: {why}")
    published, pending = found
    world.first = published is None and pending is None
    current = _current(world)
    if not is_whole(world.generations.read(current)):
        damaged.append(f"the generation {current} is damaged, and made anew")
        current = _start_again(world)
    if published is not None:
        world.record = published
        world.served = published.catalog
        world.published = published.generation
        world.confirmed = published.generation == current
    if pending is not None and pending.generation == current:
        world.record = pending
        world.confirmed = False
    world.readers = masters.read(world.state.readers, current)
    return "; ".join(damaged)


def reconcile(world: World, *, full: bool) -> Outcome:
    """Make one pass, with a full or a light look at the tree."""
    try:
        try:
            return _pass(world, full=full)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and _make_room(world):
                return _pass(world, full=full)
            raise
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
    finally:
        if world.store is not None:
            world.store.hash_the_rest()


def _make_room(world: World) -> bool:
    """Whether the store could be rid of what is only there for a while: on a full disk that must not
    wait for a generation without it, which needs room itself."""
    if world.store is None or world.seen is None:
        return False
    resolved = _resolve(world, world.store, world.seen, Taken(world.seen.images), grace_seconds=0)
    if resolved.held_since is not None:
        return False
    world.scan = None
    return world.store.prune((*resolved.served, *_still_read(world, world.store, resolved))) > 0


def _pass(world: World, *, full: bool) -> Outcome:
    world.keep_lock()
    _learn_reader(world)
    mounts = mounts_around(world.scanner.root)
    with (world.tally.full_scan if full else world.tally.light_scan).measured():
        scan = world.seen = world.scanner.full() if full else world.scanner.light()
    world.moved |= len({world.mounts or mounts, mounts, mounts_around(world.scanner.root)}) > 1
    world.mounts = mounts
    store = _store(world, scan.root)
    scan = world.seen = _ripe(world, store, scan)
    current = _current(world)
    if world.confirmed and is_astray(world.site.reloading, world.readers):
        world.confirmed, world.scan = False, None  # another nginx answers now than was told
    if _is_settled(world, store, scan, current):
        world.moved = False
        if world.confirmed:
            return Unchanged(world.found, current)
        return _crowded(world) or _still_refused(world) or _reload(world, world.record)

    world.scan = None
    world.reached("scan")
    taken = store.take(scan.images, root=scan.root, reader=world.scanner.reader)
    world.reached("store")
    resolved = _resolve(world, store, scan, taken)
    world.found = _found(resolved, scan, taken, store, world.record.catalog)
    rendered = render(
        resolved.catalog,
        store=store.place.seen_as,
        list_repositories=world.list_repositories,
        mirrors=world.mirrors,
        memory=world.memory,
        follow_links=not world.has_root_workers,
    )
    record = _record(world, rendered, resolved, scan.root)

    if rendered.id == current and world.generations.repair(current, rendered.files):
        world.confirmed = False
        world.readers = Readers()  # they may have read what was damaged
    if rendered.id == current and world.confirmed:
        if record != world.record:  # what leaves, say: no line tells of that
            records.write_published(world.state, record)
        world.record = record
        world.served = record.catalog
        _settle(world, store, scan, taken, resolved)
        _tidy(world, store, resolved)
        return Unchanged(world.found, rendered.id)
    refused = _crowded(world) or _still_refused(world)
    if refused is None and rendered.id != current:
        refused = _switch(world, rendered, record, before=current)
    elif refused is None:
        records.write_pending(world.state, record)
    if refused is not None:
        _tidy(world, store, resolved)
        return refused
    outcome = _reload(world, record)
    _settle(world, store, scan, taken, resolved)
    if isinstance(outcome, Published):
        world.reached("confirm")
    _tidy(world, store, resolved, before=current)
    world.reached("prune")
    return outcome


def _tidy(world: World, store: Store, resolved: Resolved, *, before: str = "") -> None:
    """Remove what nothing needs any more: also generations, if the one ``before`` is no longer current.
    That it fails does not undo what was published.

    What is held may lie in a store that is away with its disk: of those repositories nothing goes.
    """
    try:
        needed = (*resolved.served, *_still_read(world, store, resolved))
        store.prune(needed, spare={name for name, _ in resolved.held})
        if world.confirmed and world.record.catalog is resolved.catalog:
            store.prune_former()
        if before:
            world.generations.prune(keep=frozenset({before, world.published}))
    except OSError as error:
        path = str(error.filename or store.place.path)
        reason = f"it cannot be tidied: {error.strerror}"
        problem = Problem(printable(path), reason, "Look at its owner and mode.")
        world.found = replace(world.found, problems=(*world.found.problems, problem))
        world.scan = None


def _still_read(world: World, store: Store, resolved: Resolved) -> tuple[Image, ...]:
    """The images of tags that nginx may go on answering with, because what was ``resolved`` is not, or not
    yet, what it reads."""
    others = [each for each in (world.served, world.record.catalog) if each is not resolved.catalog]
    tags = {item for catalog in others for item in catalog.tags().items()}
    gone = tags - resolved.catalog.tags().items() if others else ()
    still = (store.image(name, tag, digest) for (name, tag), digest in gone)
    return tuple(image for image in still if image is not None)


def _current(world: World) -> str:
    """The id of the current generation; where it is gone, an initial one takes its place."""
    current = world.generations.current_id()
    return _start_again(world) if current is None else current


def _start_again(world: World) -> str:
    """Make an initial generation current: it answers 503 until there is another."""
    rendered = initial()
    world.generations.stage(rendered.id, rendered.files)
    _make_current(world, rendered.id)
    world.confirmed = False
    return rendered.id


def _make_current(world: World, generation: str, *, readers: Readers | None = None) -> None:
    """Make a generation current; it has no readers yet but those who came back to it."""
    world.generations.switch(generation)
    world.readers = Readers(readers.masters if readers else frozenset())


def _store(world: World, root: FileId) -> Store:
    """The store, opened again for another root: where links can be made may be elsewhere then. Not for
    one that may only be the mount point of a disk that is away."""
    known = not is_another(root, world.record.root)
    if world.store is None or (known and world.store_root != root):
        world.store = world.open_store(world.first)
        world.store_root = root
    return world.store


def _ripe(world: World, store: Store, scan: Scan) -> Scan:
    """The scan without the sparse images that are not served yet."""

    def served(image: Image) -> Image | None:
        digest = tags.get((image.repository, image.tag)) if image.tag is not None else None
        return store.image(image.repository, image.tag, digest) if digest is not None else None

    if not scan.changed:
        return scan
    tags = world.record.catalog.tags()
    unripe = world.ripening.unripe(scan.images, scan.changed, now=time.time(), served=served)
    return scan.without(unripe)


def _learn_reader(world: World) -> None:
    if not world.reader_is_known:
        reader = world.worker_user()
        if reader is not None:
            world.scanner.reader = reader
            world.reader_is_known = True


# -- what there is to do -----------------------------------------------------------------------------


def _is_settled(world: World, store: Store, scan: Scan, current: str) -> bool:
    """Whether nothing has happened since a pass after which nothing was left to do."""
    return (
        scan == world.scan
        and current == world.record.generation
        and world.generations.is_as_written(current)
        and store.is_there
        and not store.has_news
        and time.time() < world.until
        and not _asked(world)
    )


def _settle(world: World, store: Store, scan: Scan, taken: Taken, resolved: Resolved) -> None:
    """Note that nothing is left to do, unless something is: an image in flux, or one that is served
    from symbolic links into a directory that is being emptied."""
    in_flux = taken.problems or (resolved.pinned and not store.place.hard_links)
    world.scan = None if in_flux else scan
    world.moved = False
    world.until = resolved.until
    for what, text in world.asked.items():
        if records.requested(world.state, what) == text:  # else it came later, and is for the next pass
            records.answered(world.state, what)


def _asked(world: World) -> dict[Request, str]:
    found = {what: records.requested(world.state, what) for what in REQUESTS}
    return {what: text for what, text in found.items() if text is not None}


def _resolve(
    world: World, store: Store, scan: Scan, taken: Taken, *, grace_seconds: float | None = None
) -> Resolved:
    now = time.time()
    world.asked = _asked(world)
    pruned = world.asked.get("prune")
    policy = replace(
        world.policy,
        grace_seconds=_grace(world.policy.grace_seconds, store) if grace_seconds is None else grace_seconds,
        pruned=float("-inf") if pruned is None else now if pruned == "now" else now - _PRUNE_SECONDS,
        accepted="accept" in world.asked,
        held_for=0 if world.hold_began is None else time.monotonic() - world.hold_began,
        moved=world.moved,
    )
    before = world.record
    resolved = resolve(
        scan,
        taken.images,
        Before(before.catalog, before.leaving, before.held_since, before.root, world.plain),
        stored=store.image,
        policy=policy,
        now=now,
    )
    world.plain = resolved.plain
    if resolved.held_since is None:
        world.hold_began = None
    elif world.hold_began is None:
        world.hold_began = time.monotonic()
    return resolved


def _grace(seconds: float, store: Store) -> float:
    """The grace period, shorter while the disk of the store is nearly full."""
    disk = os.statvfs(store.place.path)
    if disk.f_blocks and disk.f_bavail / disk.f_blocks < _LOW_DISK:
        return min(seconds, _LOW_DISK_GRACE_SECONDS)
    return seconds


def _record(world: World, rendered: Rendered, resolved: Resolved, root: FileId) -> Record:
    if resolved.held_since is not None and world.record.root != (0, 0):
        root = world.record.root  # it is not the one that we know, until somebody says so
    return Record(rendered.id, resolved.catalog, resolved.leaving, resolved.held_since, root)


def _found(resolved: Resolved, scan: Scan, taken: Taken, store: Store, before: Catalog) -> Found:
    listed = [each for each in resolved.catalog.repositories if each.listed]
    return Found(
        repositories=len(listed),
        tags=sum(len(each.tags) for each in listed),
        example=next(((each.name, tag) for each in listed for tag in each.tags), None),
        problems=told((*scan.problems, *taken.problems)),
        pinned=resolved.pinned,
        held=resolved.held,
        held_since=resolved.held_since,
        waiting=taken.waiting,
        leaving=len(resolved.leaving),
        only_stored_bytes=store.only_here(resolved.only_stored),
        sparse={
            (image.repository, image.tag): image.some_platforms
            for image in resolved.served
            if image.absent and image.tag is not None
        },
        unripe=scan.unripe,
        renamed=_renamed(resolved, scan, before),
    )


def _renamed(resolved: Resolved, scan: Scan, before: Catalog) -> tuple[tuple[Reference, Reference], ...]:
    """The old and the new names of images whose layout has several repositories now, for as long as what
    had the old name can be pulled there."""
    old = before.tags() if (names := former_names(scan.images)) else {}
    new = resolved.catalog.tags() if names else {}
    return tuple(
        ((name, tag), now)
        for (name, tag, digest), now in names.items()
        if (name, tag) not in new
        and now in new
        and (old.get((name, tag)) == digest or (name, digest) in resolved.leaving)
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
        _discard(world, rendered)
        return Rejected(world.found, "ours", refusal.words)
    world.reached("check")
    records.write_pending(world.state, record)
    world.reached("pending")
    readers = world.readers
    _make_current(world, rendered.id)
    world.reached("switch")
    words = _test_site(world)
    if not words:
        world.reached("site")
        return None
    _make_current(world, before, readers=readers)
    world.state.pending.unlink(missing_ok=True)
    _discard(world, rendered)
    without_us = _test_site(world)
    if not without_us:
        return Rejected(world.found, "ours", words)
    world.refused_by_site = True
    return Rejected(world.found, "the site's", without_us)


def _discard(world: World, refused: Rendered) -> None:
    """Remove a generation that nginx refuses, unless it answers from it since a better day: that of a large
    tree has megabytes, and each look may make another."""
    if refused.id != world.published:
        world.generations.discard(refused.id)


def _still_refused(world: World) -> Rejected | None:
    """Ask first where the site itself was refused, or where a generation is current and unconfirmed:
    nothing is switched or signalled before the site is in order."""
    if not world.refused_by_site and not world.state.pending.exists():
        return None
    words = _test_site(world)
    world.refused_by_site = bool(words)
    if words and world.state.pending.exists() and world.published in world.generations:
        # a crash kept us from going back, and nginx could not even start like this
        _make_current(world, world.published)
        world.state.pending.unlink()
        if not _test_site(world):
            world.refused_by_site = False
            return Rejected(world.found, "ours", words)
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
        advice = f"what is published goes live without a test of {world.site.config}: {error}"
        world.found = replace(world.found, advice=advice)
        return ""
    world.untested = ""
    return refusal.words if refusal else ""


def _missing_include(world: World, generation: str) -> str:
    """What to add to the site's configuration if it does not include us. Once seen, it is believed."""
    config = world.site.config
    if world.included or config is None or world.untested or not config.exists():
        return ""
    text = programs.whole_text(
        world.site.nginx, config, seconds=world.site.test_seconds, progress=world.progress
    )
    if text is None:
        return ""
    wanted = included.missing(text, config=config, generation=generation, current=world.generations.current)
    world.included = not wanted
    if world.included and not programs.has_jit(text):
        world.found = replace(world.found, advice=_ADVICE.format(config))
    return wanted


def _crowded(world: World) -> Waiting | None:
    """Why a reload would better wait: each leaves workers behind that end with their last download,
    and each of those holds the whole of its configuration in memory."""
    if time.monotonic() - world.reloaded_at > _HOLD_OFF_SECONDS:
        return None
    reason = crowd(world.site.reloading)
    return Waiting(world.found, reason) if reason else None


def _reload(world: World, record: Record) -> Published | Unconfirmed:
    missing = _missing_include(world, record.generation)
    changes = Changes.between(world.served, record.catalog)
    world.record = record
    world.confirmed = False
    if missing:  # a reload would be for nothing, and would seem to succeed
        return Unconfirmed(world.found, record.generation, changes, missing)
    began = time.monotonic()
    verdict = reload(world.site.reloading, record.generation, world.readers, progress=world.progress)
    world.reached("reload")
    world.reloaded_at = time.monotonic()
    if verdict.reader is not None:
        world.readers = replace(world.readers, masters=world.readers.masters | {verdict.reader})
    if verdict.proof is not Proof.ABSENT:
        world.tally.reload.took(world.reloaded_at - began)
    if verdict.proof in (Proof.ABSENT, Proof.MISSING):
        return Unconfirmed(world.found, record.generation, changes, verdict.reason)
    masters.write(world.state.readers, record.generation, world.readers)
    records.confirm_pending(world.state)
    world.confirmed = True
    world.served = record.catalog
    world.published = record.generation
    return Published(world.found, record.generation, changes, verdict.reason)
