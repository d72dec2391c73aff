"""The CPU per request of each layer.

The figures of server and PostgreSQL come from the run (the server of the constant answer, the
database at `read` and `create`). Routing, decoding, statement and encoding are measured in this
process, on one event loop, with 64 concurrent requests for layers that wait. The layers are
measured separately, so their sum may differ from the whole.
"""

import asyncio
import itertools
import statistics
from collections.abc import Awaitable, Callable
from decimal import Decimal
from time import process_time
from typing import Any

import uvloop
from starlette.types import Message, Scope

from bench import guardcost
from bench.result import Figure, Run, Table
from bench.stage import StagingTable
from service.asgi import app as built_in
from service.cache.off import NoCache
from service.db.database import Database
from service.db.writable import WritableDatabase
from service.items import items
from service.items.structs import Item, NewItem
from service.settings import Settings
from service.web.body import Body
from service.web.codec import Reply, encode
from service.web.cursor import Cursors
from service.web.request import Request
from service.web.routing import Paths

new_item = Body(NewItem)
TURNS = 4_000
REPEATS = 5
AT_ONCE = 64
BODY = b'{"name": "Brass Widget 123", "description": "Made by the benchmark", "price": 29.99}'


def tables(on: StagingTable, runs: list[Run]) -> list[Table]:
    """Return tables for reading and creating an item, if the run has them, and for checks."""
    found = [
        table
        for name, title in (("read", "Read one item"), ("create", "Create"))
        if (table := _table(on, runs, name, title)) is not None
    ]
    return [*found, _checks()]


def _checks() -> Table:
    """Return what metrics, API keys and rate limits add to a cached read."""
    off, *others = guardcost.measured().items()
    figures = []
    for name, used in others:
        more = sorted(one - other for one, other in zip(used, off[1], strict=True))
        least, middle, most = statistics.quantiles(more, n=4)
        figures.append(Figure(name, middle, least, most))
    about = "More CPU than without them; without the socket. Median and quartiles of many rounds."
    return Table("checks-hit", "Metrics, keys and limits: a cached read", "us", about, figures)


def _table(on: StagingTable, runs: list[Run], workload: str, title: str) -> Table | None:
    whole = _of(runs, workload, "swiftlet-plain", lambda run: run.cpu.total)
    server = _of(runs, "constant", "constant", lambda run: run.cpu.server)
    database = _of(runs, workload, "swiftlet-plain", lambda run: run.cpu.database)
    if whole is None or server is None or database is None:
        return None
    inside = uvloop.run(_inside(on, workload))
    figures = [
        Figure("server", *server),
        *(Figure(name, statistics.median(v), min(v), max(v)) for name, v in inside.items()),
        Figure("database", *database),
        Figure("whole", *whole),
    ]
    about = (
        "CPU per request at 64 connections, cache off; the parts are measured apart, the whole at"
        " once."
    )
    return Table(f"layers-{workload}", f"The layers of a request: {title}", "us", about, figures)


def _of(
    runs: list[Run], workload: str, contestant: str, value: Callable[[Run], float]
) -> tuple[float, float, float] | None:
    found = [
        value(run)
        for run in runs
        if (run.workload, run.contestant, run.connections, run.workers, run.offered)
        == (workload, contestant, 64, 1, None)
    ]
    return (statistics.median(found), min(found), max(found)) if found else None


async def _inside(on: StagingTable, workload: str) -> dict[str, list[float]]:
    settings = Settings(database_url=on.database_url)
    prepared = (*items.by_id.prepared, *items.add.prepared)
    db = Database(on.database_url, size=4, statements=prepared)
    ids = itertools.cycle(range(1, 1001))
    await db.open()
    try:
        item = await items.by_id.get(db, 1)
        found = {"routing": await _routing(db, settings)}
        if workload == "create":
            found["decode"] = _timed(lambda: new_item.decode(BODY))
            values = (None, "Brass Widget", "By the benchmark", Decimal("9.99"), True, None)
            writable = WritableDatabase(db)
            found["statement"] = await _statement(lambda: items.add.run(writable, values))
        else:
            found["statement"] = await _statement(lambda: items.by_id.get(db, next(ids)))
        found["encode"] = _timed(lambda: encode(item))
    finally:
        await db.close()
    return found


async def _routing(db: Database, settings: Settings) -> list[float]:
    """Measure the code between server and handler: router, endpoint, headers."""

    async def handler(_: Request) -> Reply:
        return reply

    reply = Reply(b"{}")
    replaced = [one._replace(handler=handler) for one in built_in.operations]
    app = Paths(replaced)
    state = {"db": db, "settings": settings, "cursors": Cursors("x" * 32), "cache": NoCache()}
    state["guard"] = None
    state["metrics"] = None
    state["tracer"] = None

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(_: Message) -> None:
        return

    async def once() -> None:
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": "/items/1",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"bench")],
            "state": state,
        }
        await app(scope, receive, send)

    found: list[float] = []
    for _ in range(REPEATS):
        start = process_time()
        for _ in range(TURNS):
            await once()
        found.append((process_time() - start) / TURNS * 1e6)
    return found


async def _statement(call: Callable[[], Awaitable[Item | None]]) -> list[float]:
    async def one_after_another() -> None:
        for _ in range(TURNS // AT_ONCE):
            await call()

    found: list[float] = []
    for _ in range(REPEATS):
        start = process_time()
        await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
        found.append((process_time() - start) / (TURNS // AT_ONCE * AT_ONCE) * 1e6)
    return found


def _timed(work: Callable[[], Any]) -> list[float]:
    found: list[float] = []
    for _ in range(REPEATS):
        start = process_time()
        for _ in range(TURNS):
            work()
        found.append((process_time() - start) / TURNS * 1e6)
    return found
