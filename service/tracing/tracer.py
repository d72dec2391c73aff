"""The tracer of a worker: it begins the spans of requests, and sends all spans to a collector."""

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from service.logs import logger
from service.traceparent import SAMPLED, TRACEPARENT, TraceParent, parse, parse_state
from service.tracing.spans import BatchSpan, RequestSpan, nanoseconds, span_of

if TYPE_CHECKING:  # db imports tracing
    from service.db.batcher import Waiter

# How long the end of the process waits for the last spans to be sent.
CLOSE_SECONDS = 2.0
# Methods in http.request.method; any other is _OTHER, since a client may send any word.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Routes that programs ask every few seconds: traced only if the caller says so.
PROBES = ("/health", "/metrics")


class Tracer:
    """Begins spans; a request that is not sampled has none.

    Endpoint, service, sampler and limits are those of the variables OTEL_*.

    Args:
        processor: takes finished spans; by default one that sends them in the background.
    """

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "swiftlet"}))
        resource = resource.merge(Resource({"process.pid": os.getpid()}))
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(processor or BatchSpanProcessor(Exporter()))
        self._tracer = self.provider.get_tracer("swiftlet")
        # These samplers follow the caller, so they need not be asked about what it does not record;
        # that takes OpenTelemetry 20 us.
        self._follows = isinstance(self.provider.sampler, ParentBased)

    def request(self, scope: Any, began: float, route: str) -> RequestSpan | None:
        """Begin the span of a request; None if it is not sampled, or a probe without a caller.

        Args:
            scope: the request.
            began: perf_counter().
            route: the template of its path.
        """
        caller = _caller(scope["headers"])
        if caller is None:
            if route.startswith(PROBES):
                return None
        elif self._follows and not caller.flags & SAMPLED:
            return None
        method = scope["method"]
        known = method if method in METHODS else "_OTHER"
        name = "HTTP" if known == "_OTHER" else known
        attributes = {
            "http.request.method": known,
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        if route.startswith("/"):  # else no path of the table matches
            name, attributes["http.route"] = f"{name} {route}", route
        span = self._tracer.start_span(
            name,
            _parent(caller, scope["headers"]),
            SpanKind.SERVER,
            attributes,
            start_time=nanoseconds(began),
        )
        return RequestSpan(self._tracer, span) if span.is_recording() else None

    def job(self, kind: str, job_id: int, attempt: int) -> RequestSpan | None:
        """Begin the span of an attempt of a job, the root of a trace; None if it is not sampled."""
        span = self._tracer.start_span(
            f"job {kind}",
            Context(),
            SpanKind.CONSUMER,
            {"swiftlet.job.id": job_id, "swiftlet.job.attempt": attempt},
        )
        return RequestSpan(self._tracer, span) if span.is_recording() else None

    def batch(self, waiters: Sequence["Waiter"]) -> BatchSpan | None:
        """Return what records a batch; None if none of its requests is recorded."""
        if any(span_of(one) is not None for one in waiters):
            return BatchSpan(waiters)
        return None

    async def close(self) -> None:
        """Send the last spans, for CLOSE_SECONDS at most."""
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def close() -> None:
            self.provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended.set)

        # A daemon: a thread of an executor would hold up the end of the process.
        threading.Thread(target=close, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await ended.wait()


def _caller(headers: Sequence[tuple[bytes, bytes]]) -> TraceParent | None:
    """Return the context of the caller; None without one."""
    found = None
    for name, value in headers:
        if name == TRACEPARENT:
            if found is not None:  # two of them are none
                return None
            found = value.strip(b" \t")
    return parse(found)


def _parent(caller: TraceParent | None, headers: Sequence[tuple[bytes, bytes]]) -> Context:
    """Return OpenTelemetry's form of the caller's context; empty without one."""
    if caller is None:
        return Context()
    states = [value for name, value in headers if name == b"tracestate"]
    state = parse_state(b",".join(states)) if states else ""
    remote = SpanContext(
        int(caller.trace_id, 16),
        int(caller.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(caller.flags),
        trace_state=TraceState.from_header([state]) if state else None,
    )
    return set_span_in_context(NonRecordingSpan(remote), Context())


class Exporter(SpanExporter):
    """Sends spans as OTLP over HTTP, in the thread of the processor; a failure loses them.

    OpenTelemetry logs each failed try. Here a collector that is away is one line, and one more when
    it is back.
    """

    def __init__(self) -> None:
        self._exporter = OTLPSpanExporter()
        self._lost = 0
        self._why = ""
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(self._remember)

    def _remember(self, record: logging.LogRecord) -> bool:
        self._why = record.getMessage()
        return False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                fields = {"error": self._why[:200]}
                logger.warning("spans can't be sent, and are lost", extra={"fields": fields})
            self._lost += len(spans)
        elif self._lost:
            logger.info("spans are sent again", extra={"fields": {"lost": self._lost}})
            self._lost = 0
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # it has no types here
        logging.getLogger(OTLPSpanExporter.__module__).removeFilter(self._remember)
