"""Rows as arguments: one array for each field, which `unnest` makes rows of again."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    String,
    Table,
    bindparam,
    collate,
    column,
    func,
    select,
)

from service.db.shape import part, unused
from service.db.statement import Statement


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
        others[name] if name in others else [getattr(row, statement.arrays[name]) for row in rows]
        for name in statement.names
    ]


def given_rows(table: Table, fields: Sequence[str]) -> Arrays:
    """The fields of a table as arrays, in a WITH clause."""
    return unnested({field: table.c[field].type for field in fields}).cte(part("rows", table))


def lock_order(key: ColumnElement[Any], *, folded: bool) -> ColumnElement[Any]:
    """What new rows are sorted by, so that all transactions lock the same keys in one order."""
    return collate(fold_case(key, folded), "C") if isinstance(key.type, String) else key


def fold_case(value: ColumnElement[Any], folded: bool) -> ColumnElement[Any]:
    """The value in lower case if it is `folded`."""
    return func.lower(value) if folded else value
