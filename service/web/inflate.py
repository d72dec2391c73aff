"""Decompress a gzip body as it arrives, up to a limit."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator

from service.errors import Malformed, TooLarge, Unsupported

# Bytes of output to yield at once.
CHUNK = 65_536
# Bytes of input to decompress at once: zlib copies the rest after each gzip member.
PIECE = 8_192
# A higher ratio, after the first bytes, is taken for a decompression bomb. Rows that differ only in
# keys and numbers compress 10 to 80 times.
RATIO, RATIO_FROM = 200, 262_144


async def inflated(chunks: AsyncIterable[bytes], limit: int) -> AsyncGenerator[bytes]:
    """Decompress gzip; yield at most 64 KiB at once.

    Raises:
        Malformed: not gzip, incomplete or damaged.
        TooLarge: more than `limit` bytes after decompression, or a ratio above RATIO.
    """
    file = _File()
    total = 0
    async for chunk in chunks:
        for start in range(0, len(chunk), PIECE):
            await asyncio.sleep(0)
            for data in file.inflate(chunk[start : start + PIECE]):
                total += len(data)
                if total > limit:
                    raise TooLarge(f"the file is larger than {limit} bytes when decompressed")
                if total > RATIO_FROM and total > file.received * RATIO:
                    raise TooLarge(
                        f"the file decompresses to more than {RATIO} times its size: send it"
                        " without gzip"
                    )
                yield data
    file.end()


class _File:
    """One or more gzip members; zero bytes after the last one are ignored."""

    def __init__(self) -> None:
        self.received = 0  # bytes
        self._stream = _gzip()
        self._in_member = False
        self._complete = 0  # members

    def inflate(self, data: bytes) -> Iterator[bytes]:
        self.received += len(data)
        while data:
            if not self._in_member:
                data = data.lstrip(b"\0") if self._complete else data
                if data[:1] not in {b"", b"\x1f"}:
                    raise self._not_gzip()
                self._in_member = bool(data)
            try:
                found = self._stream.decompress(data, CHUNK)
            except zlib.error as error:
                raise self._wrong(str(error)) from None
            if found:
                yield found
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data = self._stream.unused_data
                self._stream, self._in_member = _gzip(), False
                self._complete += 1

    def end(self) -> None:
        if self._in_member or not self._complete:
            raise Malformed("the gzip data is incomplete: send all of it")

    def _wrong(self, error: str) -> Malformed:
        if "incorrect data check" in error or "incorrect length check" in error:
            return Malformed("the gzip data is damaged: its checksum is wrong")
        if "header" in error or "compression method" in error:
            return self._not_gzip()
        return Malformed("the gzip data is damaged: send it again")

    def _not_gzip(self) -> Malformed:
        if self._complete:
            return Malformed("the bytes after the gzip data are not gzip")
        return Malformed("the file is not gzip")


def is_gzip(encoding: bytes | None) -> bool:
    """Return whether a Content-Encoding is gzip; None is without one.

    Raises:
        Unsupported: it is neither gzip nor identity.
    """
    match (encoding or b"identity").strip().lower():
        case b"identity":
            return False
        case b"gzip" | b"x-gzip":
            return True
    raise Unsupported(
        "send the body as it is, or as gzip", headers=((b"accept-encoding", b"gzip, identity"),)
    )


def _gzip() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=31)
