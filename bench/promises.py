"""Check the promises of the cache under load: no stale reads, limited memory.

A probe changes a row through one of two workers and reads it through both, at rest and under full
load by wrk. On the worker that answered the change every later read must show it. On the other one
the delay after the answer is measured. A worker must not show an older state after a newer one.
"""

import asyncio
import statistics
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec

from bench.contestants import BY_NAME, DATABASE, OURS
from bench.measure import measure
from bench.processes import forget_peak, peak
from bench.stage import Server, StagingTable, fill, served, stage
from bench.workloads import Cell

ITEMS, MANY = 100_000, 1_000_000
PROBES = 300
# Limit of the cache: the default of `swiftlet serve`, in MiB.
ALLOWED = 64
SERVICE = BY_NAME[OURS]._replace(database=DATABASE)
Say = Callable[[str], None]


class Found(NamedTuple):
    """Milliseconds from the answer to a change until the other worker shows it; broken promises."""

    load: str
    probes: int
    p50: float
    p99: float
    most: float
    violations: int


class Client:
    """One connection to one worker."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.worker = ""

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        if not answer.startswith("http/1.1 200"):
            raise RuntimeError(f"{method} {path}: {answer.splitlines()[0]}")
        headers = dict(line.split(": ", 1) for line in answer.split("\r\n")[1:] if line)
        self.worker = headers["x-request-id"].partition("-")[0]
        return await self.reader.readexactly(int(headers["content-length"]))


class Probe:
    """Changes a row, and reads it and the list of its owner through both workers."""

    def __init__(self, here: Client, there: Client, row_id: int) -> None:
        self.here, self.there = here, there
        self.path = f"/items/{row_id}"
        self.shown: dict[tuple[str, str], int] = {}
        self.violations = 0

    async def version(self, client: Client, path: str) -> int:
        found = msgspec.json.decode(await client.ask("GET", path))
        rows = found.get("items", [found])
        version = max(
            (row["version"] for row in rows if f"/items/{row['id']}" == self.path), default=0
        )
        place = (client.worker, path)
        if version < self.shown.get(place, 0):
            self.violations += 1
        self.shown[place] = max(version, self.shown.get(place, 0))
        return int(version)

    async def once(self, number: int, listed: str) -> float:
        """Return milliseconds until the other worker shows the change in the row and the list."""
        for client in (self.here, self.there):
            for path in (self.path, listed):
                await self.version(client, path)
        body = b'{"price": %d.%02d}' % (number, number % 100)
        changed = msgspec.json.decode(await self.here.ask("PATCH", self.path, body))["version"]
        answered = perf_counter()
        took = 0.0
        for path in (self.path, listed):
            while True:
                began = perf_counter()
                if await self.version(self.there, path) >= changed:
                    took = max(took, (began - answered) * 1000)
                    break
        for path in (self.path, listed):
            self.violations += await self.version(self.here, path) < changed
        return took


def staleness(seconds: int, say: Say) -> list[Found]:
    """Run the probe at rest, then during the mixed workload for a number of seconds."""
    with _standing(ITEMS, workers=2) as (on, server):
        say("two workers, at rest")
        found = [asyncio.run(_probe(server, "at rest", PROBES, None))]
        say(f"two workers, during 80/15/5 at 64 connections, {seconds} s")
        found.append(asyncio.run(_beside(server, on, seconds)))
    return found


def memory(say: Say) -> tuple[float, float, int]:
    """Return MiB before and at most, and the number of ids, while each id is read once."""
    say(f"{MANY:,} items")
    with _standing(MANY, workers=1) as (on, server):
        measure(server, on, Cell("read", 64, 1, 1_000), 1, 0)
        forget_peak(server.pid)
        before = peak(server.pid)
        read = 0
        while read < MANY:
            read += measure(server, on, Cell("sweep", 64, 1, read + 1), 20, 0).requests
            say(f"{read:,} ids read, {peak(server.pid) - before:.0f} MiB more")
        return before, peak(server.pid), read


@contextmanager
def _standing(items: int, workers: int) -> Iterator[tuple[StagingTable, Server]]:
    with tempfile.TemporaryDirectory(prefix="promises-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL runs as another user under root
        with stage(directory) as on:
            fill(on, items)
            with served(SERVICE, on, workers) as server:
                yield on, server


async def _beside(server: Server, on: StagingTable, seconds: int) -> Found:
    cell = Cell("mixed", 64, 2, ITEMS)
    load = asyncio.create_task(asyncio.to_thread(measure, server, on, cell, seconds, 1))
    await asyncio.sleep(0.5)
    found = await _probe(server, "80/15/5 at 64 connections", 10_000, load)
    await load
    return found


async def _probe(
    server: Server, load: str, most: int, until: "asyncio.Task[object] | None"
) -> Found:
    delays = []
    async with _both(server.port) as (here, there):
        owner = msgspec.json.decode(await here.ask("GET", "/items/1"))["owner_id"]
        probe = Probe(here, there, 1)
        listed = f"/items?owner_id={owner}&total=none" if owner else "/items?total=none"
        for number in range(most):
            if until is not None and until.done():
                break
            delays.append(await probe.once(number, listed))
    delays.sort()
    p99 = delays[int(len(delays) * 0.99)]
    middle = statistics.median(delays)
    return Found(load, len(delays), middle, p99, delays[-1], probe.violations)


@asynccontextmanager
async def _both(port: int) -> AsyncIterator[tuple[Client, Client]]:
    """Connect to both workers; the kernel chooses the worker, so try until both are found."""
    clients: dict[str, Client] = {}
    opened: list[Client] = []
    try:
        while len(clients) < 2:
            client = Client(*await asyncio.open_connection("127.0.0.1", port))
            opened.append(client)
            await client.ask("GET", "/health")
            clients.setdefault(client.worker, client)
        here, there = clients.values()
        yield here, there
    finally:
        for client in opened:
            client.writer.close()
            with suppress(OSError):
                await client.writer.wait_closed()
