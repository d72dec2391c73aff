"""The newest rows of each of some parents, and how many rows each has: in one statement."""

from collections.abc import Iterable
from typing import Generic, TypeVar

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Table,
    bindparam,
    column,
    func,
    literal_column,
    select,
    true,
)

from service.db.batcher import Batcher, Waiter
from service.db.database import Database
from service.db.shape import unused
from service.db.statement import Statement, columns
from service.errors import Problem
from service.slices import MANY_ROWS, next_slice

Row = TypeVar("Row", bound=Struct)

# Parents in a statement that requests share: each of them may have many rows.
PARENTS = 32


class NewestRows(Generic[Row]):
    """The rows with the highest ids of each parent, and the number of all its rows.

    The statement reads `limit` rows of each parent, from the index (field, id), and counts the
    others in the index. So it never loads all rows of a parent.

    Args:
        name: of the statement.
        row: the Struct of a row.
        table: where the rows are.
        field: the column with the id of the parent.
        limit: rows of each parent.
    """

    def __init__(self, name: str, row: type[Row], table: Table, field: str, limit: int) -> None:
        shown = columns(row, table)
        parent, total = (unused(one, row.__struct_fields__) for one in ("parent", "total"))
        given = (
            func.unnest(bindparam("parents", type_=ARRAY(BigInteger)))
            .table_valued(column("id", BigInteger))
            .render_derived(name="given")
        )
        of_parent = table.c[field] == given.c.id
        newest = (
            select(*shown)
            .where(of_parent)
            .order_by(table.c.id.desc())
            .limit(literal_column(str(limit)))
            .lateral("newest")
        )
        counted = (
            select(func.count().label("n")).select_from(table).where(of_parent).lateral("counted")
        )
        # A lateral join can only be a nested loop, which keeps the order of `newest`.
        joined = given.join(counted, true()).outerjoin(newest, true())
        self.statement: Statement[Row] = Statement(
            name,
            row,
            select(*newest.c, given.c.id.label(parent), counted.c.n.label(total)).select_from(
                joined
            ),
            order=("parents",),
            extra=(parent, total),
        )
        self.place = row.__struct_fields__.index("id")

    async def get(self, db: Database, parent: int) -> tuple[list[Row], int]:
        """The newest rows of a parent, and the number of all; concurrent requests share it."""
        if not db.batching:
            return await self._run_one(db, parent)
        batcher = db.batchers.get(self)
        if batcher is None:
            batcher = db.batchers[self] = Batcher(
                self.statement.name,
                self._run_one,
                self._run_batch,
                ordered=False,
                max_batch=PARENTS,
            )
        found: tuple[list[Row], int] = await batcher.run(db, None, parent)
        return found

    async def several(
        self, db: Database, parents: Iterable[int]
    ) -> dict[int, tuple[list[Row], int]]:
        """The same for some parents, by their ids.

        It shares no statement: one request may have 100 parents.
        """
        wanted = list(dict.fromkeys(parents))
        found: dict[int, tuple[list[Row], int]] = {one: ([], 0) for one in wanted}
        if not wanted:
            return found
        statement = self.statement
        width, place, row = statement.width, self.place, statement.row
        for number, record in enumerate(await db.fetch(statement, (wanted,)), 1):
            if number % MANY_ROWS == 0:
                await next_slice()
            parent, total = record[width], record[width + 1]
            rows = found[parent][0]
            if record[place] is None:
                continue
            if not rows:
                found[parent] = (rows, total)
            rows.append(row(*record[:width]))
        return found

    async def _run_one(self, db: Database, parent: int) -> tuple[list[Row], int]:
        return (await self.several(db, (parent,)))[parent]

    async def _run_batch(self, db: Database, batch: list[Waiter]) -> None:
        try:
            found = await self.several(db, (waiter.args for waiter in batch))
        except Problem as problem:
            for waiter in batch:
                waiter.refuse(problem)
            return
        for waiter in batch:
            waiter.answer(found[waiter.args])
