"""A stage: rows come in by COPY as they arrive, and go over into their table all at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    collate,
    delete,
    exists,
    func,
    literal_column,
    null,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.schema import CreateIndex, CreateTable

from service.db.changes import touched
from service.db.copy import DedicatedConnection
from service.db.statement import DIALECT, Statement, next_id

# Problems that are told one by one.
TOLD = 100
# Rows of a statement that goes over: enough for its own cost not to count, few enough for what its
# triggers keep of it.
BATCH = 20_000
# Rows that are encoded before others have their turn.
TURN = 100


class RejectedRow(NamedTuple):
    """A row that can't go over.

    Its line, the value that is to blame, the line that has the same before it, and how many are
    as spoiled as this one.
    """

    line: int
    value: str
    first: int | None
    alike: int


class Merged(NamedTuple):
    """What became of the rows of a batch, and where the next one begins: after `last`."""

    given: int
    created: int
    written: int
    last: Any


class StagingTable:
    """Rows that wait, numbered by their line, in a temporary table of one connection.

    Nobody else sees them, and whatever ends the connection ends them. No transaction is open while
    they come; `settle` and `merge` belong into one. As the other writes of many rows do, it locks
    rows that stand in the order of their ids, and then makes new ones in the order of their keys,
    so that writers of the same rows never wait in a circle. The new ones have their ids by the
    order of the file: each line draws one.

    Args:
        name: of its statements.
        table: where they go.
        new: the Struct that a row comes as.
        key: its unique column, by which a row that stands is known again; null is always new.
    """

    def __init__(self, name: str, table: Table, new: type[Struct], key: str) -> None:
        fields = new.__struct_fields__
        self.key = key
        self.columns = ("n", *fields)
        self.stage = stage = Table(
            f"{table.name}_stage",
            MetaData(),
            Column("n", BigInteger, primary_key=True, autoincrement=False),
            Column("id", BigInteger, server_default=next_id(table)),
            *(Column(field, table.c[field].type) for field in fields),
            prefixes=["TEMPORARY"],
        )
        self.create = str(CreateTable(stage).compile(dialect=DIALECT)).strip()
        self.repeated = _repeated(f"{name}.repeated", stage, key)
        parents = {
            column.name: next(iter(column.foreign_keys)).column
            for column in table.c
            if column.foreign_keys and column.name in fields
        }
        self.held = [
            _held(f"{name}.held_{field}", stage.c[field], parent)
            for field, parent in parents.items()
        ]
        self.orphans = {
            field: _orphans(f"{name}.orphans_{field}", stage, field, parent)
            for field, parent in parents.items()
        }
        order = collate(stage.c[key], "C")
        self.index = str(CreateIndex(Index(f"{stage.name}_key", order)).compile(dialect=DIALECT))
        self.locked = _locked(f"{name}.locked", stage, table, key)
        self.with_key = _merged(f"{name}.keyed", stage, table, fields, key, order)
        self.without_key = _merged(f"{name}.keyless", stage, table, fields, key, stage.c.n)
        self.statements: tuple[Statement[Any], ...] = (
            *self.held,
            *self.orphans.values(),
            self.repeated,
            self.locked,
            self.with_key,
            self.without_key,
        )

    async def open(self, one: DedicatedConnection) -> None:
        """Make it, on this connection."""
        await one.execute(self.create)

    async def add(self, one: DedicatedConnection, rows: Sequence[Sequence[object]]) -> None:
        """Put rows behind those that are there: line and fields, in order."""
        with one.watched():
            await one.connection.copy_records_to_table(
                self.stage.name, records=_paced(rows), columns=self.columns
            )

    async def validate(self, one: DedicatedConnection) -> list[tuple[RejectedRow, str]]:
        """Take out what can't go over, and hold what the rest refers to; the field beside each."""
        await one.execute(self.index)
        await one.execute(f"ANALYZE {self.stage.name}")
        for held in self.held:
            await held.records(one)
        found: list[tuple[RejectedRow, str]] = []
        for field, rejected in (*self.orphans.items(), (self.key, self.repeated)):
            found += [(RejectedRow(*record), field) for record in await rejected.records(one)]
        await self.locked.records(one)
        return found

    async def upsert(self, one: DedicatedConnection) -> AsyncGenerator[Merged]:
        """Bring the rows over, batch by batch; those that stand and are the same stay so."""
        for statement, first in ((self.with_key, ""), (self.without_key, 0)):
            after: object = first
            while after is not None:
                done = await statement.one(one, after=after)
                assert done is not None  # noqa: S101 - it counts, so there is a row
                yield done
                after = done.last


