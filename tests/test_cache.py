"""The cache as a client sees it: where a response came from, and that it is never too old."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from conftest import ROOT, SERVER, Query, Service, statements_run
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from test_faults import eventually

from service.asgi import built_in
from service.cache import loads
from service.cache import store as store_module
from service.cache.coherence import Coherence
from service.cache.generations import TAG_COUNT, Generations, TableTags, _list_tag
from service.cache.loads import Expiry
from service.cache.local import GHOST, Local
from service.cache.off import NoCache
from service.cache.response import CachedResponse
from service.cache.silent_writers import SilentWriters
from service.cache.store import Cache
from service.errors import Unavailable
from service.items import items
from service.settings import Settings
from service.web import paging


def came(response: httpx.Response) -> str:
    assert response.status_code in (200, 304, 404), response.text
    found: str = response.headers["x-cache"]
    return found


def lamp(client: httpx.Client, **fields: object) -> str:
    response = client.post("/items", json={"name": "Lamp", **fields})
    assert response.status_code == 201
    assert "x-cache" not in response.headers
    location: str = response.headers["location"]
    return location


def user(client: httpx.Client, name: str) -> int:
    response = client.post("/users", json={"email": f"{name}@example.com", "username": name})
    found: int = response.json()["id"]
    return found


def test_hits_in_one_packet_are_all_answered_in_their_order(client: httpx.Client) -> None:
    places = [lamp(client) for _ in range(3)] * 20
    for where in places:
        client.get(where)
    asked = "".join(f"GET {where} HTTP/1.1\r\nHost: a\r\n\r\n" for where in places)
    last = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=10) as one:
        one.sendall((asked + last).encode())
        found = b"".join(iter(lambda: one.recv(65_536), b""))
    assert found.count(b"x-cache: HIT") == len(places)
    ids = [int(part.partition(b",")[0]) for part in found.split(b'{"id":')[1:]]
    assert ids == [int(where.rpartition("/")[2]) for where in places]


def test_a_second_get_returns_the_same_response_from_the_cache(client: httpx.Client) -> None:
    where = lamp(client)
    owner = user(client, "ada")
    paths = (where, "/items", "/items?q=lamp&total=none", "/items?cursor=", f"/users/{owner}")
    for path in (*paths, "/users", f"/users/{owner}/items", f"{where}/"):
        first, second = client.get(path), client.get(path)
        assert (came(first), came(second)) == ("MISS", "HIT"), path
        assert first.content == second.content
        assert statements_run(second) == 0
        changing = {"x-cache", "x-request-id", "x-process-time", "server-timing", "date"}
        kept = [
            {name: value for name, value in one.headers.items() if name not in changing}
            for one in (first, second)
        ]
        assert kept[0] == kept[1]


def test_a_hit_has_the_request_id_and_the_framing_of_its_own_request(client: httpx.Client) -> None:
    where = lamp(client)
    client.get(where)
    given_id = client.get(where, headers={"X-Request-ID": "mine"})
    assert (came(given_id), given_id.headers["x-request-id"]) == ("HIT", "mine")
    assert client.get(where, headers={"X-Request-ID": "not\tmine"}).headers["x-request-id"]
    assert client.get(where).headers["x-request-id"] != client.get(where).headers["x-request-id"]
    head = client.head(where)
    assert (came(head), head.content) == ("HIT", b"")
    assert head.headers["content-length"] == str(len(given_id.content))
    # One after the other on one connection, the last of which closes it.
    last = client.get(where, headers={"Connection": "close"})
    assert (came(last), last.headers["connection"]) == ("HIT", "close")


def test_no_cache_bypasses_the_cache(client: httpx.Client) -> None:
    where = lamp(client)
    for path in (where, "/items"):
        client.get(path)
        for control in ("no-cache", "max-age=0, No-Cache", "no-store"):
            fresh = client.get(path, headers={"Cache-Control": control})
            assert came(fresh) == "BYPASS"
            assert statements_run(fresh) >= 1
        assert came(client.get(path, headers={"Cache-Control": "max-age=9, x-no-cache"})) == "HIT"


def test_a_matching_if_none_match_is_answered_304_from_the_cache(client: httpx.Client) -> None:
    where = lamp(client)
    for expected in ("MISS", "HIT", "HIT"):
        response = client.get(where, headers={"If-None-Match": 'W/"1"'})
        assert (response.status_code, came(response)) == (304, expected)
        assert (response.headers["etag"], response.content) == ('"1"', b"")
        assert response.headers["cache-control"] == "private, no-cache"
    assert statements_run(response) == 0
    fresh = {"If-None-Match": '"1"', "Cache-Control": "no-cache"}
    assert client.get(where, headers=fresh).status_code == 304
    client.patch(where, json={"name": "Torch"})
    response = client.get(where, headers={"If-None-Match": '"1"'})
    assert (response.status_code, response.json()["name"]) == (200, "Torch")


def test_a_read_after_a_write_returns_the_new_row(client: httpx.Client) -> None:
    where = lamp(client)
    writes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("PUT", {"json": {"name": "Torch", "price": 1}}),
        ("PATCH", {"json": {"price": 2}}),
        ("PATCH", {"json": {"price": 3}, "headers": {"If-Match": '"3"'}}),
        ("DELETE", {}),
        ("PATCH", {"json": {"is_active": True}}),
    )
    for method, options in writes:
        client.get(where)
        client.get("/items")
        written = client.request(method, where, **options)
        assert written.status_code == 200
        read = client.get(where)
        assert (came(read), read.json()) == ("MISS", written.json())
        assert client.get("/items").json()["items"] == [written.json()]
    client.delete(where, params={"permanent": "true"})
    assert client.get(where).status_code == 404
    assert client.get("/items").json()["total"] == 0


def test_a_query_that_is_too_long_is_not_cached(client: httpx.Client) -> None:
    where = lamp(client)
    client.get(where)
    assert client.get(where, params={"x": "1" * 5000}).status_code == 422
    longest = {"q": "lamp", "sort": "name", "cursor": "x" * 3000}
    assert client.get("/items", params=longest).status_code == 422
    long = {"q": "ü" * 255}
    assert {came(client.get("/items", params=long)) for _ in range(2)} <= {"MISS", "HIT"}
    assert {came(client.get("/items", params=long)) for _ in range(2)} == {"HIT"}


def test_a_404_is_cached_until_the_row_exists(client: httpx.Client) -> None:
    first, second = client.get("/items/1"), client.get("/items/1")
    assert (came(first), came(second)) == ("MISS", "HIT")
    assert first.json()["request_id"] != second.json()["request_id"]
    assert came(client.get("/users/1/items")) == "MISS"
    assert came(client.get("/users/1/items")) == "HIT"
    user(client, "ada")
    assert client.get("/users/1/items").status_code == 200
    assert client.get(lamp(client)).status_code == 200
    refused = client.get("/items/abc")
    assert (refused.status_code, "x-cache" in refused.headers) == (422, False)


def test_a_write_invalidates_the_lists_that_it_may_change_and_no_others(
    client: httpx.Client,
) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    where = lamp(client, owner_id=ada)
    lists = {
        "all": "/items",
        "search": "/items?q=lamp",
        "active": "/items?is_active=true",
        "inactive": "/items?is_active=false",
        "ada": f"/items?owner_id={ada}",
        "ada's": f"/users/{ada}/items",
        "bob": f"/items?owner_id={bob}",
        "with owners": "/items?include=owner",
    }

    def invalidated_by(method: str, path: str, **options: Any) -> set[str]:
        for one in lists.values():
            client.get(one)
        assert client.request(method, path, **options).is_success
        return {name for name, one in lists.items() if came(client.get(one)) == "MISS"}

    every = set(lists)
    changed = invalidated_by("PATCH", where, json={"name": "Torch"})
    assert changed == every - {"inactive", "bob"}
    assert invalidated_by("PATCH", where, json={"is_active": False}) == every - {"bob"}
    assert invalidated_by("PATCH", where, json={"price": 1}) == every - {"active", "bob"}
    assert invalidated_by("PATCH", where, json={"owner_id": bob}) == every - {"active"}
    assert invalidated_by("POST", "/items", json={"name": "Other", "owner_id": bob}) == every - {
        "inactive",
        "ada",
        "ada's",
    }
    assert invalidated_by("PATCH", f"/users/{bob}", json={"full_name": "Bob"}) == {"with owners"}
    assert invalidated_by("PATCH", where, json={"sku": "x"}, headers={"If-Match": "*"}) >= {
        "bob",
        "all",
    }


def test_a_write_that_failed_invalidates_nothing(client: httpx.Client) -> None:
    where = lamp(client, sku="taken")
    other = lamp(client)
    for path in (where, "/items"):
        client.get(path)
    assert client.post("/items", json={"name": "Lamp", "sku": "taken"}).status_code == 409
    assert client.patch(other, json={"sku": "taken"}).status_code == 409
    assert client.patch(where, json={"price": 1}, headers={"If-Match": '"9"'}).status_code == 412
    assert client.patch(where, json={}).status_code == 200
    assert [came(client.get(path)) for path in (where, "/items")] == ["HIT", "HIT"]


@pytest.mark.parametrize(
    "foreign",
    (
        "UPDATE items SET name = 'Foreign'",
        "INSERT INTO items (name) VALUES ('Foreign')",
        "DELETE FROM items",
        "TRUNCATE items",
        "COPY items (name) FROM PROGRAM 'echo Foreign'",
    ),
)
def test_a_write_by_another_program_is_seen(client: httpx.Client, sql: Query, foreign: str) -> None:
    where = lamp(client)
    _, before = [client.get(path).json() for path in (where, "/items")]
    if "PROGRAM" in foreign and not sql("SELECT usesuper FROM pg_user WHERE usename = user")[0][0]:
        pytest.skip("COPY FROM PROGRAM is for superusers")
    sql(foreign)
    eventually(lambda: client.get("/items").json() != before, 30)
    after = [client.get(path).json() for path in (where, "/items")]
    assert after[1] == client.get("/items", headers={"Cache-Control": "no-cache"}).json()
    fresh = client.get(where, headers={"Cache-Control": "no-cache"})
    assert (after[0]["name"] if fresh.is_success else after[0]["status"]) == (
        fresh.json()["name"] if fresh.is_success else 404
    )


@contextmanager
def served(
    log: Path, database_url: str, *options: str, **environ: str
) -> Iterator[tuple[Service, httpx.Client]]:
    environ = {"DATABASE_URL": database_url, "SERVICE_LOG": "json", **environ}
    running = Service(log, "--server", SERVER, *options, **environ)
    try:
        running.wait_until_ready()
        with httpx.Client(base_url=running.url, timeout=30) as one:
            yield running, one
        assert running.stop() == 0
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        running.process.kill()
        running.process.wait()


def test_without_a_cache_every_response_is_fresh(database_url: str, tmp_path: Path) -> None:
    settings = {"REDIS_URL": "off", "SERVICE_CACHE": "off"}
    with served(tmp_path / "log", database_url, **settings) as (_, client):
        where = lamp(client)
        assert [came(client.get(where)) for _ in range(2)] == ["BYPASS", "BYPASS"]
        assert client.get(where, headers={"If-None-Match": '"1"'}).status_code == 304


def test_several_workers_without_redis_cache_nothing_and_log_it(
    database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with served(log, database_url, "--workers", "2", REDIS_URL="off") as (_, client):
        where = lamp(client)
        assert {came(client.get(where)) for _ in range(4)} == {"BYPASS"}
    assert "nothing is cached: several workers need Redis" in log.read_text()


def test_a_single_process_caches_without_redis(own_database_url: str, tmp_path: Path) -> None:
    for settings in ({}, {"SERVICE_CACHE": "local"}):
        environ = {"REDIS_URL": "off", **settings}
        with served(tmp_path / "log", own_database_url, **environ) as (_, client):
            where = lamp(client)
            client.get(where)
            assert came(client.get(where)) == "HIT"


def test_cache_local_is_for_one_worker(database_url: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--workers", "2"],
        env={"DATABASE_URL": database_url, "REDIS_URL": "off", "SERVICE_CACHE": "local"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert "SERVICE_CACHE=local is for one worker" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_an_expired_response_is_loaded_again(own_database_url: str, tmp_path: Path) -> None:
    settings = {"REDIS_URL": "off", "SERVICE_CACHE_TTL": "1"}
    with served(tmp_path / "log", own_database_url, **settings) as (_, client):
        where = lamp(client)
        assert [came(client.get(where)) for _ in range(2)] == ["MISS", "HIT"]
        eventually(lambda: came(client.get(where)) == "MISS", 10)


# The parts.


class Source:
    """A slow load that counts its calls."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds
        self.loads = 0

    async def __call__(self) -> int:
        self.loads += 1
        await asyncio.sleep(self.seconds)
        return self.loads


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_cached_works_in_a_handler_where_the_cache_is_off() -> None:
    """`request.state["cache"].cached(...)`, as docs/caching.md has it, where the cache is off."""
    calls = []

    async def load() -> dict[str, Any]:
        calls.append(1)
        return {"at": datetime(2026, 1, 1, tzinfo=UTC), "total": len(calls)}

    cache = NoCache()
    for n in (1, 2):
        found = await cache.cached("k", 60, load=load, kind=dict[str, Any])
        assert found == {"at": datetime(2026, 1, 1, tzinfo=UTC), "total": n}
    await cache.invalidate((1,))
    cache.outcome_unknown()


