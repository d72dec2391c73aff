"""Trial: upsert a thousand rows, half of them existing: one request, or one by one (reference).

The client is minimal, so that many requests do not cost much more on its side: prepared bytes on
open connections.
"""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import uvloop

from bench.contestants import BY_NAME, DATABASE, PLAIN
from bench.processes import cpu
from bench.stage import Server, StagingTable, keep_totals, served, settle, sql

ITEMS = 100_000
ROWS = 1_000
ROUNDS, BATCHES = 5, 10


class Way(NamedTuple):
    """A way to upsert the rows: its requests and its number of connections."""

    title: str
    contestant: str
    requests: Callable[[list[dict[str, Any]]], Iterable[bytes]]
    connections: int
    batches: int


class Took(NamedTuple):
    """The figures of a round: rows per second; microseconds of CPU per row."""

    rate: float
    server: float
    database: float


def table(on: StagingTable) -> str:
    """Return a table in Markdown: medians of rounds, and the median ratio within a round."""
    named(on)
    sql(on, "VACUUM (FULL, ANALYZE) items", "VACUUM (ANALYZE) items", "CHECKPOINT")
    found: dict[str, list[Took]] = {way.title: [] for way in WAYS}
    with ExitStack() as held:
        servers = {
            name: held.enter_context(served(BY_NAME[name]._replace(database=DATABASE), on, 1))
            for name in dict.fromkeys(way.contestant for way in WAYS)
        }
        for number in range(ROUNDS + 1):
            shift = number % len(WAYS)
            for way in (*WAYS[shift:], *WAYS[:shift]):
                took = _round(on, servers[way.contestant], way, number)
                if number:  # the first is a warm-up
                    found[way.title].append(took)
    head = f"| {ROWS:,} rows, half of them there | rows/s | CPU us per row: server | database |"
    lines = [
        "**What does an upsert of many rows save?** (`upsert`)",
        "",
        f"{head} rows/s, times |",
        "|---|---|---|---|---|",
    ]
    first = [one.rate for one in found[WAYS[0].title]]
    for title, runs in found.items():
        rates = [one.rate for one in runs]
        server = statistics.median(one.server for one in runs)
        database = statistics.median(one.database for one in runs)
        ratio = statistics.median(a / b for a, b in zip(first, rates, strict=True))
        lines.append(
            f"| {title} | {statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
            f" | {server:,.1f} | {database:,.1f} | {ratio:.1f} |"
        )
    return "\n".join([*lines, ""])


def _round(on: StagingTable, of: Server, way: Way, number: int) -> Took:
    keep_totals(on, kept=way.contestant == PLAIN)
    sql(on, "CHECKPOINT")
    batches = [list(way.requests(rows(f"{way.title} {number} {n}"))) for n in range(way.batches)]
    used = [cpu(pid) for pid in (of.pid, on.postmaster)]
    took = uvloop.run(sent(of.port, batches, way.connections))
    time.sleep(0.02)  # so that the last tick is counted
    server, database = (
        cpu(pid) - before for pid, before in zip((of.pid, on.postmaster), used, strict=True)
    )
    count = ROWS * way.batches
    settle(on, ITEMS)
    return Took(count / took, server / count * 1e6, database / count * 1e6)


def named(on: StagingTable) -> None:
    """Give existing rows the skus of the upsert."""
    sql(on, f"UPDATE items SET sku = 'U-' || id WHERE id <= {ITEMS}")


def rows(seed: str, items: int = ITEMS) -> list[dict[str, Any]]:
    """Return rows in random order: half with the `id` and sku of an existing row, half new."""
    chance = random.Random(seed)
    rows: list[dict[str, Any]] = [
        {"id": n, "sku": f"U-{n}"} for n in chance.sample(range(1, items + 1), ROWS // 2)
    ]
    rows += [{"id": None, "sku": f"N-{chance.random()}"} for _ in range(ROWS - len(rows))]
    for row in rows:
        row |= {"name": f"Brass Widget {chance.random():.6f}", "description": "Made by a trial"}
        row["price"] = chance.randrange(10**6) / 100
    chance.shuffle(rows)
    return rows


def together(given: list[dict[str, Any]]) -> Iterator[bytes]:
    items = [{name: value for name, value in row.items() if name != "id"} for row in given]
    yield _request("PUT", "/items/bulk", {"items": items})


def _singly(rows: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yield requests as if the client knew existing ids; the reference has no sku."""
    for row in rows:
        fields = {name: value for name, value in row.items() if name != "id"}
        if row["id"] is None:
            yield _request("POST", "/items", fields)
        else:
            yield _request("PUT", f"/items/{row['id']}", fields)


def _request(method: str, path: str, body: object) -> bytes:
    text = json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


async def sent(port: int, batches: list[list[bytes]], connections: int) -> float:
    """Send batches one after the other; return the seconds until all are answered."""
    held = [
        await asyncio.open_connection("127.0.0.1", port, limit=2**20) for _ in range(connections)
    ]
    started = time.perf_counter()
    for batch in batches:
        waiting = iter(batch)
        await asyncio.gather(*(_ask(*one, waiting) for one in held))
    took = time.perf_counter() - started
    for _, writer in held:
        writer.close()
    return took


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: Iterator[bytes]
) -> None:
    for request in waiting:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(size)
        if not head.startswith((b"http/1.1 200", b"http/1.1 201")):
            raise RuntimeError(f"{request[:60]!r} is answered {head[:20]!r}: {body[:200]!r}")
        if b"/items/bulk" in request[:20]:
            if f'"created":{ROWS // 2},"updated":{ROWS - ROWS // 2},'.encode() not in body[:60]:
                raise RuntimeError(f"not half of the rows were there: {body[:60]!r}")
            if b'"1 statements"' not in head:
                raise RuntimeError(f"more than one round trip: {head!r}")


WAYS = (
    Way("Swiftlet, one request", PLAIN, together, 1, BATCHES),
    Way("Swiftlet, one by one, 64 connections", PLAIN, _singly, 64, BATCHES),
    Way("FastAPI reference, one by one, 64 connections", "reference", _singly, 64, 2),
    Way("FastAPI reference, one by one, 1 connection", "reference", _singly, 1, 1),
)
