"""A job as a response has it."""

import msgspec

from service.db.database import Database
from service.jobs.statements import JobRow, by_id
from service.jobs.structs import JobProgress, JobShown
from service.web.times import encode_rows


def encode_job(row: JobRow) -> bytes:
    """Return a job as JSON."""
    shown = JobShown(
        id=row.id,
        kind=row.kind,
        state=row.state,
        progress=JobProgress(row.done, row.total),
        attempts=row.attempts,
        result=None if row.result is None else msgspec.Raw(row.result.encode()),
        error=row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
    return encode_rows(shown, (shown,))


async def read_job(db: Database, id_: int) -> bytes:
    """Return a job that exists as JSON."""
    return encode_job(await by_id.only(db, id_))
