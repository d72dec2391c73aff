"""Bytes of a body as they come: gzip undone, and never more of them than allowed."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterable

from service.errors import Malformed, TooLarge, Unsupported

# Handed on at once, however many come out of a few.
CHUNK = 65_536
# What compresses better than this, beyond the first bytes, is made to fill the place.
RATIO, RATIO_FROM = 200, 16 * 1_048_576


async def inflated(chunks: AsyncIterable[bytes], limit: int) -> AsyncGenerator[bytes]:
    """What gzip made smaller, at most 64 KiB at once; several files behind each other are one.

    Raises:
        Malformed: not gzip, or not all of it.
        TooLarge: more than `limit` bytes, or grown out of all proportion.
    """
    stream = _gzip()
    begun = False
    came = went = 0
    async for chunk in chunks:
        came += len(chunk)
        rest = chunk
        while rest:
            begun = True
            try:
                data = stream.decompress(rest, CHUNK)
            except zlib.error:
                raise Malformed("the file is not gzip") from None
            went += len(data)
            if went > limit:
                raise TooLarge(f"the file is larger than {limit} bytes without its gzip")
            if went > RATIO_FROM and went > came * RATIO:
                raise TooLarge(
                    f"the file grows to more than {RATIO} times its size: send it without gzip"
                )
            if data:
                yield data
            rest = stream.unconsumed_tail
            if stream.eof:
                rest, stream, begun = stream.unused_data, _gzip(), False
    if begun or not came:
        raise Malformed("the gzip ended early: send all of it")


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
