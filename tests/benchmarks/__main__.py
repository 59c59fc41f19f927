"""Runs the benchmarks: see README.md in this directory."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks import limits, plots, report
from tests.benchmarks.book import Book
from tests.benchmarks.figures import FIGURES, Bench
from tests.benchmarks.measure import RUNS
from tests.benchmarks.mirrors import Mirror
from tests.benchmarks.quick import quick, record
from tests.benchmarks.serving import measure_serving
from tests.benchmarks.trees import make_heavy, make_tree
from tests.documents import HOUSE

HERE = Path(__file__).parent
SIZES = (10, 100, 1_000, 10_000, 100_000)
_ONLY_AT = {
    "small-blob": {10_000, 100_000},
    "manifest": {10_000},
    "digests": {10_000},
    "drop": {1_000, 10_000, 100_000},
    "large-blobs": {10_000},
    "idle": {100, 10_000, 100_000},
    "burst": {100},
}
"""Ten minutes are not enough for every figure at every size."""
_RUNS_OF_THE_LARGEST = 3  # at 100,000 tags one run takes many seconds
_LONG_LOOK_AT = 10_000  # tags: here the idle daemon is looked at for half a minute


def main() -> None:
    arguments = _parser().parse_args()
    with workplace(arguments.directory) as directory:
        if arguments.limits:
            limits.measure_limits(directory, say)
        elif arguments.serving:
            with mirror(directory, 1000) as made:
                measure_serving(made, say)
        elif arguments.quick:
            book = quick(directory, say)
            say(report.figures(book))
            if arguments.record:
                record(book)
        else:
            book = Book()
            for tags in arguments.sizes:
                everything(book, directory, tags, arguments.figures, beside=arguments.beside)
                write(book, arguments.output)  # after each size: what was measured is not lost
            if arguments.table:
                report.into_page(HOUSE / "docs" / "performance.md", report.targets(book))
                report.into_page(HOUSE / "README.md", report.chosen(report.targets(book)), *report.FIGURES)
            say(f"{report.targets(book)}\n{report.beside(book)}written to {arguments.output}")


def everything(book: Book, directory: Path, tags: int, names: Iterable[str], *, beside: Path | None) -> None:
    """All figures at one size."""
    wanted = [name for name in names if tags in _ONLY_AT.get(name, {tags}) or (beside and name == "digests")]
    with mirror(directory, tags) as made:
        bench = Bench(
            book,
            made,
            seconds=1,
            patience=30 if tags == _LONG_LOOK_AT else 5,
            runs=RUNS if tags <= _LONG_LOOK_AT else _RUNS_OF_THE_LARGEST,
            beside=beside,
        )
        for name in wanted:
            if name != "start" and not made.current.exists():
                made.publish()
            began = time.monotonic()
            FIGURES[name](bench)
            say(f"{tags:,} tags: {name}, {time.monotonic() - began:.0f} s")


def write(book: Book, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "figures.json").write_bytes(book.to_json())
    (output / "figures.svg").write_text(plots.draw(book))
    (output / "figures.md").write_text(f"{report.targets(book)}\n{report.figures(book)}")


@contextmanager
def workplace(directory: Path | None) -> Iterator[Path]:
    """A directory for everything, which nginx's workers may enter."""
    with tempfile.TemporaryDirectory(prefix="scrbench", dir=directory) as name:
        Path(name).chmod(0o755)
        make_heavy(Path(name, "heavy"))
        yield Path(name)


@contextmanager
def mirror(directory: Path, tags: int) -> Iterator[Mirror]:
    place = directory / str(tags)
    place.mkdir()
    yield Mirror(make_tree(place / "images", tags, heavy=directory / "heavy"), place)
    subprocess.run(["rm", "-r", str(place)], check=True)  # a million names, in half the time of shutil


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    made.add_argument("--quick", action="store_true", help="two minutes: the ratios that CI compares")
    made.add_argument("--record", action="store_true", help="with --quick: note its ratios for CI")
    made.add_argument("--limits", action="store_true", help="100,000 and 250,000 tags; takes its time")
    made.add_argument("--serving", action="store_true", help="what nginx's settings are worth")
    made.add_argument("--sizes", type=_numbers, default=SIZES, metavar="N,N", help="how many tags")
    made.add_argument(
        "--figures", type=_names, default=tuple(FIGURES), metavar="A,B", help=", ".join(FIGURES)
    )
    made.add_argument(
        "--beside", type=Path, metavar="CHECKOUT", help="with the figure digests: compare with this one"
    )
    made.add_argument("--directory", type=Path, help="where to make the trees: a disk, not a tmpfs")
    made.add_argument("--output", type=Path, default=HERE / "results", help="where to write the results")
    made.add_argument(
        "--table", action="store_true", help="write the tables of docs/performance.md and README.md too"
    )
    return made


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    main()
