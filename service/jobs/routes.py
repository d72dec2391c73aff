"""`GET /jobs`, `GET /jobs/{id}` and `POST /jobs/{id}/retry`."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from service.errors import Conflict, NotFound
from service.jobs import statements
from service.jobs.statements import JobRow
from service.jobs.structs import Job, JobState, Kind, Progress
from service.web import paging
from service.web.codec import Query, Reply
from service.web.endpoint import Operation, Tag
from service.web.paging import CursorPage
from service.web.request import Request
from service.web.times import encode_rows

PATH = "/jobs"
TAG = Tag("jobs", "Work that outlives its request")


class JobQuery(Struct, frozen=True):
    """The parameters of the list."""

    cursor: Annotated[
        str, Meta(description="Where to go on: the `next_cursor` of the page before")
    ] = ""
    per_page: Annotated[int, Meta(ge=1, le=100)] = 10
    state: Annotated[JobState, Meta(description="Only jobs in this state")] | UnsetType = UNSET
    kind: Annotated[Kind, Meta(description="Only jobs of this kind")] | UnsetType = UNSET


class JobPage(CursorPage[Job], frozen=True):
    """A page of jobs, the newest first; `next_cursor` is null on the last page."""


_query = Query(JobQuery)


def encode_job(row: JobRow) -> bytes:
    """Return the JSON of a job."""
    progress = Progress(row.done, row.total)
    # The result is JSON already, and may have any names: so it is added to what is encoded.
    job = Job(
        row.id,
        row.kind,
        row.state,  # type: ignore[arg-type]  # the table has a CHECK
        progress,
        row.attempts,
        UNSET,
        row.error,
        row.created_at,
        row.finished_at,
    )
    return encode_rows(job, (job,))[:-1] + b',"result":%b}' % (row.result or "null").encode()


async def list_jobs(request: Request) -> Reply:
    """Return jobs, the newest first, by cursor."""
    query = request.query(_query)
    state, kind = _given(query.state), _given(query.kind)
    binding = msgspec.msgpack.encode(("jobs", state, kind))
    cursors, before = request.state["cursors"], None
    if query.cursor:
        (before,) = cursors.read(query.cursor, tuple[int], binding)
    records = await statements.list_.records(
        request.db, state=state, kind=kind, before=before, limit=query.per_page + 1
    )
    rows = [JobRow(*record) for record in records[: query.per_page]]
    more = len(records) > len(rows)
    following = cursors.write((rows[-1].id,), binding) if more else None
    jobs: list[Any] = [Raw(encode_job(row)) for row in rows]
    return await paging.show(request, CursorPage(jobs, following))


async def read_job(request: Request) -> Reply:
    """Return a job. A user sees the jobs that their own requests have caused, an admin all."""
    row = await statements.by_id.get(request.db, request.row_id())
    if row is None or request.owner not in {None, row.user_id}:
        raise NotFound("there is no such job")
    return Reply(encode_job(row))


async def retry_job(request: Request) -> Reply:
    """Queue a failed job again, with all its attempts."""
    job_id = request.row_id()
    retried = await request.write(
        lambda db: statements.retry.records(db, ids=[job_id]), lambda _: ()
    )
    row = await statements.by_id.get(request.db, job_id)
    if row is None:
        raise NotFound("there is no such job")
    if not retried:
        raise Conflict(f"the job is {row.state}: only a failed job can be retried")
    return Reply(encode_job(row))


def _given(value: Any) -> Any:
    return None if value is UNSET else value


def routes() -> list[Operation]:
    """Return the operations, for an application that has jobs."""
    return [
        Operation(
            "GET",
            f"{PATH}/{{id}}",
            read_job,
            "Read a job",
            response=Job,
            errors=(NotFound,),
            tag=TAG,
            versioned=False,
        ),
        Operation(
            "GET",
            PATH,
            list_jobs,
            "List jobs, the newest first",
            query=JobQuery,
            response=JobPage,
            tag=TAG,
            access="admin",
        ),
        Operation(
            "POST",
            f"{PATH}/{{id}}/retry",
            retry_job,
            "Retry a failed job",
            response=Job,
            errors=(NotFound, Conflict),
            tag=TAG,
            access="admin",
        ),
    ]
