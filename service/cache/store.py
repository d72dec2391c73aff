"""The cache of a worker: the in-process tier, the one in Redis, and loads that requests share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextlib import suppress
from contextvars import Context
from time import monotonic, perf_counter
from typing import Any, TypeVar

import msgspec

from service.cache.client import client, redis_errors
from service.cache.coherence import Coherence
from service.cache.generations import EVERYTHING, Generations, Tags
from service.cache.loads import Expiry, InFlightLoad
from service.cache.local import Local
from service.cache.response import CachedResponse
from service.cache.shared import Shared
from service.cache.silent_writers import SilentWriters
from service.timing import timing

Value = TypeVar("Value")

# How long a 404 is kept.
MISSING_SECONDS = 5.0
# The generation of a response that is not kept: every tag has a higher one.
UNKEPT = -1
# Between two checks whether a write whose outcome is unknown has ended.
UNKNOWN_SECONDS = 0.5
# How long the start waits for the connections; without them nothing is kept in this process.
OPENING_SECONDS = 0.5
# A task that does not end is cancelled again after this. redis-py sends within asyncio.wait_for,
# which in Python 3.11 loses a cancellation that arrives as the sending ends.
CANCEL_AGAIN_SECONDS = 0.1

_encode = msgspec.msgpack.Encoder().encode


class Cache:
    """Finished responses and values, in this process and in Redis.

    Args:
        url: the database, which announces what other programs write.
        redis_url: None to cache in this process alone.
        limit: bytes in this process; 0 for none.
        ttl: seconds that anything is kept at most.
        fingerprint: of the code that makes the responses.
        declared: of the tables and filters, see shared.py.
        own: gives the PostgreSQL processes that write for this worker; None not to look for other
            writers, see silent_writers.py.
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
        declared: str = "",
        own: Callable[[], set[int]] | None = None,
    ) -> None:
        self.ttl = ttl
        self.generations = Generations()
        self.local = Local(limit)
        self.expiry = Expiry()
        self.coherence = Coherence(url, self.generations, self.local.clear, SilentWriters(own))
        self.in_flight: dict[Hashable, InFlightLoad] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unknown = False
        self._waiting_for_unknown: asyncio.Task[None] | None = None
        self.shared: Shared | None = None
        if redis_url is not None:
            self.shared = self.coherence.shared = Shared(
                client(redis_url),
                ttl=ttl,
                fingerprint=fingerprint,
                declared=declared,
                spawn=self.spawn,
                publish_otherwise=self.coherence.publish,
            )

    async def open(self) -> None:
        """Begin to listen for writes; a server that is away is waited for in the background."""
        for connection in self.coherence.connections():
            self.spawn(connection)
        with suppress(TimeoutError):
            async with asyncio.timeout(OPENING_SECONDS):
                await self.coherence.connected.wait()

    async def close(self) -> None:
        """Invalidate everything in Redis, since a message may not be sent yet, and disconnect."""
        if self.shared is not None and self.shared.up:
            with suppress(*redis_errors()):
                await self.shared.begin()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            ended = asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.wait([ended], timeout=CANCEL_AGAIN_SECONDS)
        if self.shared is not None:
            await self.shared.close()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run it in the background, outside any request, until we close."""
        task = asyncio.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def find(self, key: Hashable, *, refreshes: bool = True) -> CachedResponse | None:
        """The valid response of this process, if there is one.

        Shortly before it expires one caller gets None, to load it again; the others go on with it.
        `refreshes` says whether this caller would do so.
        """
        response = self.local.entries.get(key)
        if response is None:
            return None
        now = monotonic()
        if now > response.refresh_at or now > self.coherence.valid_until:
            if refreshes and now <= min(response.expires_at, self.coherence.valid_until):
                response.refresh_at = response.expires_at
            return None
        if not self.generations.current(response.tags, response.generation):
            return None
        response.used = True
        return response

    def begin_read(self) -> int:
        """The generation of a response that is read from now on; UNKEPT while none is kept."""
        if self._waiting_for_unknown is not None or monotonic() >= self.coherence.valid_until:
            return UNKEPT
        return self.generations.newest

    def keep(
        self,
        key: Hashable,
        response: CachedResponse,
        tags: Tags | int,
        generation: int,
        key_size: int,
        seconds: float | None = None,
    ) -> None:
        """Keep a response that `begin_read` preceded, unless a write has invalidated it.

        `key_size` are the bytes of the key; `seconds` is `ttl` by default, and at most.
        """
        if self.generations.current(tags, generation):
            response.tags, response.generation = tags, generation
            times = self.expiry.times(self.ttl if seconds is None else seconds)
            response.refresh_at, response.expires_at = times
            self.local.put(key, response, key_size)

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
        """The cached response, or else the one that `load` makes; and whether it was cached.

        Requests for the same key wait for one load, unless a write invalidates it while it runs.

        Args:
            key: in this process.
            name: the key in Redis.
            tags: what the response depends on.
            load: makes it. What it raises is raised, and not cached.
            seconds: that it is kept, at most `ttl`.
            share: whether to look in Redis too.
        """
        generation = self.begin_read()
        running = None if generation == UNKEPT else self.in_flight.get(key)
        if running is not None and self.generations.current(tags, running.generation):
            started = perf_counter()
            response = await asyncio.shield(running.future)
            _add_time(started, "load by another request")
            if response is not None:
                self.local.hits += 1  # it has come to this process for another request
                return response, True
        self.local.misses += 1
        running = self.in_flight[key] = InFlightLoad(generation)
        response = lease = None
        try:
            if share and generation != UNKEPT and self.shared and self.shared.takes(tags):
                started = perf_counter()
                response, lease = await self.shared.look_up(name, tags)
                _add_time(started, "look-up in Redis")
            found = response is not None
            if response is None:
                response = await load()
        except Exception as error:  # those who wait for it get the same, and don't try again
            running.future.set_exception(error)
            running.future.exception()
            raise
        finally:
            if not running.future.done():  # None after a cancellation: those who wait load it
                running.future.set_result(response)
            if self.in_flight.get(key) is running:
                del self.in_flight[key]
        seconds = self.ttl if seconds is None else min(seconds, self.ttl)
        if response.missing is not None:
            seconds = min(seconds, MISSING_SECONDS)
        if found:  # how long it has been in Redis is not known
            seconds /= 10
        self.keep(key, response, tags, generation, 3 * len(name), seconds)
        if lease is not None and self.shared is not None:
            self.shared.keep(lease, response, seconds)
        return response, found

    async def cached(
        self,
        key: str,
        ttl: float,
        load: Callable[[], Awaitable[Value]],
        kind: type[Value] | Any,
        tags: Tags = (),
    ) -> Value:
        """Any value: the cached one, or what `load` returns.

        Args:
            key: must name all that the value depends on, the principal included.
            ttl: seconds that it is kept.
            load: reads or computes it; called once for all requests that come at the same time.
            kind: the type that msgspec decodes the cached value as. None is a value like others.
            tags: what invalidates it, see generations.TableTags; without tags it only expires. A
                value that depends on single rows is kept in this process alone.
        """

        async def response() -> CachedResponse:
            return CachedResponse(_encode(await load()))

        place = ("cached", key)
        found = self.find(place)
        if found is None:
            found, _ = await self.get_or_load(place, f"cached:{key}", tags, response, ttl)
        else:
            self.local.hits += 1
        value: Value = msgspec.msgpack.decode(found.body, type=kind)
        return value

    async def invalidate(self, tags: Tags) -> None:
        """Invalidate what a committed write has changed; only writer.Writer calls it.

        From here on this process shows nothing older. When it returns, the message to the other
        workers has been sent.
        """
        self.generations.advance(tags)
        if self.shared is not None:
            await self.shared.invalidate(tags)

    def invalidate_then(self, tags: Tags, then: Callable[[], None]) -> None:
        """As `invalidate`; calls `then` instead of returning."""
        self.generations.advance(tags)
        if self.shared is None:
            then()
        else:
            self.shared.invalidate_then(tags, then)

    def outcome_unknown(self) -> None:
        """A write may have been committed, or may still be: keep nothing until it has ended.

        PostgreSQL goes on with a statement when its client is gone, and a commit may wait for a
        disk or a standby for any time. Only writer.Writer calls it.
        """
        self.generations.advance((EVERYTHING,))
        self._unknown = True
        if self._waiting_for_unknown is None:
            self._waiting_for_unknown = self.spawn(self._invalidate_until_ended())

    async def _invalidate_until_ended(self) -> None:
        """One task for all writes whose outcome is unknown, also for those that come later."""
        while self._unknown:
            self._unknown = False
            since, ended = None, False
            while not ended:
                await self.invalidate((EVERYTHING,))
                since = since or await self.coherence.clock()
                ended = since is not None and await self.coherence.ended(since)
                await asyncio.sleep(UNKNOWN_SECONDS)
            await self.invalidate((EVERYTHING,))
        self._waiting_for_unknown = None


def _add_time(started: float, what: str) -> None:
    """Add the time since `started` to the request's time in the cache, and to its trace."""
    spent = timing.get()
    if spent is not None:
        now = perf_counter()
        spent.cache += now - started
        if spent.span is not None:
            spent.span.child(what, started, now)
