"""One pass: look at the tree and make nginx serve it. What is the same costs nothing.

look -> link -> resolve -> render -> publish -> prune
"""

import errno
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from scr_watchd.daemon.entry import Entries, Entry
from scr_watchd.daemon.guard import Guard, is_another
from scr_watchd.daemon.metrics import Tally
from scr_watchd.daemon.outcome import Failed, Found, Outcome, Unchanged
from scr_watchd.daemon.resolve import Holding, Offer, Policy, Resolved, Served, resolve
from scr_watchd.daemon.tidy import grace, tidy
from scr_watchd.daemon.unripe import Ripe, renamed
from scr_watchd.errors import ScrWatchdError, cure
from scr_watchd.files import FileId, Reader
from scr_watchd.images.places import ALL, EVERYWHERE
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Renames, Tree
from scr_watchd.oci.catalog import Catalog, Image, Problem, told
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish import page as pages
from scr_watchd.publish.copying import told as told_unlinked
from scr_watchd.publish.nginx import NginxError
from scr_watchd.publish.outcome import Deferred, Published, Rejected, Unconfirmed
from scr_watchd.publish.publisher import Publisher
from scr_watchd.publish.records import Record
from scr_watchd.publish.state import REQUESTS, Request, answered, requested
from scr_watchd.publish.store import Store
from scr_watchd.render.http_conf import Fragment, Rendered, is_whole
from scr_watchd.words import printable

_PRUNE_SECONDS = 60.0  # `prune` without --now spares the pulls that are under way


class Render(Protocol):
    def __call__(
        self, catalog: Catalog, *, store: str, follow_links: bool, fragments: list[Fragment]
    ) -> Rendered: ...


@dataclass(slots=True)
class Host:
    """What a pass asks the machine for.

    ``open_store`` chooses the store's place and opens it, trusting what the tree has already or not; it is
    called once there is a root to link from. ``worker_user`` tells who must be able to read what is served,
    ``None`` while nobody can tell, and ``keep_lock`` makes sure that the state directory is still ours
    alone. Workers of nginx that run as root could read whatever a link leads to.
    """

    open_store: Callable[[bool], Store]
    worker_user: Callable[[], Reader | None]
    keep_lock: Callable[[], None] = lambda: None
    is_reader_known: bool = False
    has_root_workers: bool = False


