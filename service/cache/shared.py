"""The tier that all workers share: responses in Redis, invalid once a generation of theirs is gone.

A generation in Redis is a key with a random value that was never used before. A reader gets the
generations of a response's tags before it reads, and stores the response with their values in
front; it is valid while they are the current values. A writer deletes the generations of what it
changed, and only then publishes the tags to the other workers. A generation that was deleted,
evicted or lost with its server comes back with another value, so nothing stored before it is
valid. That needs no script, no tombstone and no clock.

The commands of one turn of the event loop are written together, on one connection. A request waits
for Redis 50 ms at most. After a failure Redis is not used until it has answered again.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING

from service.cache.client import SECONDS, connect
from service.cache.generations import EVERYTHING, FIRST_ROW_TAG, Tags, message
from service.cache.multiplexed import Command, Multiplexed, OnMessage, Replies, first_error
from service.cache.pending import Fallback, Invalidation, Lease, Lookup, Store, answer_all, give_up
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
        self.ttl = ttl
        self.fingerprint = fingerprint
        self.declared = declared
        self._fallback = Fallback(publish_otherwise, spawn)
        self.sender = secrets.token_hex(4)
        self.name = ""  # of the database; known once that has answered
        # `up`: responses are read and stored. It may be off while Redis can be reached: writes are
        # then still published there, where the other workers listen.
        self.up = self._reached = self._failed = False
        self.hits = self.misses = 0  # since the start, for metrics
        self._lookups: list[Lookup] = []
        self._stores: list[Store] = []
        self._invalidation: Invalidation | None = None  # of this worker's writes
        self._received: Invalidation | None = None
        self._scheduled = False
        self._connection: Multiplexed | None = None

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
        self._schedule()
        found, prefix = await lookup.future
        if found is not None:
            self.hits += 1
            return decode(found), None
        self.misses += 1
        return None, None if prefix is None else Lease(lookup.keys[0], prefix)

    def keep(self, lease: Lease, response: CachedResponse, seconds: float | None = None) -> None:
        """Store a response that was read under a lease, in the background."""
        if not self.up or self._connection is None or self._connection.full:
            return
        seconds = self.ttl if seconds is None else min(seconds, self.ttl)
        seconds *= random.uniform(0.9, 1)  # noqa: S311 - so that not all expire at once
        value = lease.prefix + encode(response)
        self._stores.append(Store(lease.place, value, max(1, round(seconds * 1000))))
        self._schedule()

    async def invalidate(self, tags: Tags) -> None:
        """Invalidate what depends on the tags, then publish them to the other workers.

        Returns when that is done, or after 50 ms. After a failure Redis is not used until `begin`
        has invalidated everything in it.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.invalidate_then(tags, lambda: None if ended.done() else ended.set_result(None))
        await ended

    def invalidate_then(self, tags: Tags, then: Callable[[], None]) -> None:
        """As `invalidate`; calls `then` instead of returning."""
        if self._invalidation is None:
            self._invalidation = Invalidation(publish=True)
            self._schedule()
        self._invalidation.tags.update(dict.fromkeys(tags))
        self._invalidation.waiting.append(then)

    def on_message(self, tags: Tags) -> None:
        """Invalidate tags that came from a process that could not reach Redis."""
        if self._received is None:
            self._received = Invalidation(publish=False)
            self._schedule()
        self._received.tags.update(dict.fromkeys(tags))

    async def connect(
        self, on_message: OnMessage | None = None, channels: Sequence[str] = ()
    ) -> Multiplexed:
        """Connect, and receive the messages of the channels; then call `begin`.

        Raises:
            RedisError, RedisClusterException, OSError, TimeoutError: it can't be used.
        """
        made = await connect(self.client, self.channel)
        connection = self._connection = Multiplexed(
            made, SECONDS, on_message=on_message, on_close=self._on_close
        )
        if channels:
            await connection.subscribe(*channels)
        return connection

    def _on_close(self, error: Exception | None) -> None:
        if error is not None:
            self.fail(error)
        self.disconnect()

    def disconnect(self) -> None:
        """Don't use Redis until `connect` and `begin`."""
        self.up = self._reached = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def begin(self) -> None:
        """Use Redis from now on. Messages may have been missed, so everything is invalidated.

        Raises:
            RedisError, OSError, TimeoutError: it can't be used.
        """
        connection = self._connection
        if connection is None:
            raise ConnectionError("there is no connection to Redis")
        async with asyncio.timeout(4 * SECONDS):
            await connection.call(*self._deletion((EVERYTHING,), publish=True))
        if connection is not self._connection:
            raise ConnectionError("Redis has closed the connection")
        if not self._reached:
            logger.info("Redis is used")
        self.up, self._reached, self._failed = True, True, False

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
        self.disconnect()
        await self.client.aclose()

    def _schedule(self) -> None:
        """Send what waits at the end of this turn of the event loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = False
        lookups, self._lookups = self._lookups, []
        stores, self._stores = self._stores, []
        both = (self._invalidation, self._received)
        self._invalidation = self._received = None
        for one in both:
            if one is not None:
                self._send_invalidation(one)
        connection = self._connection
        if not self.up or connection is None:
            give_up(lookups)
            return
        lookups = [one for one in lookups if not one.future.done()]  # not cancelled
        if lookups or stores:
            commands: list[Command] = [
                ("SET", one.place, one.value, "PX", one.milliseconds) for one in stores
            ]
            commands += [("MGET", *one.keys) for one in lookups]
            connection.send(commands, partial(self._found, lookups))

    def _send_invalidation(self, one: Invalidation) -> None:
        connection = self._connection
        used = self._reached and connection is not None
        commands = self._deletion(tuple(one.tags), publish=used and one.publish)
        if connection is not None and commands:
            # Also while Redis is not used: `begin` may have invalidated what others use already,
            # and this write may have been committed after that.
            done = partial(self._invalidated, one) if used else lambda _: None
            connection.send(commands, done)
        if one.publish and not used:
            self._fallback.add(one)

    def _deletion(self, tags: Tags, *, publish: bool) -> list[Command]:
        """Delete the generations, then publish. Redis runs the commands in this order."""
        place = self._place
        keys = [f"{place}{tag}" for tag in tags if tag < FIRST_ROW_TAG]
        commands: list[Command] = [("DEL", *keys)] if keys else []
        if publish:
            commands.append(("PUBLISH", self.channel, f"{self.sender}:{message(tags)}"))
        return commands

    def _invalidated(self, invalidation: Invalidation, found: Replies | Exception) -> None:
        error = first_error(found)
        if error is None:
            invalidation.end()
            return
        self.fail(error)
        if invalidation.publish:
            self._fallback.add(invalidation)

    def _found(
        self, lookups: list[Lookup], found: Replies | Exception, *, again: bool = False
    ) -> None:
        """Answer from the last replies. The others are of commands that store, and may fail."""
        results = [] if isinstance(found, Exception) else found[len(found) - len(lookups) :]
        error = first_error(found if isinstance(found, Exception) else results)
        if error is not None:
            self.fail(error)
            give_up(lookups)
            return
        without = answer_all(lookups, results)
        if without and not again and self._connection is not None:
            self._make_generations(self._connection, without)
        else:  # Redis is full, or they are deleted again
            give_up(without)

    def _make_generations(self, connection: Multiplexed, lookups: list[Lookup]) -> None:
        """Make those that are missing. The first worker's value counts, so read them again."""
        milliseconds = round(max(2 * self.ttl, 1) * 1000)
        commands: list[Command] = [
            ("SET", key, secrets.token_hex(WIDTH // 2), "NX", "PX", milliseconds)
            for key in {key for lookup in lookups for key in lookup.keys[1:]}
        ]
        commands += [("MGET", *lookup.keys) for lookup in lookups]
        # The time of a lookup is for both questions.
        due = min(lookup.began for lookup in lookups) + SECONDS
        asyncio.get_running_loop().call_at(due, give_up, lookups)
        connection.send(commands, partial(self._found, lookups, again=True))
