"""A streamed request body, read a little ahead of its handler."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from service.errors import Malformed, Problem, TooLarge, TooSlow
from service.web.request import Pieces, Request
from service.web.stream import LEAST_RATE, SLOW_SECONDS, until

Done = TypeVar("Done")

# Bytes to read ahead. Once the end of the body is read, a disconnect is noticed at once, also while
# the handler is busy.
AHEAD = 1_048_576
# Smallest part to hand to the handler, except the last part.
TOGETHER = 4_096


class Upload:
    """The body of a request, up to `limit` bytes. Use it as a context manager.

    Raises:
        Problem: from `run`: 400 incomplete body, 408 too slow, 413 too large.
    """

    def __init__(self, request: Request, limit: int) -> None:
        self._request = request
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._more = True
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
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
        """Return the result of `work`; cancel it when the client leaves or the body is rejected."""
        return await until(self._reading, work)

    async def parts(self) -> AsyncGenerator[bytes]:
        """Yield the body in parts, as it arrives."""
        while self._more or self._parts:
            if self._more and self._size < TOGETHER:
                self._arrived.clear()
                await self._arrived.wait()
            else:
                part = b"".join(self._parts)
                self._parts.clear()
                self._size = 0
                self._room.set()
                yield part

    async def _read(self) -> None:
        """Read the whole body, then wait until the client disconnects.

        It is aborted after SLOW_SECONDS without data, or with an average below LEAST_RATE for as
        long.
        """
        patience, total, pieces = SLOW_SECONDS, 0, Pieces()
        try:
            while self._more:
                if self._size >= AHEAD:
                    self._room.clear()
                    await self._room.wait()
                began = monotonic()
                async with asyncio.timeout(min(patience, SLOW_SECONDS)):
                    message = await self._request.receive()
                if message["type"] == "http.disconnect":
                    self._more = False
                    raise Malformed("the file is incomplete: the client closed the connection")
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
                    self._arrived.set()
        except TimeoutError:
            self._more = False
            raise TooSlow(f"send the file with at least {LEAST_RATE} bytes a second") from None
        await self._request.gone()

    def _too_large(self) -> Problem:
        return TooLarge(f"the file is larger than {self._limit} bytes")
