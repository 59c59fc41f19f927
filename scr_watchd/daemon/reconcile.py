"""One pass: look at the whole tree and make nginx serve it.

    scan -> store -> resolve -> render -> stage -> check -> switch -> check the site -> reload -> confirm

A pass may be cut off between any two of these. What nginx includes is whole at every moment, and the
next pass finishes the work: a generation that is switched to stays `pending` until it is confirmed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scr_watchd.daemon import resolve
from scr_watchd.daemon.outcome import (
    Changes,
    Failed,
    Found,
    Outcome,
    Published,
    Rejected,
    Unchanged,
    Unconfirmed,
)
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import ANYBODY, Reader
from scr_watchd.images.scan import Scan, Scanner
from scr_watchd.oci.catalog import Catalog, Image, Problem
from scr_watchd.publish import nginx as programs
from scr_watchd.publish import state as records
from scr_watchd.publish.generations import Generations
from scr_watchd.publish.nginx import Nginx, NginxError
from scr_watchd.publish.reload import Proof, Reloading, reload
from scr_watchd.publish.state import Record, State
from scr_watchd.publish.store import Store
from scr_watchd.render.http_conf import Rendered, initial, render


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
    open_store: Callable[[], Store]
    """Chooses the store's place and opens it; called once there is a root to link from."""
    generations: Generations
    site: Site
    prefix: str
    list_repositories: bool
    progress: Callable[[], None]
    worker_user: Callable[[], Reader | None]
    """Asks who must be able to read what is served; ``None`` while nobody can tell."""
    published: Catalog = field(default_factory=Catalog)
    """What the current generation was rendered from."""
    served: Catalog = field(default_factory=Catalog)
    """What nginx was last known to answer from."""
    confirmed: bool = False
    """Whether nginx is known to answer from the current generation."""
    refused_by_site: bool = False
    included: bool = False
    """Whether the site was seen to include our files."""
    untested: str = ""
    """Why the site's configuration could not be tested, if it could not."""
    store: Store | None = None
    scan: Scan | None = None
    """The scan after which nothing was left to do."""
    found: Found = field(default_factory=Found)


def recall(world: World) -> str:
    """Take up what the last daemon left: its generation, confirmed or pending, else an initial one.

    Returns what was wrong with its notes, or an empty text. Raises ``OSError`` if the state
    directory cannot be used.
    """
    current = world.generations.current_id()
    if current is None:
        rendered = initial()
        world.generations.stage(rendered.id, rendered.files)
        world.generations.switch(rendered.id)
    damaged = ""
    try:
        published = records.read_published(world.state)
        pending = records.read_pending(world.state)
    except ValueError as error:
        published = pending = None
        damaged = f"what was noted in {world.state.path} is damaged, so that the tree alone decides: {error}"
    if published is not None:
        world.published = world.served = published.catalog
        world.confirmed = published.generation == current
    if pending is not None and pending.generation == current:
        world.published = pending.catalog
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
        where = f"{error.filename}: " if error.filename else ""
        return Failed(f"{where}{error.strerror or error}. What was published stays")


def _pass(world: World, *, full: bool) -> Outcome:
    _learn_reader(world)
    scan = world.scanner.full() if full else world.scanner.light()
    current = world.generations.current_id()
    store = world.store = world.store or world.open_store()
    if scan == world.scan and world.confirmed and current is not None and store.is_there():
        return Unchanged(world.found, current)

    world.scan = None
    images, changed_meanwhile = store.take(scan.images)
    pinned = resolve.pins(scan, images, world.published, stored=store.image, prefix=world.prefix)
    served = (*images, *pinned)
    catalog = resolve.catalog_of(served)
    world.found = _found(catalog, (*scan.problems, *changed_meanwhile), pinned)
    rendered = render(catalog, store=store.place.seen_as, list_repositories=world.list_repositories)
    done = scan if not changed_meanwhile and not pinned else None

    if rendered.id == current and world.confirmed:
        world.scan = done
        return Unchanged(world.found, rendered.id)
    rejected = _still_refused(world)
    if rejected is None and rendered.id != current:
        rejected = _switch(world, rendered, catalog, before=current)
    elif rejected is None:
        records.write_pending(world.state, Record(rendered.id, catalog))
    if rejected is not None:
        return rejected
    outcome = _reload(world, rendered.id, catalog, missing=_missing_include(world, rendered.id))
    if isinstance(outcome, Published):
        world.scan = done
        store.prune(served)
        world.generations.prune(keep=frozenset(filter(None, (current, rendered.id))))
    return outcome


def _learn_reader(world: World) -> None:
    if world.scanner.reader == ANYBODY:
        reader = world.worker_user()
        if reader is not None:
            world.scanner.reader = reader


def _found(catalog: Catalog, problems: tuple[Problem, ...], pinned: tuple[Image, ...]) -> Found:
    return Found(
        repositories=len(catalog.repositories),
        tags=sum(len(each.tags) for each in catalog.repositories),
        example=next(((each.name, tag) for each in catalog.repositories for tag in each.tags), None),
        problems=tuple(sorted(problems, key=lambda problem: problem.path)),
        pinned=resolve.references(pinned),
    )


def _switch(world: World, rendered: Rendered, catalog: Catalog, *, before: str | None) -> Rejected | None:
    """Make the rendered generation current, unless nginx refuses it; then the one before stays."""
    candidate = world.generations.stage(rendered.id, rendered.files)
    refusal = programs.check(
        world.site.nginx,
        candidate.path,
        scratch=world.state.path / "check",
        seconds=world.site.test_seconds,
        progress=world.progress,
    )
    if refusal is not None:
        return Rejected(world.found, "ours", refusal.words)
    records.write_pending(world.state, Record(rendered.id, catalog))
    world.generations.switch(rendered.id)
    words = _test_site(world)
    if not words:
        return None
    if before is not None:
        world.generations.switch(before)
        world.state.pending.unlink(missing_ok=True)
        without_us = _test_site(world)
        if not without_us:
            return Rejected(world.found, "ours", words)
        words = without_us
    world.refused_by_site = True
    return Rejected(world.found, "the site's", words)


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


def _reload(world: World, generation: str, catalog: Catalog, *, missing: str) -> Published | Unconfirmed:
    changes = Changes.between(world.served, catalog)
    world.published = catalog
    world.confirmed = False
    if missing:  # a reload would be for nothing, and would seem to succeed
        return Unconfirmed(world.found, generation, changes, missing)
    verdict = reload(world.site.reloading, generation, progress=world.progress)
    if verdict.proof in (Proof.ABSENT, Proof.MISSING):
        return Unconfirmed(world.found, generation, changes, verdict.reason)
    records.confirm_pending(world.state)
    world.confirmed = True
    world.served = catalog
    return Published(world.found, generation, changes, verdict.reason)
