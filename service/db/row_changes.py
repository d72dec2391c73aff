"""The changes of a row as Core statements: what is set, and what guards it."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

from msgspec import UNSET, Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Delete,
    Integer,
    Select,
    Table,
    Update,
    all_,
    and_,
    any_,
    bindparam,
    case,
    cast,
    delete,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)

from service.db.arrays import Arrays, literals_of, unnested
from service.db.ownership import Owner
from service.db.shape import check_fields, part, shape_of, unused
from service.db.statement import binds, columns


def replacing(table: Table, new: type[Struct], kept: Collection[str] = ()) -> Update:
    """Every field of `new` is set, except those that are `kept`."""
    check_fields(table, new.__struct_fields__)
    values = {name: bind for name, bind in binds(new, table).items() if name not in kept}
    return update(table).values({**values, **touched(table)})


def changing(table: Table, change: type[Struct], kept: Collection[str] = ()) -> Update:
    """Each field is `new_<field>` where `set_<field>` is true, else it keeps its value.

    So one prepared statement serves every set of fields; `change_values` gives its arguments.
    Those that are `kept` are never set.
    """
    check_fields(table, change.__struct_fields__)
    fields: dict[str, ColumnElement[Any]] = {
        name: case(
            (
                bindparam(f"set_{name}", type_=Boolean),
                bindparam(f"new_{name}", type_=table.c[name].type),
            ),
            else_=table.c[name],
        )
        for name in change.__struct_fields__
        if name not in kept
    }
    return update(table).values({**fields, **touched(table)})


def change_values(change: Struct) -> dict[str, object]:
    """The arguments of `changing`; empty when every field of the Struct is UNSET."""
    values: dict[str, object] = {}
    changes = False
    for name, set_name, new_name in _names(type(change)):
        value = getattr(change, name)
        if value is UNSET:
            values[set_name], values[new_name] = False, None
        else:
            values[set_name], values[new_name] = True, value
            changes = True
    return values if changes else {}


@cache
def _names(change: type[Struct]) -> list[tuple[str, str, str]]:
    return [(name, f"set_{name}", f"new_{name}") for name in change.__struct_fields__]


def fields_set(change: Struct) -> list[str]:
    """The fields of a change that are not UNSET."""
    return [name for name in change.__struct_fields__ if getattr(change, name) is not UNSET]


def merging(
    table: Table, fields: Sequence[str], row: type[Struct], owner: Owner | None = None
) -> tuple[Any, Arrays]:
    """Changes of many rows, each of fields of its own: the arguments of `changing` as arrays.

    Beside them `ids`; `versions`, null for any, if the table has a version; and `softs`, if it has
    a soft delete: true if the change is one, which keeps the version of a row that is inactive.
    With `owner` also `owners`: each change only if the row belongs to its one, null for any row.
    """
    shape = shape_of(table)
    kinds: dict[str, Any] = {"id": BigInteger()}
    if shape.version is not None:
        kinds["version"] = BigInteger()
    if shape.active is not None:
        kinds["soft"] = Boolean()
    if owner is not None:
        kinds["owner"] = BigInteger()
    for name in fields:
        kinds |= {f"set_{name}": Boolean(), f"new_{name}": table.c[name].type}
    arrays = unnested(kinds, literals_of(kinds))
    given = arrays.rows
    sets: dict[str, ColumnElement[bool]] = {name: given.c[f"set_{name}"] for name in fields}
    where = [table.c.id == given.c.id]
    if owner is not None:
        anyone = given.c.owner.is_(null())
        sets |= {name: and_(anyone, sets[name]) for name in fields if name in owner.admin_fields}
        if shape.active is not None and shape.active.name in owner.admin_fields:
            soft = given.c.soft.is_(true())  # owners may delete what they may not activate
            sets[shape.active.name] = or_(sets[shape.active.name], soft)
        where.append(or_(anyone, owner.column == given.c.owner))
    values: dict[str, ColumnElement[Any]] = {
        name: case((sets[name], given.c[f"new_{name}"]), else_=table.c[name]) for name in fields
    }
    if shape.active is None:
        values |= touched(table)
    else:
        values |= _touched_if(table, or_(given.c.soft.is_not(true()), shape.active))
    if shape.version is not None:
        where.append(func.coalesce(shape.version == given.c.version, true()))
    return update(table).values(values).where(*where).returning(*columns(row, table)), arrays


def deactivating(table: Table) -> Update:
    """The soft delete. A row that is inactive already keeps its version.

    The table has a column `active`, see shape.py.
    """
    active = shape_of(table).active
    assert active is not None  # noqa: S101 - the caller has looked
    return update(table).values({active.name: false(), **_touched_if(table, active)})


def removing(table: Table) -> Delete:
    """The permanent delete."""
    return delete(table)


def touched(table: Table) -> dict[str, ColumnElement[Any]]:
    """The columns that are set at every change."""
    shape = shape_of(table)
    values: dict[str, ColumnElement[Any]] = {}
    if shape.version is not None:
        values[shape.version.name] = shape.version + literal_column("1")
    if shape.updated is not None:
        values[shape.updated.name] = func.now()
    return values


def _touched_if(table: Table, condition: ColumnElement[bool]) -> dict[str, ColumnElement[Any]]:
    """The same, only where the condition is true."""
    shape = shape_of(table)
    values: dict[str, ColumnElement[Any]] = {}
    if shape.version is not None:
        values[shape.version.name] = shape.version + cast(condition, Integer)
    if shape.updated is not None:
        values[shape.updated.name] = case((condition, func.now()), else_=shape.updated)
    return values


class Guarded(NamedTuple):
    """A write with a guard, and the names that it has beside those of the write itself."""

    core: Select[Any]
    versions: str
    excluded: str
    found: str


def guarded(
    change: Any,
    table: Table,
    version: ColumnElement[int],
    taken: Collection[str],
    *only: ColumnElement[bool],
) -> Guarded:
    """One round trip for all results: done; refused, if only `found` is not null; or no such row.

    The version is compared by the statement that writes, so no other write can come in between.
    `taken` are the names that the write has. For rows that are not as in `only` there is no such
    row.
    """
    names = [unused(name, taken) for name in ("versions", "excluded", "found")]
    allowed, refused = (bindparam(name, type_=ARRAY(BigInteger)) for name in names[:2])
    found = (
        select(version.label("version"))
        .where(table.c.id == bindparam("id"), *only)
        .cte(part("found", table))
    )
    changed = change.where(
        func.coalesce(version == any_(allowed), true()), version != all_(refused)
    ).cte(part("changed", table))
    core = select(*changed.c, found.c.version.label(names[2]))
    return Guarded(core.select_from(found.outerjoin(changed, true())), *names)
