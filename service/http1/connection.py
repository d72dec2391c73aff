"""HTTP/1.1 for uvicorn: what is whole goes out in one write.

uvicorn keeps the processes, the signals and the lifespan; this takes the place of its own protocol
(`http=` of its Config), which costs twice the CPU: a timer, an event and two writes per request,
two regular expressions per header (`python -m bench trials server` compares them). What can't be
parsed is answered with a problem document.
"""

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios
from collections import deque
from contextlib import suppress
from typing import Any, cast
from urllib.parse import unquote

from starlette.types import ASGIApp, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from service.errors import Problem
from service.http1.exchange import Exchange, answer, status_line
from service.http1.parser import Head, Parser
from service.logs import logger
from service.web.request import READY, WHOLE_BODY

# Bytes of a body that nobody has asked for yet.
BODY_AHEAD = 65_536
# For the client to read its answer, while what it still sends is thrown away.
LINGER_SECONDS = 1.0
# At the stop an idle connection may bring one more request: a client that is about to send it, or
# has sent it, can't know. It is answered, and the answer says that it is the last.
LAST_REQUEST_SECONDS = 0.3
# Requests that wait on one connection; who sends more at once is answered these, and asks again.
PIPELINED = 100

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other, in the order of their coming.

    `exchange` is the one that is being answered, `newest` the one whose body may still come.
    `since` is when the last answer ended: a whole request head must come within the keep-alive
    time from then on.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.app: ASGIApp = config.loaded_app
        self.loop = _loop or asyncio.get_running_loop()
        self.server_state = server_state
        self.app_state = app_state
        self.root_path = config.root_path
        self.keep_alive = config.timeout_keep_alive
        self.parser = Parser(self)
        self.transport: asyncio.Transport
        self.exchange: Exchange | None = None
        self.newest: Exchange | None = None
        self.queue: deque[tuple[Exchange, Scope]] = deque()
        self.deaf = False
        self.stopping = False
        self.reading = True
        self.blocked: asyncio.Event | None = None
        self.blocked_since = 0.0
        self.unread = 0  # bytes, when it was looked at last
        self.since = 0.0
        self.timer: asyncio.TimerHandle | None = None

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own
        self.local = get_local_addr(self.transport)
        self.client = get_remote_addr(self.transport)
        self.scheme = "https" if is_ssl(self.transport) else "http"
        self.since = self.loop.time()
        self.timer = self.loop.call_later(self.keep_alive, self._look)

    def connection_lost(self, _: Exception | None) -> None:
        self.server_state.connections.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        self.resume_writing()
        for exchange in (self.exchange, *(exchange for exchange, _ in self.queue)):
            if exchange is not None:
                exchange.lost = True
                exchange.wake()
        self.queue.clear()

    def data_received(self, data: bytes) -> None:
        if not self.deaf:
            self.parser.feed(data)

    def pause_writing(self) -> None:
        if self.blocked is None:
            self.blocked = asyncio.Event()
            self.blocked_since = self.loop.time()
            self.unread = sys.maxsize

    def resume_writing(self) -> None:
        if self.blocked is not None:
            self.blocked.set()
            self.blocked = None

    # The parser's calls.

    def request(self, head: Head) -> None:
        if len(self.queue) >= PIPELINED:
            self.hang_up()
        if self.deaf:
            return
        path = head.path.decode("ascii")
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.version,
            "method": head.method,
            "scheme": self.scheme,
            "path": self.root_path + (unquote(path) if "%" in path else path),
            "raw_path": head.path,
            "query_string": head.query,
            "root_path": self.root_path,
            "headers": head.headers,
            "server": self.local,
            "client": self.client,
            "state": self.app_state.copy(),
        }
        keep = head.keep and not self.stopping
        exchange = Exchange(self, head.method, head.version, keep=keep, expects=head.expects)
        self.newest = exchange
        scope["extensions"] = {WHOLE_BODY: exchange.whole, READY: exchange.ready}
        if self.exchange is None:
            self._start(exchange, scope)
        else:  # pipelined
            self.queue.append((exchange, scope))
            self.pause_reading()

    def body(self, part: bytes) -> None:
        exchange = self.newest
        if exchange is None or exchange.finished or not exchange.more:
            return
        exchange.body += part
        exchange.wake()
        if len(exchange.body) > BODY_AHEAD:
            self.pause_reading()

    def end(self) -> None:
        if self.newest is not None:
            self.newest.more = False
            self.newest.wake()

    def hang_up(self) -> None:
        """Close once the newest request is answered; whatever else is sent is not read."""
        self.deaf = True
        if self.newest is None or self.newest.finished:
            self.transport.close()
            return
        self.newest.keep = False
        if self.newest.more:  # the rest of its body can't be read
            self.newest.broken = True
            self.newest.wake()

    def refuse(self, problem: Problem) -> None:
        """Answer what can't be parsed, unless an answer is under way; and then the end."""
        if self.exchange is not None or (self.newest is not None and self.newest.more):
            self.hang_up()  # an answer can't be interrupted, nor a second one given
            return
        self.deaf = True
        headers, body = answer(problem)
        lines = [status_line(problem.status), *(b": ".join(pair) for pair in headers)]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        self._linger()

    # Ours.

    def finished(self, exchange: Exchange) -> None:
        """The answer is written: the next request's turn."""
        self.server_state.total_requests += 1
        self.exchange = None
        if not exchange.keep:
            if exchange.more or self.deaf:  # something is sent that nobody has read
                self._linger()
            else:
                self.transport.close()
            self.deaf = True
            return
        if self.transport.is_closing():
            return
        self.since = self.loop.time()
        if self.queue:
            self._start(*self.queue.popleft())
        if not self.queue:
            self.resume_reading()

    def shutdown(self) -> None:
        """Uvicorn's call: what is under way may end, and an idle client may ask once more."""
        self.stopping = True
        if self.newest is None or self.newest.finished:
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_idle)
        else:  # its body may still be on the way
            self.newest.keep = False

    def _close_idle(self) -> None:
        if self.newest is None or self.newest.finished:
            self.transport.close()

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            self.transport.resume_reading()

    def _start(self, exchange: Exchange, scope: Scope) -> None:
        self.exchange = exchange
        task = self.loop.create_task(exchange.run(self.app, scope))
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def _linger(self) -> None:
        """Close a little later: now, what still comes would make a reset, and lose the answer."""
        if not self.transport.is_closing():
            self.resume_reading()
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _look(self) -> None:
        """One timer per connection, not one per request: it looks, and comes again."""
        now = self.loop.time()
        idle = now - self.since
        if self.blocked is not None:
            unread = self._unread()
            if unread < self.unread:  # the client reads, however slowly
                self.unread, self.blocked_since = unread, now
            idle = now - self.blocked_since
        elif self.exchange is not None:
            idle = 0.0
        if idle >= self.keep_alive:
            if self.blocked is not None:
                logger.warning("a client that does not read its answer is cut off")
                self.transport.abort()
            elif self.transport.is_closing():
                self.transport.abort()
            else:
                self.transport.close()
                self.timer = self.loop.call_later(self.keep_alive, self.transport.abort)
        else:
            self.timer = self.loop.call_later(self.keep_alive - idle, self._look)

    def reset(self) -> None:
        """End by RST in the place of FIN: an answer that ends with the connection is not whole."""
        with suppress(OSError), self._socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _socket(self) -> socket.socket:
        """A handle of its own on the connection: that of uvloop has no options."""
        return socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))

    def _unread(self) -> int:
        """Bytes of the answer that the client has yet to take, those in the kernel included."""
        size = self.transport.get_write_buffer_size()
        with suppress(OSError), self._socket() as one:
            waiting = fcntl.ioctl(one, termios.TIOCOUTQ, bytes(4))
            size += int.from_bytes(waiting, sys.byteorder)
        return size
