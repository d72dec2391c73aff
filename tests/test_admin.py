"""Plans and costs of statements over HTTP: `/admin/explain/{statement}` and `/admin/slow`."""

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import asyncpg
import httpx
import pytest
from conftest import STORES, Query, query
from in_process import held, worker

from service.admin import catalogue, routes
from service.admin.connecting import explain_once
from service.admin.explain import Question, changes
from service.admin.slow import slowest
from service.asgi import MIGRATIONS, app
from service.db.pooled_connection import connect
from service.embedded import stores as embedded_stores
from service.embedded.programs import wheel_postgres
from service.metrics import Metrics, Store
from service.metrics.slots import Slot
from service.migrations import migrate

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url(own_database_url: str) -> str:
    query(own_database_url, "TRUNCATE items, users, keys, notifications RESTART IDENTITY")
    query(own_database_url, "INSERT INTO users (email, username) VALUES ('a@b.co', 'ada')")
    query(own_database_url, "INSERT INTO items (name, owner_id) VALUES ('Lamp', 1)")
    return own_database_url


def explain(client: httpx.Client, name: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/admin/explain/{quote(name, safe='')}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_read_is_planned_with_the_given_values(client: httpx.Client, sql: Query) -> None:
    sql("INSERT INTO items (name) VALUES ('Lamp')")
    found = explain(client, "items.by_id", arguments='{"id": 7}')
    assert found["parameters"] == [{"name": "id", "type": "bigint", "value": 7, "given": True}]
    assert "(cost=" in found["lines"][0]
    assert "actual" not in found["lines"][0]
    assert (found["analyzed"], found["changes"], found["notes"]) == (False, False, [])
    found = explain(client, "items.by_id", arguments='{"id": 1}', analyze="true", format="json")
    assert found["plan"]["Plan"]["Actual Rows"] == 1
    assert "Shared Hit Blocks" in found["plan"]["Plan"]
    assert found["notes"] == ["it ran in a read-only transaction"]


def test_the_plan_is_the_one_that_a_connection_of_the_pool_uses(client: httpx.Client) -> None:
    """After five runs PostgreSQL has one plan for all ids; a search is planned for its values."""
    assert explain(client, "items.by_id")["planned"] == "generic"
    assert "$1" in explain(client, "items.by_id")["lines"][-1]
    one = explain(client, "items.by_id", plan="custom", arguments='{"id": 7}')
    assert one["planned"] == "custom"
    assert "7" in one["lines"][-1]
    assert explain(client, "items.page?sort=-price&q")["planned"] == "custom"
    assert explain(client, "items.page?sort=-price&q", plan="generic")["planned"] == "generic"


def test_values_of_each_type_arrive_as_they_are(client: httpx.Client) -> None:
    given = {
        "sku": 'it\'s $1, \\ and "two"',
        "name": "null",
        "description": None,
        "price": 29.9900,
        "is_active": False,
        "owner_id": 9007199254740993,
    }
    found = explain(client, "items.add", arguments=json.dumps(given), plan="custom")
    values = {one["name"]: one["value"] for one in found["parameters"]}
    assert values == {**given, "price": "29.99"}
    found = explain(client, "items.by_id_many", arguments='{"keys": [3, null, 1]}', plan="custom")
    assert "{3,NULL,1}" in "".join(found["lines"])


@pytest.mark.parametrize(
    ("params", "said"),
    (
        ("{", "arguments must be a JSON object"),
        ("[1]", "arguments must be a JSON object"),
        ('{"x": 1}', "no parameter x; there are: id"),
        ('{"id": "seven"}', "id must be bigint: Expected `int"),
        ('{"id": 9223372036854775808}', "id must be bigint"),
        ('{"id": [1]}', "id must be bigint"),
        ('{"id": 1.5}', "id must be bigint"),
        ('{"id": true}', "id must be bigint"),
        ('{"id\\u0000": 1}', "no parameter id"),
        ("[" * 3000, "arguments must be a JSON object"),
    ),
)
def test_a_wrong_value_is_named_with_its_type(client: httpx.Client, params: str, said: str) -> None:
    answer = client.get("/admin/explain/items.by_id", params={"arguments": params})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert answer.json()["errors"][0]["field"] == "arguments"


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("name", "a\0b"),
        ("price", "1e999999999"),
        ("price", "x"),
        ("sku", ["a"]),
        ("is_active", "maybe"),
    ),
)
def test_hostile_values_reach_no_statement(client: httpx.Client, name: str, value: Any) -> None:
    answer = client.get("/admin/explain/items.add", params={"arguments": json.dumps({name: value})})
    assert answer.status_code == 422
    assert f"{name} must be" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "said"),
    (
        ("items.by_ib", "did you mean items.by_id or"),
        ("items.page%3Fsort=colour", "did you mean items.page"),
        ("%00", "there is no statement"),
        ("%2e%2e", "there is no statement"),
        ("items.by_id;DROP%20TABLE%20items", "there is no statement"),
        ("items.by_id%2f..", "nothing at this path"),
        ("x" * 5000, "there is no statement"),
    ),
)
def test_an_unknown_name_is_404_with_the_nearest_ones(
    client: httpx.Client, path: str, said: str
) -> None:
    answer = client.get(f"/admin/explain/{path}")
    assert answer.status_code == 404
    assert said in answer.json()["detail"]
    assert len(answer.content) < 1000


