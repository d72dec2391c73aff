"""Trial: JSON of a list by PostgreSQL or by Python, CPU per page."""

import asyncio
import statistics
from time import process_time

import asyncpg
import uvloop

from bench.processes import cpu
from bench.stage import StagingTable
from service.items import items
from service.web.codec import encode

PAGES, ROUNDS = 400, 5


def table(on: StagingTable) -> str:
    """Return a table in Markdown: records and Structs against json_agg, for 10 and 100 rows."""
    lines = [
        "**Who should write the JSON of a list?** (`json-agg`)",
        "",
        "| rows | | CPU us: Python | database | both |",
        "|---|---|---|---|---|",
    ]
    for rows in (10, 100):
        found = uvloop.run(_measured(on, rows))
        for name, (python, database) in found.items():
            total = python + database
            lines.append(f"| {rows} | {name} | {python:.0f} | {database:.0f} | {total:.0f} |")
    return "\n".join([*lines, ""])


async def _measured(on: StagingTable, rows: int) -> dict[str, tuple[float, float]]:
    connection = await asyncpg.connect(on.database_url)
    page = items.listing.page("id", (), "none")
    records = await connection.prepare(page.sql)
    agg = await connection.prepare(f"SELECT json_agg(page)::text FROM ({page.sql}) page")
    used: dict[str, list[tuple[float, float]]] = {"records": [], "json_agg": []}

    async def by_records() -> None:
        found = await records.fetch(rows, 0)
        encode([page.row(*record[: page.width]) for record in found])

    async def by_json_agg() -> None:
        (await agg.fetchval(rows, 0)).encode()

    try:
        for _ in range(ROUNDS):
            for name, once in (("records", by_records), ("json_agg", by_json_agg)):
                ours, theirs = process_time(), cpu(on.postmaster)
                for _ in range(PAGES):
                    await once()
                await asyncio.sleep(0.02)  # so that the last tick is counted
                spent = (process_time() - ours, cpu(on.postmaster) - theirs)
                used[name].append((spent[0] / PAGES * 1e6, spent[1] / PAGES * 1e6))
    finally:
        await connection.close()
    return {
        name: (statistics.median(a for a, _ in runs), statistics.median(b for _, b in runs))
        for name, runs in used.items()
    }
