"""Reads of single rows without a task: the batch that reads a row sends the response."""

from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from service.cache.generations import TableTags
from service.cache.response import CachedResponse
from service.cache.store import MISSING_SECONDS
from service.db.batch import BatchLoader
from service.errors import NotFound, Problem
from service.http1.request_cycle import RequestCycle
from service.web.cached import BYPASS, MISS, Key, Loads
from service.web.codec import Reply
from service.web.direct_waiter import DirectWaiter, Send, encoded
from service.web.prebuilt import common_lines
from service.web.request import Request

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


class RowRead(DirectWaiter):
    """A request that waits for its row.

    Attributes:
        place: the key of the response in the cache; None without a cache.
        generation: see Cache.begin_read.
    """

    __slots__ = ("generation", "place", "reads")

    def __init__(
        self, reads: RowReads, cycle: RequestCycle, endpoint: "Endpoint", send: Send, started: float
    ) -> None:
        super().__init__(cycle, endpoint, send, started)
        self.reads = reads
        self.place: Key | None = None

    def begin(self, row_id: str, place: Key, *, cached: bool) -> bool:
        """Wait for the row; return False to leave it to a task.

        Args:
            row_id: as in the path.
            place: the key of the response in the cache.
            cached: whether the cache keeps it.
        """
        connection, reads = self.cycle.connection, self.reads
        state = connection.app_state
        db, cache, metrics = state["db"], state["cache"], state["metrics"]
        if self.cycle.head.query or not db.batching:
            return False
        if not row_id.isdecimal() or len(row_id) > DIGITS:
            return False
        number = self.args = int(row_id)
        if not number or connection.blocked is not None:
            return False
        if cached:
            cache.local.misses += 1
            self.place, self.generation = place, cache.begin_read()
        try:
            reads.by_id.submit(db, self)
        except Problem:  # the task raises it again
            return False
        if metrics is not None:
            metrics.in_flight += 1
        return True

    def answer(self, row: Struct | None) -> None:
        """Send the row, or that there is none."""
        try:
            self._answer(row)
        except Exception as error:  # noqa: BLE001 - it is logged and answered as any other
            self.late(error)

    def _answer(self, row: Struct | None) -> None:
        came = BYPASS if self.place is None else MISS
        if row is None:
            detail = "there is no such row"
            self._keep(CachedResponse(b"", missing=detail), MISSING_SECONDS)
            self.late(NotFound(detail, headers=(came,)))
            return
        began = perf_counter()
        body, version, headers = encoded(row, self.reads.version_of)
        self._keep(CachedResponse(body, headers, version))
        self.show(body, (*headers, came), 200, began, began)

    def _keep(self, response: CachedResponse, seconds: float | None = None) -> None:
        if self.place is not None:
            tag, size = self.reads.tags.row_tag(self.args), 3 * len(self.cycle.head.path) + 9
            cache = self.cycle.connection.app_state["cache"]
            cache.keep(self.place, response, tag, self.generation, size, seconds)


class Load(DirectWaiter):
    """A request that waits for a response that equal requests share, such as a list."""

    __slots__ = ("row_id",)

    def begin(self, loads: Loads, place: Key, row_id: str) -> bool:
        """Wait for the response; return False to leave it to a task.

        Args:
            loads: makes it.
            place: its key.
            row_id: as in the path.
        """
        cycle = self.cycle
        self.row_id = row_id
        state = cycle.connection.app_state
        db, metrics = state["db"], state["metrics"]
        if not db.batching or cycle.connection.blocked is not None:
            return False
        try:
            loads.submit(db, place, self)
        except Problem:  # the task raises it again
            return False
        if metrics is not None:
            metrics.in_flight += 1
        return True

    def request(self) -> Request:
        """Return the request, for what makes the response."""
        scope = self.cycle.scope()
        scope["path_params"] = {"id": self.row_id}
        return Request(scope, self.cycle.receive)

    def answer(self, response: CachedResponse) -> None:
        """Send the response."""
        answered = perf_counter()
        try:
            if response.missing is not None:
                self.late(NotFound(response.missing, headers=(BYPASS,)))
                return
            headers = (*response.headers, BYPASS)
            if common_lines(headers) is None:
                self.late(Reply(response.body, headers=headers))
            else:
                self.show(response.body, headers, 200, answered, answered)
        except Exception as error:  # noqa: BLE001 - it is logged and answered as any other
            self.late(error)
