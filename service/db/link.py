"""One connection to PostgreSQL, and the statements that are prepared on it."""

import contextlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from service.db.statement import Statement
from service.logs import logger

CONNECT_SECONDS = 5.0
# Prepared statements kept per connection beside the hot ones: the lists in all their combinations.
PREPARED_LIMIT = 200
# What asyncpg raises when a connection is gone; an InterfaceError may also be a misuse of ours.
LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)


async def connect(
    url: str, *, statement_timeout: float, lock_timeout: float, name: str = "swiftlet"
) -> asyncpg.Connection:
    """A connection as all of ours are; timeouts in seconds, 0 for none.

    `name` tells those who look, and the trigger that tells the caches of what others write.
    """
    return await asyncpg.connect(
        url,
        timeout=CONNECT_SECONDS,
        statement_cache_size=0,
        server_settings={
            "application_name": name,
            "datestyle": "ISO",
            "default_transaction_isolation": "read committed",
            "idle_in_transaction_session_timeout": "5000",
            "jit": "off",
            "lock_timeout": str(round(lock_timeout * 1000)),
            "statement_timeout": str(round(statement_timeout * 1000)),
            "timezone": "UTC",
        },
    )


class Link:
    """One connection and what is prepared on it; `deadline` is infinite unless a statement runs."""

    __slots__ = ("connection", "deadline", "numbers", "others", "prepared")

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.prepared: dict[str, PreparedStatement] = {}
        self.others: OrderedDict[str, PreparedStatement] = OrderedDict()
        self.numbers = itertools.count()
        self.deadline = math.inf

    @classmethod
    async def open(
        cls, url: str, *, statement_timeout: float, hot: Sequence[Statement[Any]] = ()
    ) -> Self:
        """Connect, and prepare the hot statements; `statement_timeout` in seconds.

        Raises:
            asyncpg's errors, OSError, TimeoutError: no connection.
        """
        connection = await connect(
            url,
            statement_timeout=statement_timeout,
            # Sooner, so that it is told apart: a lock is about one row, its neighbours may go on.
            lock_timeout=statement_timeout * 0.75,
        )
        link = cls(connection)
        try:
            await link._prepare_hot(hot)
        except BaseException:
            connection.terminate()
            raise
        return link

    async def close(self) -> None:
        """Hang up: gently, and after 5 s by force."""
        try:
            await self.connection.close(timeout=5)
        except (asyncpg.PostgresError, *LOST, TimeoutError):
            self.connection.terminate()

    async def statement(self, statement: Statement[Any]) -> PreparedStatement:
        """The statement, prepared here; a cold one is prepared when first met."""
        found = self.prepared.get(statement.sql)
        if found is not None:
            return found
        found = self.others.get(statement.sql)
        if found is not None:
            self.others.move_to_end(statement.sql)
            return found
        found = await self._prepare(statement)
        self.others[statement.sql] = found
        if len(self.others) > PREPARED_LIMIT:
            self.others.popitem(last=False)
        return found

    async def forget(self, statement: Statement[Any], error: Exception) -> None:
        """Prepare it anew at its next use: the tables behind it may have changed."""
        self.prepared.pop(statement.sql, None)
        self.others.pop(statement.sql, None)
        if isinstance(error, asyncpg.OutdatedSchemaCacheError):
            with contextlib.suppress(*LOST):
                await self.connection.reload_schema_state()

    async def _prepare_hot(self, hot: Sequence[Statement[Any]]) -> None:
        if not hot:
            return
        try:
            for statement in hot:
                self.prepared[statement.sql] = await self._prepare(statement)
            # asyncpg flushes after a Parse and does not sync: the transaction that it began stays
            # open, with its locks and its now(), until the next statement ends it.
            await self.connection.execute("SELECT 1")
        except asyncpg.UndefinedTableError:
            # Not migrated yet: serve, and prepare at first use.
            logger.warning("the database is not migrated; run `service migrate up`")

    async def _prepare(self, statement: Statement[Any]) -> PreparedStatement:
        # Without a name asyncpg sends the text with each use, in the same round trip, and so
        # PostgreSQL never comes to a plan for all values, as it may after five uses of a name.
        name = "" if statement.by_values else f"s{next(self.numbers)}"
        return await self.connection.prepare(statement.sql, name=name)
