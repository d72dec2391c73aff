"""No cache: what requests get when caching is off, or is not possible."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from service.cache.generations import Tags

Value = TypeVar("Value")


class NoCache:
    """Keeps nothing. It has the methods of store.Cache that handlers and writer.Writer call."""

    on = False

    async def cached(
        self,
        key: str,  # noqa: ARG002 - the signature of Cache.cached
        ttl: float,  # noqa: ARG002
        load: Callable[[], Awaitable[Value]],
        kind: type[Value] | Any,
        tags: Tags = (),  # noqa: ARG002
    ) -> Value:
        """What `load` returns, converted as a cached value would be; see Cache.cached."""
        value: Value = msgspec.msgpack.decode(msgspec.msgpack.encode(await load()), type=kind)
        return value

    async def invalidate(self, tags: Tags) -> None:
        """Nothing is kept, so there is nothing to invalidate."""

    def invalidate_then(self, tags: Tags, then: Callable[[], None]) -> None:  # noqa: ARG002
        """Call `then`."""
        then()

    def outcome_unknown(self) -> None:
        """As `invalidate`."""
