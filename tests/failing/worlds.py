"""A daemon and its directories, and what must be so whatever fails: judged from the files alone."""

import json
import logging
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from scr_watchd.commands.judging import Judge
from scr_watchd.daemon.outcome import Outcome
from scr_watchd.daemon.timetable import Look
from scr_watchd.images.places import ALL
from scr_watchd.images.sparse import Ripening
from scr_watchd.publish import nginx as programs
from scr_watchd.publish.nginx import Nginx, Refusal, check, inspect
from scr_watchd.publish.state import Lock, State
from scr_watchd.settings import Settings
from tests.nginxes import require
from tests.passes import Passes
from tests.waiting import until

_NGINX = inspect(require("nginx"))
_accepted: set[tuple[str, ...]] = set()
"""The texts of generations that nginx was asked about, and that it accepts."""


def accepts(generation: Path) -> str:
    """What nginx has against a generation; each text is asked for once."""
    texts = tuple(path.read_text() for path in sorted(generation.iterdir()))
    if len(texts) != 3:
        return "it has not three files"
    if texts not in _accepted:
        scratch = generation.parents[2] / "check"
        refusal = check(_NGINX, generation, scratch=scratch, seconds=30, progress=lambda: None)
        if refusal is not None:
            return refusal.words
        _accepted.add(texts)
    return ""


_ask = programs.check


@contextmanager
def asking() -> Iterator[None]:
    """Have the passes of this block ask nginx themselves: before and after it nobody need ask twice what it
    says of the same text in the same place."""
    programs.check = _ask
    yield
    programs.check = _ask_once


def _ask_once(nginx: Nginx, generation: Path, **_: object) -> Refusal | None:
    words = accepts(generation)
    return Refusal(words) if words else None


