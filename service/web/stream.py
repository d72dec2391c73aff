"""A body that is made while it is sent."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Protocol

from starlette.types import Send

from service.errors import Malformed, Problem
from service.logs import logger


class Packer(Protocol):
    """Makes smaller what comes in pieces, see compress.Packer."""

    pack: Callable[[bytes], bytes]
    end: Callable[[], bytes]


class Chunks:
    """What a generator makes, as fast as the client takes it; ended when the client leaves.

    Once it has begun, what goes wrong can no longer be told: it ends without its last message, so
    that the server cuts the connection, and the client sees that the end is missing.
    """

    def __init__(self, made: AsyncGenerator[bytes]) -> None:
        self._made = made
        self._first = b""
        self._gone: asyncio.Task[None]
        self.packer: Packer | None = None

    async def begin(self, left: Coroutine[Any, Any, None]) -> None:
        """Make the first chunk: what fails up to here is answered like any other problem.

        `left` returns when the client has left.
        """
        self._gone = asyncio.create_task(left)
        first = asyncio.create_task(self._next())
        try:
            await asyncio.wait({self._gone, first}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                raise Malformed("the client has left")
            self._first = await first
        except BaseException:
            self._gone.cancel()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await self._made.aclose()
            raise

    async def _next(self) -> bytes:
        return await anext(self._made, b"")

    async def send(self, send: Send) -> None:
        """Send all of it, as the messages after the start."""
        gone = self._gone
        try:
            chunk = self._first
            while chunk:
                if gone.done():
                    return
                if self.packer is not None:  # in a thread: a chunk takes gzip a millisecond
                    chunk = await asyncio.to_thread(self.packer.pack, chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await anext(self._made, b"")
            last = b"" if self.packer is None else self.packer.end()
            await send({"type": "http.response.body", "body": last})
        except Problem as problem:
            logger.error("an answer broke off", extra={"fields": {"problem": problem.detail}})
        finally:
            gone.cancel()
            await self._made.aclose()
