"""What a daemon that has never seen a tree would serve of it, and how what is served differs from that.

Apart from that are what is pinned, held, or leaving: of these is asked that they were served before, and
have a reason to be there still.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from scr_watchd.daemon.outcome import Failed
from scr_watchd.images.sparse import Ripening
from scr_watchd.oci.catalog import Catalog, Reference, Repository
from scr_watchd.oci.names import Digest, RepositoryName
from scr_watchd.publish.nginx import check
from scr_watchd.render.http_conf import fragments_of
from scr_watchd.settings import Settings
from tests.histories.world import KilledError, World, elsewhere, is_hidden, program
from tests.passes import Passes
from tests.trees import digest_of


class Fresh:
    """What such a daemon makes of the tree in its first look; it leaves no trace there."""

    def __init__(self, root: Path, scratch: Path, *, verify: Literal["new", "size"] = "new") -> None:
        """``scratch`` is a directory on another disk."""
        with TemporaryDirectory(prefix="fresh", dir=scratch) as name:
            settings = Settings(root=root, state=Path(name) / "state", store=f"{name}/store", verify=verify)
            passes = Passes(settings, _stop_before_nginx, program(0, is_asked=False))
            passes.mirror.ripe.ripening = Ripening(quiet_seconds=0, losing_seconds=0)
            open_store = passes.mirror.host.open_store
            passes.mirror.host.open_store = lambda _: open_store(False)  # noqa: FBT003 - nothing is believed
            self.failure: Failed | None = None
            try:
                outcome = passes.look()
                self.failure = outcome if isinstance(outcome, Failed) else None
            except KilledError:
                pass
            finally:
                passes.close()
        self.tree = passes.mirror._tree
        self.catalog = passes.mirror.entries.catalog(Catalog())


def _stop_before_nginx(step: str) -> None:
    if step == "stage":
        raise KilledError(step)


def differences(world: World) -> list[str]:
    """Once all is quiet: how what is served differs from what a fresh daemon would serve."""
    before = world.catalog.tags()
    outcome = world.quiet()
    new = Fresh(world.root, elsewhere(world), verify=world.begin.verify)
    if new.failure is not None or new.tree is None:  # the root is away: all stays
        return _of("what was served", before, world.catalog.tags())
    found = world.passes.mirror.found
    staying = {*found.pinned, *found.held}
    wrong = _of("problems", new.tree.problems, world.tree.problems)
    expected = {each.name: each for each in new.catalog.repositories}
    served = {each.name: each for each in world.catalog.repositories}
    for name in sorted({*expected, *served}):
        empty = Repository(name, {}, {})
        wrong += _of_repository(world, expected.get(name, empty), served.get(name, empty), staying)
    wrong += _unjustified(world, new, staying)
    wrong += _of_files(world)
    return [f"{each} ({outcome})" for each in wrong]


def _of(what: str, expected: object, served: object) -> list[str]:
    return [] if served == expected else [f"{what}: {served}, not {expected}"]


def _of_repository(
    world: World, expected: Repository, served: Repository, staying: set[Reference]
) -> list[str]:
    name = served.name
    pins = {tag: digest for tag, digest in served.tags.items() if (name, tag) in staying}
    kept = {each for digest in pins.values() for each in _closure(world, name, digest)}
    wrong = _of(f"tags of {name}", {**pins, **expected.tags}, dict(served.tags))
    wrong += [f"{name}:{tag} stays, and never was" for tag, d in pins.items() if (name, d) not in world.ever]
    for what, new, old in (
        ("manifests", expected.manifests, served.manifests),
        ("referrers", expected.referrers, served.referrers),
    ):
        apart = {digest: each for digest, each in old.items() if digest in new or digest not in kept}
        wrong += _of(f"{what} of {name}", dict(new), apart)
    if served.leaving and not world.begin.grace_seconds:
        wrong.append(f"{name} has no grace, and {list(served.leaving)} are leaving")
    wrong += [
        f"{name}@{each} leaves, and never was" for each in served.leaving if (name, each) not in world.ever
    ]
    return wrong


def _unjustified(world: World, new: Fresh, staying: set[Reference]) -> Iterator[str]:
    """Tags that are pinned, and are not there in any way."""
    assert new.tree is not None
    held = world.passes.mirror.found.held
    for name, tag in staying.difference(held):
        found = new.tree.of(name)
        if (
            not is_hidden(new.tree, name, tag)
            and tag not in found.unfinished
            and all(each.tag != tag for each in found.images)
        ):
            yield f"{name}:{tag} is pinned without a reason"
    if held and not world.begin.hold_seconds:
        yield f"{held} are held"


# -- files ---------------------------------------------------------------------------------------------


def _of_files(world: World) -> Iterator[str]:
    """What is rendered is what the catalog renders to, nginx takes it, and all that it names is there."""
    mirror = world.passes.mirror
    store = mirror.store
    assert store is not None
    rendered = mirror.render(
        world.catalog,
        store=store.place.seen_as,
        follow_links=not mirror.host.has_root_workers,
        fragments=fragments_of(world.catalog),
    )
    generations = mirror.publisher.generations
    if generations.current_id() != rendered.id or generations.read(rendered.id) != rendered.files:
        yield f"the generation is {generations.current_id()}, not {rendered.id}"
    elif not world.begin.is_checked:
        refusal = check(
            program(0, is_asked=True),
            generations.directory / rendered.id,
            scratch=world.directory / "check",
            seconds=30,
            progress=lambda: None,
        )
        if refusal is not None:
            yield refusal.words
    if world.begin.verify == "size":
        return
    for repository in world.catalog.repositories:
        pulled = repository.manifests if world.is_damaged else repository.pullable
        staying = {tag for name, tag in mirror.found.pinned if name == repository.name}
        if not (world.is_damaged and staying):
            for digest in pulled:
                yield from _untrue(world, repository.name, digest)


def _closure(world: World, name: RepositoryName, digest: Digest) -> set[Digest]:
    """A manifest of the store with all that it names and the store has."""
    raw = _manifest(world, name, digest)
    children = json.loads(raw).get("manifests", ()) if raw else ()
    named = (Digest.parse(each["digest"]) for each in children)
    return {digest, *(below for each in named for below in _closure(world, name, each))}


def _manifest(world: World, name: RepositoryName, digest: Digest) -> bytes:
    place = _place(world, name) / ".manifests"
    return next((path.read_bytes() for path in place.glob(f"*/{digest.hex}")), b"")


def _untrue(world: World, name: RepositoryName, digest: Digest) -> Iterator[str]:
    raw = _manifest(world, name, digest)
    if digest_of(raw) != digest:
        yield f"{name}@{digest} is {raw!r}"
        return
    document: Mapping[str, list[dict[str, str]]] = json.loads(raw)
    for blob in (*([document["config"]] if "config" in document else []), *document.get("layers", ())):
        path = _place(world, name) / ".blobs" / "sha256" / blob["digest"][7:]
        if not path.is_file() or digest_of(path.read_bytes()) != blob["digest"]:
            yield f"{name}@{digest} has not got its blob {path}"
        elif not path.stat().st_mode & 0o004:
            yield f"{path} may not be read"


def _place(world: World, name: RepositoryName) -> Path:
    store = world.passes.mirror.store
    assert store is not None
    return store.place.path / name