@dataclass(slots=True)
class Mirror:
    """Keeps nginx in step with one tree. ``render`` knows what is the same for all generations."""

    scanner: Scanner
    publisher: Publisher
    host: Host
    render: Render
    policy: Policy
    page: tuple[str, bytes] | None = None
    """What a page for people is called, and its content, if there is to be one."""
    tally: Tally = field(default_factory=Tally)
    store: Store | None = None
    found: Found = field(default_factory=Found)
    entries: Entries = field(default_factory=Entries)
    ripe: Ripe = field(default_factory=Ripe)
    _guard: Guard = field(default_factory=Guard)
    _tree: Tree | None = None
    _until: float = 0.0
    """When (seconds since 1970) what was resolved changes by itself."""
    _told: Tree | None = None
    """What ``found`` tells of."""
    look_seconds: float = 0.0
    """What the last look at the tree cost, without the rest of its pass."""
    _hashed: dict[str, set[str]] = field(default_factory=dict)
    """What was hashed since it was last looked at: images by repository."""
    _is_untidy: bool = False
    """Whether something could not be removed."""
    _rendered: tuple[str, str, bool] | None = None
    """The generation that the entries render to, the store in it, and whether it follows links."""

    def recall(self) -> str:
        """Take up what the last daemon left. Returns what was wrong with that, or an empty text. Raises
        ``OSError`` if the state directory cannot be used."""
        damaged = self.publisher.recall(is_whole)
        published = self.publisher.current.catalog.repositories
        self.entries = Entries({each.name: Entry(served=Served(each)) for each in published})
        return damaged

    @property
    def is_in_flux(self) -> bool:
        """Whether the next look may find something else with nothing having happened in between: an image
        that changes, or one that is served from symbolic links into a directory that is being emptied."""
        is_hard = self.store is not None and self.store.place.hard_links
        return bool(self.entries.problems or (self.found.pinned and not is_hard))

    def run_pass(self, *, full: bool, hints: Mapping[str, bool] = ALL) -> Outcome:
        """Make one pass, with a full or a light look at the tree, or at what ``hints`` name of it. What it
        saw is ``found``."""
        try:
            try:
                return self._pass(hints, full=full)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT) and self._make_room():
                    return self._pass(hints, full=full)
                raise
        except NginxError as error:
            return Failed(str(error))
        except ScrWatchdError as error:
            return Failed(f"{error.message}: {error.hint}")
        except OSError as error:
            where = error.filename or self.publisher.state.path  # a full disk is told of without a name
            remedy = cure(error, "Look at its owner and mode")
            if error.filename in (self.scanner.root, str(self.scanner.root)):
                where = f"the images directory {where} cannot be read"
                remedy = cure(error, "Mount or create the directory, and it is looked at again")
            return Failed(f"{where}: {error.strerror or error}. What was published stays. {remedy}")
        finally:
            if self.store is not None:
                self.store.prover.hash_the_rest()

    def _pass(self, hints: Mapping[str, bool], *, full: bool) -> Outcome:
        self.host.keep_lock()
        self._learn_reader()
        began = time.time()
        with self._guard.watching(self.scanner.root):
            seen = self._look(hints, full=full)
        store = self._store_of(seen.root)
        published = self.publisher.current.catalog
        tree = self._tree = self.ripe.without_unripe(seen, published, store.image)
        if self.page and not is_another(tree.root, self.publisher.current.root):  # else its disk may be away
            pages.keep(store.place.path, *self.page)
        current = self.publisher.ensure_current()
        self.publisher.look_for_another()
        if store.prover.has_lost_its_clock():
            self.entries.forget()
        for name, images in store.prover.begin().items():
            self._hashed.setdefault(name, set()).update(images)
        repositories = self.publisher.current.catalog.repositories
        dirty = self.entries.dirty(tree, repositories, self._hashed, is_close=EVERYWHERE in hints)
        form = current, store.place.seen_as, not self.host.has_root_workers
        asked = self._asked()
        if not self.publisher.generations.is_intact(current):
            self._rendered = None
        outcome: Outcome
        is_same = tree is self._told and not self._guard.has_moved and self._rendered == form
        if is_same and not dirty and not asked and not self._is_untidy and self._keeps(store):
            is_confirmed, record = self.publisher.is_confirmed, self.publisher.current
            outcome = Unchanged(current) if is_confirmed else self.publisher.publish(record, None)
        else:
            lost = {name for name, _ in self.publisher.current.lost.gone if name in self.entries}
            outcome = self._make_so(tree, store, {*dirty, *self.entries.staying, *lost}, form, asked)
        if not isinstance(outcome, Rejected | Deferred):
            self._guard.has_moved = False
        unseen = (image for each in self.entries.values() for image in each.served.only_stored)
        store.prover.end(began=began if full else None, unseen=store.unseen(unseen))
        return outcome

    def _make_so(
        self,
        tree: Tree,
        store: Store,
        dirty: Collection[RepositoryName],
        form: tuple[str, str, bool],
        asked: dict[Request, str],
    ) -> Outcome:
        publisher, (current, seen_as, follow_links) = self.publisher, form
        publisher.reached("scan")
        linked = self.entries.link(dirty, tree, store, self.scanner.reader, self._hashed)
        self._hashed = {}
        publisher.reached("store")
        images = {name: self.entries[name].linked.images for name in linked}
        resolved = self._resolve(tree, store, images, self._policy(store, asked))
        self._guard.hold(resolved.held_since)
        self._until = resolved.until
        for name, served in resolved.served.items():
            self.entries[name].served = served
        catalog = self.entries.catalog(publisher.current.catalog)
        self.found, self._told = self._found(tree, store, catalog, resolved), tree
        generation, files = current, None
        if catalog is not publisher.current.catalog or self._rendered != form:
            fragments = self.entries.fragments(catalog)
            rendered = self.render(catalog, store=seen_as, follow_links=follow_links, fragments=fragments)
            generation = rendered.id
            if generation != current or not publisher.generations.is_intact(current):
                files = rendered.files
            self._rendered = generation, seen_as, follow_links
        record = self._record(generation, catalog, resolved, tree.root)
        if generation == current and publisher.is_confirmed:
            publisher.note(record)
            outcome: Outcome = Unchanged(current)
        else:
            outcome = publisher.publish(record, files)
            self.found = replace(self.found, advice=publisher.site.untested)
        if not isinstance(outcome, Rejected | Deferred):
            for what, text in asked.items():
                if requested(publisher.state, what) == text:  # else it came later
                    answered(publisher.state, what)
        self._tidy(store, linked, resolved, outcome, before=current)
        if isinstance(outcome, Published | Unconfirmed):
            publisher.reached("prune")
        return outcome

    def _keeps(self, store: Store) -> bool:
        """Whether what stays for a while may stay as it is: its time is not over, and the store has it."""
        staying = (self.entries[name].served.only_stored for name in self.entries.staying)
        return time.time() < self._until and all(store.has(image) for some in staying for image in some)

    # -- what there is -------------------------------------------------------------------------------

    def _look(self, hints: Mapping[str, bool], *, full: bool) -> Tree:
        scan, began = self.scanner, time.thread_time()
        is_everywhere = EVERYWHERE in hints
        tally = self.tally
        with (
            tally.full_scan if full else tally.light_scan if is_everywhere else tally.place_scan
        ).measured():
            tree = (scan.full() if full else scan.light()) if hints == ALL else scan.at(hints, full=full)
        self.look_seconds = time.thread_time() - began
        return tree

    def _learn_reader(self) -> None:
        if not self.host.is_reader_known:
            reader = self.host.worker_user()
            if reader is not None:
                if reader != self.scanner.reader:
                    self.entries.forget()
                self.scanner.reader = reader
                self.host.is_reader_known = True

    def _store_of(self, root: FileId) -> Store:
        """The store, opened again for another root: where links can be made may be elsewhere then. Not for
        one that may only be the mount point of a disk that is away."""
        is_known = not is_another(root, self.publisher.current.root)
        if self.store is None or (is_known and self.store.root_id != root):
            self.store = self.host.open_store(self.publisher.is_new)
            self.store.root_id = root
            self.entries.forget()
        elif self.store.place.may_pass and (again := self.host.open_store(False)).place.hard_links:  # noqa: FBT003
            self.store, again.root_id = again, root
            self.entries.forget()
        return self.store

    def _asked(self) -> dict[Request, str]:
        found = {what: requested(self.publisher.state, what) for what in REQUESTS}
        return {what: text for what, text in found.items() if text is not None}

    # -- what to serve -------------------------------------------------------------------------------

    def _policy(self, store: Store, asked: dict[Request, str]) -> Policy:
        now, pruned = time.time(), asked.get("prune")
        return replace(
            self.policy,
            grace_seconds=grace(self.policy.grace_seconds, store),
            pruned=float("-inf") if pruned is None else now if pruned == "now" else now - _PRUNE_SECONDS,
            accepted="accept" in asked,
        )

    def _resolve(
        self,
        tree: Tree,
        store: Store,
        images: Mapping[RepositoryName, tuple[Image, ...]],
        policy: Policy,
    ) -> Resolved:
        """What to serve of the repositories of which these ``images`` are in the store."""
        before = self.publisher.current
        published = {each.name: each for each in before.catalog.repositories}
        leaving: dict[RepositoryName, dict[Digest, float]] = {}
        for (name, digest), since in before.leaving.items():
            leaving.setdefault(name, {})[digest] = since
        holding = Holding(
            tags=sum(len(each.tags) for each in before.catalog.repositories),
            moved=self._guard.has_moved or is_another(tree.root, before.root),
            since=before.held_since,
            held_for=self._guard.held_for,
            lost=before.lost,
        )
        offers = {
            name: Offer(tree.of(name), some, published.get(name), leaving.get(name, {}))
            for name, some in images.items()
        }

        def stored(name: RepositoryName, tag: Tag | None, digest: Digest) -> Image | None:
            for known in self.entries[name].served.only_stored if name in self.entries else ():
                if (known.tag, known.digest) == (tag, digest) and store.has(known):
                    return known
            return store.image(name, tag, digest)

        return resolve(
            offers,
            holding,
            hidden=tree.hidden,
            is_renamed=Renames(tree),
            stored=stored,
            policy=policy,
            now=time.time(),
        )

    def _record(self, generation: str, catalog: Catalog, resolved: Resolved, root: FileId) -> Record:
        before = self.publisher.current.root
        if resolved.held_since is not None and before != (0, 0):
            root = before  # it is not the one that we know, until somebody says so
        leaving = {
            (name, digest): since
            for name, served in resolved.served.items()
            for digest, since in served.leaving.items()
        }
        return Record(generation, catalog, leaving, resolved.held_since, root, resolved.lost)

    def _found(self, tree: Tree, store: Store, catalog: Catalog, resolved: Resolved) -> Found:
        listed = [each for each in catalog.repositories if each.listed]
        unlinked = self.entries.unlinked
        tags = catalog.tags() if resolved.held else {}
        return Found(
            repositories=len(listed),
            tags=sum(len(each.tags) for each in listed),
            example=next(((each.name, tag) for each in listed for tag in each.tags), None),
            problems=told((*tree.problems, *self.entries.problems)),
            pinned=resolved.pinned,
            held={each: tags[each] for each in resolved.held},
            held_since=resolved.held_since,
            waiting=self.entries.waiting,
            leaving=sum(len(each.leaving) for each in resolved.served.values()),
            only_stored_bytes=store.only_here(
                (image for each in resolved.served.values() for image in each.only_stored), unlinked
            ),
            sparse={
                (image.repository, image.tag): image.some_platforms
                for entry in self.entries.values()
                for image in entry.served.images
                if image.absent and image.tag is not None
            },
            unripe=tree.unripe,
            renamed=renamed(tree, self.publisher.current.catalog, catalog, self.entries),
            copied_bytes=sum(each.size for each in unlinked.values()),
            unlinked=told_unlinked(unlinked.values()),
        )

    def _tidy(
        self,
        store: Store,
        names: Iterable[RepositoryName],
        resolved: Resolved,
        outcome: Outcome,
        *,
        before: str,
    ) -> None:
        """Remove what nothing needs any more. That it fails does not undo what was published.

        What is held may lie in a store that is away with its disk: of those repositories nothing goes.
        """
        was_untidy, self._is_untidy = self._is_untidy, True
        try:
            held = {name for name, _ in resolved.held}
            tidy(store, self.entries, self._records, names, spare=held, progress=self.scanner.progress)
            if isinstance(outcome, Published | Unchanged):
                store.prune_former()
            if was_untidy or isinstance(outcome, Published | Unconfirmed):
                self.publisher.tidy(before=before)
                pages.prune(store.place.path, self.publisher.generations.directory)
            self._is_untidy = False
        except OSError as error:
            path = str(error.filename or store.place.path)
            reason = f"it cannot be tidied: {error.strerror}"
            problem = Problem(printable(path), reason, cure(error, "Look at its owner and mode"))
            self.found = replace(self.found, problems=(*self.found.problems, problem))

    def _make_room(self) -> bool:
        """Whether the store could be rid of what is only there for a while: on a full disk that must not
        wait for a generation without it, which needs room itself."""
        store, tree = self.store, self._tree
        if store is None or tree is None:
            return False
        images = {name: tree.of(name).images for name in {*self.entries, *tree.repositories}}
        resolved = self._resolve(tree, store, images, replace(self.policy, grace_seconds=0))
        if resolved.held_since is not None:
            return False
        without = Entries(
            {
                name: Entry(linked=self.entries.get(name, Entry()).linked, served=served)
                for name, served in resolved.served.items()
            }
        )
        return tidy(store, without, self._records, without, progress=self.scanner.progress) > 0

    @property
    def _records(self) -> tuple[Record, Record]:
        """What nginx may answer from."""
        return self.publisher.confirmed, self.publisher.current
