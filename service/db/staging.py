"""A staging table: rows are copied in as they arrive, and upserted into their table at the end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import BigInteger, Column, MetaData, Table

from service.db.copy import DedicatedConnection
from service.db.shape import check_fields, unused
from service.db.staging_statements import (
    Merged,
    Merging,
    RejectedRow,
    creating,
    held,
    orphans,
)
from service.db.statement import Statement, quoted

# Rows that are encoded before other requests run: at most 5 ms (tests/test_bounds.py measures it).
TURN = 100


class StagingTable:
    """Rows of a file, numbered by their line, in a temporary table of one connection.

    No other connection sees them, and they are gone when this one is closed. No transaction is open
    while they arrive; `validate` and `upsert` run in one. As the other writes of many rows do, they
    lock existing rows in the order of their ids, and then insert new ones in the order of their
    keys, so that writers of the same rows never wait in a circle. New rows have their ids in the
    order of the file: each line takes one.

    Args:
        name: of its statements.
        table: where the rows go.
        new: the Struct of a row.
        key: its unique field, by which an existing row is found; null is always new. Without
            a key every row is new.
        folded: whether the key is unique without regard to case.
    """

    def __init__(
        self, name: str, table: Table, new: type[Struct], key: str | None, *, folded: bool = False
    ) -> None:
        fields = new.__struct_fields__
        check_fields(table, fields)
        self.key = key
        # A column beside the fields, which may have any names.
        n = unused("n", fields)
        self.columns = (n, *fields)
        self.stage = stage = Table(
            f"{table.name}_stage",
            MetaData(),
            Column(n, BigInteger, primary_key=True, autoincrement=False),
            Column("id", BigInteger),
            *(Column(field, table.c[field].type) for field in fields),
            prefixes=["TEMPORARY"],
        )
        self.create = creating(stage, table)
        parents = {
            column.name: next(iter(column.foreign_keys)).column
            for column in table.c
            if column.foreign_keys and column.name in fields
        }
        self.held = [
            held(f"{name}.held_{field}", stage.c[field], parent)
            for field, parent in parents.items()
        ]
        self.orphans = {
            field: orphans(f"{name}.orphans_{field}", stage.c[n], stage.c[field], parent)
            for field, parent in parents.items()
        }
        into = Merging(name, stage, table, fields, n, key, folded)
        self.without_key = into.merging()
        self.index: str | None = None
        self.repeated: Statement[RejectedRow] | None = None
        self.locked: Statement[int] | None = None
        self.with_key: Statement[Merged] | None = None
        if key is not None:
            self.index = into.indexing(key)
            self.repeated = into.repeated(key)
            self.locked = into.locked(key)
            self.with_key = into.merging(key)
        every = (
            *self.held,
            *self.orphans.values(),
            self.repeated,
            self.locked,
            self.with_key,
            self.without_key,
        )
        self.statements: tuple[Statement[Any], ...] = tuple(one for one in every if one is not None)

    async def open(self, one: DedicatedConnection) -> None:
        """Create it, on this connection."""
        await one.execute(self.create)

    async def add(self, one: DedicatedConnection, rows: Sequence[Sequence[object]]) -> None:
        """Append rows: the line and the fields, in order."""
        with one.watched():
            await one.connection.copy_records_to_table(
                self.stage.name, records=_paced(rows), columns=self.columns
            )

    async def validate(self, one: DedicatedConnection) -> list[tuple[RejectedRow, str]]:
        """Delete rows that can't be written, and lock what the others need.

        Returns:
            The rejected rows, each with its field.
        """
        if self.index is not None:
            await one.execute(self.index)
        await one.execute(f"ANALYZE {quoted(self.stage)}")
        for statement in self.held:
            await statement.records(one)
        found: list[tuple[RejectedRow, str]] = []
        for field, rejected in self.orphans.items():
            found += [(RejectedRow(*record), field) for record in await rejected.records(one)]
        if self.key is not None and self.repeated is not None and self.locked is not None:
            found += [
                (RejectedRow(*record), self.key) for record in await self.repeated.records(one)
            ]
            await self.locked.records(one)
        return found

    async def upsert(self, one: DedicatedConnection) -> AsyncGenerator[Merged]:
        """Write the rows, batch by batch; existing rows that are equal stay as they are."""
        for statement in (self.with_key, self.without_key):
            after: object = None
            while statement is not None:
                done = await statement.one(one, after=after)
                assert done is not None  # noqa: S101 - it counts, so there is a row
                yield done
                after = done.last
                if after is None:
                    break


async def _paced(rows: Sequence[Sequence[object]]) -> AsyncIterator[Sequence[object]]:
    """One by one; other requests run after every TURN rows."""
    for place, row in enumerate(rows):
        if place % TURN == 0:
            await asyncio.sleep(0)
        yield row
