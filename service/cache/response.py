"""A response as the cache keeps it."""

from collections.abc import Hashable

import msgspec
from msgspec import Struct

from service.cache.generations import Tags

Header = tuple[bytes, bytes]

# Bytes that a kept response takes beside its own: its object, its key, its places in the tables.
# With this figure a million responses fit into the memory that is allowed
# (tests/test_cache.py::test_many_responses_take_no_more_memory_than_allowed).
OVERHEAD = 700


class CachedResponse(Struct, gc=False, eq=False):
    """A finished response, and while it is kept, what the in-process tier knows about it.

    Args:
        body: as the handler made it, without a content coding.
        headers: those that do not depend on the request.
        version: of the row, for its ETag; None for a response without one.
        missing: the detail of a 404, which has no body; else None.
        key: under which it is kept.
        tags: what it depends on; one tag for a row.
        generation: the newest one when it was read.
        refresh_at: from when on one request loads it again, by time.monotonic().
        expires_at: from when on it is not used, by time.monotonic().
        size: bytes that it counts for.
        used: whether it was asked for since the eviction last looked.
        main: whether it is in the main queue, see local.py.
        sent: whether it was a hit of direct_get.DirectGet.
        encoded: its body in other content codings, by their names.
    """

    body: bytes
    headers: tuple[Header, ...] = ()
    version: int | None = None
    missing: str | None = None
    key: Hashable = None
    tags: Tags | int = ()
    generation: int = 0
    refresh_at: float = 0.0
    expires_at: float = 0.0
    size: int = 0
    used: bool = False
    main: bool = False
    sent: bool = False
    encoded: dict[bytes, bytes] | None = None

    @property
    def cost(self) -> int:
        """Bytes beside the body."""
        size = OVERHEAD
        for name, value in self.headers:  # a generator takes three times as long
            size += len(name) + len(value)
        return size


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[bytes, tuple[Header, ...], int | None, str | None]).decode


def encode(response: CachedResponse) -> bytes:
    """The response as it is kept in Redis."""
    return _pack((response.body, response.headers, response.version, response.missing))


def decode(value: bytes) -> CachedResponse:
    """The response that `encode` made this of."""
    return CachedResponse(*_unpack(value))
