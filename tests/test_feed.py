"""The feed of changes: events and long polls, positions, filters, rights, and its end."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import sse
from accounts import account
from conftest import SERVER, Query, Service, query
from guarded_app import Keys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import worker
from msgspec import Struct
from sqlalchemy.schema import CreateTable
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from bench.feedrun import Sizes, feed_run
from service.app import create_app
from service.changes import backlog, log
from service.changes import feed as feeds
from service.changes.change import ChangeForm
from service.changes.log import Entry
from service.changes.matching import Matcher
from service.changes.ring import Ring
from service.changes.subscriber import Subscriber
from service.db import change_log
from service.db.change_log import WIDTH
from service.db.letter_case import lower
from service.db.statement import DIALECT
from service.embedded.data_directory import Stores
from service.errors import Unavailable
from service.resource import ID, Resource
from service.settings import Settings
from service.users import users

PATH = "/items/changes"
NUMBERS = "INSERT INTO items (name, price) SELECT 'psql', n FROM generate_series(1, $1) AS n"
# A megabyte.
BIG = """
    INSERT INTO items (name, description)
    SELECT 'big', repeat('x', 1000) FROM generate_series(1, 1000)
"""


@pytest.fixture(scope="module")
def nodes(
    own_database_url: str, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A server of two workers, on a database of its own."""
    one = Service(
        tmp_path_factory.mktemp("feed") / "log",
        *("--server", SERVER, "--workers", "2"),
        DATABASE_URL=own_database_url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_CORS_ORIGINS="https://page.example.com",
        SERVICE_LOG="json",
    )
    try:
        one.wait_until_ready()
        yield one
        assert one.stop() == 0
        assert "Traceback" not in one.log.read_text(), one.log.read_text()
    finally:
        one.process.kill()
        one.process.wait()


def polled(client: httpx.Client, after: int, **query: Any) -> tuple[list[Any], int]:
    """All changes after a position that match, by JSON."""
    found: list[Any] = []
    while True:
        answer = client.get(PATH, params={"after": after, "limit": 1000, **query})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["changes"]
        if page["position"] == after or not page["changes"]:
            return found, page["position"]
        after = page["position"]


def now(client: httpx.Client) -> int:
    """The newest position."""
    answer = client.get(PATH).json()
    assert answer["changes"] == []
    return int(answer["position"])


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_change_has_the_form_of_the_read_also_if_another_program_made_it(
    client: httpx.Client, database_url: str
) -> None:
    start = now(client)
    first = client.post("/items", json={"name": "Lamp", "price": 10_000, "sku": "L"}).json()
    foreign = """
        SET TIME ZONE 'Asia/Kolkata';
        INSERT INTO items (name, price, created_at) VALUES ('by psql', 2.5000, '2026-01-01 00:00Z')
    """

    async def run() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(foreign)
        await connection.close()

    asyncio.run(run())
    second = client.get(f"/items/{first['id'] + 1}").json()
    changed = client.patch(f"/items/{first['id']}", json={"name": 'Lämp\n"2"'}).json()
    inactive = client.delete(f"/items/{first['id']}").json()
    client.delete(f"/items/{first['id']}?permanent=true")
    made = client.post("/items/bulk", json={"items": [{"name": "a"}, {"name": "b"}]}).json()[
        "items"
    ]
    expected = [
        ("created", first),
        ("created", second),
        ("updated", changed),
        ("updated", inactive),
        ("deleted", inactive),
        *(("created", one) for one in made),
    ]
    found, position = polled(client, start)
    assert [(one["kind"], one["item"]) for one in found] == expected
    assert [(one["id"], one["version"]) for one in found] == [
        (row["id"], row["version"]) for _, row in expected
    ]
    places = [one["position"] for one in found]
    assert places == sorted(set(places))
    assert start < places[0]
    assert places[-1] <= position == now(client)
    raw = client.get(PATH, params={"after": start}).text
    row = client.get(f"/items/{second['id']}").text
    assert row in raw, "the same bytes as the read"
    assert '"2026-01-01T00:00:00.000000Z"' in row

    async def events() -> None:
        async with sse.stream(str(client.base_url), f"{PATH}?after={start}") as stream:
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.headers["x-accel-buffering"] == "no"
            assert "no-store" in stream.headers["cache-control"]
            assert "content-encoding" not in stream.headers
            assert await stream.next() == (start, "", None)
            for one in found:
                assert await stream.change() == (one["position"], one["kind"], one)

    asyncio.run(events())


