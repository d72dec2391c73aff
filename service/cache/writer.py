"""The one way to write: what was written is invalidated after the commit, before the answer."""

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import NamedTuple, TypeVar

from service.cache.generations import Tags
from service.cache.off import NoCache
from service.cache.store import Cache
from service.db.database import Database
from service.db.names import AUDIBLE
from service.db.transaction import Transaction
from service.db.writable import WritableDatabase
from service.errors import OutcomeUnknown, Problem
from service.timing import timing

Done = TypeVar("Done")


class Telling(NamedTuple):
    """Tells others of changes after the commit.

    Args:
        tags: a write that has none of them is not announced.
        tell: called without waiting.
    """

    tags: frozenset[int]
    tell: Callable[[], None]


class Writer:
    """Runs writes, and invalidates the cached responses that depend on what they changed.

    Args:
        db: the database.
        cache: of this process; None for a process without one, as a command. There the triggers
            of the tables announce what is written, if `db` has no pool (`size=None`): they leave
            out pooled connections, and while there are some, the others cache nothing.
        name: without a cache, the application_name of a connection beside the pool.
        telling: called after each write that has one of their tags.

    `database` is for waiters of batches, which call `written` or `failed` themselves.
    """

    __slots__ = ("_cache", "_telling", "database")

    def __init__(
        self,
        db: Database,
        cache: Cache | NoCache | None = None,
        *,
        name: str = AUDIBLE,
        telling: Sequence[Telling] = (),
    ) -> None:
        self._cache = cache or NoCache()
        self._telling = telling
        self.database = WritableDatabase(db, name if cache is None else db.name)

    async def run(
        self, write: Callable[[WritableDatabase], Awaitable[Done]], tags: Callable[[Done], Tags]
    ) -> Done:
        """Run one write, and return what it returned.

        From then on no reader in this process is shown anything from before the write; the other
        workers have been sent the message.

        Args:
            write: runs one statement or one transaction on the database that it is given.
            tags: the cache tags that the write invalidates, from what `write` returned; `()` when
                nothing was changed.

        Raises:
            Problem: what `write` raised. Nothing was written, except with OutcomeUnknown: then all
                that is cached is invalidated until the outcome is known, as after a cancellation.
        """
        try:
            done = await write(self.database)
            if not self._telling and not self._cache.on:
                return done
            changed = tags(done)
        except BaseException as error:
            self.failed(error)
            raise
        self._tell(changed)
        if changed and self._cache.on:
            started, spent = perf_counter(), timing.get()
            await self._cache.invalidate(changed)
            if spent is not None:
                spent.cache += perf_counter() - started
        return done

    def written(self, changed: Tags, then: Callable[[], None]) -> None:
        """Invalidate what a committed write has changed, then call `then`; for a waiter of a batch.

        It is called now, or when the other workers have been sent the message.
        """
        self._tell(changed)
        self._cache.invalidate_then(changed, then)

    def failed(self, error: BaseException) -> None:
        """Take the error of a write: after most of them it is known that nothing was written."""
        if isinstance(error, Problem) and not isinstance(error, OutcomeUnknown):
            return
        self._cache.outcome_unknown()
        for one in self._telling:
            one.tell()

    def _tell(self, changed: Tags) -> None:
        for one in self._telling:
            if not one.tags.isdisjoint(changed):
                one.tell()


class WriteTransaction:
    """Several writes in one transaction; what they change is invalidated after its commit.

    It must be closed: what was not committed is rolled back then. A write on a connection beside
    the pool is no part of the transaction; it is invalidated in any case.
    """

    __slots__ = ("_tags", "_writer", "transaction")

    def __init__(self, writer: Writer, db: Database) -> None:
        self._writer = writer
        self._tags: list[Tags] = []
        self.transaction = Transaction(db)

    async def run(
        self, write: Callable[[WritableDatabase], Awaitable[Done]], tags: Callable[[Done], Tags]
    ) -> Done:
        """Run one write in the transaction; see Writer.run."""

        def later(done: Done) -> Tags:
            self._tags.append(tags(done))
            return ()

        return await self._writer.run(lambda db: write(db.within(self.transaction)), later)

    async def commit(self) -> None:
        """Commit, and invalidate; raises as Transaction.commit."""
        await self._writer.run(lambda _: self.transaction.commit(), lambda _: self._all_tags())

    async def close(self) -> None:
        """Roll back what was not committed."""
        await self._writer.run(lambda _: self.transaction.roll_back(), lambda _: self._all_tags())

    def _all_tags(self) -> Tags:
        tags = tuple({tag for tags in self._tags for tag in tags})
        self._tags.clear()
        return tags
