"""What Redis costs a worker: CPU of an invalidation, a look-up and a message, as one of the trials.

The opponent is redis-py, used as it was before: a pipeline for each turn of the event loop, and its
own reader of messages. Both are measured in turn, in one process. Others wait for the same pipeline
or write as 64 at once do, so the cost is divided by their number.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any, NamedTuple

import uvloop

from bench.processes import cpu
from bench.stage import StagingTable
from service.cache.client import Client, client, connect
from service.cache.multiplexed import Multiplexed
from service.cache.response import CachedResponse
from service.cache.shared import Shared

ROUNDS, SECONDS, AT_ONCE = 7, 0.2, (1, 64)
# A list's tags, as a created item has them, and the value of a list that is kept.
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
        "| CPU us | at once | redis-py | Redis | ours | Redis | of redis-py |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, count), (theirs, ours) in uvloop.run(_measured(on)).items():
        ratio = sum(ours) / sum(theirs)
        lines.append(
            f"| {name} | {count} | {theirs.python:.1f} | {theirs.redis:.1f}"
            f" | {ours.python:.1f} | {ours.redis:.1f} | {ratio:.2f} |"
        )
    return "\n".join([*lines, ""])


async def _measured(on: StagingTable) -> dict[tuple[str, int], tuple[Measured, Measured]]:
    async with asyncio.TaskGroup() as tasks:
        one = client(on.redis_url, 5)
        shared = Shared(
            one, ttl=300, fingerprint="bench", spawn=tasks.create_task, publish_otherwise=_ignore
        )
        await shared.begin()
        _, lease = await shared.look_up("list", TAGS)
        if lease is None:
            raise RuntimeError("Redis gave no lease")
        shared.keep(lease, CachedResponse(BODY, ()))
        keys = [lease.place, *(f"{{swiftlet:}}:{tag}" for tag in (0, *TAGS))]
        found = {}
        for count in AT_ONCE:
            looking, invalidating = _both(one, shared, keys, count)
            found["look-up", count] = await _in_turn(*looking, count, on.redis_pid)
            found["invalidation", count] = await _in_turn(*invalidating, count, on.redis_pid)
            found["message", count] = await _messages(one, count, on.redis_pid)
        await shared.close()
    return found


def _both(
    one: Client, shared: Shared, keys: list[str], count: int
) -> tuple[tuple[Once, Once], tuple[Once, Once]]:
    """Return a look-up and an invalidation, each with redis-py and ours."""
    look_ups = [("MGET", *keys)] * count
    invalidation = [("DEL", *keys[2:]), ("PUBLISH", CHANNEL, "me:1,2,3")]
    return (
        (
            lambda: _piped(one, count, look_ups),
            lambda: _together(count, lambda: shared.look_up("list", TAGS)),
        ),
        (
            lambda: _piped(one, count, invalidation),
            lambda: _together(count, lambda: shared.invalidate(TAGS)),
        ),
    )


async def _piped(one: Client, count: int, commands: list[tuple[Any, ...]]) -> None:
    """One pipeline in a task of its own, which `count` callers wait for."""

    async def run() -> None:
        async with asyncio.timeout(5):
            pipeline: Any = one.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            await pipeline.execute()
        ended.set_result(None)

    async def wait() -> None:
        async with asyncio.timeout(5):
            await asyncio.shield(ended)

    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run())
    await _together(count, wait)
    await task


async def _together(count: int, once: Once) -> None:
    if count == 1:
        await once()
    else:
        await asyncio.gather(*(once() for _ in range(count)))


async def _messages(one: Client, count: int, redis: int) -> tuple[Measured, Measured]:
    """Messages that are published on one connection and received on another, `count` in a row."""
    publishing = Multiplexed(await connect(one, CHANNEL), 5)
    commands = [("PUBLISH", CHANNEL, "other:1,2,3")] * count
    left = 0
    received = asyncio.Event()

    def on_message(_channel: bytes, _message: bytes) -> None:
        nonlocal left
        left -= 1
        if not left:
            received.set()

    async def ours() -> None:
        nonlocal left
        left = count
        received.clear()
        await publishing.call(*commands)
        await received.wait()

    async def theirs() -> None:
        await publishing.call(*commands)
        left = count
        while left:
            message = await pubsub.get_message(timeout=5)
            left -= message is not None and message["type"] == "message"

    pubsub: Any = one.pubsub()
    runs = []
    for _ in range(ROUNDS):
        await pubsub.subscribe(CHANNEL)
        with_redis_py = await _used(theirs, count, redis)
        await pubsub.unsubscribe(CHANNEL)
        hearing = Multiplexed(await connect(one, CHANNEL), 5, on_message=on_message)
        await hearing.subscribe(CHANNEL)
        runs.append((with_redis_py, await _used(ours, count, redis)))
        hearing.close()
    await pubsub.aclose()
    publishing.close()
    return _middle([one for one, _ in runs]), _middle([one for _, one in runs])


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
