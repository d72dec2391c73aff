"""What one request has used and who sent it: for Server-Timing, the log, metrics and traces."""

from contextvars import ContextVar
from typing import Any


class Timing:
    """Times of a request in seconds, and the request itself.

    A batch has a Timing of its own. Its times are added to those of each request that it served.

    Attributes:
        statements: statements that it ran, or that were run for it and others.
        queue: it waited for a batch to begin, or until one more write might run.
        pool: it waited for a connection.
        sql: statements ran, from the sending of the arguments to the last record.
        cache: it waited for Redis, or for a load by another request.
        encode: rows were encoded as JSON, and bodies compressed.
        request: the web.request.Request; None outside of one, and for a batch.
        span: of the trace; None without one.
    """

    __slots__ = ("cache", "encode", "pool", "queue", "request", "span", "sql", "statements")

    def __init__(self, request: Any = None) -> None:
        self.statements = 0
        self.queue = self.pool = self.sql = self.cache = self.encode = 0.0
        self.request = request
        self.span: Any = None

    def add(self, other: "Timing", queue: float, sql: float) -> None:
        """Add the times of a batch that served this request, with the request's own waits."""
        self.statements += 1
        self.queue += queue + other.queue
        self.pool += other.pool
        self.sql += sql
        self.encode += other.encode


# Set by the endpoint for its request, and by a batch for itself. What runs outside of both is not
# counted.
timing: ContextVar[Timing | None] = ContextVar("timing", default=None)
