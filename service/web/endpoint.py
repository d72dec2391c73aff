"""From a handler to an ASGI callable: one try, one reply, nothing between server and handler."""

import asyncio
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple, TypedDict, TypeVar

from msgspec import Struct
from starlette.types import Receive, Scope, Send

from service.db.pool import Database, Timing, timing
from service.errors import JSON as PROBLEM
from service.errors import (
    Failed,
    Invalid,
    Malformed,
    NotAllowed,
    NotFound,
    Problem,
    TooLarge,
    TooSlow,
    Unsupported,
)
from service.logs import logger
from service.settings import Settings
from service.web.cursor import Cursors
from service.web.wire import JSON, Body, Header, Query, Reply, row_id

Value = TypeVar("Value", bound=Struct)

# An extension of ASGI that our own server offers (service/http1): a function that gives the body if
# all of it has come, and else None. It saves a message and a timer: 5 us of a write's 45.
WHOLE_BODY = "swiftlet.whole_body"
# A client that sends its body slower than this is not going to send it.
BODY_SECONDS = 10.0
# What is read of a body that is too large, so that the client sees the answer, not a reset.
DRAIN_BYTES, DRAIN_SECONDS = 16 * 1_048_576, 1.0

_NONE: dict[str, Any] = {}
_VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
# Unique without a system call per request: random per process, counted within it.
_ids = itertools.count(1)
_process = secrets.token_hex(6)

access = logger.getChild("access")


class State(TypedDict):
    """What the lifespan opens and every request sees."""

    db: Database
    settings: Settings
    cursors: Cursors


class Request:
    """One HTTP request, as handlers see it."""

    __slots__ = ("_receive", "id", "scope", "state")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.state: State = scope["state"]
        self._receive = receive
        given = self.header(b"x-request-id")
        if given is not None and _VISIBLE.fullmatch(given):
            self.id = given.decode("ascii")
        else:
            self.id = f"{_process}-{next(_ids):x}"

    @property
    def db(self) -> Database:
        """Where statements run."""
        return self.state["db"]

    @property
    def path(self) -> str:
        """As the client wrote it, percent-decoded."""
        return str(self.scope["path"])

    def header(self, name: bytes) -> bytes | None:
        """The header's value, several lines joined as one list; `name` in lower case."""
        values = [value for key, value in self.scope["headers"] if key == name]
        return b", ".join(values) if values else None

    def row_id(self) -> int:
        """The id in the path; see wire.row_id."""
        return row_id(self.scope["path_params"]["id"])

    def query(self, query: Query[Value]) -> Value:
        """The query string as a Struct; see wire.Query."""
        return query.decode(self.scope["query_string"])

    async def body(self, body: Body[Value]) -> Value:
        """The JSON body as a Struct; see wire.Body.

        Raises:
            Problem: 400, 408, 413, 415 or 422.
        """
        self._check_content_type()
        return body.decode(await self._read())

    def _check_content_type(self) -> None:
        if not _is_json(self.header(b"content-type") or b""):
            raise Unsupported(
                "send the body as application/json in UTF-8",
                headers=((b"accept-post", JSON), (b"accept-patch", JSON)),
            )
        if (self.header(b"content-encoding") or b"identity").lower() != b"identity":
            raise Unsupported(
                "send the body without Content-Encoding",
                headers=((b"accept-encoding", b"identity"),),
            )

    async def _read(self) -> bytes:
        limit = self.state["settings"].body_limit
        whole = self.scope.get("extensions", _NONE).get(WHOLE_BODY)
        body: bytes | None = None if whole is None else whole()
        if body is not None and len(body) <= limit:
            return body
        too_large = TooLarge(f"the body is larger than {limit} bytes")
        if body is not None:
            raise too_large
        announced = self.header(b"content-length") or b""
        if announced.isdigit() and int(announced[:19]) > limit:
            # Who asks before sending (Expect: 100-continue) is told at once.
            await self._drain(more=self.header(b"expect") is None)
            raise too_large
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Malformed("the body ended early")
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > limit:
                        await self._drain(more=message.get("more_body", False))
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join((*chunks, chunk)) if chunks else chunk
                    chunks.append(chunk)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} s") from None

    async def _drain(self, *, more: bool) -> None:
        left = DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while more and left > 0:
                    message = await self._receive()
                    more = message.get("more_body", False)
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return


def _is_json(content_type: bytes) -> bool:
    if content_type == JSON:
        return True
    media, *parameters = (part.strip() for part in content_type.lower().split(b";"))
    is_json = media == JSON or (media.startswith(b"application/") and media.endswith(b"+json"))
    charsets = {one.replace(b'"', b"") for one in parameters if one.startswith(b"charset")}
    return is_json and not charsets - {b"charset=utf-8"}


# What any request with a body may run into.
BODY_PROBLEMS = (Malformed, TooSlow, TooLarge, Unsupported, Invalid)

Handler = Callable[[Request], Awaitable[Reply]]


class Operation(NamedTuple):
    """A line of a route table: what makes the route, and what the document tells of it."""

    method: str
    path: str
    handler: Handler
    summary: str
    query: type[Struct] | None = None
    takes: type[Struct] | None = None
    gives: Any = None
    status: int = 200
    fails: tuple[type[Problem], ...] = ()


class Endpoint:
    """The operations of one path; an ASGI application that always answers."""

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self.handlers = {operation.method: operation.handler for operation in operations}
        if "GET" in self.handlers:
            self.handlers["HEAD"] = self.handlers["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        started = perf_counter()
        spent = Timing()
        timing.set(spent)
        request = Request(scope, receive)
        method = scope["method"]
        try:
            handler = self.handlers.get(method)
            if handler is None:
                raise self._no_handler()
            reply = await handler(request)
        except Problem as problem:
            reply = _problem_reply(problem, request)
        except Exception:  # noqa: BLE001 - logged whole, answered as 500
            # The one place where a bug surfaces: log it whole, tell the client nothing of it.
            fields = {"request_id": request.id, "method": method, "path": request.path}
            logger.exception("request failed", extra={"fields": fields})
            reply = _problem_reply(Failed("something went wrong on our side"), request)
        took = perf_counter() - started
        body = reply.body
        headers: list[Header] = [
            (b"x-request-id", request.id.encode()),
            (b"x-process-time", b"%.6f" % took),
            (
                b"server-timing",
                b'db;dur=%.3f;desc="%d statements", total;dur=%.3f'
                % (spent.seconds * 1000, spent.statements, took * 1000),
            ),
            *reply.headers,
        ]
        if reply.status not in (204, 304):
            headers.append((b"content-type", reply.content_type))
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
        self._log(request, reply, took)

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


def _problem_reply(problem: Problem, request: Request) -> Reply:
    return Reply(problem.body(request.id), problem.status, problem.headers, PROBLEM)
