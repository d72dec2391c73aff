"""Jobs: queued with what causes them, run at least once whatever dies, and never lost."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from conftest import query
from in_process import until, worker
from msgspec import Struct
from starlette.applications import Starlette

from service.app import Application, create_app
from service.asgi import MIGRATIONS, built_in
from service.db.names import HEARER, JOBS_CHANNEL
from service.db.statement import Runner
from service.db.transaction import Transaction
from service.db.writable import WritableDatabase
from service.errors import Conflict, OutcomeUnknown, Problem, Unavailable
from service.items.seed import samples
from service.jobs import loop, statements
from service.jobs.context import JobContext
from service.jobs.job import Created, FailedJob, Job, JobFailedError, JobRetryError, JobTaken
from service.jobs.loop import JobLoop
from service.jobs.queue import enqueue, enqueue_many
from service.jobs.running import Outcome
from service.jobs.trimming import trim
from service.settings import Settings

pytestmark = pytest.mark.anyio


class Number(Struct):
    n: int = 0


@pytest.fixture
def url(own_database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database without jobs and users; no loop looks at it unless it is woken, or one is due."""
    monkeypatch.setattr(loop, "IDLE_SECONDS", 3600.0)
    query(own_database_url, "WITH jobs AS (DELETE FROM jobs) DELETE FROM users")
    return own_database_url


