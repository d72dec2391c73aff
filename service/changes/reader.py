"""The one reader of the log of a worker, which gives each change to the groups that it matches."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from service.changes import log
from service.changes.backlog import READ_ENTRIES
from service.changes.change import SPAN
from service.changes.groups import Group, Topic
from service.changes.ring import Recent, Ring
from service.db.database import Database
from service.db.listener import Listener
from service.db.names import CHANGES_CHANNEL
from service.errors import Problem, Unavailable
from service.logs import logger

# Between two reads, so that a read has the changes of many commits; between two without a
# notification, which may be lost; and after a failure.
GAP_SECONDS, POLL_SECONDS, RETRY_SECONDS = 0.01, 1.0, 0.5
# The reader goes on for so long after the last client: most come back.
LINGER_SECONDS = 10.0
# A read with fewer entries and bytes has seen all entries.
READ_BYTES = 262_144
# Other tasks run at least so often while changes are matched.
TURN_SECONDS = 0.005
# After so long without a read, the next changes may have been trimmed.
LATE_SECONDS = 10.0


class Reader:
    """Reads the log as long as a client wants changes.

    Args:
        db: the database.
        listener: wakes it.
        topics: the groups, by the name of their table.

    Attributes:
        ring: the newest entries; None while it does not run.
        lag: seconds from the notification of the last changes until they were given.
        wanted: whether a client wants changes.
        on_reset: called when it does not go on from its last position: the database was restored,
            or what came next was trimmed.
    """

    def __init__(self, db: Database, listener: Listener, topics: Mapping[str, Topic]) -> None:
        self.ring: Ring | None = None
        self.lag = 0.0
        self.wanted: Callable[[], bool] = bool
        self.on_reset: Callable[[], object] = bool
        self._db = db
        self._listener = listener
        self._topics = topics
        self._listens = False
        self._runs = False
        self._wanted_until = 0.0
        self._ready: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._noticed: float | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    async def running(self) -> Ring:
        """Start it unless it runs, and wait until it has a position.

        Raises:
            Problem: 503 or 504, the database is not available.
        """
        self._wanted_until = max(self._wanted_until, monotonic() + LINGER_SECONDS)
        while self.ring is None:
            if self._ready is None:
                self._ready = asyncio.get_running_loop().create_future()
                self._ready.add_done_callback(_retrieve)
            if not self._runs:
                self._runs = True
                self._db.spawn(self._run())
            await asyncio.shield(self._ready)
        return self.ring

    async def wait(self, after: int, seconds: float) -> bool:
        """Wait until it has read further than a position; False if it has not in time.

        Raises:
            Problem: 503 or 504, the database is not available.
        """
        due = monotonic() + seconds
        while (await self.running()).end <= after:
            self._wanted_until = max(self._wanted_until, due + LINGER_SECONDS)
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                async with asyncio.timeout(due - monotonic()):
                    await waiting
            except TimeoutError:
                return False
            finally:
                self._waiting.discard(waiting)
        return True

    async def _run(self) -> None:
        failed = False
        read_at = monotonic()
        try:
            while self.wanted() or monotonic() < self._wanted_until:
                began = monotonic()
                try:
                    if failed or self.ring is None or began - read_at > LATE_SECONDS:
                        await self._begin()
                    more = await self._read()
                    read_at = monotonic()
                except Problem as problem:
                    self._tell(problem)
                    if not failed:
                        fields = {"problem": problem.detail}
                        logger.warning("the feed of changes can't read", extra={"fields": fields})
                    failed = True
                except (Exception, asyncio.CancelledError):
                    # Not only the end of this task cancels: a connection that is closed may, too.
                    # Without another try the reader never comes back.
                    if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # a task
                        raise
                    self._tell(Unavailable("the feed of changes failed"))
                    logger.exception("the feed of changes failed")
                    failed = True
                else:
                    failed = False
                    if not more:
                        await self._woken()
                    await asyncio.sleep(began + GAP_SECONDS - monotonic())
                    continue
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._runs = False
            self.ring = None
            self.on_reset()
            self._tell(Unavailable("shutting down"))

    def _tell(self, problem: Problem | None) -> None:
        """Tell those who wait for a position that there is one, or why there is none."""
        ready, self._ready = self._ready, None
        if ready is None or ready.done():
            return
        if problem is None:
            ready.set_result(None)
        else:
            ready.set_exception(problem)

    async def _begin(self) -> None:
        """Take the newest position; after a failure, check that the log goes on from our own."""
        if not self._listens:
            self._listens = True
            await self._listener.listen(CHANGES_CHANNEL, self._notify)
        newest = (await log.newest(self._db)) | (SPAN - 1)
        ring = self.ring
        if ring is None or newest < ring.end or await log.horizon(self._db) > ring.end:
            self.on_reset()  # a client that stayed would miss what is between
            self.ring = Ring(newest)
        self._tell(None)

    def _notify(self) -> None:
        if self._noticed is None:
            self._noticed = monotonic()
        self._wake.set()

    async def _woken(self) -> None:
        waker = asyncio.get_running_loop().call_later(POLL_SECONDS, self._wake.set)
        await self._wake.wait()
        waker.cancel()
        self._wake.clear()

    async def _read(self) -> bool:
        """Give the next entries to the groups; return whether there may be more."""
        ring = self.ring
        assert ring is not None  # noqa: S101 - `_begin` has set it
        entries = [Recent(one) for one in await log.read_entries(self._db, ring.end, READ_ENTRIES)]
        await self._give(ring, entries)
        if self._noticed is not None:
            self.lag = monotonic() - self._noticed
        more = len(entries) == READ_ENTRIES or sum(one.size for one in entries) > READ_BYTES
        if not more:
            self._noticed = None
        return more

    async def _give(self, ring: Ring, entries: Sequence[Recent]) -> None:
        touched: set[Group] = set()
        new: list[Recent] = []
        due = monotonic() + TURN_SECONDS
        for entry in entries:
            topic = self._topics.get(entry.table)
            if topic:
                for change in entry.changes(topic.form):
                    topic.match(change, touched)
            new.append(entry)
            if monotonic() > due:
                self._flush(ring, new, touched)
                await asyncio.sleep(0)
                due = monotonic() + TURN_SECONDS
                touched, new = set(), []
        self._flush(ring, new, touched)

    def _flush(self, ring: Ring, entries: list[Recent], touched: set[Group]) -> None:
        """Move the position and fill the groups at once: who joins is either before or after."""
        ring.append(entries)
        for group in touched:
            group.push()
        if entries:
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)


def _retrieve(future: "asyncio.Future[None]") -> None:
    """Without this, asyncio logs an error for which no client waits any more."""
    if not future.cancelled():
        future.exception()
