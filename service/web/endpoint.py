"""From a handler to an ASGI callable: one try, one reply, nothing between server and handler."""

import re
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple

from msgspec import Struct
from starlette.types import Receive, Scope, Send

from service.cache.entry import Answer, Entry, Variant
from service.cache.epochs import Slots
from service.cache.local import Variants
from service.cache.off import NoCache
from service.db.database import Timing, timing
from service.errors import JSON as PROBLEM
from service.errors import Failed, NotAllowed, NotFound, Problem
from service.logs import logger
from service.web import compress
from service.web.conditional import not_modified
from service.web.prebuilt import send_prebuilt
from service.web.request import READY, VISIBLE, Request, new_id
from service.web.wire import JSON, PRIVATE, Header, Query, Reply

# Of a GET that may be cached: where its answer came from.
HIT, MISS, BYPASS = ((b"x-cache", word) for word in (b"HIT", b"MISS", b"BYPASS"))

# In a scope: there was no hit.
LOOKED_UP = "swiftlet.looked_up"
# Of a path and its query: what is longer asks for nothing that others ask for too.
LONGEST = 2000
_CONDITIONS = frozenset({b"cache-control", b"if-match", b"if-none-match"})
_FRESH = re.compile(rb"(?:^|[\s,])no-(?:cache|store)(?:[\s,=]|$)", re.IGNORECASE)

access = logger.getChild("access")

Handler = Callable[[Request], Awaitable[Reply]]


class Operation(NamedTuple):
    """A line of a route table: what makes the route, and what the document tells of it.

    A GET with `depends` may be cached: it gives what the answer depends on, and the answer must
    depend on nothing else, nor on who asks. `files` are the media types of a file of rows, which a
    POST takes and a GET gives. `costly` tells whether it takes the database so long
    that the workers share it. `stored` tells whether it needs the database.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    query: type[Struct] | None = None
    takes: type[Struct] | None = None
    gives: Any = None
    files: tuple[str, ...] = ()
    status: int = 200
    fails: tuple[type[Problem], ...] = ()
    depends: Callable[[Request], Slots] | None = None
    costly: Callable[[Request], bool] | None = None
    stored: bool = True

    @property
    def has_etag(self) -> bool:
        """Whether it is about one row, whose version is its ETag."""
        return self.method in {"GET", "PUT", "PATCH", "DELETE"} and self.path.endswith("/{id}")


class NoQuery(Struct):
    """The parameters of an operation that has none."""


_no_query = Query(NoQuery)


class Endpoint:
    """The operations of one path; an ASGI application that always answers."""

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self.handlers: dict[str, Handler] = {}
        self.without_query: set[str] = set()
        self.cached = False
        for one in operations:
            self.handlers[one.method] = one.handler if one.depends is None else cacheable(one)
            if one.query is None:
                self.without_query |= {one.method, *(("HEAD",) if one.method == "GET" else ())}
            if one.depends is not None:
                self.cached = True
        if "GET" in self.handlers:
            self.handlers["HEAD"] = self.handlers["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        started = perf_counter()
        if self.cached and LOOKED_UP not in scope and answered(scope, started):
            return
        spent = Timing()
        timing.set(spent)
        request = Request(scope, receive)
        method = scope["method"]
        try:
            reply = await self._handler(request)(request)
        except Problem as problem:
            reply = _problem_reply(problem, request)
        except Exception:  # noqa: BLE001 - logged whole, answered as 500
            # The one place where a bug surfaces: log it whole, tell the client nothing of it.
            fields = {"request_id": request.id, "method": method, "path": request.path}
            logger.exception("request failed", extra={"fields": fields})
            reply = _problem_reply(Failed("something went wrong on our side"), request)
        body, more = reply.body, reply.headers
        if len(body) >= compress.LEAST or reply.chunks is not None:
            body, more = await compress.sent(reply, scope["headers"])
        took = perf_counter() - started
        if send_prebuilt(request, reply, spent, took, body, more):
            self._log(request, reply, took)
            return
        headers: list[Header] = [
            (b"x-request-id", request.id.encode()),
            (b"x-process-time", b"%.6f" % took),
            (
                b"server-timing",
                b'db;dur=%.3f;desc="%d statements", total;dur=%.3f'
                % (spent.seconds * 1000, spent.statements, took * 1000),
            ),
            (b"cache-control", reply.cache_control),
            *more,
        ]
        if reply.status in (204, 304):
            body = b""
        else:
            headers.append((b"content-type", reply.content_type))
            if reply.chunks is None:
                headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if reply.chunks is not None and method != "HEAD":
            await reply.chunks.send(send)
        else:
            await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
        self._log(request, reply, took)

    def _handler(self, request: Request) -> Handler:
        """The handler of the request's method; where it has no parameters, none may be given."""
        method = request.scope["method"]
        handler = self.handlers.get(method)
        if handler is None:
            raise self._no_handler()
        if request.scope["query_string"] and method in self.without_query:
            request.query(_no_query)
        return handler

    def _no_handler(self) -> Problem:
        if not self.handlers:
            return NotFound("there is nothing at this path; /docs lists what there is")
        allowed = ", ".join(sorted(self.handlers))
        return NotAllowed(f"allowed here: {allowed}", headers=((b"allow", allowed.encode()),))

    def _log(self, request: Request, reply: Reply, took: float) -> None:
        slow = took * 1000 > request.state["settings"].slow_request_ms
        if slow or access.isEnabledFor(20):
            fields = {
                "request_id": request.id,
                "method": request.scope["method"],
                "path": request.path,
                "status": reply.status,
                "seconds": round(took, 4),
            }
            if slow:
                logger.warning("slow request", extra={"fields": fields})
            access.info("request", extra={"fields": fields})


