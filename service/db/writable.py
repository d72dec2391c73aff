"""The database for statements that write."""

from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from service.db.database import Database
from service.db.names import AUDIBLE
from service.db.statement import Statement
from service.db.transaction import Transaction


class WritableDatabase:
    """A Database that also runs statements that write.

    Only cache.writer.Writer hands it out, because only that invalidates the caches afterwards.
    `Database.fetch` refuses such statements.

    Args:
        db: the database.
        name: the application_name of a connection beside the pool. By default the triggers
            report what it writes; SILENT only if the caches are invalidated in another way.
    """

    __slots__ = (
        "batchers",
        "batching",
        "database",
        "name",
        "observer",
        "queue_limit",
        "statement_timeout",
    )

    def __init__(self, db: Database, name: str = AUDIBLE) -> None:
        self.database = db
        self.name = name
        self.batching = db.batching
        self.batchers = db.batchers
        self.observer = db.observer
        self.queue_limit = db.queue_limit
        self.statement_timeout = db.statement_timeout

    def fetch(
        self, statement: Statement[Any], args: Sequence[object]
    ) -> Coroutine[Any, Any, list[Any]]:
        """Run a statement, and return its records; see Database.fetch."""
        return self.database.fetch(statement, args, writing=True)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Run statements in one transaction, which is committed at the end of the block.

        An error in the block rolls it back. If this database is within a transaction already, that
        one is used, and its owner commits it or rolls it back.

        Raises:
            OutcomeUnknown: the connection was lost during the commit.
            Problem: see errors.from_database; nothing was written.
        """
        if isinstance(self.database, Transaction):
            yield self
            return
        async with Transaction(self.database) as one:
            yield self.within(one)
            await one.commit()

    def within(self, transaction: Transaction) -> Self:
        """The database for writes within this transaction."""
        return type(self)(transaction, self.name)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run it in the background; see Database.spawn."""
        self.database.spawn(work)
