"""One request and its response: the ASGI side and the bytes on the connection."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope
from uvicorn.server import ServerState

from service.errors import Failed
from service.http1.extensions import ENDLESS, FULL_BODY, SEND_PREBUILT
from service.http1.head import Head
from service.http1.refusals import answer
from service.http1.status_lines import beginning
from service.http1.transports import reset
from service.logs import logger

# Bytes of a body that is copied into one write with its head; a longer one is written separately.
TOGETHER = 65_536

_ASGI = {"version": "3.0", "spec_version": "2.3"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Bytes of a body that is waited for before the application is called.
SHORT_BODY = 16_384
# Headers about framing, which this module sets.
FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})


class Wire(Protocol):
    """The methods of a connection that a cycle uses."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    server_state: ServerState
    app_state: dict[str, Any]
    blocked: asyncio.Event | None
    root_path: str
    scheme: str
    local: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scope: Scope | None
    input: bytes

    def resume_reading(self) -> None: ...
    def finished(self, cycle: "RequestCycle") -> None: ...
    def run(self, work: Coroutine[None, None, None]) -> None: ...


class RequestCycle:
    """One request and its response.

    `start` is the first message of the response, held until its body arrives. `left` is the number
    of body bytes that are still to send, None if it is chunked or ends with the connection.
    """

    # Class attributes: most requests never change them, so they cost nothing per request.
    size = 0  # bytes of the body in `parts`
    delivered = False
    waiter: asyncio.Future[None] | None = None
    start: Message | None = None
    begun = False
    bodiless = False
    chunked = False
    left: int | None = None
    finished = False
    lost = False
    broken = False  # the rest of the body can't be read, but a response can be sent
    endless = False  # the response goes on until the client leaves
    started = False  # the application has it
    deferred = False  # it waits for the rest of a short body

    def __init__(self, connection: Wire, head: Head) -> None:
        self.connection = connection
        self.head = head
        self.method = head.method
        self.version = head.version
        self.keep = head.keep
        self.expects = head.expects
        self.more = head.length != 0  # of the body, whose parts have come and not been received
        self.parts: list[bytes] = []

    @property
    def awaits_short_body(self) -> bool:
        """Whether the client sends the rest of a short body without being asked to."""
        length = self.head.length
        return length is not None and length <= SHORT_BODY and not self.expects

    def scope(self) -> Scope:
        """Return the scope of ASGI.

        The connection has it until the end of the response. A cycle must not have it: it has bound
        methods of ours, so this would be a reference cycle.
        """
        head, connection = self.head, self.connection
        if connection.scope is not None:
            return connection.scope
        path = head.path.decode("ascii")
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.version,
            "method": head.method,
            "scheme": connection.scheme,
            "path": connection.root_path + (unquote(path) if "%" in path else path),
            "raw_path": head.path,
            "query_string": head.query,
            "root_path": connection.root_path,
            "headers": list(head.headers),
            "server": connection.local,
            "client": connection.client,
            "state": connection.app_state.copy(),
            "extensions": {FULL_BODY: self.whole, SEND_PREBUILT: self.ready},
        }
        if not self.lost:
            connection.scope = scope
        return scope

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        await self.complete(app(scope, self.receive, self.send))

    async def complete(self, work: Awaitable[None]) -> None:
        """Wait until the response is sent; send an error if the work raises or sends nothing."""
        try:
            await work
        except Exception:  # noqa: BLE001 - the outermost handler
            logger.exception("the application failed")
        if self.finished or self.lost:
            return
        self.keep = False
        if self.begun:  # the connection closes early, so the client sees an incomplete response
            self.finished = True
            # Only a reset shows it then, or ends a connection whose client reads nothing.
            if self.connection.blocked is not None or (not self.chunked and self.left is None):
                reset(self.connection.transport)
            self.connection.finished(self)
        else:
            self.start, self.chunked, self.left = None, False, None
            headers, body = answer(Failed("something went wrong on our side"))
            await self.send({"type": "http.response.start", "status": 500, "headers": headers})
            await self.send({"type": "http.response.body", "body": body})

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def add(self, part: bytes) -> None:
        """Add a part of the body."""
        self.parts.append(part)
        self.size += len(part)
        self.wake()

    def whole(self) -> bytes | None:
        """Return the body if it has arrived completely and no part was received before."""
        if self.more or self.delivered or self.lost:
            return None
        self.delivered = True
        return self._take()

    def _take(self) -> bytes:
        body = b"".join(self.parts)
        self.parts, self.size = [], 0
        return body

    async def receive(self) -> Message:
        connection = self.connection
        if self.expects and not self.begun and not self.lost:
            self.expects = False
            connection.transport.write(CONTINUE)
        while True:
            if self.lost or self.finished or self.broken:
                return {"type": "http.disconnect"}
            if self.parts or not (self.more or self.delivered):
                break
            connection.resume_reading()
            self.waiter = connection.loop.create_future()
            try:
                await self.waiter
            finally:
                self.waiter = None
        self.delivered = not self.more
        return {"type": "http.request", "body": self._take(), "more_body": self.more}

    async def send(self, message: Message) -> None:
        connection = self.connection
        if connection.blocked is not None:
            await connection.blocked.wait()
        if self.lost:
            return
        if self.start is None:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"a response must begin with its start, not {message['type']}")
            self.start = message
            return
        if message["type"] != "http.response.body" or self.finished:
            raise RuntimeError(f"unexpected ASGI message {message['type']}")
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        head = b""
        if not self.begun:
            head = self._head(self.start["status"], self.start.get("headers", ()), body, more=more)
        body = self._framed(body, more=more)
        if len(body) <= TOGETHER:
            connection.transport.write(head + body)
        else:
            connection.transport.write(head)
            connection.transport.write(body)
        self.begun = True
        if not more:
            self.finished = True
            connection.finished(self)
        elif ENDLESS in message:
            self.endless = True

    def half_closed(self) -> None:
        """The client has closed its side: for an endless response this is its end."""
        if self.endless:
            self.broken, self.keep = True, False
            self.wake()

    def ready(self, lines: bytes, body: bytes, status: int = 200) -> bool:
        """Send a response from header lines (without the last CR LF) and a body; False if not now.

        The status must allow a body, and the method must not be HEAD.
        """
        connection = self.connection
        if connection.blocked is not None or self.lost or self.start is not None or self.more:
            return False
        start = beginning(status, connection.server_state.default_headers)
        end = b"\r\n\r\n" if self.keep else b"\r\nconnection: close\r\n\r\n"
        if len(body) <= TOGETHER:
            connection.transport.write(b"".join((start, b"\r\n", lines, end, body)))
        else:
            connection.transport.write(b"".join((start, b"\r\n", lines, end)))
            connection.transport.write(body)
        self.begun = self.finished = True
        connection.finished(self)
        return True

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self.bodiless:
            return b""
        if self.chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self.left is not None:
            self.left -= len(body)
            if self.left < 0 or (self.left and not more):
                raise RuntimeError("the body is not as long as its Content-Length")
        return body

    def _head(self, status: int, headers: Any, body: bytes, *, more: bool) -> bytes:
        lines = [beginning(status, self.connection.server_state.default_headers)]
        length: bytes | None = None
        for pair in headers:
            if pair[0] in FRAMING:
                if pair[0] == b"content-length":
                    length = pair[1]
                else:
                    self.keep = self.keep and b"close" not in pair[1].lower()
                    continue
            lines.append(b": ".join(pair))
        if status in (204, 304) or self.method == "HEAD":
            self.bodiless = True
        elif length is not None:
            # Most bodies are complete; then writing the length is faster than reading the header.
            self.left = len(body) if length == b"%d" % len(body) else int(length)
        elif not more:
            lines.append(b"content-length: %d" % len(body))
        elif self.version == "1.1":
            self.chunked = True
            lines.append(b"transfer-encoding: chunked")
        else:
            self.keep = False
        # The client may send its body or not, so the next bytes are ambiguous.
        if (self.expects and self.more) or status == 408:
            self.keep = False
        if not self.keep:
            lines.append(b"connection: close")
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        breaks = len(lines) + lines[0].count(b"\n")
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
            raise RuntimeError("a response header contains a line break or NUL")
        return head
