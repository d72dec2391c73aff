"""Filters of a list: their conditions, what they bind, and which index finds their matches."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    collate,
    func,
    literal_column,
    or_,
    true,
)


class FilterIndex(NamedTuple):
    """The index that finds the matches of a filter.

    `sort` is the order in which it has them, if that is one of the list's; `usable` is false where
    there is no such index, or where it would be read as a whole.
    """

    name: str
    sort: str | None = None
    usable: ColumnElement[bool] = true()


class Choice(NamedTuple):
    """A filter of few values, each written into the text, so that a partial index can match."""

    clauses: Mapping[object, ColumnElement[bool]]
    served_by: Mapping[object, FilterIndex] = MappingProxyType({})
    cost: int = 0

    def index_for(self, value: object) -> FilterIndex | None:
        """The index that finds the matches of a value."""
        return self.served_by.get(value)


class Bound(NamedTuple):
    """A filter that binds its value by its own name, after `encode`.

    `one_plan` says that by itself, in the order of its index, it has one good plan for all values.
    `cost` is what the condition takes for one row beside reading it, in tenths of a microsecond.
    """

    clause: ColumnElement[bool]
    encode: Callable[[Any], object] = lambda value: value
    served_by: FilterIndex | None = None
    one_plan: bool = False
    cost: int = 0

    def index_for(self, _: object) -> FilterIndex | None:
        """The index that finds the matches of any value."""
        return self.served_by


Filter = Choice | Bound


class OwnFilter(NamedTuple):
    """The filter by the owner of a row; a request does not set it.

    Args:
        filter: the condition.
        bind: its argument.
        unique: whether an owner has one row at most.
    """

    filter: Bound
    bind: str
    unique: bool


# What is chosen of a filter: its name, and the value of a Choice.
Chosen = tuple[tuple[str, object], ...]
# Chosen if a list is limited to the rows of an owner. No parameter can have this name.
LIMITED: tuple[str, object] = ("<owner>", None)


def worded(chosen: Chosen) -> list[str]:
    """The filters as the name of a statement has them; `list_names.chosen` reads them back.

    That it is limited to an owner is said before them, by OWN.
    """
    return [
        name if value is None else f"{name}={value}".lower()
        for name, value in chosen
        if (name, value) != LIMITED
    ]


# Whether pg_trgm takes a trigram from a pattern `%…%`: three letters or digits, or the first one of
# a word, or the last two of one. Without any it would read the whole index.
TRIGRAM = "[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]]."
# pg_trgm takes LC_CTYPE to tell what a letter is, a regular expression the collation. They differ
# in embedded clusters made before LC_CTYPE was set to C.UTF-8: there only letters of ASCII count.
ASCII_LETTERS = """(SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database())"""

# To lower a text and look for a substring, in tenths of a microsecond.
LIKE_COST = 5


def search(index: str, *columns: ColumnElement[Any]) -> Bound:
    """The filter `q`: rows of which a column holds it as a substring, in whatever case.

    The result is that of ILIKE, which lowers the pattern for each row and takes 1.4 times as long.
    `index` is optional, see tables.py.
    """
    pattern = bindparam("q", type_=Text)
    trigram: ColumnElement[str] = literal_column(f"'{TRIGRAM}'")
    lowered = [func.lower(column) for column in columns]
    # PostgreSQL takes a pattern for rare, and so reads the whole index where it has no trigram:
    # twice as long as a sequential scan. LIKE finds the same in every collation, but an index is
    # used for its own collation only. The planner knows the pattern, and one branch remains.
    found = case(
        (pattern.regexp_match(trigram), _like(pattern, lowered)),
        else_=_like(pattern, [collate(column, "C") for column in lowered]),
    )
    usable = and_(
        func.to_regclass(literal_column(f"'{index}'")).is_not(None),
        case(
            (literal_column(ASCII_LETTERS), pattern.collate("C").regexp_match(trigram)),
            else_=pattern.regexp_match(trigram),
        ),
    )
    return Bound(
        found, containing, FilterIndex(index, usable=usable), cost=LIKE_COST * len(columns)
    )


def _like(pattern: ColumnElement[str], columns: list[Any]) -> ColumnElement[bool]:
    return or_(*(column.like(func.lower(pattern), escape="\\") for column in columns))


def containing(text: str) -> str:
    r"""The LIKE pattern of a substring: `%`, `_` and `\` stand for themselves."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
