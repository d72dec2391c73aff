"""Lower case as the database has it: its locale decides, and Python knows other rules."""

from collections.abc import Mapping
from functools import cache

from sqlalchemy import ARRAY, Text, bindparam, func, select

from service.db.statement import Runner, Statement

# Cased letters are below.
END = 0x1F000

_given = (
    func.unnest(bindparam("letters", type_=ARRAY(Text)))
    .table_valued("letter")
    .render_derived(name="given")
)
LOWER = Statement(
    "changes.lower",
    tuple,
    select(_given.c.letter, func.lower(_given.c.letter).label("lowered")),
    order=("letters",),
    prepare=False,
)


@cache
def cased() -> list[str]:
    """The letters that may have another form in lower case."""
    surrogates = range(0xD800, 0xE000)
    letters = (chr(code) for code in range(END) if code not in surrogates)
    return [one for one in letters if one.lower() != one]


async def lower_case(db: Runner) -> Mapping[int, str]:
    """The lower case of each letter in this database, for `lower`."""
    records = await db.fetch(LOWER, (cased(),))
    return {ord(one["letter"]): one["lowered"] for one in records}


def lower(text: str, table: Mapping[int, str]) -> str:
    """As `lower(text)` in the database."""
    return text.translate(table)
