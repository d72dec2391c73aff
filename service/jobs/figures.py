"""How many jobs wait and have failed, for the metrics."""

import asyncio
import random
from collections.abc import Collection
from contextlib import suppress

from service.db.database import Database
from service.errors import Problem
from service.jobs.figure_statements import Figures, figures
from service.metrics import Metrics, families

# Each worker asks so often, more or less. All have the same figures, so one of them is shown.
SAMPLE_SECONDS = 15.0


async def sample_always(db: Database, metrics: Metrics, kinds: Collection[str]) -> None:
    """Bring the figures of jobs up to date now and then, without an end."""
    while True:
        with suppress(Problem):  # the database logs it
            await sample(db, metrics, kinds)
        await asyncio.sleep(SAMPLE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads workers


async def sample(db: Database, metrics: Metrics, kinds: Collection[str]) -> None:
    """Bring the figures of jobs of these kinds up to date.

    Raises:
        Problem: the database is not available.
    """
    for record in await figures.records(db, kinds=list(kinds)):
        found = Figures(*record)
        metrics.set(families.JOBS_QUEUED, found.queued, found.kind)
        metrics.set(families.JOBS_FAILED, found.failed, found.kind)
        metrics.set(families.JOBS_WAITED, found.waited, found.kind)
