"""Trial: what a worker takes to post a change to a webhook, and how soon it does so at rest."""

import asyncio
import gc
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter, process_time
from typing import NamedTuple

import uvloop
from starlette.applications import Starlette

from bench.processes import cpu
from bench.stage import StagingTable, sql
from service.asgi import built_in
from service.settings import Settings
from service.webhooks import registry

ROUNDS, CHANGES, SAMPLES = 3, 5000, 200
# A receiver in a process of its own: it answers at once, and prints when each post came.
RECEIVER = """
import asyncio, sys, time, uvloop

class Receiver(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.data = transport, b""

    def data_received(self, data):
        self.data += data
        while (head := self.data.find(b"\\r\\n\\r\\n")) >= 0:
            length = int(self.data[:head].lower().split(b"content-length: ")[1].split(b"\\r\\n")[0])
            if len(self.data) < head + 4 + length:
                return
            self.data = self.data[head + 4 + length:]
            print(time.perf_counter(), flush=True)
            self.transport.write(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")

async def main():
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

uvloop.run(main())
"""
INSERT = "INSERT INTO items (name) SELECT 'Widget ' || n FROM generate_series(1, {}) n"


class Took(NamedTuple):
    """The figures of a round: changes per second; microseconds of CPU per change."""

    rate: float
    server: float
    database: float


class Posts:
    """What a receiver has printed."""

    def __init__(self, lines: asyncio.StreamReader) -> None:
        self._lines = lines

    async def next(self) -> float:
        """Return the number on the next line."""
        return float(await self._lines.readline())


@asynccontextmanager
async def _posting(on: StagingTable) -> AsyncIterator[Posts]:
    """Serve with one webhook, and yield its posts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RECEIVER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    posts = Posts(process.stdout)
    port = int(await posts.next())
    given = {"DATABASE_URL": on.database_url, "REDIS_URL": "off", "SERVICE_LOG": "off"}
    more = {"SERVICE_CACHE": "off", "SERVICE_METRICS": "off", "SERVICE_SECRET": "s" * 32}
    app = built_in(Settings.load({**given, **more}))
    try:
        async with app.lifespan_context(Starlette()) as state:
            assert state is not None
            url = f"http://127.0.0.1:{port}/"
            await state["writer"].run(lambda db: registry.add(db, url, "items"), lambda _: ())
            # The first post imports httpx.
            await _insert(on, 1)
            await posts.next()
            yield posts
    finally:
        process.kill()
        await process.wait()
    gc.unfreeze()


async def _insert(on: StagingTable, number: int) -> None:
    await asyncio.to_thread(sql, on, INSERT.format(number))


async def _round(on: StagingTable) -> Took:
    async with _posting(on) as posts:
        await _insert(on, CHANGES)
        began, used, spent = perf_counter(), cpu(on.postmaster), process_time()
        for _ in range(CHANGES):
            last = await posts.next()
        server, database = process_time() - spent, cpu(on.postmaster) - used
    return Took(CHANGES / (last - began), server / CHANGES * 1e6, database / CHANGES * 1e6)


async def _delays(on: StagingTable) -> list[float]:
    """Milliseconds from the answer of a write to its post, one at a time."""
    delays = []
    async with _posting(on) as posts:
        for _ in range(SAMPLES):
            await _insert(on, 1)
            written = perf_counter()
            delays.append((await posts.next() - written) * 1000)
            await asyncio.sleep(0.03)
    return sorted(delays)


def table(on: StagingTable) -> str:
    """Return the medians of rounds, and the delay of a post at rest, in Markdown."""
    found = []
    for _ in range(ROUNDS):
        sql(on, "TRUNCATE webhooks CASCADE", "TRUNCATE jobs", "CHECKPOINT")
        found.append(uvloop.run(_round(on)))
    rate, server, database = (statistics.median(part) for part in zip(*found, strict=True))
    sql(on, "TRUNCATE webhooks CASCADE", "TRUNCATE jobs")
    delays = uvloop.run(_delays(on))
    p50, p99 = (delays[int(len(delays) * part)] for part in (0.5, 0.99))
    return "\n".join(
        (
            f"**What does a worker take to post a change?** (`webhooks`, {CHANGES:,} new items)",
            "",
            "| changes/s | CPU us per change: server | database |",
            "|---|---|---|",
            f"| {rate:,.0f} | {server:,.0f} | {database:,.0f} |",
            "",
            f"A change is posted {p50:.1f} ms after its commit (p50), {p99:.1f} ms (p99).",
            "",
        )
    )
