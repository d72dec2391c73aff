"""Many requests, one statement: batched reads and group commit, each with a batcher."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct
from sqlalchemy import ARRAY, FromClause, Table, any_, bindparam, insert, select

from service.db.arrays import array_arguments, literals_of, padded, unnested
from service.db.batcher import Batcher, Waiter
from service.db.bisection import bisect_on_error
from service.db.database import Database
from service.db.shape import check_fields
from service.db.statement import RefusedError, Statement, binds, columns
from service.db.writable import WritableDatabase
from service.errors import Problem

Row = TypeVar("Row", bound=Struct)
Value = TypeVar("Value")


class HasArgs(Protocol):
    """What has the values of a new row, as a Waiter."""

    @property
    def args(self) -> Any: ...


Given = TypeVar("Given", bound=HasArgs)

# Requests in a statement. Each waits for all of its statement, and a failure repeats all of it
# (`python -m bench trials max-batch`).
READS, WRITES = 128, 128
# Statements that write at once while requests wait: one larger commit costs less than two that
# overlap (`python -m bench trials in-flight`).
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
    They wait for that run instead of sharing the one that has been sent, see `BatchLoader`.

    Args:
        db: where it runs.
        statement: a read.
        values: its arguments by name.
        make: called with the records of a run.
        binding: what `make` depends on beside the statement and the values.
    """
    args = tuple(values[name] for name in statement.names)
    if not db.batching:
        return make(await db.fetch(statement, args))
    key = (statement, args, binding)
    batcher = db.batchers.get(key)
    if batcher is None:

        async def run_one(db: Database, _: object) -> Value:
            return make(await db.fetch(statement, args))

        async def run_batch(db: Database, batch: list[Waiter]) -> None:
            try:
                made = make(await db.fetch(statement, args))
            except Problem as problem:
                for waiter in batch:
                    waiter.refuse(problem)
                return
            for waiter in batch:
                waiter.answer(made)

        batcher = db.batchers[key] = Batcher(
            statement.name,
            run_one,
            run_batch,
            ordered=False,
            max_batch=db.queue_limit,
            in_flight=1,
            unqueued=1,
            when_idle=lambda db: db.batchers.pop(key, None),
        )
    made: Value = await batcher.run(db, None, None)
    return made


def answer_all(answers: Sequence[tuple[Waiter, Any]]) -> None:
    """Let the waiters of a batch take their answers, those of each class together."""
    for kind in {type(waiter) for waiter, _ in answers}:
        some = [one for one in answers if type(one[0]) is kind]
        if kind.together is not None:
            kind.together(some)
        else:
            for waiter, value in some:
                waiter.answer(value)


class BatchLoader(Generic[Row]):
    """Rows by a unique column: concurrent reads share a statement, and equal keys are one.

    A read never joins a statement that has been sent. So a read that starts after the answer to a
    write sees that write.

    Args:
        name: of the statements: `<name>`, and `<name>_many`.
        row: the Struct of a row, which has the key as a field.
        table: where the rows are; also a subquery of several tables.
        key: the unique column.
    """

    def __init__(self, name: str, row: type[Row], table: FromClause, key: str = "id") -> None:
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
        found: Row | None = await (db.batchers.get(self) or self._batcher(db)).run(db, None, key)
        return found

    async def several(self, db: Database, keys: Iterable[Any]) -> dict[Any, Row]:
        """The rows that exist, by their keys; they share statements with other requests."""
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        if not db.batching:
            return await self._rows(db, wanted)
        found: dict[Any, Row] = await (db.batchers.get(self) or self._batcher(db)).run(
            db, None, wanted
        )
        return found

    def submit(self, db: Database, waiter: Waiter) -> None:
        """Let a waiter take the row of the key in its `args`, or None; see Batcher.submit."""
        (db.batchers.get(self) or self._batcher(db)).submit(db, waiter)

    def _batcher(self, db: Database) -> Batcher:
        made = Batcher(
            self.single.name, self._run_one, self._run_batch, ordered=False, max_batch=READS
        )
        db.batchers[self] = made
        return made

    async def _rows(self, db: Database, keys: list[Any]) -> dict[Any, Row]:
        if len(keys) == 1:
            records = await db.fetch(self.single, keys)
        else:
            records = await db.fetch(self.many, (padded(keys),))
        return {record[self.place]: self.many.row(*record) for record in records}

    async def _run_one(self, db: Database, args: Any) -> Any:
        """The arguments of a request are a key, or a list of them."""
        if isinstance(args, list):
            return await self._rows(db, args)
        return await self.single.get(db, args)

    async def _run_batch(self, db: Database, batch: list[Waiter]) -> None:
        keys: dict[Any, None] = {}
        for waiter in batch:
            args = waiter.args
            if isinstance(args, list):
                keys.update(dict.fromkeys(args))
            else:
                keys[args] = None
        try:
            found = await self._rows(db, list(keys))
        except Problem as problem:
            for waiter in batch:
                waiter.refuse(problem)
            return
        for waiter in batch:
            args = waiter.args
            if isinstance(args, list):
                waiter.answer({key: found[key] for key in args if key in found})
            else:
                waiter.answer(found.get(args))


