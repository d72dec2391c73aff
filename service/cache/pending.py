"""What waits for the next commands to Redis, see shared.py."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from service.cache.client import SECONDS
from service.cache.generations import Tags
from service.logs import logger


class Lookup:
    """A response that is looked up under `keys[0]`; the other keys are its generations."""

    __slots__ = ("began", "future", "key", "keys")

    def __init__(self, key: bytes, keys: list[str]) -> None:
        loop = asyncio.get_running_loop()
        self.key = key
        self.keys = keys
        self.began = loop.time()
        self.future: asyncio.Future[tuple[bytes | None, bytes | None]] = loop.create_future()

    def answer(self, found: bytes | None, prefix: bytes | None) -> None:
        """What was found; or else what to store the response with, None if it can't be stored."""
        if not self.future.done():
            self.future.set_result((found, prefix))

    def answer_from(self, values: list[bytes]) -> None:
        """As `answer`, from the values of all keys.

        A stored value begins with its generations and its key, so no response is taken for that of
        another key.
        """
        prefix = b"".join(values[1:]) + b"%d:" % len(self.key) + self.key
        value = values[0]
        if value and value.startswith(prefix):
            self.answer(value[len(prefix) :], None)
        else:
            self.answer(None, prefix)


class Invalidation:
    """The tags that are invalidated in one turn of the event loop.

    Args:
        publish: whether the other workers are sent the tags too.
    """

    __slots__ = ("began", "publish", "tags", "waiting")

    def __init__(self, *, publish: bool) -> None:
        self.began = asyncio.get_running_loop().time()
        self.publish = publish
        self.tags: dict[int, None] = {}
        self.waiting: list[Callable[[], None]] = []

    def end(self) -> None:
        """Call the waiting callbacks, each once."""
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            try:
                done()
            except Exception:  # noqa: BLE001 - the others wait too
                logger.exception("a write failed after its invalidation")


class Fallback:
    """Publishes invalidations when Redis can't, with one call at a time.

    Args:
        publish: publishes tags to the other workers.
        spawn: runs a coroutine in the background.
    """

    def __init__(
        self,
        publish: Callable[[Tags], Awaitable[None]],
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        self._publish = publish
        self._spawn = spawn
        self._waiting: list[Invalidation] = []
        self._running = False

    def add(self, invalidation: Invalidation) -> None:
        """Publish it. Its callbacks are called 50 ms after its begin at the latest."""
        self._waiting.append(invalidation)
        asyncio.get_running_loop().call_at(invalidation.began + SECONDS, invalidation.end)
        if not self._running:
            self._running = True
            self._spawn(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                those, self._waiting = self._waiting, []
                await self._publish(tuple({tag for one in those for tag in one.tags}))
                for one in those:
                    one.end()
        finally:
            self._running = False


class Store(NamedTuple):
    """A response to store, for so many milliseconds."""

    place: str
    value: bytes
    milliseconds: int


class Lease(NamedTuple):
    """The right to store a response that is read from now on."""

    place: str
    prefix: bytes


def answer_all(lookups: list[Lookup], results: list[Any]) -> list[Lookup]:
    """Answer lookups from their results, and return those without all generations."""
    without = []
    for lookup, result in zip(lookups, results, strict=True):
        if None in result[1:]:
            without.append(lookup)
        else:
            lookup.answer_from(result)
    return without


def give_up(lookups: list[Lookup]) -> None:
    """Answer those that are not answered: nothing is found, and nothing can be stored."""
    for lookup in lookups:
        lookup.answer(None, None)
