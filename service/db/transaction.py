"""Several statements in one transaction, on a connection of the pool."""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import asyncpg

from service.db.database import RETRYABLE, UNKNOWN, Database
from service.db.pool import GRACE_SECONDS
from service.db.pooled_connection import LOST, PooledConnection
from service.db.statement import Statement
from service.errors import OutcomeUnknown, Problem, Unavailable
from service.timing import Timing, timing

AWAY = "the database is away; nothing was written"
# idle_in_transaction_session_timeout, see pooled_connection.connect. PostgreSQL ends a transaction
# that waits longer for its next statement.
IDLE_SECONDS = 5.0
# What asyncpg raises, for a statement or for the connection.
ERRORS = (asyncpg.PostgresError, asyncpg.InternalClientError, *LOST)


class Transaction(Database):
    """A Database whose statements run in one transaction, in the order in which they come.

    It begins with the first statement, and ends with `commit`; otherwise it is rolled back when the
    context ends. A statement that fails undoes itself alone, as without a transaction. A connection
    that is lost before the COMMIT was sent has written nothing, so it is no unknown outcome.

    Use it as a context manager. It takes a connection, and a place among the writes, from `db`.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.statement_timeout = db.statement_timeout
        self.queue_limit = db.queue_limit
        self.batching = False
        self.observer = db.observer
        self.batchers = {}
        self.pool = db.pool
        self.beside = db.beside
        self._writing = asyncio.Semaphore(1)  # its own writes wait for each other here
        self._turn = asyncio.Lock()
        self._pooled: PooledConnection | None = None
        self._failed: Problem | None = None

    @property
    def begun(self) -> bool:
        """Whether a statement has run in it."""
        return self._pooled is not None

    @property
    def dedicated(self) -> int:
        """See Database."""
        return self._db.dedicated

    @dedicated.setter
    def dedicated(self, number: int) -> None:
        self._db.dedicated = number

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.roll_back()

    async def commit(self) -> None:
        """Commit; without any statement, do nothing.

        Raises:
            OutcomeUnknown: the connection was lost on the way.
            Problem: nothing was written.
        """
        if self._failed is not None:
            raise self._failed
        pooled = self._pooled
        if pooled is None:
            return
        started = perf_counter()
        try:
            if await self._execute(pooled, "COMMIT") != "COMMIT":
                raise Unavailable("the transaction was rolled back; try again")
        except ERRORS as error:
            if _lost(pooled, error):
                pooled.connection.terminate()
                raise OutcomeUnknown(UNKNOWN) from error
            raise self.problem(error) from error
        finally:
            self._release()
            spent = timing.get()
            if spent is not None and spent.span is not None:
                spent.span.child("COMMIT", started, perf_counter())

    async def roll_back(self) -> None:
        """Undo everything, if it has begun and was not committed."""
        pooled = self._pooled
        if pooled is None:
            return
        try:
            if not pooled.connection.is_closed():
                await self._execute(pooled, "ROLLBACK")
        except ERRORS:
            pooled.connection.terminate()
        finally:
            self._release()

    def problem(self, error: BaseException, statement: Statement[Any] | None = None) -> Problem:
        """See Database."""
        return self._db.problem(error, statement)

    def refused(self, error: BaseException) -> Unavailable:
        """See Database."""
        return self._db.refused(error)

    async def _fetch(
        self, statement: Statement[Any], args: Sequence[object], spent: Timing
    ) -> list[Any]:
        if self._failed is not None:
            raise self._failed
        async with self._turn:
            if self._pooled is None:
                return await self._first(statement, args, spent)
            return await self._next(self._pooled, statement, args, spent)

    async def _first(
        self, statement: Statement[Any], args: Sequence[object], spent: Timing
    ) -> list[Any]:
        """Begin, and run a statement; another try is safe, because nothing came before it."""
        lost = retried = 0
        while True:
            pooled = await self._take(spent)
            try:
                await self._execute(pooled, "BEGIN")
                return await self._send(pooled, statement, args, spent)
            except RETRYABLE as error:
                retried += 1
                await self.roll_back()
                if retried > 1:
                    raise self.problem(error, statement) from error
                await pooled.forget(statement, error)
            except ERRORS as error:
                if not _lost(pooled, error):
                    await self.roll_back()
                    raise self.problem(error, statement) from error
                late = perf_counter() >= pooled.deadline
                pooled.connection.terminate()
                self._release()
                lost += 1
                if late or lost > (self.pool.size or 1):
                    raise Unavailable(AWAY) from error

    async def _next(
        self,
        pooled: PooledConnection,
        statement: Statement[Any],
        args: Sequence[object],
        spent: Timing,
    ) -> list[Any]:
        """Run a further statement; if it fails, the ones before it remain."""
        try:
            await self._execute(pooled, "SAVEPOINT before")
            try:
                return await self._send(pooled, statement, args, spent)
            except ERRORS as error:
                if _lost(pooled, error):
                    raise
                await self._execute(pooled, "ROLLBACK TO before")
                raise self.problem(error, statement) from error
        except ERRORS as error:
            pooled.connection.terminate()
            self._release()
            self._failed = Unavailable(AWAY)
            raise self._failed from error

    async def _send(
        self,
        pooled: PooledConnection,
        statement: Statement[Any],
        args: Sequence[object],
        spent: Timing,
    ) -> list[Any]:
        started = perf_counter()
        pooled.deadline = started + self.statement_timeout + GRACE_SECONDS
        try:
            prepared = pooled.prepared.get(statement.sql) or await pooled.statement(statement)
            records: list[Any] = await prepared.fetch(*args)
        except asyncio.CancelledError:
            # The answer is still to come, so the connection must not be used again.
            pooled.connection.terminate()
            raise
        except Exception as error:
            self.observer.failed(statement, spent, perf_counter() - started, error, args)
            raise
        now = perf_counter()
        self.observer.ran(statement, spent, 0.0, now - started, len(records), args)
        pooled.deadline = now + IDLE_SECONDS + GRACE_SECONDS
        return records

    async def _execute(self, pooled: PooledConnection, sql: str) -> str:
        started, spent = perf_counter(), timing.get()
        pooled.deadline = started + self.statement_timeout + GRACE_SECONDS
        try:
            tag: str = await pooled.connection.execute(sql)
        except asyncio.CancelledError:
            pooled.connection.terminate()
            raise
        finally:
            if spent is not None:
                spent.sql += perf_counter() - started
        return tag

    async def _take(self, spent: Timing) -> PooledConnection:
        arrived = perf_counter()
        try:
            await self._db.begin_write()
        finally:
            spent.queue += perf_counter() - arrived
        try:
            self._pooled = self.pool.take() or await self.connection(spent)
        except BaseException:
            self._db.end_write()
            raise
        return self._pooled

    def _release(self) -> None:
        pooled, self._pooled = self._pooled, None
        if pooled is not None:
            self.pool.release(pooled)
            self._db.end_write()


def _lost(pooled: PooledConnection, error: Exception) -> bool:
    """Whether the connection is lost; the same classes are also raised for bugs of ours."""
    closing = (asyncpg.InternalClientError, OSError, RuntimeError)
    return pooled.connection.is_closed() or isinstance(error, closing)
