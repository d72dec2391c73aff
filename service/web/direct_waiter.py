"""A request that waits for a batch without a task, and how its response is sent."""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from service.db.batcher import Waiter
from service.http1.request_cycle import RequestCycle
from service.http1.standard_headers import LINES_OF_ROW, PRIVATE, new_request_id, request_id
from service.web import compress
from service.web.codec import JSON, Header, Reply
from service.web.conditional import etag_headers
from service.web.prebuilt import common_lines
from service.web.request import Request
from service.web.times import encode_row

if TYPE_CHECKING:
    from service.web.endpoint import Endpoint

# What sends header lines, without the last CR LF, and a body with a status.
Send = Callable[[bytes, bytes, int], bool]
_HEAD = (
    b"%b\r\n%%bcache-control: %b\r\ncontent-type: %b\r\ncontent-length: %%d"
    % (LINES_OF_ROW, PRIVATE, JSON)
)  # fmt: skip


class DirectHandler:
    """A handler of requests for one row, and how most of them are answered without a task.

    Args:
        handler: answers any request.
        direct: a RowReads or a RowWrites.
    """

    def __init__(self, handler: Callable[[Request], Awaitable[Reply]], direct: Any) -> None:
        self.handler = handler
        self.direct = direct

    def __call__(self, request: Request) -> Awaitable[Reply]:
        """As the handler."""
        return self.handler(request)


class DirectWaiter(Waiter):
    """A request that waits for its row.

    Args:
        cycle: the request.
        endpoint: of its path.
        send: sends its response.
        started: perf_counter() at its start.

    Attributes:
        given_id: the request's id, as the client gave it.
        lines: further header lines of the response, each with CR LF.
        done: whether it has its response. A batch that fails refuses also those it has answered.
    """

    __slots__ = ("cycle", "done", "endpoint", "given_id", "lines", "send", "started")

    def __init__(
        self, cycle: RequestCycle, endpoint: "Endpoint", send: Send, started: float
    ) -> None:
        super().__init__(None, None)
        self.cycle = cycle
        self.endpoint = endpoint
        self.send = send
        self.started = started
        self.given_id: bytes | None = None
        self.lines = b""
        self.done = False

    def refuse(self, problem: BaseException) -> None:
        """Send the error."""
        self.late(problem)

    def show(
        self,
        body: bytes,
        headers: tuple[Header, ...],
        status: int,
        answered: float,
        began: float,
        location: bytes | None = None,
    ) -> None:
        """Send the response of a row.

        Args:
            body: the row as JSON.
            headers: further headers, which many responses have in common.
            status: 200 or 201.
            answered: perf_counter() when the batch had the row; after it the cache was invalidated.
            began: perf_counter() when the encoding began.
            location: of a new row.
        """
        if self.done:
            return
        cycle, compressible = self.cycle, len(body) >= compress.LEAST
        if cycle.connection.blocked is not None or (  # `send` can't wait until the client reads
            compressible and compress.negotiate(cycle.head.headers) is not None
        ):
            more = () if location is None else ((b"location", location),)
            self.late(Reply(body, status, (*headers, *more)))
            return
        lines = common_lines((*headers, compress.VARY) if compressible else headers)
        given_id, batch, ended = self.given_id, self.batch, perf_counter()
        assert batch is not None  # noqa: S101 - the batch has the row
        assert lines is not None  # noqa: S101 - the caller has looked
        queue, parts = batch.shared(self.began, answered)
        if self.lines:
            lines += self.lines
        if location is not None:
            lines += b"location: %b\r\n" % location
        took = ended - self.started
        id_ = new_request_id() if given_id is None else request_id(given_id).encode()
        head = _HEAD % (
            id_,
            took,
            (self.began - self.arrived + queue) * 1000,
            parts,
            (began - answered) * 1000,
            (ended - began) * 1000,
            took * 1000,
            lines,
            len(body),
        )
        state = cycle.connection.app_state
        if took * 1000 > state["settings"].slow_request_ms:
            self.endpoint.log_late(cycle, self, id_, status, took)
        self.send(head, body, status)
        self.done = True
        metrics = state["metrics"]
        if metrics is not None:
            metrics.in_flight -= 1
            metrics.request(cycle.method, self.endpoint.route, status, took)

    def late(self, reply: Reply | BaseException) -> None:
        """Answer in a task: an error, or a response that is compressed."""
        if self.done:
            return
        self.done = True
        cycle = self.cycle
        metrics = cycle.connection.app_state["metrics"]
        if metrics is not None:
            metrics.in_flight -= 1
        if not cycle.finished:  # a client that has left gets nothing, but an error is logged
            work = self.endpoint.answer_late(cycle, self, reply, self.started)
            cycle.connection.run(cycle.complete(work))


def encoded(
    row: Struct, version_of: Callable[[Any], int] | None
) -> tuple[bytes, int | None, tuple[Header, ...]]:
    """Return a row as JSON, its version if the table has one, and the headers with its ETag."""
    body = encode_row(row)
    if version_of is None:
        return body, None, ()
    version = version_of(row)
    return body, version, etag_headers(version)
