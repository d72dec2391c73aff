"""The changes of a row as Core statements: what is set, and what guards it."""

from collections.abc import Sequence
from typing import Any

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
    any_,
    bindparam,
    case,
    cast,
    delete,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
    update,
)

from service.db.batch import unnested
from service.db.statement import binds, columns


def replacing(table: Table, new: type[Struct]) -> Update:
    """Every field of `new` is set."""
    return update(table).values(**binds(new, table), **touched(table))


def changing(table: Table, change: type[Struct]) -> Update:
    """Each field is `new_<field>` where `set_<field>` is true, else stays as it is.

    So any set of changed fields is one statement, prepared once; `change_values` fills it.
    """
    fields: dict[str, ColumnElement[Any]] = {
        name: case(
            (
                bindparam(f"set_{name}", type_=Boolean),
                bindparam(f"new_{name}", type_=table.c[name].type),
            ),
            else_=table.c[name],
        )
        for name in change.__struct_fields__
    }
    return update(table).values(**fields, **touched(table))


def change_values(change: Struct) -> dict[str, object]:
    """The arguments of `changing`; empty when every field of the Struct is UNSET."""
    values: dict[str, object] = {}
    changes = False
    for name in change.__struct_fields__:
        value = getattr(change, name)
        present = value is not UNSET
        changes = changes or present
        values[f"set_{name}"] = present
        values[f"new_{name}"] = value if present else None
    return values if changes else {}


def fields_set(change: Struct) -> list[str]:
    """The fields of a change that are not UNSET."""
    return [name for name in change.__struct_fields__ if getattr(change, name) is not UNSET]


def merging(table: Table, fields: Sequence[str], row: type[Struct]) -> Any:
    """Changes of many rows, each of fields of its own: the arguments of `changing` as arrays.

    Beside them `ids`, `versions` (null where any will do) and `softs`: whether it is a soft delete,
    which leaves the version of an inactive row as it is.
    """
    kinds: dict[str, Any] = {"id": BigInteger(), "version": BigInteger(), "soft": Boolean()}
    for name in fields:
        kinds |= {f"set_{name}": Boolean(), f"new_{name}": table.c[name].type}
    given = unnested(kinds)
    values: dict[str, ColumnElement[Any]] = {
        name: case((given.c[f"set_{name}"], given.c[f"new_{name}"]), else_=table.c[name])
        for name in fields
    }
    moved = or_(not_(given.c.soft), table.c.is_active)
    return (
        update(table)
        .values(
            **values,
            version=table.c.version + cast(moved, Integer),
            updated_at=case((moved, func.now()), else_=table.c.updated_at),
        )
        .where(
            table.c.id == given.c.id,
            func.coalesce(table.c.version == given.c.version, true()),
        )
        .returning(*columns(row, table))
    )


def deactivating(table: Table) -> Update:
    """The soft delete. Twice is once: a row that is inactive already keeps its version."""
    active = table.c.is_active
    return update(table).values(
        is_active=false(),
        version=table.c.version + cast(active, Integer),
        updated_at=case((active, func.now()), else_=table.c.updated_at),
    )


def removing(table: Table) -> Delete:
    """The permanent delete."""
    return delete(table)


def touched(table: Table) -> dict[str, ColumnElement[Any]]:
    """What changes with every change."""
    return {"version": table.c.version + literal_column("1"), "updated_at": func.now()}


def guarded(change: Any, table: Table) -> Select[Any]:
    """One round trip tells apart: done, refused (`found` alone is not null), no such row.

    The version is compared by the statement that writes, so that no other write comes in between.
    """
    found = select(table.c.version).where(table.c.id == bindparam("id")).cte("found")
    allowed = table.c.version == any_(bindparam("versions", type_=ARRAY(BigInteger)))
    excluded = bindparam("excluded", type_=ARRAY(BigInteger))
    changed = change.where(func.coalesce(allowed, true()), table.c.version != all_(excluded)).cte(
        "changed"
    )
    return select(*changed.c, found.c.version.label("found")).select_from(
        found.outerjoin(changed, true())
    )
