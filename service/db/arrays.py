"""Rows as arguments: one array for each field, which `unnest` makes rows of again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
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

from service.db.shape import part, unused
from service.db.statement import Statement

# Makes the text of an array from its values, as PostgreSQL writes it.
Literal = Callable[[list[Any]], str]
NONE: Mapping[str, Literal] = MappingProxyType({})


def of_texts(values: list[Any]) -> str:
    """The text of an array of texts, each in quotes."""
    if None not in values:
        # All at once takes a tenth of the time, if nothing in them needs an escape.
        joined = '","'.join(values)
        if "\\" not in joined and joined.count('"') == 2 * (len(values) - 1):
            return f'{{"{joined}"}}'
    return f"{{{','.join(map(_quoted, values))}}}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))


def of_numbers(values: list[Any]) -> str:
    """The text of an array of numbers or booleans."""
    return f"{{{','.join(['NULL' if value is None else str(value) for value in values])}}}"


# By type. asyncpg asks of each element of an array whether it is an array itself, and takes 0.3 us
# for a text and 2 us for a price, all in one step of the event loop. The text of an array takes
# less than 0.1 us and 0.3 us.
LITERALS: dict[type, Literal] = {
    **dict.fromkeys((String, Text), of_texts),
    **dict.fromkeys((BigInteger, Boolean, Integer, Numeric), of_numbers),
}
# Elements that PostgreSQL expects in an array that it does not know.
EXPECTED = 10


class Arrays(NamedTuple):
    """What can be selected from.

    Args:
        rows: has a column for each name.
        n: the name of one more, the place in the arrays from 1.
        binds: the name behind each bind.
        as_text: for the binds that are sent as text, what makes the text of an array.
    """

    rows: Any
    n: str
    binds: Mapping[str, str]
    as_text: Mapping[str, Literal] = NONE

    @property
    def place(self) -> ColumnElement[int]:
        """The place in the arrays, from 1."""
        place: ColumnElement[int] = self.rows.c[self.n]
        return place

    def cte(self, name: str) -> "Arrays":
        """The same in a WITH clause."""
        return self._replace(rows=select(*self.rows.c).cte(name))


def unnested(kinds: Mapping[str, Any], literals: Mapping[str, Literal] = NONE) -> Arrays:
    """Arrays as rows: a column for each name, bound as `<name>s`; those of `literals` as text."""
    n = unused("n", kinds)
    arrays = [
        cast(bindparam(f"{name}s", type_=Text()), ARRAY(kind))
        if name in literals
        else bindparam(f"{name}s", type_=ARRAY(kind))
        for name, kind in kinds.items()
    ]
    names = [column(name, kind) for name, kind in kinds.items()]
    rows = func.unnest(*arrays).table_valued(*names, with_ordinality=n, name="given")
    as_text = {f"{name}s": literal for name, literal in literals.items()}
    return Arrays(rows.render_derived(), n, {f"{name}s": name for name in kinds}, as_text)


def arrays(statement: Statement[Any], rows: Sequence[Struct], **others: object) -> list[object]:
    """The rows as the arguments of a statement that takes an array of each field.

    `others` are its arguments that are no arrays of fields, by name.
    """
    return [
        others[name] if name in others else _array(statement, name, rows)
        for name in statement.names
    ]


def array_arguments(statement: Statement[Any], columns: Iterable[Sequence[Any]]) -> list[object]:
    """The values of each field as the arguments of a statement of arrays, in their order."""
    literals = [statement.as_text.get(name) for name in statement.names]
    return [
        values if literal is None else literal(list(values))
        for literal, values in zip(literals, columns, strict=True)
    ]


def padded(keys: list[Any]) -> list[Any]:
    """The keys, and nulls up to the number that PostgreSQL expects; a null matches no row.

    With fewer keys the plan for all values looks too expensive, so PostgreSQL plans each use
    (tests/test_plans.py).
    """
    return keys + [None] * (EXPECTED - len(keys))


def _array(statement: Statement[Any], name: str, rows: Sequence[Struct]) -> object:
    values = list(map(attrgetter(statement.arrays[name]), rows))
    literal = statement.as_text.get(name)
    return values if literal is None else literal(values)


def given_rows(table: Table, fields: Sequence[str]) -> Arrays:
    """The fields of a table as arrays, in a WITH clause."""
    kinds = {field: table.c[field].type for field in fields}
    return unnested(kinds, literals_of(kinds)).cte(part("rows", table))


def literals_of(kinds: Mapping[str, Any]) -> Mapping[str, Literal]:
    """What makes the text of the arrays of these types, for those that can be sent as text."""
    return {one: LITERALS[type(kind)] for one, kind in kinds.items() if type(kind) in LITERALS}


def lock_order(key: ColumnElement[Any], *, folded: bool) -> ColumnElement[Any]:
    """What new rows are sorted by, so that all transactions lock the same keys in one order."""
    return collate(fold_case(key, folded), "C") if isinstance(key.type, String) else key


def fold_case(value: ColumnElement[Any], folded: bool) -> ColumnElement[Any]:
    """The value in lower case if it is `folded`."""
    return func.lower(value) if folded else value
