"""Totals kept by triggers: exact after any kind of write, and in every snapshot."""

import asyncio
import os
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from conftest import Query, query
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_migrations import binaries

from service.asgi import MIGRATIONS, app
from service.embedded.stores import stores
from service.items.seed import samples
from service.migrations import migrate

pytestmark = pytest.mark.anyio

# Kept and counted, in one statement and so in one snapshot.
BOTH = """
SELECT (SELECT (coalesce(sum(total), 0), coalesce(sum(active), 0)) FROM totals WHERE name = 'items')
     = (SELECT (count(*)::numeric, count(*) FILTER (WHERE is_active)::numeric) FROM items)
"""
SLOTS = "SELECT count(*) FROM totals WHERE name = 'items'"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=tuple(binaries()))
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("totals") / "data"
    with stores(data, redis=False, postgres_bin=request.param) as running:
        assert running.database_url is not None
        migrate.up(running.database_url, MIGRATIONS)
        yield running.database_url


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[asyncpg.Connection]]:
    found = [await asyncpg.connect(url) for _ in range(count)]
    try:
        await found[0].execute("TRUNCATE items, users, keys, notifications RESTART IDENTITY")
        await found[0].execute("INSERT INTO items (name) SELECT 'Item' FROM generate_series(1, 30)")
        yield found
    finally:
        for one in found:
            one.terminate()


WRITERS = (
    "INSERT INTO items (name) VALUES ('One')",
    "INSERT INTO items (name, is_active) SELECT 'Many', n % 3 = 0 FROM generate_series(1, 1000) n",
    "INSERT INTO items (name) SELECT 'None' WHERE false",
    "INSERT INTO items (sku, name) VALUES ('same', 'Other') ON CONFLICT (sku) DO NOTHING",
    (
        "INSERT INTO items (sku, name, is_active) VALUES ('same', 'x', false), ('new', 'x', true)"
        " ON CONFLICT (sku) DO UPDATE SET is_active = excluded.is_active"
    ),
    (
        "MERGE INTO items USING (VALUES ('same', false), ('more', true), ('gone', true)) AS "
        "given (sku, is_active) ON items.sku = given.sku"
        " WHEN MATCHED AND given.sku = 'gone' THEN DELETE"
        " WHEN MATCHED THEN UPDATE SET is_active = given.is_active"
        " WHEN NOT MATCHED THEN INSERT (sku, name) VALUES (given.sku, 'Merged')"
    ),
    "UPDATE items SET name = 'Renamed'",
    "UPDATE items SET is_active = NOT is_active WHERE id % 2 = 0",
    "UPDATE items SET is_active = false WHERE false",
    "DELETE FROM items WHERE id % 3 = 0",
    "DELETE FROM items",
    (
        "WITH gone AS (DELETE FROM items WHERE id < 10 RETURNING name)"
        " INSERT INTO items (name, is_active) SELECT name, false FROM gone"
    ),
    "TRUNCATE items",
    "TRUNCATE items, users, keys, notifications RESTART IDENTITY",
    "TRUNCATE users CASCADE",
)


@pytest.mark.parametrize(
    "isolation",
    (
        "read committed",
        pytest.param("repeatable read", marks=pytest.mark.slow),
        pytest.param("serializable", marks=pytest.mark.slow),
    ),
)
@pytest.mark.parametrize("writer", WRITERS)
async def test_totals_are_exact_after_any_kind_of_write(
    url: str, writer: str, isolation: str
) -> None:
    async with connected(url, 1) as (one,):
        await one.execute("INSERT INTO items (sku, name) VALUES ('same', 'Here'), ('gone', 'x')")
        await one.execute(f"BEGIN ISOLATION LEVEL {isolation.upper()}; {writer}")
        assert await one.fetchval(BOTH), "within the transaction"
        await one.execute("ROLLBACK")
        assert await one.fetchval(BOTH), "after its rollback"
        if "TRUNCATE" in writer and isolation != "read committed":
            return  # with savepoints it can't be told whether others have written
        await one.execute(
            f"BEGIN ISOLATION LEVEL {isolation.upper()}; SAVEPOINT here; {writer};"
            f" ROLLBACK TO here; INSERT INTO items (name) VALUES ('Kept'); {writer}; COMMIT"
        )
        assert await one.fetchval(BOTH), "after its commit"


