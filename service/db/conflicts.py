"""Which of many rows PostgreSQL has refused: the places of values that another row already has."""

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import ColumnElement, Table, exists, literal_column, select

from service.db.arrays import Arrays, arrays, fold_case, given_rows
from service.db.ownership import Owner
from service.db.statement import Runner, Statement


def taken_values(
    name: str, table: Table, field: str, *, folded: bool = False, key: str | None = None
) -> Statement[int]:
    """The places of values that another row has; with `key`, only rows of another key count."""
    arrays = given_rows(table, (field,) if key is None else (field, key))
    given = arrays.rows
    others = [fold_case(table.c[field], folded) == fold_case(given.c[field], folded)]
    if key is not None:
        others.append(fold_case(table.c[key], folded) != fold_case(given.c[key], folded))
    return _places(name, arrays, exists().where(*others))


def foreign_values(
    name: str, table: Table, field: str, owner: Owner, *, folded: bool = False
) -> Statement[int]:
    """The places of values that a row has which belongs to another user than the owner."""
    arrays = given_rows(table, (field,))
    same = fold_case(table.c[field], folded) == fold_case(arrays.rows.c[field], folded)
    return _places(name, arrays, exists().where(same, owner.is_foreign))


def missing_parents(name: str, table: Table, field: str, of: Table) -> Statement[int]:
    """The places of values that are not the id of a row of the other table."""
    arrays = given_rows(table, (field,))
    value = arrays.rows.c[field]
    return _places(name, arrays, value.is_not(None), ~exists().where(of.c.id == value))


async def conflicting_rows(
    db: Runner, statement: Statement[int], rows: Sequence[Struct], **others: object
) -> list[int]:
    """The places of the rows that one of these statements finds; `others` see arrays.arrays."""
    return [record[0] for record in await db.fetch(statement, arrays(statement, rows, **others))]


def _places(name: str, arrays: Arrays, *where: ColumnElement[bool]) -> Statement[int]:
    place = arrays.place
    core = select((place - literal_column("1")).label("n")).where(*where).order_by(place)
    return Statement(name, int, core, arrays=arrays.binds, as_text=arrays.as_text, prepare=False)
