"""The two-minute subset: ratios of CPU time and memory at one size, compared with recorded ones.

Ratios of what one machine does at one moment, so that neither a slow machine nor a busy one matters.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.benchmarks.book import Book
from tests.benchmarks.figures import FIGURES, Bench
from tests.benchmarks.mirrors import Mirror
from tests.benchmarks.trees import make_tree

RECORDED = Path(__file__).with_name("recorded.json")
TAGS = 10_000
_RUNS = 3
_FIGURES = {
    "parse": ("parse-cpu",),
    "small-blob": ("small-blob", "parse-memory", "worker-memory"),
    "manifest": ("manifest",),
    "large-blobs": ("six", "hundred"),
    "passes": ("light", "one", "full"),
    "drop": ("publish-cpu",),
}
"""What is compared of what is measured: nothing that the wall clock says."""


def quick(directory: Path, say: Callable[[str], None]) -> Book:
    """Measure each once."""
    measured = Measured(directory)
    for name in _FIGURES:
        measured.again(name)
        say(f"{name}: {measured.ratios(name)}")
    return measured.book


class Measured:
    """One tree, and what was measured of it."""

    def __init__(self, directory: Path) -> None:
        place = directory / "quick"
        place.mkdir()
        self.book = Book()
        mirror = Mirror(make_tree(place / "images", TAGS, heavy=directory / "heavy"), place)
        mirror.publish()
        self._bench = Bench(self.book, mirror, seconds=1, patience=1, runs=_RUNS)

    def again(self, name: str) -> None:
        FIGURES[name](self._bench)

    def ratios(self, name: str) -> dict[str, float]:
        """How many times better than the rival, for each figure that is compared."""
        return {key: self.book.ratio(key, TAGS) or 0 for key in _FIGURES[name]}


def recorded() -> dict[str, float]:
    return msgspec.json.decode(RECORDED.read_bytes(), type=dict[str, float])


def names() -> list[str]:
    return list(_FIGURES)


def record(book: Book) -> None:
    """Note what was measured, for later runs to be compared with."""
    ratios = {key: round(book.ratio(key, TAGS) or 0, 2) for keys in _FIGURES.values() for key in keys}
    RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(ratios), indent=4) + b"\n")
