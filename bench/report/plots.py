"""Drawings as SVG text: no script, no colour of their own (`style.css` has those by class).

Every drawing is 360 units wide, what a phone shows at full size; a wide screen gets several side
by side. Each mark carries its exact numbers as a `<title>`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

from bench.report.words import short
from bench.result import Spread

WIDTH = 360
ROW = 34

Tick = Callable[[float], str]


class Axis(NamedTuple):
    """A range of values, and whether its steps are ratios."""

    low: float
    high: float
    log: bool

    def part(self, value: float) -> float:
        """Where the value lies, from 0 to 1; what lies outside is at the end."""
        if not self.log:
            found = (value - self.low) / (self.high - self.low)
        elif value <= 0:
            found = 0.0
        else:
            found = math.log(value / self.low) / math.log(self.high / self.low)
        return min(max(found, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Three to seven round values."""
        if not self.log:
            return _steps(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for parts in ((1,), (1, 3), (1, 2, 5)):
            found = [
                part * 10.0**decade
                for decade in decades
                for part in parts
                if self.low <= part * 10.0**decade <= self.high
            ]
            if len(found) >= 3:
                return found[:: math.ceil(len(found) / 7)]
        return [one for one in _steps(self.low, self.high) if one >= self.low]


class Bar(NamedTuple):
    """A row: a value with its spread, what is written beside it, and its title."""

    label: str
    spread: Spread
    text: str
    title: str
    look: str


class Part(NamedTuple):
    """A piece of a stacked bar; `text` is its number as written."""

    label: str
    value: float
    text: str
    title: str
    look: str


class Stack(NamedTuple):
    """A row of pieces."""

    label: str
    parts: list[Part]
    text: str
    look: str


class Point(NamedTuple):
    """A value over the category of that index."""

    at: int
    spread: Spread
    title: str


class Line(NamedTuple):
    """Points joined, named at their end; `shape` chooses the marker."""

    label: str
    look: str
    shape: int
    points: list[Point]


def linear(values: Iterable[float]) -> Axis:
    """From zero to a little past the largest."""
    return Axis(0.0, max([*values, 0.0]) * 1.04 or 1.0, log=False)


def logarithmic(values: Iterable[float], *, below: bool = True) -> Axis:
    """A little past both ends, or only the upper; zeros have no place on it."""
    found = [value for value in values if value > 0] or [1.0]
    low, high = min(found), max(found)
    if high < low * 2:
        low, high = low / 1.5, high * 1.5
    room = (high / low) ** 0.04
    return Axis(low / room if below else low, high * room, log=True)


def bars(
    rows: Sequence[Bar],
    axis: Axis,
    *,
    label: str,
    tick: Tick = short,
    origin: float = 0.0,
    mark: float | None = None,
) -> str:
    """Horizontal bars from `origin`, each under its name, with a whisker from least to most.

    A line stands at `mark`, what the others are compared with.
    """
    height = len(rows) * ROW + 18
    drawn = [_across(axis, len(rows), ROW, tick, [origin] if mark is None else [origin, mark])]
    zero = axis.part(origin) * WIDTH
    for index, row in enumerate(rows):
        top = index * ROW
        end, least, most = (axis.part(value) * WIDTH for value in row.spread)
        left, width = min(zero, end), max(abs(end - zero), 2.0)
        left = min(left, WIDTH - width)
        middle = top + 22.5
        whisker = f"M{least:.1f} {middle}H{most:.1f}"
        if most - least > 3:
            whisker += f"M{least:.1f} {middle - 3}v6M{most:.1f} {middle - 3}v6"
        drawn.append(
            f'<g class="row {escape(row.look)}"><title>{escape(row.title)}</title>'
            f"{_head(row.label, row.text, top)}"
            f'<rect class="mark" x="{left:.1f}" y="{top + 18}" width="{width:.1f}" height="9" '
            f'rx="1.5"/><path class="halo" d="{whisker}"/><path class="whisker" d="{whisker}"/></g>'
        )
    return _svg(height, label, drawn)


def stacks(rows: Sequence[Stack], axis: Axis, *, label: str, tick: Tick = short) -> str:
    """Horizontal bars of pieces from zero; a piece that has the room carries its number."""
    pitch = ROW + 4
    height = len(rows) * pitch + 18
    drawn = [_across(axis, len(rows), pitch, tick, [0.0])]
    for index, row in enumerate(rows):
        top = index * pitch
        pieces = []
        start = 0.0
        for part in row.parts:
            if part.value <= 0:
                continue
            left, right = (axis.part(one) * WIDTH for one in (start, start + part.value))
            start += part.value
            width = max(right - left - 1, 0.5)
            place = f'x="{left:.1f}" y="{top + 18}" width="{width:.1f}" height="14"'
            inside = (
                f'<text class="in" x="{left + width / 2:.1f}" y="{top + 28.5}">'
                f"{escape(part.text)}</text>"
                if width > len(part.text) * 6 + 4
                else ""
            )
            pieces.append(
                f'<g class="{escape(part.look)}"><title>{escape(part.title)}</title>'
                f'<rect class="mark" {place}/><rect class="over" {place}/>{inside}</g>'
            )
        head = _head(row.label, row.text, top)
        drawn.append(f'<g class="row {escape(row.look)}">{head}{"".join(pieces)}</g>')
    return _svg(height, label, drawn)


def lines(
    series: Sequence[Line],
    categories: Sequence[str],
    axis: Axis,
    *,
    label: str,
    under: str,
    tick: Tick = short,
) -> str:
    """One line per series over categories; names at the right, moved apart, joined to their end."""
    left, right, top, bottom = 40, WIDTH - 130, 8, max(200, 14 * len(series) + 16)
    step = (right - left - 24) / max(len(categories) - 1, 1)

    def x(at: int) -> float:
        return left + 12 + at * step if len(categories) > 1 else (left + right) / 2

    def y(value: float) -> float:
        return bottom - axis.part(value) * (bottom - top)

    drawn = [
        f'<path class="grid" d="M{left} {y(one):.1f}H{right}"/>'
        f'<text class="tick end" x="{left - 6}" y="{y(one) + 3.5:.1f}">{escape(tick(one))}</text>'
        for one in axis.ticks()
    ]
    drawn += [
        f'<text class="tick mid" x="{x(at):.1f}" y="{bottom + 16}">{escape(name)}</text>'
        for at, name in enumerate(categories)
    ]
    drawn.append(
        f'<text class="tick mid" x="{(left + right) / 2:.1f}" y="{bottom + 32}">'
        f"{escape(under)}</text>"
    )
    shown = [one for one in series if one.points]
    ends = [y(one.points[-1].spread.median) for one in shown]
    places = apart(ends, 13, top + 4, bottom - 2)
    placed = list(zip(shown, ends, places, strict=True))
    for one, end, place in sorted(placed, key=lambda each: "ours" in each[0].look):  # ours on top
        last = x(one.points[-1].at)
        path = "L".join(f"{x(p.at):.1f} {y(p.spread.median):.1f}" for p in one.points)
        marks = "".join(
            f"<g><title>{escape(point.title)}</title>"
            f'<path class="whisker" d="M{x(point.at):.1f} {y(point.spread.least):.1f}'
            f'V{y(point.spread.most):.1f}"/>'
            f"{_marker(one.shape, x(point.at), y(point.spread.median))}"
            f'<circle class="hit" cx="{x(point.at):.1f}" cy="{y(point.spread.median):.1f}" r="8"/>'
            "</g>"
            for point in one.points
        )
        drawn.append(
            f'<g class="series {escape(one.look)}">'
            f'<path class="leader" d="M{last + 6:.1f} {end:.1f}L{right + 4} {place:.1f}h4"/>'
            f'<path class="line" d="M{path}"/>{marks}'
            f"{_marker(one.shape, right + 13, place)}"
            f'<text class="name" x="{right + 20}" y="{place + 3.5:.1f}">'
            f"{escape(cut(one.label, 17))}</text></g>"
        )
    return _svg(bottom + 40, label, drawn)


def column(parts: Sequence[Part], *, label: str) -> str:
    """One bar from the top down, each piece named at its right."""
    wide, top = 88, 4
    height = max(300, 22 * len(parts) + 8)
    total = sum(max(part.value, 0.0) for part in parts) or 1.0
    start, spans = 0.0, []
    for part in parts:
        size = max(part.value, 0.0) / total * (height - 2 * top)
        spans.append((top + start, size))
        start += size
    places = apart([begin + size / 2 for begin, size in spans], 20, top + 8, height - 8)
    drawn = [
        f'<g class="{escape(part.look)}"><title>{escape(part.title)}</title>'
        f'<rect class="mark" x="0" y="{begin:.1f}" width="{wide}" '
        f'height="{max(size - 1, 0.5):.1f}"/>'
        f'<path class="leader" d="M{wide + 2} {begin + size / 2:.1f}L{wide + 18} {place:.1f}h4"/>'
        f'<text class="name" x="{wide + 27}" y="{place + 4:.1f}">{escape(cut(part.label, 28))}'
        f'</text><text class="value end" x="{WIDTH}" y="{place + 4:.1f}">{escape(part.text)}'
        "</text></g>"
        for part, (begin, size), place in zip(parts, spans, places, strict=True)
    ]
    return _svg(height, label, drawn)


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near those wanted, in their order, at least `gap` from each other."""
    order = sorted(range(len(wanted)), key=lambda one: wanted[one])
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    found = [0.0] * len(wanted)
    lowest = low
    for one in order:
        found[one] = lowest = max(wanted[one], lowest)
        lowest += gap
    highest = high
    for one in reversed(order):
        found[one] = highest = min(found[one], highest)
        highest -= gap
    return found


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _svg(height: float, label: str, drawn: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(drawn)}</svg>"
    )


def _head(label: str, text: str, top: float) -> str:
    room = 52 - len(text)
    return (
        f'<text class="name" x="0" y="{top + 12}">{escape(cut(label, room))}</text>'
        f'<text class="value end" x="{WIDTH}" y="{top + 12}">{escape(text)}</text>'
    )


def _across(axis: Axis, rows: int, pitch: int, tick: Tick, strong: Iterable[float]) -> str:
    """Grid lines behind the bars, not the names above them, and their numbers below."""
    bottom = rows * pitch

    def behind(value: float, look: str) -> str:
        pieces = "".join(
            f"M{axis.part(value) * WIDTH:.1f} {row * pitch + 16}v{pitch - 18}"
            for row in range(rows)
        )
        return f'<path class="{look}" d="{pieces}"/>'

    drawn = []
    for one in axis.ticks():
        at = axis.part(one) * WIDTH
        anchor = "start" if at < 14 else "end" if at > WIDTH - 14 else "mid"
        drawn.append(
            f'{behind(one, "grid")}<text class="tick {anchor}" x="{at:.1f}" y="{bottom + 12}">'
            f"{escape(tick(one))}</text>"
        )
    return "".join([*drawn, *(behind(one, "origin") for one in strong)])


def _marker(shape: int, x: float, y: float) -> str:
    """A circle, square, triangle, diamond, or one of them hollow."""
    kind, hollow = shape % 4, shape // 4 % 2
    look = "dot hollow" if hollow else "dot"
    if kind == 0:
        return f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    path = ("M-3.2 -3.2h6.4v6.4h-6.4z", "M0 -4.2L4 3.2H-4z", "M0 -4.6L4.4 0L0 4.6L-4.4 0z")[
        kind - 1
    ]
    return f'<path class="{look}" transform="translate({x:.1f} {y:.1f})" d="{path}"/>'


def _steps(low: float, high: float) -> list[float]:
    """Round values between the two, some four of them."""
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next((part * size for part in (1, 2, 2.5, 5, 10) if part * size >= raw), 10 * size)
    first = math.ceil(low / step)
    return [round(one * step, 12) for one in range(first, math.floor(high / step) + 1)]