programs.check = _ask_once


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.events: set[tuple[str, ...]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        event = getattr(record, "event", None)
        if event is not None and event.action in ("published", "replaced", "removed"):
            self.events.add((event.action, event.repository, event.tag, event.digest or ""))


@dataclass
class World(Passes):
    """Passes as a daemon makes them, with all that it asks and tells, and nothing but its signals and its
    threads left out."""

    said: _Said = field(default_factory=_Said)
    outcome: Outcome | None = None
    """How the pass ended that is looked at."""
    _lock: Lock | None = None

    def start(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        super().start()
        self.mirror.ripe.ripening = Ripening(quiet_seconds=0, losing_seconds=3600)
        state = State(self.settings.state)
        self._lock = lock = Lock(state)
        Judge(self.settings.root, state, ()).watch_over(self.keeper, keep_lock=lambda: lock.keep())
        log = logging.getLogger("scr_watchd")
        log.handlers, log.propagate = [self.said], False
        log.setLevel(logging.INFO)

    def look(self, *, full: bool = True, hints: Collection[str] | None = None) -> Outcome:
        outcome = self.keeper.look(Look(ALL if hints is None else dict.fromkeys(hints, True), full=full))
        self.keeper.reporter.report(outcome, self.mirror.found)
        self.keeper.see_nginx()
        return outcome

    def end(self) -> None:
        self.rest()
        for descriptor in self._lasting.locks.values():
            os.close(descriptor)
        if self._lock is not None:
            self._lock.release()

    @property
    def is_waiting(self) -> bool:
        store = self.mirror.store
        return bool(self.mirror.found.waiting) or (store is not None and not store.prover.hasher.is_idle)

    def rest(self) -> None:
        """Wait until nothing is hashed any more."""
        until(lambda: not any(each.name == "hasher" for each in threading.enumerate()))

    def settle(self) -> None:
        """Look until nothing waits to be hashed."""
        deadline = time.monotonic() + 10
        while self.is_waiting:
            assert time.monotonic() < deadline
            time.sleep(0.001)
            self.look()


def made(directory: Path, settings: Mapping[str, Any]) -> World:
    (directory / "images").mkdir(parents=True)
    return World(
        Settings(
            root=directory / "images",
            state=directory / "state",
            watch="poll",
            log_format="json",
            **settings,
        )
    )


# -- what must be so -------------------------------------------------------------------------------------


def wrong(world: World, *, tags: set[str]) -> Iterator[str]:
    """What is wrong with what nginx reads and may read. ``tags`` were served before, and are to be."""
    state = world.settings.state
    current = state / "nginx" / "current"
    if not current.is_symlink():
        yield "there is no current generation"
        return
    generation = current.resolve()
    if refusal := accepts(generation):
        yield f"nginx refuses {generation.name}: {refusal}"
    records = {}
    for name in ("published.json", "pending"):
        if (state / name).exists():
            record = json.loads((state / name).read_bytes())
            if name == "published.json" or record["generation"] == generation.name:
                records[record["generation"]] = record
    if generation.name not in records and not generation.name.startswith("initial"):
        yield f"{generation.name} is current, and nothing is noted of it"
    served = {f"{name}:{tag}" for name, tag, _ in _tags(records.get(generation.name, {"repositories": {}}))}
    if not tags <= served:
        yield f"no longer served: {', '.join(sorted(tags - served))}"
    for record in records.values():
        for name, tag, digest in _tags(record):
            for lost in _lost(state / "store" / name, digest):
                yield f"{name}:{tag} has no {lost}"


def _tags(record: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, repository in record["repositories"].items():
        for tag, digest in repository["tags"].items():
            yield name, tag, digest


def _lost(repository: Path, digest: str) -> Iterator[str]:
    """What is missing of a manifest in the store, all that is below it included."""
    raw = _content(repository.glob(f".manifests/?/{digest[7:]}"), digest)
    if raw is None:
        yield digest
        return
    manifest = json.loads(raw)
    for blob in (*manifest.get("layers", ()), *([manifest["config"]] if "config" in manifest else ())):
        if _content(repository.glob(f".blobs/sha256/{blob['digest'][7:]}"), blob["digest"]) is None:
            yield blob["digest"]
    for child in manifest.get("manifests", ()):
        if any(repository.glob(f".manifests/?/{child['digest'][7:]}")):  # else it was never there
            yield from _lost(repository, child["digest"])


def _content(paths: Iterator[Path], digest: str) -> bytes | None:
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if f"sha256:{sha256(content).hexdigest()}" == digest:
            return content
    return None


# -- what is to be compared ------------------------------------------------------------------------------

# times, what depends on how many passes it took (lost), and which file stands for many others (unlinked)
_FLEETING = {
    "confirmed_at", "changed_at", "held_since", "since", "lost", "outcome", "pid", "message", "nginx",
    "root_inode", "root_device", "only_stored_bytes", "unlinked",
}  # fmt: skip


def picture(world: World) -> dict[str, object]:
    """All that lies in the state directory, but for times and what is made anew in each pass."""
    state = world.settings.state
    found: dict[str, object] = {}
    for directory, names, files in os.walk(state):
        here = Path(directory)
        if here == state:
            names[:] = [each for each in names if each != "check"]
        for name in (*files, *(each for each in names if (here / each).is_symlink())):
            path = here / name
            key = str(path.relative_to(state))
            if path.is_symlink():
                found[key] = str(path.readlink())
            elif name in ("status.json", "published.json"):
                found[key] = _without_times(json.loads(path.read_bytes()))
            elif name not in ("lock", ".lock", ".proven", "metrics.prom", "readers.json"):
                linked = path.stat().st_nlink > 1
                found[key] = (sha256(path.read_bytes()).hexdigest(), linked, path.stat().st_mode)
        if here.name == "generations":  # the one before may be another
            current = (state / "nginx" / "current").readlink().name
            names[:] = [each for each in names if each == current or each.startswith(".")]
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: sorted(each) if key == "leaving" and isinstance(each, dict) else _without_times(each)
            for key, each in value.items()
            if key not in _FLEETING
        }
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def differences(found: dict[str, object], wanted: dict[str, object]) -> Iterator[str]:
    for key in sorted(found.keys() | wanted.keys()):
        here, there = found.get(key, "nothing"), wanted.get(key, "nothing")
        if isinstance(here, dict) and isinstance(there, dict):
            yield from (f"{key}: {each}" for each in differences(here, there))
        elif here != there:
            yield f"{key}: {here} instead of {there}"


def descriptors() -> dict[str, str]:
    """What is open; a descriptor of the listing itself is not."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found
