"""Server-Timing and X-Process-Time: each part of the time, with a cause that makes it long."""

import asyncio
import json
import re
import secrets
from typing import Any

import asyncpg
import httpx
import pytest
from accounts import account
from conftest import SERVER, Service, query
from in_process import held, until, worker
from raw_http import answers, talk

from service.cache import coherence
from service.cache.shared import Shared
from service.cache.silent_writers import SilentWriters
from service.embedded.data_directory import Stores
from service.timing import Timing
from service.web import principal_cache

pytestmark = pytest.mark.anyio

PARTS = ("queue", "pool", "sql", "cache", "encode")
NUMBER = r"([0-9]+\.[0-9]{3})"
HEADER = re.compile(
    f"queue;dur={NUMBER}, pool;dur={NUMBER}, sql;dur={NUMBER};"
    f'desc="([0-9]+) statements", cache;dur={NUMBER}, encode;dur={NUMBER}, total;dur={NUMBER}'
)
# A little less than HELD, in milliseconds.
WAITED = 45.0
# Each part is rounded to a thousandth of a millisecond.
ROUNDING = 0.005


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Spent:
    """The times of a response in milliseconds; they must fit together."""

    def __init__(self, headers: Any, *, concurrent: bool = False) -> None:
        found = HEADER.fullmatch(headers["server-timing"])
        assert found is not None, headers["server-timing"]
        queue, pool, sql, statements, cache, encode, total = map(float, found.groups())
        self.queue, self.pool, self.sql, self.cache, self.encode = queue, pool, sql, cache, encode
        self.statements, self.total = int(statements), total
        assert abs(total - 1000 * float(headers["x-process-time"])) <= ROUNDING
        sequential = queue + pool + sql + cache + encode
        assert concurrent or sequential <= total + ROUNDING, headers["server-timing"]

    @property
    def longest(self) -> str:
        longest: str = max(PARTS, key=lambda part: getattr(self, part))
        return longest


@pytest.fixture
def url(own_database_url: str) -> str:
    query(own_database_url, "TRUNCATE items, users, keys, notifications RESTART IDENTITY")
    query(own_database_url, "INSERT INTO items (name) SELECT 'Lamp' FROM generate_series(1, 40)")
    return own_database_url


JSON = {"content-type": "application/json"}
ROW = "SELECT FROM items WHERE id = 1 FOR UPDATE"
TABLE = "LOCK TABLE items"
SLOW_COMMIT = """
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$
"""
ON_COMMIT = """
CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION slowly()
"""


async def test_a_wait_for_a_lock_is_sql_and_a_wait_behind_it_is_queue(url: str) -> None:
    async with worker(url) as (client, state):
        async with held(url, ROW):
            first = asyncio.create_task(client.patch("/items/1", json={"name": "A"}))
            await until(lambda: any(one.running for one in state["db"].batchers.values()))
            second = asyncio.create_task(client.patch("/items/1", json={"name": "B"}))
            await until(lambda: any(one.waiting for one in state["db"].batchers.values()))
        one, two = Spent((await first).headers), Spent((await second).headers)
    assert one.sql >= WAITED
    assert one.longest == "sql"
    assert two.queue >= WAITED
    assert two.longest == "queue"
    assert (one.statements, two.statements) == (1, 1)


async def test_a_wait_for_a_connection_is_pool_and_one_for_the_right_to_write_is_queue(
    url: str,
) -> None:
    async with worker(url, SERVICE_POOL="1", SERVICE_BATCHING="off") as (client, state):
        db = state["db"]
        async with held(url, ROW):
            first = asyncio.create_task(client.patch("/items/1", json={"name": "A"}))
            await until(lambda: db.pool._busy)
            write = asyncio.create_task(client.patch("/items/2", json={"name": "B"}))
            read = asyncio.create_task(client.get("/items?total=none"))
            await until(lambda: db.pool._waiting and db._writing._waiters)
        assert Spent((await first).headers).longest == "sql"
        waited = Spent((await read).headers)
        assert waited.pool >= WAITED
        assert waited.longest == "pool"
        waited = Spent((await write).headers)
        assert waited.queue + waited.pool >= WAITED
        assert waited.queue >= WAITED


