"""Responses that are being made: where they are kept, and what waits for them."""

import asyncio
from collections.abc import Hashable
from time import monotonic
from typing import TYPE_CHECKING

from service.cache.generations import Tags
from service.cache.response import CachedResponse

if TYPE_CHECKING:
    from service.cache.store import Cache


class InFlightLoad:
    """A load that is running; other requests wait for it while its generation is current."""

    __slots__ = ("future", "generation")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.future: asyncio.Future[CachedResponse | None] = (
            asyncio.get_running_loop().create_future()
        )


class Pending:
    """A response that is being made: where it is kept, if no write comes in between.

    Make it before you begin to read what the response depends on.
    """

    __slots__ = ("cache", "generation", "key", "tags", "valid")

    def __init__(self, cache: "Cache", key: Hashable, tags: Tags) -> None:
        self.cache = cache
        self.key = key
        self.tags = tags
        self.generation = cache.generations.current(tags)
        self.valid = monotonic() < cache.coherence.valid_until

    def keep(self, response: CachedResponse, key_size: int, seconds: float | None = None) -> None:
        """Keep the response in this process.

        Args:
            response: what was made.
            key_size: bytes of the key.
            seconds: how long; by default, and at most, the `ttl` of the cache.
        """
        cache = self.cache
        seconds = cache.ttl if seconds is None else seconds
        if self.valid and cache.generations.current(self.tags) == self.generation:
            response.tags, response.generation = self.tags, self.generation
            response.expires_at = monotonic() + seconds
            response.refresh_at = response.expires_at - seconds / 10
            cache.local.put(self.key, response, key_size)