def test_a_long_poll_waits_for_a_change_that_matches(client: httpx.Client) -> None:
    start = now(client)

    async def run() -> None:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as http:
            query = {"after": start, "wait": 60, "min_price": 5}
            waiting = asyncio.create_task(http.get(PATH, params=query))
            await asyncio.sleep(0.2)
            await http.post("/items", json={"name": "cheap", "price": 1})
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await http.post("/items", json={"name": "dear", "price": 9})
            answer = await waiting
            assert [one["item"]["name"] for one in answer.json()["changes"]] == ["dear"]
            assert float(answer.headers["x-process-time"]) < 0.3, "the wait is no work"
            after = answer.json()["position"]
            ended = await http.get(PATH, params={"after": after, "wait": 1})
            assert ended.json() == {"changes": [], "position": after}
            both = (await http.get(PATH, params={"after": start, "limit": 1})).json()
            assert both["position"] == both["changes"][0]["position"] < after

    asyncio.run(run())


def test_a_position_or_a_parameter_that_is_wrong_is_refused(
    client: httpx.Client, sql: Query
) -> None:
    client.post("/items", json={"name": "old"})
    position = now(client)
    for target, headers in (
        ("?x=1", {}),
        ("?after=-1", {}),
        ("?wait=61", {}),
        ("?limit=0", {}),
        ("", {"Last-Event-ID": "abc"}),
        ("", {"Last-Event-ID": "9" * 19}),
    ):
        answer = client.get(PATH + target, headers=headers)
        assert answer.status_code == 422, target
        assert answer.json()["errors"]
    for after in (position + WIDTH, 2**53):
        assert client.get(PATH, params={"after": after}).status_code == 410
    both = client.get(f"{PATH}?after=9007199254740991", headers={"Last-Event-ID": f"{position}"})
    assert both.status_code == 200, "Last-Event-ID wins"
    head = client.head(PATH, headers={"Accept": "text/event-stream"})
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")
    weighed = "text/event-stream;q=0.1, application/json"
    assert "changes" in client.get(PATH, headers={"Accept": weighed}).json()


def test_positions_that_are_not_kept_are_gone(own_database_url: str) -> None:
    async def run() -> None:
        async with worker(own_database_url) as (client, state):
            await client.post("/items", json={"name": "trimmed"})
            position = (await client.get(PATH)).json()["position"]
            await client.post("/items", json={"name": "kept"})
            connection = await asyncpg.connect(own_database_url)
            await connection.execute("DELETE FROM change_horizon")
            await connection.execute("INSERT INTO change_horizon (position) VALUES ($1)", position)
            assert (await client.get(f"{PATH}?after={position}")).status_code == 200
            await state["feed"].wait(2**60, 0)
            state["feed"]._reader.ring.start = position + 1
            gone = await client.get(f"{PATH}?after={position - 1}")
            assert gone.status_code == 410
            assert "read the list" in gone.json()["detail"]
            await connection.execute("DELETE FROM change_horizon")
            await connection.close()

    asyncio.run(run())


TEXTS = (
    "İstanbul",
    "istanbul",
    "ΟΔΟΣ",
    "οδος",
    "STRASSE",
    "straße",
    "ÄÖ",
    "äö",
    "50%",
    "a_b\\",
    "Ǆ",
)
ROWS: list[dict[str, Any]] = [
    {
        "name": f"{TEXTS[n % len(TEXTS)]} {n}",
        "price": None if n % 5 == 0 else str(Decimal(n % 7) / 4),
        "is_active": n % 3 != 0,
        "owner_id": None if n % 4 == 0 else 1 + n % 2,
    }
    for n in range(66)
]
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "q": st.sampled_from([*TEXTS, "i", *"\u03c3\u03c2%_\\I\u00df1", "SS"]),
        "is_active": st.sampled_from(["true", "false"]),
        "owner_id": st.sampled_from([1, 2, 3]),
        "min_price": st.sampled_from(["0", "0.25", "1.5"]),
        "max_price": st.sampled_from(["0", "0.750", "1.5"]),
    },
)


