"""The feed of changes: one reader of the log per worker, for all subscribers."""

import asyncio
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from service.changes.backlog import Backlog
from service.changes.change import Change, ChangeForm
from service.changes.groups import Topic
from service.changes.reader import Reader
from service.changes.ring import Matches
from service.db.database import Database
from service.db.letter_case import lower_case
from service.db.listener import Listener
from service.errors import Unavailable
from service.metrics import Metrics
from service.metrics.families import FEED_DROPPED, FEED_EVENTS, FEED_LAG, FEED_SUBSCRIBERS

if TYPE_CHECKING:
    from service.changes.subscriber import Subscriber

# Subscribers of one worker.
MOST_SUBSCRIBERS = 10_000
# Between two looks at the subscribers.
SWEEP_SECONDS = 1.0


class Feed:
    """What a worker knows of changes.

    Args:
        db: the database.
        listener: wakes the reader.
        forms: of the resources with changes.
        metrics: None to count nothing.

    Attributes:
        stopping: the process is to stop: streams end.
        sent: events that were sent and are not counted yet.
        dropped: subscribers that were dropped and are not counted yet.
    """

    def __init__(
        self,
        db: Database,
        listener: Listener,
        forms: Iterable[ChangeForm],
        metrics: Metrics | None = None,
    ) -> None:
        self.topics = {form.name: Topic(form) for form in forms}
        self.stopping = False
        self.sent = self.dropped = 0
        self._db = db
        self._metrics = metrics
        self._subscribers: set[Subscriber] = set()
        self._sweeps = False
        self._lower: Mapping[int, str] | None = None
        self._backlog = Backlog(db)
        tables = {topic.form.table: topic for topic in self.topics.values()}
        self._reader = Reader(db, listener, tables)
        self._reader.wanted = lambda: bool(self._subscribers)
        self._reader.on_reset = self._end_all

    async def position(self) -> int:
        """Return up to where the log has been read; it waits only until the reader runs.

        Raises:
            Problem: 503 or 504, the database is not available.
        """
        return (await self._reader.running()).end

    @property
    def start(self) -> int:
        """A subscriber that has taken nothing since is too slow."""
        ring = self._reader.ring
        return 0 if ring is None else ring.start

    @property
    def end(self) -> int:
        """Up to where the log has been read; 0 if the reader does not run."""
        ring = self._reader.ring
        return 0 if ring is None else ring.end

    async def begin(self, after: int | None) -> int:
        """Start the reader, and return the position from which a client goes on; by default now.

        Raises:
            Gone: the log has not all changes after the position, or the position is not of it.
            Problem: 503 or 504, the database is not available.
        """
        ring = await self._reader.running()
        if after is None:
            try:
                return await self._backlog.newest()
            except Unavailable:  # a transaction takes long to commit
                return ring.end
        if not ring.start <= after <= ring.end:
            await self._backlog.check(after)
        return after

    async def lower_case(self) -> Mapping[int, str]:
        """Return the lower case of letters in the database."""
        if self._lower is None:
            self._lower = await lower_case(self._db)
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
        return await self._reader.wait(after, seconds)

    async def page(
        self, form: ChangeForm, matches: Matches | None, after: int, limit: int
    ) -> tuple[list[Change], int]:
        """As `read`, with a filter."""
        return await self._backlog.page(self._reader.ring, form, matches, after, limit)

    async def look(
        self, form: ChangeForm, matches: Matches, after: int, limit: int
    ) -> tuple[list[Change], int]:
        """As `page`, from the database: what the reader has not read yet, too."""
        try:
            return await self._backlog.look(form, matches, after, limit)
        except Unavailable:  # a transaction takes long to commit
            return [], after

    def check_room(self) -> None:
        """Check that there may be one more subscriber.

        Raises:
            Unavailable: there are too many.
        """
        if len(self._subscribers) >= MOST_SUBSCRIBERS:
            raise Unavailable(
                "too many clients follow changes on this worker: try again later", retry_after=5
            )

    def add(self, subscriber: "Subscriber") -> None:
        """Let the reader run for a subscriber."""
        self._subscribers.add(subscriber)
        if not self._sweeps:
            self._sweeps = True
            self._db.spawn(self._sweep())

    def remove(self, subscriber: "Subscriber") -> None:
        """Forget a subscriber."""
        self._subscribers.discard(subscriber)

    def stop(self) -> None:
        """End all streams; new ones end at once, and their clients come back elsewhere."""
        self.stopping = True
        self._end_all()

    def _end_all(self) -> None:
        for one in list(self._subscribers):
            one.end()

    async def _sweep(self) -> None:
        """Once a second: heartbeats, the end of subscribers that take nothing, and metrics."""
        try:
            while self._subscribers:
                now = monotonic()
                for one in list(self._subscribers):
                    one.look_after(now)
                self._publish()
                await asyncio.sleep(SWEEP_SECONDS)
        finally:
            self._sweeps = False
            self._publish()

    def _publish(self) -> None:
        metrics = self._metrics
        if metrics is None:
            return
        metrics.set(FEED_SUBSCRIBERS, len(self._subscribers))
        metrics.set(FEED_LAG, self._reader.lag)
        metrics.add(FEED_EVENTS, number=self.sent)
        metrics.add(FEED_DROPPED, number=self.dropped)
        self.sent = self.dropped = 0
