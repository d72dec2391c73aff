"""Many requests, one statement: coalesced reads and group commit, each in a batcher."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from msgspec import Struct
from sqlalchemy import ARRAY, Table, any_, bindparam, insert, select

from service.db.arrays import unnested
from service.db.batcher import Batcher, Waiter, bisect_on_error
from service.db.database import Database
from service.db.shape import check_fields
from service.db.statement import RefusedError, Statement, binds, columns
from service.db.writable import WritableDatabase
from service.errors import Problem

Row = TypeVar("Row", bound=Struct)
Value = TypeVar("Value")

# Members of a statement at most: what one has to wait for, and what a failure throws back.
READS, WRITES = 128, 128
# Statements that write, at once, while requests wait: one larger commit is worth more than two that
# overlap.
COMMITS = 1


async def single_flight(
    db: Database,
    statement: Statement[Any],
    values: Mapping[str, object],
    make: Callable[[list[Any]], Value],
    binding: bytes = b"",
) -> Value:
    """What `make` returns for the records of a read.

    Identical reads that come while it runs share the next run, and what is made of its records.
    They wait for it instead of sharing what has been sent, for the same reason as `BatchLoader`.

    Args:
        db: where it runs.
        statement: a read.
        values: its arguments by name.
        make: called with the records of a run.
        binding: tells, with the statement and the values, all else that `make` depends on.
    """
    args = tuple(values[name] for name in statement.names)
    if not db.batching:
        return make(await db.fetch(statement, args))
    key = (statement, args, binding)
    batcher = db.batchers.get(key)
    if batcher is None:

        async def run_one(_: object) -> Value:
            return make(await db.fetch(statement, args))

        async def run_batch(batch: list[Waiter]) -> None:
            try:
                made = make(await db.fetch(statement, args))
            except Problem as problem:
                for waiter in batch:
                    waiter.refuse(problem)
                return
            for waiter in batch:
                waiter.answer(made)

        batcher = db.batchers[key] = Batcher(
            db,
            run_one,
            run_batch,
            ordered=False,
            most=db.queue_limit,
            in_flight=1,
            singles=1,
            when_idle=lambda: db.batchers.pop(key, None),
        )
    made: Value = await batcher.run(None, None)
    return made


class BatchLoader(Generic[Row]):
    """Rows by a unique column: concurrent reads share a statement, and a key asked twice is one.

    A read joins no statement that has been sent, so one that starts after a write was answered sees
    the write.
    """

    def __init__(self, name: str, row: type[Row], table: Table, key: str = "id") -> None:
        rows = select(*columns(row, table))
        by = table.c[key]
        wanted = by == any_(bindparam("keys", type_=ARRAY(by.type)))
        self.single = Statement(name, row, rows.where(by == bindparam(key)), order=(key,))
        self.many = Statement(f"{name}_many", row, rows.where(wanted), order=("keys",))
        self.place = row.__struct_fields__.index(key)
        self.prepared = (self.single, self.many)

    async def get(self, db: Database, key: Any) -> Row | None:
        """The row, or None."""
        if not db.batching:
            return await self.single.get(db, key)
        batcher = db.batchers.get(self) or db.batchers.setdefault(self, self._batcher(db))
        found: Row | None = await batcher.run(None, key)
        return found

    async def several(self, db: Database, keys: Iterable[Any]) -> dict[Any, Row]:
        """The rows that there are, by their keys; with those of others in the same statement."""
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        if not db.batching:
            return await self._rows(db, wanted)
        batcher = db.batchers.get(self) or db.batchers.setdefault(self, self._batcher(db))
        found: dict[Any, Row] = await batcher.run(None, wanted)
        return found

    async def _rows(self, db: Database, keys: list[Any]) -> dict[Any, Row]:
        if len(keys) == 1:
            records = await db.fetch(self.single, keys)
        else:
            records = await db.fetch(self.many, (keys,))
        return {record[self.place]: self.many.row(*record) for record in records}

    def _batcher(self, db: Database) -> Batcher:
        async def run_one(asked: Any) -> Any:
            if isinstance(asked, list):
                return await self._rows(db, asked)
            return await self.single.get(db, asked)

        async def run_batch(batch: list[Waiter]) -> None:
            keys: dict[Any, None] = {}
            for waiter in batch:
                keys.update(dict.fromkeys(waiter.asked if several(waiter) else (waiter.asked,)))
            try:
                found = await self._rows(db, list(keys))
            except Problem as problem:
                for waiter in batch:
                    waiter.refuse(problem)
                return
            for waiter in batch:
                if several(waiter):
                    waiter.answer({key: found[key] for key in waiter.asked if key in found})
                else:
                    waiter.answer(found.get(waiter.asked))

        def several(waiter: Waiter) -> bool:
            return isinstance(waiter.asked, list)

        return Batcher(db, run_one, run_batch, ordered=False, most=READS)


class GroupCommit(Generic[Row]):
    """New rows: concurrent creations share a statement, and so a commit.

    The rows of a statement are inserted in the order of their keys, so that two statements with the
    same keys never wait for each other in a circle.

    Args:
        key: the unique field of `new`, if it has one; null sorts first.
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
        check_fields(table, new.__struct_fields__)
        fields = new.__struct_fields__
        shown = columns(row, table)
        self.single = Statement(
            name, row, insert(table).values(binds(new, table)).returning(*shown), order=fields
        )
        given = unnested({field: table.c[field].type for field in fields})
        rows = select(*(given.rows.c[field] for field in fields)).order_by(given.place)
        # Identities are drawn in that order (https://docs.sqlalchemy.org, "insertmanyvalues", tells
        # of PostgreSQL's word for it), so the n-th smallest id is the n-th member's, however the
        # rows come back.
        self.many = Statement(
            f"{name}_many",
            row,
            insert(table).from_select(fields, rows).returning(*shown),
            order=tuple(f"{field}s" for field in fields),
            arrays=given.binds,
        )
        if key is not None and key not in fields:
            raise RefusedError(f"{name}: {new.__name__} has no field {key!r}")
        self.key = None if key is None else fields.index(key)
        self.folded = folded
        self.place = row.__struct_fields__.index("id")
        self.prepared = (self.single, self.many)

    async def run(self, db: WritableDatabase, values: tuple[object, ...]) -> Row:
        """The row as it was made; `values` are those of the Struct, in its order.

        Raises:
            Problem: 409 or 422 for these values alone, whoever shared the statement.
        """
        if not db.batching:
            return await self.single.only(db, *values)
        batcher = db.batchers.get(self) or db.batchers.setdefault(self, self._batcher(db))
        made: Row = await batcher.run(None, values)
        return made

    def _order(self, waiter: Waiter) -> tuple[bool, Any]:
        assert self.key is not None  # noqa: S101 - the caller has looked
        value = waiter.asked[self.key]
        if value is None:
            return False, None
        return True, value.lower() if self.folded else value

    def _batcher(self, db: WritableDatabase) -> Batcher:
        async def run_one(values: tuple[object, ...]) -> Row:
            return await self.single.only(db, *values)

        async def several(batch: list[Waiter]) -> None:
            if self.key is not None:
                batch = sorted(batch, key=self._order)
            arrays = list(zip(*(waiter.asked for waiter in batch), strict=True))
            records = await db.fetch(self.many, arrays)
            ordered = sorted(records, key=lambda record: record[self.place])
            for waiter, record in zip(batch, ordered, strict=True):
                waiter.answer(self.many.row(*record))

        async def run_batch(batch: list[Waiter]) -> None:
            await bisect_on_error(batch, run_one, several)

        return Batcher(
            db,
            run_one,
            run_batch,
            ordered=False,
            most=WRITES,
            in_flight=COMMITS,
            singles=2,
        )
