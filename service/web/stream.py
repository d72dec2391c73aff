"""A body that is made while it is sent."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from time import monotonic
from typing import Any, Protocol, TypeVar

from starlette.types import Send

from service.errors import Malformed, Problem
from service.logs import logger

Done = TypeVar("Done")

# A download is aborted when its client takes less than 1,000 bytes a second for 30 seconds: it
# holds one of few connections (db/copy.py). An upload has the same limits.
SLOW_SECONDS, LEAST_RATE = 30.0, 1000


async def until(left: asyncio.Task[None], work: Coroutine[Any, Any, Done]) -> Done:
    """What the work returns. If `left` ends first, the work is cancelled.

    Work that can't be cancelled any more, as a COMMIT that was sent, runs to its end.

    Raises:
        Malformed: the client has left.
        Problem: what `left` or the work raises.
    """
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({left, working}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    if working.cancelled():
        left.result()
        raise Malformed("the client has left")
    return working.result()


class Packer(Protocol):
    """Compresses a body in pieces, see compress.Packer."""

    pack: Callable[[bytes], bytes]
    end: Callable[[], bytes]


class Sent(Protocol):
    """A body that is made while it is sent, with a packer if it is to be compressed."""

    packer: Packer | None

    async def send(self, send: Send) -> None:
        """Send all of it, as the messages after the start."""


class Chunks:
    """The chunks of a generator, made as fast as the client takes them, until it leaves.

    An error after the first chunk can't be reported any more. Sending then stops without the last
    message, so the server closes the connection, and the client sees that the end is missing.
    """

    def __init__(self, made: AsyncGenerator[bytes]) -> None:
        self._made = made
        self._first = b""
        self._gone: asyncio.Task[None]
        self.packer: Packer | None = None

    async def begin(self, left: Coroutine[Any, Any, None]) -> None:
        """Make the first chunk; an error until then is answered like any other problem.

        `left` returns when the client has left.
        """
        self._gone = asyncio.create_task(left)
        try:
            self._first = await until(self._gone, self._next())
        except BaseException:
            self._gone.cancel()
            await self._made.aclose()
            raise

    async def _next(self) -> bytes:
        return await anext(self._made, b"")

    async def send(self, send: Send) -> None:
        """Send all of it, as the messages after the start."""
        gone, patience = self._gone, SLOW_SECONDS
        try:
            chunk = self._first
            while chunk:
                if self.packer is not None:  # in a thread: a chunk takes gzip a millisecond
                    chunk = await asyncio.to_thread(self.packer.pack, chunk)
                began, allowed = monotonic(), patience + len(chunk) / LEAST_RATE
                async with asyncio.timeout(allowed):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                patience = min(SLOW_SECONDS, allowed - (monotonic() - began))
                chunk = await until(gone, self._next())
            last = b"" if self.packer is None else self.packer.end()
            await send({"type": "http.response.body", "body": last})
        except Problem as problem:
            if gone.done():
                return
            logger.error(
                "a streamed response was not finished",
                extra={"fields": {"problem": problem.detail}},
            )
        except TimeoutError:
            logger.warning("a streamed response was not finished: its client reads too slowly")
        finally:
            gone.cancel()
            await self._made.aclose()