def test_a_write_is_analyzed_for_admins_alone(client: httpx.Client, sql: Query) -> None:
    """Without authentication there is no admin. A plan alone takes no locks."""
    for name in ("items.add", "keys.lock_owner", "items.remove"):
        answer = client.get(f"/admin/explain/{name}", params={"analyze": "true"})
        assert answer.status_code == 403
        assert "only an admin's key may analyze it" in answer.json()["detail"]
        assert explain(client, name)["changes"]
    assert sql("SELECT FROM items") == []


def test_the_slowest_statements_come_first(client: httpx.Client) -> None:
    for _ in range(3):
        client.get("/items", headers={"cache-control": "no-cache"})
    client.post("/items", json={"name": "Lamp"})
    found = client.get("/admin/slow", params={"limit": 100}).json()
    rows = {one["statement"]: one for one in found["statements"]}
    assert rows["items.add"]["calls"] >= 1
    assert rows["items.add"]["rows"] >= 1
    totals = [one["total_ms"] for one in found["statements"]]
    assert totals == sorted(totals, reverse=True)
    for one in found["statements"]:
        assert one["total_ms"] == pytest.approx(one["mean_ms"] * one["calls"], rel=0.01, abs=0.1)
        assert one["mean_ms"] <= one["max_ms"] + 0.001
    worst = client.get("/admin/slow", params={"sort": "max", "limit": 2}).json()["statements"]
    assert len(worst) == 2
    assert worst[0]["max_ms"] >= worst[1]["max_ms"]
    assert found["pg_stat_statements"]["detail"].startswith("not installed")
    assert client.get("/admin/slow", params={"sort": "id"}).status_code == 422
    assert client.get("/admin/slow", params={"limit": "0"}).status_code == 422


def test_figures_are_summed_over_workers(tmp_path: Path) -> None:
    first, second = Metrics(Store(tmp_path)), Metrics(Store(tmp_path))
    first.statement("a", 0.1, 1)
    first.statement("b", 0.5, 3)
    second.statement("a", 0.3, 2)
    second.failed_statement("a", 0.2, timeout=True)
    second.failed_statement("a", 0.2, timeout=False)
    slots: list[Slot] = list(first.store.slots())
    a, b = slowest(slots, "total", 10)
    assert (a.statement, a.calls, a.errors, a.timeouts, a.rows) == ("a", 4, 1, 1, 3)
    assert (a.total_ms, a.mean_ms, a.max_ms) == (800.0, 200.0, 300.0)
    assert (b.statement, b.max_ms) == ("b", 500.0)
    assert [one.statement for one in slowest(slots, "max", 10)] == ["b", "a"]
    assert [one.statement for one in slowest(slots, "timeouts", 1)] == ["a"]
    for one in (first, second):
        one.store.close()


EXPLAIN, ANALYZE = "/admin/explain/items.by_id", {"analyze": "true"}


