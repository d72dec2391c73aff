"""From handlers to an ASGI application: errors become problems, replies become messages."""

from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple

from msgspec import Struct
from starlette.types import Receive, Scope, Send

from service.cache.generations import Tags
from service.db.batcher import Waiter, add_times
from service.db.statement import Statement
from service.errors import NotAllowed, NotFound, Problem
from service.http1.request_cycle import RequestCycle
from service.http1.standard_headers import standard_headers
from service.logs import logger
from service.timing import Timing, timing
from service.traceparent import TRACEPARENT
from service.web import compress
from service.web.added_headers import with_added
from service.web.cached import Loads, cacheable
from service.web.codec import Query, Reply
from service.web.direct_get import DirectGet, access
from service.web.direct_waiter import DirectHandler
from service.web.guard import Rule, admit, limit_headers
from service.web.idempotent import once_per_key
from service.web.prebuilt import send_prebuilt
from service.web.principal import Access, Private
from service.web.request import Request
from service.web.row_writes import DirectWrite
from service.web.sending import failure, send_messages, trace_headers

Handler = Callable[[Request], Awaitable[Reply]]


class Tag(NamedTuple):
    """A group of operations in the document."""

    name: str
    description: str = ""


class Operation(NamedTuple):
    """An entry of a route table: the route, and its description in the document.

    A GET with `cache_tags` is cached: these are the tags that its response depends on. Beside them
    it may depend only on what is in the cache key, see cached.CachedRequest. `share` says whether
    it takes the database so long that the workers share it.

    `files` are the media types of a file of rows, which a POST takes and a GET returns. `stored`
    says whether it needs the database. `tag` is its group in the document, by default the first
    part of its path; `versioned` says whether its row has a version.

    `access` is what it needs of an API key: `open` for nothing, else a scope; by default `read` for
    a GET and `write` for any other method. `private` says whether the response depends on the
    principal (a function of the scope, if that depends on the query): then Request.owner is part
    of the cache key. `limit` is its own rate limit, such as `5/m`; `off` for none.

    `media` are the media types of a body without a Struct, or beside it, as `text/html`. `fixed`
    says that the response has an ETag and changes only with the code. `documented` says whether the
    document has it: say False for a part of a page, such as a script. `replay` says whether the
    answer to a POST is stored and shown again to a request with the same Idempotency-Key; say False
    if it has a secret, then that is 409. `accepted` is the body of a 202, if it can also answer
    with a job that does the work later. `local` says whether a program on this machine needs no
    key, see local_request.is_local. `statements` are those that belong to no resource.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    query: type[Struct] | None = None
    request: type[Struct] | None = None
    response: Any = None
    files: tuple[str, ...] = ()
    status: int = 200
    errors: tuple[type[Problem], ...] = ()
    cache_tags: Callable[[Request], Tags] | None = None
    share: Callable[[Request], bool] | None = None
    stored: bool = True
    tag: Tag | None = None
    versioned: bool = True
    access: Access | None = None
    private: Private = False
    limit: str | None = None
    replay: bool = True
    media: tuple[str, ...] = ()
    fixed: bool = False
    documented: bool = True
    local: bool = False
    accepted: type[Struct] | None = None
    statements: tuple[Statement[Any], ...] = ()

    @property
    def needs(self) -> Access:
        """What it needs of an API key."""
        return self.access or ("read" if self.method == "GET" else "write")

    @property
    def takes_key(self) -> bool:
        """Whether a request may have an Idempotency-Key."""
        return self.method == "POST" and self.stored

    @property
    def rule(self) -> Rule:
        """What the guard checks before it runs."""
        return Rule(
            self.needs,
            private=self.private,
            method=self.method,
            path=self.path,
            local=self.local,
        )

    @property
    def has_etag(self) -> bool:
        """Whether it is about one row, whose version is its ETag, or `fixed`."""
        one_row = self.method in {"GET", "PUT", "PATCH", "DELETE"} and self.path.endswith("/{id}")
        return self.fixed or (one_row and self.versioned)


def limits_of(operations: Iterable[Operation]) -> list[tuple[str, str, str]]:
    """Return method, path and limit of the operations that have a rate limit of their own."""
    return [(one.method, one.path, one.limit) for one in operations if one.limit is not None]


# The route of a request whose path is unknown, in metrics.
UNMATCHED = "unmatched"


class NoQuery(Struct):
    """The parameters of an operation without any."""


_no_query = Query(NoQuery)


class Endpoint:
    """The operations of one path, as an ASGI application that always responds."""

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self.handlers: dict[str, Handler] = {}
        self.rules: dict[str, Rule] = {}
        self.without_query: set[str] = set()
        self.direct: dict[str, DirectGet | DirectWrite] = {}
        self.route = UNMATCHED
        for one in operations:
            self.route = one.path
            self.rules[one.method] = one.rule
            loads = Loads(f"{one.method} {one.path}", one.handler)
            self.handlers[one.method] = _wrapped(one, loads)
            if one.query is None:
                self.without_query |= {one.method, *(("HEAD",) if one.method == "GET" else ())}
            direct = one.handler.direct if isinstance(one.handler, DirectHandler) else None
            if one.cache_tags is not None:
                self.direct["GET"] = DirectGet(self, one.rule, loads, direct)
            elif direct is not None:
                self.direct[one.method] = DirectWrite(self, one.rule, direct)
        if "GET" in self.handlers:
            self.handlers["HEAD"] = self.handlers["GET"]
            self.rules["HEAD"] = self.rules["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        started = perf_counter()
        request = Request(scope, receive)
        spent = Timing(request)
        timing.set(spent)
        tracer = request.state["tracer"]
        if tracer is not None:
            spent.span = tracer.request(scope, started, self.route)
        method = scope["method"]
        guard = request.state["guard"]
        try:
            handler = self._handler(request)
            if guard is not None and method in self.rules:
                await admit(guard, self.rules[method], request, started)
            if scope["query_string"] and method in self.without_query:
                request.query(_no_query)
            reply = await handler(request)
        except Exception as error:  # noqa: BLE001 - logged whole, answered as 500
            reply = failure(error, request)
        await self._respond(request, reply, spent, started, send)

    async def answer_late(
        self, cycle: RequestCycle, waiter: Waiter, reply: Reply | BaseException, started: float
    ) -> None:
        """Answer a request that waited for a batch without a task.

        Args:
            cycle: the request.
            waiter: its place in the batch, with the times.
            reply: the response, or why there is none.
            started: perf_counter() at its start.
        """
        scope = cycle.scope()
        request = Request(scope, cycle.receive)
        spent = Timing(request)
        timing.set(spent)
        add_times(waiter, spent)
        if isinstance(reply, BaseException):
            reply = failure(reply, request)
        await self._respond(request, reply, spent, started, with_added(scope, cycle.send))

    def log_late(
        self, cycle: RequestCycle, waiter: Waiter, request_id: bytes, status: int, took: float
    ) -> None:
        """Log a slow request that waited for a batch without a task."""
        request = Request(cycle.scope(), cycle.receive)
        request.id = request_id.decode()
        spent = Timing(request)
        add_times(waiter, spent)
        batch = timing.set(spent)
        self._log(request, status, spent, took)
        timing.reset(batch)

    async def _respond(
        self, request: Request, reply: Reply, spent: Timing, started: float, send: Send
    ) -> None:
        scope, guard, method = request.scope, request.state["guard"], request.scope["method"]
        body, more = reply.body, reply.headers
        if len(body) >= compress.LEAST or reply.chunks is not None:
            began = perf_counter()
            body, more = await compress.encode_response(reply, scope["headers"])
            spent.encode += perf_counter() - began
        if guard is not None:
            more += limit_headers(scope)
        if TRACEPARENT in request.headers or spent.span is not None:
            more += trace_headers(spent)
        took = perf_counter() - started - spent.idle
        if not send_prebuilt(request, reply, spent, took, body, more):
            headers = standard_headers(request.id, took, spent)
            headers.append((b"cache-control", reply.cache_control))
            await send_messages(send, method, reply, body, [*headers, *more])
            took = perf_counter() - started - spent.idle
        metrics = request.state["metrics"]
        if metrics is not None:
            metrics.request(method, self.route, reply.status, took)
        if spent.span is not None:
            spent.span.end(request.id, reply.status, dict(reply.headers).get(b"x-cache"))
        self._log(request, reply.status, spent, took)

    def _handler(self, request: Request) -> Handler:
        """The handler of the request's method."""
        handler = self.handlers.get(request.scope["method"])
        if handler is None:
            raise self._no_handler()
        return handler

    def _no_handler(self) -> Problem:
        if not self.handlers:
            return NotFound("there is nothing at this path; /docs lists what there is")
        allowed = ", ".join(sorted(self.handlers))
        return NotAllowed(f"allowed here: {allowed}", headers=((b"allow", allowed.encode()),))

    def _log(self, request: Request, status: int, spent: Timing, took: float) -> None:
        if took * 1000 > request.state["settings"].slow_request_ms:
            # The template of the path: a client may put anything into the path itself.
            fields = {"method": request.scope["method"], "route": self.route}
            fields |= {"status": status, "seconds": round(took, 4), **spent.parts()}
            logger.warning("slow request", extra={"fields": fields, "each": True})
        if access.isEnabledFor(20):
            fields = {"method": request.scope["method"], "path": request.path}
            fields |= {"status": status, "seconds": round(took, 4)}
            access.info("request", extra={"fields": fields})


def _wrapped(one: Operation, loads: Loads) -> Handler:
    if one.cache_tags is not None:
        return cacheable(loads, one.cache_tags, one.share)
    if one.takes_key:
        return once_per_key(one.handler, streams=bool(one.files), replay=one.replay)
    return one.handler


class Refused(Endpoint):
    """Answers a request with a problem document, for any method; `route` is for metrics."""

    def __init__(self, problem: Problem, route: str = UNMATCHED) -> None:
        super().__init__()
        self.problem = problem
        self.route = route

    def _no_handler(self) -> Problem:
        return self.problem
