"""One connection to PostgreSQL, and the statements that are prepared on it."""

import asyncio
import contextlib
import itertools
import math
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from service.db.fitness import Fitness
from service.db.names import AUDIBLE
from service.db.statement import Statement
from service.errors import OUTDATED, Unavailable
from service.logs import logger

CONNECT_SECONDS = 5.0
# Statements kept prepared per connection beside those prepared at its start: lists, which have many
# combinations of filters. It bounds the memory that PostgreSQL uses for them.
PREPARED_LIMIT = 200
# Raised when a connection is lost. An InterfaceError may also be a bug of ours; RuntimeError is
# uvloop's, for a write to a transport that has just been closed.
LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError, RuntimeError)
# Settings on which results and plans depend, so a command that explains a statement has them too.
SESSION = {
    "datestyle": "ISO",
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "timezone": "UTC",
}
# Parameters that PgBouncer refuses unless it is told to ignore them.
POOLED = (
    "default_transaction_isolation",
    "idle_in_transaction_session_timeout",
    "jit",
    "lock_timeout",
    "statement_timeout",
)
POOLER = (
    "a pooler refuses the connection (the log has its message); with PgBouncer in session mode,"
    f" set ignore_startup_parameters = {', '.join(POOLED)}"
)
# Why no connection can be opened, by class; the first that fits.
REFUSALS: tuple[tuple[type[BaseException], str], ...] = (
    (asyncpg.InvalidCatalogNameError, "the database does not exist"),
    (asyncpg.InvalidAuthorizationSpecificationError, "the database refuses the login"),
    (asyncpg.InsufficientPrivilegeError, "the role may not connect to the database"),
    (asyncpg.TooManyConnectionsError, "the database has no free connection"),
    (asyncpg.OperatorInterventionError, "the database is going down or coming up"),
    (asyncpg.ProtocolViolationError, POOLER),
    (ssl.SSLError, "no TLS connection to the database: check its certificate, and sslmode"),
    (ValueError, "DATABASE_URL can't be used"),
)


async def connect(
    url: str, *, statement_timeout: float, lock_timeout: float, name: str = AUDIBLE
) -> asyncpg.Connection:
    """A connection with our settings; timeouts in seconds, 0 for none.

    `name` is its application_name. Only the pool may use SILENT.
    """
    return await asyncpg.connect(
        url,
        timeout=CONNECT_SECONDS,
        statement_cache_size=0,
        server_settings={
            **SESSION,
            "application_name": name,
            "idle_in_transaction_session_timeout": "5000",
            "lock_timeout": str(round(lock_timeout * 1000)),
            "statement_timeout": str(round(statement_timeout * 1000)),
        },
    )


def refusal(error: BaseException) -> Unavailable:
    """The Problem for what `connect` raised; it contains nothing of the error's own text."""
    details = (detail for kind, detail in REFUSALS if isinstance(error, kind))
    return Unavailable(next(details, "the database is away"))


def unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's handler of exceptions that are never awaited: logs them in our format.

    A lost connection is not logged: asyncpg leaves a future behind that can't be awaited, and the
    request that used the connection has had its error.
    """
    error = context.get("exception")
    if not isinstance(error, LOST):
        logger.error(context["message"], exc_info=error)


class NoneFree(Unavailable):
    """No connection of the pool came free in time."""


class PooledConnection:
    """One connection and what is prepared on it.

    `deadline` is infinite unless a statement runs. If it is `retired`, it is closed instead of used
    again.
    """

    __slots__ = ("connection", "deadline", "numbers", "others", "prepared", "retired")

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.prepared: dict[str, PreparedStatement] = {}
        self.others: OrderedDict[str, PreparedStatement] = OrderedDict()
        self.numbers = itertools.count()
        self.deadline = math.inf
        self.retired = False

    @classmethod
    async def open(cls, url: str, *, statement_timeout: float, name: str = AUDIBLE) -> Self:
        """Connect; `statement_timeout` in seconds.

        Raises:
            asyncpg's errors, OSError, TimeoutError, ValueError: no connection.
        """
        connection = await connect(
            url,
            statement_timeout=statement_timeout,
            # Shorter, so that waiting for a lock is a separate error: it concerns one row only.
            lock_timeout=statement_timeout * 0.75,
            name=name,
        )
        return cls(connection)

    async def prepare(self, statements: Sequence[Statement[Any]]) -> Fitness:
        """Prepare these statements, and find out whether the database takes writes.

        Raises:
            asyncpg's errors, OSError, TimeoutError: the connection is lost, and closed.
        """
        outdated = None
        try:
            try:
                for statement in statements:
                    self.prepared[statement.sql] = await self._prepare(statement)
            except (asyncpg.SyntaxOrAccessError, asyncpg.InvalidSchemaNameError) as error:
                # It and the others are prepared at their first use, which then raises the error.
                outdated = error if isinstance(error, OUTDATED) else None
            # asyncpg flushes after a Parse and does not sync: the transaction that it began stays
            # open, with its locks and its now(), until the next statement ends it.
            read_only = await self.connection.fetchval("SHOW transaction_read_only") == "on"
        except BaseException:
            self.connection.terminate()
            raise
        return Fitness(read_only, outdated, checked=bool(statements))

    async def close(self) -> None:
        """Close it: gently, and after 5 s by force."""
        try:
            await self.connection.close(timeout=5)
        except (asyncpg.PostgresError, *LOST, TimeoutError):
            self.connection.terminate()

    async def statement(self, statement: Statement[Any]) -> PreparedStatement:
        """The statement, prepared on this connection; at its first use if not at the start."""
        found = self.prepared.get(statement.sql)
        if found is not None:
            return found
        found = self.others.get(statement.sql)
        if found is not None:
            self.others.move_to_end(statement.sql)
            return found
        found = await self._prepare(statement)
        if statement.prepare:  # it could not be prepared at the start, or was forgotten
            self.prepared[statement.sql] = found
            return found
        self.others[statement.sql] = found
        if len(self.others) > PREPARED_LIMIT:
            self.others.popitem(last=False)
        return found

    async def forget(self, statement: Statement[Any], error: Exception) -> None:
        """Prepare it again at its next use: its tables may have changed."""
        self.prepared.pop(statement.sql, None)
        self.others.pop(statement.sql, None)
        if isinstance(error, asyncpg.OutdatedSchemaCacheError):
            with contextlib.suppress(*LOST):
                await self.connection.reload_schema_state()

    async def _prepare(self, statement: Statement[Any]) -> PreparedStatement:
        # Without a name asyncpg sends the text with each use, in the same round trip. So PostgreSQL
        # never makes a plan for all values, as it may after five uses of a name.
        name = "" if statement.by_values else f"s{next(self.numbers)}"
        return await self.connection.prepare(statement.sql, name=name)
