"""A body of any length: read as it comes, a little ahead of the handler that takes it."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from service.errors import Malformed, Problem, TooLarge, TooSlow
from service.web.request import Pieces, Request
from service.web.stream import until

Done = TypeVar("Done")

# A client is given up when nothing comes for so many seconds, or when its average is below so many
# bytes a second for as long.
CHUNK_SECONDS, LEAST_RATE = 30.0, 1000
# Bytes that are read ahead: while the end of the body is among them, a client that leaves is
# noticed at once, however busy the handler is with what came before.
AHEAD = 1_048_576
# Bytes that are handed on together at least, unless they are the last.
TOGETHER = 4_096


class Upload:
    """The body of a request, up to `limit` bytes; a context manager around its use.

    Raises:
        Problem: 400 it ended early, 408 it came too slowly, 413; from `run`.
    """

    def __init__(self, request: Request, limit: int) -> None:
        self._request = request
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._more = True
        self._came, self._room = asyncio.Event(), asyncio.Event()
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self._request.check_length(self._limit, self._too_large())
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._request.drain(more=self._more)

    async def run(self, work: Coroutine[Any, Any, Done]) -> Done:
        """What the work gives; it ends when the client leaves or the body is refused."""
        return await until(self._reading, work)

    async def parts(self) -> AsyncGenerator[bytes]:
        """The body as it comes."""
        while self._more or self._parts:
            if self._more and self._size < TOGETHER:
                self._came.clear()
                await self._came.wait()
            else:
                part = b"".join(self._parts)
                self._parts.clear()
                self._size = 0
                self._room.set()
                yield part

    async def _read(self) -> None:
        """Read all of it, and then wait until the client has left."""
        patience, total, pieces = CHUNK_SECONDS, 0, Pieces()
        try:
            while self._more:
                if self._size >= AHEAD:
                    self._room.clear()
                    await self._room.wait()
                began = monotonic()
                async with asyncio.timeout(min(patience, CHUNK_SECONDS)):
                    message = await self._request.receive()
                if message["type"] == "http.disconnect":
                    self._more = False
                    raise Malformed("the file ended early")
                part: bytes = message.get("body", b"")
                patience -= monotonic() - began - len(part) / LEAST_RATE
                total += len(part)
                if total > self._limit:
                    self._more = message.get("more_body", False)
                    raise self._too_large()
                pieces.add(len(part))
                self._parts.append(part)
                self._size += len(part)
                self._more = message.get("more_body", False)
                if self._size >= TOGETHER or not self._more:
                    self._came.set()
        except TimeoutError:
            self._more = False
            raise TooSlow(f"send a file at {LEAST_RATE} bytes a second, or faster") from None
        await self._request.gone()

    def _too_large(self) -> Problem:
        return TooLarge(f"the file is larger than {self._limit} bytes")
