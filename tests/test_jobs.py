"""Jobs: queued with what causes them, run at least once whatever dies, and never lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from conftest import query
from msgspec import Struct
from starlette.applications import Starlette

from service.app import create_app
from service.asgi import MIGRATIONS
from service.jobs import statements
from service.jobs.context import JobContext
from service.jobs.job import Job
from service.jobs.queue import enqueue
from service.settings import Settings

pytestmark = pytest.mark.anyio


class Number(Struct):
    n: int = 0


@pytest.fixture
def url(own_database_url: str) -> str:
    query(own_database_url, "DELETE FROM jobs")
    return own_database_url


def rows(url: str, columns: str = "*", where: str = "true") -> list[asyncpg.Record]:
    return query(url, f"SELECT {columns} FROM jobs WHERE {where} ORDER BY id")


@asynccontextmanager
async def running(url: str, *jobs: Job[Any], **options: str) -> AsyncIterator[Any]:
    """An application with these jobs in this process; yields what its lifespan has opened."""
    given = {"DATABASE_URL": url, "REDIS_URL": "off", "SERVICE_CACHE": "off"}
    app = create_app(Settings.load({**given, **options}), jobs=jobs, migrations=MIGRATIONS)
    async with app.lifespan_context(Starlette()) as state:
        yield state


async def ended(state: Any, job_id: int) -> Any:
    """The job, as soon as it is done or has failed."""
    async with asyncio.timeout(30):
        while True:
            row = await statements.by_id.get(state["db"], job_id)
            assert row is not None
            if row.state in {"done", "failed"}:
                return row
            await asyncio.sleep(0.01)


def queued(state: Any, job: Job[Any], argument: Struct, **options: Any) -> Any:
    """Queue a job in a write of its own."""
    return state["writer"].run(lambda db: enqueue(db, job, argument, **options), lambda _: ())


async def test_a_job_runs_and_its_result_is_kept(url: str) -> None:
    async def double(context: JobContext, number: Number) -> dict[str, int]:
        await context.progress(1, 2)
        await context.progress(2, 2)
        assert (context.attempt, context.user_id) == (1, 7)
        return {"twice": 2 * number.n}

    job = Job("double", Number, double)
    async with running(url, job) as state:
        row = await ended(state, await queued(state, job, Number(4), user_id=7))
    assert (row.state, row.result, row.done, row.total) == ("done", '{"twice": 8}', 2, 2)
    assert (row.attempts, row.error) == (1, None)
