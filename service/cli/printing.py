"""Rows and times as a terminal shows them."""

from collections.abc import Iterable
from datetime import UTC, datetime

import click


def shown_time(time: datetime | None) -> str:
    """Return a time to the minute; `never` without one."""
    return "never" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")


def print_table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows in columns, a row per line: no value has a line break of its own."""
    lines = [titles, *(tuple(_printable(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _printable(text: str) -> str:
    """Return a text without control characters, which could change what a terminal shows."""
    return "".join(one if one.isprintable() else "?" for one in text)
