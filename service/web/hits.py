"""Send a hit of the cache with little work, before a task starts for the request."""

from time import perf_counter

from starlette.types import Scope

from service.cache.response import CachedResponse
from service.http1.extensions import SEND_PREBUILT
from service.http1.standard_headers import LINES_OF_HIT, PRIVATE, request_id
from service.logs import logger
from service.traceparent import TRACEPARENT, trace_response
from service.web import compress
from service.web.api_keys import KEY_HEADERS
from service.web.cached import HIT, key_of
from service.web.codec import JSON
from service.web.guard import Guard, Rule

# In a scope: the cache was asked already, and has no response for it.
LOOKED_UP = "swiftlet.looked_up"
_CONDITIONS = frozenset({b"cache-control", b"if-match", b"if-none-match"})
# The headers of a request that a hit depends on.
_READ = _CONDITIONS | KEY_HEADERS | {b"x-request-id", TRACEPARENT}

access = logger.getChild("access")


def send_hit(scope: Scope, started: float, rule: Rule) -> bool:  # noqa: C901, PLR0912 - each branch is a reason for the long way, and a function of its own costs time
    """Send a hit without an Endpoint's other work, and return whether that was possible.

    Only for a GET without preconditions and with at most one key, and only if the server has
    SEND_PREBUILT. It takes a third of the CPU and sends the same response.

    Args:
        scope: the request.
        started: perf_counter() at its start.
        rule: what the guard checks.
    """
    ready = scope["extensions"].get(SEND_PREBUILT) if "extensions" in scope else None
    state = scope["state"]
    cache = state["cache"]
    if ready is None or not cache.on or scope["method"] != "GET" or access.isEnabledFor(20):
        return False
    given_id = key = traceparent = None
    for pair in scope["headers"]:
        name = pair[0]
        if name in _READ:
            if name == b"x-request-id":  # two of them are not an id
                given_id = pair[1].strip(b" \t") if given_id is None else b""
            elif name == TRACEPARENT:  # two of them are none
                traceparent = pair[1].strip(b" \t") if traceparent is None else b""
            elif name in _CONDITIONS or key is not None:
                return False
            else:
                key = pair
    guard: Guard | None = state["guard"]
    if guard is not None and not guard.admit_at_once(scope, rule, started, key):
        return False
    response = cache.find(key_of(scope), refreshes=False)
    if response is None or response.missing is not None:
        return False
    body, head, encoding = response.body, response.head, None
    if len(body) >= compress.LEAST:
        kept = _encoded(response, scope)
        if kept is None:
            return False  # Endpoint compresses it, and keeps the result
        body, head, encoding = kept
    if head is None:
        head = _make_head(response, body, encoding)
    took = perf_counter() - started
    id_ = request_id(given_id)
    lines = head % (id_.encode(), took, took * 1000, took * 1000)
    if guard is not None:
        lines = guard.limit_lines(scope) + lines
    tracer = state["tracer"]
    span = None if tracer is None else tracer.request(scope, started, rule.path)
    if span is not None:
        lines = b"traceresponse: %b\r\n%b" % (span.header.encode(), lines)
    elif traceparent is not None:
        lines = _trace_line(traceparent) + lines
    if not ready(lines, body):
        return False  # a span that does not end is not recorded
    if span is not None:
        span.end(id_, 200, HIT[1])
    metrics = state["metrics"]
    if metrics is not None:
        metrics.hit(rule.path, took)
        cache.local.hits += 1
    return True


def _trace_line(traceparent: bytes) -> bytes:
    """Return the header line with the trace of a request, see trace_response."""
    said = trace_response(traceparent)
    return b"" if said is None else b"traceresponse: %b\r\n" % said


def _encoded(
    response: CachedResponse, scope: Scope
) -> tuple[bytes, bytes | None, bytes | None] | None:
    """Return the body, its head and its coding, as the client accepts it; None if not kept."""
    encoding = compress.negotiate(scope["headers"])
    if encoding is None:
        return response.body, response.head, None
    body = (response.encoded or {}).get(encoding)
    if body is None:
        return None
    return body, (response.encoded_heads or {}).get(encoding), encoding


def _make_head(response: CachedResponse, body: bytes, encoding: bytes | None) -> bytes:
    """The header lines of a hit, kept beside its response.

    What LINES_OF_HIT leaves open is filled in for each request.
    """
    headers = response.headers
    if len(response.body) >= compress.LEAST and compress.is_compressible(JSON, headers):
        headers = compress.add_vary(headers, encoding)
    pairs = [
        *headers,
        HIT,
        (b"cache-control", PRIVATE),
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
    ]
    if encoding is not None:
        pairs.append((b"content-encoding", encoding))
    fixed = b"\r\n".join(b": ".join(pair) for pair in pairs).replace(b"%", b"%%")
    head = b"%b\r\n%b" % (LINES_OF_HIT, fixed)
    if encoding is None:
        response.head = head
    else:
        response.encoded_heads = {**(response.encoded_heads or {}), encoding: head}
    return head
