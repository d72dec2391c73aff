"""The CPU per request of each layer.

The figures of server and PostgreSQL come from the run (the server of the constant answer, the
database at `read` and `create`). `path` is what a request takes between socket and database, more
than a constant answer: routing, decoding, batching, encoding, headers. `statement` is our side of
a statement that BATCH requests share, per request. The layers are measured separately, so their sum
may differ from the whole.
"""

import statistics
from collections.abc import Awaitable, Callable
from decimal import Decimal
from time import process_time

import uvloop

from bench import guardcost, pathcost
from bench.result import Figure, Run, Table
from bench.stage import StagingTable
from service.db.batcher import Waiter
from service.db.database import Database
from service.db.writable import WritableDatabase
from service.items import items

TURNS, REPEATS = 200, 5
# Requests that share a statement: about what 64 connections cause.
BATCH = 32


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
    """Measure the path between socket and database, and a statement of BATCH requests."""
    kind = "create, cache off" if workload == "create" else "read, cache off"
    constant = min(await pathcost.measured("constant answer"))
    path = [each - constant for each in await pathcost.measured(kind)]
    prepared = (*items.by_id.prepared, *items.add.prepared)
    db = Database(on.database_url, size=4, statements=prepared)
    await db.open()
    try:
        if workload == "create":
            values = (None, "Brass Widget", "By the benchmark", Decimal("9.99"), True, None)
            writable = WritableDatabase(db)
            batch = [Waiter(None, values) for _ in range(BATCH)]
            statement = await _statement(lambda: items.add.insert(writable, batch))
        else:
            ids = [*range(1, BATCH + 1)]
            statement = await _statement(lambda: items.by_id.several(db, ids))
    finally:
        await db.close()
    return {"path": path, "statement": statement}


async def _statement(call: Callable[[], Awaitable[object]]) -> list[float]:
    found: list[float] = []
    for _ in range(REPEATS):
        start = process_time()
        for _ in range(TURNS):
            await call()
        found.append((process_time() - start) / TURNS / BATCH * 1e6)
    return found
