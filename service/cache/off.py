"""No cache: what a request finds where the cache is off, or may not be used."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from service.cache.epochs import Slots

Value = TypeVar("Value")


class NoCache:
    """Keeps nothing. It has those methods of tiers.Cache that a handler calls."""

    on = False

    async def cached(
        self,
        key: str,  # noqa: ARG002 - the signature of Cache.cached
        ttl: float,  # noqa: ARG002
        load: Callable[[], Awaitable[Value]],
        kind: type[Value] | Any,
        slots: Slots = (),  # noqa: ARG002
    ) -> Value:
        """What `load` gives now, of the same types as a kept value; see Cache.cached."""
        value: Value = msgspec.msgpack.decode(msgspec.msgpack.encode(await load()), type=kind)
        return value

    async def moved(self, slots: Slots) -> None:
        """Nothing was kept, so nothing is outdated."""

    def unsure(self) -> None:
        """As `moved`."""
