"""The loop that runs jobs: in each worker of `serve`, and alone in `swiftlet work`.

A worker takes due jobs with a lease and a number, and renews the leases while they run. A worker
that is dead renews none, so another one takes its jobs. Whatever a worker stores about a job counts
only as long as the job still has the number, so a worker that was only slow changes nothing.
"""

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextvars import Context
from typing import Any

from service.db.names import JOBS_CHANNEL
from service.db.statement import Statement
from service.db.writable import WritableDatabase
from service.errors import Problem, TimedOut, Unavailable
from service.jobs import statements
from service.jobs.job import Job
from service.jobs.observed import observed
from service.jobs.running import Outcome, RunningJob
from service.jobs.statements import Claimed
from service.logs import logger
from service.web.request import State

# A lease is renewed three times before its end.
LEASE_SECONDS = 30.0
# An idle worker looks so often, from half to one and a half of it: a notification may be lost, and
# the lease of a job may have begun since its last look. So 20 workers look once a second together.
IDLE_SECONDS = 20.0
# After the queue was empty, a worker looks at most so often: 1,000 notifications a second are one
# storm.
STORM_SECONDS = 0.02
# The pause after a failed attempt doubles, from the first to the second.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 600.0
# A job can't ask for a longer pause: the table could not store the time.
LONGEST_AFTER = 366 * 86_400.0
# The pause while the database is away doubles, from the first to the second.
AWAY_SECONDS, LONGEST_AWAY = 0.1, 5.0
# At the stop: seconds for jobs to end by themselves, then for those that are cancelled.
GRACE_SECONDS, CANCEL_SECONDS = 2.0, 2.0