async def _paced(rows: Sequence[Sequence[object]]) -> AsyncIterator[Sequence[object]]:
    """One by one, with a turn for everybody else now and then."""
    for place, row in enumerate(rows):
        if place % TURN == 0:
            await asyncio.sleep(0)
        yield row


def _repeated(name: str, stage: Table, key: str) -> Statement[RejectedRow]:
    """Of lines with the same key the first stays."""
    this = stage.c[key]
    firsts = (
        select(this, func.min(stage.c.n).label("first"))
        .where(this.is_not(null()))
        .group_by(this)
        .having(func.count() > literal_column("1"))
        .cte("firsts")
    )
    gone = (
        delete(stage)
        .where(this == firsts.c[key], stage.c.n != firsts.c.first)
        .returning(stage.c.n, this.label("value"), firsts.c.first)
    )
    return _told(name, gone)


def _held(name: str, field: ColumnElement[Any], parent: ColumnElement[Any]) -> Statement[int]:
    """Rows that ours refer to stay until we have ended; the foreign key would see to it later."""
    rows = (
        select(parent)
        .where(parent.in_(select(field)))
        .order_by(parent)
        .with_for_update(read=True, key_share=True)
        .subquery("held")
    )
    return Statement(name, int, select(func.count().label("held")).select_from(rows), prepare=False)


def _orphans(
    name: str, stage: Table, field: str, parent: ColumnElement[Any]
) -> Statement[RejectedRow]:
    """What refers to nothing goes."""
    this = stage.c[field]
    nothing = literal_column("null", BigInteger).label("first")
    gone = (
        delete(stage)
        .where(this.is_not(null()), ~exists().where(parent == this))
        .returning(stage.c.n, this.label("value"), nothing)
    )
    return _told(name, gone)


def _told(name: str, gone: Any) -> Statement[RejectedRow]:
    """What was deleted: how many, and the first of them."""
    rows = gone.cte("gone")
    told = (
        select(
            rows.c.n,
            cast(rows.c.value, Text).label("value"),
            rows.c.first,
            func.count().over().label("alike"),
        )
        .order_by(rows.c.n)
        .limit(literal_column(str(TOLD)))
    )
    return Statement(name, RejectedRow, told, prepare=False)


def _locked(name: str, stage: Table, table: Table, key: str) -> Statement[int]:
    """The rows that stand, in the order of their ids."""
    rows = (
        select(table.c.id)
        .where(table.c[key] == stage.c[key])
        .order_by(table.c.id)
        .with_for_update(of=table, key_share=True)
        .subquery("locked")
    )
    counted = select(func.count().label("locked")).select_from(rows)
    return Statement(name, int, counted, prepare=False)


def _merged(
    name: str,
    stage: Table,
    table: Table,
    fields: Sequence[str],
    key: str,
    order: ColumnElement[Any],
) -> Statement[Merged]:
    """A batch of the rows behind `after` in this order: that of the key, or of those without."""
    without_key = order is stage.c.n
    rows = (
        select(stage.c.id, *(stage.c[field] for field in fields), order.label("place"))
        .where(order > bindparam("after", type_=BigInteger if without_key else Text))
        .order_by(order)
        .limit(literal_column(str(BATCH)))
    )
    if without_key:
        rows = rows.where(stage.c[key].is_(null()))
    batch = rows.cte("batch")
    given = ["id", *fields]
    adding = insert(table).from_select(
        given, select(*(batch.c[field] for field in given)).order_by(batch.c.place)
    )
    others = [field for field in fields if field != key]
    came = adding.excluded
    written = (
        adding.on_conflict_do_update(
            index_elements=[table.c[key]],
            set_={**{field: came[field] for field in others}, **touched(table)},
            where=tuple_(*(table.c[field] for field in others)).is_distinct_from(
                tuple_(*(came[field] for field in others))
            ),
        )
        .returning(table.c.version)
        .cte("written")
    )
    new = written.c.version == literal_column("1")
    counted: Any = select(
        select(func.count()).select_from(batch).scalar_subquery().label("given"),
        func.count().filter(new).label("created"),
        func.count().label("written"),
        select(func.max(batch.c.place)).scalar_subquery().label("last"),
    ).select_from(written)
    return Statement(name, Merged, counted, prepare=False, numbered=True)
