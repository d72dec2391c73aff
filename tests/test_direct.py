"""Requests that are answered without a task get what they would get with one."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
import uvicorn
from conftest import BATCHING, SERVER, Service
from in_process import held, until
from raw_http import LAST, Answer, answers, talk
from starlette.applications import Starlette
from uvicorn.server import ServerState

from service.app import Application, create_app
from service.asgi import MIGRATIONS, built_in
from service.cache.generations import FIRST_ROW_TAG, TableTags
from service.cache.store import Cache
from service.db.batcher import Batcher, Waiter
from service.db.database import Database
from service.http1.connection import Connection
from service.http1.request_cycle import RequestCycle
from service.items import items
from service.logs import logger
from service.settings import Settings
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.repeated_hits import EACH, Hit, Repeats
from service.web.request import Request

pytestmark = [
    pytest.mark.skipif(SERVER != "uvicorn", reason="only our own HTTP answers without a task"),
    pytest.mark.skipif(BATCHING == "off", reason="without batches each request has a task"),
]

# What differs from one response to the next.
_PASSING = {"date", "x-request-id", "x-process-time", "server-timing", "connection"}
JSON = b"Content-Type: application/json\r\n"


def request(method: str, path: str, body: str = "", lines: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode() + lines
    if body:
        head += JSON + f"Content-Length: {len(body)}\r\n".encode()
    return head + b"\r\n" + body.encode()


def both_ways(service: Service, one: bytes) -> tuple[Answer, Answer]:
    """Return the answer to a request alone, and to it behind another one, where it has a task."""
    alone, _ = answers(talk(service, one, LAST))
    _, behind, _ = answers(talk(service, request("GET", "/health/live") + one + LAST))
    return alone, behind


def lasting(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in _PASSING}


@pytest.fixture
def item(client: httpx.Client) -> dict[str, Any]:
    made = client.post("/items", json={"name": "Lamp", "description": "x" * 50, "price": 29.99})
    found: dict[str, Any] = made.json()
    return found


FRESH = b"Cache-Control: no-cache\r\n"
PRICE = '{"price": 1.5}'


@pytest.mark.parametrize(
    ("path", "lines", "status"),
    (
        ("/items/{id}", FRESH, 200),
        ("/items/{id}/", FRESH, 200),
        ("/items/0{id}", FRESH, 200),
        ("/items/{id}", FRESH + b"X-Request-ID: mine\r\n", 200),
        ("/items/{id}", FRESH + b"Accept-Encoding: zstd\r\n", 200),
        ("/items/{id}", FRESH + b'If-None-Match: "1"\r\n', 304),
        ("/items/{id}", FRESH + b'If-Match: "7"\r\n', 412),
        ("/items/{id}?x=1", FRESH, 422),
        ("/items/0", FRESH, 404),
        ("/items/x", FRESH, 422),
        ("/items/999999999999999999", FRESH, 404),
        ("/items/99999999999999999999", FRESH, 404),
        ("/items?per_page=1", FRESH, 200),
        ("/items?per_page=1&total=none", FRESH + b"Accept-Encoding: gzip\r\n", 200),
        ("/items?nonsense=1", FRESH, 422),
        ("/users/{id}?include=keys", FRESH, 404),
    ),
)
def test_a_read_gets_the_same_with_and_without_a_task(
    service: Service, item: dict[str, Any], path: str, lines: bytes, status: int
) -> None:
    path = path.replace("{id}", str(item["id"]))
    if path.startswith("/users"):
        path = re.sub(r"\d+", "999999999", path)
    one, other = both_ways(service, request("GET", path, lines=lines))
    assert one.status == other.status == status
    if status < 400:
        assert (lasting(one), one.body) == (lasting(other), other.body)
    else:
        assert lasting(one) == lasting(other)
    if b"X-Request-ID" in lines:
        assert one.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    (
        ("POST", "/items", '{"name": "  Lamp "}', 201),
        ("POST", "/items", '{"name": ""}', 422),
        ("POST", "/items", '{"name": "Lamp", "owner_id": 999999999}', 409),
        ("POST", "/items?x=1", '{"name": "Lamp"}', 422),
        ("POST", "/items", "{", 400),
        ("PATCH", "/items/{id}", '{"price": 1.5}', 200),
        ("PATCH", "/items/{id}", "{}", 200),
        ("PATCH", "/items/999999999", '{"price": 1.5}', 404),
        ("PATCH", "/items/x", '{"price": 1.5}', 422),
        ("PATCH", "/items/0", '{"price": 1.5}', 404),
        ("PATCH", "/items/{id}", '{"name": null}', 422),
    ),
)
def test_a_write_gets_the_same_with_and_without_a_task(
    service: Service, item: dict[str, Any], method: str, path: str, body: str, status: int
) -> None:
    path = path.replace("{id}", str(item["id"]))
    one, other = both_ways(service, request(method, path, body))
    assert one.status == other.status == status, (one, other)
    assert lasting(one).keys() == lasting(other).keys()
    if status < 400:
        shown = [
            re.sub(rb'"(id|version|created_at|updated_at)":[^,}]*', b"", a.body)
            for a in (one, other)
        ]
        assert shown[0] == shown[1]


def test_two_content_types_are_none_of_json(service: Service) -> None:
    head = b"POST /items HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n" + JSON
    body = b'{"name": "Lamp"}'
    one, other = both_ways(service, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert one.status == other.status == 415


def test_a_response_of_a_large_row_is_compressed(client: httpx.Client) -> None:
    made = client.post("/items", json={"name": "Lamp", "description": "word " * 1000})
    assert made.headers["content-encoding"], "the client accepts it"
    found = client.get(made.headers["location"], headers={"Cache-Control": "no-cache"})
    assert found.headers["content-encoding"]
    assert found.headers["etag"] == 'W/"1"'
    assert found.json() == made.json()


@asynccontextmanager
async def listening(
    url: str, make: Callable[[Settings], Application] = built_in, **options: str
) -> AsyncIterator[tuple[httpx.AsyncClient, Any, ServerState]]:
    """Serve an application in this process; yield a client, and what it opened."""
    given = {"DATABASE_URL": url, "REDIS_URL": "off", "SERVICE_AUTH": "off", "SERVICE_LOG": "off"}
    main = make(Settings.load({**given, **options}))
    main.alone = True
    async with main.lifespan_context(Starlette()) as state:
        assert state is not None
        opened = dict(state)
        config, shared = (
            uvicorn.Config(main, http=Connection, lifespan="off", proxy_headers=False),
            ServerState(),
        )
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(config, shared, opened), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                yield client, state, shared
        finally:
            server.close()


@pytest.mark.anyio
@pytest.mark.parametrize("cache", ("on", "off"))
async def test_usual_requests_have_no_task(
    own_database_url: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the hot path has lost its shortcut, without a difference in any response."""
    tasks: list[str] = []
    run = RequestCycle.run

    async def noted(self: RequestCycle, *args: Any) -> None:
        tasks.append(f"{self.method} {self.head.path.decode()}")
        await run(self, *args)

    monkeypatch.setattr(RequestCycle, "run", noted)
    async with listening(own_database_url, SERVICE_CACHE=cache) as (client, _, _):
        for lines in ({}, {"X-Request-ID": "mine"}):
            made = await client.post("/items", json={"name": "Lamp"}, headers=lines)
            assert made.status_code == 201
            place = made.headers["location"]
            for _ in range(2):
                assert (await client.get(place, headers=lines)).status_code == 200
            changed = await client.patch(place, json={"price": 2}, headers=lines)
            assert changed.json()["version"] == 2
            seen = await client.get(place, headers={**lines, "Cache-Control": "no-cache"})
            assert seen.json() == changed.json()
        assert not tasks
        # Compressed by a task, where it is not cached.
        plain = {"Cache-Control": "no-cache", "Accept-Encoding": "identity"}
        assert (await client.get("/items", headers=plain)).status_code == 200
    assert not tasks


