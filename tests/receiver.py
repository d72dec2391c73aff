"""A receiver of posts, in the event loop of the test, that misbehaves as the test says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Taken(NamedTuple):
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes


def says(answer: bytes) -> Answer:
    """Answer with these bytes."""

    async def run(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return run


def status(code: int, *headers: str, body: str = "") -> Answer:
    """Answer with a status."""
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body.encode())}", *headers]
    return says("\r\n".join([*lines, "", body]).encode())


async def hang(_writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def reset(writer: asyncio.StreamWriter) -> None:
    """Cut the connection with a reset."""
    writer.transport.abort()


async def close(writer: asyncio.StreamWriter) -> None:
    """Close the connection without an answer."""
    writer.close()


def endless(start: bytes, piece: bytes, *, pause: float = 0.0) -> Answer:
    """Send `piece` again and again."""

    async def run(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return run


endless_headers = endless(b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"a" * 1000 + b"\r\n")
slow_headers = endless(b"HTTP/1.1 200 OK\r\n", b"X: a\r\n", pause=0.05)
endless_body = endless(
    b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"b" * 4096 + b"\r\n"
)
slow_body = endless(b"HTTP/1.1 200 X\r\nContent-Length: 999\r\n\r\n", b"c", pause=0.05)


class Receiver:
    """Has the requests that it took in `taken`, and the number of its `connections`."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.taken: list[Taken] = []
        self.connections = 0
        self.port = 0
        self.names: list[str | None] = []  # that TLS clients asked for
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # `stop` cancels it, and asyncio would log that.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    self.taken.append(await _read(reader))
                    await self.answer(writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    @property
    def open(self) -> int:
        """The number of connections that are open."""
        return len(self._tasks)

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))


@asynccontextmanager
async def receiving(
    answer: Answer, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Listen on loopback while the block runs."""
    receiver = Receiver(answer)
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: receiver.names.append(name)
    server = await asyncio.start_server(receiver, "127.0.0.1", port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.stop()
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Taken:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    return Taken(head[0], headers, await reader.readexactly(int(headers["content-length"])))
