"""Batching: many requests share a statement, and each gets its own correct answer."""

import asyncio
import gc
import random
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import pytest
from conftest import Query
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.db import batch
from service.db.batcher import PATIENCE, UNQUEUED, AwaitedAnswer, Batcher
from service.db.database import Database
from service.db.guarded import Guard
from service.db.statement import Statement
from service.db.writable import WritableDatabase
from service.db.writes import Call
from service.errors import Conflict, Problem, TimedOut, Unavailable
from service.items import items
from service.items.structs import Item, NewItem, Price
from service.users import users

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=("on", "off"))
def batching(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "on")


class Watched(Database):
    """Records the statements that it runs, and can delay their answers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ran: list[tuple[str, int]] = []
        self.hold: asyncio.Event | None = None
        self.held = 0  # answers that have come and wait for `hold`

    async def fetch(
        self, statement: Statement[Any], args: Sequence[object], *, writing: bool = False
    ) -> list[Any]:
        first: Any = args[0] if args else ()
        size = len(first) - first.count(None) if isinstance(first, list | tuple) else 1
        self.ran.append((statement.name, size))
        found = await super().fetch(statement, args, writing=writing)
        if self.hold is not None:
            self.held += 1
            await self.hold.wait()
        return found


@asynccontextmanager
async def opened(
    url: str, *, statement_timeout: float = 60.0, **options: Any
) -> AsyncIterator[Watched]:
    db = Watched(url, statements=items.prepared, statement_timeout=statement_timeout, **options)
    await db.open()
    try:
        yield db
    finally:
        await db.close()


@pytest.fixture
def url(sql: Query, database_url: str) -> str:
    sql("TRUNCATE items, users RESTART IDENTITY CASCADE")
    return database_url


async def ask(url: str, text: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(text)
    finally:
        await connection.close()


def new(name: str, sku: str | None = None, owner: int | None = None) -> tuple[object, ...]:
    return (sku, name, None, Decimal("1.5"), True, owner)


async def change(
    db: Database, item_id: int, versions: list[int] | None = None, **fields: Any
) -> Any:
    guard, given = None if versions is None else Guard(versions), items.change(**fields)
    return await items.writes.change.run(WritableDatabase(db), guard, id=item_id, given=given)


async def until(test: Callable[[], Any]) -> None:
    """Wait until `test` is true, up to 30 s."""
    async with asyncio.timeout(30):
        while not test():  # noqa: ASYNC110 - no event says it
            await asyncio.sleep(0.005)


async def settled(work: list[Any]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


async def test_a_closed_database_is_freed_without_the_garbage_collector(url: str) -> None:
    """Its batchers hold no reference to it, so requests leave no cycle behind either."""
    gc.collect()
    gc.disable()
    try:
        db = Database(url, statements=items.prepared)
        await db.open()
        made = await asyncio.gather(
            *(items.add.run(WritableDatabase(db), new(f"Item {n}")) for n in range(20))
        )
        await asyncio.gather(*(items.by_id.get(db, row.id) for row in made))
        assert db.batchers
        await db.close()
        await asyncio.sleep(2 * PATIENCE)  # a batcher's timer holds it as long
        left = weakref.ref(db)
        del db
        assert left() is None
    finally:
        gc.enable()


# Reads.


async def test_concurrent_reads_share_statements(url: str) -> None:
    await ask(url, "INSERT INTO items (name) SELECT 'Item ' || n FROM generate_series(1, 300) n")
    async with opened(url) as db:
        found = await asyncio.gather(*(items.by_id.get(db, n) for n in range(1, 311)))
        assert [one and one.name for one in found] == [
            *(f"Item {n}" for n in range(1, 301)),
            *[None] * 10,
        ]
        assert len(db.ran) <= UNQUEUED + 3
        assert max(size for _, size in db.ran) == batch.READS


async def test_a_read_without_others_runs_a_statement_of_its_own(url: str) -> None:
    await ask(url, "INSERT INTO items (name) VALUES ('One')")
    async with opened(url) as db:
        for _ in range(3):
            assert await items.by_id.get(db, 1)
        assert db.ran == [("items.by_id", 1)] * 3


async def test_requests_that_arrive_as_a_batch_ends_share_the_next_one(url: str) -> None:
    """A client that has its answer asks again at once."""
    async with opened(url) as db:
        loop, batches = asyncio.get_running_loop(), []
        held, ended = asyncio.Event(), asyncio.Event()

        async def run_batch(_: Database, batch: list[Any]) -> None:
            batches.append([waiter.args for waiter in batch])
            if len(batches) == 1:
                await held.wait()
                loop.call_soon(batcher.submit, db, AwaitedAnswer(None, "its next request"))
            else:
                ended.set()

        batcher = Batcher("x", run_batch, run_batch, ordered=False, max_batch=9, in_flight=1)
        batcher.submit(db, AwaitedAnswer(None, "first"))
        await until(lambda: batches)
        batcher.submit(db, AwaitedAnswer(None, "waiting"))
        held.set()
        await ended.wait()
        assert batches == [["first"], ["waiting", "its next request"]]


async def test_a_key_requested_twice_is_read_once(url: str) -> None:
    await ask(url, "INSERT INTO items (name) SELECT 'Item ' || n FROM generate_series(1, 2) n")
    async with opened(url) as db:
        found = await asyncio.gather(*(items.by_id.get(db, 1 + n % 2) for n in range(100)))
        assert Counter(one.name for one in found if one) == {"Item 1": 50, "Item 2": 50}
        assert sum(size for _, size in db.ran) <= UNQUEUED + 2


async def test_reads_of_one_row_and_of_several_share_statements(url: str, batching: bool) -> None:
    await ask(url, "INSERT INTO items (name) SELECT 'Item ' || n FROM generate_series(1, 30) n")
    async with opened(url, batching=batching) as db:
        work = [items.by_id.several(db, [n, n + 1, 99, n]) for n in range(1, 25)]
        many, one = await asyncio.gather(
            asyncio.gather(*work), asyncio.gather(*(items.by_id.get(db, n) for n in range(1, 40)))
        )
        assert len(db.ran) <= UNQUEUED + 2 or not batching
        assert [{key: row.name for key, row in found.items()} for found in many] == [
            {n: f"Item {n}", n + 1: f"Item {n + 1}"} for n in range(1, 25)
        ]
        assert [row and row.id for row in one] == [*range(1, 31), *[None] * 9]
        db.ran.clear()
        assert await items.by_id.several(db, []) == {}
        assert not db.ran


async def test_a_read_that_starts_after_a_write_sees_it(url: str) -> None:
    """It waits while statements run, but does not use their results."""
    await ask(url, "INSERT INTO items (name) VALUES ('Before')")
    async with opened(url) as db:
        db.hold = asyncio.Event()
        early = [asyncio.create_task(items.by_id.get(db, 1)) for _ in range(UNQUEUED)]
        await until(lambda: db.held == UNQUEUED)
        await ask(url, "UPDATE items SET name = 'After'")
        late = [asyncio.create_task(items.by_id.get(db, 1)) for _ in range(5)]
        await asyncio.sleep(0.05)
        db.hold.set()
        assert {one.name for one in await asyncio.gather(*early) if one} == {"Before"}
        assert {one.name for one in await asyncio.gather(*late) if one} == {"After"}


async def test_identical_concurrent_lists_share_a_statement_and_its_page(url: str) -> None:
    await ask(url, "INSERT INTO items (name) SELECT 'Item ' || n FROM generate_series(1, 30) n")
    page = items.listing.page("id", (), "exact")
    first, second = {"limit": 11, "offset": 0}, {"limit": 11, "offset": 10}
    async with opened(url) as db:
        made: list[list[Any]] = []

        def make(records: list[Any]) -> list[Any]:
            made.append(records)
            return records

        work = [batch.single_flight(db, page, one, make) for one in (first, second) * 20]
        found = await asyncio.gather(*work)
        assert len(db.ran) == len(made) == 4
        assert [records[0]["id"] for records in found] == [1, 11] * 20
        assert not db.batchers


async def test_a_list_that_starts_after_a_write_sees_it(url: str) -> None:
    page, values = items.listing.page("id", (), "exact"), {"limit": 11, "offset": 0}
    async with opened(url) as db:
        db.hold = asyncio.Event()
        early = asyncio.create_task(batch.single_flight(db, page, values, list))
        await until(lambda: db.held)
        await ask(url, "INSERT INTO items (name) VALUES ('New')")
        late = [asyncio.create_task(batch.single_flight(db, page, values, list)) for _ in range(3)]
        await asyncio.sleep(0.05)
        db.hold.set()
        assert (await early)[0]["total"] == 0
        assert [records[0]["total"] for records in await asyncio.gather(*late)] == [1] * 3


# Creations.


async def test_each_creation_gets_its_own_row(url: str, batching: bool) -> None:
    names = [f"Widget {n}" for n in range(400)]
    random.Random(1).shuffle(names)
    async with opened(url, batching=batching) as db:
        made = await asyncio.gather(
            *(items.add.run(WritableDatabase(db), new(name)) for name in names)
        )
        assert [one.name for one in made] == names
        assert len({one.id for one in made}) == 400
        assert (len(db.ran) < 20) == batching
    stored = {row["id"]: row["name"] for row in await ask(url, "SELECT id, name FROM items")}
    assert stored == {one.id: one.name for one in made}


async def test_a_bad_row_fails_alone(url: str, batching: bool) -> None:
    await ask(url, "INSERT INTO items (name, sku) VALUES ('Here', 'taken')")
    wanted = [new(f"Good {n}") for n in range(100)]
    wanted[7] = new("Bad sku", sku="taken")
    wanted[50] = new("Bad owner", owner=99)
    wanted[51] = new("Twin", sku="twin")
    wanted[93] = new("Twin", sku="twin")
    async with opened(url, batching=batching) as db:
        found = await settled([items.add.run(WritableDatabase(db), values) for values in wanted])
    bad = {n: one for n, one in enumerate(found) if isinstance(one, BaseException)}
    assert {7, 50} < set(bad)
    assert len(bad) == 3
    assert len({51, 93} & set(bad)) == 1
    for problem in bad.values():
        assert isinstance(problem, Conflict)
    assert [error.field for error in bad[7].errors] == ["sku"]  # type: ignore[attr-defined]  # a Conflict
    assert [error.field for error in bad[50].errors] == ["owner_id"]  # type: ignore[attr-defined]  # as above
    assert (await ask(url, "SELECT count(*) FROM items"))[0][0] == 1 + 97


async def test_taken_keys_cost_a_batch_few_statements(url: str) -> None:
    await ask(
        url,
        "INSERT INTO items (name, sku) SELECT 'Here', 'S' || n FROM generate_series(0, 99, 10) n",
    )
    wanted = [new(f"Item {n}", sku=f"S{n % 95}" if n % 7 else None) for n in range(100)]
    twins = {n for n in range(95, 100) if n % 7 and (n - 95) % 7 and (n - 95) % 10}
    taken = {n for n in range(100) if n % 7 and n % 95 % 10 == 0}
    async with opened(url) as db:
        found = await settled([items.add.run(WritableDatabase(db), values) for values in wanted])
        ran = Counter(name for name, _ in db.ran)
    bad = {n: one for n, one in enumerate(found) if isinstance(one, BaseException)}
    assert taken < set(bad)
    assert len(bad) == len(taken) + len(twins)
    for problem in bad.values():
        assert isinstance(problem, Conflict)
        assert problem.detail == "sku is already taken"
    assert [one.name for one in found if not isinstance(one, BaseException)] == [
        f"Item {n}" for n in range(100) if n not in bad
    ]
    assert (await ask(url, "SELECT count(*) FROM items"))[0][0] == 10 + 100 - len(bad)
    assert ran.total() < 15, ran


async def test_keys_that_differ_in_case_only_cost_a_batch_few_statements(url: str) -> None:
    emails = [f"{name}{n}@example.com" for n in range(40) for name in ("ada", "Ada")]
    wanted: list[tuple[object, ...]] = [
        (email, f"user_{n}", None, "user", True) for n, email in enumerate(emails)
    ]
    async with opened(url) as db:
        found = await settled([users.add.run(WritableDatabase(db), values) for values in wanted])
        ran = Counter(name for name, _ in db.ran)
    bad = [one for one in found if isinstance(one, BaseException)]
    assert len(bad) == 40
    assert {str(getattr(one, "detail", one)) for one in bad} == {"email is already taken"}
    stored = await ask(url, "SELECT count(DISTINCT lower(email)), count(*) FROM users")
    assert tuple(stored[0]) == (40, 40)
    assert ran.total() < 12, ran


# Changes.


async def test_changes_of_one_row_apply_in_order(url: str) -> None:
    await ask(url, "INSERT INTO items (name) SELECT 'Item ' || n FROM generate_series(1, 5) n")
    async with opened(url) as db:
        found = await asyncio.gather(
            *(change(db, 1 + n % 5, name=f"Change {n}") for n in range(200))
        )
    for item_id in range(1, 6):
        mine = [row for row, _ in found if row.id == item_id]
        assert [row.version for row in mine] == list(range(2, 42))
        assert [row.name for row in mine] == [f"Change {n}" for n in range(item_id - 1, 200, 5)]
    stored = await ask(url, "SELECT name, version FROM items ORDER BY id")
    assert [tuple(row) for row in stored] == [(f"Change {n}", 41) for n in range(195, 200)]


async def test_without_batching_no_change_of_a_row_is_lost(url: str) -> None:
    """Each runs on its own connection, so PostgreSQL decides their order."""
    await ask(url, "INSERT INTO items (name) VALUES ('Item')")
    async with opened(url, batching=False) as db:
        found = await asyncio.gather(*(change(db, 1, name=f"Change {n}") for n in range(40)))
        assert len(db.ran) == 40
    assert sorted(row.version for row, _ in found) == list(range(2, 42))


async def test_changes_of_different_fields_share_a_statement(url: str) -> None:
    await ask(url, "INSERT INTO items (name, price) SELECT 'Item', 1 FROM generate_series(1, 100)")
    async with opened(url) as db:
        work: list[Any] = []
        for n in range(1, 101, 4):
            work += [
                change(db, n, name="Named"),
                change(db, n + 1, price=None, description="Cleared"),
                items.writes.deactivate.run(WritableDatabase(db), None, id=n + 2),
                items.writes.replace.run(
                    WritableDatabase(db),
                    None,
                    id=n + 3,
                    given=NewItem(name="Whole", price=Price(7)),
                ),
            ]
        found = [row for row, _ in await asyncio.gather(*work)]
        assert len(db.ran) <= 5
    for n, row in enumerate(found):
        assert row.id == n + 1
        assert row.version == 2
    kinds = [(row.name, row.price, row.description, row.is_active) for row in found[:4]]
    assert kinds == [
        ("Named", 1, None, True),
        ("Item", None, "Cleared", True),
        ("Item", 1, None, False),
        ("Whole", 7, None, True),
    ]
    for n, row in enumerate(found):
        assert (row.name, row.price, row.description, row.is_active) == kinds[n % 4]


@pytest.mark.parametrize(
    "fields", ({"is_active": False}, {"price": Price(0)}, {"description": None}, {"name": "All"})
)
async def test_a_batch_may_set_one_field_alone(url: str, fields: dict[str, Any]) -> None:
    """Arrays of the others are empty; also false, zero and null are values."""
    await ask(
        url,
        "INSERT INTO items (sku, name, description, price)"
        " SELECT 'S' || n, 'Item', 'Text', 1 FROM generate_series(1, 40) n",
    )
    async with opened(url) as db:
        found = [
            row for row, _ in await asyncio.gather(*(change(db, n, **fields) for n in range(1, 41)))
        ]
        assert len(db.ran) <= 5
    before = {"name": "Item", "description": "Text", "price": 1, "is_active": True}
    for n, row in enumerate(found, 1):
        seen = {name: getattr(row, name) for name in before}
        assert (row.id, row.sku, row.version, seen) == (n, f"S{n}", 2, {**before, **fields})


async def test_a_batch_keeps_what_only_admins_set_in_replacements_by_owners(url: str) -> None:
    await ask(
        url,
        "INSERT INTO users (email, username, role) SELECT n || '@example.com', 'user' || n, 'admin'"
        " FROM generate_series(1, 30) n",
    )
    async with opened(url) as db:
        work = [
            users.writes.replace.run(
                WritableDatabase(db),
                None,
                None if n % 3 == 0 else n + n % 3 - 1,  # an admin, the user, another user
                id=n,
                given=users.new(email=f"{n}@example.org", username=f"new{n}", role="user")
                if n % 3 == 0
                else users.replacement(email=f"{n}@example.org", username=f"new{n}"),
            )
            for n in range(1, 31)
        ]
        found = [row for row, _ in await settled(work)]
        assert len(db.ran) <= 5
    for n, row in enumerate(found, 1):
        if n % 3 == 2:
            assert row is None
        else:
            assert (row.username, row.role) == (f"new{n}", "user" if n % 3 == 0 else "admin")


async def test_a_second_soft_delete_changes_nothing_within_a_batch_too(url: str) -> None:
    await ask(
        url,
        "INSERT INTO items (name, is_active) SELECT 'Item', n > 5 FROM generate_series(1, 10) n",
    )
    async with opened(url) as db:
        found = await asyncio.gather(
            *(items.writes.deactivate.run(WritableDatabase(db), None, id=n) for n in range(1, 11))
        )
    assert [row.version for row, _ in found if row] == [1] * 5 + [2] * 5
    assert [row.updated_at is None for row, _ in found if row] == [True] * 5 + [False] * 5


async def test_each_guarded_write_in_a_batch_gets_its_own_answer(url: str, batching: bool) -> None:
    await ask(
        url, "INSERT INTO items (name, version) SELECT 'Item', n FROM generate_series(1, 40) n"
    )
    async with opened(url, batching=batching) as db:
        found = await asyncio.gather(
            *(change(db, n, [n], name="Right") for n in range(1, 11)),
            *(change(db, n, [1], name="Stale") for n in range(11, 21)),
            *(change(db, n, [1, n], name="Either") for n in range(21, 31)),
            *(change(db, n, [], name="Never") for n in range(31, 41)),
            *(change(db, n, [1], name="Missing") for n in range(41, 46)),
            *(change(db, n, name="Missing") for n in range(46, 51)),
        )
    assert [row.version for row, _ in found[:10]] == list(range(2, 12))
    assert found[10:20] == [(None, n) for n in range(11, 21)]
    assert [row.name for row, _ in found[20:30]] == ["Either"] * 10
    assert found[30:40] == [(None, n) for n in range(31, 41)]
    assert found[40:] == [(None, None)] * 10


async def test_the_write_itself_compares_excluded_versions(url: str, batching: bool) -> None:
    """If-None-Match of a write: other changes share a statement, these run at the same time."""
    await ask(url, "INSERT INTO items (name) SELECT 'Item ' || n FROM generate_series(1, 40) n")
    guards = [None, Guard(None, [1]), Guard(None, [7]), Guard([]), Guard([1], [7]), Guard([1], [1])]
    async with opened(url, batching=batching) as db:
        given = items.change(price=Price(5))
        work = [
            items.writes.change.run(
                WritableDatabase(db), guards[n % len(guards)], id=n, given=given
            )
            for n in range(1, 43)
        ]
        found = await settled(work)
    for n, (row, version) in enumerate(found, 1):
        done = n % len(guards) in (0, 2, 4) and n <= 40
        assert (row is not None and row.version) == (2 if done else False), n
        assert version == (None if done or n > 40 else 1), n


async def test_a_refused_change_does_not_affect_others_in_its_batch(url: str) -> None:
    await ask(
        url,
        "INSERT INTO items (name, sku) SELECT 'Item', 'sku-' || n FROM generate_series(1, 60) n",
    )
    async with opened(url) as db:
        found = await settled(
            [
                change(db, n, None, **({"sku": "sku-60"} if n == 30 else {"name": f"New {n}"}))
                for n in range(1, 60)
            ]
        )
    assert isinstance(found.pop(29), Conflict)
    assert [row.version for row, _ in found] == [2] * 58
    assert (await ask(url, "SELECT count(*) FROM items WHERE version = 2"))[0][0] == 58


async def test_a_delete_runs_in_order_with_changes_of_its_row(url: str) -> None:
    await ask(url, "INSERT INTO items (name) VALUES ('Item')")
    async with opened(url) as db:
        before = [change(db, 1, name=f"Change {n}") for n in range(5)]
        gone = items.writes.remove.run(WritableDatabase(db), None, id=1)
        after = [change(db, 1, name="Late") for _ in range(3)]
        found = await asyncio.gather(*before, gone, *after)
    assert [row and row.version for row, _ in found[:6]] == [2, 3, 4, 5, 6, 6]
    assert found[6:] == [(None, None)] * 3


# Trouble.


async def test_a_cancelled_waiting_request_does_not_affect_others(url: str) -> None:
    async with opened(url) as db:
        db.hold = asyncio.Event()
        tasks = [
            asyncio.create_task(items.add.run(WritableDatabase(db), new(f"Item {n}")))
            for n in range(50)
        ]
        await until(lambda: db.held)
        for task in tasks[10:40]:  # they wait
            task.cancel()
        await asyncio.sleep(0.05)
        db.hold.set()
        found = await settled(tasks)
    assert all(isinstance(one, asyncio.CancelledError) for one in found[10:40])
    names = [one.name for one in (*found[:10], *found[40:])]
    assert names == [f"Item {n}" for n in (*range(10), *range(40, 50))]
    assert (await ask(url, "SELECT count(*) FROM items"))[0][0] == 20, (
        "what was not sent is not written"
    )


async def test_a_request_cancelled_within_a_sent_batch_does_not_affect_others(url: str) -> None:
    locker = await asyncpg.connect(url)
    async with opened(url) as db:
        tasks = [
            asyncio.create_task(items.add.run(WritableDatabase(db), new(f"Item {n}")))
            for n in range(40)
        ]
        await asyncio.gather(*tasks)
        await locker.execute("BEGIN; LOCK TABLE items IN EXCLUSIVE MODE")
        tasks = [
            asyncio.create_task(items.add.run(WritableDatabase(db), new(f"More {n}")))
            for n in range(40)
        ]
        await wait_for_a_lock(url)
        await locker.execute("ROLLBACK")
        await asyncio.sleep(0)
        for task in tasks[UNQUEUED:20]:
            task.cancel()
        found = await settled(tasks)
    assert [one.name for one in found[20:]] == [f"More {n}" for n in range(20, 40)]
    await locker.close()


async def test_a_lost_connection_means_an_unknown_outcome_for_the_batch(url: str) -> None:
    locker = await asyncpg.connect(url)
    await locker.execute("BEGIN; INSERT INTO items (name, sku) VALUES ('First', 'same')")
    async with opened(url) as db:
        tasks = [
            asyncio.create_task(items.add.run(WritableDatabase(db), new(f"Item {n}", "same")))
            for n in range(30)
        ]
        await wait_for_a_lock(url)
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {WAITING}"
        async with asyncio.timeout(30):
            while not all(task.done() for task in tasks):  # the two, then all behind them
                await ask(url, kill)
        found = await settled(tasks)
        for problem in found:
            assert isinstance(problem, Unavailable)
            assert "outcome unknown" in str(problem.detail)
        assert len(db.ran) <= UNQUEUED + 2, "none is tried again"
        await locker.execute("ROLLBACK")
        assert (await items.add.run(WritableDatabase(db), new("Afterwards"))).name == "Afterwards"
    await locker.close()


WAITING = "wait_event_type = 'Lock' AND datname = current_database()"


async def wait_for_a_lock(url: str) -> None:
    """Wait until a statement waits for a lock."""
    async with asyncio.timeout(30):
        while not await ask(url, f"SELECT 1 FROM pg_stat_activity WHERE {WAITING}"):
            pass


async def test_a_locked_row_delays_only_its_own_changes(url: str) -> None:
    """Others in its statement are delayed by its wait at most, later requests not at all."""
    await ask(url, "INSERT INTO items (name) SELECT 'Item' FROM generate_series(1, 60)")
    locker = await asyncpg.connect(url)
    await locker.execute("BEGIN; SELECT 1 FROM items WHERE id = 9 FOR UPDATE")
    async with opened(url, statement_timeout=2.0) as db:
        first = [asyncio.create_task(change(db, n, name="Changed")) for n in range(1, 31)]
        await wait_for_a_lock(url)
        late = [asyncio.create_task(change(db, n, name="Changed")) for n in range(31, 61)]
        await asyncio.gather(*late)
        assert not first[8].done(), "they did not wait for it"
        found = await settled(first)
        blocked = found.pop(8)
        assert isinstance(blocked, TimedOut)
        assert "locked" in str(blocked.detail)
        assert {row.version for row, _ in found} == {2}
        await locker.execute("ROLLBACK")
        assert (await change(db, 9, name="Changed"))[0].version == 2
    await locker.close()


async def test_a_locked_row_delays_no_later_change_of_another(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is held up does not count as running; else each later one waits for a timer."""
    await ask(url, "INSERT INTO items (name) SELECT 'Item' FROM generate_series(1, 20)")
    locker = await asyncpg.connect(url)
    await locker.execute("BEGIN; SELECT 1 FROM items WHERE id = 9 FOR UPDATE")

    def submitted(db: Database, id_: int) -> asyncio.Future[Any]:
        call = Call(items.writes.change, None, None, id_, items.change(name="Changed"))
        waiter = AwaitedAnswer(id_, call)
        items.writes.submit(WritableDatabase(db), waiter)
        return waiter.future

    async with opened(url) as db:
        blocked = submitted(db, 9)
        await wait_for_a_lock(url)
        await asyncio.sleep(2 * PATIENCE)
        monkeypatch.setattr(Batcher, "_look", lambda _self, _db: None)  # the timer
        async with asyncio.timeout(20):
            for id_ in range(10, 20):
                assert (await submitted(db, id_))[0].version == 2
        assert not blocked.done()
        await locker.execute("ROLLBACK")
        assert (await blocked)[0].version == 2
    await locker.close()