@pytest.mark.anyio
async def test_a_client_that_leaves_while_its_row_is_read_or_written(own_database_url: str) -> None:
    """Its write is committed, nothing stays counted, and others go on."""
    async with listening(own_database_url) as (client, state, shared):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        async with held(own_database_url, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE"):
            for one in (request("GET", place, lines=FRESH), request("PATCH", place, PRICE)):
                _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
                writer.write(one)
                await writer.drain()
                await until(lambda: state["metrics"].in_flight)
                writer.close()
            await until(lambda: state["metrics"].in_flight == 2)
            await until(lambda: len(shared.connections) == 1)
        await until(lambda: state["metrics"].in_flight == 0)
        assert (await client.get(place)).json()["price"] == 1.5


@pytest.mark.anyio
async def test_a_slow_request_without_a_task_is_logged_with_its_id(
    own_database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(own_database_url, SERVICE_SLOW_REQUEST_MS="1", SERVICE_LOG="json") as (
        client,
        _,
        _,
    ):
        monkeypatch.setattr(logger, "propagate", True)
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        caplog.clear()
        async with held(own_database_url, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE"):
            asked = asyncio.create_task(client.get(place, headers={"X-Request-ID": "slow"}))
            await asyncio.sleep(0.02)
        assert (await asked).status_code == 200
    (record,) = [one for one in caplog.records if one.message == "slow request"]
    fields: dict[str, Any] = record.__dict__["fields"]
    assert fields["route"] == "/items/{id}"
    assert fields["statements"] == 1
    assert fields["sql"] > 0


@pytest.mark.anyio
async def test_what_a_batch_has_changed_is_invalidated_together_before_its_answers(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request has its own response, also one whose row is gone or whose tags fail."""
    async with listening(own_database_url) as (client, state, _):
        places = [
            (await client.post("/items", json={"name": f"Lamp {n}"})).headers["location"]
            for n in range(12)
        ]
        gone, broken = places[10:]
        await client.delete(gone, params={"permanent": "true"})
        for place in places[:10]:
            assert (await client.get(place)).json()["price"] is None
        together: list[Any] = []
        invalidate, written = Cache.invalidate_then, TableTags.written

        def noted(self: Cache, tags: Any, then: Callable[[], None]) -> None:
            rows = sum(tag >= FIRST_ROW_TAG for tag in tags)
            assert state["metrics"].in_flight >= rows, "none has its answer"
            together.append(tags)
            invalidate(self, tags, then)

        def failing(self: TableTags, row: Any, changed: Any = ()) -> Any:
            if row.id == int(broken.rpartition("/")[2]):
                raise ZeroDivisionError
            return written(self, row, changed)

        monkeypatch.setattr(Cache, "invalidate_then", noted)
        monkeypatch.setattr(TableTags, "written", failing)
        async with held(own_database_url, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE"):
            first = asyncio.create_task(client.patch(places[0], json={"price": 1}))
            await until(lambda: state["metrics"].in_flight == 1)
            others = [
                asyncio.create_task(client.patch(place, json={"price": n}))
                for n, place in enumerate(places[1:], 2)
            ]
            await until(lambda: state["metrics"].in_flight == 12)
        found = await asyncio.gather(first, *others)
        assert [one.status_code for one in found] == [200] * 10 + [404, 500]
        assert len(together) < 6
        for n, (one, place) in enumerate(zip(found[:10], places, strict=False), 1):
            assert (one.json()["price"], one.headers["etag"]) == (n, '"2"')
            assert (await client.get(place)).json() == one.json()
        assert state["metrics"].in_flight == 0


@pytest.mark.anyio
async def test_an_error_in_a_batch_is_the_answer_to_each_request(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(own_database_url) as (client, state, _):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]

        async def broken(*_: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(Database, "fetch", broken)
            found = await asyncio.gather(
                *(client.get(place, headers={"Cache-Control": "no-cache"}) for _ in range(3)),
                client.patch(place, json={"price": 2}),
                client.post("/items", json={"name": "Lamp"}),
                client.get("/items", headers={"Cache-Control": "no-cache"}),
            )
        assert [one.status_code for one in found] == [500] * 6
        assert len({one.json()["request_id"] for one in found}) == 6
        assert (await client.get(place)).status_code == 200
        assert state["metrics"].in_flight == 0


@pytest.mark.anyio
async def test_an_error_is_logged_also_if_the_client_has_left(
    own_database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(own_database_url) as (client, state, shared):
        monkeypatch.setattr(logger, "propagate", True)
        broken = asyncio.Event()

        async def breaks(*_: Any, **__: Any) -> None:
            await broken.wait()
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(Database, "fetch", breaks)
            _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write(request("GET", "/items/1", lines=FRESH))
            await until(lambda: state["metrics"].in_flight)
            writer.close()
            await until(lambda: not shared.connections)
            broken.set()
            await until(lambda: "request failed" in caplog.messages)
        assert state["metrics"].in_flight == 0


@pytest.mark.anyio
async def test_a_client_that_reads_slowly_gets_its_row_later(own_database_url: str) -> None:
    """The write buffer may become full while the request waits, by `100 Continue`."""
    async with listening(own_database_url) as (client, state, shared):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        (connection,) = shared.connections
        async with held(own_database_url, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE"):
            asked = asyncio.create_task(client.get(place, headers={"Cache-Control": "no-cache"}))
            await until(lambda: state["metrics"].in_flight)
            connection.pause_writing()
        await until(lambda: not state["metrics"].in_flight)
        connection.resume_writing()
        assert (await asked).status_code == 200


@pytest.mark.anyio
async def test_a_header_with_a_line_break_is_an_error(own_database_url: str) -> None:
    """Else a handler that shows what the client sent could split its response."""

    async def split(_: Request) -> Reply:
        return Reply(b"{}", headers=((b"x-note", b"a\r\nset-cookie: b=c"),))

    one = Operation("GET", "/split", split, "Split", cache_tags=lambda _: (), stored=False)

    def make(settings: Settings) -> Application:
        return create_app(settings, routes=(one,), migrations=MIGRATIONS)

    async with listening(own_database_url, make) as (client, state, _):
        # The last ones could come from the cache.
        for lines in ({"Cache-Control": "no-cache"}, {}, {}, {}):
            found = await client.get("/split", headers=lines)
            assert found.status_code == 500
            assert "set-cookie" not in found.headers
        assert state["metrics"].in_flight == 0


@pytest.mark.anyio
async def test_a_batch_that_fails_after_its_answers_changes_nothing(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Batcher._run

    async def failing(self: Batcher, db: Any, batch: list[Waiter], began: float) -> None:
        run_batch = self.run_batch

        async def then_fail(db: Any, batch: list[Waiter]) -> None:
            await run_batch(db, batch)
            raise ZeroDivisionError

        monkeypatch.setattr(self, "run_batch", then_fail)
        await run(self, db, batch, began)

    async with listening(own_database_url) as (client, state, _):
        monkeypatch.setattr(Batcher, "_run", failing)
        made = await client.post("/items", json={"name": "Lamp"})
        assert made.status_code == 201
        found = await client.get(made.headers["location"], headers={"Cache-Control": "no-cache"})
        assert found.status_code == 200
        missing = await client.get("/items/999999999")
        assert missing.status_code == 404
        assert state["metrics"].in_flight == 0


@pytest.mark.anyio
async def test_a_request_that_has_a_task_also_refreshes_its_row(own_database_url: str) -> None:
    """With traces, a row that is not cached is read in a task."""
    async with listening(own_database_url, SERVICE_TRACES="on") as (client, state, _):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        await client.get(place)
        state["cache"].local.entries[place].refresh_at = 0.0
        came = [(await client.get(place)).headers["x-cache"] for _ in range(2)]
        assert came == ["MISS", "HIT"]


@pytest.mark.anyio
async def test_requests_that_waited_too_long_leave_nothing(own_database_url: str) -> None:
    """As after a pause of the process; each query has a batcher while its requests wait."""
    async with listening(own_database_url, SERVICE_CACHE="off") as (client, state, _):
        before = set(state["db"].batchers)
        state["db"].statement_timeout = -1.0
        found = await client.get("/items?per_page=7")
        assert (found.status_code, found.json()["detail"]) == (503, "the database is behind")
        assert set(state["db"].batchers) == before


def hits(service: Service, place: str, lines: bytes = b"", times: int = 5) -> list[str]:
    """Return X-Cache of a request that is sent several times on one connection.

    The first is read, the second is a hit, the third is remembered, the others are found by it.
    """
    one = request("GET", place, lines=lines)
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        found = []
        for _ in range(times):
            connection.sendall(one)
            (answer,) = answers(connection.recv(65_536))
            assert answer.status == 200
            found.append(f"{answer.headers['x-cache']} {answer.headers['etag']}")
    return found


def test_a_repeated_request_is_found_by_its_bytes_while_its_response_is_valid(
    service: Service, client: httpx.Client, item: dict[str, Any]
) -> None:
    place = f"/items/{item['id']}"
    assert hits(service, place) == ['MISS "1"', *['HIT "1"'] * 4]
    assert client.patch(place, json={"price": 1}).json()["version"] == 2
    assert hits(service, place) == ['MISS "2"', *['HIT "2"'] * 4]
    assert hits(service, place, b"X-Request-ID: a\r\n") == ['HIT "2"'] * 5


def test_each_repeated_answer_has_an_id_of_its_own(service: Service, item: dict[str, Any]) -> None:
    one = request("GET", f"/items/{item['id']}")
    ids = set()
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        for _ in range(5):
            connection.sendall(one)
            (answer,) = answers(connection.recv(65_536))
            ids.add(answer.headers["x-request-id"])
            assert answer.body == answers(talk(service, one, LAST))[0].body
    assert len(ids) == 5


def test_the_bytes_of_a_known_request_in_a_body_are_a_body(
    service: Service, item: dict[str, Any]
) -> None:
    """Else a body could be answered as a request, and the answers would be out of step."""
    known = request("GET", f"/items/{item['id']}")
    hits(service, f"/items/{item['id']}")
    head = b"POST /items HTTP/1.1\r\nHost: x\r\n" + JSON
    head += b"Content-Length: %d\r\n\r\n" % len(known)
    one, last = answers(talk(service, head, known, LAST))
    assert (one.status, last.status) == (400, 200)
    # The path is unknown, so its answer comes before its body.
    head = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 * len(known))
    found = answers(talk(service, head, known, known, LAST))
    assert [one.status for one in found] == [404, 200]


def test_a_repeated_request_behind_another_is_answered_in_its_place(
    service: Service, item: dict[str, Any]
) -> None:
    known = request("GET", f"/items/{item['id']}")
    hits(service, f"/items/{item['id']}")
    found = answers(talk(service, known + known, known[:20], known[20:], known + LAST))
    assert [one.status for one in found] == [200] * 5
    assert len({one.body for one in found[:4]}) == 1


def test_remembered_requests_take_an_eighth_of_the_bytes_of_the_cache() -> None:
    repeats, limit = Repeats(), 64_000
    hit = Hit("/items/1", True, "/items/{id}")
    for n in range(1000):
        one = request("GET", f"/items/{n}")
        for _ in range(2):  # the second takes nothing
            repeats.remember(one, hit, limit)
        assert repeats._size == sum(len(known) + EACH for known in repeats._known) <= limit // 8
        assert one in repeats._known


@pytest.mark.anyio
async def test_secrets_and_long_requests_are_not_remembered(own_database_url: str) -> None:
    async with listening(own_database_url) as (client, _, shared):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        for lines in ({"Cookie": "a=b"}, {"X-Long": "x" * 600}):
            for _ in range(3):
                found = await client.get(place, headers=lines)
            assert found.headers["x-cache"] == "HIT"
        (connection,) = shared.connections
        found_by_bytes = cast("Connection", connection).repeated
        assert found_by_bytes is not None
        known = getattr(found_by_bytes, "__self__")._known  # noqa: B009 - a bound method
        assert not known
        assert not cast("Connection", connection).input
        await client.get(place)
        assert len(known) == 1


@pytest.mark.anyio
async def test_a_slow_direct_read_is_not_kept_after_a_write(own_database_url: str) -> None:
    async with listening(own_database_url) as (client, state, _):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        await until(lambda: state["cache"].begin_read() >= 0)
        async with held(own_database_url, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE"):
            read = asyncio.create_task(client.get(place))
            await asyncio.sleep(0.03)
            assert not read.done()
            row_id = int(place.rpartition("/")[2])
            state["cache"].generations.advance(items.tags.row(row_id))
        assert (await read).headers["x-cache"] == "MISS"
        assert (await client.get(place)).headers["x-cache"] == "MISS", "it was read too early"


@pytest.mark.anyio
async def test_a_remembered_request_gets_what_another_has_loaded(own_database_url: str) -> None:
    async with listening(own_database_url) as (client, state, _):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        await until(lambda: state["cache"].begin_read() >= 0)
        for _ in range(4):
            await client.get(place)
        await client.patch(place, json={"name": "Torch", "description": "x" * 2000})
        await client.get(place, headers={"X-Other": "1"})
        found = await client.get(place)
        assert (found.headers["x-cache"], found.headers["etag"]) == ("HIT", 'W/"2"')
        assert found.headers["content-encoding"], "the client accepts it, and the body is long now"


@pytest.mark.anyio
async def test_no_request_with_something_of_its_own_is_remembered(own_database_url: str) -> None:
    async with listening(own_database_url) as (client, state, _):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        await until(lambda: state["cache"].begin_read() >= 0)
        for _ in range(5):
            found = await client.get(place, headers={"X-Request-ID": "mine"})
            assert found.headers["x-request-id"] == "mine"
            reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write(request("GET", place, lines=b"Connection: close\r\n"))
            async with asyncio.timeout(10):
                assert b"connection: close" in await reader.read()
            writer.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("setting", "value", "header"),
    (
        ("SERVICE_RATE_LIMIT", "50/60s", "ratelimit"),
        ("SERVICE_CORS_ORIGINS", "https://example.com", "vary"),
    ),
)
async def test_headers_of_settings_are_on_each_repeated_hit(
    own_database_url: str, setting: str, value: str, header: str
) -> None:
    async with listening(own_database_url, built_in, **{setting: value}) as (client, state, _):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        await until(lambda: state["cache"].begin_read() >= 0)
        found = [(await client.get(place)).headers for _ in range(6)]
        assert found[-1]["x-cache"] == "HIT"
        assert all(header in one for one in found)
        if header == "ratelimit":  # each takes one
            left = [int(re.findall(r"r=(\d+)", one[header])[0]) for one in found]
            assert left == list(range(left[0], left[0] - 6, -1))


@pytest.mark.anyio
async def test_a_hit_whose_client_does_not_read_is_counted_once(own_database_url: str) -> None:
    async with listening(own_database_url, SERVICE_RATE_LIMIT="50/60s") as (client, state, shared):
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        await until(lambda: state["cache"].begin_read() >= 0)
        await client.get(place)
        left = []
        for blocked in (False, True, False):
            if blocked:
                (one,) = shared.connections
                connection = cast("Connection", one)
                waits = connection.blocked = asyncio.Event()

                def free(connection: Connection = connection, waits: asyncio.Event = waits) -> None:
                    connection.blocked = None
                    waits.set()

                asyncio.get_running_loop().call_later(0.1, free)
            found = await client.get(place)
            left.append(int(re.findall(r"r=(\d+)", found.headers["ratelimit"])[0]))
        assert left == [left[0], left[0] - 1, left[0] - 2]


@pytest.mark.anyio
async def test_nothing_is_kept_while_the_outcome_of_a_write_is_unknown(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(own_database_url) as (client, state, _):
        cache = state["cache"]
        place = (await client.post("/items", json={"name": "Lamp"})).headers["location"]
        await until(lambda: cache.begin_read() >= 0)
        ended = False

        async def asked(_: object) -> bool:
            return ended

        monkeypatch.setattr(cache.coherence, "ended", asked)
        cache.outcome_unknown()
        for _ in range(3):
            assert (await client.get(place)).headers["x-cache"] == "MISS"
        ended = True
        await until(lambda: cache.begin_read() >= 0)
        await client.get(place)
        assert (await client.get(place)).headers["x-cache"] == "HIT"
