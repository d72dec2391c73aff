"""Which columns of a table have a meaning of their own for the statements."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Boolean, Column, DateTime, Integer, Table

from service.db.statement import RefusedError

# The role, the name that a column has by convention, and the type that it must have.
CONVENTION: dict[str, tuple[str, type[Any]]] = {
    "version": ("version", Integer),
    "updated": ("updated_at", DateTime),
    "active": ("is_active", Boolean),
}


class Shape(NamedTuple):
    """The columns that the statements read or set by themselves; None where the table has none.

    Args:
        version: grows by 1 at each change. Without it nothing guards a write.
        updated: the time of the last change.
        active: false after a soft delete. Without it there is no soft delete.
    """

    version: Column[Any] | None
    updated: Column[Any] | None
    active: Column[Any] | None


def shape_of(table: Table) -> Shape:
    """The shape of a table, by the names and types of its columns.

    `table.info["shape"]` changes that by role: `{"updated": "changed_at", "active": None}`.

    Raises:
        RefusedError: it names a role that is unknown, or a column of another type.
    """
    given: Mapping[str, str | None] = table.info.get("shape", {})
    unknown = given.keys() - CONVENTION.keys()
    if unknown:
        raise RefusedError(
            f'{table.name}: info["shape"] has {sorted(unknown)}; roles are {list(CONVENTION)}'
        )
    return Shape(**{role: _column(table, role, given) for role in CONVENTION})


def _column(table: Table, role: str, given: Mapping[str, str | None]) -> Column[Any] | None:
    convention, kind = CONVENTION[role]
    name = given.get(role, convention)
    if name is None:
        return None
    column = table.c.get(name)
    if column is not None and isinstance(column.type, kind):
        return column
    if role in given:
        raise RefusedError(
            f'{table.name}: info["shape"] says that {role} is {name!r},'
            f" which must be a column of type {kind.__name__}"
        )
    return None


def check_fields(table: Table, fields: Collection[str]) -> None:
    """Refuse fields of what clients send that the statements set by themselves.

    Raises:
        RefusedError: the id, the version or the time of the last change is among them.
    """
    if "id" in fields:
        raise RefusedError(f"{table.name}.id is given by the database, so clients can't send it")
    shape = shape_of(table)
    for role, column in (("version", shape.version), ("updated", shape.updated)):
        if column is not None and column.name in fields:
            raise RefusedError(
                f"{table.name}.{column.name} is set at each change, so clients can't send it;"
                f' if it is theirs, give the table info={{"shape": {{"{role}": None}}}}'
            )


def unused(name: str, taken: Collection[str]) -> str:
    """The name, with as many underscores behind it as keep it apart from those taken."""
    while name in taken:
        name += "_"
    return name


def part(name: str, table: Table) -> str:
    """A name for a WITH query of a statement that does not hide the table."""
    return unused(name, (table.name,))
