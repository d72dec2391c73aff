"""What Redis costs a worker: CPU of an invalidation, a look-up and a message, as one of the trials.

The opponent is redis-py, used as it was before: a pipeline in a task for each turn of the event
loop, and a reader of messages on a connection of its own. Both are measured in turn, in one
process. An invalidation includes the worker's own message, which it receives too. Of 64 at once all
share one pipeline, or one write; the cost is of each.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import process_time
from typing import Any, NamedTuple

import uvloop

from bench.processes import cpu
from bench.stage import StagingTable
from service.cache.client import client, connect
from service.cache.multiplexed import Command, Multiplexed
from service.cache.response import CachedResponse
from service.cache.shared import Shared

ROUNDS, SECONDS, AT_ONCE = 7, 0.2, (1, 64)
PATIENCE = 5.0  # seconds: a busy machine breaks no round
# The tags of lists, as a created item has them; and the size of a list.
TAGS, BODY = (17, 1234, 77), b"x" * 1500
CHANNEL = "bench"
Once = Callable[[], Awaitable[object]]


class Measured(NamedTuple):
    """Microseconds of CPU per call."""

    python: float
    redis: float


def table(on: StagingTable) -> str:
    """A table in Markdown."""
    lines = [
        "**What does Redis cost a worker, and what did it cost with redis-py?** (`redis`)",
        "",
        "| CPU us | at once | redis-py: Python | Redis | ours: Python | Redis | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, count), (theirs, ours) in uvloop.run(_measured(on)).items():
        lines.append(
            f"| {name} | {count} | {theirs.python:.1f} | {theirs.redis:.1f}"
            f" | {ours.python:.1f} | {ours.redis:.1f} | {sum(ours) / sum(theirs):.2f} |"
        )
    return "\n".join([*lines, ""])


class Before:
    """redis-py, as it was used."""

    def __init__(self, url: str, keys: list[str]) -> None:
        self.client = client(url, PATIENCE)
        self.keys = keys
        self.pubsub: Any = self.client.pubsub()
        self.received = Received()

    async def receive(self) -> None:
        while True:
            message = await self.pubsub.get_message(timeout=PATIENCE)
            if message is not None and message["type"] == "message":
                self.received.one()

    async def look_up(self, count: int) -> None:
        await self.pipeline(count, [("MGET", *self.keys)] * count)

    async def invalidate(self, count: int) -> None:
        command = ("PUBLISH", CHANNEL, "worker:17,1234,77")
        await self.pipeline(count, [("DEL", *self.keys[2:]), command])

    async def pipeline(self, count: int, commands: list[Command]) -> None:
        """One, in a task of its own, which `count` callers wait for."""

        async def run() -> None:
            async with asyncio.timeout(PATIENCE):
                pipeline: Any = self.client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                await pipeline.execute()
            ended.set_result(None)

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(ended)

        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run())
        await _together(count, wait)
        await task


class Received:
    """Counts messages."""

    def __init__(self) -> None:
        self.left = 0
        self.all = asyncio.Event()

    def one(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.all.set()

    async def after(self, publishing: Multiplexed, commands: list[Command]) -> None:
        """Publish from another connection, and wait until all are received."""
        self.left = len(commands)
        self.all.clear()
        await publishing.call(*commands)
        await self.all.wait()


async def _measured(on: StagingTable) -> dict[tuple[str, int], tuple[Measured, Measured]]:
    received = Received()
    shared = Shared(
        client(on.redis_url, PATIENCE),
        ttl=300,
        fingerprint="bench",
        spawn=asyncio.create_task,
        publish_otherwise=_ignore,
    )
    await shared.connect(lambda *_: received.one(), (shared.channel,))
    await shared.begin()
    _, lease = await shared.look_up("list", TAGS)
    if lease is None:
        raise RuntimeError("Redis gave no lease")
    shared.keep(lease, CachedResponse(BODY, ()))
    before = Before(on.redis_url, [lease.place, *(f"{{swiftlet:}}:{tag}" for tag in (0, *TAGS))])
    await before.pubsub.subscribe(CHANNEL)
    receiving = asyncio.create_task(before.receive())
    publishing = Multiplexed(await connect(before.client, CHANNEL), PATIENCE, PATIENCE)

    def ways(count: int) -> dict[str, tuple[Once, Once]]:
        theirs: list[Command] = [("PUBLISH", CHANNEL, "other:17,1234,77")] * count
        ours: list[Command] = [("PUBLISH", shared.channel, "other:17,1234,77")] * count
        return {
            "look-up": (
                lambda: before.look_up(count),
                lambda: _together(count, lambda: shared.look_up("list", TAGS)),
            ),
            "invalidation": (
                lambda: before.invalidate(count),
                lambda: _together(count, lambda: shared.invalidate(TAGS)),
            ),
            "message of another worker": (
                lambda: before.received.after(publishing, theirs),
                lambda: received.after(publishing, ours),
            ),
        }

    found = {}
    for count in AT_ONCE:
        for name, way in ways(count).items():
            found[name, count] = await _in_turn(*way, count, on.redis_pid)
    receiving.cancel()
    with suppress(asyncio.CancelledError):
        await receiving
    publishing.close()
    await before.pubsub.aclose()
    await before.client.aclose()
    await shared.close()
    return found


async def _together(count: int, once: Once) -> None:
    if count == 1:
        await once()
    else:
        await asyncio.gather(*(once() for _ in range(count)))


async def _in_turn(theirs: Once, ours: Once, count: int, redis: int) -> tuple[Measured, Measured]:
    runs = [
        (await _used(theirs, count, redis), await _used(ours, count, redis)) for _ in range(ROUNDS)
    ]
    return _middle([one for one, _ in runs]), _middle([one for _, one in runs])


def _middle(runs: list[Measured]) -> Measured:
    """The median of Python; the mean of Redis, whose CPU is counted in steps of 10 ms."""
    python, redis = zip(*runs, strict=True)
    return Measured(statistics.median(python), statistics.mean(redis))


async def _used(once: Once, count: int, redis: int) -> Measured:
    loop = asyncio.get_running_loop()
    ours, theirs, calls = process_time(), cpu(redis), 0
    until = loop.time() + SECONDS
    while loop.time() < until:
        await once()
        calls += count
    spent, its = process_time() - ours, cpu(redis) - theirs
    return Measured(spent / calls * 1e6, its / calls * 1e6)


async def _ignore(_: object) -> None:
    return
