"""Reads of single rows without a task: the batch that reads a row sends the response."""

from collections.abc import Awaitable, Callable
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from service.cache.generations import TableTags
from service.cache.response import CachedResponse
from service.cache.store import MISSING_SECONDS, Pending
from service.db.batch import BatchLoader
from service.db.batcher import Waiter
from service.errors import NotFound, Problem
from service.http1.request_cycle import RequestCycle
from service.http1.standard_headers import LINES_OF_ROW, PRIVATE, new_request_id, request_id
from service.web import compress
from service.web.cached import BYPASS, MISS, Key
from service.web.codec import JSON, Header, Reply
from service.web.conditional import etag
from service.web.request import Request
from service.web.times import encode_row

if TYPE_CHECKING:
    from service.web.endpoint import Endpoint

# Ids of more digits may be out of range: the handler answers them.
DIGITS = 18
# The rest of the head of a row, after LINES_OF_ROW and the ETag.
_END = b"cache-control: %b\r\ncontent-type: %b\r\ncontent-length: %%d" % (PRIVATE, JSON)
_HEADS = {
    (one, versioned): b"%b\r\n%b: %b\r\n%b%b"
    % (LINES_OF_ROW, *one, b'etag: "%d"\r\n' if versioned else b"", _END)
    for one in (MISS, BYPASS)
    for versioned in (True, False)
}
Send = Callable[[bytes, bytes], bool]


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
        self.version_of: Callable[[Any], int] | None = (
            None if version is None else attrgetter(version)
        )
        self.private = private

    def begin(self, waiter: "RowRead", row_id: str, place: Key) -> bool:
        """Let a request wait for its row; return False to leave it to a task.

        Args:
            waiter: the request.
            row_id: as in the path.
            place: the key of the response in the cache.
        """
        cycle = waiter.cycle
        state = cycle.connection.app_state
        db, cache, metrics = state["db"], state["cache"], state["metrics"]
        if place[2] or not db.batching or not row_id.isdecimal() or len(row_id) > DIGITS:
            return False
        number = waiter.args = int(row_id)
        if not number or cycle.connection.blocked is not None:
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


class RowHandler:
    """A handler of GET whose response is the row with the id in the path.

    Args:
        handler: answers any request.
        reads: answers most of them without a task.
    """

    def __init__(self, handler: Callable[[Request], Awaitable[Reply]], reads: RowReads) -> None:
        self.handler = handler
        self.reads = reads

    def __call__(self, request: Request) -> Awaitable[Reply]:
        """As the handler."""
        return self.handler(request)


class RowRead(Waiter):
    """A request that waits for its row.

    Args:
        reads: what reads it.
        cycle: the request.
        endpoint: of its path.
        send: sends header lines and a body.
        started: perf_counter() at its start.

    Attributes:
        given_id: the request's id, as the client gave it.
        lines: further header lines of the response, each with CR LF.
        pending: where the cache keeps the response; None without a cache.
    """

    __slots__ = (
        "cycle",
        "endpoint",
        "given_id",
        "lines",
        "pending",
        "reads",
        "send",
        "started",
    )

    def __init__(
        self, reads: RowReads, cycle: RequestCycle, endpoint: "Endpoint", send: Send, started: float
    ) -> None:
        super().__init__(None, None)
        self.reads = reads
        self.cycle = cycle
        self.endpoint = endpoint
        self.send = send
        self.started = started
        self.given_id: bytes | None = None
        self.lines = b""
        self.pending: Pending | None = None

    def answer(self, row: Struct | None) -> None:
        """Send the row, or that there is none."""
        try:
            self._answer(row)
        except Exception as error:  # noqa: BLE001 - it is logged and answered as any other
            self._late(error)

    def refuse(self, problem: BaseException) -> None:
        """Send the error."""
        self._late(problem)

    def _answer(self, row: Struct | None) -> None:
        pending, came, size = self.pending, BYPASS, 0
        if pending is not None:
            came, size = MISS, 3 * len(self.cycle.head.path) + 9
        if row is None:
            detail = "there is no such row"
            if pending is not None:
                pending.keep(CachedResponse(b"", missing=detail), size, MISSING_SECONDS)
            self._late(NotFound(detail, headers=(came,)))
            return
        began = perf_counter()
        body = encode_row(row)
        version_of = self.reads.version_of
        version: int | None = None
        headers: tuple[Header, ...] = ()
        shown: tuple[int, ...] = (len(body),)
        if version_of is not None:
            version = number = version_of(row)
            headers, shown = ((b"etag", etag(number)),), (number, len(body))
        if pending is not None:
            pending.keep(CachedResponse(body, headers, version), size)
        if len(body) >= compress.LEAST:
            self._late(Reply(body, headers=(*headers, came), version=version))
            return
        spent, ended, given_id = self.batch, perf_counter(), self.given_id
        took = ended - self.started
        assert spent is not None  # noqa: S101 - a batch has read the row
        queue, parts = spent.shared(self.began, began)
        head = self.lines + _HEADS[came, version is not None] % (
            new_request_id() if given_id is None else request_id(given_id).encode(),
            took,
            (self.began - self.arrived + queue) * 1000,
            parts,
            (ended - began) * 1000,
            took * 1000,
            *shown,
        )
        metrics = self.cycle.connection.app_state["metrics"]
        if metrics is not None:
            metrics.in_flight -= 1
            metrics.request("GET", self.endpoint.route, 200, took)
        self.send(head, body)

    def _late(self, reply: Reply | BaseException) -> None:
        """Answer in a task: an error, or a response that is compressed."""
        cycle = self.cycle
        metrics = cycle.connection.app_state["metrics"]
        if metrics is not None:
            metrics.in_flight -= 1
        if not cycle.finished and not cycle.lost:
            cycle.connection.run(self.endpoint.answer_late(cycle, self, reply, self.started))
