"""The database: runs statements, counts and times them, and turns errors into Problems."""

import asyncio
import traceback
from collections.abc import Coroutine, Sequence
from time import perf_counter
from typing import Any

import asyncpg

from service.db.condition import cause
from service.db.observer import Observer
from service.db.pool import Pool
from service.db.pooled_connection import LOST, NoneFree, PooledConnection, refusal
from service.db.statement import Statement, UnannouncedWriteError
from service.errors import (
    OUTDATED,
    READ_ONLY,
    OutcomeUnknown,
    Problem,
    TimedOut,
    Unavailable,
    from_database,
)
from service.logs import logger
from service.timing import Timing, timing

# Raised before the statement ran, or after it was undone: a second try is safe even for a write.
RETRYABLE = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
# Caused by concurrent requests: an operator need not know of each.
EXPECTED = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.TransactionRollbackError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionTimeoutError,
)
# Concurrent writes when each statement has a connection of its own: PostgreSQL's default for
# max_connections.
WRITERS = 100
UNKNOWN = "the connection was lost: outcome unknown, check before you try again"


class Database:
    """Runs statements on few connections; raises Problems, never asyncpg's errors.

    Args:
        url: as `DATABASE_URL`.
        size: connections held, or None to connect for each use.
        statements: those to prepare when a connection opens.
        statement_timeout: seconds a statement may take, and a request may wait for a connection.
        queue_limit: requests that may wait for a connection; one more is refused at once.
        batching: whether requests may share statements.
        observer: counts and logs statements, batches and waits for a connection.
        audible: whether the triggers report what is written, for a process without a cache.

    `batchers` belongs to batch.py and writes.py, which keep a Batcher there for each kind of
    statement. `dedicated` counts the connections beside the pool, and `beside` holds them, see
    copy.py.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int | None = 4,
        statements: Sequence[Statement[Any]] = (),
        statement_timeout: float = 2.0,
        queue_limit: int = 10_000,
        batching: bool = True,
        observer: Observer | None = None,
        audible: bool = False,
    ) -> None:
        self.statement_timeout = statement_timeout
        self.queue_limit = queue_limit
        self.batching = batching
        self.observer = observer or Observer()
        self.batchers: dict[object, Any] = {}
        self.dedicated = 0
        self.beside: set[asyncpg.Connection] = set()
        self.pool = Pool(
            url,
            size=size,
            prepared=[statement for statement in statements if statement.prepare],
            statement_timeout=statement_timeout,
            queue_limit=queue_limit,
            audible=audible,
        )
        # Writes may wait for locks of other transactions; one connection stays free for reads.
        self._writing = asyncio.Semaphore(max(1, (size or WRITERS) - 1))

    @property
    def name(self) -> str:
        """The application_name of connections after whose writes a worker invalidates by itself."""
        return self.pool.name

    def pids(self) -> set[int]:
        """The server's processes behind the connections of this worker."""
        return self.pool.pids() | {
            one.get_server_pid() for one in self.beside if not one.is_closed()
        }

    async def open(self) -> None:
        """Begin to connect. If the database is away, connect in the background when it returns."""
        await self.pool.open()

    async def close(self) -> None:
        """Close every connection: gently, and after 5 s by force."""
        await self.pool.close()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run it in the background, outside any request; `close` cancels it."""
        self.pool.spawn(work)

    async def fetch(
        self, statement: Statement[Any], args: Sequence[object], *, writing: bool = False
    ) -> list[Any]:
        """Run a statement, and return its records.

        A statement that writes is refused unless `writing` is set. Only WritableDatabase sets it,
        so that every write goes through cache.writer.Writer, which invalidates the caches.

        A second try is made where that is safe: after a plan that a migration made stale, after a
        deadlock, and for a read whose connection was lost.

        Raises:
            Problem: 409, 422, 503 or 504, see errors.from_database.
            UnannouncedWriteError: the statement writes, and `writing` is not set.
        """
        spent = timing.get() or Timing()  # outside of a request it is not read
        spent.statements += 1
        if not statement.writes:
            return await self._fetch(statement, args, spent)
        if not writing:
            raise UnannouncedWriteError(statement)
        if self._writing.locked():
            arrived = perf_counter()
            try:
                await self.begin_write()
            finally:
                now = perf_counter()
                spent.queue += now - arrived
                if spent.span is not None:
                    spent.span.child("wait to write", arrived, now)
        else:
            await self.begin_write()
        try:
            return await self._fetch(statement, args, spent)
        finally:
            self._writing.release()

    async def connection(self, spent: Timing) -> PooledConnection:
        """A connection of the pool; a wait for it is counted.

        Raises:
            Unavailable: see Pool.acquire.
        """
        arrived = perf_counter()
        try:
            return await self.pool.acquire()
        except NoneFree:
            self.observer.gave_up()
            raise
        finally:
            self.observer.waited(spent, perf_counter() - arrived)

    async def begin_write(self) -> None:
        """Wait until one more write may run; `end_write` ends it.

        Raises:
            Unavailable: too many others run for too long, or the database is read-only.
        """
        if self.pool.fitness.read_only.active:
            raise Unavailable(READ_ONLY)
        if not self._writing.locked():
            await self._writing.acquire()  # without waiting, and without a timer
            return
        try:
            async with asyncio.timeout(self.statement_timeout):
                await self._writing.acquire()
        except TimeoutError:
            raise Unavailable("other writes take too long: too many rows are locked") from None

    def end_write(self) -> None:
        """Let another write run."""
        self._writing.release()

    async def _fetch(
        self, statement: Statement[Any], args: Sequence[object], spent: Timing
    ) -> list[Any]:
        pool = self.pool
        lost = retried = 0
        while True:
            before = spent.pool
            pooled = pool.take() or await self.connection(spent)
            waited, started = spent.pool - before, perf_counter()
            try:
                prepared = pooled.prepared.get(statement.sql) or await pooled.statement(statement)
                records: list[Any] = await prepared.fetch(*args)
                self.observer.ran(
                    statement, spent, waited, perf_counter() - started, len(records), args
                )
                return records
            except RETRYABLE as error:
                self.observer.failed(statement, spent, perf_counter() - started, error, args)
                retried += 1
                if retried > 1:
                    raise self.problem(error, statement) from error
                await pooled.forget(statement, error)
            except asyncpg.InternalClientError as error:
                # The server has closed the connection and asyncpg knows it: nothing was sent.
                pooled.connection.terminate()
                lost += 1
                if lost > (self.pool.size or 1):
                    raise Unavailable("the database is away") from error
            except LOST as error:
                self.observer.failed(statement, spent, perf_counter() - started, error, args)
                if isinstance(error, RuntimeError):  # asyncpg does not know yet that it is closed
                    pooled.connection.terminate()
                lost += 1
                self._give_up(error, statement, pooled, lost)
            except asyncio.CancelledError:
                # The answer is still to come, so the connection must not be used again.
                pooled.connection.terminate()
                raise
            except Exception as error:
                self.observer.failed(statement, spent, perf_counter() - started, error, args)
                raise self.problem(error, statement) from error
            finally:
                pool.release(pooled)

    def _give_up(
        self, error: Exception, statement: Statement[Any], pooled: PooledConnection, lost: int
    ) -> None:
        """Raise, unless the statement is a read that another connection can still answer.

        A restart of the server closes every connection of the pool, so a read is tried on each.
        """
        if not pooled.connection.is_closed():  # asyncpg raises the same class for a bug of ours
            raise self.problem(error, statement) from error
        if statement.writes:
            raise OutcomeUnknown(UNKNOWN) from error
        if perf_counter() >= pooled.deadline:
            raise TimedOut("the database does not answer") from error
        if lost > (self.pool.size or 1):
            raise Unavailable("the database is away") from error

    def refused(self, error: BaseException) -> Unavailable:
        """The Problem for an error of a connection beside the pool."""
        logger.error("no connection beside the pool", extra={"fields": {"error": cause(error)}})
        return refusal(error)

    def problem(self, error: BaseException, statement: Statement[Any] | None = None) -> Problem:
        """The Problem for what asyncpg raised; what an operator must know is logged."""
        problem = from_database(error, removes=statement is not None and statement.removes)
        name = "" if statement is None else statement.name
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self.pool.fitness.found_read_only(error)
        elif isinstance(error, OUTDATED):
            self.pool.fitness.found_outdated(error, statement)
        elif problem.status == 500 or isinstance(error, asyncpg.DataError):
            # Bad input must be refused before it reaches the database, so this is a bug of ours.
            # Only the place: the text of the error may quote a value.
            frames = [
                "Traceback (most recent call last):\n",
                *traceback.format_tb(error.__traceback__),
            ]
            fields = {
                "statement": name,
                "error": type(error).__name__,
                "traceback": "".join(frames),
            }
            logger.error("statement failed", extra={"fields": fields})
        elif isinstance(error, asyncpg.PostgresError) and not isinstance(error, EXPECTED):
            fields = {"statement": name, "error": cause(error)}
            logger.error(problem.detail, extra={"fields": fields})
        return problem
