"""Remove jobs that have ended long ago."""

import asyncio
import random
from contextlib import suppress
from functools import partial

from service.cache.writer import Writer
from service.db.writable import WritableDatabase
from service.errors import Problem
from service.jobs import statements

# How long jobs are kept after their end.
KEPT_DAYS = {"done": 7, "failed": 30}
# Seconds between two looks, in each worker.
TRIM_SECONDS = 600.0
# Jobs that are removed at once: 1,000 take some 10 ms.
TRIMMED_AT_ONCE = 1000


async def trim_always(writer: Writer) -> None:
    """Remove old jobs now and then, without an end; a database that is away is asked later."""
    while True:
        await asyncio.sleep(TRIM_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads workers
        with suppress(Problem):
            await trim(writer)


async def trim(writer: Writer) -> int:
    """Remove old jobs until there are none; return how many there were.

    Raises:
        Problem: the database is not available.
    """
    removed = 0
    for state, days in KEPT_DAYS.items():
        some = partial(_trim_some, state=state, kept=days * 86_400.0)
        while (count := await writer.run(some, lambda _: ())) > 0:
            removed += count
    return removed


async def _trim_some(db: WritableDatabase, state: str, kept: float) -> int:
    return await statements.trim.only(db, state, kept, TRIMMED_AT_ONCE)
