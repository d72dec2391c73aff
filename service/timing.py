"""What one request has used and who sent it: for Server-Timing, the log, metrics and traces."""

from contextvars import ContextVar
from typing import Any

from service.traceparent import TraceParent, parse


class Timing:
    """Times of a request in seconds, and the request itself.

    A batch has a Timing of its own. Its times are added to those of each request that it served.

    Attributes:
        statements: statements that it ran, or that were run for it and others.
        queue: it waited for a batch to begin, or until one more write might run.
        pool: it waited for a connection.
        sql: statements ran, from the sending of the arguments to the last record; BEGIN, COMMIT and
            COPY too, which are not counted in `statements`.
        cache: it waited for Redis, or for a load by another request.
        encode: rows were encoded as JSON, and bodies compressed.
        idle: it waited for changes, as the client had asked; not part of its duration.
        request: the web.request.Request; None outside of one, and for a batch.
        span: a tracing.spans.RequestSpan or BatchSpan; None if no trace is recorded.
    """

    __slots__ = ("cache", "encode", "idle", "pool", "queue", "request", "span", "sql", "statements")

    def __init__(self, request: Any = None) -> None:
        self.statements = 0
        self.queue = self.pool = self.sql = self.cache = self.encode = self.idle = 0.0
        self.request = request
        self.span: Any = None

    def add(self, other: "Timing", queue: float, seconds: float) -> None:
        """Add the times of work for several requests, of which this is one.

        Args:
            other: times of the work. Parts of it may have run before this request came, or at the
                same time, so they are reduced to the time that this request waited.
            queue: seconds that this request waited until it began.
            seconds: that it waited then. What is no other part is `sql`.
        """
        parts = other.queue + other.pool + other.encode
        share = seconds / parts if parts > seconds else 1.0
        self.statements += other.statements or 1
        self.queue += queue + other.queue * share
        self.pool += other.pool * share
        self.sql += seconds - parts * share
        self.encode += other.encode * share

    def parts(self) -> dict[str, object]:
        """Return the times for a log line, in seconds."""
        names = ("queue", "pool", "sql", "cache", "encode")
        times = {name: round(getattr(self, name), 4) for name in names}
        return {"statements": self.statements, **times}

    @property
    def caller(self) -> TraceParent | None:
        """The trace context that the request came with."""
        return None if self.request is None else parse(self.request.header(b"traceparent"))

    def named(self) -> dict[str, object]:
        """Return the fields that each log line of the request has: its ids, and who sent it."""
        request = self.request
        if request is None:
            return {}
        fields: dict[str, object] = {"request_id": request.id}
        traced = self.caller if self.span is None else self.span
        if traced is not None:
            fields["trace_id"] = traced.trace_id
        principal = request.principal
        if principal is not None:
            fields["principal"], fields["key"] = principal.id, principal.key_id
        return fields


class BatchTiming(Timing):
    """Times of a batch.

    Args:
        name: of its statements.
        waited: seconds that its first request waited until it began.
    """

    __slots__ = ("_shared", "name", "waited")

    def __init__(self, name: str, waited: float) -> None:
        super().__init__()
        self.name = name
        self.waited = waited
        self._shared: tuple[float, bytes] | None = None

    def shared(self, began: float, ended: float) -> tuple[float, bytes]:
        """Return the times that all requests of a batch of one statement have in common.

        Args:
            began: perf_counter() when the batch began.
            ended: perf_counter() at its first answer; later values change nothing.

        Returns:
            Seconds of `queue`, and `pool` and `sql` as in Server-Timing.
        """
        if self._shared is None:
            spent = Timing()
            spent.add(self, 0.0, ended - began)
            parts = (spent.pool * 1000, spent.sql * 1000, spent.statements)
            line = b'pool;dur=%.3f, sql;dur=%.3f;desc="%d statements"' % parts
            self._shared = (spent.queue, line)
        return self._shared

    def named(self) -> dict[str, object]:
        """Return the fields of its log lines: it serves many requests, so only its name."""
        return {"statement": self.name}


class JobTiming(Timing):
    """Times of an attempt of a job.

    Args:
        fields: that each of its log lines has.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: dict[str, object]) -> None:
        super().__init__()
        self.fields = fields

    def named(self) -> dict[str, object]:
        """Return the fields of its log lines."""
        traced = {} if self.span is None else {"trace_id": self.span.trace_id}
        return {**self.fields, **traced}


# Set by the endpoint for its request, by a batch and by an attempt of a job for itself. What runs
# outside of these is not counted.
timing: ContextVar[Timing | None] = ContextVar("timing", default=None)
