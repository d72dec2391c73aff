"""Writes of one row: replace, change, deactivate and remove, each also guarded by a version."""

from typing import Any, Generic, TypeVar

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
    any_,
    bindparam,
    case,
    cast,
    delete,
    false,
    func,
    literal_column,
    select,
    true,
    update,
)

from service.db.statement import Runner, Statement, binds, columns

Row = TypeVar("Row", bound=Struct)


class Write(Generic[Row]):
    """A write of the row with `id`, as two statements: plain, and only at one of `versions`."""

    def __init__(self, name: str, row: type[Row], table: Table, core: Update | Delete) -> None:
        returning: Any = core.returning(*columns(row, table))
        self.plain = Statement(name, row, returning)
        self.guarded = Statement(f"{name}_if", row, _guarded(returning, table), extra=("found",))

    async def run(
        self, db: Runner, versions: list[int] | None, **values: object
    ) -> tuple[Row | None, int | None]:
        """The row after the write, or None; then the version in its way, if a row was."""
        if versions is None:
            return await self.plain.one(db, **values), None
        records = await self.guarded.records(db, versions=versions, **values)
        if not records:
            return None, None
        record = records[0]
        if record[0] is None:
            return None, record["found"]
        return self.guarded.row(*record[: self.guarded.width]), None


def replacing(table: Table, new: type[Struct]) -> Update:
    """Every field of `new` is set."""
    return _this(table).values(**binds(new, table), **_touched(table))


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
    return _this(table).values(**fields, **_touched(table))


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


def deactivating(table: Table) -> Update:
    """The soft delete. Twice is once: a row that is inactive already keeps its version."""
    active = table.c.is_active
    return _this(table).values(
        is_active=false(),
        version=table.c.version + cast(active, Integer),
        updated_at=case((active, func.now()), else_=table.c.updated_at),
    )


def removing(table: Table) -> Delete:
    """The permanent delete."""
    return delete(table).where(table.c.id == bindparam("id"))


def _this(table: Table) -> Update:
    return update(table).where(table.c.id == bindparam("id"))


def _touched(table: Table) -> dict[str, ColumnElement[Any]]:
    return {"version": table.c.version + literal_column("1"), "updated_at": func.now()}


def _guarded(change: Any, table: Table) -> Select[Any]:
    """One round trip tells apart: done, in the way (`found` alone is not null), no such row."""
    found = select(table.c.version).where(table.c.id == bindparam("id")).cte("found")
    allowed = table.c.version == any_(bindparam("versions", type_=ARRAY(BigInteger)))
    changed = change.where(allowed).cte("changed")
    return select(*changed.c, found.c.version.label("found")).select_from(
        found.outerjoin(changed, true())
    )
