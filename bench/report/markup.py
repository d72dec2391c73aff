"""The page's few shapes of HTML; what they are given as `str` cells is HTML already."""

from collections.abc import Iterable, Sequence
from html import escape

from bench.report.words import DASH, number
from bench.result import Spread

NONE = '<p class="none">Not measured.</p>'


def section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>'


def figure(name: str, caption: str, body: str, legend: str = "") -> str:
    return (
        f'<figure data-plot="{escape(name)}"><figcaption>{escape(caption)}</figcaption>'
        f"{legend}{body}</figure>"
    )


def plotted(name: str, caption: str, body: str, legend: str = "") -> str:
    """A figure, or that nothing was measured."""
    return figure(name, caption, body, legend) if body else NONE


def panels(name: str, caption: str, found: list[str], legend: str = "") -> str:
    return plotted(name, caption, row(found) if found else "", legend)


def row(found: Iterable[str]) -> str:
    """Side by side, as far as there is room."""
    return f'<div class="panels">{"".join(found)}</div>'


def panel(title: str, drawing: str, note: str = "") -> str:
    said = f"<small>{escape(note)}</small>" if note else ""
    return f'<div class="panel"><h3>{escape(title)} {said}</h3>{drawing}</div>'


def legend(parts: Iterable[tuple[str, str]]) -> str:
    """Name and class of each sample."""
    shown = "".join(f'<li><i class="{escape(look)}"></i>{escape(name)}' for name, look in parts)
    return f'<ul class="legend">{shown}</ul>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], look: str = "") -> str:
    """A table in a box of its own that scrolls; heads are text, cells HTML."""
    body = list(rows)
    first = body[0] if body else head
    top = "".join(
        f'<th scope="col"{_side(cell)}>{escape(one)}</th>'
        for one, cell in zip(head, first, strict=True)
    )
    shown = "".join(
        f"<tr>{''.join(f'<td{_side(one)}>{one}</td>' for one in row)}</tr>" for row in body
    )
    return (
        f'<div class="box"><table class="{look}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{shown}</tbody></table></div>"
    )


def facts(found: dict[str, str]) -> str:
    rows = "".join(f"<div><dt>{escape(a)}</dt><dd>{escape(b)}</dd></div>" for a, b in found.items())
    return f"<dl>{rows}</dl>" if found else NONE


def numbers(value: str) -> str:
    """A cell's number, at the right."""
    return f'<span class="n">{value}</span>'


def spread(found: Spread | None) -> str:
    """A cell: the median, the least and the most beneath."""
    if found is None:
        return numbers(DASH)
    between = " to " if found.least < 0 else DASH
    least_most = f"{number(found.least)}{between}{number(found.most)}"
    return numbers(f"{number(found.median)}<small>{least_most}</small>")


def _side(cell: str) -> str:
    """Numbers stand at the right."""
    return ' class="r"' if cell.startswith('<span class="n"') else ""
