"""Changes as a response: server-sent events, or JSON after a wait."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, perf_counter

from starlette.types import Send

from service.changes.change import Change
from service.changes.subscriber import WRITE_BYTES, Subscriber
from service.errors import Problem, TimedOut, Unavailable
from service.http1.extensions import ENDLESS
from service.timing import timing
from service.web.request import Request
from service.web.stream import Packer

# How long a browser waits before it connects again.
RETRY = b"retry: 1000\n"
# Seconds in which a long poll looks through changes that do not match.
SCAN_SECONDS = 1.0
# How often and with what pause a key is looked up again while the database does not answer.
KEY_TRIES, PAUSE_SECONDS = 10, 0.5
# It checks the key again, and returns until when that is valid.
CheckKey = Callable[[], Awaitable[float]]


class EventStream:
    """Server-sent events until the client leaves; the body of a reply, as web.stream.Chunks.

    Args:
        request: the request.
        subscriber: what is sent.
        check_key: before changes are sent with a key that was checked too long ago.
    """

    def __init__(self, request: Request, subscriber: Subscriber, check_key: CheckKey) -> None:
        self.packer: Packer | None = None
        self._request = request
        self._subscriber = subscriber
        self._check_key = check_key
        self._valid_until = 0.0

    async def send(self, send: Send) -> None:
        """Send all of it, as the messages after the start."""
        subscriber = self._subscriber
        subscriber.task = asyncio.current_task()
        try:
            with waiting(self._request, subscriber) as gone:
                await self._send_all(send)
        except Problem:  # of the database or the key: the client comes back, and is told
            pass
        except asyncio.CancelledError:
            if not subscriber.dropped:
                raise
            asyncio.current_task().uncancel()  # type: ignore[union-attr]  # this is a task
            return  # without an end, so the connection is closed
        if not gone.done() or subscriber.feed.stopping:
            await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send) -> None:
        subscriber = self._subscriber
        await self._write(send, RETRY + _position(subscriber))
        while (changes := await subscriber.past()) is not None:
            for body in _parts(changes):
                await self._write(send, body)
            subscriber.feed.sent += len(changes)
            if not changes:
                await self._write(send, _position(subscriber))
        while not subscriber.ended:
            body = subscriber.take_events()
            if not body and subscriber.beat:
                subscriber.beat = False
                body = _position(subscriber)
            if body:
                await self._write(send, body)
            else:
                await subscriber.wait()

    async def _write(self, send: Send, body: bytes) -> None:
        tries = 0
        while perf_counter() >= self._valid_until:
            try:
                self._valid_until = await self._check_key()
            except (Unavailable, TimedOut):  # the database restarts, perhaps
                tries += 1
                if tries == KEY_TRIES:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
        subscriber = self._subscriber
        sent = 0
        while sent < len(body):  # all clients share the body, so each copies only a part of it
            end = _cut(body, sent)
            part = body[sent:end]
            subscriber.sending_since = monotonic()
            message = {"type": "http.response.body", "body": part, "more_body": True, ENDLESS: True}
            await send(message)
            subscriber.sending_since = None
            if subscriber.ended:  # the client ignores an event that is not complete
                return
            sent = end


class EndedStream:
    """A stream that ends at once, while the database is away: its client connects again.

    After a 503 a browser would not.
    """

    packer: Packer | None = None

    async def send(self, send: Send) -> None:
        """Send how long to wait."""
        await send({"type": "http.response.body", "body": RETRY + b": the database is away\n\n"})


@contextmanager
def waiting(request: Request, subscriber: Subscriber) -> Iterator[asyncio.Task[None]]:
    """Let a client wait: until it leaves, and not as work of a request.

    Yields:
        A task that ends when the client has left.
    """
    began, metrics = perf_counter(), request.state["metrics"]
    gone = asyncio.create_task(request.gone())
    gone.add_done_callback(lambda _: subscriber.end())
    subscriber.feed.add(subscriber)
    if metrics is not None:
        metrics.in_flight -= 1
    try:
        yield gone
    finally:
        gone.cancel()
        subscriber.leave()
        if metrics is not None:
            metrics.in_flight += 1
        spent = timing.get()
        if spent is not None:
            spent.idle += perf_counter() - began


def _parts(changes: Iterable[Change]) -> Iterator[bytes]:
    """The changes as events: a client that reads slowly holds few of them."""
    parts: list[bytes] = []
    size = 0
    for one in changes:
        parts.append(one.event)
        size += len(one.event)
        if size >= WRITE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _cut(body: bytes, begin: int) -> int:
    """Where the part ends that begins here: at the end of an event, if that is near."""
    end = begin + WRITE_BYTES
    if end >= len(body):
        return len(body)
    found = body.rfind(b"\n\n", begin, end)
    return end if found < 0 else found + 2


def _position(subscriber: Subscriber) -> bytes:
    """An event without data: it only moves the position from which a client goes on."""
    return b"id: %d\n\n" % subscriber.position


async def poll(
    request: Request, subscriber: Subscriber, check_key: CheckKey, wait: float, limit: int
) -> tuple[list[Change], int]:
    """Return the next changes and the position to go on from, after at most `wait` seconds.

    Raises:
        Problem: 401, 403, 410, 503 or 504.
    """
    feed = subscriber.feed
    found: list[Change] = []
    due = monotonic() + SCAN_SECONDS
    form, matches = subscriber.form, subscriber.matcher.matches
    behind = True
    while behind and len(found) < limit and monotonic() < due:
        position, room = subscriber.position, limit - len(found)
        behind = position < await feed.position()
        # The reader may be late: what was committed before the request is in the answer.
        read = feed.page if behind else feed.look
        some, subscriber.position = await read(form, matches, position, room)
        found += some
    if not found and wait and not behind:
        found = await _wait(request, subscriber, wait, limit)
        await check_key()
    return found, subscriber.position


async def _wait(
    request: Request, subscriber: Subscriber, seconds: float, limit: int
) -> list[Change]:
    timer = asyncio.get_running_loop().call_later(seconds, subscriber.end)
    found: list[Change] = []
    try:
        with waiting(request, subscriber):
            while not found and (past := await subscriber.past(limit)) is not None:
                found = past
            while not found and not subscriber.ended:
                await subscriber.wait()
                subscriber.beat = False
                found = subscriber.take(limit)
    finally:
        timer.cancel()
    return found
