"""Remove files of the spool that no job needs any more."""

import asyncio
from contextlib import suppress

from service.db.database import Database
from service.errors import Problem
from service.jobs.spool import NoRoom, Spool, usable
from service.jobs.spool_statements import spooled

# Seconds between two looks.
EVERY_SECONDS = 600.0
# A part of a file that has not grown for so long has no request any more, see web/upload.py.
PART_SECONDS = 600.0
# A complete file without a job: the job is queued seconds later, or never. A day, so that a service
# that ran on another database for a while finds its files again.
ORPHAN_SECONDS = 86_400.0
# The file of a failed job, which can be tried again so long.
FAILED_SECONDS = 86_400.0


async def keep_clean(spool: Spool, db: Database) -> None:
    """Remove what is not needed now and then, without an end."""
    while True:
        with suppress(Problem):  # the database or the folder is away: later
            await clean(spool, db)
        await asyncio.sleep(EVERY_SECONDS)


async def clean(spool: Spool, db: Database, failed_seconds: float = FAILED_SECONDS) -> None:
    """Remove the files of jobs that are done, old ones of failed jobs, and those without a job.

    A worker removes the file of its job itself; here are those of workers that have died.

    Args:
        spool: the files.
        db: has the jobs.
        failed_seconds: the age of a file that its failed job loses.

    Raises:
        Problem: the database or the folder is not available.
    """
    with usable():
        files = await asyncio.to_thread(spool.files)
    places = spool.places()
    if not files or not places:
        return
    records = await spooled.records(db, place=places[0])
    states = {record["file"]: record["state"] for record in records}
    for file in files:
        if not file.complete:
            longest = PART_SECONDS
        else:
            longest = {None: ORPHAN_SECONDS, "done": 0.0, "failed": failed_seconds}.get(
                states.get(file.name), float("inf")
            )
        if file.age >= longest:
            spool.remove(file.name)


async def make_room(spool: Spool, db: Database, size: int) -> None:
    """Make sure that a file of this size fits; the files of failed jobs give way to it.

    Raises:
        NoRoom: it does not fit.
        Problem: the database or the folder is not available.
    """
    with usable():
        if await asyncio.to_thread(spool.has_room, size):
            return
        await clean(spool, db, failed_seconds=0.0)
        if not await asyncio.to_thread(spool.has_room, size):
            raise NoRoom
