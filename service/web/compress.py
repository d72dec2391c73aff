"""Content-Encoding: which one a client accepts, and compression (RFC 9110, 8.4 and 12.5.3)."""

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

# Shorter bodies are not compressed: they fit into one packet.
LEAST = 1000
# Longer bodies are compressed in a thread, so that the event loop can serve others: gzip takes half
# a millisecond for prose of this length, 16 ms for a megabyte. The thread costs 30 us.
AT_ONCE = 32_768
# Higher levels cost more CPU per byte saved: `python -m bench trials compress`.
GZIP_LEVEL, ZSTD_LEVEL = 4, 3

EVENTS = b"text/event-stream"
GZIP, ZSTD = b"gzip", b"zstd"
PREFERRED = (ZSTD, GZIP)
VARY: Header = (b"vary", b"accept-encoding")
_GZIP_FORMAT = 31  # zlib's number for a gzip header; its time is 0, so equal bodies stay equal
_LONGEST = 200  # of a header; browsers send 25

_CODING = re.compile(
    rb"([!#$%&'*+.^_`|~0-9a-z-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
_TEXT = re.compile(rb"text/|application/(?:json|x-ndjson|javascript|xml)\b|[^;]+\+(?:json|xml)\b")

# A new compressor each time costs 9 us of a page's 15. Only the event loop's thread may use it.
_zstd = zstd.ZstdCompressor(ZSTD_LEVEL)


class Packer:
    """Compresses a body in pieces: `pack` each, then `end`. Both return bytes to send."""

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
    if len(body) > AT_ONCE:  # in a thread, where `_zstd` may not be used
        return zstd.compress(body, ZSTD_LEVEL)
    return _zstd.compress(body, _zstd.FLUSH_FRAME)


def negotiate(headers: Iterable[Header]) -> bytes | None:
    """The encoding that a request's Accept-Encoding prefers; None for no encoding.

    A client that accepts none of ours gets the body without encoding too, instead of a 406.
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
    """Whether a body of LEAST bytes and more is text that is not encoded yet.

    An event is sent at once, so it is not: a compressor would wait for more.
    """
    if content_type.startswith(EVENTS):
        return False
    return bool(_TEXT.match(content_type)) and not any(
        name == b"content-encoding" for name, _ in headers
    )


def add_vary(headers: tuple[Header, ...], encoding: bytes | None) -> tuple[Header, ...]:
    """The headers of a compressible body: with Vary, and in an encoding with a weak ETag.

    The tag is of the same row, but the bytes differ.
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
    """The body and headers of a reply for a client, from its request headers `asked`.

    Only for a body of LEAST bytes and more, or for chunks: these get a Packer.
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
