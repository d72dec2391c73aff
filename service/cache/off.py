"""No cache: what a request finds where the cache is off, or may not be used."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from service.cache.generations import Tags

Value = TypeVar("Value")


class NoCache:
    """Keeps nothing. It has those methods of store.Cache that a handler calls."""

    on = False

    async def cached(
        self,
        key: str,  # noqa: ARG002 - the signature of Cache.cached
        ttl: float,  # noqa: ARG002
        load: Callable[[], Awaitable[Value]],
        kind: type[Value] | Any,
        tags: Tags = (),  # noqa: ARG002
    ) -> Value:
        """What `load` gives now, of the same types as a kept value; see Cache.cached."""
        value: Value = msgspec.msgpack.decode(msgspec.msgpack.encode(await load()), type=kind)
        return value

    async def invalidate(self, tags: Tags) -> None:
        """Nothing was kept, so nothing is outdated."""

    def outcome_unknown(self) -> None:
        """As `moved`."""
