"""A connection that reads a bounded answer, in small pieces."""

import asyncio
import ssl
from typing import Any

import httpcore

# An answer, with its head and all interim responses.
ANSWER_BYTES = 65_536
# At once. Smaller parts of an answer, such as chunks of one byte, take 0.1 ms each, so 64 KiB of
# them would hold the event loop for 0.3 s.
PIECE_BYTES = 1024


class BoundedStream(httpcore.AsyncNetworkStream):
    """Reads at most ANSWER_BYTES after each write, and lets other tasks run between two pieces.

    Args:
        stream: the connection.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = ANSWER_BYTES

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore gives it
    ) -> bytes:
        """Read a piece.

        Raises:
            httpcore.ReadError: the answer is too long, or the connection was lost.
        """
        if self._left <= 0:
            raise httpcore.ReadError("the answer is too long")
        await asyncio.sleep(0)  # what TLS has decrypted already is read without a wait
        piece = await self._stream.read(min(max_bytes, PIECE_BYTES), timeout)
        self._left -= len(piece)
        return piece

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> None:
        """Write a part of a request."""
        self._left = ANSWER_BYTES
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> httpcore.AsyncNetworkStream:
        """Return the connection with TLS."""
        return BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """See httpcore."""
        return self._stream.get_extra_info(info)
