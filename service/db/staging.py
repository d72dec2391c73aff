"""A staging table: rows are copied in as they arrive, and upserted into their table at the end."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import BigInteger, Column, MetaData, Table

from service.db.copy import DedicatedConnection
from service.db.ownership import Owner
from service.db.shape import check_fields, unused
from service.db.staging_statements import (
    Merged,
    Merging,
    Rejected,
    RejectedRow,
    creating,
    held,
    orphans,
)
from service.db.statement import Statement, quoted
from service.errors import Unavailable
from service.slices import next_slice, sliced


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
        owner: of the table's rows, if they have one.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        new: type[Struct],
        key: str | None,
        *,
        folded: bool = False,
        owner: Owner | None = None,
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
        self.own = None if owner is None or key is None else _Own(into._replace(owner=owner), key)
        every = (
            *self.held,
            *self.orphans.values(),
            self.repeated,
            self.locked,
            self.with_key,
            self.without_key,
            *(() if self.own is None else self.own.statements),
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

    async def validate(self, one: DedicatedConnection, owner: int | None = None) -> list[Rejected]:
        """Delete rows that can't be written, and lock what the others need.

        With `owner` this is also a row whose key a row of another user has.
        """
        if self.index is not None:
            await one.execute(self.index)
        await one.execute(f"ANALYZE {quoted(self.stage)}")
        for statement in self.held:
            await statement.records(one)
        found: list[Rejected] = []
        for field, orphaned in self.orphans.items():
            for row in await _rejected(one, orphaned):
                message = f"{field}: {row.value} does not exist"
                found.append(Rejected(row.line, message, orphaned.name, row.alike))
        if self.key is not None and self.repeated is not None and self.locked is not None:
            for row in await _rejected(one, self.repeated):
                message = f"{self.key}: the same as in line {row.first}"
                found.append(Rejected(row.line, message, self.repeated.name, row.alike))
            if owner is None or self.own is None:
                await self.locked.records(one)
            else:
                found += await self.own.foreign_lines(one, owner)
                await self.own.locked.records(one, **{self.own.bind: owner})
        return found

    async def upsert(
        self, one: DedicatedConnection, owner: int | None = None
    ) -> AsyncGenerator[Merged]:
        """Write the rows, batch by batch; existing rows that are equal stay as they are.

        With `owner` only rows of this user are written.

        Raises:
            Unavailable: since `validate`, another user has got a row with one of the keys. Roll
                back, and try again.
        """
        with_key, limit = self.with_key, {}
        if owner is not None and self.own is not None:
            with_key, limit = self.own.with_key, {self.own.bind: owner}
        for statement in (with_key, self.without_key):
            after: object = None
            while statement is not None:
                done = await statement.one(one, after=after, **limit)
                assert done is not None  # noqa: S101 - it counts, so there is a row
                yield done
                after = done.last
                if after is None:
                    break
        if owner is not None and self.own is not None and await self.own.foreign_lines(one, owner):
            raise Unavailable("other requests insert the same rows; try again")


class _Own:
    """The statements that are limited to the rows of an owner."""

    def __init__(self, into: Merging, key: str) -> None:
        assert into.owner is not None  # noqa: S101 - the caller has looked
        self.key = key
        self.bind = into.owner.bind
        self.foreign = into.foreign(key)
        self.locked = into.locked(key)
        self.with_key = into.merging(key)
        self.statements: tuple[Statement[Any], ...] = (self.foreign, self.locked, self.with_key)

    async def foreign_lines(self, one: DedicatedConnection, owner: int) -> list[Rejected]:
        """Delete the lines whose key a row of another user has."""
        return [
            Rejected(row.line, f"{self.key}: already taken", self.foreign.name, row.alike)
            for row in await _rejected(one, self.foreign, **{self.bind: owner})
        ]


async def _rejected(
    one: DedicatedConnection, statement: Statement[RejectedRow], **values: object
) -> list[RejectedRow]:
    return [RejectedRow(*record) for record in await statement.records(one, **values)]


async def _paced(rows: Sequence[Sequence[object]]) -> AsyncIterator[Sequence[object]]:
    """One by one, in slices."""
    for some in sliced(rows):
        await next_slice()
        for row in some:
            yield row
