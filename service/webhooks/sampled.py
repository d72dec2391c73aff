"""How far behind webhooks are, for the metrics."""

import asyncio
import random
from contextlib import suppress

from service.db.database import Database
from service.errors import Problem
from service.metrics import Metrics, families
from service.webhooks import statements

# Each worker asks so often, more or less. All have the same figures, so one of them is shown.
SAMPLE_SECONDS = 15.0


async def sample_always(db: Database, metrics: Metrics) -> None:
    """Bring the figures of webhooks up to date now and then, without an end."""
    while True:
        with suppress(Problem):  # the database logs it
            await sample(db, metrics)
        await asyncio.sleep(SAMPLE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads workers


async def sample(db: Database, metrics: Metrics) -> None:
    """Bring the figures of webhooks up to date.

    Raises:
        Problem: the database is not available.
    """
    found = await statements.figures.only(db)
    metrics.set(families.WEBHOOK_LAG, found.lag)
    metrics.set(families.WEBHOOK_FAILURES, found.failures)
