"""Several statements in one transaction, on a connection of the pool."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any

import asyncpg

from service.db.database import UNKNOWN, Database, timing
from service.db.pooled_connection import LOST, PooledConnection
from service.db.statement import Statement
from service.db.writable import WritableDatabase
from service.errors import OutcomeUnknown, Unavailable


class Transaction:
    """Runs statements on the connection of a transaction; it has no second try.

    The pool closes the connection if the whole takes longer than one statement may.
    """

    def __init__(self, db: Database, pooled: PooledConnection) -> None:
        self.db = db
        self.pooled = pooled

    async def fetch(self, statement: Statement[Any], args: Sequence[object]) -> list[Any]:
        """Run a statement, and return its records.

        Raises:
            Problem: see errors.from_database. Nothing is committed then.
        """
        started = perf_counter()
        try:
            prepared = await self.pooled.statement(statement)
            records: list[Any] = await prepared.fetch(*args)
        except (*LOST, asyncpg.InternalClientError) as error:
            self.pooled.connection.terminate()
            raise Unavailable("the database is away") from error
        except asyncpg.PostgresError as error:
            raise self.db.problem(error, statement) from error
        finally:
            spent = timing.get()
            if spent is not None:
                spent.statements += 1
                spent.seconds += perf_counter() - started
        return records

    async def execute(self, sql: str) -> None:
        """Run BEGIN, COMMIT or ROLLBACK; raises as `fetch`."""
        try:
            await self.pooled.connection.execute(sql)
        except (*LOST, asyncpg.InternalClientError) as error:
            self.pooled.connection.terminate()
            raise Unavailable("the database is away") from error
        except asyncpg.PostgresError as error:
            raise self.db.problem(error) from error


@asynccontextmanager
async def transaction(db: WritableDatabase) -> AsyncIterator[Transaction]:
    """Begin a transaction; commit at the end of the block, roll back if it raises.

    A cancelled block closes its connection, because an answer may still come on it.

    Raises:
        Unavailable: no connection is free in time, or the database is read-only or away.
        OutcomeUnknown: the connection was lost during the commit.
    """
    async with db.database.writing() as pooled:
        one = Transaction(db.database, pooled)
        try:
            await one.execute("BEGIN")
            yield one
        except asyncio.CancelledError:
            pooled.connection.terminate()
            raise
        except BaseException:
            if not pooled.connection.is_closed():
                with suppress(Unavailable):
                    await one.execute("ROLLBACK")
            raise
        try:
            await one.execute("COMMIT")
        except asyncio.CancelledError:
            pooled.connection.terminate()
            raise
        except Unavailable as error:
            if pooled.connection.is_closed():
                raise OutcomeUnknown(UNKNOWN) from error
            raise
