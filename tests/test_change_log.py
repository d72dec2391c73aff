"""The log of changes: each committed change once, in the order of the commits, of every writer."""

import asyncio
import itertools
import json
import os
import random
import secrets
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
from sqlalchemy import MetaData, Table
from test_migrations import binaries

from service.asgi import MIGRATIONS
from service.cache.writer import Writer
from service.changes import log
from service.changes.statements import STATEMENTS
from service.db.change_log import BYTES, LOGGED, ROWS, WIDTH, log_triggers
from service.db.database import Database
from service.db.listener import Listener
from service.db.names import CHANGES_CHANNEL, HEARER, SILENT
from service.embedded.stores import stores
from service.errors import Problem, Unavailable
from service.migrations import migrate

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=tuple(binaries()))
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("changes") / "data"
    with stores(data, redis=False, postgres_bin=request.param) as running:
        assert running.database_url is not None
        migrate.up(running.database_url, MIGRATIONS)
        yield running.database_url


# What a connection raises when its server is killed.
ERRORS = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    OSError,
)


class Change(NamedTuple):
    """A change as the log has it."""

    position: int
    kind: str
    row: dict[str, Any]


class Log:
    """The log from now on, and connections that write."""

    def __init__(self, url: str, db: Database, after: int) -> None:
        self.url, self.db, self.after = url, db, after
        self.opened: list[asyncpg.Connection] = []

    async def connect(self, name: str = "test") -> asyncpg.Connection:
        one = await asyncpg.connect(self.url, server_settings={"application_name": name})
        self.opened.append(one)
        return one

    async def next(self, table: str = "items") -> list[Change]:
        """The next changes since the last call; what is being committed is not among them."""
        found = []
        for entry in await log.read_entries(self.db, self.after, 7):
            rows = json.loads(entry.rows)
            assert 1 <= len(rows) <= ROWS
            for place, row in enumerate(rows, entry.position):
                if entry.name == table and place > self.after:
                    found.append(Change(place, entry.kind, row))
            self.after = entry.position + len(rows) - 1
        return found

    async def new(self, table: str = "items") -> list[Change]:
        """All of them."""
        found, before = [], -1
        while before < self.after:
            before = self.after
            found += await self.next(table)
        positions = [one.position for one in found]
        assert positions == sorted(set(positions))
        return found

    async def names(self) -> list[str]:
        return [f"{one.kind} {one.row['name']}" for one in await self.new()]


@asynccontextmanager
async def opened(url: str, after: int | None = None) -> AsyncIterator[Log]:
    db = Database(url, size=2)
    await db.open()
    found = Log(url, db, await log.newest(db) if after is None else after)
    try:
        yield found
    finally:
        for one in found.opened:
            one.terminate()
        await db.close()


@pytest.fixture
async def changes(url: str) -> AsyncIterator[Log]:
    """The log from now on; the table of items is empty."""
    writer = await asyncpg.connect(url)
    await writer.execute("DELETE FROM items")
    await writer.close()
    async with opened(url) as found:
        yield found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - it is asked of the server
            await asyncio.sleep(0.005)


