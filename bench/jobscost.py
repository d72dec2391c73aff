"""Trial: what a worker takes for a job, and how soon it begins one at rest."""

import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time
from typing import NamedTuple

import uvloop
from msgspec import Struct
from starlette.applications import Starlette

from bench.processes import cpu
from bench.stage import StagingTable, sql
from service.app import Application, create_app
from service.asgi import MIGRATIONS
from service.db.writable import WritableDatabase
from service.jobs.context import JobContext
from service.jobs.job import Job
from service.jobs.queue import enqueue
from service.settings import Settings

ROUNDS, JOBS, SAMPLES = 3, 2000, 200
BACKLOG = 100_000
# Jobs that have waited for an hour.
ADDED = (
    "INSERT INTO jobs (kind, argument, run_at)"
    " SELECT 'waiting', jsonb_build_object('n', n), now() - interval '1 hour'"
    " FROM generate_series(1, {number}) n"
)


class Number(Struct):
    """The place of a job."""

    n: int


class Took(NamedTuple):
    """The figures of a round: jobs per second; microseconds of CPU per job."""

    rate: float
    server: float
    database: float


async def _nothing(_: JobContext, __: Number) -> None: ...


async def _once(context: JobContext, _: Number) -> None:
    """Mark the job as done in a transaction of its own, as a job with an effect does."""

    async def write(db: WritableDatabase) -> None:
        async with db.transaction() as one:
            await context.finish(one)

    await context.writer.run(write, lambda _: ())


WAYS: tuple[tuple[str, int, Callable[[JobContext, Number], Awaitable[None]], int], ...] = (
    ("4 at a time", 4, _nothing, 0),
    ("16 at a time", 16, _nothing, 0),
    ("4 at a time, `finish` in a transaction", 4, _once, 0),
    (f"4 at a time, {BACKLOG:,} more wait", 4, _nothing, BACKLOG),
)


async def _round(on: StagingTable, job: Job[Number]) -> Took:
    """Let a worker run the first jobs of those that wait."""
    ran, all_ran = 0, asyncio.Event()

    async def counted(context: JobContext, number: Number) -> None:
        nonlocal ran
        await job.run(context, number)
        ran += 1
        if ran == JOBS:
            all_ran.set()

    counting = Job(job.kind, Number, counted, concurrency=job.concurrency)
    began, used, spent = perf_counter(), cpu(on.postmaster), process_time()
    async with _app(on, counting).lifespan_context(Starlette()):
        await all_ran.wait()
        took = perf_counter() - began
        server, database = process_time() - spent, cpu(on.postmaster) - used
    gc.unfreeze()
    return Took(JOBS / took, server / JOBS * 1e6, database / JOBS * 1e6)


def _app(on: StagingTable, job: Job[Number]) -> Application:
    given = {"DATABASE_URL": on.database_url, "REDIS_URL": "off", "SERVICE_LOG": "off"}
    settings = Settings.load({**given, "SERVICE_CACHE": "off", "SERVICE_METRICS": "off"})
    return create_app(settings, jobs=[job], migrations=MIGRATIONS)


async def _delays(on: StagingTable) -> list[float]:
    """Milliseconds from the answer of the write to the begin of its job, one job at a time."""
    begun: asyncio.Queue[float] = asyncio.Queue()

    async def run(_: JobContext, __: Number) -> None:
        begun.put_nowait(perf_counter())

    job = Job("soon", Number, run)
    delays = []
    async with _app(on, job).lifespan_context(Starlette()) as state:
        assert state is not None
        await asyncio.sleep(1)
        for _ in range(SAMPLES):
            await state["writer"].run(lambda db: enqueue(db, job, Number(1)), lambda _: ())
            written = perf_counter()
            delays.append((await begun.get() - written) * 1000)
            await asyncio.sleep(0.03)
    return sorted(delays)


def table(on: StagingTable) -> str:
    """Return a table in Markdown: medians of rounds, and the delay of a job at rest."""
    lines = [
        f"**What does a worker take for a job?** (`job-loop`, {JOBS:,} jobs that do nothing)",
        "",
        "| | jobs/s | CPU us per job: server | database |",
        "|---|---|---|---|",
    ]
    for title, at_once, run, more in WAYS:
        found = []
        for _ in range(ROUNDS):
            added = ADDED.format(number=JOBS + more)
            sql(on, "TRUNCATE jobs", added, "VACUUM (ANALYZE) jobs", "CHECKPOINT")
            job = Job("waiting", Number, run, concurrency=at_once)
            found.append(uvloop.run(_round(on, job)))
        rate, server, database = (statistics.median(part) for part in zip(*found, strict=True))
        lines.append(f"| {title} | {rate:,.0f} | {server:,.0f} | {database:,.0f} |")
    delays = uvloop.run(_delays(on))
    p50, p99 = (delays[int(len(delays) * part)] for part in (0.5, 0.99))
    last = f"A job begins {p50:.1f} ms after the answer of its write (p50), {p99:.1f} ms (p99)."
    return "\n".join([*lines, "", last, ""])