async def test_requests_that_share_a_statement_have_its_time_and_no_more_than_their_own(
    url: str,
) -> None:
    async with worker(url, SERVICE_POOL="1") as (client, _):
        reads = [client.get(f"/items/{n}") for n in range(1, 41)]
        writes = [client.patch(f"/items/{n}", json={"name": "B"}) for n in range(1, 41)]
        for answer in await asyncio.gather(*reads, *writes):
            spent = Spent(answer.headers)
            assert spent.statements == 1
            assert spent.sql > 0


async def test_a_wait_for_the_load_of_another_request_is_cache(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(_: SilentWriters, connection: asyncpg.Connection, *, at_once: bool) -> bool:
        del at_once
        await connection.fetchval("SELECT 1")
        return True

    # A late heartbeat on a busy machine, or a connection that is still closing, is no miss.
    monkeypatch.setattr(SilentWriters, "look", look)
    monkeypatch.setattr(coherence, "VALID_SECONDS", 3600.0)
    async with worker(url, SERVICE_CACHE="local") as (client, state):
        async with asyncio.timeout(30):
            await state["cache"].coherence.connected.wait()
        async with held(url, TABLE):
            first = asyncio.create_task(client.get("/items"))
            await until(lambda: state["cache"].in_flight)
            second = asyncio.create_task(client.get("/items"))
            running = next(iter(state["cache"].in_flight.values()))
            await until(lambda: len(running.future._callbacks or ()) > 0)
        one, two = Spent((await first).headers), Spent((await second).headers)
        assert one.longest == "sql"
        assert one.sql >= WAITED
        assert two.cache >= WAITED
        assert (two.sql, two.statements) == (0, 0)
        hit = await client.get("/items")
        assert hit.headers["x-cache"] == "HIT"
        assert Spent(hit.headers).statements == 0


async def test_a_slow_redis_is_cache(
    url: str, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stores.redis_url is None:
        pytest.skip("no Redis for this platform")
    found = Shared._found

    def slowly(self: Shared, *args: Any, **options: Any) -> None:
        asyncio.get_running_loop().call_later(0.03, lambda: found(self, *args, **options))

    monkeypatch.setattr(Shared, "_found", slowly)
    options = {"REDIS_URL": stores.redis_url, "SERVICE_CACHE": "on"}
    async with worker(url, **options) as (client, state):
        await until(lambda: state["cache"].shared.up)
        asked = await client.get("/items?q=lamp")
        assert asked.headers["x-cache"] == "MISS"
        spent = Spent(asked.headers)
        assert spent.cache >= 25
        assert spent.statements >= 1


async def test_encoding_and_compression_are_encode(url: str) -> None:
    async with worker(url) as (client, _):
        rows = [{"name": "x", "description": secrets.token_hex(4000)} for _ in range(60)]
        made = await client.post("/items/bulk", json={"items": rows})
        assert Spent(made.headers).encode > 0
        plain = await client.get("/items?per_page=60&sort=-id", headers={"accept-encoding": ""})
        spent = Spent(plain.headers)
        assert spent.encode > 0
        packed = await client.get(
            "/items?per_page=60&sort=-id", headers={"accept-encoding": "gzip"}
        )
        assert packed.headers["content-encoding"] == "gzip"
        # Half a megabyte of random digits; without compression it is a tenth of that time.
        assert Spent(packed.headers).encode >= 2


async def test_a_commit_is_sql(url: str) -> None:
    await asyncio.to_thread(query, url, SLOW_COMMIT)
    await asyncio.to_thread(query, url, ON_COMMIT)
    try:
        async with worker(url) as (client, _):
            lines = b'{"name": "a"}\n'
            typed = {"content-type": "application/x-ndjson"}
            made = await client.post("/items/import", content=lines, headers=typed)
            assert made.json()["created"] == 1
            spent = Spent(made.headers)
            assert spent.sql >= WAITED
            assert spent.pool > 0, "it has opened a connection of its own"
            keyed = {"idempotency-key": "a"}
            made = await client.post("/items/bulk", json={"items": [{"name": "a"}]}, headers=keyed)
            assert made.status_code == 201
            assert Spent(made.headers).sql >= WAITED
    finally:
        await asyncio.to_thread(query, url, "DROP FUNCTION slowly CASCADE")


async def test_the_look_up_of_a_key_belongs_to_the_requests_that_wait_for_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VALID_SECONDS", "RENEW_SECONDS"):
        monkeypatch.setattr(principal_cache, name, 3600.0)
    one = await asyncio.to_thread(account, url)
    async with worker(url, SERVICE_AUTH="on") as (client, _):
        first, other = await asyncio.gather(
            *(client.get(f"/items/{n}", headers=one.headers) for n in (1, 2))
        )
        for answer in (first, other):
            assert answer.status_code == 200
            assert Spent(answer.headers).statements == 2
        again = await client.get("/items/1", headers=one.headers)
        assert Spent(again.headers).statements == 1
        wrong = await client.get("/items/1", headers={"X-API-Key": one.key[:-6] + "AAAAAA"})
        assert wrong.status_code == 401
        Spent(wrong.headers)


async def test_parts_of_shared_work_are_reduced_to_the_time_that_a_request_waited() -> None:
    work, spent = Timing(), Timing()
    work.queue, work.pool, work.sql, work.encode = 3.0, 1.0, 9.0, 0.0
    spent.add(work, 0.5, 2.0)
    assert (spent.queue, spent.pool, spent.sql, spent.statements) == (2.0, 0.5, 0.0, 1)
    spent.add(work, 0.0, 10.0)
    assert (spent.queue, spent.pool, spent.sql, spent.statements) == (5.0, 1.5, 6.0, 2)


def test_every_response_has_its_times(client: httpx.Client) -> None:
    """Whatever its status; the time of a statement that fails is there too."""
    made = client.post("/items", json={"name": "Lamp", "sku": "a"})
    assert Spent(made.headers).statements == 1
    tag = {"if-none-match": made.headers["etag"]}
    large = b" " * 1_048_577
    typed = {"content-type": "application/x-ndjson"}
    for method, path, status, sent in (
        ("GET", "/items/1", 200, {}),
        ("GET", "/items/1", 200, {}),  # a hit of the cache
        ("HEAD", "/items/1", 200, {}),
        ("GET", "/items/1", 304, {"headers": tag}),
        ("GET", "/items?include=owner", 200, {}),
        ("GET", "/items/export", 200, {}),
        ("HEAD", "/items/export", 200, {}),
        ("POST", "/items/import", 200, {"content": b'{"name": "a"}', "headers": typed}),
        ("POST", "/items/import", 422, {"content": b"{}", "headers": typed}),
        ("POST", "/items", 409, {"json": {"name": "Lamp", "sku": "a"}}),
        ("POST", "/items", 422, {"json": {}}),
        ("POST", "/items", 400, {"content": b"{", "headers": JSON}),
        (
            "POST",
            "/items",
            413,
            {"content": large, "headers": JSON},
        ),
        ("POST", "/items", 415, {"content": b"a"}),
        ("GET", "/items/99", 404, {}),
        ("GET", "/nothing", 404, {}),
        ("GET", "/items%2f1", 404, {}),
        ("PUT", "/items", 405, {}),
        ("DELETE", "/items/1?permanent=true", 204, {}),
        ("GET", "/health/ready", 200, {}),
        ("GET", "/openapi.json", 200, {}),
        ("GET", "/metrics", 200, {}),
    ):
        answer = client.request(method, path, **sent)
        assert answer.status_code == status, (path, answer.text)
        spent = Spent(answer.headers)
        if status == 409:
            assert spent.statements == 1
            assert spent.sql > 0
        if answer.headers.get("x-cache") == "HIT":
            assert (spent.statements, spent.sql) == (0, 0)
        if (method, path) == ("GET", "/items/export"):
            assert spent.statements == 1
            assert spent.sql > 0


@pytest.mark.skipif(SERVER == "granian", reason="granian answers these itself")
@pytest.mark.parametrize(
    "sent",
    (
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: a\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
)
def test_a_request_that_cannot_be_parsed_has_them_too(service: Service, sent: bytes) -> None:
    answer = answers(talk(service, sent))[0]
    assert answer.status >= 400
    assert json.loads(answer.body)["status"] == answer.status
    assert Spent(answer.headers).statements == 0