@pytest.fixture(scope="module")
def listed(own_database_url: str) -> Iterator[tuple[asyncio.Runner, Any, int]]:
    """An application in this process with rows for filters, and the position before them."""
    with asyncio.Runner() as runner:
        opened = worker(own_database_url)
        client, _ = runner.run(opened.__aenter__())
        for name in ("ada", "bob"):
            user = {"email": f"{name}@filters.example.com", "username": f"{name}-filters"}
            runner.run(client.post("/users", json=user))
        found = runner.run(client.get("/users?q=-filters")).json()["items"]
        ids: dict[Any, int] = {1: found[0]["id"], 2: found[1]["id"], 3: 10**9}
        start = runner.run(client.get(PATH)).json()["position"]
        rows: list[Any] = [
            {**one, "owner_id": one["owner_id"] and ids[one["owner_id"]]} for one in ROWS
        ]
        rows = [{**one, "price": one["price"] and float(one["price"])} for one in rows]
        made = runner.run(client.post("/items/bulk", json={"items": rows}))
        assert made.status_code == 201, made.text
        first = made.json()["items"][0]["id"]

        async def both(asked: dict[str, Any]) -> tuple[list[int], list[int]]:
            if "owner_id" in asked:
                asked = {**asked, "owner_id": ids[asked["owner_id"]]}
            pages = {**asked, "per_page": 100, "cursor": ""}
            rows = (await client.get("/items", params=pages)).json()["items"]
            answer = await client.get(PATH, params={**asked, "after": start, "limit": 1000})
            shown = [one["id"] for one in answer.json()["changes"]]
            return shown, [one["id"] for one in rows if one["id"] >= first]

        yield runner, both, start
        runner.run(opened.__aexit__(None, None, None))


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(asked=QUERIES)
def test_the_filters_match_what_those_of_the_list_do(
    listed: tuple[asyncio.Runner, Any, int], asked: dict[str, Any]
) -> None:
    runner, both, _ = listed
    shown, expected = runner.run(both(asked))
    assert shown == expected


def test_the_lower_case_of_a_text_is_that_of_the_database_also_if_it_is_ascii() -> None:
    turkish = {ord("I"): "\u0131", ord("T"): "t"}
    assert lower("TIE", turkish) == "t\u0131E"
    assert lower("TI\u00c9", turkish) == "t\u0131\u00c9"