async def test_one_plan_at_a_time_beside_the_pool(url: str) -> None:
    async with worker(url) as (client, state):
        async with held(url, "LOCK TABLE items"):
            first = asyncio.create_task(client.get(EXPLAIN, params=ANALYZE))
            assert not await until_it_waits(url) & state["db"].pool.pids()
            second = await client.get(EXPLAIN)
            assert second.status_code == 503
            assert second.headers["retry-after"] == "1"
            slow = (await client.get("/admin/slow")).json()
            assert "another statement" in slow["pg_stat_statements"]["detail"]
        assert (await first).status_code == 200
        assert (await client.get(EXPLAIN)).status_code == 200


async def test_a_plan_that_takes_too_long_is_504(url: str) -> None:
    within = {"SERVICE_STATEMENT_TIMEOUT_MS": "100"}
    async with worker(url, **within) as (client, _), held(url, "LOCK TABLE items"):
        assert (await client.get(EXPLAIN, params=ANALYZE)).status_code == 504


async def until_it_waits(url: str) -> set[int]:
    """The backends that wait for a lock to explain a statement, as soon as one does."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(30):
            while True:
                pids = {row["pid"] for row in await connection.fetch(WAITING)}
                if pids:
                    return pids
                await asyncio.sleep(0.005)
    finally:
        await connection.close()


WAITING = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database()
AND wait_event_type = 'Lock' AND query LIKE '%explained%' AND pid <> pg_backend_pid()
"""


async def test_without_the_database_there_are_still_our_own_figures(url: str) -> None:
    async with worker(url) as (client, state):
        await client.get("/items/1")
        state["db"].pool.url = "postgresql:///none?host=/nowhere"
        assert (await client.get("/admin/explain/items.by_id")).status_code == 503
        found = (await client.get("/admin/slow")).json()
        assert found["statements"][0]["statement"] == "items.by_id"
        assert found["pg_stat_statements"] == {"available": False, "detail": "the database is away"}


