"""Content-Encoding: what a client takes, and bodies in it (RFC 9110, 8.4 and 12.5.3)."""

import asyncio
import re
import sys
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache

from service.web.codec import Header, Reply

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What is shorter is one packet anyway, and is never looked at here.
LEAST = 1000
# What is longer is compressed in a thread: prose of this length takes gzip half a millisecond and
# a megabyte of it 16, in which the loop serves others; there and back costs 30 us (by hand).
AT_ONCE = 32_768
# The levels beyond which bytes get dearer: figures by `python -m bench trials compress`.
GZIP_LEVEL, ZSTD_LEVEL = 4, 3

GZIP, ZSTD = b"gzip", b"zstd"
PREFERRED = (ZSTD, GZIP)
VARY: Header = (b"vary", b"accept-encoding")
_GZIP_FORMAT = 31  # zlib's number for gzip's header; its time is 0, so equal bodies stay equal
_LONGEST = 200  # of a header; browsers send 25

_CODING = re.compile(
    rb"([!#$%&'*+.^_`|~0-9a-z-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
_TEXT = re.compile(rb"text/|application/(?:json|x-ndjson|javascript|xml)\b|[^;]+\+(?:json|xml)\b")

# A new one each costs 9 us of a page's 15. For the loop alone: each call is a frame.
_zstd = zstd.ZstdCompressor(ZSTD_LEVEL)


class Packer:
    """Compresses a body that comes in pieces: `pack` each, then `end`. It gives what is due."""

    pack: Callable[[bytes], bytes]
    end: Callable[[], bytes]

    def __init__(self, encoding: bytes) -> None:
        if encoding == ZSTD:
            packer = zstd.ZstdCompressor(ZSTD_LEVEL)
            self.pack, self.end = packer.compress, packer.flush
        else:
            stream = zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_FORMAT)
            self.pack, self.end = stream.compress, stream.flush


def packed(encoding: bytes, body: bytes) -> bytes:
    """The body in this encoding."""
    if encoding != ZSTD:
        return zlib.compress(body, GZIP_LEVEL, wbits=_GZIP_FORMAT)
    if len(body) > AT_ONCE:  # in a thread, which nobody shall wait for
        return zstd.compress(body, ZSTD_LEVEL)
    return _zstd.compress(body, _zstd.FLUSH_FRAME)


def negotiate(headers: Iterable[Header]) -> bytes | None:
    """The encoding that a request's Accept-Encoding asks for; None for the body as it is.

    That is what everyone gets who takes nothing we have: it is worth more than a 406.
    """
    accepted = b",".join([value for name, value in headers if name == b"accept-encoding"])
    return _negotiate(accepted) if len(accepted) <= _LONGEST else None


@lru_cache(maxsize=64)
def _negotiate(accepted: bytes) -> bytes | None:
    weights: dict[bytes, float] = {}
    for part in accepted.lower().split(b","):
        if found := _CODING.fullmatch(part.strip(b" \t")):
            name = GZIP if found[1] == b"x-gzip" else found[1]
            weights[name] = float(found[2] or 1)
    others = weights.get(b"*", 0.0)
    weight, _, encoding = max(
        (weights.get(one, others), -place, one) for place, one in enumerate(PREFERRED)
    )
    return encoding if weight > 0 and weight >= weights.get(b"identity", 0.0) else None


def is_compressible(content_type: bytes, headers: tuple[Header, ...]) -> bool:
    """Whether a body of LEAST bytes and more is text, and in no encoding yet."""
    return bool(_TEXT.match(content_type)) and not any(
        name == b"content-encoding" for name, _ in headers
    )


def add_vary(headers: tuple[Header, ...], encoding: bytes | None) -> tuple[Header, ...]:
    """The headers of what is worth it: with Vary, and in an encoding with a weak ETag.

    The tag names the same row, but other bytes.
    """
    if encoding is not None:
        headers = tuple(
            (name, b"W/" + value if name == b"etag" and value[:2] != b"W/" else value)
            for name, value in headers
        )
    return (*headers, VARY)


async def encode_response(
    reply: Reply, asked: Iterable[Header]
) -> tuple[bytes, tuple[Header, ...]]:
    """A reply of LEAST bytes and more as who asked with these headers takes it: body, headers.

    Chunks are told how to be packed.
    """
    body, headers = reply.body, reply.headers
    if not is_compressible(reply.content_type, headers):
        return body, headers
    encoding = negotiate(asked)
    headers = add_vary(headers, encoding)
    if encoding is None or reply.status == 304:
        return body, headers
    coded = (*headers, (b"content-encoding", encoding))
    if reply.chunks is not None:
        reply.chunks.packer = Packer(encoding)
        return body, coded
    found = reply.encoded.get(encoding) if reply.encoded else None
    if found is None:
        if len(body) > AT_ONCE:
            found = await asyncio.to_thread(packed, encoding, body)
        else:
            found = packed(encoding, body)
        if reply.keep is not None:
            reply.keep(encoding, found)
    return found, coded
