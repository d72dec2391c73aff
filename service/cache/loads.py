"""Loads that requests wait for, and when their responses expire."""

import asyncio
from time import monotonic

from service.cache.response import CachedResponse


class InFlightLoad:
    """A load that is running; other requests wait for it while its generation is current."""

    __slots__ = ("future", "generation")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.future: asyncio.Future[CachedResponse | None] = (
            asyncio.get_running_loop().create_future()
        )


class Expiry:
    """When responses expire that are kept from now on.

    Those that are kept shortly one after another share the times, since each number of its own
    takes memory. They expire early by a hundredth at most.
    """

    def __init__(self) -> None:
        self._until = self._seconds = 0.0
        self._times = (0.0, 0.0)

    def times(self, seconds: float) -> tuple[float, float]:
        """From when on one request loads it again, and from when on it is not used.

        Args:
            seconds: that the response is kept.
        """
        now = monotonic()
        if now >= self._until or seconds != self._seconds:
            self._until, self._seconds = now + seconds / 100, seconds
            self._times = (now + seconds * 0.9, now + seconds)
        return self._times