async def test_a_guard_by_zero_holds_in_a_batch_too(url: str) -> None:
    await ask(url, "INSERT INTO items (name) SELECT 'Item' FROM generate_series(1, 20)")
    async with opened(url) as db:
        waiters = []
        for id_ in range(1, 21):
            guard, owner = (Guard([0]), None) if id_ % 2 else (None, 0)
            call = Call(items.writes.change, guard, owner, id_, items.change(name="Changed"))
            waiters.append(AwaitedAnswer(id_, call))
            items.writes.submit(WritableDatabase(db), waiters[-1])
        assert {(await one.future)[0] for one in waiters} == {None}
        assert await ask(url, "SELECT FROM items WHERE version > 1 OR name <> 'Item'") == []


async def test_locked_rows_leave_a_connection_for_reads(url: str) -> None:
    await ask(url, "INSERT INTO items (name) SELECT 'Item' FROM generate_series(1, 200)")
    locker = await asyncpg.connect(url)
    await locker.execute("BEGIN; UPDATE items SET price = 1")
    async with opened(url, statement_timeout=2.0) as db:
        blocked = [asyncio.create_task(change(db, n, name="Changed")) for n in range(1, 150)]
        blocked += [
            asyncio.create_task(items.writes.remove.run(WritableDatabase(db), None, id=n))
            for n in range(150, 170)
        ]
        await wait_for_a_lock(url)
        for n in range(1, 50):
            assert await items.by_id.get(db, n) is not None
        assert not all(task.done() for task in blocked), "the reads did not wait for them"
        for problem in await settled(blocked):
            assert isinstance(problem, TimedOut | Unavailable)
        await locker.execute("ROLLBACK")
        assert (await change(db, 9, name="Changed"))[0].version == 2
    await locker.close()


