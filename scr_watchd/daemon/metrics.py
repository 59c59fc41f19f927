"""STATE/metrics.prom: the status and what this process has done, in the Prometheus text format.

No label depends on the tree: a registry of 100,000 tags has as many series as an empty one.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scr_watchd.daemon import status as statuses
from scr_watchd.daemon.status import Status
from scr_watchd.files import swap_in

_OUTCOMES = ("published", "unchanged", "waiting", "unconfirmed", "rejected", "failed")
_WATCH_MODES = ("events", "poll", "both")


@dataclass(slots=True)
class Duration:
    """How many seconds something took: the last time, and all times together."""

    last: float | None = None
    total: float = 0.0
    count: int = 0

    def took(self, seconds: float) -> None:
        self.last = seconds
        self.total += seconds
        self.count += 1

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Counts the time of the block; not if it raises."""
        began = time.monotonic()
        yield
        self.took(time.monotonic() - began)


@dataclass(slots=True)
class Tally:
    """What this process has done since it ``began`` (seconds since 1970)."""

    began: float = field(default_factory=time.time)
    passes: Counter[str] = field(default_factory=Counter)
    """By the outcome that they had."""
    light_scan: Duration = field(default_factory=Duration)
    full_scan: Duration = field(default_factory=Duration)
    place_scan: Duration = field(default_factory=Duration)
    reload: Duration = field(default_factory=Duration)
    """From telling nginx until the proof, or until it was waited for in vain."""


# -- the format (https://prometheus.io/docs/instrumenting/exposition_formats/) -------------------------

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    value: float
    labels: Labels = ()
    suffix: Literal["", "_sum", "_count"] = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with all its samples; one without samples is only described."""

    name: str
    kind: Literal["gauge", "counter", "summary"]
    about: str
    samples: tuple[Sample, ...]

    def __str__(self) -> str:
        about = self.about.replace("\\", "\\\\").replace("\n", "\\n")
        lines = [f"# HELP {self.name} {about}", f"# TYPE {self.name} {self.kind}"]
        lines += [f"{self.name}{each.suffix}{_labels(each.labels)} {each.value}" for each in self.samples]
        return "".join(f"{line}\n" for line in lines)


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# -- what is measured ----------------------------------------------------------------------------------


def write(path: Path, status: Status, tally: Tally, *, clock: float) -> None:
    """Replace the metrics. What cannot be written does not leave an old success behind. Not synced:
    after a power cut the next pass writes it anyway."""
    text = "".join(map(str, families(status, tally, clock=clock)))
    statuses.put(path, text.encode(), swap_in)


def families(status: Status, tally: Tally, *, clock: float) -> Iterator[Family]:
    """Everything we tell; ``clock`` is when the last pass ended (seconds since 1970)."""
    yield _gauge("build_info", "The version of scr-watchd.", Sample(1, (("version", status.version),)))
    yield _gauge("start_time_seconds", "When the daemon started.", Sample(tally.began))
    yield _gauge("last_pass_timestamp_seconds", "When the last look at the tree ended.", Sample(clock))
    yield _gauge(
        "last_pass_outcome",
        "How it ended: 1 for the one that it was.",
        *_one_of("outcome", _OUTCOMES, status.outcome),
    )
    passes = (Sample(tally.passes[each], (("outcome", each),)) for each in _OUTCOMES)
    yield Family("scr_watchd_passes_total", "counter", "Looks at the tree, by how they ended.", tuple(passes))
    yield from _generation(status)
    yield from _tree(status)
    yield _gauge(
        "watch_mode",
        "What tells of changes: file events, looking every few seconds, or both.",
        *_one_of("mode", _WATCH_MODES, status.watch_mode),
    )
    scans = {"light": tally.light_scan, "full": tally.full_scan, "place": tally.place_scan}
    yield from _durations(
        "scan", "Reading the tree", {(("depth", name),): each for name, each in scans.items()}
    )
    yield from _durations(
        "reload", "Telling nginx, until the proof or the end of waiting", {(): tally.reload}
    )


def _generation(status: Status) -> Iterator[Family]:
    known = [Sample(1, (("generation", status.generation),))] if status.generation else []
    yield _gauge("generation_info", "The generation that nginx includes.", *known)
    yield _gauge(
        "generation_confirmed", "Whether nginx is known to answer from it.", Sample(int(status.confirmed))
    )
    known_up = [] if status.nginx.up is None else [Sample(int(status.nginx.up))]
    yield _gauge("nginx_up", "Whether nginx runs; nothing where that cannot be seen.", *known_up)
    at = status.confirmed_at
    yield _gauge(
        "last_reload_timestamp_seconds",
        "When a reload of nginx was last confirmed.",
        *([] if at is None else [Sample(at)]),
    )


def _tree(status: Status) -> Iterator[Family]:
    images = {
        "current": status.images - len(status.pinned) - len(status.held),
        "pinned": len(status.pinned),
        "held": len(status.held),
        "waiting": status.waiting,
    }
    yield _gauge("repositories", "Repositories that are served.", Sample(status.repositories))
    yield _gauge(
        "images",
        "Tags: served as they are in the tree, served as they were while their directory is incomplete, "
        "served though most of the tree vanished, and not yet served because their bytes are being checked.",
        *(Sample(number, (("state", state),)) for state, number in images.items()),
    )
    yield _gauge("problems", "What is in the tree and not served.", Sample(len(status.problems)))
    yield _gauge(
        "leaving_manifests", "Replaced or removed, and still there by digest.", Sample(status.leaving)
    )
    yield _gauge("store_only_bytes", "Bytes that only the store holds.", Sample(status.only_stored_bytes))
    yield _gauge(
        "store_copied_bytes",
        "Bytes that the store has copies of, because no hard links can be made.",
        Sample(status.copied_bytes),
    )


def _gauge(name: str, about: str, *samples: Sample) -> Family:
    return Family(f"scr_watchd_{name}", "gauge", about, samples)


def _one_of(label: str, possible: tuple[str, ...], actual: str) -> Iterator[Sample]:
    return (Sample(int(each == actual), ((label, each),)) for each in possible)


def _durations(name: str, about: str, durations: dict[Labels, Duration]) -> Iterator[Family]:
    total = [Sample(each.total, labels, "_sum") for labels, each in durations.items()]
    count = [Sample(each.count, labels, "_count") for labels, each in durations.items()]
    yield Family(f"scr_watchd_{name}_duration_seconds", "summary", f"{about}.", (*total, *count))
    last = (Sample(each.last, labels) for labels, each in durations.items() if each.last is not None)
    yield _gauge(f"last_{name}_duration_seconds", f"{about}, the last time.", *last)
