"""Queue a job in the transaction of what causes it."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from service.db.statement import Runner
from service.jobs import statements
from service.jobs.job import Job

Argument = TypeVar("Argument", bound=Struct)


async def enqueue(
    db: Runner,
    job: Job[Argument],
    argument: Argument,
    *,
    user_id: int | None = None,
    place: str | None = None,
    delay: float = 0.0,
) -> int:
    """Queue a job, and return its id: in the transaction of `db`, or in one of its own.

    ```python
    async def order(request: Request) -> Reply:
        async def write(db: WritableDatabase) -> Order:
            async with db.transaction() as one:
                made = await insert.only(one, ...)
                await enqueue(one, confirmations, Confirmation(made.id))
            return made
    ```

    Args:
        db: of a write, see cache.writer.Writer.run; also a connection for files.
        job: its kind.
        argument: stored as JSON.
        user_id: who may see the job besides admins.
        place: only a worker with this place runs it; None for any.
        delay: seconds until it is due.

    Raises:
        Problem: see errors.from_database; nothing was queued.
    """
    (found,) = await enqueue_many(db, job, [argument], user_id=user_id, place=place, delay=delay)
    return found


async def enqueue_many(
    db: Runner,
    job: Job[Argument],
    arguments: Sequence[Argument],
    *,
    user_id: int | None = None,
    place: str | None = None,
    delay: float = 0.0,
) -> list[int]:
    """Queue a job for each argument in one statement, and return their ids; see `enqueue`."""
    texts = [msgspec.json.encode(argument).decode() for argument in arguments]
    records = await db.fetch(statements.enqueue, (job.kind, user_id, place, delay, texts))
    return [record[0] for record in records]
