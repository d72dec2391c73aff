"""What waits for the next pipeline to Redis, see shared.py."""

import asyncio
from typing import Any, NamedTuple

from service.cache.client import SECONDS


class Lookup:
    """A response that is looked up under `keys[0]`; the other keys are its generations."""

    __slots__ = ("future", "key", "keys")

    def __init__(self, key: bytes, keys: list[str]) -> None:
        self.key = key
        self.keys = keys
        self.future: asyncio.Future[tuple[bytes | None, bytes | None]] = (
            asyncio.get_running_loop().create_future()
        )

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
    """The tags that are invalidated in one turn of the event loop."""

    __slots__ = ("future", "publish", "tags", "timer")

    def __init__(self, *, publish: bool) -> None:
        loop = asyncio.get_running_loop()
        self.tags: dict[int, None] = {}
        self.publish = publish
        self.future: asyncio.Future[None] = loop.create_future()
        self.timer = loop.call_later(SECONDS, self.done)

    def done(self) -> None:
        self.timer.cancel()
        if not self.future.done():
            self.future.set_result(None)


class Lease(NamedTuple):
    """The right to store a response that is read from now on."""

    place: str
    prefix: bytes


def answer_all(lookups: list[Lookup], results: list[Any]) -> list[Lookup]:
    """Answer lookups from their results, and return those without all generations."""
    without = []
    for lookup, result in zip(lookups, results, strict=True):
        if isinstance(result, BaseException):
            raise result
        if None in result[1:]:
            without.append(lookup)
        else:
            lookup.answer_from(result)
    return without