CASES: dict[str, tuple[str, list[str]]] = {
    "a row": ("INSERT INTO items (name) VALUES ('a')", ["created a"]),
    "rows in their order": (
        "INSERT INTO items (name) VALUES ('b'), ('a'), ('c')",
        ["created b", "created a", "created c"],
    ),
    "no row": ("UPDATE items SET name = 'x' WHERE false", []),
    "a transaction of several statements": (
        (
            "BEGIN; INSERT INTO items (name) VALUES ('a'); UPDATE items SET name = 'b';"
            " DELETE FROM items; COMMIT"
        ),
        ["created a", "updated b", "deleted b"],
    ),
    "a transaction that is rolled back": (
        "BEGIN; INSERT INTO items (name) VALUES ('a'); ROLLBACK",
        [],
    ),
    "a savepoint that is rolled back": (
        (
            "BEGIN; INSERT INTO items (name) VALUES ('a'); SAVEPOINT s;"
            " INSERT INTO items (name) VALUES ('lost'); ROLLBACK TO s;"
            " INSERT INTO items (name) VALUES ('b'); COMMIT"
        ),
        ["created a", "created b"],
    ),
    "a savepoint with a position that is rolled back": (
        (
            "BEGIN; INSERT INTO items (name) VALUES ('a'); SAVEPOINT s;"
            " SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO items (name) VALUES ('lost');"
            " ROLLBACK TO s; COMMIT"
        ),
        ["created a"],
    ),
    "an upsert": (
        (
            "INSERT INTO items (sku, name) VALUES ('one', 'a');"
            " INSERT INTO items (sku, name) VALUES ('one', 'b') ON CONFLICT (sku) DO UPDATE SET"
            " name = excluded.name;"
            " INSERT INTO items (sku, name) VALUES ('one', 'c') ON CONFLICT DO NOTHING"
        ),
        ["created a", "updated b"],
    ),
    "a MERGE": (
        (
            "INSERT INTO items (sku, name) VALUES ('one', 'a'); MERGE INTO items USING"
            " (VALUES ('one', 'b')) AS v (sku, name) ON items.sku = v.sku"
            " WHEN MATCHED THEN UPDATE SET name = v.name;"
            " MERGE INTO items USING (VALUES ('one')) AS v (sku) ON items.sku = v.sku"
            " WHEN MATCHED THEN DELETE"
        ),
        ["created a", "updated b", "deleted b"],
    ),
    "a statement with two writes": (
        (
            "INSERT INTO items (name) VALUES ('a'); WITH gone AS (DELETE FROM items RETURNING name)"
            " INSERT INTO items (name) SELECT name || '2' FROM gone"
        ),
        ["created a", "deleted a", "created a2"],
    ),
    "TRUNCATE": (
        "INSERT INTO items (name) VALUES ('a'), ('b'); TRUNCATE items",
        ["created a", "created b", "deleted a", "deleted b"],
    ),
    "SERIALIZABLE": (
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO items (name) VALUES ('a');"
            " UPDATE items SET name = 'b'; COMMIT"
        ),
        ["created a", "updated b"],
    ),
    "constraints that are checked at once": (
        (
            "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO items (name) VALUES ('a');"
            " UPDATE items SET name = 'b'; COMMIT"
        ),
        ["created a", "updated b"],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_each_committed_change_is_logged_once_in_its_order(changes: Log, case: str) -> None:
    sql, expected = CASES[case]
    await (await changes.connect()).execute(sql)
    found = await changes.names()
    assert sorted(found) == sorted(expected) if "two writes" in case else found == expected
    assert await changes.new() == []


async def test_values_have_one_form_whatever_the_session_sets(changes: Log) -> None:
    """Also in a table of one's own, with columns named as what the function uses."""
    names = ("t", "changed", "one", "number", "bytes", "parts", "source", "Zoë's")
    table = Table("Odd One", MetaData(), info={LOGGED: True})
    columns = ", ".join(f'"{name}" text' for name in names)
    writer = await changes.connect()
    await writer.execute(
        'CREATE TABLE "Odd One" (id int PRIMARY KEY, parent int REFERENCES "Odd One" ON DELETE'
        " CASCADE, price numeric, ratio float8, at timestamptz, day date, raw bytea, took interval,"
        f" more jsonb, {columns})"
    )
    values = (
        "$1, nullif($1, 0) - 1, 29.9900, 0.1::float8 + 0.2::float8,"
        " '2026-11-27 12:00:00.123456+09', '2026-02-03', '\\x00ff5c', '1 day 2:03:04.5',"
        " '{\"a\": [1.10, null]}'"
    )
    text = "\x01\\\"'\u2028\n</é😀"
    strange = (
        "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET extra_float_digits = -10;"
        " SET bytea_output = escape; SET IntervalStyle = sql_standard"
    )
    try:
        await writer.execute(log_triggers(table))
        insert = f'INSERT INTO "Odd One" VALUES ({values}{", $2" * len(names)})'
        for place, settings in enumerate(("SET TimeZone = 'UTC'", strange)):
            await writer.execute(settings)
            await writer.execute(insert, place, text)
        await writer.execute('DELETE FROM "Odd One" WHERE id = 0')
        found = await changes.new("Odd One")
    finally:
        await writer.execute('DROP TABLE "Odd One"')
    kinds = [(one.kind, one.row["id"]) for one in found]
    assert kinds[:2] == [("created", 0), ("created", 1)]
    assert sorted(kinds[2:]) == [("deleted", 0), ("deleted", 1)]
    for one in found:
        row = one.row
        assert row["at"] == "2026-11-27T03:00:00.123456+00:00"
        assert (row["ratio"], row["day"]) == (0.30000000000000004, "2026-02-03")
        assert (row["raw"], row["took"]) == ("\\x00ff5c", "P1DT2H3M4.5S")
        assert row["more"] == {"a": [1.10, None]}
        assert {row[name] for name in names} == {text}


async def test_decimals_keep_all_their_digits(changes: Log) -> None:
    writer = await changes.connect()
    await writer.execute("INSERT INTO items (name, price) VALUES ('a', 9999999999.1230)")
    (entry,) = await log.read_entries(changes.db, changes.after, 10)
    assert '"price":9999999999.1230,' in entry.rows


async def test_an_entry_has_limited_rows_and_bytes(changes: Log) -> None:
    writer = await changes.connect()
    for count in (1, ROWS, ROWS + 1):
        await writer.execute(
            f"INSERT INTO items (name) SELECT 'n' || n FROM generate_series(1, {count}) n"
        )
    # Larger than an entry may be: alone, and between others.
    for sizes in ("100", "400, 300, 200, 300", "100, 3000, 100"):
        await writer.execute(
            "INSERT INTO items (name, description) SELECT size, repeat('x', size * 1000) FROM"
            f" unnest(ARRAY[{sizes}]) AS size"
        )
    after, entries = changes.after, []
    while some := await log.read_entries(changes.db, after, 100):
        entries += some
        after = some[-1].position + len(json.loads(some[-1].rows)) - 1
    rows = [json.loads(one.rows) for one in entries]
    assert [len(some) for some in rows] == [1, 1000, 1000, 1, 1, 3, 1, 1, 1, 1]
    assert [
        len(some) for one, some in zip(entries, rows, strict=True) if len(one.rows) > BYTES
    ] == [1]
    # So many bytes are read at once, but at least one entry.
    await writer.execute(
        "INSERT INTO items (name, description) SELECT n, repeat('x', 900000)"
        " FROM generate_series(1, 20) n"
    )
    some = await log.read_entries(changes.db, after, 100)
    assert sum(len(one.rows) for one in some) < 10 * BYTES
    # A row that is compressed has few bytes in the table.
    await writer.execute(
        "INSERT INTO items (name, description) SELECT 'c', repeat('x', 100000)"
        " FROM generate_series(1, 25)"
    )
    await writer.execute("UPDATE items SET price = 1 WHERE name = 'c'")
    bytes_of = "SELECT octet_length(rows) FROM change_log ORDER BY id DESC LIMIT 6"
    assert max(size for (size,) in await writer.fetch(bytes_of)) < BYTES + 10
    assert len(await changes.new()) == 1 + 1000 + 1001 + 8 + 20 + 25 + 25


async def test_entries_are_compressed_in_the_fast_way_where_the_server_can(changes: Log) -> None:
    writer = await changes.connect()
    found = await writer.fetchrow(
        "SELECT attcompression = 'l', 'lz4' = ANY (enumvals) FROM pg_attribute, pg_settings WHERE"
        " attrelid = 'change_log'::regclass AND attname = 'rows' AND name ="
        " 'default_toast_compression'"
    )
    assert found is not None
    assert found[0] == found[1]


async def test_a_reader_goes_on_within_an_entry(changes: Log) -> None:
    writer = await changes.connect()
    await writer.execute("INSERT INTO items (name) VALUES ('a'), ('b'), ('c')")
    await writer.execute("INSERT INTO items (name) VALUES ('d')")
    one, two = await log.read_entries(changes.db, changes.after, 10)
    for place, expected in ((0, [one, two]), (1, [one, two]), (2, [two]), (1023, [two])):
        assert await log.read_entries(changes.db, one.position + place, 10) == expected
    assert await log.read_entries(changes.db, one.position + 2, 1) == [two]
    assert await log.read_entries(changes.db, two.position, 10) == []
    assert await log.read_entries(changes.db, await log.newest(changes.db), 10) == []


async def test_copy_of_many_rows_is_logged_once_each(changes: Log) -> None:
    writer = await changes.connect()
    await writer.copy_records_to_table(
        "items", records=[(f"n{n}",) for n in range(20_000)], columns=["name"]
    )
    found = await changes.new()
    assert [one.row["name"] for one in found] == [f"n{n}" for n in range(20_000)]


async def test_positions_follow_the_commits_and_an_open_transaction_holds_up_no_other(
    changes: Log,
) -> None:
    one, two = await changes.connect(), await changes.connect()
    for each in (one, two):
        await each.execute("BEGIN")
    await one.execute("INSERT INTO items (name) VALUES ('one')")
    await two.execute("INSERT INTO items (name) VALUES ('two')")
    await one.execute("INSERT INTO items (name) VALUES ('one again')")
    await two.execute("COMMIT")
    assert await changes.names() == ["created two"]
    await one.execute("COMMIT")
    assert await changes.names() == ["created one", "created one again"]


# Stops a transaction in its commit, after it has drawn its positions.
PAUSE = """
CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('test.pause', true) = 'on' THEN
        PERFORM pg_advisory_xact_lock(42);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER pausing AFTER INSERT ON change_positions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pause()
"""


async def test_a_commit_that_takes_long_holds_up_readers_but_no_writer(changes: Log) -> None:
    """Without the wait in settled_changes, a reader would see the later position first."""
    one, two = await changes.connect(), await changes.connect()
    await two.execute(PAUSE)
    try:
        await two.execute("SELECT pg_advisory_lock(42)")
        await one.execute("SET test.pause = 'on'")
        slow = asyncio.create_task(one.execute("INSERT INTO items (name) VALUES ('slow')"))
        waiting = "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND objid = 42"
        await until(lambda: two.fetchval(waiting))
        await two.execute("INSERT INTO items (name) VALUES ('fast')")
        assert await changes.names() == []
        with pytest.raises(Unavailable):
            await log.newest(changes.db)
        await two.execute("SELECT pg_advisory_unlock(42)")
        await slow
        assert await changes.names() == ["created slow", "created fast"]
    finally:
        await two.execute("DROP TRIGGER pausing ON change_positions; DROP FUNCTION pause()")


async def test_a_transaction_that_has_drawn_positions_cannot_be_prepared(changes: Log) -> None:
    """A prepared transaction would hand its lock on, under another name."""
    writer = await changes.connect()
    await writer.execute("BEGIN; INSERT INTO items (name) VALUES ('a')")
    with pytest.raises(asyncpg.PostgresError):
        await writer.execute("PREPARE TRANSACTION 'one'")


async def test_a_role_that_may_write_items_needs_no_right_on_the_log_and_gains_none(
    changes: Log,
) -> None:
    writer = await changes.connect()
    role = f"writer_{os.getpid()}"
    await writer.execute(
        f"CREATE ROLE {role}; GRANT INSERT, SELECT, UPDATE, DELETE ON items TO {role};"
        f" CREATE SCHEMA evil AUTHORIZATION {role}"
    )
    try:
        await writer.execute(
            f"SET ROLE {role}; SET search_path = evil, pg_catalog, public;"
            " CREATE TABLE evil.change_log (id int);"
            " CREATE FUNCTION evil.row_to_json(record) RETURNS json LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'as %', current_user; END $$;"
            " CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'as %', current_user; END $$;"
            " INSERT INTO public.items (name) SELECT 'a' FROM generate_series(1, 1001)"
        )
        for forged in (
            "INSERT INTO public.change_log (name, kind, number, rows) VALUES ('items', 'x', 0, '')",
            "SELECT rows FROM public.change_log",
            (
                "CREATE TABLE evil.items (id int); CREATE TRIGGER forged AFTER TRUNCATE ON"
                " evil.items FOR EACH STATEMENT EXECUTE FUNCTION public.log_changes('deleted')"
            ),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await writer.execute(forged)
    finally:
        await writer.execute("RESET ROLE; RESET search_path")
        await writer.execute(f"DROP SCHEMA evil CASCADE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert len(await changes.new()) == ROWS + 1


async def test_only_writes_by_other_programs_notify_in_their_transaction(changes: Log) -> None:
    """A NOTIFY makes all commits wait for each other; the service sends its own later."""
    heard: list[str] = []
    listening = await changes.connect()
    await listening.add_listener(CHANGES_CHANNEL, lambda *args: heard.append(args[2]))
    silent, other = await changes.connect(SILENT), await changes.connect()
    await silent.execute("INSERT INTO items (name) VALUES ('a')")
    await other.execute("INSERT INTO items (name) VALUES ('b')")
    async with asyncio.timeout(10):
        while not heard:
            await listening.fetchval("SELECT 1")
    await listening.fetchval("SELECT 1")
    assert heard == [CHANGES_CHANNEL]
    assert await changes.names() == ["created a", "created b"]


class Written(NamedTuple):
    """A transaction: when its COMMIT was sent and answered, and the names of what it wrote."""

    sent: float
    answered: float
    names: list[str]
    immediate: bool


async def _write(connection: asyncpg.Connection, rng: random.Random, name: str) -> Written | None:
    """Run a random transaction; None if it was rolled back."""
    clock, names, immediate = asyncio.get_running_loop().time, [], rng.random() < 0.2
    level = rng.choice(["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    try:
        await connection.execute(f"BEGIN ISOLATION LEVEL {level}")
        for place in range(rng.randint(1, 3)):
            this, ids = f"{name}.{place}", [rng.randint(1, 12) for _ in range(rng.randint(1, 2))]
            sql = rng.choice(
                (
                    (
                        "INSERT INTO items (sku, name) SELECT v, $1 FROM unnest($2::text[]) v"
                        " ON CONFLICT (sku) DO UPDATE SET name = $1, version = items.version + 1"
                        " RETURNING id"
                    ),
                    (
                        "UPDATE items SET name = $1, version = version + 1 WHERE sku = ANY ($2)"
                        " RETURNING id"
                    ),
                )
            )
            skus = [str(one) for one in sorted(set(ids))]
            changed = await connection.fetch(sql, this, skus)
            names += [f"{this} {row['id']}" for row in changed]
            if immediate:
                await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() / 100)
        if rng.random() < 0.1:
            await connection.execute("ROLLBACK")
            return None
        sent = clock()
        await connection.execute("COMMIT")
        return Written(sent, clock(), names, immediate)
    except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError):
        await connection.execute("ROLLBACK")
        return None


async def test_a_reader_beside_random_transactions_sees_all_in_the_order_of_the_commits(
    changes: Log,
) -> None:
    """Three orders must agree: versions of a row, commits that were answered before others were
    sent, and what a reader has seen while they ran.
    """
    rng = random.Random(15)
    written: list[Written] = []
    writers = [await changes.connect(rng.choice([SILENT, "test"])) for _ in range(12)]

    async def write(number: int) -> None:
        own = random.Random(number)
        await writers[number].execute("SET deadlock_timeout = 10")
        for turn in range(40):
            done = await _write(writers[number], own, f"{number}.{turn}")
            if done is not None:
                written.append(done)

    running = asyncio.gather(*(write(number) for number in range(len(writers))))
    seen = []
    while not running.done():
        seen += await changes.next()
    await running
    seen += await changes.new()
    start = seen[0].position - 1
    changes.after = start
    assert await changes.new() == seen
    places = {f"{one.row['name']} {one.row['id']}": one.position for one in seen}
    assert len(places) == len(seen)
    assert sorted(places) == sorted(name for one in written for name in one.names)
    versions: dict[int, int] = {}
    for one in seen:
        assert one.row["version"] == versions.get(one.row["id"], 0) + 1
        versions[one.row["id"]] = one.row["version"]
    # With IMMEDIATE, positions are drawn by the statements.
    ordered = [(one, max(places[name] for name in one.names)) for one in written if one.names]
    for early, first in ordered:
        for late, second in ordered:
            if early.answered < late.sent and not late.immediate:
                assert first < second


async def test_only_old_entries_are_trimmed_and_the_horizon_tells_up_to_where(changes: Log) -> None:
    writer = await changes.connect()
    kept, day = Writer(changes.db), timedelta(hours=24)
    await log.trim(kept, timedelta(0))
    first = await log.newest(changes.db)
    for n in range(5):
        await writer.execute("INSERT INTO items (name) VALUES ($1), ($1)", str(n))
    entries = await log.read_entries(changes.db, first, 10)
    assert await log.trim(kept, day) == 0
    await writer.execute(
        "UPDATE change_positions SET committed_at = now() - interval '25 hours'"
        " WHERE position <= $1",
        entries[2].position // WIDTH,
    )
    # While another transaction trims, nothing is done.
    async with writer.transaction():
        await writer.execute(
            "SELECT pg_advisory_xact_lock('change_log'::regclass::oid::integer, 1)"
        )
        assert await log.trim(kept, day) == 0
    assert await log.trim(kept, day, at_once=2) == 3
    # Its second row was the last change that was removed, so who has it has missed nothing.
    horizon = await log.horizon(changes.db)
    assert horizon == entries[2].position + 1
    assert await log.read_entries(changes.db, horizon, 10) == entries[3:]
    assert await log.trim(kept, timedelta(0)) == 2
    assert await writer.fetchval("SELECT count(*) FROM change_log") == 0
    assert await log.newest(changes.db) >= await log.horizon(changes.db) > horizon
    assert await changes.new() == []
    await writer.execute("INSERT INTO items (name) VALUES ('new')")
    assert await changes.names() == ["created new"]


async def test_a_restore_of_the_data_alone_begins_a_log_after_the_old_one(changes: Log) -> None:
    """It has ids and positions of the old database, and rows that the triggers log once more."""
    writer = await changes.connect()
    await writer.execute("INSERT INTO items (name) VALUES ('restored')")
    after = changes.after
    await changes.new()
    await writer.execute(
        "BEGIN; DELETE FROM change_horizon;"
        " INSERT INTO change_log OVERRIDING SYSTEM VALUE VALUES (1000000, 'x', 'x', 1, '[{}]');"
        " INSERT INTO change_positions OVERRIDING SYSTEM VALUE VALUES (1000000, 1000000, now());"
        " INSERT INTO change_horizon (position) VALUES (500000 * 1024);"
        " SELECT setval('change_positions_position_seq', 1000000); COMMIT"
    )
    horizon = await log.horizon(changes.db)
    assert await log.newest(changes.db) > horizon > changes.after
    # What was restored is before the horizon, and is removed once it is old.
    assert await log.trim(Writer(changes.db), timedelta(0)) == 0
    assert await log.trim(Writer(changes.db), timedelta(0), whole=True) > 0
    assert await log.read_entries(changes.db, after, 10) == []
    assert await log.horizon(changes.db) == horizon
    changes.after = await log.newest(changes.db)
    await writer.execute("INSERT INTO items (name) VALUES ('new')")
    assert await changes.names() == ["created new"]


async def test_reading_and_trimming_a_long_log_use_the_keys(changes: Log) -> None:
    writer = await changes.connect()
    await writer.execute(
        "ALTER TABLE change_log DISABLE TRIGGER change_log_skip;"
        " INSERT INTO change_log (name, kind, number, rows) SELECT 'x', 'x', 1, '[{}]'"
        " FROM generate_series(1, 20000)"
    )
    await writer.execute("ALTER TABLE change_log ENABLE TRIGGER change_log_skip")
    await writer.execute("ANALYZE change_log, change_positions")
    end = await writer.fetchval("SELECT max(position) FROM change_positions")
    statements = {one.name: one for one in STATEMENTS}
    for name, values in (
        ("changes.read", ((end - 50) * WIDTH, end, 100, 8_000_000)),
        ("changes.read", (0, end, 100, 8_000_000)),
        ("changes.newest", (end,)),
        ("changes.trim", (end * WIDTH // 2, 100, timedelta(hours=1))),
    ):
        plan = json.loads(
            await writer.fetchval(
                f"EXPLAIN (FORMAT JSON) EXECUTE {await _prepared(writer, statements[name].sql)}"
                f" ({', '.join(map(_literal, values))})"
            )
        )
        nodes = [
            (one["Node Type"], one.get("Relation Name"))
            for one in _nodes(plan)
            if one.get("Relation Name") != "change_horizon"
        ]
        assert {kind for kind, _ in nodes} & {"Seq Scan", "Hash Join", "Sort"} <= {"Sort"}, nodes


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    for one in plan if isinstance(plan, list) else [plan]:
        yield one.get("Plan", one)
        yield from _nodes(one.get("Plan", one).get("Plans", []))


async def _prepared(connection: asyncpg.Connection, sql: str) -> str:
    name = f"p{random.getrandbits(40)}"
    await connection.execute(f"PREPARE {name} AS {sql}")
    return name


def _literal(value: object) -> str:
    return f"'{value}'" if isinstance(value, timedelta) else str(value)


def processes(data: Path) -> list[int]:
    """The postmaster and all its children; the postmaster first."""
    parent = int((data / "postgres" / "postmaster.pid").read_text().split("\n")[0])
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


async def _write_until_killed(url: str, data: Path, after: int) -> tuple[list[str], list[Change]]:
    """Write and read until the server is killed: the names that were committed, what was read."""
    answered: list[str] = []
    async with opened(url, after) as changes:

        async def write(number: int) -> None:
            one = await changes.connect(SILENT)
            for turn in itertools.count():
                name = f"{after}.{number}.{turn}{' lost' if turn % 5 == 4 else ''}"
                await one.execute("BEGIN")
                await one.execute("INSERT INTO items (name) VALUES ($1)", name)
                if turn % 5 == 4:
                    await one.execute("SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK")
                    continue
                await one.execute("COMMIT")
                answered.append(name)

        async def kill() -> None:
            while len(answered) < 300:  # noqa: ASYNC110 - many tasks add to it
                await asyncio.sleep(0.001)
            for pid in processes(data):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        seen: list[Change] = []
        running = asyncio.gather(*map(write, range(6)), kill())
        with suppress(Problem):
            while not running.done():
                seen += await changes.next()
        with suppress(*ERRORS):
            await running
    return answered, seen


@pytest.mark.slow
def test_a_killed_server_loses_no_change_and_repeats_no_position(tmp_path: Path) -> None:
    """kill -9 of all its processes at once, while others write and one reads; twice."""
    answered: list[str] = []
    seen: list[Change] = []
    for start in range(2):
        with stores(tmp_path / "data", redis=False) as running:
            url = running.database_url
            assert url is not None
            if start == 0:
                migrate.up(url, MIGRATIONS)
            after = seen[-1].position if seen else 0
            wrote, read = asyncio.run(_write_until_killed(url, tmp_path / "data", after))
            answered += wrote
            seen += read
    with stores(tmp_path / "data", redis=False) as running:
        assert running.database_url is not None
        rest, everything = asyncio.run(_read_all(running.database_url, seen[-1].position))
    assert seen + rest == everything
    positions = [one.position for one in everything]
    assert positions == sorted(set(positions))
    names = [one.row["name"] for one in everything]
    assert len(set(names)) == len(names)
    assert set(answered) <= set(names)
    assert not [name for name in names if name.endswith("lost")]


async def _read_all(url: str, after: int) -> tuple[list[Change], list[Change]]:
    async with opened(url, after) as changes:
        rest = await changes.new()
        changes.after = 0
        return rest, await changes.new()


async def test_a_listener_hears_channels_that_come_later_and_goes_on_after_a_cut(url: str) -> None:
    writer, listener = await asyncpg.connect(url), Listener(url)
    heard: Counter[str] = Counter()
    try:
        for channel in ("one", "two"):
            await listener.listen(channel, partial(heard.update, [channel]))
        await until(lambda: returned(heard.keys() == {"one", "two"}))
        await listener.listen("three", partial(heard.update, ["three"]))
        await until(lambda: returned(heard["three"] == 1))
        heard.clear()
        listener.tell("one")
        await writer.execute("NOTIFY two; NOTIFY three")
        await until(lambda: returned(len(heard) == 3))
        heard.clear()
        await writer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
            HEARER,
        )
        await until(lambda: returned(len(heard) == 3))
        heard.clear()
        # Many are one.
        for _ in range(100):
            listener.tell("one")
        await until(lambda: returned(heard["one"] > 0))
        assert heard["one"] < 10
    finally:
        await listener.close()
        await writer.close()


async def returned(value: bool) -> bool:
    return value


def test_what_the_service_writes_is_logged_once_and_told(
    client: httpx.Client, database_url: str
) -> None:
    """Also by group commits, keys, upserts, files; the workers are told after the commit."""

    async def start() -> int:
        async with opened(database_url) as changes:
            return changes.after

    after, heard = asyncio.run(start()), threading.Event()
    with hearing(database_url, heard):
        key = {"Idempotency-Key": secrets.token_hex(8)}
        for _ in range(2):
            made = client.post("/items", json={"name": "keyed"}, headers=key).json()
        assert heard.wait(10)
    given = [{"sku": "one", "name": "a"}, {"sku": "two", "name": "b"}]
    client.put("/items/bulk", json={"items": given})
    client.put("/items/bulk", json={"items": [given[0], given[1] | {"name": "c"}]})
    lines = b'{"sku": "two", "name": "c"}\n{"sku": "three", "name": "d"}\n'
    file = {"content-type": "application/x-ndjson"}
    assert client.post("/items/import", content=lines, headers=file).json()["created"] == 1
    client.patch(f"/items/{made['id']}", json={})
    client.delete(f"/items/{made['id']}")
    client.delete(f"/items/{made['id']}", params={"permanent": True})
    with ThreadPoolExecutor(8) as pool:
        names = [f"grouped {n}" for n in range(24)]
        list(pool.map(lambda name: client.post("/items", json={"name": name}), names))

    async def rest() -> list[str]:
        async with opened(database_url, after) as changes:
            return await changes.names()

    found = asyncio.run(rest())
    assert found[:7] == [
        "created keyed",
        "created a",
        "created b",
        "updated c",
        "created d",
        "updated keyed",
        "deleted keyed",
    ]
    assert sorted(found[7:]) == sorted(f"created {name}" for name in names)


@contextmanager
def hearing(url: str, heard: threading.Event) -> Iterator[None]:
    """Set `heard` when there is a notification of changes."""
    ended, ready = threading.Event(), threading.Event()

    async def listen() -> None:
        connection = await asyncpg.connect(url)
        await connection.add_listener(CHANGES_CHANNEL, lambda *_: heard.set())
        ready.set()
        while not ended.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)
        await connection.close()

    thread = threading.Thread(target=asyncio.run, args=[listen()])
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        ended.set()
        thread.join()
