"""One attempt of a job in this process, and what the job may use."""

import asyncio
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from service.db.statement import Runner
from service.errors import Problem
from service.jobs import statements
from service.jobs.job import FailedJob, Job, JobFailedError, JobRetryError, JobTaken
from service.jobs.statements import Claimed
from service.logs import logger
from service.web.request import State

# Seconds between two stored reports of progress.
PROGRESS_SECONDS = 1.0
TAKEN = "another worker has taken the job"


class Outcome(NamedTuple):
    """How an attempt has ended.

    Args:
        state: `done`, `failed`, or `queued` for another attempt.
        result: JSON.
        error: why it failed.
        after: seconds until the next attempt; None for the usual pause.
        counts: whether it counts as an attempt.
    """

    state: str
    result: str | None = None
    error: str | None = None
    after: float | None = None
    counts: bool = True


class RunningJob:
    """One attempt; it is the JobContext of the function that runs.

    Args:
        job: its kind.
        claimed: its row.
        state: what the application has opened.
    """

    def __init__(self, job: Job[Any], claimed: Claimed, state: State) -> None:
        self.job = job
        self.claimed = claimed
        self.id = claimed.id
        self.attempt = claimed.attempts
        self.claim = claimed.claims
        self.user_id = claimed.user_id
        self.settings = state["settings"]
        self.db = state["db"]
        self.writer = state["writer"]
        self.outgoing = state["outgoing"]
        self.feed = state["feed"]
        # What `progress` was told last.
        self.figures: tuple[int, int | None] = (0, None)
        # Whether the job has said `finish`, whether another worker has it, as far as is known, and
        # whether this process stops.
        self.finished = self.taken = self.stopping = False
        self._stored_at = -PROGRESS_SECONDS
        self._task: asyncio.Task[Outcome | None] | None = None

    async def progress(self, done: int, total: int | None = None) -> None:
        """See JobContext."""
        self.figures = (done, total)
        now = monotonic()
        if now - self._stored_at < PROGRESS_SECONDS:
            return
        self._stored_at = now
        values = {"done": done, "total": total, **self.place}
        try:
            kept = await self.writer.run(
                lambda db: statements.progress.records(db, **values), lambda _: ()
            )
        except Problem:  # the database logs it; the next report may be stored
            return
        if not kept:
            raise JobTaken(TAKEN)

    async def finish(self, db: Runner, result: object = None) -> None:
        """See JobContext."""
        values = self.values(result=_json(result), error=None)
        if not await statements.finish.records(db, **values):
            raise JobTaken(TAKEN)
        self.finished = True

    @property
    def last(self) -> bool:
        """Whether no further attempt is allowed."""
        return self.job.attempts is not None and self.attempt >= self.job.attempts

    @property
    def fields(self) -> dict[str, object]:
        """For a log line."""
        return {"job": self.id, "kind": self.job.kind, "attempt": self.attempt}

    @property
    def place(self) -> dict[str, object]:
        """The arguments that name this attempt in a statement."""
        return {"id": self.id, "claim": self.claim}

    def values(self, **others: object) -> dict[str, object]:
        """The arguments of a statement that ends the attempt."""
        done, total = self.figures
        return {"done": done, "total": total, **others, **self.place}

    def as_failed(self, error: str) -> FailedJob:
        """What `Job.failed` is given."""
        return FailedJob(self.id, self.user_id, self.claimed.argument, error)

    def cancel(self) -> None:
        """Cancel the function; what it has already returned is still stored."""
        if self._task is not None:
            self._task.cancel()

    async def attempted(self) -> Outcome | None:
        """Run the function once, and return how it ended; None if nothing is left to store."""
        self._task = asyncio.create_task(self._attempt())
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self.taken:
            return None
        if self._task.cancelled():
            return Outcome(
                "queued",
                error=None if self.stopping else "it was cancelled",
                counts=not self.stopping,
            )
        return self._task.result()

    async def _attempt(self) -> Outcome | None:
        job, limit = self.job, asyncio.timeout(self.job.seconds)
        if job.attempts is not None and self.attempt > job.attempts:
            return Outcome("failed", error="the worker that ran it ended in the last attempt")
        try:
            argument = msgspec.json.decode(self.claimed.argument, type=job.argument)
        except msgspec.DecodeError as error:  # a ValidationError is one
            return Outcome("failed", error=f"its argument can't be read: {error}")
        try:
            async with limit:
                result = await job.run(self, argument)
            return None if self.finished else Outcome("done", result=_json(result))
        except JobTaken:
            self.taken = True
            return None
        except JobFailedError as error:
            return Outcome("failed", result=_json(error.result), error=_line(error))
        except JobRetryError as error:
            return Outcome("queued", error=_line(error), after=error.after)
        except Problem as problem:
            return Outcome("queued", error=_line(problem))
        # SystemExit is of a program that the job calls: it must not end this process.
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the next attempt may succeed
            if limit.expired():
                return Outcome("queued", error=f"it took longer than {job.seconds:g} s")
            logger.exception("an attempt of a job failed", extra={"fields": self.fields})
            return Outcome("queued", error=f"{type(error).__name__}; the log has more")


def _line(error: BaseException) -> str:
    """The message of an error in one line, which PostgreSQL can store."""
    text = " ".join(str(error).replace("\0", " ").split())[:1000]
    return text.encode("utf-8", "replace").decode()


def _json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