async def test_a_full_queue_is_refused_at_once(url: str) -> None:
    async with opened(url, queue_limit=5) as db:
        db.hold = asyncio.Event()
        kept = [asyncio.create_task(items.by_id.get(db, n)) for n in range(UNQUEUED + 5)]
        await until(lambda: db.held == UNQUEUED)
        with pytest.raises(Unavailable, match="waiting"):
            await asyncio.wait_for(items.by_id.get(db, 9), 30)
        db.hold.set()
        await asyncio.gather(*kept)


async def test_a_request_that_waited_too_long_is_refused(url: str) -> None:
    async with opened(url, statement_timeout=1.0) as db:
        db.hold = asyncio.Event()
        first = [asyncio.create_task(items.by_id.get(db, n)) for n in range(UNQUEUED)]
        late = asyncio.create_task(items.by_id.get(db, 9))
        await asyncio.sleep(1.1)
        db.hold.set()
        await asyncio.gather(*first)
        with pytest.raises(Unavailable, match="behind"):
            await late


async def test_a_statement_is_tried_again_after_a_deadlock_between_workers(url: str) -> None:
    await ask(url, "INSERT INTO items (name) SELECT 'Item' FROM generate_series(1, 50)")
    async with opened(url) as one, opened(url) as other:
        work = [
            change(db, n, name="Changed")
            for _ in range(20)
            for db, order in ((one, range(1, 51)), (other, range(50, 0, -1)))
            for n in order
        ]
        found = await settled(work)
    problems = [one for one in found if isinstance(one, BaseException)]
    assert not problems
    assert {row[0] for row in await ask(url, "SELECT version FROM items")} == {41}


