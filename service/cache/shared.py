"""The tier that all workers share: responses in Redis, invalid once a generation of theirs is gone.

A generation in Redis is a key with a random value that was never used before. A reader gets the
generations of a response's tags before it reads, and stores the response with their values in
front; it is valid while they are the current values. A writer deletes the generations of what it
changed, and only then publishes the tags to the other workers. A generation that was deleted,
evicted or lost with its server comes back with another value, so nothing stored before it is
valid. That needs no script, no tombstone and no clock.

The commands of one turn of the event loop go in one pipeline, one pipeline at a time. A request
waits for Redis 50 ms at most. After a failure Redis is not used until it has answered again.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from service.cache.client import SECONDS, is_cluster
from service.cache.generations import EVERYTHING, FIRST_ROW_TAG, Tags, message
from service.cache.pending import Invalidation, Lease, Lookup, answer_all
from service.cache.response import CachedResponse, decode, encode
from service.logs import logger

if TYPE_CHECKING:
    from service.cache.client import Client

# Between two tries of a Redis that failed: it is used again within a second of its return.
RETRY_SECONDS = 0.25
WIDTH = 16  # of a generation's value


class Shared:
    """The responses in Redis.

    Args:
        client: see client.client.
        ttl: seconds that a response is kept, up to a tenth less.
        fingerprint: of the code; another version of it keeps its responses under other keys.
        declared: of the tables and filters. A program with others does not know every tag that its
            writes invalidate, so the two don't share a channel.
        spawn: runs a coroutine in the background.
        publish_otherwise: publishes tags to the other workers when Redis can't.
    """

    def __init__(
        self,
        client: "Client",
        *,
        ttl: float,
        fingerprint: str,
        declared: str = "",
        spawn: Callable[[Coroutine[None, None, None]], object],
        publish_otherwise: Callable[[Tags], Awaitable[None]],
    ) -> None:
        self.client = client
        self._cluster = is_cluster(client)
        self.ttl = ttl
        self.fingerprint = fingerprint
        self.declared = declared
        self.spawn = spawn
        self.publish_otherwise = publish_otherwise
        self.sender = secrets.token_hex(4)
        self.name = ""  # of the database; known once that has answered
        # `up`: responses are read and stored. It may be off while Redis can be reached: writes are
        # then still published there, where the other workers listen.
        self.up = self._reached = self._failed = False
        self.hits = self.misses = 0  # since the start, for metrics
        self._lookups: list[Lookup] = []
        self._stores: list[tuple[str, bytes, int]] = []
        self._invalidation: Invalidation | None = None  # of this worker's writes
        self._received: Invalidation | None = None
        self._running = False

    @property
    def _place(self) -> str:
        """Before every key. All have one hash tag: a response depends on any of the generations."""
        return f"{{swiftlet:{self.name}{self.declared}}}:"

    @property
    def reached(self) -> bool:
        """Whether Redis has answered, and has not failed since."""
        return self._reached

    @property
    def channel(self) -> str:
        """Where writers publish the tags that they have invalidated."""
        return f"{self._place}invalidations"

    def takes(self, tags: Tags) -> bool:
        """Whether responses with these tags are kept here: those that depend on lists alone.

        A single row costs less to read with others than to look up in Redis
        (`python -m bench trials cache`).
        """
        return self.up and all(tag < FIRST_ROW_TAG for tag in tags)

    async def look_up(self, key: str, tags: Tags) -> tuple[CachedResponse | None, Lease | None]:
        """The response under the key; else a lease to store it with, None if Redis can't be used.

        Get the lease before you begin to read what the response is made from.
        """
        place = self._place
        generations = [f"{place}{tag}" for tag in (EVERYTHING, *tags)]
        lookup = Lookup(key.encode(), [f"{place}{self.fingerprint}:{key}", *generations])
        self._lookups.append(lookup)
        self._start()
        try:
            async with asyncio.timeout(SECONDS):
                found, prefix = await lookup.future
        except TimeoutError:
            self.misses += 1
            return None, None
        if found is not None:
            self.hits += 1
            return decode(found), None
        self.misses += 1
        return None, None if prefix is None else Lease(lookup.keys[0], prefix)

    def keep(self, lease: Lease, response: CachedResponse, seconds: float | None = None) -> None:
        """Store a response that was read under a lease, in the background."""
        if not self.up:
            return
        seconds = self.ttl if seconds is None else min(seconds, self.ttl)
        seconds *= random.uniform(0.9, 1)  # noqa: S311 - so that not all expire at once
        value = lease.prefix + encode(response)
        self._stores.append((lease.place, value, max(1, round(seconds * 1000))))
        self._start()

    async def invalidate(self, tags: Tags) -> None:
        """Invalidate what depends on the tags, then publish them to the other workers.

        Returns when that is done, or after 50 ms. After a failure Redis is not used until `begin`
        has invalidated everything in it.
        """
        # Several writes wait for it: one that is cancelled leaves it to the others.
        await asyncio.shield(self._invalidating(tags).future)

    def invalidate_then(self, tags: Tags, then: Callable[[], None]) -> None:
        """As `invalidate`, and call `then`."""
        self._invalidating(tags).future.add_done_callback(lambda _: then())

    def _invalidating(self, tags: Tags) -> Invalidation:
        invalidation = self._invalidation
        if invalidation is None:
            invalidation = self._invalidation = Invalidation(publish=True)
            self._start()
        invalidation.tags.update(dict.fromkeys(tags))
        return invalidation

    def on_message(self, tags: Tags) -> None:
        """Invalidate tags that came from a process that could not reach Redis."""
        if self._received is None:
            self._received = Invalidation(publish=False)
            self._start()
        self._received.tags.update(dict.fromkeys(tags))

    async def begin(self) -> None:
        """Use Redis from now on. Messages may have been missed, so everything is invalidated.

        Raises:
            RedisError, OSError, TimeoutError: it can't be used.
        """
        async with asyncio.timeout(4 * SECONDS):
            await self._delete((EVERYTHING,), publish=True)
        self._reached, self._failed = True, False
        if not self.up:
            self.up = True
            logger.info("Redis is used")

    def fail(self, error: BaseException) -> None:
        """Don't use Redis until `begin`; logged once, also at the start."""
        self.up = self._reached = False
        if not self._failed:
            self._failed = True
            fields = {"error": f"{type(error).__name__}: {error}"[:200]}
            logger.warning("Redis is not used", extra={"fields": fields})

    def pause(self) -> None:
        """Read and store nothing there until `begin`, though Redis can be reached."""
        self.up = False

    async def close(self) -> None:
        """Close the connections."""
        self.up = self._reached = False
        await self.client.aclose()

    def _start(self) -> None:
        if not self._running:
            self._running = True
            self.spawn(self._run())

    async def _run(self) -> None:
        try:
            await asyncio.sleep(0)  # lookups of this turn of the event loop share a pipeline
            while self._lookups or self._stores or self._invalidation or self._received:
                lookups, self._lookups = self._lookups, []
                stores, self._stores = self._stores, []
                both = (self._invalidation, self._received)
                invalidations = [one for one in both if one is not None]
                self._invalidation = self._received = None
                published = False
                try:
                    if self._reached:
                        async with asyncio.timeout(SECONDS):
                            for one in invalidations:
                                await self._delete(tuple(one.tags), publish=one.publish)
                                one.done()
                            published = True
                            if self.up and (lookups or stores):
                                await self._exchange(lookups, stores)
                except Exception as error:  # noqa: BLE001 - a cluster's errors are of any type
                    self.fail(error)
                finally:
                    for lookup in lookups:
                        lookup.answer(None, None)
                for one in invalidations:
                    if one.publish and not published:
                        await self.publish_otherwise(tuple(one.tags))
                    one.done()
        finally:
            self._running = False

    async def _delete(self, tags: Tags, *, publish: bool) -> None:
        """Delete the generations, then publish; a cluster keeps no order within a pipeline."""
        pipeline: Any = self.client.pipeline(transaction=False)
        keys = [f"{self._place}{tag}" for tag in tags if tag < FIRST_ROW_TAG]
        if keys:
            pipeline.delete(*keys)
        text = f"{self.sender}:{message(tags)}"
        if publish and not self._cluster:
            pipeline.publish(self.channel, text)
        await pipeline.execute()
        if publish and self._cluster:
            await self.client.publish(self.channel, text)

    async def _exchange(
        self, lookups: Iterable[Lookup], stores: list[tuple[str, bytes, int]]
    ) -> None:
        asking = [lookup for lookup in lookups if not lookup.future.done()]
        pipeline: Any = self.client.pipeline(transaction=False)
        for key, value, milliseconds in stores:
            pipeline.set(key, value, px=milliseconds)
        for lookup in asking:
            pipeline.execute_command("MGET", *lookup.keys)  # a cluster's client has no mget
        results = (await pipeline.execute(raise_on_error=False))[len(stores) :]
        if without := answer_all(asking, results):
            await self._make_generations(without)

    async def _make_generations(self, lookups: list[Lookup]) -> None:
        """Make those that are missing. The first worker's value counts, so read them again."""
        milliseconds = round(max(2 * self.ttl, 1) * 1000)
        pipeline: Any = self.client.pipeline(transaction=False)
        for key in {key for lookup in lookups for key in lookup.keys[1:]}:
            pipeline.set(key, secrets.token_hex(WIDTH // 2), nx=True, px=milliseconds)
        for lookup in lookups:
            pipeline.execute_command("MGET", *lookup.keys)  # a cluster's client has no mget
        results = (await pipeline.execute(raise_on_error=False))[-len(lookups) :]
        for lookup in answer_all(lookups, results):  # Redis is full, or they are deleted again
            lookup.answer(None, None)
