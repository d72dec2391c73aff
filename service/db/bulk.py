"""Many rows in one statement, all of them or none: created, or changed or removed by ids.

Each statement locks existing rows in the order of their ids, as `Writes` does, before it writes
any; and new rows are inserted in the order of their keys. So writers of the same rows wait for each
other, but never in a circle. New rows have their ids in the order in which they are given.
docs/decisions/multi-row-statements.md says why some statements exist twice.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Table,
    any_,
    bindparam,
    insert,
    select,
)

from service.db.arrays import Arrays, arrays, given_rows, lock_order
from service.db.ownership import OWN, Limited, Owner
from service.db.row_changes import changing, deactivating, removing
from service.db.shape import check_fields, part, shape_of
from service.db.statement import RefusedError, Statement, columns, next_id
from service.db.writable import WritableDatabase
from service.slices import MANY_ROWS, next_slice, sliced

Row = TypeVar("Row", bound=Struct)


class Adds(Generic[Row]):
    """New rows of one request.

    Args:
        name: of the statement.
        row: the Struct of a row as it was made.
        table: where the rows go.
        new: the Struct of a row.
        key: its unique field, which may be null, if it has one.
        folded: whether the key is unique without regard to case.
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        table: Table,
        new: type[Struct],
        key: str | None,
        *,
        folded: bool = False,
    ) -> None:
        fields = new.__struct_fields__
        check_fields(table, fields)
        arrays = given_rows(table, fields)
        adding = inserting(table, arrays, fields, key, folded=folded)
        self.place = row.__struct_fields__.index("id")
        self.statement = Statement(
            name,
            row,
            adding.returning(*columns(row, table)),
            arrays=arrays.binds,
            as_text=arrays.as_text,
            prepare=False,
            numbered=True,
        )
        self.prepared = (self.statement,)

    async def run(self, db: WritableDatabase, rows: Sequence[Struct]) -> list[Row]:
        """The rows as they were made, in their order.

        Raises:
            Problem: 409 and others; nothing was written.
        """
        await next_slice()
        args = arrays(self.statement, rows)
        await next_slice()
        records = await db.fetch(self.statement, args)
        records.sort(key=itemgetter(self.place))
        row, made = self.statement.row, []
        for some in sliced(records, MANY_ROWS):
            await next_slice()
            made += [row(*record) for record in some]
        return made


class Bulk:
    """Writes of the rows with `ids`; each returns the ids that exist.

    Args:
        name: of the statements: `<name>.change_all`, ….
        table: has a column `id`.
        change: the Struct that a change takes, the same for all.
        owner: of the table's rows, if they have one.
    """

    def __init__(
        self, name: str, table: Table, change: type[Struct], *, owner: Owner | None = None
    ) -> None:
        ids = bindparam("ids", type_=ARRAY(BigInteger))

        def existing(own: Owner | None) -> Any:
            only = [] if own is None else [own.owns]
            return select(table.c.id).where(table.c.id == any_(ids), *only).order_by(table.c.id)

        def limited(name: str, core: Callable[[Owner | None], Any]) -> Limited:
            every = Statement[int](name, int, core(None), prepare=False)
            if owner is None:
                return Limited(every)
            own = Statement[int](f"{name}{OWN}", int, core(owner), prepare=False)
            return Limited(every, own, owner.bind)

        def statement(
            what: str, write: Callable[[Owner | None], Any], *only: ColumnElement[bool]
        ) -> Limited:
            def core(own: Owner | None) -> Any:
                rows = existing(own).with_for_update(key_share=what != "remove")
                locked = rows.cte(part("existing", table))
                changed = write(own).where(table.c.id == locked.c.id, *only)
                return select(locked.c.id).add_cte(changed.cte(part("written", table)))

            return limited(f"{name}.{what}_all", core)

        self.name = name
        self.existing = limited(f"{name}.existing", existing)
        self.change = statement(
            "change", lambda own: changing(table, change, own.admin_fields if own else ())
        )
        self.remove = statement("remove", lambda _: removing(table))
        active = shape_of(table).active
        # A row that is inactive already is found all the same, and is left alone.
        self._deactivate = (
            None
            if active is None
            else statement("deactivate", lambda _: deactivating(table), active)
        )
        every = (self.existing, self.change, self._deactivate, self.remove)
        self.prepared = tuple(
            statement for one in every if one is not None for statement in one.statements
        )

    @property
    def deactivate(self) -> Limited:
        """The soft delete.

        Raises:
            RefusedError: the table has none.
        """
        if self._deactivate is None:
            raise RefusedError(f"{self.name}: no column says whether a row is active, see shape.py")
        return self._deactivate


def inserting(
    table: Table,
    arrays: Arrays,
    fields: Sequence[str],
    key: str | None,
    *where: ColumnElement[bool],
    folded: bool,
) -> Any:
    """Rows are inserted in the order of their keys; their ids are in the order given."""
    given = (arrays.rows.c[field] for field in fields)
    rows = select(*given).where(*where).order_by(arrays.place).subquery("new")
    numbered = select(next_id(table).label("id"), *rows.c).cte(part("numbered", table))
    ordered = select(*numbered.c)
    if key is not None:
        ordered = ordered.order_by(lock_order(numbered.c[key], folded=folded))
    return insert(table).from_select(["id", *fields], ordered)