def test_clients_that_come_and_go_get_each_change_once_and_in_order(  # noqa: C901 - writers and readers at the same time
    nodes: Service, own_database_url: str
) -> None:
    """Some filter, all leave at random and go on from their last position, on another worker."""
    chance = random.Random(1)

    async def run() -> None:  # noqa: C901 - as above
        async with httpx.AsyncClient(base_url=nodes.url, timeout=30) as http:
            start = (await http.get(PATH)).json()["position"]
            done = asyncio.Event()
            page = "https://page.example.com"
            async with sse.stream(nodes.url, PATH, Origin=page) as one:
                assert one.headers["access-control-allow-origin"] == page

            async def by_api() -> None:
                for n in range(60):
                    await http.post("/items", json={"name": f"api {n}", "price": n % 10})

            async def by_psql() -> None:
                connection = await asyncpg.connect(own_database_url)
                for n in range(60):
                    async with connection.transaction():
                        await connection.execute(NUMBERS, n % 5)
                        await asyncio.sleep(0.002 * (n % 3))
                        if n % 7 == 0:
                            await connection.execute(
                                "UPDATE items SET price = 3 WHERE name = 'psql'"
                            )
                await connection.close()

            async def subscriber(query: str) -> list[Any]:
                """Read until everything was written and the last change has come."""
                found: list[Any] = []
                last = start
                while True:
                    target = f"{PATH}?after={start}{query}"
                    async with sse.stream(nodes.url, target, Last_Event_ID=str(last)) as one:
                        for _ in range(chance.randint(1, 60)):
                            try:
                                event = await one.next(0.5)
                            except TimeoutError:
                                if done.is_set():
                                    return found
                                break
                            assert event is not None
                            assert event.id >= last
                            last = event.id
                            if event.data is not None:
                                found.append(event.data)

            queries = ["", "", "", "&min_price=3", "&min_price=3", "&q=PSQL"]
            tasks = [asyncio.create_task(subscriber(one)) for one in queries * 3]
            await asyncio.gather(by_api(), by_psql(), by_psql())
            done.set()
            lists = await asyncio.gather(*tasks)
            with httpx.Client(base_url=nodes.url) as client:
                expected = {
                    "": polled(client, start)[0],
                    "&min_price=3": polled(client, start, min_price=3)[0],
                    "&q=PSQL": polled(client, start, q="psql")[0],
                }
        assert len(expected[""]) > 300
        for asked, found in zip(queries * 3, lists, strict=True):
            places = [one["position"] for one in found]
            assert places == [one["position"] for one in expected[asked]]
            assert found == expected[asked]

    asyncio.run(run())


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_dropped_and_goes_on_later(
    nodes: Service, own_database_url: str
) -> None:
    with httpx.Client(base_url=nodes.url, timeout=30) as client:
        start = now(client)
        where = httpx.URL(nodes.url)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((where.host, where.port))
        slow.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        assert slow.recv(20).startswith(b"HTTP/1.1 200")
        for _ in range(14):
            query(own_database_url, BIG)
        until(lambda: metric(client, "feed_dropped_total") == 1)
        slow.settimeout(30)
        taken = b""
        with slow, suppress(ConnectionResetError):
            while part := slow.recv(1 << 20):
                taken += part
        assert not taken.endswith(b"0\r\n\r\n"), "the response has no end"
        last = int(taken.rpartition(b"\n\nid: ")[0].rpartition(b"\nid: ")[2].split(b"\n")[0])
        assert len(polled(client, last)[0]) + taken.count(b"\nevent: created\n") >= 14_000
        assert polled(client, start)[0][-1]["position"] == polled(client, last)[0][-1]["position"]


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_client_that_leaves_leaves_nothing_behind(client: httpx.Client) -> None:
    where = (client.base_url.host, client.base_url.port)
    request = f"GET {PATH} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n".encode()
    left = [socket.create_connection(where) for _ in range(3)]
    for one in left:
        one.sendall(request)
    until(lambda: metric(client, "feed_subscribers") == 3)
    left[0].close()
    left[1].shutdown(socket.SHUT_WR)
    left[2].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    left[2].close()
    until(lambda: metric(client, "feed_subscribers") == 0)
    left[1].close()


def test_streams_end_at_once_when_the_service_stops(own_database_url: str, tmp_path: Path) -> None:
    one = Service(
        tmp_path / "log",
        *("--server", SERVER, "--workers", "2"),
        DATABASE_URL=own_database_url,
        REDIS_URL="off",
        SERVICE_LOG="json",
    )
    stuck = socket.socket()
    try:
        one.wait_until_ready()
        if SERVER == "uvicorn":  # granian gives such a client the 20 s of any request
            for _ in range(8):
                query(own_database_url, BIG)
            where = httpx.URL(one.url)
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect((where.host, where.port))
            head = "Host: a\r\nAccept: text/event-stream\r\n\r\n"
            stuck.sendall(f"GET {PATH}?after=0 HTTP/1.1\r\n{head}".encode())

        async def run() -> None:
            async with httpx.AsyncClient(base_url=one.url, timeout=60) as http:
                waiting = [asyncio.create_task(http.get(f"{PATH}?wait=60")) for _ in range(4)]
                async with sse.stream(one.url, PATH) as first, sse.stream(one.url, PATH) as second:
                    await first.next()
                    await second.next()
                    await asyncio.sleep(1.1)  # longer than a slow request
                    one.process.terminate()
                    async with asyncio.timeout(10):  # of the 20 that requests may take
                        await first.end()
                        await second.end()
                        answers = await asyncio.gather(*waiting)
                        assert [answer.json()["changes"] for answer in answers] == [[]] * 4

        asyncio.run(run())
        assert one.process.wait(10) == 0
        assert "slow request" not in one.log.read_text()
    finally:
        stuck.close()
        one.process.kill()
        one.process.wait()