@pytest.mark.anyio
async def test_the_state_has_a_cache_object_where_caching_is_off(database_url: str) -> None:
    for off in ({"SERVICE_CACHE": "off"}, {"SERVICE_CACHE": "on"}):
        app = built_in(Settings.load({"DATABASE_URL": database_url, "REDIS_URL": "off", **off}))
        async with app.lifespan_context(Starlette()) as state:
            assert state is not None
            assert isinstance(state["cache"], NoCache)


@pytest.mark.anyio
class TestCache:
    """Without servers: requests for the same key at the same time."""

    async def test_simultaneous_requests_share_one_load(self) -> None:
        async with standing() as cache:
            load = Source()
            found = await asyncio.gather(*(cache.cached("k", 9, load, int) for _ in range(100)))
            assert (set(found), load.loads) == ({1}, 1)
            assert await cache.cached("other", 9, load, int) == 2

    async def test_a_load_that_fails_fails_for_all_waiters_and_is_not_cached(self) -> None:
        async with standing() as cache:
            source = Source()

            async def load() -> int:
                if await source() == 1:
                    raise Unavailable("away")
                return source.loads

            asked = (cache.cached("k", 9, load, int) for _ in range(10))
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(one, Unavailable) for one in found)
            assert await cache.cached("k", 9, load, int) == 2

    async def test_a_cancelled_request_does_not_cancel_the_load_of_the_others(self) -> None:
        async with standing() as cache:

            async def load() -> str:
                await asyncio.sleep(0.05)
                return "value"

            asked = [asyncio.create_task(cache.cached("k", 9, load, str)) for _ in range(3)]
            await asyncio.sleep(0.01)
            asked[0].cancel()
            assert await asyncio.gather(*asked[1:]) == ["value", "value"]

    async def test_a_load_begun_before_a_write_is_not_shared_with_requests_after_it(self) -> None:
        async with standing() as cache:
            tags, values, gate = TableTags("things").row(1), ["old"], asyncio.Event()

            async def load() -> str:
                seen = values[-1]
                await gate.wait()
                return seen

            before = asyncio.create_task(cache.cached("k", 9, load, str, tags))
            await asyncio.sleep(0)
            values.append("new")
            await cache.invalidate(tags)
            after = asyncio.create_task(cache.cached("k", 9, load, str, tags))
            await asyncio.sleep(0)
            gate.set()
            assert [await before, await after] == ["old", "new"]
            assert await cache.cached("k", 9, load, str, tags) == "new"

    async def test_none_is_a_value_that_can_be_cached(self) -> None:
        async with standing() as cache:
            loads = 0

            async def load() -> int | None:
                nonlocal loads
                loads += 1
                return None

            found = [await cache.cached("k", 9, load, int | None) for _ in range(3)]
            assert (found, loads) == ([None] * 3, 1)

    async def test_one_request_refreshes_a_response_before_it_expires(self) -> None:
        async with standing() as cache:
            load = Source()
            assert await cache.cached("k", 300, load, int) == 1
            (found,) = cache.local.entries.values()
            assert time.monotonic() < found.refresh_at < found.expires_at
            found.refresh_at = 0.0
            renewing = asyncio.create_task(cache.cached("k", 300, load, int))
            await asyncio.sleep(0)
            assert await cache.cached("k", 300, load, int) == 1, "the others do not wait"
            assert (await renewing, load.loads) == (2, 2)

    async def test_only_a_request_that_loads_takes_the_turn_to_refresh(self) -> None:
        async with standing() as cache:
            await cache.cached("k", 300, Source(), int)
            (found,) = cache.local.entries.values()
            found.refresh_at = 0.0
            for _ in range(2):
                assert cache.find(("cached", "k"), refreshes=False) is None
            assert cache.find(("cached", "k")) is None, "its turn to refresh"
            assert cache.find(("cached", "k"), refreshes=False) is found, (
                "another request refreshes it"
            )

    async def test_nothing_is_cached_longer_than_the_setting(self) -> None:
        async with standing() as cache:
            await cache.cached("k", 100_000, Source(), int)
            (found,) = cache.local.entries.values()
            assert found.expires_at <= time.monotonic() + cache.ttl

    async def test_closing_ends_a_connection_that_loses_a_cancellation(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As redis-py does at times: a worker hung for 30 s at the stop, until it was killed."""
        begun, lost = asyncio.Event(), 0

        async def listen(_: Coherence) -> None:
            nonlocal lost
            begun.set()
            while lost < 2:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    lost += 1
            await asyncio.Event().wait()

        monkeypatch.setattr(Coherence, "_listen_to_database", listen)
        monkeypatch.setattr(store_module, "OPENING_SECONDS", 0.0)
        cache = Cache("", None, limit=1, ttl=300, fingerprint="x")
        await cache.open()
        await begun.wait()
        async with asyncio.timeout(60):
            await cache.close()
        assert lost == 2

    async def test_postgresql_carries_invalidations_also_after_its_connection_was_lost(
        self, database_url: str
    ) -> None:
        one, other = (Cache(database_url, None, limit=1, ttl=300, fingerprint="x") for _ in "12")
        try:
            await one.open()
            await other.open()

            async def invalidate(tag: int) -> None:
                async with asyncio.timeout(60):
                    while not other.generations.last[tag]:  # noqa: ASYNC110 - it has none
                        await asyncio.sleep(0.01)

            await asyncio.gather(*(one.coherence.publish((tag,)) for tag in range(5, 25)))
            for tag in range(5, 25):
                await invalidate(tag)
            connection: Any = one.coherence._connection
            connection.terminate()
            await one.coherence.publish((30,))
            await invalidate(30)
            since = await one.coherence.clock()
            assert since is not None
            assert await one.coherence.ended(since)
        finally:
            await one.close()
            await other.close()


@asynccontextmanager
async def standing() -> AsyncIterator[Cache]:
    cache = Cache("", None, limit=100_000, ttl=300, fingerprint="x")
    cache.coherence.valid_until = float("inf")
    try:
        yield cache
    finally:
        await cache.close()


def entry(size: int = 100) -> CachedResponse:
    return CachedResponse(b"x" * size)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3000), st.booleans()), max_size=200),
    st.integers(5_000, 60_000),
)
def test_the_tier_holds_no_more_bytes_than_allowed(
    asked: list[tuple[int, int, bool]], limit: int
) -> None:
    tier = Local(limit)
    for key, size, used in asked:
        tier.put(key, entry(size))
        if used and key in tier.entries:
            tier.entries[key].used = True
        assert tier.size + GHOST * len(tier.gone) <= limit
        assert tier.size == sum(one.size for one in tier.entries.values())
        small = [one for one in tier.entries.values() if not one.main]
        assert tier.small_size == sum(one.size for one in small)
        assert {*tier.small, *tier.main} == set(tier.entries)
        assert len(tier.small) + len(tier.main) == len(tier.entries)


def test_a_scan_does_not_evict_what_is_used_often() -> None:
    tier = Local(1_000_000)
    hot = range(500)
    for _ in range(3):
        for key in hot:
            if key in tier.entries:
                tier.entries[key].used = True
            else:
                tier.put(key, entry())
    for key in range(10_000, 60_000):
        tier.put(key, entry())
    assert sum(key in tier.entries for key in hot) > 450
    assert tier.size <= 1_000_000


def test_only_costly_lists_are_looked_up_in_redis() -> None:
    def share(**fields: Any) -> bool:
        return paging.share(items.query(**fields), ("q", "min_price", "max_price"))

    assert all(
        share(**fields) for fields in ({"q": "a"}, {"max_price": 1}, {"page": 100, "per_page": 100})
    )
    assert not any(
        share(**fields) for fields in ({}, {"is_active": True}, {"owner_id": 7}, {"page": 999})
    )


@pytest.mark.anyio
async def test_many_unknown_outcomes_share_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection makes the outcome of a whole batch of 128 unknown."""
    asked: list[datetime] = []
    monkeypatch.setattr(store_module, "UNKNOWN_SECONDS", 0.01)

    class Ended(Coherence):
        async def clock(self) -> datetime:
            return datetime(2026, 1, 1 + len(asked), tzinfo=UTC)

        async def ended(self, since: datetime) -> bool:
            asked.append(since)
            return len(asked) % 2 == 0

    async def asked_times(count: int) -> None:
        """Wait for so many checks, and as long again for one too many."""
        async with asyncio.timeout(30):
            while len(asked) < count:  # noqa: ASYNC110 - no event says it
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)

    async with standing() as cache:
        cache.coherence = Ended("", cache.generations, cache.local.clear, SilentWriters(None))
        for _ in range(128):
            cache.outcome_unknown()
        await asked_times(2)
        assert [one.day for one in asked] == [1, 1], "checked until it had ended"
        cache.outcome_unknown()
        await asked_times(4)
        assert [one.day for one in asked] == [1, 1, 3, 3]


