"""The tier that all workers share: answers in Redis, dead as soon as an epoch of theirs is deleted.

An epoch in Redis is a key with a random value that nobody has drawn before. A reader takes the
epochs of an answer before it reads, and keeps the answer with them in front; it counts as long as
they are those that stand. A writer deletes the epochs of what it changed, and only then tells the
other workers. An epoch that was deleted, evicted or lost with its server comes back with another
value, so nothing kept before it is believed: no script, no tombstone, no time to reason about.

All that is asked within a turn of the loop goes in one pipeline, one at a time. Redis is never
waited for longer than 50 ms; after a failure nobody asks it until it has answered again.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from service.cache.client import SECONDS, Client, is_cluster
from service.cache.entry import CachedResponse, decode, encode
from service.cache.generations import EVERYTHING, LIST_TAGS, Tags
from service.logs import logger

# Between two tries of a Redis that failed: it is used again within a second of its return.
AGAIN_SECONDS = 0.25
WIDTH = 16  # of an epoch

Spawn = Callable[[Coroutine[None, None, None]], object]


class _Look:
    """Asks for the answer under `keys[0]`; the other keys are those of its epochs."""

    __slots__ = ("future", "key", "keys")

    def __init__(self, key: bytes, keys: list[str]) -> None:
        self.key = key
        self.keys = keys
        self.future: asyncio.Future[tuple[bytes | None, bytes | None]] = (
            asyncio.get_running_loop().create_future()
        )

    def answer(self, found: bytes | None, lease: bytes | None) -> None:
        """What was found, or else what to keep the answer with."""
        if not self.future.done():
            self.future.set_result((found, lease))


class _Moves:
    """Slots that have moved within a turn of the loop, and whether others are to be told."""

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
    """The right to keep an answer that is read from now on."""

    place: str
    prefix: bytes


class Shared:
    """The answers in Redis.

    Args:
        client: see client.client.
        ttl: seconds that an answer is kept, up to a tenth less.
        fingerprint: of the code: who makes other answers keeps them elsewhere.
        spawn: runs a coroutine in the background.
        unsaid: tells the other workers in another way, when Redis can't.
    """

    def __init__(
        self,
        client: Client,
        *,
        ttl: float,
        fingerprint: str,
        spawn: Spawn,
        pending: Callable[[Tags], Awaitable[None]],
    ) -> None:
        self.client = client
        self.ttl = ttl
        self.fingerprint = fingerprint
        self.spawn = spawn
        self.pending = pending
        self.sender = secrets.token_hex(4)
        self.name = ""  # of the database: known once it has answered
        # `up`: answers are read and kept there. It may be off while Redis can be reached: then what
        # is written here is still told there, where the other workers hear it.
        self.up = self._reached = self._failed = False
        self._looks: list[_Look] = []
        self._keeps: list[tuple[str, bytes, int]] = []
        self._moves: _Moves | None = None
        self._heard: _Moves | None = None
        self._running = False

    @property
    def _place(self) -> str:
        """Before every key. All share a hash tag, since one answer depends on any of the epochs."""
        return f"{{swiftlet:{self.name}}}:"

    @property
    def channel(self) -> str:
        """Where writers tell what they have moved."""
        return f"{self._place}moved"

    def takes(self, tags: Tags) -> bool:
        """Whether it can be used for what depends on these: a row's epochs are not in Redis.

        Reading a row together with others costs less than asking for it here
        (`python -m bench trials cache`).
        """
        return self.up and all(tag < LIST_TAGS for tag in tags)

    async def look(self, key: str, tags: Tags) -> tuple[CachedResponse | None, Lease | None]:
        """What is kept under the key; else a lease to keep it by, None if Redis is in trouble.

        The lease must be had before the reading begins whose answer it is for.
        """
        place = self._place
        generations = [f"{place}{tag}" for tag in (EVERYTHING, *tags)]
        asked = _Look(key.encode(), [f"{place}{self.fingerprint}:{key}", *generations])
        self._looks.append(asked)
        self._start()
        try:
            async with asyncio.timeout(SECONDS):
                found, prefix = await asked.future
        except TimeoutError:
            return None, None
        if found is not None:
            return decode(found), None
        return None, None if prefix is None else Lease(asked.keys[0], prefix)

    def keep(self, lease: Lease, answer: CachedResponse, seconds: float | None = None) -> None:
        """Keep what was read under a lease; it is there soon, or never."""
        if not self.up:
            return
        seconds = self.ttl if seconds is None else min(seconds, self.ttl)
        seconds *= random.uniform(0.9, 1)  # noqa: S311 - so that not all end at once
        value = lease.prefix + encode(answer)
        self._keeps.append((lease.place, value, max(1, round(seconds * 1000))))
        self._start()

    async def invalidate(self, tags: Tags) -> None:
        """Let nothing be believed that depends on them, then tell the other workers.

        Returns when that is done, or after 50 ms. After a failure Redis is not asked until
        `begin` has made an end of everything in it.
        """
        moves = self._moves
        if moves is None:
            moves = self._moves = _Moves(publish=True)
            self._start()
        moves.tags.update(dict.fromkeys(tags))
        await asyncio.shield(moves.future)  # shared: who is cancelled leaves the others to it

    def on_message(self, tags: Tags) -> None:
        """The same for what somebody else has told who could not tell Redis."""
        if self._heard is None:
            self._heard = _Moves(publish=False)
            self._start()
        self._heard.tags.update(dict.fromkeys(tags))

    async def begin(self) -> None:
        """Use Redis from now on: after a pause nobody knows what was missed, so nothing counts.

        Raises:
            RedisError, OSError, TimeoutError: it is not to be had.
        """
        async with asyncio.timeout(4 * SECONDS):
            await self._forget((EVERYTHING,), publish=True)
        self._reached, self._failed = True, False
        if not self.up:
            self.up = True
            logger.info("Redis is used")

    def fail(self, error: BaseException) -> None:
        """Use Redis no more until `begin`; said once, at the start too."""
        self.up = self._reached = False
        if not self._failed:
            self._failed = True
            fields = {"error": f"{type(error).__name__}: {error}"[:200]}
            logger.warning("Redis is not used", extra={"fields": fields})

    def pause(self) -> None:
        """Read and keep nothing there until `begin`, though nothing is wrong with it."""
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
            await asyncio.sleep(0)  # what is asked within this turn goes together
            while self._looks or self._keeps or self._moves or self._heard:
                looks, self._looks = self._looks, []
                keeps, self._keeps = self._keeps, []
                moves = [one for one in (self._moves, self._heard) if one is not None]
                self._moves = self._heard = None
                told = False
                try:
                    if self._reached:
                        async with asyncio.timeout(SECONDS):
                            for one in moves:
                                await self._forget(tuple(one.tags), publish=one.publish)
                                one.done()
                            told = True
                            if self.up and (looks or keeps):
                                await self._exchange(looks, keeps)
                except Exception as error:  # noqa: BLE001 - a cluster's are of any kind
                    self.fail(error)
                finally:
                    for look in looks:
                        look.answer(None, None)
                for one in moves:
                    if one.publish and not told:
                        await self.pending(tuple(one.tags))
                    one.done()
        finally:
            self._running = False

    async def _forget(self, tags: Tags, *, publish: bool) -> None:
        """Delete the generations, then publish; a cluster does not keep the order by itself."""
        pipeline: Any = self.client.pipeline(transaction=False)
        keys = [f"{self._place}{tag}" for tag in tags if tag < LIST_TAGS]
        if keys:
            pipeline.delete(*keys)
        message = f"{self.sender}:{','.join(map(str, tags))}"
        if publish and not is_cluster(self.client):
            pipeline.publish(self.channel, message)
        await pipeline.execute()
        if publish and is_cluster(self.client):
            await self.client.publish(self.channel, message)

    async def _exchange(self, looks: Iterable[_Look], keeps: list[tuple[str, bytes, int]]) -> None:
        asking = [look for look in looks if not look.future.done()]
        pipeline: Any = self.client.pipeline(transaction=False)
        for key, value, milliseconds in keeps:
            pipeline.set(key, value, px=milliseconds)
        for look in asking:
            pipeline.execute_command("MGET", *look.keys)  # a cluster's has no mget
        results = (await pipeline.execute(raise_on_error=False))[len(keeps) :]
        drawing = []
        for look, result in zip(asking, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            if None in result[1:]:
                drawing.append(look)
            else:
                _tell(look, result)
        if drawing:
            await self._draw(drawing)

    async def _draw(self, looks: list[_Look]) -> None:
        """Draw the generations that are missing. The first worker wins, so read them again."""
        milliseconds = round(max(2 * self.ttl, 1) * 1000)
        pipeline: Any = self.client.pipeline(transaction=False)
        for key in {key for look in looks for key in look.keys[1:]}:
            pipeline.set(key, secrets.token_hex(WIDTH // 2), nx=True, px=milliseconds)
        for look in looks:
            pipeline.execute_command("MGET", *look.keys)  # a cluster's has no mget
        results = (await pipeline.execute(raise_on_error=False))[-len(looks) :]
        for look, result in zip(looks, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            if None in result[1:]:  # no room for them, or deleted again already
                look.answer(None, None)
            else:
                _tell(look, result)


def _tell(look: _Look, result: list[bytes]) -> None:
    """The value bears its epochs and its key: no answer is believed to be for another question."""
    prefix = b"".join(result[1:]) + b"%d:" % len(look.key) + look.key
    value = result[0]
    if value and value.startswith(prefix):
        look.answer(value[len(prefix) :], None)
    else:
        look.answer(None, prefix)
