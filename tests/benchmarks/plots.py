"""Draws the figures as one SVG of small charts: ours and theirs over the number of tags."""

import math
from collections.abc import Iterable, Mapping
from html import escape

from tests.benchmarks.book import KINDS, Book, Figure, Kind
from tests.benchmarks.measure import Sample

_WIDTH, _HEIGHT, _COLUMNS = 340, 230, 3
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 44, 26
_OURS, _THEIRS = "#0a7d4f", "#b5512b"


def draw(book: Book) -> str:
    """One chart for each figure that was measured at more than one size."""
    charts = [(key, figure) for key, figure in book.figures.items() if len(figure.ours) > 1]
    rows = math.ceil(len(charts) / _COLUMNS)
    box = f"0 0 {_COLUMNS * _WIDTH} {rows * _HEIGHT}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (key, figure) in enumerate(charts):
        row, column = divmod(number, _COLUMNS)
        parts.append(f'<g transform="translate({column * _WIDTH},{row * _HEIGHT})">')
        parts += _chart(KINDS[key], figure)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _chart(kind: Kind, figure: Figure) -> list[str]:
    lines = [(figure.ours, _OURS, "scr-watchd"), (figure.theirs, _THEIRS, kind.rival)]
    sizes = sorted(figure.ours.keys() | figure.theirs.keys())
    across = _Scale(sizes, _LEFT, _WIDTH - _RIGHT)
    values = [
        value for line, _, _ in lines for sample in line.values() for value in (sample.low, sample.high)
    ]
    up = _Scale([value for value in values if value > 0] or [1], _HEIGHT - _BOTTOM, _TOP, decades=True)
    parts = [
        f'<text x="8" y="16" font-size="11" font-weight="bold">{escape(kind.title.replace("`", ""))}</text>'
    ]
    for size in sizes:
        x = across.at(size)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{size:,}</text>')
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{tick:,g} {kind.unit}</text>')
    label = 8.0
    for line, colour, name in lines:
        if line:
            parts.append(f'<text x="{label}" y="32" fill="{colour}">— {escape(name)}</text>')
            label += 80
            parts += _line(line, colour, across, up)
    return parts


def _line(line: Mapping[int, Sample], colour: str, across: "_Scale", up: "_Scale") -> list[str]:
    """Medians, and from the lowest to the highest run a bar."""
    points = [(across.at(size), line[size]) for size in sorted(line)]
    path = " ".join(f"{x:.1f},{up.at(sample.median):.1f}" for x, sample in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for x, sample in points:
        low, high = up.at(sample.low), up.at(sample.high)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{up.at(sample.median):.1f}" r="2.2" fill="{colour}"/>')
    return parts


class _Scale:
    """A logarithmic scale from the values to ``start`` ... ``end``; with ``decades`` it begins and ends
    at powers of ten. What is not positive lies at its beginning."""

    def __init__(self, values: Iterable[float], start: float, end: float, *, decades: bool = False) -> None:
        logarithms = [math.log10(value) for value in values]
        low, high = min(logarithms), max(logarithms)
        if decades:
            low, high = math.floor(low + 1e-9), math.ceil(high - 1e-9)
        self._low, self._high = low, max(high, low + 1)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low) if value > 0 else 0
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(round(self._low), round(self._high) + 1)]
