"""Makes the profile's table through COPY: `python -m bench.httparena.seed [ROWS]`."""

import asyncio
import os
import sys

import asyncpg
from sqlalchemy.schema import CreateTable

from bench.httparena.app import items

CATEGORIES = ("electronics", "office", "kitchen", "garden", "sports")
INDEXES = "ALTER TABLE items ADD PRIMARY KEY (id); CREATE INDEX ON items (category, id)"


async def seed(url: str, rows: int = 100_000) -> None:
    """The same rows each time; a table `items` that is there is dropped."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP TABLE IF EXISTS items; {CreateTable(items)}; {INDEXES}")
    records = []
    for n in range(1, rows + 1):
        new = (n, f"Item {n}", CATEGORIES[n % 5], n * 7919 % 1000, n * 104729 % 500)
        records.append((*new, n % 10 > 0, f'["new", "tag{n % 7}"]', n * 31 % 50, n * 37 % 997))
    await connection.copy_records_to_table("items", records=records)
    await connection.execute("VACUUM (ANALYZE) items")
    await connection.close()


if __name__ == "__main__":
    asyncio.run(seed(os.environ["DATABASE_URL"], *map(int, sys.argv[1:])))