def test_responses_kept_together_expire_together_and_never_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(loads, "monotonic", lambda: now)
    expiry = Expiry()
    first = expiry.times(100)
    now += 0.9
    assert expiry.times(100) is first
    now += 0.2
    refresh_at, expires_at = expiry.times(100)
    assert (refresh_at, expires_at) == (now + 90, now + 100)
    assert expiry.times(0.2) == (now + 0.18, now + 0.2)


@pytest.mark.parametrize(
    ("one", "other"),
    (
        (Decimal("1.5"), Decimal("1.50")),
        (Decimal(100), Decimal("1E+2")),
        (0.0, -0.0),
        (Decimal(0), Decimal("-0.00")),
        (datetime.fromisoformat("2026-01-01T02:00+02:00"), datetime(2026, 1, 1, tzinfo=UTC)),
    ),
)
def test_equal_values_of_a_filter_have_one_tag(one: object, other: object) -> None:
    """PostgreSQL finds the row by both; a list under another tag would stay as it was."""
    tags = TableTags("items", "price")
    found = tags.having("price", one)
    _list_tag.cache_clear()  # it finds equal values too, until it is full
    assert tags.having("price", other) == found
    assert set(found[:1]) <= set(tags.written(SimpleNamespace(id=1, price=other)))


def test_a_write_invalidates_no_other_row() -> None:
    generations, tags = Generations(), TableTags("items", "owner_id")
    before = generations.newest
    generations.advance(tags.row(7))
    for of in (tags.row, tags.row_tag):
        assert [n for n in range(1, 1000) if not generations.current(of(n), before)] == [7]
    assert generations.current(tags.row(7), generations.newest)
    assert all(0 < tag < TAG_COUNT for n in range(100_000) for tag in tags.row(n))


@pytest.mark.slow
def test_many_responses_take_no_more_memory_than_allowed() -> None:
    """In a separate process, by its resident set size."""
    program = """
import gc
from service.cache import store as store_module
from service.cache.coherence import Coherence
from service.cache.response import CachedResponse
from service.cache.local import Local
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
limit = 64 * 2**20
tier = Local(limit)
gc.collect()
before = rss()
for n in range(400_000):
    body = b'{"id":%d,"sku":null,"name":"Item","description":"%b"}' % (n, b"x" * (n % 300))
    headers = ((b"etag", b'"%d"' % n), (b"cache-control", b"private, no-cache"))
    key = f"/items/{n}"
    tier.put(key, CachedResponse(body, headers, n, tags=(n % 65536,)), 3 * len(key))
    again = tier.entries.get(f"/items/{n // 2 * 2 - 1000}")
    if again:
        again.used = True
print(rss() - before, limit, len(tier.entries))
"""
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    grown, limit, kept = map(int, said.split())
    assert kept > 40_000
    assert grown <= 1.2 * limit, f"{grown / 2**20:.0f} MiB of {limit / 2**20:.0f}"