@pytest.mark.slow
def test_a_stream_ends_when_its_key_is_revoked(own_database_url: str, tmp_path: Path) -> None:
    one = Service(
        tmp_path / "log",
        *("--server", SERVER),
        DATABASE_URL=own_database_url,
        REDIS_URL="off",
        SERVICE_AUTH="on",
    )
    try:
        one.wait_until_ready()
        admin = account(own_database_url, "admin", ["read", "write", "admin"])
        reader = account(own_database_url)

        async def run() -> None:
            async with httpx.AsyncClient(base_url=one.url, headers=admin.headers) as http:
                async with sse.stream(one.url, PATH) as stream:
                    assert stream.status == 401
                async with sse.stream(one.url, PATH, **reader.headers) as stream:
                    await http.post("/items", json={"name": "before"})
                    assert (await stream.change()).data["item"]["name"] == "before"
                    gone = f"/users/{reader.user_id}/keys/{reader.key_id}"
                    assert (await http.delete(gone)).status_code == 204
                    await asyncio.sleep(1)  # so long it may be valid
                    await http.post("/items", json={"name": "after"})
                    assert await stream.next() is None
                async with sse.stream(one.url, PATH, **reader.headers) as stream:
                    assert stream.status == 401

        asyncio.run(run())
        assert one.stop() == 0
    finally:
        one.process.kill()
        one.process.wait()


