"""Answer a GET without a task: from the cache of this process, or with a row that a batch reads.

Most requests are such reads. Without a task, a Request and the coroutines of a handler they take
half of the CPU, and get the same response (`python -m bench trials path`).
"""

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from service.cache.response import CachedResponse
from service.http1.extensions import SEND_PREBUILT
from service.http1.headers import SECRETS
from service.http1.request_cycle import RequestCycle
from service.http1.standard_headers import new_request_id, request_id
from service.logs import logger
from service.traceparent import TRACEPARENT, trace_response
from service.web import compress
from service.web.added_headers import AddedHeaders
from service.web.api_keys import KEY_HEADERS
from service.web.cached import HIT, Loads, asks_fresh, key
from service.web.codec import Header
from service.web.guard import Rule
from service.web.repeated_hits import HEAD_OF_HIT, Hit, Repeats, fixed_lines
from service.web.row_reads import Load, RowRead, RowReads

if TYPE_CHECKING:
    from service.web.endpoint import Endpoint

_CONDITIONS = frozenset({b"if-match", b"if-none-match"})
# The headers of a request that such an answer depends on.
_READ = KEY_HEADERS | {b"cache-control", b"x-request-id", TRACEPARENT}

access = logger.getChild("access")


class _Named(NamedTuple):
    """What the headers of a request say: its id, its only key, and the trace it belongs to.

    `fresh`: no cache may answer it.
    """

    request_id: bytes | None
    key: Header | None
    traceparent: bytes | None
    fresh: bool


class DirectGet:
    """How an operation answers its requests without a task.

    Args:
        endpoint: of its path.
        rule: what the guard checks.
        loads: makes its responses.
        reads: reads the row that is the response, where that is so.
    """

    def __init__(
        self, endpoint: "Endpoint", rule: Rule, loads: Loads, reads: RowReads | None = None
    ) -> None:
        self.repeats = Repeats()  # Paths gives all the same
        self.endpoint = endpoint
        self.rule = rule
        self.loads = loads
        self.reads = reads

    def begin(  # noqa: C901, PLR0912, PLR0915 - a function of its own for each case costs time
        self, cycle: RequestCycle, path: str, row_id: str, added: AddedHeaders | None
    ) -> bool:
        """Answer now, or when a batch has read the row; return False to leave it to a task.

        So requests with preconditions, several keys, or anything else that is unusual.

        Args:
            cycle: a GET.
            path: of the request.
            row_id: the last part of the path.
            added: the headers that the settings add to each response.
        """
        started = perf_counter()
        head, state = cycle.head, cycle.connection.app_state
        if access.isEnabledFor(20) or not _CONDITIONS.isdisjoint(head.names):
            return False
        named, fresh = None, False
        if not _READ.isdisjoint(head.names):
            named = _named(head.headers)
            if named is None:
                return False
            fresh = named.fresh
        ready, viewer, lines, span = cycle.ready, "", b"", None
        guard, tracer = state["guard"], state["tracer"]
        scope = admission = None
        if tracer is not None or added is not None:
            scope = cycle.scope()
            if added is not None:
                added.prepare(scope)
                ready = scope["extensions"][SEND_PREBUILT]
        if guard is not None:
            given = None if named is None else named.key
            admission = guard.decide(cycle.scope, self.rule, started, given)
            if admission is None:
                return False
            viewer, lines = admission.viewer, admission.lines
        cache = state["cache"]
        place = key(viewer, "", head.query, path)
        reads = self.reads
        waits = tracer is None and (guard is None or (reads is not None and not reads.private))
        response: CachedResponse | None = None
        if cache.on and not fresh:
            response = cache.find(place, refreshes=waits and reads is not None)
        if admission is not None and (response is None or response.missing is not None):
            admission.mark(cycle.scope())
        if response is None:
            cached = cache.on and not fresh
            if not waits:
                return False
            if reads is None and (cached or (head.query and "GET" in self.endpoint.without_query)):
                return False  # the load may ask Redis; a query is an error
            waiter: RowRead | Load
            if reads is None:
                waiter = Load(cycle, self.endpoint, ready, started)
            else:
                waiter = RowRead(reads, cycle, self.endpoint, ready, started)
            waiter.lines = lines
            if named is not None:
                waiter.given_id = named.request_id
                if named.traceparent is not None:
                    waiter.lines += _trace_line(named.traceparent)
            if isinstance(waiter, RowRead):
                return waiter.begin(row_id, place, cached=cached)
            return waiter.begin(self.loads, place, row_id)
        if response.missing is not None:
            return False
        body, encoding = response.body, None
        compressible = len(body) >= compress.LEAST
        if compressible:
            encoding = compress.negotiate(head.headers)
            if encoding is not None:
                kept = (response.encoded or {}).get(encoding)
                if kept is None:  # Endpoint compresses it, and keeps the result
                    if admission is not None:
                        admission.mark(cycle.scope())
                    return False
                body = kept
        fixed = fixed_lines(response.headers, encoding, compressible=compressible)
        if fixed is None:
            if admission is not None:
                admission.mark(cycle.scope())
            return False
        id_ = new_request_id() if named is None else request_id(named.request_id).encode()
        if tracer is not None:
            span = tracer.request(scope, started, self.rule.path)
        if span is not None:
            lines += b"traceresponse: %b\r\n" % span.header.encode()
        elif named is not None and named.traceparent is not None:
            lines += _trace_line(named.traceparent)
        took = perf_counter() - started
        milliseconds = took * 1000
        of_hit = HEAD_OF_HIT % (id_, took, milliseconds, milliseconds, fixed, len(body))
        if not ready(lines + of_hit, body):
            if admission is not None:
                admission.mark(cycle.scope())
            return False  # a span that does not end is not recorded
        if span is not None:
            span.end(id_.decode(), 200, HIT[1])
        metrics = state["metrics"]
        if metrics is not None:
            metrics.hit(self.rule.path, took)
            cache.local.hits += 1
        if not response.sent:
            response.sent = True
        elif (
            named is None
            and scope is None
            and admission is None
            and encoding is None
            and cycle.keep
            and SECRETS.isdisjoint(head.names)
        ):
            hit = Hit(place, compress.negotiate(head.headers) is None, self.rule.path)
            self.repeats.remember(cycle.connection.input, hit, cache.local.limit)
        return True


def _named(headers: Iterable[Header]) -> _Named | None:
    """Return what the headers say; None if there are several keys."""
    given_id = key = traceparent = None
    fresh = False
    for pair in headers:
        name = pair[0]
        if name == b"x-request-id":  # two of them are not an id
            given_id = pair[1].strip(b" \t") if given_id is None else b""
        elif name == TRACEPARENT:  # two of them are none
            traceparent = pair[1].strip(b" \t") if traceparent is None else b""
        elif name in KEY_HEADERS:
            if key is not None:
                return None
            key = pair
        elif name == b"cache-control":
            fresh = fresh or asks_fresh(pair[1])
    return _Named(given_id, key, traceparent, fresh)


def _trace_line(traceparent: bytes) -> bytes:
    """Return the header line with the trace of a request, see trace_response."""
    said = trace_response(traceparent)
    return b"" if said is None else b"traceresponse: %b\r\n" % said
