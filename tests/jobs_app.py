"""An application with jobs whose effects a test can count, for test_jobs.py and its processes.

A job writes a row of `effects` for each of its effects. Where it is told to stall, its first
attempt creates a file with the name of the step, and waits there until it is killed.
"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct
from sqlalchemy import BigInteger, Column, MetaData, Table, bindparam, insert

from service.app import create_app
from service.asgi import MIGRATIONS
from service.db.statement import Statement
from service.db.writable import WritableDatabase
from service.jobs import loop
from service.jobs.context import JobContext
from service.jobs.job import Job, JobFailedError
from service.jobs.queue import enqueue_many
from service.server import processes
from service.settings import Settings
from service.web.body import Body
from service.web.codec import Reply, encode
from service.web.endpoint import Operation
from service.web.request import Request

EFFECTS = "CREATE TABLE effects (n bigint NOT NULL, attempt bigint NOT NULL)"
STEPS = ("claimed", "middle", "committed", "marked")

effects = Table("effects", MetaData(), Column("n", BigInteger), Column("attempt", BigInteger))
_values = {name: bindparam(f"given_{name}", type_=BigInteger) for name in ("n", "attempt")}
add = Statement("effects.add", int, insert(effects).values(_values).returning(effects.c.n))


class Step(Struct):
    """The effect `n`, by a job that stalls at a step in its first attempt."""

    n: int
    stall: str = ""


class Steps(Struct):
    """What a test asks for: a job for each."""

    steps: Annotated[list[Step], Meta(max_length=1000)]


async def run(context: JobContext, step: Step) -> None:
    """Write the effect and the end of the job in one transaction."""

    async def reach(name: str) -> None:
        if step.stall == name and context.attempt == 1:
            (Path(os.environ["JOBS_FOLDER"]) / name).touch()
            await asyncio.sleep(3600)

    async def write(db: WritableDatabase) -> None:
        async with db.transaction() as one:
            await add.records(one, given_n=step.n, given_attempt=context.attempt)
            await reach("middle")
            if step.stall != "committed":
                await context.finish(one)

    if step.stall == "for ever":
        (Path(os.environ["JOBS_FOLDER"]) / "for ever").touch()
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
    await reach("claimed")
    await context.writer.run(write, lambda _: ())
    await reach("committed")
    await reach("marked")


async def fail(_: JobContext, step: Step) -> None:
    """Fail for good."""
    raise JobFailedError(f"no {step.n}", {"n": step.n})


steps = Job("step", Step, run, concurrency=8)
failing = Job("failing", Step, fail)
body = Body(Steps)


async def queue(request: Request) -> Reply:
    """Queue the jobs in one write."""
    given = (await request.body(body)).steps
    ids = await request.write(lambda db: enqueue_many(db, steps, given), lambda _: ())
    return Reply(encode({"ids": ids}), status=202)


operations = [Operation("POST", "/steps", queue, "Queue jobs", access="open")]
if lease := os.environ.get("JOBS_LEASE"):
    loop.LEASE_SECONDS = float(lease)
if seconds := os.environ.get("JOBS_STOP"):
    processes.DRAIN_SECONDS, processes.CLOSE_SECONDS = 0, int(seconds)
app = create_app(Settings.load(), routes=operations, jobs=[steps, failing], migrations=MIGRATIONS)
