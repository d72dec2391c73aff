"""When a connection on which nothing happens is closed."""

import asyncio
import sys
from typing import Protocol

from service.http1.transports import unsent_bytes
from service.logs import logger


class Watched(Protocol):
    """What the timer needs of a connection."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    blocked: asyncio.Event | None

    @property
    def cycle(self) -> object | None: ...


class IdleTimer:
    """One timer per connection, not one per request: it looks, and comes again.

    `since` is when the last answer ended: a whole request head must come within the keep-alive
    time from then on. A client that does not read its answer is given as long, and again as long
    after each byte that it takes.
    """

    def __init__(self, connection: Watched, seconds: float) -> None:
        self.connection = connection
        self.seconds = seconds
        self.since = connection.loop.time()
        self.blocked_since = 0.0
        self.unsent = 0  # bytes, when it was looked at last
        self.handle = connection.loop.call_later(seconds, self._look)

    def cancel(self) -> None:
        self.handle.cancel()

    def begin_blocked(self) -> None:
        """The client does not read as fast as it is sent to."""
        self.blocked_since = self.connection.loop.time()
        self.unsent = sys.maxsize

    def _look(self) -> None:
        connection = self.connection
        now = connection.loop.time()
        idle = now - self.since
        if connection.blocked is not None:
            unsent = unsent_bytes(connection.transport)
            if unsent < self.unsent:  # the client reads, however slowly
                self.unsent, self.blocked_since = unsent, now
            idle = now - self.blocked_since
        elif connection.cycle is not None:
            idle = 0.0
        if idle < self.seconds:
            self.handle = connection.loop.call_later(self.seconds - idle, self._look)
        elif connection.blocked is not None or connection.transport.is_closing():
            if connection.blocked is not None:
                logger.warning("a client that does not read its answer is cut off")
            connection.transport.abort()
        else:
            connection.transport.close()
            self.handle = connection.loop.call_later(self.seconds, connection.transport.abort)
