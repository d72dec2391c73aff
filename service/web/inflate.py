"""Bytes of a body as they come: gzip undone, and never more of them than allowed."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator

from service.errors import Malformed, TooLarge, Unsupported

# Handed on at once, however many come out of a few.
CHUNK = 65_536
# Taken in at once: a file of empty gzip members is read again behind each of them.
PIECE = 8_192
# What compresses better than this, beyond the first bytes, is made to fill the place. Rows that are
# alike but for their keys and numbers compress 10 to 80 times.
RATIO, RATIO_FROM = 200, 262_144


async def inflated(chunks: AsyncIterable[bytes], limit: int) -> AsyncGenerator[bytes]:
    """What gzip made smaller, at most 64 KiB at once.

    Raises:
        Malformed: not gzip, not all of it, or damaged.
        TooLarge: more than `limit` bytes, or grown out of all proportion.
    """
    file = _File()
    went = 0
    async for chunk in chunks:
        for start in range(0, len(chunk), PIECE):
            await asyncio.sleep(0)
            for data in file.inflate(chunk[start : start + PIECE]):
                went += len(data)
                if went > limit:
                    raise TooLarge(f"the file is larger than {limit} bytes without its gzip")
                if went > RATIO_FROM and went > file.came * RATIO:
                    raise TooLarge(
                        f"the file grows to more than {RATIO} times its size: send it without gzip"
                    )
                yield data
    file.end()


class _File:
    """Several gzip files behind each other are one; zeros behind the last are passed over."""

    def __init__(self) -> None:
        self.came = 0  # bytes
        self._stream = _gzip()
        self._within = False  # a file that has begun
        self._files = 0  # that have ended

    def inflate(self, data: bytes) -> Iterator[bytes]:
        self.came += len(data)
        while data:
            if not self._within:
                data = data.lstrip(b"\0") if self._files else data
                if data[:1] not in {b"", b"\x1f"}:
                    raise self._not_gzip()
                self._within = bool(data)
            try:
                found = self._stream.decompress(data, CHUNK)
            except zlib.error as error:
                raise self._wrong(str(error)) from None
            if found:
                yield found
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data = self._stream.unused_data
                self._stream, self._within = _gzip(), False
                self._files += 1

    def end(self) -> None:
        if self._within or not self._files:
            raise Malformed("the gzip ended early: send all of it")

    def _wrong(self, error: str) -> Malformed:
        if "incorrect data check" in error or "incorrect length check" in error:
            return Malformed("the gzip is damaged: its checksum is wrong")
        if "header" in error or "compression method" in error:
            return self._not_gzip()
        return Malformed("the gzip is damaged: send it again")

    def _not_gzip(self) -> Malformed:
        if self._files:
            return Malformed("there are bytes behind the gzip that are not gzip")
        return Malformed("the file is not gzip")


def decoded(
    chunks: AsyncIterable[bytes], encoding: bytes | None, limit: int
) -> AsyncIterable[bytes]:
    """The chunks without their Content-Encoding.

    Raises:
        Unsupported: it is another than gzip.
    """
    match (encoding or b"identity").strip().lower():
        case b"identity":
            return chunks
        case b"gzip" | b"x-gzip":
            return inflated(chunks, limit)
    raise Unsupported(
        "send the body as it is, or as gzip", headers=((b"accept-encoding", b"gzip, identity"),)
    )


def _gzip() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=31)
