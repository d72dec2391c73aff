"""Times in JSON always have six decimals; msgspec leaves them out where all are zero."""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_type_hints

from msgspec import Struct

from service.web.wire import encode


def encode_rows(value: Any, rows: Sequence[Struct]) -> bytes:
    """The value as JSON; `rows` are those within it that have times, or the value itself."""
    body = encode(value)
    if rows:
        times_of, pattern = _times(type(rows[0]))
        if _on_the_second(rows, times_of):
            return pattern.sub(rb'\1.000000Z"', body)
    return body


def _on_the_second(
    rows: Iterable[Struct], times_of: Callable[[Struct], tuple[datetime | None, ...]]
) -> bool:
    for row in rows:  # a loop takes half the time of a generator: 0.1 us a row
        for time in times_of(row):
            if time is not None and not time.microsecond:
                return True
    return False


@cache
def _times(
    row: type[Struct],
) -> tuple[Callable[[Struct], tuple[datetime | None, ...]], re.Pattern[bytes]]:
    """What gives the times of a row, and a pattern for those without decimals in its JSON.

    No text can hold what the pattern matches: the quotes in a text are escaped.
    """
    hints = get_type_hints(row)
    names = [name for name, kind in hints.items() if datetime in (kind, *get_args(kind))]
    if not names:
        return lambda _: (), re.compile(rb"(?!)")
    fields = "|".join(names).encode()
    # A name twice, so that it gives a tuple even of one.
    return attrgetter(names[0], *names), re.compile(rb'("(?:%b)":"[^".]{19})Z"' % fields)