def test_a_stream_ends_at_once_while_the_database_is_away_and_a_poll_is_refused(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with worker(own_database_url) as (client, _):

            async def away(*_: object) -> int:
                raise Unavailable("the database is away")

            monkeypatch.setattr(log, "newest", away)
            answer = await client.get(PATH, headers={"Accept": "text/event-stream"})
            assert answer.status_code == 200, "after a 503 a browser never connects again"
            assert answer.text.startswith("retry: 1000\n")
            assert (await client.get(PATH)).status_code == 503

    asyncio.run(run())


def test_more_clients_than_a_worker_takes_are_refused(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_SUBSCRIBERS", 0)

    async def run() -> None:
        async with worker(own_database_url) as (client, _):
            answer = await client.get(PATH, headers={"Accept": "text/event-stream"})
            assert answer.status_code == 503
            assert answer.headers["retry-after"]

    asyncio.run(run())


def test_a_client_that_is_ahead_of_its_worker_gets_only_what_is_new(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker has read further, and its client comes here."""
    read, paused = log.read_entries, asyncio.Event()

    async def slowly(*args: Any) -> list[Entry]:
        return await read(*args) if paused.is_set() else []

    async def run() -> None:
        async with worker(own_database_url) as (client, state):
            feed: feeds.Feed = state["feed"]
            form, matcher = feed.topics["items"].form, Matcher("items", (), {})
            start = await feed.begin(None)
            paused.clear()
            rows = [{"name": "known"}, {"name": "new"}]
            await client.post("/items/bulk", json={"items": rows})
            (known, new), _ = await feed.look(form, matcher.matches, start, 10)
            ahead = [Subscriber(feed, form, matcher, known.position) for _ in range(2)]
            for one in ahead:
                assert await one.past() is None, "it has joined"
                assert await feed.position() < one.position
            paused.set()
            assert await feed.wait(start, 30)
            assert ahead[0].take_events() == new.event
            assert [change.position for change in ahead[1].take(10)] == [new.position]
            for one in ahead:
                assert one.position >= new.position
                one.leave()

    paused.set()
    monkeypatch.setattr(log, "read_entries", slowly)
    asyncio.run(run())


def test_the_reader_goes_on_after_any_failure(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = log.read_entries
    failures = [asyncio.CancelledError(), Unavailable("away"), ValueError("a bug")]

    async def failing(*args: Any) -> list[Entry]:
        if failures:
            raise failures.pop(0)
        return await read(*args)

    async def run() -> None:
        async with worker(own_database_url) as (client, state):
            feed: feeds.Feed = state["feed"]
            form, matcher = feed.topics["items"].form, Matcher("items", (), {})
            one = Subscriber(feed, form, matcher, await feed.begin(None))
            while await one.past() is not None:
                pass
            monkeypatch.setattr(log, "read_entries", failing)
            await client.post("/items", json={"name": "heard"})
            assert await feed.wait(one.position, 30)
            assert not failures
            assert [change.row.name for change in one.take(10)] == ["heard"]
            assert not one.ended
            one.leave()

    asyncio.run(run())


def test_streams_end_when_changes_were_trimmed_while_the_database_was_away(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = log.read_entries

    async def away(*_: Any) -> list[Entry]:
        raise Unavailable("away")

    async def run() -> None:
        async with worker(own_database_url) as (client, state):
            feed: feeds.Feed = state["feed"]
            form, matcher = feed.topics["items"].form, Matcher("items", (), {})
            one = Subscriber(feed, form, matcher, await feed.begin(None))
            feed.add(one)
            while await one.past() is not None:
                pass
            monkeypatch.setattr(log, "read_entries", away)
            await client.post("/items", json={"name": "trimmed"})
            await asyncio.sleep(0.1)
            assert await log.trim(state["writer"], timedelta(0))
            monkeypatch.setattr(log, "read_entries", read)
            await one.wait()
            assert one.ended, "it would miss a change"
            one.leave()

    asyncio.run(run())


def test_the_past_is_the_same_from_memory_and_from_the_database(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READ_ENTRIES", 3)
    monkeypatch.setattr(backlog, "MARGIN", 2)

    async def run() -> None:
        async with worker(own_database_url) as (client, state):
            feed: feeds.Feed = state["feed"]
            form = feed.topics["items"].form
            start = await feed.begin(None)
            for n in range(10):
                rows = [{"name": f"{n} {k}", "price": k} for k in range(1 + n % 3)]
                await client.post("/items/bulk", json={"items": rows})
            expected, upto = await feed.look(form, lambda _: True, start, 1000)
            while (more := await feed.look(form, lambda _: True, upto, 1000))[0]:
                expected, upto = [*expected, *more[0]], more[1]
            places = [change.position for change in expected]
            assert len(places) == 19

            async def all_after(after: int, ring: Ring | None) -> list[int]:
                found: list[int] = []
                while after < upto:
                    page, after = await past.page(ring, form, None, after, 4)
                    found += [change.position for change in page]
                return found

            past = backlog.Backlog(state["db"])
            shared = Ring(upto)
            for after in sorted([start, *places, places[4] - 1], reverse=True):
                newer = [place for place in places if place > after]
                assert await all_after(after, None) == newer
                assert await all_after(after, Ring(upto)) == newer
                assert await all_after(after, shared) == newer
            assert shared.start <= start, "it was extended"

    asyncio.run(run())


def test_a_page_of_a_long_past_reads_little_of_it(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "PAGE_BYTES", 2_000)
    monkeypatch.setattr(backlog, "RING_BYTES", 10_000)

    async def run() -> None:
        async with worker(own_database_url) as (client, state):
            feed: feeds.Feed = state["feed"]
            form = feed.topics["items"].form
            start = after = await feed.begin(None)
            for n in range(30):
                rows = [{"name": f"{n} {k}", "description": "x" * 200} for k in range(10)]
                await client.post("/items/bulk", json={"items": rows})
            past, sizes = backlog.Backlog(state["db"]), []
            read = past._read

            async def counted(*args: Any) -> list[Entry]:
                found = await read(*args)
                sizes.append(sum(len(one.rows) for one in found))
                return found

            monkeypatch.setattr(past, "_read", counted)
            ring, found = Ring(await past.newest()), 0
            while after < ring.end:
                page, after = await past.page(ring, form, None, after, 10)
                found += len(page)
            assert found == 300
            assert max(sizes) < 20_000
            assert sum(sizes) < 600_000, "of some 100,000"
            assert start < ring.start < ring.end, "it was extended by what has room"

    asyncio.run(run())


def test_clients_that_come_together_ask_once_and_hear_what_was_committed_before(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, asked = log.newest, 0

    async def counted(*args: Any) -> int:
        nonlocal asked
        asked += 1
        return await newest(*args)

    async def run() -> None:
        async with worker(own_database_url) as (client, state):
            past = backlog.Backlog(state["db"])
            before = await past.newest()
            first = asyncio.create_task(past.newest())
            await asyncio.sleep(0)
            await client.post("/items", json={"name": "committed"})
            later = await asyncio.gather(*(past.newest() for _ in range(100)))
            assert await first >= before
            assert set(later) == {await newest(state["db"]) | (WIDTH - 1)}
            assert min(later) > before
            assert asked <= 4

    monkeypatch.setattr(log, "newest", counted)
    asyncio.run(run())


class NewNote(Struct, kw_only=True):
    """A note that only its owner reads."""

    text: str
    done: bool = False
    owner_id: ID | None = None


notes = Resource(
    "notes",
    NewNote,
    filters=("owner_id", "done"),
    references={"owner_id": users},
    owner="owner_id",
    private=True,
    changes=True,
    without=("upsert",),
)


def test_a_private_resource_shows_the_changes_of_own_rows_only(own_database_url: str) -> None:
    auth = Keys()
    headers = [
        {"Authorization": f"Bearer {auth.add(name, 'read', 'write', user=user)}"}
        for name, user in (("ada", 1), ("bob", 2))
    ]
    given = {"DATABASE_URL": own_database_url, "REDIS_URL": "off", "SERVICE_AUTH": "on"}
    app = create_app(
        Settings.load({**given, "SERVICE_CACHE": "off"}), resources=[users, notes], auth=auth
    )

    async def run() -> None:
        connection = await asyncpg.connect(own_database_url)
        await connection.execute(str(CreateTable(notes.table).compile(dialect=DIALECT)))
        await connection.execute(change_log.log_triggers(notes.table))
        await connection.execute(
            "INSERT INTO users (id, email, username) OVERRIDING SYSTEM VALUE VALUES"
            " (1, 'ada@notes.example.com', 'ada-notes'), (2, 'bob@notes.example.com', 'bob-notes')"
            " ON CONFLICT DO NOTHING"
        )
        async with app.lifespan_context(Starlette()) as state:

            async def served(scope: Scope, receive: Receive, send: Send) -> None:
                await app({**scope, "state": state}, receive, send)

            transport = httpx.ASGITransport(served)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

                async def ask(who: int, **query: Any) -> Any:
                    answer = await client.get("/notes/changes", params=query, headers=headers[who])
                    assert answer.status_code == 200, answer.text
                    return answer.json()

                start = (await ask(0))["position"]
                waiting = asyncio.create_task(ask(0, after=start, wait=30))
                await asyncio.sleep(0.1)
                for who, text in ((1, "of bob"), (0, "of ada")):
                    note = {"text": text}
                    made = await client.post("/notes", json=note, headers=headers[who])
                    assert made.status_code == 201, made.text
                await connection.execute("INSERT INTO notes (text) VALUES ('of no one')")
                for found in (await waiting, await ask(0, after=start)):
                    assert [one["note"]["text"] for one in found["changes"]] == ["of ada"]
                    assert found["changes"][0]["note"]["owner_id"] == 1
                assert (await ask(0, after=start, owner_id=2))["changes"] == []
                found = await ask(1, after=start, done="false")
                assert [one["note"]["text"] for one in found["changes"]] == ["of bob"]
        await connection.close()

    asyncio.run(run())


def test_a_change_from_before_a_migration_has_the_fields_of_today(
    caplog: pytest.LogCaptureFixture,
) -> None:
    form = ChangeForm(
        "notes",
        "notes",
        "note",
        notes.row,
        version="version",
        defaults={"done": False},
        columns={"content": "text"},
    )
    times = '"created_at":"2026-01-01T01:00:00.5+01:00","updated_at":null'
    rows = f"""[
        {{"id":1,"content":"a","version":1,"gone":5,{times}}},
        {{"id":2,"content":7,"version":1,{times}}},
        {{"id":3,"content":"c","done":true,"owner_id":4,"version":2,{times}}}
    ]"""
    first, last = form.changes(Entry(2048, "notes", "updated", rows))
    assert first.data == (
        b'{"position":2048,"kind":"updated","id":1,"version":1,"note":{"id":1,"text":"a",'
        b'"done":false,"owner_id":null,"version":1,"created_at":"2026-01-01T00:00:00.500000Z",'
        b'"updated_at":null}}'
    )
    assert (last.position, last.row.owner_id, last.row.done) == (2050, 4, True)
    assert "a change can't be read" in caplog.text


@pytest.mark.slow
def test_nothing_is_lost_when_a_worker_and_the_database_are_killed(tmp_path: Path) -> None:
    found = feed_run(tmp_path, print, Sizes(200, 100, 6, 2), server=SERVER)
    assert (found.lost, found.duplicated, found.out_of_order) == (0, 0, 0)
    assert found.changes > 100
    assert found.reconnected > 50
