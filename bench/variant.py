"""`python -m bench.variant serve …`: the service with one change, for bench/trials.py.

Environment variables set the change: VARIANT_IN_FLIGHT, VARIANT_UNQUEUED, VARIANT_MAX_BATCH (of a
Batcher), VARIANT_PATIENCE (seconds), VARIANT_GC (the threshold; 0 never collects), VARIANT_FREEZE
(`0`: what the imports made is not frozen), VARIANT_HTTP (`httptools`: uvicorn's own),
VARIANT_PREPARED (`0`: each statement is parsed and planned at each use).
"""

import gc
from os import environ
from typing import Any, NamedTuple

import asyncpg
import uvicorn

import service.app_state
from service.cli import main
from service.db import batch, batcher, pooled_connection
from service.db.fitness import Fitness
from service.db.statement import Statement


def change() -> None:
    made = batcher.Batcher.__init__
    in_flight, unqueued, max_batch = (
        environ.get(f"VARIANT_{name}") for name in ("IN_FLIGHT", "UNQUEUED", "MAX_BATCH")
    )

    def make(self: batcher.Batcher, *args: Any, **options: Any) -> None:
        if options.get("unqueued") != 1:  # lists: each has a batcher of its own
            options |= {"in_flight": int(in_flight)} if in_flight else {}
            options |= {"unqueued": int(unqueued)} if unqueued else {}
        if max_batch and options["max_batch"] in (batch.READS, batch.WRITES):
            options["max_batch"] = int(max_batch)
        made(self, *args, **options)

    if patience := environ.get("VARIANT_PATIENCE"):
        batcher.PATIENCE = float(patience)
    batcher.Batcher.__init__ = make  # type: ignore[method-assign]  # that is the point
    if threshold := environ.get("VARIANT_GC"):
        service.app_state.GC_THRESHOLD = int(threshold)
    if environ.get("VARIANT_FREEZE") == "0":
        gc.freeze = lambda: None
    if environ.get("VARIANT_PREPARED") == "0":
        pooled_connection.PooledConnection.prepare = _nothing  # type: ignore[assignment,method-assign]  # that is the point
        pooled_connection.PooledConnection.statement = _unprepared  # type: ignore[method-assign,assignment]  # as above
    if http := environ.get("VARIANT_HTTP"):
        config = uvicorn.Config
        uvicorn.Config = lambda app, **options: config(app, **{**options, "http": http})  # type: ignore[assignment,misc]  # that is the point


class Unprepared(NamedTuple):
    """In the place of a prepared statement."""

    connection: asyncpg.Connection
    sql: str

    async def fetch(self, *args: object) -> list[asyncpg.Record]:
        return await self.connection.fetch(self.sql, *args)


async def _nothing(*_: object) -> Fitness:
    return Fitness(read_only=False, outdated=None, checked=False)


async def _unprepared(
    self: pooled_connection.PooledConnection, statement: Statement[Any]
) -> Unprepared:
    return Unprepared(self.connection, statement.sql)


if __name__ == "__main__":
    change()
    main()
