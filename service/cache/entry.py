"""What is cached: a finished answer, or that there is nothing."""

from time import monotonic

import msgspec
from msgspec import Struct

from service.cache.generations import Tags

Header = tuple[bytes, bytes]

# What an entry takes beside its bytes: the objects, their places in the tables. With it a million
# answers take 64 MiB of memory where 64 MiB are allowed (tests/test_cache.py holds it to that).
OVERHEAD = 950


class CachedResponse(Struct, frozen=True, gc=False):
    """A finished answer, as it goes into Redis.

    Args:
        body: as it is sent.
        headers: those that do not depend on the request.
        version: of the row, None for what has no ETag.
        missing: what a 404 says instead; else None.
    """

    body: bytes
    headers: tuple[Header, ...]
    version: int | None = None
    missing: str | None = None

    @property
    def size(self) -> int:
        """Bytes it takes in this process, roughly; the headers twice, see Entry.lines."""
        return len(self.body) + 2 * sum(len(a) + len(b) for a, b in self.headers) + OVERHEAD


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(CachedResponse).decode


class EncodedBody:
    """An answer's body in an encoding; `lines` as those of an entry."""

    __slots__ = ("body", "lines")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.lines: bytes | None = None


class Entry:
    """An answer in the in-process tier, and what it depends on.

    `until` is when it ends, by time.monotonic(); `renew` from when on somebody may read it anew
    before it does; `uses` and `main` are for the eviction; `lines` are the headers as they are
    sent, once they have been; `variants` the compressed bodies by encoding, where there are some.
    """

    __slots__ = (
        *("answer", "lines", "main", "renew", "size", "tags", "stamp", "until", "uses"),
        "variants",
    )

    def __init__(
        self, answer: CachedResponse, tags: Tags, stamp: int, seconds: float, key_size: int = 0
    ) -> None:
        self.answer = answer
        self.lines: bytes | None = None
        self.variants: dict[bytes, EncodedBody] | None = None
        self.tags = tags
        self.stamp = stamp
        self.until = monotonic() + seconds
        self.renew = self.until - seconds / 10
        self.size = answer.size + key_size
        self.uses = 0
        self.main = False
