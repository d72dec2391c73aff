"""Imports in the background: the request stores the file and queues a job, which imports it."""

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from service.db.statement import Runner
from service.db.writable import WritableDatabase
from service.errors import InvalidLines, LineError, OutcomeUnknown, Problem
from service.jobs import statements
from service.jobs.context import JobContext
from service.jobs.job import FailedJob, Job, JobFailedError, JobTaken
from service.jobs.queue import enqueue
from service.jobs.routes import PATH, encode_job
from service.jobs.spool import Spool
from service.jobs.spool_cleaning import make_room
from service.jobs.statements import JobRow
from service.resource.transfer import Imported, changed_tags
from service.web.api_keys import ApiKeys
from service.web.codec import Reply
from service.web.formats import reader
from service.web.inflate import inflated
from service.web.request import Request
from service.web.upload import Upload

if TYPE_CHECKING:
    from service.resource.declaration import Resource

KIND = "import"


class ImportArgument(Struct, frozen=True):
    """What a job imports.

    Args:
        resource: the name of the resource.
        file: its name in the spool.
        content_type: as the client sent it.
        gzip: whether it is compressed.
        skip: whether wrong lines are skipped.
        owner: the user to whose rows the request was limited; None if it was not limited.
    """

    resource: str
    file: str
    content_type: str
    gzip: bool
    skip: bool
    owner: int | None


class ImportEnded(Struct, frozen=True):
    """The argument of the job `create_app(after_import=...)`, at the end of a background import.

    Args:
        job_id: the job of the import.
        user_id: who sent the file; None without authentication.
        resource: its name.
        state: of the job, `done` or `failed`.
        read: the number of rows; the other counts are as in Imported. All are 0 if it failed.
        error: why it failed.
    """

    job_id: int
    user_id: int | None
    resource: str
    state: Literal["done", "failed"]
    read: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    error: str | None = None


class Refused(Struct, frozen=True):
    """The `result` of an import that failed because of its lines; the first 100."""

    errors: tuple[LineError, ...]


async def queue_import(request: Request, resource: str, *, skip: bool, zipped: bool) -> Reply:
    """Store the body of a request, and queue the job that imports it.

    The job is queued when the whole file is on disk. If it can't be queued, the file is removed;
    if the outcome is unknown, it stays until spool_cleaning has looked for the job.

    Raises:
        Problem: 400, 408 or 413: the body; 503: there is no room for it, or the database is away.
    """
    settings, db = request.state["settings"], request.state["db"]
    spool = Spool(settings)
    async with Upload(request, settings.import_limit) as body:
        announced = (request.header(b"content-length") or b"")[:19]  # at most the limit, by now
        await make_room(spool, db, int(announced) if announced.isdigit() else 0)
        file = await body.run(spool.store(body.parts()))
    principal = request.principal
    argument = ImportArgument(
        resource,
        file.name,
        (request.header(b"content-type") or b"").decode("latin-1"),
        zipped,
        skip,
        request.owner,
    )
    user = None if principal is None else principal.user_id
    job = request.state["jobs"][KIND]

    def reply(queued: JobRow) -> Reply:
        place = f"{request.root}{PATH}/{queued.id}".encode()
        return Reply(encode_job(queued), 202, ((b"location", place),))

    # In the transaction of the job, so that the file of a request that was not first is removed.
    keeper = request.keeper(reply)

    async def write(db: WritableDatabase) -> JobRow:
        async with db.transaction() as one:
            id_ = await enqueue(one, job, argument, user_id=user, place=file.place)
            queued = await statements.by_id.only(one, id_)
            if keeper is not None:
                await keeper.keep(one, queued)
            return queued

    try:
        queued = await request.write(write, lambda _: ())
    except OutcomeUnknown:
        raise
    except Problem:
        spool.remove(file.name)
        raise
    return reply(queued)


class ImportJob(Job[ImportArgument]):
    """The job that imports the files of an application.

    A worker runs one at a time, so that a connection for files is left for requests.

    Args:
        resources: those with an import.
        auth: the API keys, if there are any: the user who sent a file must still be active.
        after: the job to queue when one has ended.
    """

    def __init__(
        self,
        resources: Sequence["Resource[Any]"],
        auth: ApiKeys | None,
        after: Job[ImportEnded] | None,
    ) -> None:
        # No limit of time: a file may have a gigabyte, and each wait for the database has its own.
        super().__init__(
            KIND, ImportArgument, self._import, concurrency=1, seconds=None, failed=self._failed
        )
        self._resources = {one.name: one for one in resources}
        self._auth = auth
        self._after = after

    async def _import(self, context: JobContext, asked: ImportArgument) -> Imported:
        of = self._resources.get(asked.resource)
        if of is None:
            raise JobFailedError(f"there is no import of {asked.resource} any more")
        user, auth, settings = context.user_id, self._auth, context.settings
        if auth and user is not None and not await auth.is_user_active(context.db, user):
            raise JobFailedError("the user who sent the file is not active any more")
        spool = Spool(settings)
        rows_of = reader(of.new, asked.content_type.encode("latin-1"), settings.body_limit)

        async def ended(db: Runner, done: Imported) -> None:
            counts = {name: getattr(done, name) for name in _COUNTS}
            await self._queue_after(
                db, ImportEnded(context.id, user, asked.resource, "done", **counts)
            )
            await context.finish(db, done)

        try:
            file: AsyncGenerator[bytes] = _chunks(context, spool, asked.file)
            if asked.gzip:
                file = inflated(file, settings.import_limit)
            done = await context.writer.run(
                lambda db: of.import_(
                    db, file, rows_of, skip=asked.skip, owner=asked.owner, also=ended
                ),
                changed_tags,
            )
        except FileNotFoundError:
            raise JobFailedError("its file is not stored any more: send it again") from None
        except Problem as problem:
            # 5xx is of the database: the job is tried again.
            if problem.status >= 500 or isinstance(problem, JobTaken):
                raise
            lines = problem.lines if isinstance(problem, InvalidLines) else None
            raise JobFailedError(problem.detail, lines and Refused(lines)) from problem
        spool.remove(asked.file)
        return done

    async def _failed(self, db: Runner, job: FailedJob) -> None:
        """Queue the `after_import` job in the transaction that marks this job as failed."""
        resource = msgspec.json.decode(job.argument).get("resource", "")
        await self._queue_after(
            db, ImportEnded(job.id, job.user_id, resource, "failed", error=job.error)
        )

    async def _queue_after(self, db: Runner, ended: ImportEnded) -> None:
        if self._after is not None:
            await enqueue(db, self._after, ended, user_id=ended.user_id)


def import_jobs(
    resources: Sequence["Resource[Any]"], auth: ApiKeys | None, after: Job[ImportEnded] | None
) -> list[Job[Any]]:
    """Return the jobs that an application with these resources needs; none without an import."""
    files = [one for one in resources if one.derives("import")]
    return [ImportJob(files, auth, after), *([after] if after else [])] if files else []


_COUNTS = ("read", "created", "updated", "unchanged", "failed")


async def _chunks(context: JobContext, spool: Spool, name: str) -> AsyncGenerator[bytes]:
    """Yield a file, and store how many bytes of it were read."""
    done, total = 0, spool.size(name)
    async for data in spool.read(name):
        yield data
        done += len(data)
        await context.progress(done, total)
