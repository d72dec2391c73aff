"""Reads of single rows without a task: the batch that reads a row sends the response."""

from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from service.cache.generations import TableTags
from service.cache.loads import Pending
from service.cache.response import CachedResponse
from service.cache.store import MISSING_SECONDS
from service.db.batch import BatchLoader
from service.errors import NotFound, Problem
from service.http1.request_cycle import RequestCycle
from service.web.cached import BYPASS, MISS, Key
from service.web.direct_waiter import DirectWaiter, Send, encoded

if TYPE_CHECKING:
    from service.web.endpoint import Endpoint

# Ids of more digits may be out of range: the handler answers them.
DIGITS = 18


class RowReads:
    """Reads of the rows of a table.

    Args:
        by_id: reads them in batches.
        tags: of the table.
        version: name of the field with the version; None without one.
        private: whether the response depends on the principal.
    """

    def __init__(
        self, by_id: BatchLoader[Any], tags: TableTags, version: str | None, *, private: bool
    ) -> None:
        self.by_id = by_id
        self.tags = tags
        self.version_of = None if version is None else attrgetter(version)
        self.private = private

    def begin(self, waiter: "RowRead", row_id: str, place: Key) -> bool:
        """Let a request wait for its row; return False to leave it to a task.

        Args:
            waiter: the request.
            row_id: as in the path.
            place: the key of the response in the cache.
        """
        connection = waiter.cycle.connection
        state = connection.app_state
        db, cache, metrics = state["db"], state["cache"], state["metrics"]
        if place[2] or not db.batching or not row_id.isdecimal() or len(row_id) > DIGITS:
            return False
        number = waiter.args = int(row_id)
        if not number or connection.blocked is not None:
            return False
        if cache.on:
            cache.local.misses += 1
            waiter.pending = Pending(cache, place, self.tags.row(number))
        try:
            self.by_id.submit(db, waiter)
        except Problem:  # the task raises it again
            return False
        if metrics is not None:
            metrics.in_flight += 1
        return True


class RowRead(DirectWaiter):
    """A request that waits for its row.

    Attributes:
        pending: where the cache keeps the response; None without a cache.
    """

    __slots__ = ("pending", "reads")

    def __init__(
        self, reads: RowReads, cycle: RequestCycle, endpoint: "Endpoint", send: Send, started: float
    ) -> None:
        super().__init__(cycle, endpoint, send, started)
        self.reads = reads
        self.pending: Pending | None = None

    def answer(self, row: Struct | None) -> None:
        """Send the row, or that there is none."""
        try:
            self._answer(row)
        except Exception as error:  # noqa: BLE001 - it is logged and answered as any other
            self.late(error)

    def _answer(self, row: Struct | None) -> None:
        pending, came, size = self.pending, BYPASS, 0
        if pending is not None:
            came, size = MISS, 3 * len(self.cycle.head.path) + 9
        if row is None:
            detail = "there is no such row"
            if pending is not None:
                pending.keep(CachedResponse(b"", missing=detail), size, MISSING_SECONDS)
            self.late(NotFound(detail, headers=(came,)))
            return
        began = perf_counter()
        body, version, headers = encoded(row, self.reads.version_of)
        if pending is not None:
            pending.keep(CachedResponse(body, headers, version), size)
        self.show(body, (*headers, came), 200, began, began)