@pytest.mark.parametrize("isolation", ("REPEATABLE READ", "SERIALIZABLE"))
async def test_truncate_is_refused_where_it_would_empty_more_than_it_sees(
    url: str, isolation: str
) -> None:
    async with connected(url, 2) as (old, one):
        for begin in (
            "SELECT 1",
            "INSERT INTO users (email, username) VALUES ('a@b.c', 'abc')",
        ):
            await old.execute(f"BEGIN ISOLATION LEVEL {isolation}; {begin}")
            await one.execute("INSERT INTO items (name) VALUES ('Unseen')")
            with pytest.raises(asyncpg.SerializationError, match="needs READ COMMITTED"):
                await old.execute("TRUNCATE items")
            await old.execute("ROLLBACK")
            assert await one.fetchval(BOTH)


async def test_a_role_that_may_write_items_can_neither_forge_totals_nor_gain_rights(
    url: str,
) -> None:
    async with connected(url, 1) as (one,):
        role = f"loader_{os.getpid()}"
        await one.execute(
            f"CREATE ROLE {role}; GRANT INSERT ON items TO {role};"
            f" CREATE SCHEMA evil AUTHORIZATION {role}; GRANT CREATE ON SCHEMA evil TO {role}"
        )
        try:
            await one.execute(
                f"SET ROLE {role}; SET search_path = evil, public, pg_catalog;"
                " CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'as %', current_user; END $$;"
                " INSERT INTO public.items (name) VALUES ('Item')"
            )
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await one.execute(
                    "CREATE TABLE evil.items (id int); CREATE TRIGGER forged AFTER TRUNCATE ON"
                    " evil.items FOR EACH STATEMENT EXECUTE FUNCTION public.keep_totals()"
                )
        finally:
            await one.execute("RESET ROLE; RESET search_path")
            await one.execute(f"DROP SCHEMA evil CASCADE; DROP OWNED BY {role}; DROP ROLE {role}")
        assert await one.fetchval(BOTH)


async def test_totals_are_exact_after_copy_and_the_seed(url: str) -> None:
    async with connected(url, 1) as (one,):
        records = [(n + 1000, f"Item {n}", n % 2 == 0) for n in range(5000)]
        await one.copy_records_to_table(
            "items", records=records, columns=("id", "name", "is_active")
        )
        assert await one.fetchval(BOTH)
        await samples.write(url, {"users": 100, "items": 1000}, lambda *_: None)
        assert await one.fetchval(BOTH)
        assert await one.fetchval("SELECT sum(total) FROM totals WHERE name = 'users'") == 100


async def test_writes_do_not_wait_for_open_transactions(url: str) -> None:
    """With forty open transactions the next one writes at once."""
    async with connected(url, 41) as (last, *others):
        for one in others:
            await one.execute("BEGIN; INSERT INTO items (name) VALUES ('Pending')")
        await last.execute("SET lock_timeout = 1; INSERT INTO items (name) VALUES ('Not pending')")
        assert await last.fetchval("SELECT sum(total) FROM totals WHERE name = 'items'") == 31
        for n, one in enumerate(others):
            await one.execute("COMMIT" if n % 2 else "ROLLBACK")
        assert await last.fetchval(BOTH)
        assert await last.fetchval(SLOTS) > 16
        for _ in range(300):  # one in fifty folds
            await last.execute("INSERT INTO items (name) VALUES ('Item')")
        assert await last.fetchval(SLOTS) <= 16
        assert await last.fetchval(BOTH)


async def test_an_old_snapshot_writes_without_an_error(url: str) -> None:
    async with connected(url, 2) as (old, new):
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM items")
        await new.execute("INSERT INTO items (name) VALUES ('Newer')")
        await old.execute("INSERT INTO items (name) VALUES ('Older'), ('Older')")
        await old.execute("UPDATE items SET is_active = false WHERE name = 'Older'")
        assert await old.fetchval(BOTH)
        assert await new.fetchval(BOTH)
        await old.execute("COMMIT")
        assert await new.fetchval(BOTH)
        assert await new.fetchval("SELECT sum(total) FROM totals WHERE name = 'items'") == 33


