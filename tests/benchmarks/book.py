"""The figures: what each is, how it was measured, and what it is to be."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from tests.benchmarks.measure import Sample

ORIGINAL = "one location for each tag and digest"
REGISTRY = "docker-registry 2.8"
LOOP = "inotifywait loop"
BESIDE = "the other checkout"


@dataclass(frozen=True)
class Kind:
    """What a figure is. ``rival`` is whose line is beside ours; empty if nobody does the same."""

    title: str
    unit: str
    rival: str = ""
    better: Literal["less", "more"] = "less"


KINDS = {
    "parse-cpu": Kind("`nginx -t`, CPU", "s", ORIGINAL),
    "parse-memory": Kind("nginx's master after reading it, peak memory (VmHWM)", "MB", ORIGINAL),
    "worker-memory": Kind("nginx's only worker, its own memory (RssAnon)", "MB", ORIGINAL),
    "small-blob": Kind("small blob of the last tag, requests a CPU second", "/s", ORIGINAL, "more"),
    "small-blob-wall": Kind("small blob of the last tag, requests a second", "/s", ORIGINAL, "more"),
    "manifest": Kind("manifest by tag, requests a CPU second", "/s", REGISTRY, "more"),
    "manifest-wall": Kind("manifest by tag, requests a second", "/s", REGISTRY, "more"),
    **{
        key: Kind(f"manifest {what}, requests a {unit}second", "/s", BESIDE, "more")
        for name, what in {
            "digest-docker-manifest": "by digest, docker's",
            "digest-oci-manifest": "by digest, OCI's",
            "digest-docker-list": "by digest, docker's list",
            "digest-oci-index": "by digest, OCI's index",
            "tag": "by tag",
        }.items()
        for key, unit in ((name, "CPU "), (f"{name}-wall", ""))
    },
    "config": Kind("http.conf", "MB", BESIDE),
    "beside-parse-cpu": Kind("`nginx -t`, CPU", "s", BESIDE),
    "beside-parse-memory": Kind("nginx's master after reading it, peak memory (VmHWM)", "MB", BESIDE),
    "six": Kind("blob of 6 MB, a CPU second", "MB/s", REGISTRY, "more"),
    "hundred": Kind("blob of 100 MB, a CPU second", "MB/s", REGISTRY, "more"),
    "drop": Kind("from the last byte that skopeo writes to the first pull", "s", LOOP),
    "floor": Kind(
        "the floor: a finished generation written and synced, one `nginx -t`, HUP, first new answer", "s"
    ),
    "drop-floors": Kind("from the last byte to the first pull, as a multiple of the floor", "times"),
    "publish-cpu": Kind("CPU that a new image costs, nginx included", "s", LOOP),
    "light": Kind("a light pass that finds nothing, CPU", "s", ORIGINAL),
    "one": Kind("a pass that finds one changed tag, CPU, `nginx -t` included", "s", ORIGINAL),
    "full": Kind("a full pass that finds nothing, CPU", "s", ORIGINAL),
    "cold": Kind("start to READY, the first time", "s"),
    "warm": Kind("start to READY, with its state kept", "s"),
    "idle": Kind("the daemon's CPU between rescans, while nginx serves at full load", "% of a core"),
    "wakes": Kind("how often it woke meanwhile", "/min"),
    "rescans": Kind("the daemon's CPU with its rescans, nothing changing", "% of a core"),
    "resident": Kind("the idle daemon's memory (VmRSS)", "MB", REGISTRY),
    "burst": Kind("1,000 images within 10 s: from the last one to all pullable", "s"),
    "burst-gap": Kind("shortest time between two reloads meanwhile", "s"),
}


@dataclass
class Figure:
    """One kind at several numbers of tags."""

    ours: dict[int, Sample] = field(default_factory=dict)
    theirs: dict[int, Sample] = field(default_factory=dict)


@dataclass
class Book:
    """All figures of one run by the keys of ``KINDS``."""

    figures: dict[str, Figure] = field(default_factory=dict)

    def note(self, key: str, tags: int, ours: Sample, theirs: Sample | None = None) -> None:
        assert key in KINDS, key
        figure = self.figures.setdefault(key, Figure())
        figure.ours[tags] = ours
        if theirs is not None:
            figure.theirs[tags] = theirs

    def ours(self, key: str, tags: int) -> float | None:
        """Our median, if that was measured."""
        sample = self.figures[key].ours.get(tags) if key in self.figures else None
        return sample.median if sample else None

    def ratio(self, key: str, tags: int) -> float | None:
        """How many times better ours is than theirs."""
        figure = self.figures.get(key)
        if figure is None or tags not in figure.theirs:
            return None
        ours, theirs = figure.ours[tags].median, figure.theirs[tags].median
        return ours / theirs if KINDS[key].better == "more" else theirs / ours

    def ratios(self) -> dict[str, float]:
        """Every ratio, by key and number of tags: ``parse-cpu@10000``."""
        return {
            f"{key}@{tags}": round(ratio, 3)
            for key, figure in self.figures.items()
            for tags in figure.theirs
            if (ratio := self.ratio(key, tags)) is not None
        }

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @staticmethod
    def from_json(raw: bytes) -> "Book":
        return msgspec.json.decode(raw, type=Book)


# -- what the figures are to be ------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """Our median, or with ``of`` "ratio" how many times better we are, of one figure at one size.
    Without a bound it is only told."""

    key: str
    tags: int
    of: Literal["ours", "ratio"]
    at_most: float | None = None
    at_least: float | None = None

    def value(self, book: Book) -> float | None:
        return book.ours(self.key, self.tags) if self.of == "ours" else book.ratio(self.key, self.tags)

    def is_met(self, book: Book) -> bool | None:
        """``None`` if it was not measured."""
        value = self.value(book)
        if value is None or (self.at_most is None and self.at_least is None):
            return None
        return value <= self.at_most if self.at_most is not None else value >= (self.at_least or 0)


def _most(key: str, tags: int, value: float) -> Limit:
    return Limit(key, tags, "ours", at_most=value)


def _times(key: str, tags: int, value: float) -> Limit:
    return Limit(key, tags, "ratio", at_least=value)


TARGETS: tuple[Limit, ...] = (
    _times("parse-cpu", 10_000, 10),
    _times("parse-memory", 10_000, 14),
    _most("parse-cpu", 100_000, 0.5),
    _most("parse-memory", 100_000, 80),
    _times("small-blob-wall", 10_000, 6),
    _times("manifest-wall", 10_000, 20),
    _times("six", 10_000, 1.5),
    _times("hundred", 10_000, 1.5),
    _most("drop", 1_000, 0.6),
    _most("drop", 10_000, 1.0),
    _most("drop", 100_000, 4.0),
    *(Limit(key, tags, "ours") for tags in (1_000, 10_000, 100_000) for key in ("floor", "drop-floors")),
    _times("drop", 1_000, 1.5),
    _times("drop", 10_000, 8),
    _most("light", 10_000, 0.080),
    _most("one", 10_000, 0.150),
    _most("full", 10_000, 0.350),
    _most("cold", 10_000, 3.0),
    _most("warm", 10_000, 1.0),
    _most("idle", 10_000, 0.5),
    _most("resident", 100, 32),
    _most("resident", 10_000, 64),
    _most("resident", 100_000, 220),
    _most("burst", 100, 3.0),
    Limit("burst-gap", 100, "ours"),
)
