"""Spans of requests, statements and waits, for OpenTelemetry.

Only requests whose trace is recorded have them. They never have a value: no query string, no
argument of a statement, no key.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)

if TYPE_CHECKING:  # db imports tracing
    from service.db.batcher import Waiter
    from service.db.statement import Statement

Attributes = Mapping[str, str | int | float | bool]

# OpenTelemetry's own limit of links of a span.
LINKS = 128
POSTGRESQL = {"db.system.name": "postgresql"}
# Of a batch: the waiters that the statements which run now serve, see BatchSpan.serve.
_served: ContextVar[Sequence["Waiter"] | None] = ContextVar("served", default=None)


def nanoseconds(seconds: float) -> int:
    """Return the time of the clock at a time of perf_counter().

    The two drift apart, so the difference is taken each time.
    """
    return time_ns() + round((seconds - perf_counter()) * 1e9)


class RequestSpan:
    """The span of a request, or of an attempt of a job, that is recorded.

    Args:
        tracer: makes spans.
        span: of the request.
    """

    __slots__ = ("_context", "span", "tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self.tracer = tracer
        self.span = span
        self._context = set_span_in_context(span, Context())

    @property
    def trace_id(self) -> str:
        """The id of the trace, in hexadecimal."""
        return f"{self.span.get_span_context().trace_id:032x}"

    @property
    def header(self) -> str:
        """The ids of this span: of a response's traceresponse, and for calls a traceparent."""
        one = self.span.get_span_context()
        return f"00-{one.trace_id:032x}-{one.span_id:016x}-{one.trace_flags:02x}"

    def outgoing(self) -> dict[str, str]:
        """Return the headers of a call to another service; see tracing.outgoing_headers."""
        state = self.span.get_span_context().trace_state.to_header()
        return {"traceparent": self.header, **({"tracestate": state} if state else {})}

    def child(
        self,
        name: str,
        began: float,
        ended: float,
        attributes: Attributes | None = None,
        links: Sequence[SpanContext] = (),
    ) -> Span:
        """Record a part of the request: a wait, or a look-up.

        Args:
            name: of the span.
            began: perf_counter().
            ended: perf_counter().
            attributes: of the span.
            links: to spans of other traces.
        """
        span = self.tracer.start_span(
            name,
            self._context,
            attributes=attributes,
            links=[Link(one) for one in links[:LINKS]],
            start_time=nanoseconds(began),
        )
        span.end(nanoseconds(ended))
        return span

    def statement(
        self,
        statement: "Statement[Any]",
        seconds: float,
        rows: int,
        error: BaseException | None = None,
        links: Sequence[SpanContext] = (),
    ) -> SpanContext:
        """Record a statement that has just ended.

        Args:
            statement: it.
            seconds: that it took.
            rows: number of records.
            error: why it failed.
            links: the requests that it served, if it is shared.
        """
        now = perf_counter()
        span = self.tracer.start_span(
            statement.name,
            self._context,
            SpanKind.CLIENT,
            {
                **POSTGRESQL,
                "db.operation.name": statement.sql.split(maxsplit=1)[0],
                "db.query.summary": statement.name,
            },
            [Link(one) for one in links[:LINKS]],
            nanoseconds(now - seconds),
        )
        if error is None:
            span.set_attribute("db.response.returned_rows", rows)
        else:
            span.set_attribute("error.type", type(error).__name__)
            code = getattr(error, "sqlstate", None)
            if code is not None:
                span.set_attribute("db.response.status_code", code)
            span.set_status(Status(StatusCode.ERROR))
        span.end(nanoseconds(now))
        return span.get_span_context()

    def answered_by(self, waiter: "Waiter") -> None:
        """Record the part of a request in a batch, linked to the statements that it shared."""
        now, spent = perf_counter(), waiter.batch
        if spent is None:  # it left before a batch began
            self.child("batch", waiter.arrived, now)
            return
        batch: BatchSpan = spent.span
        span = self.tracer.start_span(
            f"batch {spent.name}",
            self._context,
            attributes={"swiftlet.batch.requests": batch.requests},
            links=[Link(one) for one in batch.shared.get(waiter, ())[:LINKS]],
            start_time=nanoseconds(waiter.arrived),
        )
        span.add_event("batch begins", timestamp=nanoseconds(waiter.began))
        span.end(nanoseconds(now))

    def end(self, request_id: str, status: int, cache: bytes | None) -> None:
        """End it when the response has been sent.

        Args:
            request_id: of the request, as in the log.
            status: of the response.
            cache: its X-Cache, if it has one.
        """
        span = self.span
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("swiftlet.request_id", request_id)
        if cache is not None:
            span.set_attribute("swiftlet.cache", cache.decode())
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def end_job(self, result: str) -> None:
        """End it when an attempt of a job has ended with this result."""
        self.span.set_attribute("swiftlet.job.result", result)
        if result != "done":
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


class BatchSpan:
    """Stands for a batch, in place of a RequestSpan. A batch has no span, only its statements.

    Each of them is one span, linked to all requests that it served. It belongs to the trace of the
    first of these that is recorded; each one has a part that links back, see answered_by.

    Args:
        waiters: the requests of the batch; one of them at least is recorded.
    """

    __slots__ = ("requests", "shared", "waiters")

    def __init__(self, waiters: Sequence["Waiter"]) -> None:
        self.requests = len(waiters)
        self.waiters = [one for one in waiters if span_of(one) is not None]
        self.shared: dict[Waiter, list[SpanContext]] = {}

    def serve(self, waiters: Sequence["Waiter"]) -> None:
        """Note that the statements of this task serve only these from now on."""
        _served.set(waiters)

    def _served(self) -> tuple[RequestSpan | None, list["Waiter"]]:
        """The span to which a statement belongs, and the recorded requests that it serves."""
        now = _served.get()
        waiters = self.waiters if now is None else [one for one in now if span_of(one) is not None]
        return (span_of(waiters[0]) if waiters else None), waiters

    def child(
        self, name: str, began: float, ended: float, attributes: Attributes | None = None
    ) -> None:
        """Record a wait of the batch, linked to the requests; see RequestSpan.child."""
        parent, waiters = self._served()
        if parent is not None:
            parent.child(name, began, ended, attributes, _contexts(waiters))

    def statement(
        self,
        statement: "Statement[Any]",
        seconds: float,
        rows: int,
        error: BaseException | None = None,
    ) -> None:
        """Record a statement that has just ended; see RequestSpan.statement."""
        parent, waiters = self._served()
        if parent is not None:
            made = parent.statement(statement, seconds, rows, error, _contexts(waiters))
            for one in waiters:
                self.shared.setdefault(one, []).append(made)


def span_of(waiter: "Waiter") -> RequestSpan | None:
    return None if waiter.spent is None else waiter.spent.span


def _contexts(waiters: Sequence["Waiter"]) -> list[SpanContext]:
    spans = (span_of(one) for one in waiters)
    return [one.span.get_span_context() for one in spans if one is not None]
