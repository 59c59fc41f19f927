"""Writes what was measured: a table of every figure, and the targets' table of docs/performance.md."""

from pathlib import Path

from tests.benchmarks.book import BESIDE, KINDS, TARGETS, Book, Limit
from tests.benchmarks.measure import Sample

BEGIN = "<!-- benchmarks: written by python -m tests.benchmarks --table -->"
END = "<!-- end of benchmarks -->"


def figures(book: Book) -> str:
    """Every figure at every size: the median, and the range of the runs."""
    sizes = sorted({tags for figure in book.figures.values() for tags in figure.ours})
    lines = [
        "| figure | of | " + " | ".join(f"{size:,} tags" for size in sizes) + " |",
        "|---|---|" + "---|" * len(sizes),
    ]
    for key, figure in book.figures.items():
        kind = KINDS[key]
        rows = [("scr-watchd", figure.ours)] + ([(kind.rival, figure.theirs)] if figure.theirs else [])
        for number, (name, samples) in enumerate(rows):
            cells = " | ".join(_cell(samples.get(size)) for size in sizes)
            title = f"{kind.title}, {kind.unit}" if number == 0 else ""
            lines.append(f"| {title} | {name} | {cells} |")
    return "\n".join(lines) + "\n"


def targets(book: Book) -> str:
    """Every target with what was measured, met or not."""
    lines = ["| what | tags | target | measured | |", "|---|---|---|---|---|"]
    for limit in TARGETS:
        kind, value, met = KINDS[limit.key], limit.value(book), limit.is_met(book)
        versus = f", against {kind.rival}" if limit.of == "ratio" else ""
        shown = "not measured" if value is None else _value(limit, value)
        verdict = "" if met is None else "met" if met else "**not met**"
        lines.append(f"| {kind.title}{versus} | {limit.tags:,} | {_wanted(limit)} | {shown} | {verdict} |")
    return "\n".join(lines) + "\n"


def beside(book: Book) -> str:
    """How much of the other checkout's figures ours are."""
    lines = [
        f"{KINDS[key].title}, {tags:,} tags: {figure.ours[tags].median / theirs.median:.2f} of the other's\n"
        for key, figure in book.figures.items()
        if KINDS[key].rival == BESIDE
        for tags, theirs in figure.theirs.items()
    ]
    return "".join(lines)


def into_page(page: Path, table: str, begin: str = BEGIN, end: str = END) -> None:
    """Put ``table`` between the markers of ``page``."""
    before, first, rest = page.read_text().partition(begin)
    _, last, after = rest.partition(end)
    assert first, f"{page} has lost its first marker"
    assert last, f"{page} has lost its last marker"
    page.write_text(f"{before}{begin}\n\n{table}\n{end}{after}")


FIGURES = ("<!-- figures: written by python -m tests.benchmarks --table -->", "<!-- end of figures -->")
_CHOSEN = (
    ("manifest by tag, requests a second, against docker-registry 2.8", "10,000", "--figures manifest"),
    ("blob of 6 MB, a CPU second, against docker-registry 2.8", "10,000", "--figures large-blobs"),
    ("from the last byte that skopeo writes to the first pull", "1,000", "--figures drop --sizes 1000"),
    ("from the last byte that skopeo writes to the first pull", "100,000", "--figures drop --sizes 100000"),
    ("nginx's master after reading it, peak memory (VmHWM)", "100,000", "--figures parse --sizes 100000"),
    ("the idle daemon's memory (VmRSS)", "10,000", "--figures idle"),
)


def chosen(table: str) -> str:
    """Six rows of the ``table`` of targets, for README.md: as measured, each with what reproduces it."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    measured = {(row[0], row[1]): row[3] for row in cells if len(row) >= 4}
    rows = [
        f"| {what} | {tags} | {measured[what, tags]} | `{how}` |"
        for what, tags, how in _CHOSEN
        if (what, tags) in measured
    ]
    head = ("| what | tags | measured | `python -m tests.benchmarks` with |", "|---|---|---|---|")
    return "\n".join((*head, *rows, ""))


def _wanted(limit: Limit) -> str:
    if limit.at_most is None and limit.at_least is None:
        return ""
    unit = _unit(limit)
    return f"≤ {limit.at_most:g}{unit}" if limit.at_most is not None else f"≥ {limit.at_least:g}{unit}"


def _value(limit: Limit, value: float) -> str:
    return f"{_number(value)}{_unit(limit)}"


def _unit(limit: Limit) -> str:
    return " times" if limit.of == "ratio" else f" {KINDS[limit.key].unit}"


def _cell(sample: Sample | None) -> str:
    if sample is None:
        return ""
    if len(sample.values) == 1:
        return _number(sample.median)
    return f"{_number(sample.median)} ({_number(sample.low)} to {_number(sample.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