class GroupCommit(Generic[Row]):
    """New rows: concurrent creations share a statement, and so a commit.

    The rows of a statement are inserted in the order of their keys, so that two statements with the
    same keys never wait for each other in a circle.

    Args:
        name: of the statements: `<name>`, and `<name>_many`.
        row: the Struct of a row.
        table: where the rows go.
        new: the Struct of what a client sends.
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
        kinds = {field: table.c[field].type for field in fields}
        given = unnested(kinds, literals_of(kinds))
        rows = select(*(given.rows.c[field] for field in fields)).order_by(given.place)
        # Identities are given in that order (https://docs.sqlalchemy.org, "insertmanyvalues", cites
        # PostgreSQL's developers), so the n-th smallest id is that of the n-th row, in whatever
        # order the rows come back.
        self.many = Statement(
            f"{name}_many",
            row,
            insert(table).from_select(fields, rows).returning(*shown),
            order=tuple(f"{field}s" for field in fields),
            arrays=given.binds,
            as_text=given.as_text,
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
            Problem: 409 or 422 for these values alone, also when others shared the statement.
        """
        if not db.batching:
            return await self.single.only(db, *values)
        made: Row = await (db.batchers.get(self) or self._batcher(db)).run(db, None, values)
        return made

    def submit(self, db: WritableDatabase, waiter: Waiter) -> None:
        """Let a waiter take the row of the values in its `args`; see Batcher.submit."""
        (db.batchers.get(self) or self._batcher(db)).submit(db, waiter)

    def _batcher(self, db: WritableDatabase) -> Batcher:
        made = db.batchers[self] = Batcher(
            self.single.name,
            self._run_one,
            self._run_batch,
            ordered=False,
            max_batch=WRITES,
            in_flight=COMMITS,
            unqueued=2,
        )
        return made

    def _order(self, given: HasArgs) -> tuple[bool, Any]:
        assert self.key is not None  # noqa: S101 - the caller has looked
        value = given.args[self.key]
        if value is None:
            return False, None
        return True, value.lower() if self.folded else value

    async def _run_one(self, db: WritableDatabase, values: tuple[object, ...]) -> Row:
        return await self.single.only(db, *values)

    async def insert(self, db: WritableDatabase, batch: list[Given]) -> list[tuple[Given, Row]]:
        """Insert several rows; return each of `batch` with its row."""
        if self.key is not None:
            batch = sorted(batch, key=self._order)
        columns = zip(*(one.args for one in batch), strict=True)
        records = await db.fetch(self.many, array_arguments(self.many, columns))
        ordered = sorted(records, key=itemgetter(self.place))
        return [(one, self.many.row(*record)) for one, record in zip(batch, ordered, strict=True)]

    async def _run_many(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        answer_all(await self.insert(db, batch))

    async def _run_batch(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        await bisect_on_error(db, batch, self._run_one, self._run_many)
