"""Rows as arguments: one array for each field, which `unnest` makes rows of again."""

from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Numeric,
    String,
    Table,
    Text,
    bindparam,
    cast,
    collate,
    column,
    func,
    select,
)
from sqlalchemy.sql import visitors

from service.db.shape import part, unused
from service.db.statement import Statement


class _NumberAsText(Text):
    """A number that is sent as text: asyncpg takes 1 us for a Decimal, 0.2 us for its text."""


class Arrays(NamedTuple):
    """What can be selected from.

    Args:
        rows: has a column for each name.
        n: the name of one more, the place in the arrays from 1.
        binds: the name behind each bind.
    """

    rows: Any
    n: str
    binds: Mapping[str, str]

    @property
    def place(self) -> ColumnElement[int]:
        """The place in the arrays, from 1."""
        place: ColumnElement[int] = self.rows.c[self.n]
        return place

    def cte(self, name: str) -> "Arrays":
        """The same in a WITH clause."""
        return self._replace(rows=select(*self.rows.c).cte(name))


def unnested(kinds: Mapping[str, Any]) -> Arrays:
    """Arrays as rows: a column for each name, bound as `<name>s`."""
    n = unused("n", kinds)
    arrays = [bindparam(f"{name}s", type_=ARRAY(kind)) for name, kind in kinds.items()]
    names = [column(name, kind) for name, kind in kinds.items()]
    rows = func.unnest(*arrays).table_valued(*names, with_ordinality=n, name="given")
    return Arrays(rows.render_derived(), n, {f"{name}s": name for name in kinds})


def arrays(statement: Statement[Any], rows: Sequence[Struct], **others: object) -> list[object]:
    """The rows as the arguments of a statement that takes an array of each field.

    `others` are its arguments that are no arrays of fields, by name.
    """
    return [
        others[name] if name in others else _array(statement, name, rows)
        for name in statement.names
    ]


def _array(statement: Statement[Any], name: str, rows: Sequence[Struct]) -> list[Any]:
    values = list(map(attrgetter(statement.arrays[name]), rows))
    if name in _as_text(statement):
        return [None if value is None else str(value) for value in values]
    return values


@cache
def _as_text(statement: Statement[Any]) -> frozenset[str]:
    """The arguments of a statement that are arrays of numbers as text."""
    return frozenset(
        str(one.key)
        for one in visitors.iterate(statement.core)
        if isinstance(one, BindParameter)
        and isinstance(one.type, ARRAY)
        and isinstance(one.type.item_type, _NumberAsText)
    )


def given_rows(table: Table, fields: Sequence[str]) -> Arrays:
    """The fields of a table as arrays, in a WITH clause."""
    kinds = {field: table.c[field].type for field in fields}
    numbers = {field for field, kind in kinds.items() if type(kind) is Numeric}
    given = unnested(kinds | dict.fromkeys(numbers, _NumberAsText()))
    columns = [
        cast(one, kinds[one.key]).label(one.key) if one.key in numbers else one
        for one in given.rows.c
    ]
    return given._replace(rows=select(*columns).cte(part("rows", table)))


def lock_order(key: ColumnElement[Any], *, folded: bool) -> ColumnElement[Any]:
    """What new rows are sorted by, so that all transactions lock the same keys in one order."""
    return collate(fold_case(key, folded), "C") if isinstance(key.type, String) else key


def fold_case(value: ColumnElement[Any], folded: bool) -> ColumnElement[Any]:
    """The value in lower case if it is `folded`."""
    return func.lower(value) if folded else value
