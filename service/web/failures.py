"""Failed authentications of each client address: after too many, no key is looked up for it."""

import asyncio
from itertools import islice
from math import ceil
from time import perf_counter

from service.errors import TooMany
from service.logs import logger

# Different keys that an address may get wrong within SECONDS. The same key again is no further try
# to guess one: a client that repeats a revoked key must not lock out others with its address.
FAILURES, SECONDS = 20, 60.0
# Addresses to remember; with more, those that failed longest ago are forgotten.
ADDRESSES = 10_000


class _Address:
    """The wrong keys, the number of look-ups that run, and the event of their end."""

    __slots__ = ("ended", "keys", "running")

    def __init__(self) -> None:
        self.keys: dict[int, float] = {}  # the time of its failure, by hash; the first one first
        self.running = 0
        self.ended: asyncio.Event | None = None


class Failures:
    """Counts failed authentications in this process.

    A look-up counts from its start. So an address can't have more keys looked up by sending them at
    the same time: these requests wait for the look-ups that run.
    """

    def __init__(self) -> None:
        self._of: dict[str, _Address] = {}

    def begin(self, address: str, key: int) -> bool:
        """Begin a look-up and return True; False if the request must `wait` first.

        Each look-up that began must `end`.

        Args:
            address: of the client.
            key: the hash of the key.

        Raises:
            TooMany: too many other keys from this address were wrong.
        """
        one = self._of.get(address) or self._add(address)
        now = perf_counter()
        for first, failed in [*one.keys.items()]:
            if failed > now - SECONDS:
                break
            del one.keys[first]
        if key not in one.keys:
            if len(one.keys) >= FAILURES:
                raise TooMany(
                    "too many API keys from this address were not valid: try again later",
                    retry_after=ceil(next(iter(one.keys.values())) + SECONDS - now),
                )
            if len(one.keys) + one.running >= FAILURES:
                return False
        one.running += 1
        return True

    async def wait(self, address: str) -> None:
        """Wait until a look-up of this address ends."""
        one = self._of.get(address)
        if one is not None and one.running:
            if one.ended is None:
                one.ended = asyncio.Event()
            await one.ended.wait()

    def end(self, address: str, key: int, *, failed: bool) -> None:
        """End a look-up that `begin` began."""
        one = self._of[address]
        one.running -= 1
        if failed and key not in one.keys:
            one.keys[key] = perf_counter()
            if len(one.keys) == FAILURES:
                fields = {"address": address, "keys": FAILURES, "seconds": SECONDS}
                logger.warning("too many wrong API keys from one address", extra={"fields": fields})
            self._of[address] = self._of.pop(address)  # so the first failed longest ago
        elif not one.keys and not one.running:
            del self._of[address]
        if one.ended is not None:
            one.ended.set()
            one.ended = None

    def _add(self, address: str) -> _Address:
        # Two at each new address, so it takes no long pause.
        full = len(self._of) >= ADDRESSES
        for name, one in [*islice(self._of.items(), 2)]:
            last = next(reversed(one.keys.values()), 0.0)
            over = last <= perf_counter() - SECONDS
            if not one.running and (full or over):
                del self._of[name]
        one = self._of[address] = _Address()
        return one
