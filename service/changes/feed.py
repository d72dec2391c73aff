"""The feed of changes: one reader of the log per worker, for all who want to hear of changes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from service.changes import log
from service.changes.backlog import READ_ENTRIES, Backlog
from service.changes.change import SPAN, Change, ChangeForm
from service.changes.groups import Group, Topic
from service.changes.ring import Matches, Recent, Ring
from service.db.database import Database
from service.db.letter_case import lower_case
from service.db.listener import Listener
from service.db.names import CHANGES_CHANNEL
from service.errors import Problem, Unavailable
from service.logs import logger
from service.metrics import Metrics
from service.metrics.families import FEED_DROPPED, FEED_EVENTS, FEED_LAG, FEED_SUBSCRIBERS

if TYPE_CHECKING:
    from service.changes.subscriber import Subscriber

# Subscribers of one worker.
MOST_SUBSCRIBERS = 10_000
# Between two reads, so that a read has the changes of many commits; between two without a
# notification, which may be lost; and after a failure.
GAP_SECONDS, POLL_SECONDS, RETRY_SECONDS = 0.01, 1.0, 0.5
# The reader goes on for so long without subscribers: most of them come back.
LINGER_SECONDS = 10.0
# A read with fewer entries and bytes has seen all entries.
READ_BYTES = 262_144
# Other tasks run at least so often while changes are matched.
TURN_SECONDS = 0.005


class Feed:
    """Reads the log as long as there are subscribers or those who wait.

    Args:
        db: the database.
        listener: wakes it.
        forms: of the resources with changes.
        metrics: None to count nothing.
    """

    def __init__(
        self,
        db: Database,
        listener: Listener,
        forms: Iterable[ChangeForm],
        metrics: Metrics | None = None,
    ) -> None:
        self.db = db
        self.backlog = Backlog(db)
        self.stopping = False
        self.subscribers: set[Subscriber] = set()
        self.sent = self.dropped = 0
        self._listener = listener
        self._listens = False
        self._metrics = metrics
        self.topics = {form.name: Topic(form) for form in forms}
        self._by_table = {topic.form.table: topic for topic in self.topics.values()}
        self._ring: Ring | None = None
        self._running = False
        self._ready: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._noticed: float | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._wanted_until = 0.0
        self._lower: Mapping[int, str] | None = None

    @property
    def position(self) -> int:
        """Up to where the log has been read. Only while it runs, see `running`."""
        assert self._ring is not None  # noqa: S101 - `running` has returned
        return self._ring.end

    @property
    def start(self) -> int:
        """A subscriber that has taken nothing since is too slow."""
        return 0 if self._ring is None else self._ring.start

    async def running(self) -> None:
        """Start the reader unless it runs, and wait until it has a position.

        Raises:
            Problem: 503 or 504, the database is not available.
        """
        self._wanted_until = monotonic() + LINGER_SECONDS
        if self._ring is not None:
            return
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._ready.add_done_callback(_retrieve)
            if not self._running:
                self._running = True
                self.db.spawn(self._run())
                self.db.spawn(self._sweep())
        await asyncio.shield(self._ready)

    async def begin(self, after: int | None) -> int:
        """Start the reader, and return the position from which a client goes on; by default now.

        Raises:
            Gone: the log has not all changes after the position, or the position is not of it.
            Problem: 503 or 504, the database is not available.
        """
        await self.running()
        if after is None:
            try:
                return await self.backlog.newest()
            except Unavailable:  # a transaction takes long to commit
                return self.position
        if not self.start <= after <= self.position:
            await self.backlog.check(after)
        return after

    async def lower_case(self) -> Mapping[int, str]:
        """The lower case of letters in the database."""
        if self._lower is None:
            self._lower = await lower_case(self.db)
        return self._lower

    async def read(self, name: str, after: int, limit: int) -> tuple[list[Change], int]:
        """Return the next changes of a resource after a position, and up to where it was read.

        There may be more changes even if it returns none, so call it again until the position is
        not greater than `after`; then `wait`.

        Raises:
            Gone: the log has not all changes after the position any more.
            Problem: 503 or 504, the database is not available.
        """
        return await self.page(self.topics[name].form, None, after, limit)

    async def wait(self, after: int, seconds: float) -> bool:
        """Wait until there may be changes after a position; False if there is none in time.

        Raises:
            Problem: 503 or 504, the database is not available.
        """
        await self.running()
        waiting = asyncio.get_running_loop().create_future()
        due = monotonic() + seconds
        while self.position <= after:
            self._wanted_until = max(self._wanted_until, due)
            self._waiting.add(waiting)
            try:
                async with asyncio.timeout(due - monotonic()):
                    await waiting
            except TimeoutError:
                return False
            finally:
                self._waiting.discard(waiting)
            waiting = asyncio.get_running_loop().create_future()
            await self.running()
        return True

    async def page(
        self, form: ChangeForm, matches: Matches | None, after: int, limit: int
    ) -> tuple[list[Change], int]:
        """As `read`, with a filter."""
        return await self.backlog.page(self._ring, form, matches, after, limit)

    async def _run(self) -> None:
        """Read until nobody wants to hear of changes any more."""
        failed = False
        try:
            while self.subscribers or monotonic() < self._wanted_until:
                began = monotonic()
                try:
                    if failed or self._ring is None:
                        await self._begin()
                    more = await self._read()
                    if failed:
                        logger.info("the feed of changes reads again")
                    failed = False
                except Problem as problem:
                    more = False
                    self._failed(problem, again=failed)
                    failed = True
                except Exception as error:  # noqa: BLE001 - it must go on
                    more = False
                    logger.exception("the feed of changes failed")
                    self._failed(Unavailable("the feed of changes failed"), again=True)
                    failed = bool(error)
                if failed:
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if not more:
                    await self._woken()
                await asyncio.sleep(began + GAP_SECONDS - monotonic())
        finally:
            self._running = False
            self._ring = None
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(Unavailable("shutting down"))
            self._ready = None

    def _failed(self, problem: Problem, *, again: bool) -> None:
        if not again:
            fields = {"problem": problem.detail}
            logger.warning("the feed of changes can't read", extra={"fields": fields})
        ready, self._ready = self._ready, None
        if ready is not None and not ready.done():
            ready.set_exception(problem)

    async def _begin(self) -> None:
        """Take the newest position; after a failure, check that it is not before our own."""
        if not self._listens:
            self._listens = True
            await self._listener.listen(CHANGES_CHANNEL, self._notify)
        newest = (await log.newest(self.db)) | (SPAN - 1)
        if self._ring is not None and newest >= self._ring.end:
            return
        for one in list(self.subscribers):
            one.end()
        self._ring = Ring(newest)
        ready, self._ready = self._ready, None
        if ready is not None and not ready.done():
            ready.set_result(None)

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
        ring = self._ring
        assert ring is not None  # noqa: S101 - `_begin` has set it
        entries = await log.read_entries(self.db, ring.end, READ_ENTRIES)
        await self._give(ring, [Recent(one) for one in entries])
        more = len(entries) == READ_ENTRIES or sum(len(e.rows) for e in entries) > READ_BYTES
        if self._metrics is not None:
            late = 0.0 if self._noticed is None else monotonic() - self._noticed
            self._metrics.set(FEED_LAG, late)
        if not more:
            self._noticed = None
        return more

    async def _give(self, ring: Ring, entries: Sequence[Recent]) -> None:
        touched: set[Group] = set()
        new: list[Recent] = []
        due = monotonic() + TURN_SECONDS
        for entry in entries:
            topic = self._by_table.get(entry.table)
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

    async def _sweep(self) -> None:
        """Once a second: heartbeats, and the end of subscribers that take nothing."""
        try:
            while self._running:
                now = monotonic()
                for one in list(self.subscribers):
                    one.look_after(now)
                self._publish()
                await asyncio.sleep(1)
        finally:
            self._publish()

    def _publish(self) -> None:
        metrics = self._metrics
        if metrics is None:
            return
        metrics.set(FEED_SUBSCRIBERS, len(self.subscribers))
        metrics.add(FEED_EVENTS, number=self.sent)
        metrics.add(FEED_DROPPED, number=self.dropped)
        self.sent = self.dropped = 0

    def check_room(self) -> None:
        """Raise Unavailable if there are too many subscribers."""
        if len(self.subscribers) >= MOST_SUBSCRIBERS:
            raise Unavailable("too many clients hear of changes here: try again", retry_after=5)

    def stop(self) -> None:
        """End all streams; new ones end at once, and their clients come back elsewhere."""
        self.stopping = True
        for one in list(self.subscribers):
            one.end()


def _retrieve(future: "asyncio.Future[None]") -> None:
    """Without this, asyncio logs an error for which nobody waits any more."""
    if not future.cancelled():
        future.exception()