class JobLoop:
    """Runs the jobs of an application in this process.

    Args:
        state: what the application has opened.
        jobs: the kinds, by name.
        places: returns those whose jobs this process can run, besides jobs without a place.
    """

    def __init__(
        self,
        state: State,
        jobs: Mapping[str, Job[Any]],
        places: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self.jobs = jobs
        self.running: dict[tuple[int, int], RunningJob] = {}
        self._state = state
        self._writer = state["writer"]
        self._places = places
        self._awake = asyncio.Event()
        self._stopping = False
        self._claiming: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._counts: Counter[str] = Counter()  # of running jobs, by kind
        # The kinds of which the last claim has taken as many as it could: there may be more.
        self._more: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Run jobs from now on."""
        if listener := self._state.get("listener"):
            await listener.listen(JOBS_CHANNEL, self._awake.set)
        # In contexts of their own: jobs belong to no request.
        self._claiming = asyncio.create_task(self._claim_always(), context=Context())
        self._renewing = asyncio.create_task(self._renew_always(), context=Context())

    async def close(self) -> None:
        """Take no more jobs; running ones get GRACE_SECONDS, then are cancelled and queued again.

        An attempt that is cancelled so does not count.
        """
        self._stopping = True
        self._awake.set()
        if self._claiming is None or self._renewing is None:
            return
        await asyncio.wait({self._claiming}, timeout=GRACE_SECONDS)
        for one in self.running.values():
            one.stopping = True
            if one.job.seconds is None:
                one.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
        for one in self.running.values():
            one.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_SECONDS)
        for one in self.running.values():
            logger.error(
                "a job has not ended in time: it is run again later", extra={"fields": one.fields}
            )
        for task in (self._claiming, self._renewing, *self._tasks):
            task.cancel()
        ended = {self._claiming, self._renewing, *self._tasks}
        await asyncio.wait(ended, timeout=CANCEL_SECONDS)

    async def _claim_always(self) -> None:
        failures = 0
        while not self._stopping:
            self._awake.clear()
            try:
                pause = await self._claim()
                failures = 0
            except Problem:  # the database logs it
                pause = _pause(failures)
                failures += 1
            except Exception:  # noqa: BLE001 - without a retry no job runs any more
                pause = LONGEST_AWAY
                logger.exception("jobs can't be taken")
            try:
                async with asyncio.timeout(pause):
                    await self._awake.wait()
            except TimeoutError:
                pass

    async def _claim(self) -> float:
        """Take due jobs and start them; return the seconds until more may be due."""
        free = {kind: job.concurrency - self._counts[kind] for kind, job in self.jobs.items()}
        kinds = [kind for kind in free if free[kind] > 0]
        if not kinds:  # the end of a job wakes the loop
            return IDLE_SECONDS
        records = await self._writer.run(
            lambda db: statements.claim.records(
                db,
                kinds=kinds,
                frees=[free[kind] for kind in kinds],
                places=list(self._places()),
                lease=LEASE_SECONDS,
            ),
            lambda _: (),
        )
        seconds, found = records[0][0], [Claimed(*one[1:]) for one in records if one[1] is not None]
        for claimed in found:
            self._start(claimed)
        counts = Counter(one.kind for one in found)
        self._more -= {*kinds}
        self._more |= {kind for kind in kinds if counts[kind] == free[kind]}
        if any(self._counts[kind] < self.jobs[kind].concurrency for kind in self._more):
            self._awake.set()  # a job has ended during the claim
        if not found:
            await asyncio.sleep(STORM_SECONDS)
        spread = random.random()  # noqa: S311 - so that workers look at different times
        idle = IDLE_SECONDS * (0.5 + spread)
        return idle if seconds is None else min(idle, seconds + STORM_SECONDS * spread)

    def _start(self, claimed: Claimed) -> None:
        one = RunningJob(self.jobs[claimed.kind], claimed, self._state)
        self.running[(claimed.id, claimed.claims)] = one
        self._counts[claimed.kind] += 1
        task = asyncio.create_task(self._run(one), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, one: RunningJob) -> None:
        try:
            with observed(self._state, one) as seen:
                outcome = _last(one, await one.attempted())
                seen.ended(one, outcome)
                if outcome is not None:
                    await self._store(one, outcome)
        except Exception:  # noqa: BLE001 - its lease will be over
            logger.exception("a job is run again later", extra={"fields": one.fields})
        finally:
            del self.running[(one.id, one.claimed.claims)]
            self._counts[one.job.kind] -= 1
            if one.job.kind in self._more:
                self._awake.set()

    async def _store(self, one: RunningJob, outcome: Outcome) -> None:
        """Store how an attempt has ended; a database that is away is waited for."""
        if outcome.state == "failed":
            fields = {**one.fields, "error": outcome.error}
            logger.error("a job has failed", extra={"fields": fields})
        for failures in itertools.count():
            try:
                await self._stored(one, outcome)
                return
            except (Unavailable, TimedOut):
                await asyncio.sleep(_pause(failures))
            except Problem as problem:
                if outcome.result is None:
                    raise
                error = f"its result can't be stored: {problem.detail}"
                outcome = Outcome("failed", error=error)

    async def _stored(self, one: RunningJob, outcome: Outcome) -> None:
        statement: Statement[Any]
        if outcome.state == "queued":
            statement = statements.release
            values = one.values(
                error=outcome.error,
                attempts=one.attempt if outcome.counts else one.attempt - 1,
                delay=delay_of(one.attempt, outcome) if outcome.counts else 0.0,
            )
        else:
            statement = statements.finish if outcome.state == "done" else statements.fail
            values = one.values(result=outcome.result, error=outcome.error)

        more = one.job.failed if outcome.state == "failed" else None

        async def store(db: WritableDatabase) -> None:
            if more is None:
                await statement.records(db, **values)
                return
            async with db.transaction() as within:
                if await statement.records(within, **values):
                    await more(within, one.as_failed(outcome.error or ""))

        await self._writer.run(store, lambda _: ())

    async def _renew_always(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            for failures in itertools.count():
                try:
                    await self._renew()
                    break
                except Problem:  # the database logs it
                    await asyncio.sleep(_pause(failures))
                except Exception:  # noqa: BLE001 - the next time may succeed
                    logger.exception("leases of jobs can't be renewed")
                    break

    async def _renew(self) -> None:
        """Renew the leases of all running jobs; cancel those that another worker has taken."""
        mine = list(self.running)
        if not mine:
            return
        ids, claims = zip(*mine, strict=True)
        records = await self._writer.run(
            lambda db: statements.renew.records(db, ids=ids, claims=claims, lease=LEASE_SECONDS),
            lambda _: (),
        )
        kept = {(record[0], record[1]) for record in records}
        for name in mine:
            one = self.running.get(name)
            if one is not None and name not in kept and not one.finished:
                one.taken = True
                one.cancel()


def _last(one: RunningJob, outcome: Outcome | None) -> Outcome | None:
    """The outcome of an attempt: after the last one there is no other, so the job has failed."""
    if outcome is not None and outcome.state == "queued" and outcome.counts and one.last:
        return outcome._replace(state="failed")
    return outcome


def delay_of(attempt: int, outcome: Outcome) -> float:
    """Seconds until the next attempt: random, so that jobs that fail together do not return so."""
    longest = min(math.ldexp(FIRST_PAUSE, min(attempt - 1, 20)), LONGEST_PAUSE)
    after = min(max(0.0, outcome.after or 0.0), LONGEST_AFTER)  # 0 if it is NaN
    return after + random.uniform(0, longest)  # noqa: S311 - spreads retries


def _pause(failures: int) -> float:
    return min(math.ldexp(AWAY_SECONDS, min(failures, 10)), LONGEST_AWAY)