async def test_a_plan_ends_although_the_database_does_not_answer(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(url: str, **options: Any) -> asyncpg.Connection:
        connection = await connect(url, **options)
        # As if the machine of the database were gone: what it sends never comes.
        cast("Any", connection)._transport.pause_reading()
        return connection

    monkeypatch.setattr(routes, "connect", opened)
    monkeypatch.setattr(routes, "GRACE_SECONDS", 0.1)
    async with worker(url, SERVICE_STATEMENT_TIMEOUT_MS="100") as (client, _):
        for path in ("/admin/explain/items.by_id", "/admin/explain/items.by_id?analyze=true"):
            answer = await asyncio.wait_for(client.get(path), 30)
            assert answer.status_code == 503
            assert "away" in answer.json()["detail"], "the next one is not told to wait for it"
        found = (await client.get("/admin/slow")).json()
        assert found["pg_stat_statements"] == {"available": False, "detail": "the database is away"}


async def test_without_metrics_there_are_no_figures(url: str) -> None:
    async with worker(url, SERVICE_METRICS="off") as (client, _):
        answer = await client.get("/admin/slow")
        assert answer.status_code == 404
        assert "SERVICE_METRICS" in answer.json()["detail"]


async def test_what_a_trigger_does_is_rolled_back_too(url: str) -> None:
    connection = await asyncpg.connect(url)
    heard: list[object] = []
    try:
        await connection.execute(TRIGGER)
        await connection.add_listener("swiftlet", lambda *_: heard.append(1))
        await connection.add_listener("explained", lambda *_: heard.append(1))
        resource, statement = catalogue.find(app.sources, "items.add")
        found = await explain_once(url, Question(statement, resource, analyze=True))
        assert "Trigger noting" in "\n".join(found.lines)
        assert (
            found.notes[1] == "ids that it took are not given back: those of items have a gap now"
        )
        await connection.fetchval("SELECT 1")
        assert heard == []
        assert await connection.fetchval("SELECT count(*) FROM items") == 1
        assert await connection.fetchval("SELECT count(*) FROM noted") == 0
        new = await connection.fetchval("INSERT INTO items (name) VALUES ('a') RETURNING id")
        assert new == 3, "id 2 was taken"
    finally:
        await connection.execute("DROP FUNCTION note CASCADE; DROP TABLE noted")
        await connection.close()


TRIGGER = """
CREATE TABLE noted (id bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO noted VALUES (NEW.id); NOTIFY explained; RETURN NULL; END $$;
CREATE TRIGGER noting AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION note();
"""


def test_an_extension_that_is_not_loaded_is_named(client: httpx.Client, sql: Query) -> None:
    if not sql("SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'"):
        pytest.skip("PostgreSQL has no contrib here")
    sql("CREATE EXTENSION pg_stat_statements")
    try:
        found = client.get("/admin/slow").json()["pg_stat_statements"]
        assert not found["available"]
        assert "shared_preload_libraries" in found["detail"]
    finally:
        sql("DROP EXTENSION pg_stat_statements")


@pytest.fixture
def observed(tmp_path: Path) -> Iterator[str]:
    """A database with pg_stat_statements."""
    with embedded_stores.stores(
        tmp_path / "data",
        redis=False,
        postgres_bin=wheel_postgres() if STORES == "wheel" else None,
        settings={"shared_preload_libraries": "pg_stat_statements"},
    ) as running:
        assert running.database_url is not None
        migrate.up(running.database_url, MIGRATIONS)
        query(running.database_url, 'CREATE SCHEMA "Odd one"')
        query(running.database_url, 'CREATE EXTENSION pg_stat_statements SCHEMA "Odd one"')
        yield running.database_url


@pytest.mark.slow
async def test_figures_of_postgresql_stand_beside_ours(observed: str) -> None:
    async with worker(observed) as (client, _):
        for n in range(3):
            await client.post("/items", json={"name": f"Lamp {n}"})
            assert (await client.get("/items?q=lamp&sort=-price")).status_code == 200
            await client.get(f"/items/{n + 1}")
        for _ in range(2):  # the second time the numbers of the statements are known
            found = (await client.get("/admin/slow")).json()
            assert found["pg_stat_statements"] == {"available": True, "detail": ""}
            rows = {one["statement"]: one for one in found["statements"]}
            for name in ("items.add", "items.by_id", "items.page?sort=-price&q"):
                theirs, ours = rows[name]["in_database"], rows[name]
                assert theirs["calls"] == ours["calls"] == 3, name
                assert theirs["rows"] == ours["rows"]
                assert theirs["total_ms"] <= ours["total_ms"]
                assert theirs["max_ms"] <= ours["max_ms"]
            assert rows["items.add"]["in_database"]["wal_bytes"] > 0


@pytest.mark.slow
async def test_no_statement_is_run_for_good_by_the_command(url: str) -> None:
    """test_authorization.py does the same over HTTP, for those that write."""
    before, ran = await everything(url), 0
    for one in catalogue.statements(app.sources):
        resource, statement = catalogue.find(app.sources, one.name)
        try:
            found = await explain_once(url, Question(statement, resource, analyze=True))
        except asyncpg.IntegrityConstraintViolationError:
            continue
        assert found.analyzed
        assert found.notes[0].endswith(
            "nothing was changed" if changes(statement) else "read-only transaction"
        )
        ran += 1
    assert await everything(url) == before
    assert ran > 150


async def everything(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname='public'")
        digest = hashlib.sha256()
        for (table,) in sorted(map(tuple, tables)):
            rows = await connection.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")
            digest.update(repr((table, rows)).encode())
        return digest.hexdigest()
    finally:
        await connection.close()


@pytest.mark.slow
def test_a_command_that_is_killed_leaves_nothing(url: str, tmp_path: Path) -> None:
    query(
        url,
        "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$",
    )
    query(url, "CREATE TRIGGER sleeping AFTER INSERT ON items EXECUTE FUNCTION sleep()")
    words = ("explain", "items.add", "--analyze")
    backend = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1"
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "service", *words],
            env={"DATABASE_URL": url, "REDIS_URL": "off", "PATH": ""},
            cwd=Path(__file__).parent.parent,
        ) as process:
            while not query(url, backend, "EXPLAIN%ANALYZE%"):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        while query(url, backend, "EXPLAIN%ANALYZE%"):  # PostgreSQL ends the statement first
            time.sleep(0.05)
        assert query(url, "SELECT count(*) FROM items")[0][0] == 1
    finally:
        query(url, "DROP FUNCTION sleep CASCADE")
