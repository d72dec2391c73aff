"""The pool on a real server: connections that it opens, lends, replaces and refuses."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Float, Select, bindparam, func, select, table, text

from service.db.database import Database
from service.db.observer import Observer
from service.db.pool import BACKOFF_SECONDS
from service.db.statement import Statement
from service.db.writable import WritableDatabase
from service.embedded.programs import wheel_postgres
from service.embedded.stores import stores
from service.errors import Failed, Invalid, Problem, TimedOut, Unavailable
from service.items import items
from service.metrics import Metrics, Store
from service.metrics.exposition import prometheus
from service.timing import Timing, timing

from conftest import query  # isort: skip

pytestmark = pytest.mark.anyio

sleep = Statement(
    "test.sleep",
    lambda *_: True,
    select(func.pg_sleep(bindparam("seconds", type_=Float))),
)
pid = Statement("test.pid", int, select(func.pg_backend_pid()))
NEW = (None, "Widget", None, None, True, None)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def empty_database(new_database: Callable[[], str]) -> str:
    return new_database()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    db = Database(url, **options)
    await db.open()
    try:
        yield db
    finally:
        await db.close()


async def until(url: str, sql: str, value: object) -> None:
    """Wait until a query of one value gives `value`, up to 30 s."""
    connection = await asyncpg.connect(url)
    async with asyncio.timeout(30):
        while await connection.fetchval(sql) != value:  # noqa: ASYNC110 - no event says it
            await asyncio.sleep(0.01)
    await connection.close()


async def problem_of(work: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value


async def test_a_new_connection_holds_no_transaction_and_no_lock(database_url: str) -> None:
    async with opened(database_url, size=1, statements=items.prepared) as db:
        before = datetime.now(UTC)
        item = await items.add.run(WritableDatabase(db), NEW)
        # It is the time at which the transaction has begun.
        assert before <= item.created_at
    async with opened(database_url, size=2, statements=items.prepared):
        other = await asyncpg.connect(database_url)
        await asyncio.wait_for(other.execute("TRUNCATE items, users, keys, notifications"), 30)
        await other.close()


async def test_statements_are_prepared_once_per_connection(database_url: str) -> None:
    held = select(func.count()).select_from(table("pg_prepared_statements"))
    count = Statement("test.count", int, held)
    async with opened(database_url, size=1, statements=(items.by_id.single, count)) as db:
        for _ in range(10):
            await items.by_id.get(db, 1)
        assert await count.one(db) == 2


async def test_one_connection_prepares_all_statements_and_the_others_at_their_first_use(
    database_url: str,
) -> None:
    async with opened(database_url, size=3, statements=(sleep, pid)) as db:
        assert [len(one.prepared) for one in db.pool._idle] == [0, 0, 2]  # the last is used first
        await asyncio.gather(*(pid.only(db) for _ in range(3)))
        assert sorted(len(one.prepared) for one in db.pool._idle) == [1, 1, 2]


async def test_the_connection_used_last_is_used_next(database_url: str) -> None:
    async with opened(database_url, size=3) as db:
        assert len({await pid.one(db) for _ in range(10)}) == 1


async def test_the_pool_opens_no_more_connections_than_its_size(database_url: str) -> None:
    async with opened(database_url, size=3) as db:
        pids = await asyncio.gather(*(pid.one(db) for _ in range(50)))
        assert len(set(pids)) <= 3


async def test_a_size_of_none_connects_for_each_use_and_leaves_nothing(database_url: str) -> None:
    async with opened(database_url, size=None) as db:
        assert await pid.one(db) != await pid.one(db)
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'swiftlet'"
    here = f"{left} AND datname = current_database() AND query LIKE '%pg_backend_pid%'"
    await until(database_url, here, 0)


async def test_a_full_queue_refuses_at_once(database_url: str) -> None:
    async with opened(database_url, size=1, queue_limit=2) as db:
        running = [asyncio.create_task(sleep.one(db, seconds=n)) for n in (1.0, 0, 0)]
        await asyncio.sleep(0)
        problem = await problem_of(pid.one(db))
        assert not any(task.done() for task in running), "it has waited for none of them"
        assert isinstance(problem, Unavailable)
        assert dict(problem.headers)[b"retry-after"] == b"1"
        assert await asyncio.gather(*running) == [True] * 3


async def test_the_wait_for_a_connection_is_bounded(database_url: str) -> None:
    metrics = Metrics(Store())
    options: Any = {"statement_timeout": 0.3, "observer": Observer(metrics)}
    async with opened(database_url, size=1, **options) as db:
        held = db.pool.take()
        assert held is not None
        waiting = asyncio.create_task(problem_of(pid.one(db)))
        await asyncio.sleep(0)
        assert db.pool.use == (1, 1, 1)
        problem = await waiting
        assert "in time" in problem.detail
        db.pool.release(held)
        assert await pid.one(db)
        assert db.pool.use == (1, 0, 0)
    shown = "".join(prometheus(metrics.store.slots()))
    assert "\ndb_pool_timeouts_total 1\n" in shown
    assert "\ndb_pool_wait_seconds_count 1\n" in shown


async def test_a_statement_that_takes_too_long_is_cancelled_by_the_server(
    database_url: str,
) -> None:
    async with opened(database_url, size=1, statement_timeout=0.3) as db:
        before = await pid.one(db)
        assert isinstance(await problem_of(sleep.one(db, seconds=5)), TimedOut)
        assert await pid.one(db) == before  # the connection is as good as before


async def test_the_connection_of_a_cancelled_request_is_closed(database_url: str) -> None:
    async with opened(database_url, size=1) as db:
        task = asyncio.create_task(sleep.one(db, seconds=1))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Its successor sees its own answer, not the one that was still to come.
        assert isinstance(await pid.one(db), int)


async def test_a_cancelled_waiter_loses_no_connection(database_url: str) -> None:
    async with opened(database_url, size=1) as db:
        running = asyncio.create_task(sleep.one(db, seconds=0.2))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(pid.one(db)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        await running
        assert sum(isinstance(result, int) for result in results) == 2
        assert await asyncio.wait_for(pid.one(db), 30)


async def test_idle_connections_that_the_server_closed_are_replaced_without_an_error(
    database_url: str,
) -> None:
    async with opened(database_url, size=2, statements=items.prepared) as db:
        other = await asyncpg.connect(database_url)
        before = set(await asyncio.gather(pid.one(db), pid.one(db)))
        for backend in before:
            await other.fetchval("SELECT pg_terminate_backend($1)", backend)
        await other.close()
        assert await pid.one(db) not in before
        assert (await items.add.run(WritableDatabase(db), NEW)).name == "Widget"


async def test_a_read_whose_connection_is_lost_is_tried_once_more(database_url: str) -> None:
    async with opened(database_url, size=1) as db:
        backend = await pid.one(db)
        read = asyncio.create_task(sleep.one(db, seconds=0.3))
        await asyncio.sleep(0.1)
        other = await asyncpg.connect(database_url)
        # kill -9 of one backend would restart them all: this one only hangs up on us.
        await other.fetchval("SELECT pg_terminate_backend($1)", backend)
        await other.close()
        assert await read


async def test_a_write_whose_connection_is_lost_has_an_unknown_outcome(database_url: str) -> None:
    async with opened(database_url, size=1, statements=items.prepared) as db:
        backend = await pid.one(db)
        other = await asyncpg.connect(database_url)
        await other.execute("BEGIN; LOCK TABLE items IN EXCLUSIVE MODE")
        write = asyncio.create_task(items.add.run(WritableDatabase(db), NEW))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await until(database_url, f"{waits} AND pid = {backend}", 1)
        await other.fetchval("SELECT pg_terminate_backend($1)", backend)
        await other.execute("ROLLBACK")
        await other.close()
        problem = await problem_of(write)
        assert isinstance(problem, Unavailable)
        assert "outcome unknown" in problem.detail


async def test_a_plan_that_a_migration_made_stale_is_prepared_again(
    empty_database: str,
) -> None:
    other = await asyncpg.connect(empty_database)
    await other.execute("CREATE TABLE thing (id bigint, word text); INSERT INTO thing VALUES (1,2)")
    both: Select[Any] = select(text("id"), text("word"))
    read = Statement("test.thing", lambda *row: row, both.select_from(table("thing")))
    async with opened(empty_database, size=1, statements=(read,)) as db:
        assert await read.one(db) == (1, "2")
        await other.execute("ALTER TABLE thing ALTER word TYPE int USING word::int")
        assert await read.one(db) == (1, 2)
    await other.close()


async def test_wrong_arguments_are_a_500_and_keep_the_connection(database_url: str) -> None:
    async with opened(database_url, size=1, statements=items.prepared) as db:
        before = await pid.one(db)
        problem = await problem_of(db.fetch(items.by_id.single, []))
        assert isinstance(problem, Failed)
        assert "argument" not in problem.detail
        assert await pid.one(db) == before


async def test_a_value_that_the_driver_refuses_is_a_422(database_url: str) -> None:
    async with opened(database_url, size=1, statements=items.prepared) as db:
        assert isinstance(await problem_of(items.by_id.get(db, 2**80)), Invalid)


async def test_statements_and_their_time_are_counted_for_the_request(database_url: str) -> None:
    async with opened(database_url, size=1) as db:
        spent = Timing()
        timing.set(spent)
        await sleep.one(db, seconds=0.05)
        await pid.one(db)
        assert spent.statements == 2
        assert spent.sql >= 0.05
        timing.set(None)


def _postmaster(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().split("\n")[0])


async def test_a_server_that_hangs_is_given_up_in_time_and_used_again(tmp_path: Path) -> None:
    wheel = wheel_postgres()
    with stores(tmp_path / "data", redis=False, postgres_bin=wheel) as running:
        assert running.database_url is not None
        async with opened(running.database_url, size=1, statement_timeout=0.5) as db:
            backend = await pid.one(db)
            assert backend is not None
            os.kill(backend, signal.SIGSTOP)
            try:
                started = time.perf_counter()
                assert isinstance(await problem_of(pid.one(db)), TimedOut)
                assert time.perf_counter() - started < 20
            finally:
                os.kill(backend, signal.SIGCONT)
            await asyncio.sleep(0.2)
            assert await pid.one(db) != backend


async def test_a_server_that_is_away_is_reported_at_once_and_used_within_a_second_of_its_return(
    tmp_path: Path,
) -> None:
    wheel = wheel_postgres()
    data = tmp_path / "data"
    with stores(data, redis=False, postgres_bin=wheel) as running:
        assert running.database_url is not None
        db = Database(running.database_url, size=2)
        await db.open()
        assert await pid.one(db)
    try:
        await asyncio.sleep(0.2)
        for _ in range(3):
            started = time.perf_counter()
            assert isinstance(await problem_of(pid.one(db)), Unavailable)
            assert time.perf_counter() - started < 20
        with stores(data, redis=False, postgres_bin=wheel) as again:
            assert again.database_url is not None
            db.pool.url = again.database_url  # the embedded socket lies elsewhere at each start
            # Within a second of its return, by the pauses between the tries; a busy machine
            # takes longer for the tries.
            assert BACKOFF_SECONDS < 1
            async with asyncio.timeout(30):
                while True:
                    try:
                        assert await pid.one(db)
                        break
                    except Unavailable:
                        await asyncio.sleep(0.02)
            await db.close()
    finally:
        await db.close()


def test_the_tests_run_in_a_database_of_their_own(database_url: str) -> None:
    assert query(database_url, "SELECT current_database()")[0][0].startswith("test_")


async def test_lost_connections_and_cancelled_waiters_leave_the_pool_at_its_size(
    database_url: str,
) -> None:
    """One connection too few slows requests down; one too many may exceed max_connections."""
    async with opened(database_url, size=3, queue_limit=100) as db:
        other = await asyncpg.connect(database_url)
        for _ in range(15):
            tasks = [asyncio.create_task(sleep.one(db, seconds=0.01)) for _ in range(12)]
            await asyncio.sleep(0.005)
            for task in tasks[::3]:
                task.cancel()
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE application_name = 'swiftlet' AND datname = current_database() LIMIT 1) one"
            )
            await asyncio.gather(*tasks, return_exceptions=True)
        pool = db.pool
        async with asyncio.timeout(30):
            while (len(pool._idle), len(pool._busy), pool._opening, len(pool._waiting)) != (  # noqa: ASYNC110 - no event says it
                *(3, 0, 0, 0),
            ):
                await asyncio.sleep(0.02)
        here = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'swiftlet'"
        mine = await other.fetchval(f"{here} AND pid = ANY($1)", [await pid.one(db)])
        assert mine == 1
        await other.close()


async def test_a_cancelled_waiter_takes_no_place_in_the_queue(database_url: str) -> None:
    async with opened(database_url, size=1, queue_limit=1, statement_timeout=30) as db:
        blocked = asyncio.create_task(sleep.one(db, seconds=0.5))
        await asyncio.sleep(0.05)
        waiter = asyncio.create_task(pid.one(db))
        await asyncio.sleep(0.05)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        next_one = asyncio.create_task(pid.one(db))
        assert isinstance(await next_one, int)
        await blocked


async def test_no_connection_outlives_the_pool_while_requests_still_come(
    empty_database: str,
) -> None:
    """Connections that are released while the pool closes are closed as well."""
    other = await asyncpg.connect(empty_database)

    async def asking(db: Database) -> None:
        for _ in range(100):
            await pid.one(db)

    async def takes_its_time() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)

    for n in range(10):
        async with opened(empty_database, size=3) as db:
            db.spawn(takes_its_time())
            tasks = [asyncio.create_task(asking(db)) for _ in range(6)]
            for _ in range(n):
                await asyncio.sleep(0)
        problems = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(problem, Problem) for problem in problems)
        assert (len(db.pool._idle), len(db.pool._busy), len(db.pool._waiting)) == (0, 0, 0)
    await other.close()
    here = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    await until(empty_database, here, 1)
