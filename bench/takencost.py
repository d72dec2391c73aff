"""Trial: what requests with a taken key cost the others, by lookup or by dividing the batch."""

import asyncio
import statistics
from contextlib import suppress
from time import perf_counter, process_time
from typing import Any, NamedTuple

import uvloop

from bench.processes import cpu
from bench.stage import StagingTable, sql
from service.db.batch import GroupCommit
from service.db.database import Database
from service.db.statement import Statement
from service.db.unique_commit import UniqueCommit
from service.db.writable import WritableDatabase
from service.errors import Taken
from service.items import items

ROUNDS, REQUESTS, CLIENTS = 4, 2000, 64
# Of a thousand requests, those whose key is taken.
SHARES = (0, 10, 50, 200)
WAYS: dict[str, GroupCommit[Any]] = {
    "lookup": items.add,
    "division": GroupCommit("divided.add", items.row, items.table, items.new, key="sku"),
}


class Took(NamedTuple):
    """The figures of a round; statements and microseconds of CPU per request."""

    rate: float
    statements: float
    server: float
    database: float


class Counting(Database):
    """Counts the statements that it runs."""

    ran = 0

    async def fetch(self, statement: Statement[Any], args: Any, *, writing: bool = False) -> Any:
        self.ran += 1
        return await super().fetch(statement, args, writing=writing)


async def _round(on: StagingTable, way: GroupCommit[Any], share: int) -> Took:
    db = Counting(on.database_url, statements=way.prepared)
    await db.open()
    try:
        writable, numbers = WritableDatabase(db), iter(range(REQUESTS))

        async def client() -> None:
            for n in numbers:
                sku = "taken" if n * share // 1000 < (n + 1) * share // 1000 else f"New {n}"
                with suppress(Taken):
                    await way.run(writable, (sku, "Item", None, None, True, None))

        began, ran = perf_counter(), db.ran
        used, spent = cpu(on.postmaster), process_time()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        took, own = perf_counter() - began, process_time() - spent
        await asyncio.sleep(0.02)  # so that the last tick is counted
        database = cpu(on.postmaster) - used
        each = 1e6 / REQUESTS
        return Took(REQUESTS / took, (db.ran - ran) / REQUESTS, own * each, database * each)
    finally:
        await db.close()


def table(on: StagingTable) -> str:
    """Return a table in Markdown: medians of rounds."""
    assert isinstance(items.add, UniqueCommit)
    lines = [
        f"**What does a taken key cost?** (`taken-keys`, {CLIENTS} clients, {REQUESTS:,} rows)",
        "",
        "| taken of 1,000 | by | requests/s | statements each | CPU us each: server | database |",
        "|---|---|---|---|---|---|",
    ]
    for share in SHARES:
        found: dict[str, list[Took]] = {name: [] for name in WAYS}
        for number in range(ROUNDS):
            for name, way in list(WAYS.items())[:: 1 if number % 2 else -1]:
                row = "INSERT INTO items (sku, name) VALUES ('taken', 'Item')"
                sql(on, "TRUNCATE items CASCADE", row, "CHECKPOINT")
                found[name].append(uvloop.run(_round(on, way, share)))
        for name, runs in found.items():
            rate, statements, server, database = map(statistics.median, zip(*runs, strict=True))
            lines.append(
                f"| {share} | {name} | {rate:,.0f} | {statements:.3f} | {server:.0f} |"
                f" {database:.0f} |"
            )
    return "\n".join([*lines, ""])