async def test_users_are_batched_like_items(url: str) -> None:
    async with opened(url) as db:
        made = await settled(
            [
                users.add.run(
                    WritableDatabase(db), (f"u{n % 95}@example.com", f"user{n}", None, "user", True)
                )
                for n in range(100)
            ]
        )
        good = [one for one in made if not isinstance(one, Problem)]
        assert len(good) == 95
        read = await asyncio.gather(*(users.by_id.get(db, one.id) for one in good))
        assert read == good


# A model: any program of requests, run all at once.

Operation = tuple[str, int, int | None, int]
operations = st.lists(
    st.tuples(
        st.sampled_from(("read", "change", "change", "guarded", "deactivate", "remove", "add")),
        st.integers(1, 4),
        st.one_of(st.none(), st.integers(1, 6)),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=60,
)


class History:
    """The answers to the requests of a program, and what must be true of them."""

    def __init__(self, db: Database, program: list[Operation]) -> None:
        self.db = db
        self.program = program
        self.answered = dict.fromkeys(range(1, 5), 1)  # the newest version told of
        self.states = {(n, 1): "Item" for n in range(1, 5)}
        self.gone: set[int] = set()
        self.seen: list[Item] = []
        self.kinds = Counter(kind for kind, *_ in program)

    async def run(self) -> None:
        await asyncio.gather(*(self._one(n, one) for n, one in enumerate(self.program)))

    async def _one(self, number: int, operation: Operation) -> None:
        kind, item_id, version, turns = operation
        for _ in range(turns):
            await asyncio.sleep(0)
        if kind == "add":
            made = await items.add.run(WritableDatabase(self.db), new(f"Made {number}"))
            assert made.name == f"Made {number}"
        elif kind == "read":
            was, was_gone = self.answered[item_id], item_id in self.gone
            row = await items.by_id.get(self.db, item_id)
            assert row is not None or self.kinds["remove"]
            if row is not None:
                assert not was_gone
                assert row.version >= was
                self.seen.append(row)
        elif kind == "remove":
            await items.writes.remove.run(WritableDatabase(self.db), None, id=item_id)
            self.gone.add(item_id)
        else:
            await self._write(kind, item_id, version, f"Change {number}")

    async def _write(self, kind: str, item_id: int, version: int | None, name: str) -> None:
        was, was_gone = self.answered[item_id], item_id in self.gone
        versions = [version] if kind == "guarded" and version is not None else None
        if kind == "deactivate":
            row, _ = await items.writes.deactivate.run(WritableDatabase(self.db), None, id=item_id)
        else:
            row, found = await change(self.db, item_id, versions, name=name)
            assert found is None or versions is None or found not in versions
        if row is None:
            return
        assert not was_gone
        assert row.version >= was
        if kind != "deactivate":
            assert row.name == name
            assert versions is None or row.version == versions[0] + 1
            assert (item_id, row.version) not in self.states, "two writes, one version"
        self.states.setdefault((item_id, row.version), row.name)
        self.answered[item_id] = max(self.answered[item_id], row.version)

    def check(self, stored: dict[int, Any]) -> None:
        for row in self.seen:
            assert self.states[row.id, row.version] == row.name
        for item_id in range(1, 5):
            assert (item_id in stored) == (item_id not in self.gone)
            mine = sorted(version for n, version in self.states if n == item_id)
            assert mine == list(range(1, len(mine) + 1)), "a version is missing"
            if item_id in stored:
                assert stored[item_id]["version"] == mine[-1]
                assert stored[item_id]["name"] == self.states[item_id, mine[-1]]
        assert len(stored) == 4 - len(self.gone) + self.kinds["add"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(program=operations)
def test_concurrent_requests_have_the_result_of_some_order(
    url: str, sql: Query, program: list[Operation]
) -> None:
    """Each row's answered writes have the versions 2, 3, … without gap.

    Reads see one of those states, never one older than what was answered before they began, and
    what is stored in the end is the last state.
    """
    sql("TRUNCATE items RESTART IDENTITY")
    sql("INSERT INTO items (name) SELECT 'Item' FROM generate_series(1, 4)")

    async def run() -> History:
        async with opened(url, size=3) as db:
            history = History(db, program)
            await history.run()
            return history

    history = asyncio.run(run())
    history.check({row["id"]: row for row in sql("SELECT * FROM items")})


# Through the server.


def test_concurrent_requests_get_their_own_answers(client: httpx.Client) -> None:
    async def run() -> None:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=client.base_url, limits=limits, timeout=30) as many:
            made = await asyncio.gather(
                *(many.post("/items", json={"name": f"Item {n}"}) for n in range(200))
            )
            assert [one.json()["name"] for one in made] == [f"Item {n}" for n in range(200)]
            places = [one.headers["location"] for one in made]
            read = await asyncio.gather(*(many.get(place) for place in places))
            assert [one.json() for one in read] == [one.json() for one in made]
            tags = [one.headers["etag"] for one in made]
            first = [many.patch(place, json={"price": 1}) for place in places[::2]]
            stale = [
                many.patch(place, json={"price": 2}, headers={"If-Match": '"9"'})
                for place in places[1::2]
            ]
            answers = await asyncio.gather(*first, *stale)
            assert [one.status_code for one in answers] == [200] * 100 + [412] * 100
            assert set(tags) == {'"1"'}

    asyncio.run(run())
