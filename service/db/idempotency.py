"""Idempotency keys: the answer to a POST, stored in the transaction of what the POST has written.

A key belongs to a principal, so two principals may use the same one. It is kept for KEPT. Later it
counts as absent, until it is removed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct, structs
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    any_,
    bindparam,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from service.db.arrays import unnested
from service.db.batch import READS
from service.db.batcher import Batcher, Waiter
from service.db.database import Database
from service.db.names import INTERNAL
from service.db.statement import Runner, Statement, columns
from service.errors import Conflict, Locked, Problem

# Rows that are removed at once: 1,000 take some 10 ms.
REMOVED_AT_ONCE = 1000

idempotency_keys = Table(
    "idempotency_keys",
    MetaData(),
    # The user's id; empty without authentication.
    Column("principal", Text, nullable=False),
    Column("key", Text, nullable=False),
    # Of the request, to tell another one with the same key.
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    # As lines of HTTP.
    Column("headers", LargeBinary, nullable=False),
    # Null if it is not shown again.
    Column("body", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("principal", "key", name="idempotency_keys_pkey"),
    info=INTERNAL,
)
Index("idempotency_keys_created_at_idx", idempotency_keys.c.created_at)

_EXPIRY: ColumnElement[Any] = literal_column("now() - interval '24 hours'")


class Answer(Struct, frozen=True):
    """The stored answer to a request with a key; see the columns."""

    principal: str
    key: str
    fingerprint: bytes
    status: int
    headers: bytes
    body: bytes | None


class Keeper(NamedTuple):
    """Stores the answer to one request, in the transaction of what the request has written.

    Args:
        principal: see the column.
        key: what the client sent.
        answer: the stored answer, made of what the write returned.
    """

    principal: str
    key: str
    answer: Callable[[Any], Answer]

    async def keep(self, db: Runner, done: object) -> None:
        """Store the answer that tells `done`; raises as `keep_one`."""
        await keep_one(db, self.answer(done))


class KeyTaken(Conflict):
    """Another request with the key was first: roll back, and return its stored answer."""


class KeyLocked(Locked):
    """Another request with the key has not ended yet."""


def _finding() -> Statement[Answer]:
    given = unnested({"principal": Text(), "key": Text()})
    table, rows = idempotency_keys, given.rows
    core = select(*columns(Answer, table)).where(
        table.c.principal == rows.c.principal,
        table.c.key == rows.c.key,
        table.c.created_at > _EXPIRY,
    )
    return Statement("idempotency.find", Answer, core, order=("principals", "keys"))


def _keeping() -> Statement[tuple[str, str]]:
    """In the order of the keys, so that two transactions never wait for each other in a circle.

    It waits for another transaction that has inserted the key. If that commits, the key is not
    returned, unless its row is so old that it counts as absent.
    """
    table, fields = idempotency_keys, Answer.__struct_fields__
    given = unnested({field: table.c[field].type for field in fields})
    rows = select(*(given.rows.c[field] for field in fields))
    ordered = rows.order_by(given.rows.c.principal, given.rows.c.key)
    inserting = insert(table).from_select(fields, ordered)
    replaced = {name: inserting.excluded[name] for name in fields[2:]}
    core = inserting.on_conflict_do_update(
        index_elements=[table.c.principal, table.c.key],
        set_={**replaced, "created_at": func.now()},
        where=table.c.created_at <= _EXPIRY,
    ).returning(table.c.principal, table.c.key)
    order = tuple(f"{field}s" for field in fields)
    return Statement("idempotency.keep", tuple, core, order=order, arrays=given.binds)


def _removing() -> Statement[int]:
    """The oldest ones that have expired; without those that another transaction removes."""
    table, old = idempotency_keys, idempotency_keys.alias("old")
    ctid: ColumnElement[Any] = literal_column("old.ctid")
    expired = (
        select(ctid)
        .select_from(old)
        .where(old.c.created_at <= _EXPIRY)
        .order_by(old.c.created_at)
        .limit(bindparam("limit", type_=BigInteger))
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    these = literal_column("idempotency_keys.ctid") == any_(func.array(expired))
    removed = delete(table).where(these).returning(table.c.key).cte("removed")
    core = select(func.count().label("n")).select_from(removed)
    return Statement("idempotency.remove", int, core, order=("limit",), prepare=False)


FIND, KEEP, REMOVE = _finding(), _keeping(), _removing()
STATEMENTS: tuple[Statement[Any], ...] = (FIND, KEEP, REMOVE)


async def find(db: Database, principal: str, key: str) -> Answer | None:
    """The stored answer; concurrent calls share a statement."""
    if not db.batching:
        return await _find_one(db, (principal, key))
    batcher: Batcher | None = db.batchers.get(FIND)
    if batcher is None:
        batcher = db.batchers[FIND] = Batcher(
            FIND.name, _find_one, _find_many, ordered=False, max_batch=READS
        )
    found: Answer | None = await batcher.run(db, None, (principal, key))
    return found


async def keep(db: Runner, answers: Sequence[Answer]) -> set[tuple[str, str]]:
    """Store answers; return those of their (principal, key) that no other request has stored.

    If one is missing, the transaction must be rolled back. No two of them may be equal.

    Raises:
        KeyLocked: another request with one of the keys has not ended.
        Problem: see errors.from_database.
    """
    rows = [structs.astuple(answer) for answer in answers]
    try:
        records = await db.fetch(KEEP, list(zip(*rows, strict=True)))
    except Locked as locked:
        raise KeyLocked(locked.detail) from locked
    return {(record[0], record[1]) for record in records}


async def keep_one(db: Runner, answer: Answer) -> None:
    """Store one answer; raises as `keep`, and KeyTaken if another request has stored its own."""
    if not await keep(db, [answer]):
        raise KeyTaken("another request with this Idempotency-Key was first")


async def _find_one(db: Database, name: tuple[str, str]) -> Answer | None:
    return (await _found(db, [name])).get(name)


async def _find_many(db: Database, batch: list[Waiter]) -> None:
    try:
        found = await _found(db, list({waiter.args for waiter in batch}))
    except Problem as problem:
        for waiter in batch:
            waiter.refuse(problem)
        return
    for waiter in batch:
        waiter.answer(found.get(waiter.args))


async def _found(db: Database, names: list[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
    records = await db.fetch(FIND, list(zip(*names, strict=True)))
    answers = [Answer(*record) for record in records]
    return {(answer.principal, answer.key): answer for answer in answers}