@pytest.mark.slow
async def test_every_snapshot_agrees_with_its_totals_among_many_writers(url: str) -> None:
    texts = [one for one in WRITERS if "TRUNCATE" not in one and one != "DELETE FROM items"]

    # Over the rows: these errors are the writers' own.
    theirs = (
        asyncpg.SerializationError,
        asyncpg.DeadlockDetectedError,
        asyncpg.UniqueViolationError,
    )

    async def write(one: asyncpg.Connection, chance: random.Random) -> None:
        for _ in range(20):
            level = chance.choice(("READ COMMITTED", "REPEATABLE READ"))
            end = chance.choice(("COMMIT", "COMMIT", "ROLLBACK"))
            try:
                await one.execute(f"BEGIN ISOLATION LEVEL {level}; {chance.choice(texts)}; {end}")
            except theirs:
                await one.execute("ROLLBACK")

    async def read(one: asyncpg.Connection, done: asyncio.Event) -> None:
        while not done.is_set():
            assert await one.fetchval(BOTH)

    async with connected(url, 12) as (*writers, first, second):
        done = asyncio.Event()
        await first.execute("SET default_transaction_isolation = 'repeatable read'")
        readers = [asyncio.create_task(read(one, done)) for one in (first, second)]
        await asyncio.gather(*(write(one, random.Random(n)) for n, one in enumerate(writers)))
        done.set()
        await asyncio.gather(*readers)
        assert await first.fetchval(BOTH)


steps = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(
            (
                "BEGIN",
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
                "COMMIT",
                "ROLLBACK",
                "SAVEPOINT here",
                "ROLLBACK TO here",
                "INSERT INTO items (name, is_active) VALUES ('a', true), ('b', false)",
                "UPDATE items SET is_active = NOT is_active WHERE id = (SELECT max(id) FROM items)",
                "DELETE FROM items WHERE id = (SELECT min(id) FROM items)",
                "TRUNCATE items",
            )
        ),
    ),
    max_size=30,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(program=steps)
def test_totals_are_exact_in_any_order_of_transactions(
    url: str, program: list[tuple[int, str]]
) -> None:
    """On every connection totals and rows agree after each step, within its transaction too."""

    async def run() -> None:
        async with connected(url, 4) as sessions:
            for one in sessions:
                # Who would wait for a row or a table gives up: the program has one thread.
                await one.execute("SET lock_timeout = 5")
            for number, text in program:
                one = sessions[number]
                try:
                    await one.execute(text)
                except asyncpg.PostgresError:
                    await one.execute("ROLLBACK")
                for reader in sessions:
                    try:
                        assert await reader.fetchval(BOTH), (number, text)
                    except asyncpg.PostgresError:  # the table is truncated by another
                        await reader.execute("ROLLBACK")

    asyncio.run(run())


async def test_a_role_that_may_write_items_needs_no_right_on_the_totals(url: str) -> None:
    async with connected(url, 1) as (one,):
        await one.execute("DROP ROLE IF EXISTS loader; CREATE ROLE loader")
        await one.execute("GRANT INSERT, DELETE, SELECT ON items TO loader; SET ROLE loader")
        await one.execute("INSERT INTO items (name) VALUES ('Theirs'); DELETE FROM items")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await one.execute("UPDATE totals SET total = 7")
        await one.execute("RESET ROLE; DROP OWNED BY loader; DROP ROLE loader")
        assert await one.fetchval(BOTH)


async def test_a_change_of_no_row_writes_nothing(url: str) -> None:
    """A PATCH of no row must not cost a commit."""
    async with connected(url, 1) as (one,):
        for text in WRITERS:
            if "false" in text and "WHERE false" in text:
                await one.execute(f"BEGIN; {text}")
                assert await one.fetchval("SELECT pg_current_xact_id_if_assigned()") is None
                await one.execute("ROLLBACK")


