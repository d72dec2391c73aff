"""Numbers as people read them."""

import math

TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"


def number(value: float) -> str:
    """Three digits that count, thousands apart: `0.0123`, `1.23`, `12.3`, `123`, `12,345`."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    decimals = 0 if size >= 99.95 else min(6, 2 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def times(value: float) -> str:
    return f"{number(value)}{TIMES}"


def short(value: float) -> str:
    """For an axis: `0.05`, `2`, `2.5`, `20k`, `1M`."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text or "0"


def factor(value: float) -> str:
    """For an axis of ratios."""
    return f"{short(value)}{TIMES}"


def unit(name: str) -> str:
    return "µs" if name == "us" else name


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