async def sql(url: str, text: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(text)
    finally:
        await connection.close()


async def rows(url: str, columns: str = "*") -> list[asyncpg.Record]:
    """The jobs in the order of their ids."""
    return await sql(url, f"SELECT {columns} FROM jobs ORDER BY id")


@asynccontextmanager
async def running(url: str, *jobs: Job[Any], **options: str) -> AsyncIterator[Any]:
    """An application with these jobs in this process; yields what its lifespan has opened."""
    given = {"DATABASE_URL": url, "REDIS_URL": "off", "SERVICE_CACHE": "off"}
    app = create_app(Settings.load({**given, **options}), jobs=jobs, migrations=MIGRATIONS)
    async with app.lifespan_context(Starlette()) as state:
        yield state


async def ended(state: Any, job_id: int) -> Any:
    """The job, as soon as it is done or has failed."""
    async with asyncio.timeout(30):
        while True:
            row = await statements.by_id.get(state["db"], job_id)
            assert row is not None
            if row.state in {"done", "failed"}:
                return row
            await asyncio.sleep(0.01)


def queued(state: Any, job: Job[Any], argument: Struct, **options: Any) -> Any:
    """Queue a job in a write of its own."""
    return state["writer"].run(lambda db: enqueue(db, job, argument, **options), lambda _: ())


async def test_a_job_runs_and_its_result_is_kept(url: str) -> None:
    async def double(context: JobContext, number: Number) -> dict[str, int]:
        await context.progress(1, 2)
        await context.progress(2, 2)
        assert (context.attempt, context.user_id) == (1, 7)
        return {"twice": 2 * number.n}

    job = Job("double", Number, double)
    async with running(url, job) as state:
        row = await ended(state, await queued(state, job, Number(4), user_id=7))
    assert (row.state, row.result, row.done, row.total) == ("done", '{"twice":8}', 2, 2)
    assert (row.attempts, row.error) == (1, None)


async def test_an_attempt_that_fails_is_followed_by_another_until_the_last(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FIRST_PAUSE", 0.01)

    async def run(context: JobContext, number: Number) -> None:
        match number.n:
            case 0:
                raise ZeroDivisionError("a secret")
            case 1:
                raise JobRetryError("the receiver\nsays 503", after=0.01)
            case 2:
                raise Conflict("the row is taken")
            case 3:
                raise JobFailedError("no such row", {"row": 5})
            case 4:
                await asyncio.sleep(3600)
            case 5 if context.attempt < 3:
                raise JobRetryError("not yet")
            case 6:
                raise JobFailedError("no\0row \ud800")
            case 7:
                sys.exit("a secret")

    job = Job("failing", Number, run, attempts=3, seconds=0.2)
    async with running(url, job) as state:
        ids = [await queued(state, job, Number(n)) for n in range(8)]
        found = [await ended(state, one) for one in ids]
    assert [(one.state, one.attempts, one.error) for one in found] == [
        ("failed", 3, "ZeroDivisionError; the log has more"),
        ("failed", 3, "the receiver says 503"),
        ("failed", 3, "the row is taken"),
        ("failed", 1, "no such row"),
        ("failed", 3, "it took longer than 0.2 s"),
        ("done", 3, None),
        ("failed", 1, "no row ?"),
        ("failed", 3, "SystemExit; the log has more"),
    ]
    assert found[3].result == '{"row":5}'


@pytest.mark.parametrize("after", (float("inf"), float("nan"), -1e18))
def test_no_job_asks_for_a_time_that_the_table_can_not_store(after: float) -> None:
    delay = loop.delay_of(1, Outcome("queued", after=after))
    assert 0 <= delay <= loop.LONGEST_AFTER + loop.FIRST_PAUSE


async def test_what_a_failed_job_queues_is_in_the_transaction_that_marks_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(loop, "AWAY_SECONDS", 0.01)
    refusals = 0

    async def run(_: JobContext, __: Number) -> None:
        raise ZeroDivisionError

    async def more(db: Runner, failed: FailedJob) -> None:
        nonlocal refusals
        await enqueue(db, after, Number(failed.id))
        refusals += 1
        if refusals == 1:  # as if the database had ended: all of it is rolled back and repeated
            raise Unavailable("the database is away")

    after = Job("after", Number, run)
    job = Job("doomed", Number, run, attempts=2, failed=more)
    async with running(url, job) as state:
        job_id = await queued(state, job, Number())
        await ended(state, job_id)
    assert refusals == 2
    found = [(row["kind"], row["argument"]) for row in await rows(url)]
    assert found == [("doomed", '{"n": 0}'), ("after", f'{{"n": {job_id}}}')]


async def test_what_a_failed_job_queues_is_queued_once_if_the_commit_is_unknown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "AWAY_SECONDS", 0.01)
    commit, commits, tried_again = Transaction.commit, 0, asyncio.Event()

    async def lost(transaction: Transaction) -> None:
        nonlocal commits
        await commit(transaction)
        commits += 1
        if commits == 1:
            raise OutcomeUnknown("the connection was lost")
        tried_again.set()

    monkeypatch.setattr(Transaction, "commit", lost)

    async def run(_: JobContext, __: Number) -> None:
        raise JobFailedError("no such row")

    async def more(db: Runner, failed: FailedJob) -> None:
        await enqueue(db, after, Number(failed.id))

    after = Job("after", Number, run, attempts=1)
    job = Job("doomed", Number, run, failed=more)
    async with running(url, job) as state:
        await queued(state, job, Number())
        async with asyncio.timeout(30):
            await tried_again.wait()
    assert [(row["kind"], row["state"]) for row in await rows(url)] == [
        ("doomed", "failed"),
        ("after", "queued"),
    ]


async def test_a_job_that_this_process_can_not_run_waits_and_a_wrong_argument_fails(
    url: str,
) -> None:
    async def run(_: JobContext, number: Number) -> int:
        return number.n

    here, elsewhere = Job("here", Number, run), Job("elsewhere", Number, run)
    await sql(url, """INSERT INTO jobs (kind, argument) VALUES ('here', '{"n": "four"}')""")
    async with running(url, here) as state:
        await queued(state, elsewhere, Number())
        await queued(state, here, Number(), place="another disk")
        later = await queued(state, here, Number(), delay=3600)
        last = await queued(state, here, Number(3))
        assert (await ended(state, last)).result == "3"
    wrong, unknown, placed, due, done = await rows(url, "state, error, attempts")
    assert wrong["state"] == "failed"
    assert wrong["error"] == "its argument can't be read: Expected `int`, got `str` - at `$.n`"
    assert [one["state"] for one in (unknown, placed, due)] == ["queued"] * 3
    assert done["state"] == "done"
    assert later == (await rows(url, "id"))[3]["id"]


async def test_a_worker_with_the_place_runs_the_jobs_of_the_place(url: str) -> None:
    ran = asyncio.Event()

    async def run(_: JobContext, __: Number) -> None:
        ran.set()

    job = Job("placed", Number, run)
    async with running(url, job, SERVICE_JOBS="off") as state:
        job_id = await queued(state, job, Number(), place="disk 7")
        alone = JobLoop(state, {"placed": job}, lambda: ["disk 7"])
        await alone.start()
        await ended(state, job_id)
        await alone.close()
    assert ran.is_set()


async def test_a_delayed_job_runs_when_it_is_due(url: str) -> None:
    async def run(_: JobContext, __: Number) -> None: ...

    job = Job("late", Number, run)
    async with running(url, job) as state:
        await ended(state, await queued(state, job, Number(), delay=0.3))
    (row,) = await rows(url, "finished_at >= run_at AS after, run_at > created_at AS delayed")
    assert (row["after"], row["delayed"]) == (True, True)


async def test_a_kind_runs_no_more_jobs_at_a_time_than_it_says(url: str) -> None:
    now, most = 0, 0

    async def run(_: JobContext, __: Number) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    job = Job("few", Number, run, concurrency=3)
    async with running(url, job) as state:
        ids = await state["writer"].run(
            lambda db: enqueue_many(db, job, [Number(n) for n in range(20)]), lambda _: ()
        )
        for one in ids:
            await ended(state, one)
    assert most == 3
    assert {row["attempts"] for row in await rows(url)} == {1}


async def test_a_write_that_is_rolled_back_queues_nothing(url: str) -> None:
    async def run(_: JobContext, __: Number) -> None: ...

    job = Job("never", Number, run)

    async def write(db: WritableDatabase) -> None:
        async with db.transaction() as one:
            await enqueue(one, job, Number())
            raise Conflict("no")

    async with running(url, job) as state:
        with pytest.raises(Conflict):
            await state["writer"].run(write, lambda _: ())
        await ended(state, await queued(state, job, Number()))
    assert len(await rows(url)) == 1


async def test_each_new_user_queues_a_job_in_the_transaction_that_creates_it(url: str) -> None:
    async with worker(url, SERVICE_JOBS="off") as (client, _):
        names = [f"person{n}" for n in range(40)]
        twice = (*names, "person0")
        bodies = [{"email": f"{name}@example.com", "username": name} for name in twice]
        statuses = [
            one.status_code
            for one in await asyncio.gather(*(client.post("/users", json=body) for body in bodies))
        ]
        assert sorted(statuses) == [201] * 40 + [409]
        some = [{"email": f"{name}@example.com", "username": name} for name in ("person1", "new")]
        assert (await client.put("/users/bulk", json={"items": some})).status_code == 200
    found = await sql(
        url,
        "SELECT j.xmin = u.xmin AS same FROM jobs j FULL JOIN users u ON j.kind = 'welcome'"
        " AND (j.argument->>'id')::bigint = u.id",
    )
    assert [one["same"] for one in found] == [True] * 41
    (shared,) = await sql(url, "SELECT count(DISTINCT xmin::text) AS n FROM users")
    assert shared["n"] < 30, "many creates share a commit"
    await samples.write(url, {"users": 5, "items": 0}, lambda *_: None)
    assert len(await sql(url, "SELECT FROM users")) == 46
    assert len(await rows(url)) == 41


@pytest.mark.parametrize("writer", ("the service", "psql"))
async def test_a_worker_hears_of_the_job_of_a_new_user(url: str, writer: str) -> None:
    welcomed: list[int] = []

    async def run(_: JobContext, user: Created) -> None:
        welcomed.append(user.id)

    async with running(url, Job("welcome", Created, run)):
        # Not before it has looked once, and listens.
        await until_listening(url)
        if writer == "psql":
            await sql(url, "INSERT INTO users (email, username) VALUES ('a@example.com', 'ada')")
        else:
            async with worker(url, SERVICE_JOBS="off") as (client, _):
                body = {"email": "a@example.com", "username": "ada"}
                assert (await client.post("/users", json=body)).status_code == 201
                await until(lambda: welcomed)
        await until(lambda: welcomed)


async def until_listening(url: str) -> None:
    """Return when a loop listens, and has looked at the jobs."""
    async with asyncio.timeout(30):
        while True:
            if await sql(
                url,
                "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                f" AND application_name = '{HEARER}' AND state = 'idle' AND query !~ 'LISTEN'",
            ):
                return await asyncio.sleep(0.1)
            await asyncio.sleep(0.01)


async def test_when_the_lease_is_over_another_worker_runs_the_job_and_the_first_changes_nothing(
    url: str,
) -> None:
    """Two workers in one process; the first one renews nothing, as if it were stopped."""
    attempts: list[int] = []
    go = asyncio.Event()

    async def run(context: JobContext, _: Number) -> int:
        attempts.append(context.attempt)
        if context.attempt == 1:
            await go.wait()
            with pytest.raises(Problem, match="another worker"):
                await context.writer.run(context.finish, lambda _: ())
            with pytest.raises(Problem, match="another worker"):
                await context.progress(50)
        return context.attempt

    job = Job("slow", Number, run)
    async with running(url, job) as state:
        job_id = await queued(state, job, Number())
        await until(lambda: attempts == [1])
        await sql(url, "UPDATE jobs SET leased_until = now()")
        async with running(url, job):
            assert (await ended(state, job_id)).result == "2"
            go.set()
    (row,) = await rows(url)
    assert (row["state"], row["attempts"], row["result"], row["done"]) == ("done", 2, "2", 0)
    assert attempts == [1, 2]


async def test_a_worker_that_has_lost_a_job_cancels_its_attempt(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LEASE_SECONDS", 0.3)
    cancelled: list[int] = []

    async def run(context: JobContext, _: Number) -> None:
        cancelled.append(0)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(context.attempt)
            raise

    job = Job("lost", Number, run)
    async with running(url, job) as state:
        await queued(state, job, Number())
        await until(lambda: cancelled == [0])
        await sql(
            url, "UPDATE jobs SET claims = claims + 1, leased_until = now() + interval '1 day'"
        )
        await until(lambda: cancelled == [0, 1])
    assert (await rows(url))[0]["state"] == "running"


async def test_a_lease_is_renewed_as_long_as_the_job_runs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LEASE_SECONDS", 0.3)
    runs = 0

    async def run(_: JobContext, __: Number) -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(1.2)

    job = Job("long", Number, run)
    async with running(url, job) as state, running(url, job):
        await ended(state, await queued(state, job, Number()))
    assert runs == 1


async def test_at_the_stop_a_job_ends_or_is_queued_again_and_the_attempt_does_not_count(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GRACE_SECONDS", 0.3)
    started: list[int] = []

    async def run(_: JobContext, number: Number) -> None:
        started.append(number.n)
        await asyncio.sleep(0.1 if number.n == 0 else 3600)

    short, endless = Job("short", Number, run), Job("endless", Number, run, seconds=None)
    async with running(url, short, endless) as state:
        await queued(state, short, Number(0))
        await queued(state, short, Number(1))
        await queued(state, endless, Number(2))
        await until(lambda: len(started) == 3)
    found = [(one["state"], one["attempts"], one["error"]) for one in await rows(url)]
    assert found == [("done", 1, None), ("queued", 0, None), ("queued", 0, None)]


async def test_failed_jobs_are_listed_and_tried_again(url: str) -> None:
    broken = True

    async def run(_: JobContext, __: Number) -> None:
        if broken:
            raise JobFailedError("broken")

    job = Job("mended", Number, run)
    async with running(url, job) as state:
        ids = [await queued(state, job, Number()) for _ in range(3)]
        for one in ids:
            await ended(state, one)
        values = {"state": "failed", "kind": None, "before": None, "limit": 2}
        failed = await statements.list_.records(state["db"], **values)
        assert [one[0] for one in failed] == [ids[2], ids[1]]
        broken = False
        await state["writer"].run(lambda db: statements.retry.records(db, ids=ids), lambda _: ())
        for one in ids:
            assert (await ended(state, one)).state == "done"
    assert {(row["attempts"], row["claims"], row["error"]) for row in await rows(url)} == {
        (1, 2, None)
    }


async def test_old_jobs_are_removed_failed_ones_later(url: str) -> None:
    async def run(_: JobContext, __: Number) -> None: ...

    await sql(
        url,
        "INSERT INTO jobs (kind, argument, state, finished_at) SELECT state || days, '{}', state,"
        " now() - days * interval '1 day' FROM unnest('{done,failed}'::text[]) AS state,"
        " unnest('{6,8,31}'::int[]) AS days",
    )
    async with running(url, Job("any", Number, run), SERVICE_JOBS="off") as state:
        assert await trim(state["writer"]) == 3
    assert [row["kind"] for row in await rows(url)] == ["done6", "failed6", "failed8"]


async def test_a_storm_of_notifications_costs_few_statements(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STORM_SECONDS", 0.2)

    async def run(_: JobContext, __: Number) -> None: ...

    job, claims = Job("none", Number, run), 0
    async with running(url, job, SERVICE_JOBS="off") as state:

        class Counted:
            async def run(self, *args: Any) -> Any:
                nonlocal claims
                claims += 1
                return await state["writer"].run(*args)

        opened: Any = {**state, "writer": Counted()}
        alone = JobLoop(opened, {"none": job})
        await alone.start()
        connection = await asyncpg.connect(url)
        started = time.monotonic()
        for _ in range(300):
            await connection.execute(f'NOTIFY "{JOBS_CHANNEL}"')
            await asyncio.sleep(0.002)
        took = time.monotonic() - started
        await connection.close()
        await alone.close()
    assert 1 <= claims <= took / 0.2 + 3


async def test_a_place_that_becomes_free_during_a_claim_is_used_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LEASE_SECONDS", 3600.0)
    first, second, gate = asyncio.Event(), asyncio.Event(), asyncio.Event()
    held: list[int] = []

    async def run(_: JobContext, number: Number) -> None:
        match number.n:
            case 0:
                await first.wait()
                raise JobTaken("no statement stores how it ended")
            case 1:
                await second.wait()
            case 2:
                second.set()

    job = Job("two", Number, run, concurrency=2)
    async with running(url, job, SERVICE_JOBS="off") as state:

        class Held:
            async def run(self, *args: Any) -> Any:
                done = await state["writer"].run(*args)
                if held:
                    held.append(1)
                    await gate.wait()
                return done

        opened: Any = {**state, "writer": Held()}
        alone = JobLoop(opened, {"two": job})
        await queued(state, job, Number(0))
        await alone.start()
        await until(lambda: len(alone.running) == 1)
        await until_listening(url)
        held.append(0)
        ids = await state["writer"].run(
            lambda db: enqueue_many(db, job, [Number(1), Number(2)]), lambda _: ()
        )
        await until(lambda: len(held) > 1)
        first.set()
        await until(lambda: not alone.running)
        gate.set()
        for one in ids:
            await ended(state, one)
        await alone.close()


def test_an_application_without_jobs_has_no_table_of_jobs_and_runs_no_loop() -> None:
    def tables(app: Application) -> set[str]:
        return {one.name for one in app.tables}

    assert "jobs" not in tables(create_app(Settings(), migrations=MIGRATIONS))
    assert "jobs" in tables(built_in(Settings()))