def _key(scope: Scope) -> str | tuple[str, bytes]:
    """What an answer is kept by: the path, and the query where there is one.

    So a query that is refused never hits, whatever the operation takes.
    """
    query: bytes = scope["query_string"]
    path: str = scope["path"]
    return (path, query) if query else path


def answered(scope: Scope, started: float) -> bool:
    """The short way of a hit: whether it was one, and has been sent.

    Only for the plain case, a GET without conditions, and only where the server offers to send
    what is ready: a third of the CPU of the long way, which answers the same.
    """
    ready = scope["extensions"].get(READY) if "extensions" in scope else None
    cache = scope["state"]["cache"]
    if ready is None or not cache.on or scope["method"] != "GET" or access.isEnabledFor(20):
        return False
    entry = cache.entry(_key(scope), renews=False)
    if entry is None or entry.answer.missing is not None:
        return False
    request_id = None
    for name, value in scope["headers"]:
        if name in _CONDITIONS:
            return False
        if name == b"x-request-id":  # two are no id
            request_id = value.strip(b" \t") if request_id is None else b""
    form: Entry | Variant = entry
    body, encoding = entry.answer.body, None
    if len(body) >= compress.LEAST:
        encoding = compress.best(scope["headers"])
        if encoding is not None:
            if entry.variants is None or encoding not in entry.variants:
                return False  # the long way makes it, and keeps it
            variant = entry.variants[encoding]
            form, body = variant, variant.body
    if request_id is None or not VISIBLE.fullmatch(request_id):
        request_id = new_id().encode()
    lines = form.lines
    if lines is None:
        lines = form.lines = _lines(entry.answer, body, encoding)
    took = perf_counter() - started
    sent: bool = ready(lines % (request_id, took, took * 1000), body)
    return sent


def _lines(answer: Answer, body: bytes, encoding: bytes | None) -> bytes:
    """The header lines of a hit; open are the request's id, and the time it took in s and ms."""
    headers = answer.headers
    if len(answer.body) >= compress.LEAST and compress.worth(JSON, headers):
        headers = compress.varied(headers, encoding)
    pairs = [
        *headers,
        HIT,
        (b"cache-control", PRIVATE),
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
    ]
    if encoding is not None:
        pairs.append((b"content-encoding", encoding))
    head = b"\r\n".join(b": ".join(pair) for pair in pairs).replace(b"%", b"%%")
    return (
        b"x-request-id: %b\r\nx-process-time: %.6f\r\n"
        b'server-timing: db;dur=0.000;desc="0 statements", total;dur=%.3f\r\n' + head
    )


def cacheable(operation: Operation) -> Handler:
    """The handler of a GET behind the cache, and behind its preconditions."""
    load, depends, costly = operation.handler, operation.depends, operation.costly

    async def handler(request: Request) -> Reply:
        cache = request.state["cache"]
        if isinstance(cache, NoCache):
            return _conditional(request, await read(request), BYPASS)
        control = request.header(b"cache-control")
        fresh = control is not None and _FRESH.search(control)
        key = _key(request.scope)
        name = key if isinstance(key, str) else f"{key[0]}?{key[1].decode('latin-1')}"
        if depends is None or fresh or len(name) > LONGEST:
            answer, came = await read(request), BYPASS
        else:
            entry = cache.entry(key)
            if entry is not None:
                answer, came = entry.answer, HIT
            else:
                share = costly is not None and costly(request)
                answer, found = await cache.recall(
                    key, name, depends(request), lambda: read(request), share=share
                )
                came = HIT if found else MISS
        kept = None
        if len(answer.body) >= compress.LEAST:
            kept = Variants(cache.local, key, answer)
        return _conditional(request, answer, came, kept)

    async def read(request: Request) -> Answer:
        try:
            reply = await load(request)
        except NotFound as problem:
            return Answer(b"", (), missing=problem.detail)
        return Answer(reply.body, reply.headers, reply.version)

    return handler


def _conditional(
    request: Request, answer: Answer, came: Header, kept: Variants | None = None
) -> Reply:
    """The reply to a GET under its preconditions."""
    if answer.missing is not None:
        raise NotFound(answer.missing, headers=(came,))
    headers = (*answer.headers, came)
    if answer.version is not None:
        try:
            if not_modified(request, answer.version):
                return Reply(answer.body, 304, headers)
        except Problem as problem:
            problem.headers = (*problem.headers, came)
            raise
    return Reply(answer.body, headers=headers, kept=kept)


def _problem_reply(problem: Problem, request: Request) -> Reply:
    return Reply(problem.body(request.id), problem.status, problem.headers, PROBLEM)
