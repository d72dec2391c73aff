"""A batch that was refused is divided until only the requests that are to blame fail."""

import asyncio

from service.db.batcher import AnyDatabase, RunBatch, RunOne, Waiter
from service.errors import Locked, Problem

# Statuses for which no member of a batch is to blame: each gets the answer, none is tried again.
COMMON = frozenset({500, 503, 504})


async def bisect_on_error(
    db: AnyDatabase, batch: list[Waiter], run_one: RunOne, run_many: RunBatch
) -> None:
    """Run a batch; if a row of it is refused nothing was written, so each half runs by itself.

    In the end only requests that are to blame are refused, in two statements per level: 14 for one
    in 128. A lock that another transaction holds has cost time already, so then each request runs
    by itself at once.
    """
    spent = batch[0].batch
    if spent is not None and spent.span is not None:
        spent.span.serve(batch)
    try:
        if len(batch) == 1:
            batch[0].answer(await run_one(db, batch[0].args))
        else:
            await run_many(db, batch)
    except Locked as problem:
        if len(batch) == 1:
            batch[0].refuse(problem)
        else:  # which row is locked shows when each request waits for its own
            alone = (bisect_on_error(db, [waiter], run_one, run_many) for waiter in batch)
            await asyncio.gather(*alone)
    except Problem as problem:
        if len(batch) == 1 or problem.status in COMMON:
            for waiter in batch:
                waiter.refuse(problem)
            return
        middle = len(batch) // 2
        await bisect_on_error(db, batch[:middle], run_one, run_many)
        await bisect_on_error(db, batch[middle:], run_one, run_many)
