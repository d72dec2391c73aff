"""One HTTP request, as handlers see it."""

import asyncio
import itertools
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypedDict, TypeVar
from urllib.parse import quote

from msgspec import Struct
from starlette.types import Receive, Scope

from service.cache.epochs import Slots
from service.cache.off import NoCache
from service.cache.tiers import Cache
from service.db.database import Database
from service.errors import Invalid, Malformed, TooLarge, TooSlow, Unsupported
from service.settings import Settings
from service.web.body import Body
from service.web.body_fields import AT_ONCE
from service.web.cursor import Cursors
from service.web.media import is_json
from service.web.wire import JSON, Header, Query, row_id

Value = TypeVar("Value", bound=Struct)

# An extension of ASGI that our own server offers (service/http1): a function that gives the body if
# all of it has come, and else None. It saves a message and a timer: 5 us of a write's 45.
WHOLE_BODY = "swiftlet.whole_body"
# Another: a function that sends an answer whose header lines and body are ready, in one call
# instead of two messages; False when it can't, and the messages must be sent.
READY = "swiftlet.ready"
# A client that sends its body slower than this is not going to send it.
BODY_SECONDS = 10.0
# Of a body: pieces in which it may come, and bytes that it must have for each one more. A piece
# costs up to 110 us (granian), whatever its size.
PIECES, LEAST_PIECE = 1000, 16
# What is read of a body that is too large, so that the client sees the answer, not a reset.
DRAIN_BYTES, DRAIN_SECONDS = 16 * 1_048_576, 1.0

_NONE: dict[str, Any] = {}
VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
# Unique without a system call per request: random per process, counted within it.
_ids = itertools.count(1)
_process = [secrets.token_hex(6)]
# granian's workers are forks of one process.
os.register_at_fork(after_in_child=lambda: _process.__setitem__(0, secrets.token_hex(6)))


def new_id() -> str:
    """An id for a request whose client gave none."""
    return f"{_process[0]}-{next(_ids):x}"


class State(TypedDict):
    """What the lifespan opens and every request sees."""

    db: Database
    settings: Settings
    cursors: Cursors
    cache: Cache | NoCache


class Pieces:
    """Counts the pieces in which a body comes: one that comes byte by byte is refused."""

    def __init__(self) -> None:
        self.left = PIECES * LEAST_PIECE

    def add(self, size: int) -> None:
        """One more, of so many bytes.

        Raises:
            Malformed: they are too many for what is in them.
        """
        self.left += size - LEAST_PIECE
        if self.left < 0:
            raise Malformed("the body comes in pieces of a few bytes: send larger ones")


class Request:
    """One HTTP request, as handlers see it."""

    __slots__ = ("_headers", "_query", "id", "receive", "scope", "state")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.state: State = scope["state"]
        self.receive = receive
        self._query: tuple[object, Any] = (None, None)
        self._headers = _by_name(scope["headers"])
        given = self.header(b"x-request-id")
        if given is not None and VISIBLE.fullmatch(given):
            self.id = given.decode("ascii")
        else:
            self.id = new_id()

    @property
    def db(self) -> Database:
        """Where statements run."""
        return self.state["db"]

    @property
    def root(self) -> str:
        """What stands before every path of ours in a URL, as `/api`; empty without a prefix."""
        root: str = self.scope.get("root_path", "")
        return quote(root.rstrip("/")) if root else ""

    @property
    def path(self) -> str:
        """As the client wrote it, percent-decoded."""
        return str(self.scope["path"])

    @property
    def url_path(self) -> str:
        """The path of a URL that comes back here: with the prefix, percent-encoded."""
        root: str = self.scope.get("root_path", "")
        # ASGI has the prefix in the path, but not every server does.
        path = self.path if self.path.startswith(f"{root}/") else root + self.path
        return quote(path)

    def header(self, name: bytes) -> bytes | None:
        """The header's value, several lines joined as one list; `name` in lower case.

        White space around a value is no part of it (RFC 9110, 5.5); not every server strips it.
        """
        value = self._headers.get(name)
        return None if value is None else value.strip(b" \t")

    def row_id(self) -> int:
        """The id in the path; see wire.row_id."""
        return row_id(self.scope["path_params"]["id"])

    def query(self, query: Query[Value]) -> Value:
        """The query string as a Struct; see wire.Query."""
        if self._query[0] is not query:
            self._query = (query, query.decode(self.scope["query_string"]))
        decoded: Value = self._query[1]
        return decoded

    async def moved(self, slots: Callable[[], Slots]) -> None:
        """Tell the caches of a write that was committed; see tiers.Cache.moved."""
        cache = self.state["cache"]
        if cache.on:
            await cache.moved(slots())

    def unsure(self) -> None:
        """Tell the caches of a write that may yet be committed."""
        self.state["cache"].unsure()

    async def body(self, body: Body[Value]) -> Value:
        """The JSON body as a Struct; see wire.Body.

        Raises:
            Problem: 400, 408, 413, 415 or 422.
        """
        self._check_content_type()
        data = await self._read()
        return body.decode(data) if len(data) <= AT_ONCE else await body.decode_long(data)

    async def gone(self) -> None:
        """Return when the client has left; for an answer that takes a while."""
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
            await self.drain(more=self.header(b"expect") is None)
            raise too_large
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
            raise TooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} s") from None

    async def drain(self, *, more: bool) -> None:
        """Read what is left of a body, and throw it away; only so much, and only for so long."""
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


# What any request with a body may run into.
BODY_PROBLEMS = (Malformed, TooSlow, TooLarge, Unsupported, Invalid)
