"""The cache: the in-process tier, the shared one, and whoever else reads the same meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

import msgspec

from service.cache.client import TROUBLE, client
from service.cache.coherence import Coherence
from service.cache.entry import CachedResponse, Entry
from service.cache.generations import EVERYTHING, Generations, Tags
from service.cache.local import USES, Local
from service.cache.shared import Shared
from service.cache.writers import Writers

Value = TypeVar("Value")

# What is not there, is not there for so long.
MISSING_SECONDS = 5.0

# Between two looks whether a write whose answer was lost has ended.
UNSURE_SECONDS = 0.5
# For the lines to stand at the start; without them nothing is kept here, and that is all.
OPENING_SECONDS = 0.5
# A task that does not end is cancelled again after this. redis-py sends within asyncio.wait_for,
# which in Python 3.11 loses a cancellation that arrives as the sending ends.
CANCEL_AGAIN_SECONDS = 0.1

_encode = msgspec.msgpack.Encoder().encode


class InFlightLoad:
    """A reading under way, which others may wait for as long as nothing it depends on moves."""

    __slots__ = ("future", "stamp")

    def __init__(self, stamp: int) -> None:
        self.stamp = stamp
        self.future: asyncio.Future[CachedResponse | None] = (
            asyncio.get_running_loop().create_future()
        )


class Cache:
    """Finished answers and values, in this process and in Redis.

    Args:
        url: the database, which tells of what others write.
        redis_url: None for this process alone.
        limit: bytes in this process; 0 for none.
        ttl: seconds that anything is kept.
        fingerprint: of the code that makes the answers.
        own: gives PostgreSQL's processes that write for this worker; None where no other writes.
    """

    on = True  # see off.NoCache

    def __init__(
        self,
        url: str,
        redis_url: str | None,
        *,
        limit: int,
        ttl: float,
        fingerprint: str,
        own: Callable[[], set[int]] | None = None,
    ) -> None:
        self.ttl = ttl
        self.generations = Generations()
        self.local = Local(limit)
        self.coherence = Coherence(url, self.generations, self.local.clear, Writers(own))
        self.in_flight: dict[Hashable, InFlightLoad] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._doubt = False
        self._doubting: asyncio.Task[None] | None = None
        self.shared: Shared | None = None
        if redis_url is not None:
            self.shared = self.coherence.shared = Shared(
                client(redis_url),
                ttl=ttl,
                fingerprint=fingerprint,
                spawn=self.spawn,
                pending=self.coherence.publish,
            )

    async def open(self) -> None:
        """Begin to hear what others write; what is away is waited for in the background."""
        for line in self.coherence.lines():
            self.spawn(line)
        with suppress(TimeoutError):
            async with asyncio.timeout(OPENING_SECONDS):
                await self.coherence.stands.wait()

    async def close(self) -> None:
        """Let all begin anew, since something may still be unsaid; then close the lines."""
        if self.shared is not None and self.shared.up:
            with suppress(*TROUBLE):
                await self.shared.begin()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            ended = asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.wait([ended], timeout=CANCEL_AGAIN_SECONDS)
        if self.shared is not None:
            await self.shared.close()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run it in the background, until we close."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def entry(self, key: Hashable, *, renews: bool = True) -> Entry | None:
        """What stands in this process and holds; None also for whose turn it is to renew it.

        `renews` tells whether the caller would do so: else the turn is left to somebody else.
        """
        entry = self.local.entries.get(key)
        if entry is None:
            return None
        now = monotonic()
        if now > entry.renew or now > self.coherence.valid_until:
            if now > entry.until or now > self.coherence.valid_until:
                return None
            if renews:  # one reads it anew before it ends; the others go on with it
                entry.renew = entry.until
            return None
        if self.generations.stamp(entry.tags) != entry.stamp:
            return None
        if entry.uses < USES:
            entry.uses += 1
        return entry

    async def get_or_load(
        self,
        key: Hashable,
        name: str,
        tags: Tags,
        load: Callable[[], Awaitable[CachedResponse]],
        seconds: float | None = None,
        *,
        share: bool = True,
    ) -> tuple[CachedResponse, bool]:
        """What is kept, or else what is read now; and whether it was there.

        Who asks for the same meanwhile gets the same, unless a write came in between.

        Args:
            key: in this process.
            name: in Redis.
            tags: what it depends on.
            load: reads it; what it raises is raised, and kept for nobody.
            seconds: that it is kept, at most `ttl`.
            share: whether it is worth a question to Redis.
        """
        stamp = self.generations.stamp(tags)
        valid_until = monotonic() < self.coherence.valid_until
        load_in_flight = self.in_flight.get(key)
        if valid_until and load_in_flight is not None and load_in_flight.stamp == stamp:
            answer = await asyncio.shield(load_in_flight.future)
            if answer is not None:
                return answer, True
        load_in_flight = self.in_flight[key] = InFlightLoad(stamp)
        answer = lease = None
        try:
            if share and self.shared is not None and self.shared.takes(tags):
                answer, lease = await self.shared.look(name, tags)
            found = answer is not None
            if answer is None:
                answer = await load()
        except Exception as error:  # whoever waits for it is told the same, and tries no more
            load_in_flight.future.set_exception(error)
            load_in_flight.future.exception()
            raise
        finally:
            if (
                not load_in_flight.future.done()
            ):  # None for who was cancelled: the others go by themselves
                load_in_flight.future.set_result(answer)
            if self.in_flight.get(key) is load_in_flight:
                del self.in_flight[key]
        seconds = self.ttl if seconds is None else min(seconds, self.ttl)
        if answer.missing is not None:
            seconds = min(seconds, MISSING_SECONDS)
        if found:  # nobody knows for how long it was there
            seconds /= 10
        if valid_until and self.generations.stamp(tags) == stamp:
            self.local.put(key, Entry(answer, tags, stamp, seconds, 3 * len(name)))
        if lease is not None and self.shared is not None:
            self.shared.keep(lease, answer, seconds)
        return answer, found

    async def cached(
        self,
        key: str,
        ttl: float,
        load: Callable[[], Awaitable[Value]],
        kind: type[Value] | Any,
        tags: Tags = (),
    ) -> Value:
        """Any value: the kept one, or what `load` gives.

        Args:
            key: as it is, so it must name all that the value depends on, the caller included.
            ttl: seconds that it is kept.
            load: reads or makes it; one call for all who ask meanwhile.
            kind: the type that msgspec makes of what was kept; None is a value like others.
            tags: what moves it, see generations.TableTags; without any only time ends it. What
                depends on single rows is kept in this process alone.
        """

        async def answer() -> CachedResponse:
            return CachedResponse(_encode(await load()), ())

        place = ("cached", key)
        entry = self.entry(place)
        if entry is not None:
            kept = entry.answer
        else:
            kept, _ = await self.get_or_load(place, f"cached:{key}", tags, answer, ttl)
        value: Value = msgspec.msgpack.decode(kept.body, type=kind)
        return value

    async def invalidate(self, tags: Tags) -> None:
        """A write was committed: call it before that is answered.

        From here on this process shows nothing older; the other workers once they have heard of
        it, which is on its way when this returns.
        """
        self.generations.move(tags)
        shared = self.shared
        if shared is not None:
            await shared.invalidate(tags)

    def outcome_unknown(self) -> None:
        """A write may have happened, or may yet happen: nothing holds until it has ended.

        PostgreSQL goes on with it when its client is gone, and a commit may wait for a disk or a
        standby for any time.
        """
        self.generations.move((EVERYTHING,))
        self._doubt = True
        if self._doubting is None or self._doubting.done():
            self._doubting = self.spawn(self._move_until_ended())

    async def _move_until_ended(self) -> None:
        """One for all who are unsure; who comes to be so meanwhile is waited for too."""
        while self._doubt:
            self._doubt = False
            since, ended = None, False
            while not ended:
                await self.invalidate((EVERYTHING,))
                since = since or await self.coherence.clock()
                ended = since is not None and await self.coherence.ended(since)
                await asyncio.sleep(UNSURE_SECONDS)
            await self.invalidate((EVERYTHING,))
