"""One HTTP request, as handlers see it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, TypeVar
from urllib.parse import quote

from msgspec import Struct
from starlette.types import Receive, Scope

from service.cache.generations import Tags
from service.cache.off import NoCache
from service.cache.store import Cache
from service.cache.writer import Writer
from service.db.database import Database
from service.db.idempotency import Keeper
from service.db.listener import Listener
from service.db.writable import WritableDatabase
from service.errors import Invalid, Malformed, Problem, TooLarge, TooSlow, Unsupported
from service.http1.extensions import FULL_BODY
from service.http1.framing import BODY_SECONDS, body_too_slow
from service.http1.standard_headers import request_id
from service.metrics import Metrics
from service.outgoing import Outgoing
from service.settings import Settings
from service.web.body import Body
from service.web.body_fields import AT_ONCE
from service.web.codec import JSON, Header, Query, Reply, row_id
from service.web.cursor import Cursors
from service.web.media import is_json
from service.web.principal import Principal

if TYPE_CHECKING:  # it imports this module
    from service.tracing.tracer import Tracer
    from service.web.guard import Guard

Value = TypeVar("Value", bound=Struct)
Done = TypeVar("Done")

# A body may come in PIECES pieces, and for each further one it must have LEAST_PIECE bytes: a piece
# takes up to 110 us (granian), whatever its size.
PIECES, LEAST_PIECE = 1000, 16
# How much is read of a body that is too large, so that the client gets the response, not a reset.
DRAIN_BYTES, DRAIN_SECONDS = 16 * 1_048_576, 1.0

_NONE: dict[str, Any] = {}
# In a scope: the Principal of an authenticated request.
PRINCIPAL = "swiftlet.principal"
# In a scope, if the response depends on who sent the request: Principal.viewer. It is part of the
# cache key, so no principal gets the cached response of another one. It has no line break.
VIEWER = "swiftlet.viewer"


class State(TypedDict):
    """What the lifespan opens, for every request.

    `guard` is None if it has nothing to check, `metrics` and `tracer` if they are off.
    """

    db: Database
    settings: Settings
    cursors: Cursors
    cache: Cache | NoCache
    writer: Writer
    # (principal, key) of the requests with an Idempotency-Key that run in this process.
    running_keys: set[tuple[str, str]]
    guard: "Guard | None"
    metrics: Metrics | None
    tracer: "Tracer | None"
    listener: NotRequired[Listener]
    # The kinds of jobs by name, see Application.
    jobs: NotRequired[Mapping[str, Any]]
    outgoing: NotRequired[Outgoing]
    # A changes.feed.Feed, which is above this module.
    feed: NotRequired[Any]


class Pieces:
    """Counts the pieces of a body: one that comes byte by byte is refused."""

    def __init__(self) -> None:
        self.left = PIECES * LEAST_PIECE

    def add(self, size: int) -> None:
        """Count a piece of so many bytes.

        Raises:
            Malformed: there are too many pieces for the bytes in them.
        """
        self.left += size - LEAST_PIECE
        if self.left < 0:
            raise Malformed("the body comes in pieces of a few bytes: send larger ones")


class Request:
    """One HTTP request, as handlers see it.

    `headers` are by their names in lower case; `header` reads one.
    """

    __slots__ = ("_query", "headers", "id", "receive", "scope", "state")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.state: State = scope["state"]
        self.receive = receive
        self._query: tuple[object, Any] = (None, None)
        self.headers = _by_name(scope["headers"])
        self.id = request_id(self.header(b"x-request-id"))

    @property
    def db(self) -> Database:
        """Where statements run."""
        return self.state["db"]

    @property
    def principal(self) -> Principal | None:
        """Who sent the request; None if authentication is off, or not needed here."""
        return self.scope.get(PRINCIPAL)

    @property
    def owner(self) -> int | None:
        """The user to whose rows the request is limited.

        None if it is not limited: authentication is off, or an admin sent it.
        """
        principal: Principal | None = self.scope.get(PRINCIPAL)
        return None if principal is None else principal.owner

    @property
    def root(self) -> str:
        """The prefix of every path in a URL, as `/api`; empty without one."""
        root: str = self.scope.get("root_path", "")
        return quote(root.rstrip("/")) if root else ""

    @property
    def path(self) -> str:
        """As the client wrote it, percent-decoded."""
        return str(self.scope["path"])

    @property
    def url_path(self) -> str:
        """The path for a URL of this request: with the prefix, percent-encoded."""
        root: str = self.scope.get("root_path", "")
        # In ASGI the path contains the prefix, but not every server does that.
        path = self.path if self.path.startswith(f"{root}/") else root + self.path
        return quote(path)

    def header(self, name: bytes) -> bytes | None:
        """The header's value, several lines joined as one list; `name` in lower case.

        White space around a value is not part of it (RFC 9110, 5.5); not every server strips it.
        """
        value = self.headers.get(name)
        return None if value is None else value.strip(b" \t")

    @property
    def has_query(self) -> bool:
        """Whether there is a query string; without one every parameter has its default."""
        return bool(self.scope["query_string"])

    def row_id(self) -> int:
        """The id in the path; see codec.row_id."""
        return row_id(self.scope["path_params"]["id"])

    def query(self, query: Query[Value]) -> Value:
        """The query string as a Struct; see codec.Query."""
        if self._query[0] is not query:
            self._query = (query, query.decode(self.scope["query_string"]))
        decoded: Value = self._query[1]
        return decoded

    def keeper(self, reply: Callable[[Any], Reply]) -> Keeper | None:  # noqa: ARG002 - see below
        """What stores the answer in the transaction of the next write; None without a key.

        For a handler whose only write is one that takes a Keeper, and which returns `reply` of what
        the write returned; see idempotent.KeyedRequest.
        """
        return None

    def write(
        self, write: Callable[[WritableDatabase], Awaitable[Done]], tags: Callable[[Done], Tags]
    ) -> Awaitable[Done]:
        """Run a write, and invalidate what is cached of it; see cache.writer.Writer.run."""
        return self.state["writer"].run(write, tags)

    async def body(self, body: Body[Value]) -> Value:
        """The JSON body as a Struct; see body.Body.

        Raises:
            Problem: 400, 408, 413, 415 or 422.
        """
        self._check_content_type()
        data = await self.read()
        return body.decode(data) if len(data) <= AT_ONCE else await body.decode_long(data)

    async def gone(self) -> None:
        """Return when the client has left; for a response that takes long."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def _check_content_type(self) -> None:
        content_type = self.header(b"content-type") or b""
        if content_type != JSON and not is_json(content_type):
            raise Unsupported(
                "send the body as application/json in UTF-8",
                headers=((b"accept-post", JSON), (b"accept-patch", JSON)),
            )
        if (self.header(b"content-encoding") or b"identity").lower() != b"identity":
            raise Unsupported(
                "send the body without Content-Encoding",
                headers=((b"accept-encoding", b"identity"),),
            )

    async def read(self) -> bytes:
        """The body's bytes, whatever its media type.

        Raises:
            Problem: 400, 408 or 413.
        """
        limit = self.state["settings"].body_limit
        whole = self.scope.get("extensions", _NONE).get(FULL_BODY)
        body: bytes | None = None if whole is None else whole()
        if body is not None and len(body) <= limit:
            return body
        too_large = TooLarge(f"the body is larger than {limit} bytes")
        if body is not None:
            raise too_large
        await self.check_length(limit, too_large)
        chunks: list[bytes] = []
        size = 0
        pieces = Pieces()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise Malformed("the body ended early")
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    pieces.add(len(chunk))
                    if size > limit:
                        await self.drain(more=message.get("more_body", False))
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join((*chunks, chunk)) if chunks else chunk
                    chunks.append(chunk)
        except TimeoutError:
            raise body_too_slow() from None

    async def check_length(self, limit: int, too_large: Problem) -> None:
        """Raise `too_large` if Content-Length announces more bytes than the limit."""
        announced = self.header(b"content-length") or b""
        if announced.isdigit() and int(announced[:19]) > limit:
            # A client that waits for 100 (Continue) is answered at once.
            await self.drain(more=self.header(b"expect") is None)
            raise too_large

    async def drain(self, *, more: bool) -> None:
        """Read the rest of a body and discard it, up to DRAIN_BYTES and DRAIN_SECONDS."""
        left, pieces = DRAIN_BYTES, Pieces()
        with suppress(TimeoutError, Malformed):
            async with asyncio.timeout(DRAIN_SECONDS):
                while more and left > 0:
                    message = await self.receive()
                    more = message.get("more_body", False)
                    size = len(message.get("body", b""))
                    left -= size
                    pieces.add(size)


def _by_name(headers: list[Header]) -> dict[bytes, bytes]:
    found = dict(headers)
    if len(found) != len(headers):  # a header of several lines is one list (RFC 9110, 5.3)
        several: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            several.setdefault(name, []).append(value.strip(b" \t"))
        found = {name: b", ".join(values) for name, values in several.items()}
    return found


# The errors that any request with a body may get.
BODY_PROBLEMS = (Malformed, TooSlow, TooLarge, Unsupported, Invalid)