def test_rows_from_before_the_migration_are_counted(url: str) -> None:
    name = "before_totals"
    query(url, f"CREATE DATABASE {name}")
    old = url.replace("///service?", f"///{name}?")
    migrate.up(old, MIGRATIONS, "0001")
    query(old, "INSERT INTO items (name, is_active) SELECT 'x', n < 5 FROM generate_series(1, 9) n")
    migrate.up(old, MIGRATIONS)
    assert asyncio.run(migrate.check(old, app.tables, MIGRATIONS)) == []
    found = query(old, "SELECT * FROM totals ORDER BY name")
    assert [tuple(row) for row in found] == [("items", 0, 9, 4)]
    query(url, f"DROP DATABASE {name}")


def test_writes_without_the_triggers_are_detected_and_corrected(
    new_database: Callable[[], str],
) -> None:
    url = new_database()
    migrate.up(url, MIGRATIONS)
    query(url, "INSERT INTO items (name) SELECT 'x' FROM generate_series(1, 9)")
    query(url, "ALTER TABLE items DISABLE TRIGGER items_deleted")
    query(url, "DELETE FROM items WHERE id < 4")
    told = asyncio.run(migrate.check(url, app.tables, MIGRATIONS))
    assert any("trigger items_deleted" in line for line in told)
    assert "the totals of items are wrong; SELECT recount_totals()" in told
    query(url, "ALTER TABLE items ENABLE TRIGGER items_deleted")
    query(url, "SELECT recount_totals()")
    assert asyncio.run(migrate.check(url, app.tables, MIGRATIONS)) == []


@pytest.mark.parametrize("data_only", (False, True))
@pytest.mark.parametrize("triggers", ("", "--disable-triggers"))
def test_totals_are_exact_after_a_restore(url: str, data_only: bool, triggers: str) -> None:
    program = Path(_programs(url)) / "pg_dump"
    query(url, "TRUNCATE items, users, keys, notifications RESTART IDENTITY")
    asyncio.run(samples.write(url, {"users": 50, "items": 500}, lambda *_: None))
    options = ["--data-only", "--exclude-table=alembic_version"] if data_only else []
    if triggers and not data_only:
        pytest.skip("pg_dump has it for data alone")
    options += [triggers] if triggers else []
    dumped = subprocess.run(
        [program, *options, f"--dbname={url}"], check=True, capture_output=True, text=True
    ).stdout
    name = "restored"
    query(url, f"DROP DATABASE IF EXISTS {name}")
    query(url, f"CREATE DATABASE {name}")
    other = url.replace("///service?", f"///{name}?")
    if data_only:
        migrate.up(other, MIGRATIONS)
    restored = subprocess.run(
        [program.with_name("psql"), "--quiet", f"--dbname={other}"],
        check=True, input=dumped, capture_output=True, text=True,
    )  # fmt: skip
    assert query(other, "SELECT count(*) FROM items")[0][0] == 500
    assert asyncio.run(migrate.check(other, app.tables, MIGRATIONS)) == [], restored.stderr
    query(url, f"DROP DATABASE {name}")


def _programs(url: str) -> str:
    found: str = query(url, "SELECT setting FROM pg_config WHERE name = 'BINDIR'")[0][0]
    return found


def test_lists_show_the_totals(client: Any, sql: Query) -> None:
    sql("INSERT INTO items (name, is_active) SELECT 'x', n % 4 > 0 FROM generate_series(1, 40) n")
    sql("INSERT INTO users (email, username) VALUES ('a@example.com', 'abc')")

    def total(path: str) -> int:
        return int(client.get(path).json()["total"])

    assert total("/items") == total("/items?total=estimated") == 40
    assert total("/items?is_active=true") == 30
    assert total("/items?is_active=false") == total("/items?is_active=false&total=estimated") == 10
    assert total("/users") == total("/users?is_active=true") == 1
    assert total("/users?is_active=false") == 0
    assert client.delete("/items/1").json()["is_active"] is False
    assert client.delete("/items/2?permanent=true").status_code == 204
    assert total("/items") == 39
    assert total("/items?is_active=true") == 28
