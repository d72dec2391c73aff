"""Close idle connections, and connections whose client does not read."""

import asyncio
import sys
from typing import Protocol

from service.http1.transports import unsent_bytes
from service.logs import logger


class Watched(Protocol):
    """The attributes of a connection that the timer uses."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    blocked: asyncio.Event | None

    @property
    def cycle(self) -> object | None: ...


class IdleTimer:
    """Closes a connection after its idle timeout.

    One timer per connection, not per request: it checks the connection and starts again. The idle
    time begins at `since`, the end of the last response; a complete request head must arrive within
    the timeout. The timeout also applies to a client that does not read its response, and starts
    again with each byte that it reads.
    """

    def __init__(self, connection: Watched, seconds: float) -> None:
        self.connection = connection
        self.seconds = seconds
        self.since = connection.loop.time()
        self.blocked_since = 0.0
        self.unsent = 0  # bytes, at the last check
        self.handle = connection.loop.call_later(seconds, self._check)

    def cancel(self) -> None:
        self.handle.cancel()

    def begin_blocked(self) -> None:
        """Note that the write buffer is full: the client reads too slowly."""
        self.blocked_since = self.connection.loop.time()
        self.unsent = sys.maxsize

    def _check(self) -> None:
        connection = self.connection
        now = connection.loop.time()
        idle = now - self.since
        if connection.blocked is not None:
            unsent = unsent_bytes(connection.transport)
            if unsent < self.unsent:  # the client reads, even if slowly
                self.unsent, self.blocked_since = unsent, now
            idle = now - self.blocked_since
        elif connection.cycle is not None:
            idle = 0.0
        if idle < self.seconds:
            self.handle = connection.loop.call_later(self.seconds - idle, self._check)
        elif connection.blocked is not None or connection.transport.is_closing():
            if connection.blocked is not None:
                logger.warning("closing a connection whose client does not read the response")
            connection.transport.abort()
        else:
            connection.transport.close()
            self.handle = connection.loop.call_later(self.seconds, connection.transport.abort)
