"""The declaration of a job."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from service.db.statement import Runner
from service.errors import Conflict
from service.jobs.context import JobContext

Argument = TypeVar("Argument", bound=Struct)
Run = Callable[[JobContext, Argument], Awaitable[Any]]


class FailedJob(NamedTuple):
    """A job that has failed for good; `argument` is JSON."""

    id: int
    user_id: int | None
    argument: str
    error: str


Failed = Callable[[Runner, FailedJob], Awaitable[None]]


class Created(Struct, frozen=True):
    """The argument of a job with `new_rows_of`: the id of the new row."""

    id: int


class JobFailedError(Exception):
    """The job can't succeed, so it is not tried again; the message says why.

    Args:
        message: for the `error` of the job.
        result: for its `result`; None for none.
    """

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class JobRetryError(Exception):
    """This attempt has failed, and a later one may succeed; the message says why.

    Any other exception does the same, but its text is only logged: it may quote a value.

    Args:
        message: for the `error` of the job.
        after: seconds until the next attempt, at least; None for the usual pause.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class JobTaken(Conflict):
    """The lease of this attempt was over, and another worker has taken the job."""


class Job(Generic[Argument]):
    """A kind of job.

    ```python
    class Report(Struct):
        month: str

    async def write_report(context: JobContext, report: Report) -> None: ...

    reports = Job("report", Report, write_report)
    app = create_app(settings, resources=[...], jobs=[reports])
    ```

    `await enqueue(db, reports, Report("2026-11"))` in a write queues one in its transaction. It
    runs at least once: a worker may die when it has done the work and not yet said so.

    Args:
        kind: its name, in the table and in metrics.
        argument: the Struct of its argument, which is stored as JSON.
        run: does the work; what it returns is the `result` of the job.
        concurrency: how many a worker process runs at the same time.
        attempts: after so many the job has failed; None for no limit.
        new_rows_of: the table of which each new row queues one, in its transaction; a trigger does
            it, so no writer can forget it. The argument is Created then.
        seconds: an attempt that takes longer is cancelled, and tried again; None for no limit, and
            then a worker that stops does not wait for it.
        failed: writes more in the transaction that marks a job as failed, for whatever reason.
    """

    def __init__(
        self,
        kind: str,
        argument: type[Argument],
        run: Run[Argument],
        *,
        concurrency: int = 4,
        attempts: int | None = 20,
        seconds: float | None = 300.0,
        failed: Failed | None = None,
        new_rows_of: str | None = None,
    ) -> None:
        self.kind = kind
        self.argument = argument
        self.run = run
        self.concurrency = concurrency
        self.attempts = attempts
        self.seconds = seconds
        self.failed = failed
        self.new_rows_of = new_rows_of
