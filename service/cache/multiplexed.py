"""The connection of a worker to Redis: commands of all requests, and the messages of channels.

Commands are written at once, without waiting for those before. Redis answers in order, so the
replies complete the pending commands first in, first out. With RESP3 the messages of
channels come between the replies: a worker's own message comes with the reply to its PUBLISH, and
costs no packet. docs/decisions/one-connection-to-redis.md has the figures.

redis-py makes the connection: login, TLS, number of the database, sentinels and clusters are its
own. Only then is the transport ours.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

Command = tuple[Any, ...]  # of str, bytes and int
Replies = list[Any]
# Called with the replies, of which each may be a CommandError; or with why there are none.
Done = Callable[[Replies | Exception], None]
# Called with the channel and the payload of a message.
OnMessage = Callable[[bytes, bytes], None]

# The time for an answer is counted in turns of a timer. After a stall of this process it runs once,
# so the replies that have come since are read before the time is over.
TURNS = 5
# Without an answer for so long, the connection is made again.
LOST_SECONDS = 1.0
NOTHING = object()  # what the parser returns before a reply is complete


class CommandError(OSError):
    """Redis refuses a command. It is handled as other failures of the server."""


class Waiting:
    """Who waits for the next replies.

    Args:
        expected: the number of replies.
        done: called with them; None when it was called with an error.
        turn: of the timer, when the commands were written.
        patient: whether it waits until the connection is closed.
    """

    __slots__ = ("done", "expected", "patient", "turn")

    def __init__(self, expected: int, done: Done | None, turn: int, *, patient: bool) -> None:
        self.expected = expected
        self.done = done
        self.turn = turn
        self.patient = patient


class Multiplexed(asyncio.Protocol):
    """The connection. It is made once, and may be closed at any time.

    Args:
        connection: of redis-py, connected, with RESP3.
        seconds: that an answer may take, and up to a fifth less. What waits for it gets an error.
        lost_seconds: without an answer for so long, it is closed.
        on_message: called with the channel and the payload of each message.
        on_close: called once, after all pending commands have failed, with the reason; None if
            it was closed by us.
    """

    def __init__(
        self,
        connection: "AbstractConnection",
        seconds: float,
        lost_seconds: float = LOST_SECONDS,
        *,
        on_message: OnMessage | None = None,
        on_close: Callable[[Exception | None], None] | None = None,
    ) -> None:
        import hiredis  # a worker without Redis needs none

        self.full = False  # more is written than Redis has read: what can be left out should be
        self._connection = connection
        self._period = seconds / TURNS
        self._lost_turns = round(lost_seconds / self._period)
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._hiredis = hiredis
        self._parser = hiredis.Reader(replyError=CommandError, notEnoughData=NOTHING)
        self._waiting: deque[Waiting] = deque()
        self._replies: Replies = []  # received so far for the oldest pending command
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0
        writer = connection._writer  # noqa: SLF001 - redis-py has no other way to its transport
        assert writer is not None  # noqa: S101 - it is connected
        self._transport = writer.transport
        self._transport.set_protocol(self)

    def send(self, commands: Sequence[Command], done: Done, *, patient: bool = False) -> None:
        """Write the commands; `done` is called with their replies, or with an error.

        `patient` waits until the connection is closed.
        """
        if self._closed.done():
            done(ConnectionError("the connection to Redis is closed"))
            return
        pack = self._hiredis.pack_command
        packed = b"".join([pack(command) for command in commands])
        self._waiting.append(Waiting(len(commands), done, self._turn, patient=patient))
        self._transport.write(packed)
        if self._timer is None:
            self._timer = self._loop.call_later(self._period, self._check)

    async def call(self, *commands: Command) -> Replies:
        """The replies to the commands.

        Raises:
            CommandError: the first reply that is an error.
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

        self.send(commands, done, patient=True)
        return await answered

    async def subscribe(self, *channels: str) -> None:
        """Receive the messages of the channels; raises as `call`.

        Redis confirms with messages, not with replies: it has subscribed us when it answers a PING.
        """
        command: Command = ("SUBSCRIBE", *channels)
        self._transport.write(self._hiredis.pack_command(command))
        await self.call(("PING",))

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as the connection is closed."""
        await asyncio.wait([self._closed], timeout=seconds)

    def close(self, error: Exception | None = None) -> None:
        """Disconnect. Pending commands fail with the error."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001 - without it, redis-py warns
        self._give_up(self._waiting, error or ConnectionError("the connection to Redis is closed"))
        if self._on_close is not None:
            self._on_close(error)

    def data_received(self, data: bytes) -> None:
        """Complete the pending commands whose replies have arrived."""
        parser, push = self._parser, self._hiredis.PushNotification
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not NOTHING:
                if type(reply) is push:
                    self._receive(reply)
                elif not self._waiting:
                    self.close(ConnectionError(f"Redis sent what was not asked for: {reply!r:.99}"))
                else:
                    self._replies.append(reply)
                    if len(self._replies) == self._waiting[0].expected:
                        replies, self._replies = self._replies, []
                        waiting = self._waiting.popleft()
                        if waiting.done is not None:
                            waiting.done(replies)
        except (self._hiredis.HiredisError, MemoryError) as error:
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
        """One turn of the timer."""
        self._timer = None
        self._turn += 1
        if not self._waiting:
            return
        due, lost = self._turn - TURNS, self._turn - self._lost_turns
        if self._waiting[0].turn <= lost:
            self.close(TimeoutError("Redis did not answer"))
            return
        self._timer = self._loop.call_later(self._period, self._check)
        late = [one for one in self._waiting if one.turn <= due and not one.patient]
        self._give_up(late, TimeoutError("Redis did not answer in time"))

    def _give_up(self, those: Iterable[Waiting], error: Exception) -> None:
        for one in those:
            done, one.done = one.done, None
            if done is not None:
                done(error)


def first_error(found: Replies | Exception) -> Exception | None:
    """The first error among the replies, or why there are none."""
    if isinstance(found, Exception):
        return found
    return next((one for one in found if isinstance(one, Exception)), None)
