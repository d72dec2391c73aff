"""Times and numbers of rows in the one form that they have in files, too.

Times always have six decimals; msgspec leaves them out where all are zero. Numbers have no
exponent; asyncpg reads a multiple of 10,000 as a Decimal with one, and 1E+4 is what msgspec writes.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_type_hints

from msgspec import Struct

from service.web.codec import encode

# Of a time without decimals, as 2026-01-01T00:00:00.
SECONDS_LENGTH = 19


def encode_rows(value: Any, rows: Sequence[Struct]) -> bytes:
    """The value as JSON; `rows` are those within it, or the value itself."""
    body = encode(value)
    if rows:
        if b"+" in body and b"E+" in body:  # one character is found 20 times as fast
            body = _numbers(type(rows[0])).sub(_without_exponent, body)
        times_of, before = _times(type(rows[0]))
        if _on_the_second(rows, times_of):
            return _with_decimals(body, before)
    return body


def _with_decimals(body: bytes, before: tuple[bytes, ...]) -> bytes:
    """Ten rows take 3 us, by a regular expression 17."""
    parts = body.split(b'Z"')
    for place, part in enumerate(parts[:-1]):
        if part[:-SECONDS_LENGTH].endswith(before):
            parts[place] = part + b".000000"
    return b'Z"'.join(parts)


def _on_the_second(
    rows: Iterable[Struct], times_of: Callable[[Struct], tuple[datetime | None, ...]]
) -> bool:
    for row in rows:  # a loop takes half the time of a generator: 0.1 us a row
        for time in times_of(row):
            if time is not None and not time.microsecond:
                return True
    return False


@cache
def _numbers(row: type[Struct]) -> re.Pattern[bytes]:
    """A pattern for the numbers of a row in its JSON that have an exponent."""
    fields = "|".join(_fields(row, Decimal)).encode() or b"(?!)"
    return re.compile(rb'("(?:%b)":)([0-9.-]+E\+[0-9]+)' % fields)


def _without_exponent(found: re.Match[bytes]) -> bytes:
    return found[1] + f"{Decimal(found[2].decode()):f}".encode()


@cache
def _times(
    row: type[Struct],
) -> tuple[Callable[[Struct], tuple[datetime | None, ...]], tuple[bytes, ...]]:
    """What gives the times of a row, and what is before each in its JSON."""
    names = _fields(row, datetime)
    if not names:
        return lambda _: (), ()
    # A name twice, so that it gives a tuple even of one.
    return attrgetter(names[0], *names), tuple(f'"{name}":"'.encode() for name in names)


def _fields(row: type[Struct], kind: type) -> list[str]:
    """The fields of this kind.

    In JSON a name is in quotes with a colon behind it. No text can hold that: the quotes in a text
    are escaped.
    """
    hints = get_type_hints(row)
    return [name for name, one in hints.items() if kind in (one, *get_args(one))]
