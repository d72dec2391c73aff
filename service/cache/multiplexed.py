"""One connection to a Redis that all requests share: commands are written at once, without waiting.

Redis answers in order, so the replies are given to those who wait in the order of their commands.
redis-py borrows a connection, a lock and two timers for each pipeline, and wakes a task for its
replies: docs/decisions/one-connection-to-redis.md has the figures.

redis-py makes the connection: login, TLS, number of the database, sentinels and clusters are its
own. Only then is the transport ours.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from hiredis import HiredisError, PushNotification, Reader, pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

Command = tuple[Any, ...]  # of str, bytes and int
Replies = list[Any]
# Called with the replies, of which each may be a ResponseError; or with why there are none.
Done = Callable[[Replies | Exception], None]

# The time for an answer is counted in so many turns of a timer. After a stall of this process the
# timer runs once, so the replies that have come since are read before the time is over.
TURNS = 5
NOTHING = object()  # what the parser returns before a reply is complete


class Waiting(NamedTuple):
    """Who waits for the next replies.

    Args:
        expected: the number of replies.
        done: called with them.
        turn: of the timer, when the commands were written.
    """

    expected: int
    done: Done
    turn: int


class Multiplexed(asyncio.Protocol):
    """The connection. It is made once, and closed by any failure.

    Args:
        connection: of redis-py, connected.
        seconds: that an answer may take, and up to a fifth less.
        on_message: called with the channel and the payload of each message.
        on_close: called once, after those who wait for replies.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        seconds: float,
        *,
        on_message: Callable[[bytes, bytes], None] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.full = False  # more is written than Redis has read: what can be left out should be
        self._connection = connection
        self._seconds = seconds
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._parser = Reader(replyError=ResponseError, notEnoughData=NOTHING)
        self._waiting: deque[Waiting] = deque()
        self._replies: Replies = []  # of the first who waits
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0
        writer = connection._writer  # noqa: SLF001 - redis-py has no other way to its transport
        assert writer is not None  # noqa: S101 - it is connected
        self._transport = writer.transport
        self._transport.set_protocol(self)

    def send(self, commands: Iterable[Command], done: Done) -> None:
        """Write the commands; `done` is called with their replies, or with an error."""
        if self._closed.done():
            done(ConnectionError("the connection to Redis is closed"))
            return
        packed = [pack_command(command) for command in commands]
        self._waiting.append(Waiting(len(packed), done, self._turn))
        self._transport.write(b"".join(packed))
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds / TURNS, self._check)

    async def call(self, *commands: Command) -> Replies:
        """The replies to the commands.

        Raises:
            ResponseError: the first reply that is an error.
            OSError, TimeoutError: there is no answer.
        """
        answered: asyncio.Future[Replies] = self._loop.create_future()

        def done(found: Replies | Exception) -> None:
            error = first_error(found)
            if answered.done():
                return
            if error is not None:
                answered.set_exception(error)
            elif isinstance(found, list):
                answered.set_result(found)

        self.send(commands, done)
        return await answered

    async def subscribe(self, *channels: str) -> None:
        """Receive the messages of the channels; raises as `call`.

        Redis confirms with messages, not with replies: it has subscribed us when it answers a PING.
        """
        command: Command = ("SUBSCRIBE", *channels)
        self._transport.write(pack_command(command))
        await self.call(("PING",))

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as the connection is closed."""
        await asyncio.wait([self._closed], timeout=seconds)

    def close(self, error: Exception | None = None) -> None:
        """Disconnect. Those who wait for replies get the error."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001 - without it, redis-py warns
        error = error or ConnectionError("the connection to Redis is closed")
        while self._waiting:
            self._waiting.popleft().done(error)
        if self._on_close is not None:
            self._on_close()

    def data_received(self, data: bytes) -> None:
        """Give the replies to those who wait for them."""
        parser = self._parser
        try:
            parser.feed(data)
            while not self._closed.done() and (reply := parser.gets()) is not NOTHING:
                if type(reply) is PushNotification:
                    self._receive(reply)
                elif not self._waiting:
                    self.close(ConnectionError(f"Redis sent what was not asked for: {reply!r:.99}"))
                else:
                    self._replies.append(reply)
                    if len(self._replies) == self._waiting[0].expected:
                        replies, self._replies = self._replies, []
                        self._waiting.popleft().done(replies)
        except (HiredisError, MemoryError) as error:
            self.close(ConnectionError(f"malformed reply of Redis: {error!r:.99}"))

    def _receive(self, message: list[Any]) -> None:
        if self._on_message is not None and message[0] == b"message":
            self._on_message(message[1], message[2])

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer has closed it, or the network has failed."""
        self.close(exc or ConnectionError("Redis has closed the connection"))

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False

    def _check(self) -> None:
        self._timer = None
        self._turn += 1
        if not self._waiting:
            return
        if self._turn - self._waiting[0].turn >= TURNS:
            self.close(TimeoutError(f"Redis did not answer within {self._seconds * 1000:.0f} ms"))
        else:
            self._timer = self._loop.call_later(self._seconds / TURNS, self._check)


def first_error(found: Replies | Exception) -> Exception | None:
    """The first error among the replies, or why there are none."""
    if isinstance(found, Exception):
        return found
    return next((one for one in found if isinstance(one, Exception)), None)
