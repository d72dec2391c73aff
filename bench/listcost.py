"""What a list costs PostgreSQL, and a question to Redis: CPU of both, as one of the trials.

A list is kept in Redis only where the first is the larger (service/web/paging.py, `costly`).
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any

import asyncpg
import uvloop

from bench.processes import cpu
from bench.stage import StagingTable
from service.cache.client import client
from service.cache.response import CachedResponse
from service.cache.shared import Shared
from service.items import items
from service.items.structs import Price

ROUNDS, SECONDS = 5, 0.2
LISTS = {
    "first page": items.query(),
    "active": items.query(is_active=True),
    "of an owner": items.query(owner_id=7),
    "1,000 rows deep": items.query(page=100),
    "10,000 rows deep": items.query(page=1000),
    "100,000 rows deep": items.query(page=10_000),
    "between two prices": items.query(min_price=Price(10), max_price=Price(20)),
    "searched": items.query(q="lamp 12"),
}


def table(on: StagingTable) -> str:
    """A table in Markdown: each list read from PostgreSQL, then the same question to Redis."""
    found = uvloop.run(_measured(on))
    lines = [
        "**Which lists cost more than a question to Redis?** (`list-cost`)",
        "",
        "| | CPU us: Python | the store | both |",
        "|---|---|---|---|",
    ]
    for name, (python, store) in found.items():
        lines.append(f"| {name} | {python:,.0f} | {store:,.0f} | {python + store:,.0f} |")
    return "\n".join([*lines, ""])


async def _measured(on: StagingTable) -> dict[str, tuple[float, float]]:
    connection = await asyncpg.connect(on.database_url, statement_cache_size=0)
    try:
        found = {
            name: await _used(await _read(connection, query), on.postmaster)
            for name, query in LISTS.items()
        }
    finally:
        await connection.close()
    return found | {"found in Redis": await _used_by_redis(on)}


async def _used_by_redis(on: StagingTable) -> tuple[float, float]:
    async with asyncio.TaskGroup() as tasks:
        shared = Shared(
            client(on.redis_url),
            ttl=300,
            fingerprint="bench",
            spawn=tasks.create_task,
            publish_otherwise=_nobody,
        )
        await shared.connect()
        await shared.begin()
        _, lease = await shared.look_up("list", (1,))
        if lease is None:
            raise RuntimeError("Redis gave no lease")
        shared.keep(lease, CachedResponse(b"x" * 1500, ()))
        await asyncio.sleep(0.1)

        async def once() -> None:
            kept, _ = await shared.look_up("list", (1,))
            if kept is None:
                raise RuntimeError("Redis has lost what it was to keep")

        found = await _used(once, on.redis_pid)
        await shared.close()
    return found


async def _read(connection: asyncpg.Connection, query: Any) -> Callable[[], Awaitable[None]]:
    chosen, values = items.listing.choose(query)
    number = query.page if isinstance(query.page, int) else 1
    values |= {"offset": (number - 1) * query.per_page, "limit": query.per_page + 1}
    page = items.listing.page(query.sort, chosen, "exact", first=number == 1)
    # Without a name it is planned at each use, as the service does.
    prepared = await connection.prepare(page.sql, name="" if page.by_values else None)
    args = [values[name] for name in page.names]

    async def once() -> None:
        records = await prepared.fetch(*args)
        [page.row(*record[: page.width]) for record in records if record[0] is not None]

    return once


async def _used(once: Callable[[], Awaitable[None]], store: int) -> tuple[float, float]:
    """Microseconds of CPU per call, of this process and of the store: medians of rounds."""
    used = []
    loop = asyncio.get_running_loop()
    for _ in range(ROUNDS):
        ours, theirs, calls = process_time(), cpu(store), 0
        until = loop.time() + SECONDS
        while loop.time() < until:
            await once()
            calls += 1
        await asyncio.sleep(0.02)  # the last tick is counted
        spent = (process_time() - ours, cpu(store) - theirs)
        used.append((spent[0] / calls * 1e6, spent[1] / calls * 1e6))
    return statistics.median(a for a, _ in used), statistics.median(b for _, b in used)


async def _nobody(_: object) -> None:
    return
