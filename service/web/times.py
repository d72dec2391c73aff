"""Times and numbers of rows in the one form that they have in files, too.

Times always have six decimals; msgspec leaves them out where all are zero. Numbers have no
exponent; asyncpg reads a multiple of 10,000 as a Decimal with one, and 1E+4 is what msgspec writes.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_type_hints

from msgspec import Struct

from service.web.codec import encode

# Of a time without decimals, as 2026-01-01T00:00:00.
SECONDS_LENGTH = 19
# As numbers: one byte is found five times as fast as a bytes object that holds it.
PLUS, Z = b"+Z"


def encode_rows(value: Any, rows: Sequence[Struct]) -> bytes:
    """The value as JSON; `rows` are those within it, or the value itself."""
    body = encode(value)
    if rows:
        if PLUS in body and b"E+" in body:
            body = _numbers(type(rows[0])).sub(_without_exponent, body)
        for time_of, before in _times(type(rows[0])):
            for row in rows:  # a loop takes half the time of a generator
                time = time_of(row)
                if time is not None and not time.microsecond:
                    body = _with_decimals(body, before)
                    break
    return body


def _with_decimals(body: bytes, before: bytes) -> bytes:
    """The times behind `before`, each with decimals: 0.7 us for one, by a regular expression 2."""
    parts = body.split(before)
    for place in range(1, len(parts)):
        part = parts[place]
        if part[SECONDS_LENGTH] == Z:
            parts[place] = part[:SECONDS_LENGTH] + b".000000" + part[SECONDS_LENGTH:]
    return before.join(parts)


@cache
def _numbers(row: type[Struct]) -> re.Pattern[bytes]:
    """A pattern for the numbers of a row in its JSON that have an exponent."""
    fields = "|".join(_fields(row, Decimal)).encode() or b"(?!)"
    return re.compile(rb'("(?:%b)":)([0-9.-]+E\+[0-9]+)' % fields)


def _without_exponent(found: re.Match[bytes]) -> bytes:
    return found[1] + f"{Decimal(found[2].decode()):f}".encode()


@cache
def _times(row: type[Struct]) -> list[tuple[Callable[[Struct], datetime | None], bytes]]:
    """What gives each time of a row, and what is before it in JSON, where it is not null."""
    return [(attrgetter(name), f'"{name}":"'.encode()) for name in _fields(row, datetime)]


def _fields(row: type[Struct], kind: type) -> list[str]:
    """The fields of this kind.

    In JSON a name is in quotes with a colon behind it. No text can hold that: the quotes in a text
    are escaped.
    """
    hints = get_type_hints(row)
    return [name for name, one in hints.items() if kind in (one, *get_args(one))]
