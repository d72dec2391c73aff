"""Idempotency-Key: a POST that is sent again is done once, and gets its first answer again."""

import asyncio
import gzip
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import asyncpg
import httpx
import msgspec
import pytest
from conftest import SERVER, Query, Service
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from service.app import Application, create_app
from service.asgi import app as built_in
from service.cache import coherence
from service.cache.silent_writers import SilentWriters
from service.cache.writer import Writer
from service.db import idempotency, transaction
from service.db.database import Database
from service.db.idempotency import Answer, Keeper, KeyTaken
from service.db.keyed_commit import KeyedCommit
from service.errors import Malformed, OutcomeUnknown, Problem, Taken
from service.items import items
from service.settings import Settings
from service.users import users
from service.web.codec import Reply, encode
from service.web.endpoint import Operation
from service.web.idempotent import key_of, remove_all_expired, remove_some_keys
from service.web.principal import Principal
from service.web.request import PRINCIPAL, Request
from service.web.stream import Chunks

pytestmark = pytest.mark.anyio

KEY = "Idempotency-Key"
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url(client: httpx.Client, database_url: str) -> str:
    """The database of the server, with empty tables."""
    return database_url


def same(first: httpx.Response, again: httpx.Response) -> None:
    """Check that the second is the first answer, replayed."""
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("location", "etag", "content-type", "cache-control"):
        assert again.headers.get(name) == first.headers.get(name), name


def new(name: str, sku: str | None = None) -> tuple[object, ...]:
    return (sku, name, None, None, True, None)


async def ask(url: str, text: str) -> list[asyncpg.Record]:
    """As the fixture `sql`, in a running event loop."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(text)
    finally:
        await connection.close()


# Over HTTP, on a server. A POST of the application needs a case here: its requests.
def import_of(client: httpx.Client) -> dict[str, Any]:
    return {"content": b'{"name":"Lamp","sku":"i"}\n', "headers": LINES}


def removal_of(client: httpx.Client) -> dict[str, Any]:
    made = client.post("/items", json={"name": "Lamp"}).json()
    return {"json": {"ids": [made["id"]], "permanent": True}}


def item_of(client: httpx.Client) -> dict[str, Any]:
    client.post("/users", json={"email": "eve@example.com", "username": "eve"})
    return {"json": {"name": "Lamp", "sku": "o"}}


def key_of_user(client: httpx.Client) -> dict[str, Any]:
    item_of(client)
    return {"json": {"name": "laptop"}}


def notification_of(client: httpx.Client) -> dict[str, Any]:
    item_of(client)
    return {"content": b""}


def notifications_of(client: httpx.Client) -> dict[str, Any]:
    item_of(client)
    return {"json": {"up_to": 1}}


def job_of_user(client: httpx.Client) -> dict[str, Any]:
    item_of(client)
    return {"content": b""}


CASES: dict[str, Callable[[httpx.Client], dict[str, Any]]] = {
    "/items": lambda _: {"json": {"name": "Lamp", "sku": "a"}},
    "/items/bulk": lambda _: {"json": {"items": [{"name": "Lamp", "sku": "b"}]}},
    "/items/bulk/delete": removal_of,
    "/items/import": import_of,
    "/jobs/{id}/retry": job_of_user,
    "/users": lambda _: {"json": {"email": "ada@example.com", "username": "ada"}},
    "/users/{id}/items": item_of,
    "/users/{id}/keys": key_of_user,
    "/users/{id}/notifications/{notification_id}/read": notification_of,
    "/users/{id}/notifications/read": notifications_of,
}
POSTS = [one for one in built_in.operations if one.takes_key]


@pytest.mark.parametrize("operation", POSTS, ids=lambda one: one.path)
def test_every_post_is_done_once_per_key(
    client: httpx.Client, sql: Query, operation: Operation
) -> None:
    assert operation.path in CASES, f"POST {operation.path} needs a case in CASES"
    options = CASES[operation.path](client)
    path = operation.path.replace("{id}", "1").replace("{notification_id}", "1")
    if "/notifications/" in operation.path:
        sql("INSERT INTO notifications (user_id, kind, message) VALUES (1, 'test', 'Told')")
    sql("UPDATE jobs SET state = 'failed', finished_at = now()")
    options["headers"] = {KEY: "one", **options.get("headers", {})}
    first = client.post(path, **options)
    assert first.is_success, first.text
    written = (
        "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM users),"
        " (SELECT count(*) FROM keys), (SELECT sum(version) FROM items),"
        " (SELECT max(read_at) FROM notifications)"
    )
    rows = sql(written)
    again = client.post(path, **options)
    if operation.replay:
        same(first, again)
    else:
        assert (again.status_code, again.headers["location"]) == (409, first.headers["location"])
        assert first.json()["key"] not in again.text
    assert sql(written) == rows
    other = client.post(path, params={"x": "1"}, **options)
    assert other.status_code == 422
    if "json" in options:
        options["json"] = {**options["json"], "more": 1}  # unknown fields are ignored
    else:
        options["content"] += b"\n"
    other = client.post(path, **options)
    assert other.status_code == 422
    assert "was used for another request" in other.json()["detail"]


def test_the_answer_of_a_create_is_replayed_with_its_headers(client: httpx.Client) -> None:
    headers = {KEY: "a", "X-Request-ID": "mine"}
    first = client.post("/items", json={"name": "Lamp"}, headers=headers)
    where = first.headers["location"]
    assert (where, first.headers["etag"]) == (f"/items/{first.json()['id']}", '"1"')
    client.patch(where, json={"name": "Torch"})
    again = client.post("/items", json={"name": "Lamp"}, headers=headers)
    same(first, again)
    assert again.headers["x-request-id"] == "mine"
    quoted = client.post("/items", json={"name": "Lamp"}, headers={KEY: '"a"'})
    same(first, quoted)


def test_a_failed_request_stores_nothing(client: httpx.Client, sql: Query) -> None:
    headers = {KEY: "a"}
    client.post("/items", json={"name": "Lamp", "sku": "L"})
    assert client.post("/items", json={"name": ""}, headers=headers).status_code == 422
    taken = {"name": "Lamp", "sku": "L"}
    assert client.post("/items", json=taken, headers=headers).status_code == 409
    bulk = {"items": [{"name": "Torch"}, taken]}
    refused = client.post("/items/bulk", json=bulk, headers=headers)
    assert refused.json()["errors"] == [{"field": "items[1].sku", "message": "already taken"}]
    lines = b'{"name":"Torch"}\n{}\n'
    headers = {**LINES, **headers}
    assert client.post("/items/import", content=lines, headers=headers).status_code == 422
    absent = client.post("/users/99/items", json={"name": "Lamp"}, headers={KEY: "a"})
    assert absent.status_code == 404
    assert not sql("SELECT FROM idempotency_keys")
    assert len(sql("SELECT FROM items")) == 1


def test_a_key_is_1_to_255_visible_ascii_characters(client: httpx.Client) -> None:
    item = {"name": "Lamp"}

    def status(*values: bytes) -> int:
        headers: list[tuple[str, bytes]] = [(KEY, value) for value in values]
        return client.post("/items", json=item, headers=headers).status_code  # type: ignore[arg-type]  # httpx takes pairs of str and bytes

    assert status(b"k" * 255) == 201
    assert status(b"k" * 256) == 400
    assert status(b'"' + b"q" * 255 + b'"') == 201
    assert status(b'"' + b"q" * 256 + b'"') == 400
    for value in (b"", b'""', b'"open', b"two words", b"caf\xe9", b'"a";b=1', b"a\tb"):
        assert status(value) == 400, value
    assert status(b"a", b"a") == 400
    assert "255" in client.post("/items", json=item, headers={KEY: "a b"}).json()["detail"]


@given(st.binary(max_size=300))
@example(b'"a\\"b"')
@example(b"x" * 256)
def test_any_header_value_is_a_key_or_malformed(value: bytes) -> None:
    try:
        key = key_of(value)
    except Malformed:
        return
    assert 1 <= len(key) <= 255
    assert all(33 <= ord(character) <= 126 for character in key)
    assert key_of(b'"%b"' % key.replace("\\", r"\\").replace('"', r"\"").encode()) == key
    if not value.startswith(b'"'):
        assert key_of(value) == key_of(
            b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        )


def test_a_gzip_file_is_compared_as_it_was_sent(client: httpx.Client, sql: Query) -> None:
    headers = {**LINES, "Content-Encoding": "gzip", KEY: "z"}
    file = gzip.compress(b'{"name":"Lamp"}\n' * 3000, mtime=0)
    first = client.post("/items/import", content=file, headers=headers)
    assert first.json()["created"] == 3000
    same(first, client.post("/items/import", content=file, headers=headers))
    assert client.post("/items/import", content=file + b"\0", headers=headers).status_code == 422
    assert sql("SELECT count(*) FROM items")[0][0] == 3000


# In this process: several applications on one database are several workers.
async def twice(request: Request) -> Reply:
    """Write two rows; the second read sees the first."""
    body = msgspec.json.decode(await request.read())
    first = await request.write(lambda db: items.add.run(db, new("First")), items.tags.written)
    assert await items.by_id.get(request.db, first.id) == first
    try:
        await request.write(lambda db: items.add.run(db, new("Second", "taken")), lambda _: ())
    except Taken:
        if not body.get("go_on"):
            raise
    third = await request.write(lambda db: items.add.run(db, new("Third")), items.tags.written)
    return Reply(encode([first.id, third.id]), headers=((b"x-own", b"1"),))


async def secret(request: Request) -> Reply:
    """Answer with a secret."""
    row = await request.write(lambda db: items.add.run(db, new("Secret")), items.tags.written)
    return Reply(b'{"key":"s3cret"}', 201, ((b"location", b"/items/%d" % row.id),))


async def nothing(request: Request) -> Reply:
    """Write nothing."""
    calls.append(await request.read())
    return Reply(status=204)


async def streamed(_: Request) -> Reply:
    """Stream the answer."""

    async def rows() -> Any:
        yield b"abc"

    calls.append(b"streamed")
    chunks = Chunks(rows())
    await chunks.begin(asyncio.sleep(60))
    return Reply(chunks=chunks)


async def first_piece(request: Request) -> Reply:
    """Read the first message of a file."""
    calls.append((await request.receive())["body"])
    return Reply(status=204)


async def pair(request: Request) -> Reply:
    """Create a row as POST /items does, and another one after it."""
    made = await items.adder(request, new("One"))
    await request.write(lambda db: items.add.run(db, new("Two", "taken")), items.tags.written)
    return made


calls: list[bytes] = []
OWN = (
    Operation("POST", "/twice", twice, "Write twice"),
    Operation("POST", "/secret", secret, "A secret", replay=False),
    Operation("POST", "/nothing", nothing, "Nothing"),
    Operation("POST", "/streamed", streamed, "A stream"),
    Operation("POST", "/file", first_piece, "A file", files=("text/plain",)),
    Operation("POST", "/pair", pair, "Two rows"),
)


@asynccontextmanager
async def worker(url: str, **options: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application; the header X-User names the user."""
    stores = {"DATABASE_URL": url, "REDIS_URL": "off", "SERVICE_AUTH": "off"}
    settings = Settings.load({**stores, **options})
    main: Application = create_app(settings, resources=[users, items], routes=OWN)
    async with main.lifespan_context(Starlette()) as state:
        assert state is not None

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            user = dict(scope["headers"]).get(b"x-user")
            if user is not None:
                scope[PRINCIPAL] = Principal(int(user), 1, frozenset({"write"}))
            await main({**scope, "state": state}, receive, send)

        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            calls.clear()
            yield client


@pytest.mark.parametrize("batching", ("on", "off"))
@pytest.mark.parametrize("workers", (1, 2))
async def test_parallel_requests_with_one_key_create_one_row(
    url: str, batching: str, workers: int
) -> None:
    async with AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(worker(url, SERVICE_BATCHING=batching))
            for _ in range(workers)
        ]
        for path, body in (
            ("/items", {"name": "Lamp", "sku": "same"}),
            ("/items/bulk", {"items": [{"name": "Torch", "sku": "bulk"}]}),
        ):
            answers = await asyncio.gather(
                *(
                    clients[n % workers].post(path, json=body, headers={KEY: path})
                    for n in range(50)
                )
            )
            done = [answer for answer in answers if answer.status_code == 201]
            assert len({answer.content for answer in done}) == 1
            others = [answer for answer in answers if answer.status_code != 201]
            assert {answer.status_code for answer in others} <= {409}, others[0].text
            assert {answer.headers["retry-after"] for answer in others} <= {"1"}
            replayed = [one for one in done if "idempotency-replayed" in one.headers]
            assert len(replayed) == len(done) - 1
    assert [row["sku"] for row in await ask(url, "SELECT sku FROM items ORDER BY id")] == [
        "same",
        "bulk",
    ]


async def test_requests_with_keys_of_their_own_share_transactions(url: str) -> None:
    async with worker(url) as client:
        answers = await asyncio.gather(
            *(
                client.post("/items", json={"name": f"Item {n}"}, headers={KEY: str(n)})
                for n in range(64)
            )
        )
    assert [answer.status_code for answer in answers] == [201] * 64
    assert [answer.json()["name"] for answer in answers] == [f"Item {n}" for n in range(64)]
    rows = await ask(url, "SELECT key, body FROM idempotency_keys")
    stored = {row["key"]: row["body"] for row in rows}
    assert stored == {str(n): answer.content for n, answer in enumerate(answers)}
    commits = (await ask(url, "SELECT count(DISTINCT xmin::text) FROM items"))[0][0]
    assert commits < 32
    assert (await ask(url, "SELECT count(DISTINCT xmin::text) FROM idempotency_keys"))[0][
        0
    ] == commits


async def test_a_key_belongs_to_its_user(url: str) -> None:
    add_user = "INSERT INTO users (email, username) VALUES ('{0}@example.com', '{0}')"
    await ask(url, add_user.format("ada"))
    await ask(url, add_user.format("eve"))
    async with worker(url) as client:
        ids = set()
        for user in ({}, {"X-User": "1"}, {"X-User": "2"}):
            headers = {KEY: "a", **user}
            first = await client.post("/items", json={"name": "Lamp"}, headers=headers)
            same(first, await client.post("/items", json={"name": "Lamp"}, headers=headers))
            ids.add(first.json()["id"])
    assert len(ids) == 3
    assert {row[0] for row in await ask(url, "SELECT principal FROM idempotency_keys")} == {
        "",
        "1",
        "2",
    }


@asynccontextmanager
async def locked(url: str, text: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"BEGIN; {text}")
        yield connection
    finally:
        await connection.close()


async def test_a_request_whose_first_one_still_runs_is_409(url: str) -> None:
    await ask(url, "INSERT INTO users (email, username) VALUES ('ada@example.com', 'ada')")
    async with worker(url, SERVICE_STATEMENT_TIMEOUT_MS="20000") as client:
        send = partial(client.post, "/users/1/items", json={"name": "Lamp"}, headers={KEY: "a"})
        async with locked(url, "SELECT FROM users FOR UPDATE"):
            first = asyncio.create_task(send())
            await waits_for_a_lock(url)
            second = await send()
            assert (second.status_code, second.headers["retry-after"]) == (409, "1")
        same(await first, await send())
    assert len(await ask(url, "SELECT FROM items")) == 1


async def test_a_request_that_waits_too_long_for_one_on_another_worker_is_409(url: str) -> None:
    """The other one has inserted the key and has not committed."""
    other = "INSERT INTO idempotency_keys VALUES ('', 'a', '', 201, '', '')"
    async with worker(url, SERVICE_STATEMENT_TIMEOUT_MS="400") as client:
        async with locked(url, other):
            for path, body in (("/items", {"name": "Lamp"}), ("/nothing", {})):
                answer = await client.post(path, json=body, headers={KEY: "a"})
                assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
        answer = await client.post("/items", json={"name": "Lamp"}, headers={KEY: "a"})
        assert answer.status_code == 201
    assert len(await ask(url, "SELECT FROM items")) == 1


async def waits_for_a_lock(url: str) -> None:
    connection = await asyncpg.connect(url)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with asyncio.timeout(30):
        while not await connection.fetchval(waiting):  # noqa: ASYNC110 - no event says it
            await asyncio.sleep(0.01)
    await connection.close()


async def test_the_writes_of_a_handler_share_a_transaction_with_the_key(url: str) -> None:
    await ask(url, "INSERT INTO items (name, sku) VALUES ('Old', 'taken')")
    async with worker(url) as client:
        refused = await client.post("/twice", json={}, headers={KEY: "a"})
        assert refused.status_code == 409
        assert not await ask(url, "SELECT FROM idempotency_keys")
        assert len(await ask(url, "SELECT FROM items")) == 1, "the first write is undone too"
        first = await client.post("/twice", json={"go_on": True}, headers={KEY: "a"})
        assert first.status_code == 200, first.text
        again = await client.post("/twice", json={"go_on": True}, headers={KEY: "a"})
        same(first, again)
        assert again.headers["x-own"] == "1"
        names = [row["name"] for row in await ask(url, "SELECT name FROM items ORDER BY id")]
        assert names == ["Old", "First", "Third"]
        assert (await client.post("/pair", json={}, headers={KEY: "b"})).status_code == 409
    assert len(await ask(url, "SELECT FROM items")) == 3, (
        "a create that is not the last write is undone too"
    )


async def test_an_answer_that_must_not_be_stored_is_not_shown_again(url: str) -> None:
    async with worker(url) as client:
        first = await client.post("/secret", headers={KEY: "a"})
        assert first.status_code == 201
        again = await client.post("/secret", headers={KEY: "a"})
        assert (again.status_code, again.headers["location"]) == (409, first.headers["location"])
        assert f"see {first.headers['location']}" in again.json()["detail"]
        assert "s3cret" not in again.text
        stored = (await ask(url, "SELECT idempotency_keys::text FROM idempotency_keys"))[0][0]
        assert b"s3cret".hex() not in stored
        first = await client.post("/streamed", headers={KEY: "b"})
        assert (first.status_code, first.content) == (200, b"abc")
        assert (await client.post("/streamed", headers={KEY: "b"})).status_code == 409
        assert calls == [b"streamed"]
    assert len(await ask(url, "SELECT FROM items")) == 1


async def test_a_handler_that_writes_nothing_runs_once(url: str) -> None:
    async with worker(url) as client:
        for _ in range(2):
            answer = await client.post("/nothing", content=b"x", headers={KEY: "a"})
            assert (answer.status_code, answer.content) == (204, b"")
        assert calls == [b"x"]
        assert (await client.post("/nothing", headers={KEY: "a"})).status_code == 422
        assert (await client.post("/nothing", content=b"x")).status_code == 204
        assert calls == [b"x", b"x"]


async def test_a_file_that_its_handler_reads_in_part_is_compared_whole(url: str) -> None:
    async def pieces(last: bytes) -> AsyncIterator[bytes]:
        for piece in (b"one", b"two", last):
            yield piece

    async with worker(url) as client:
        for last, status in ((b"three", 204), (b"three", 204), (b"other", 422)):
            answer = await client.post("/file", content=pieces(last), headers={KEY: "a"})
            assert answer.status_code == status
    assert len(calls) == 1


async def test_what_a_keyed_write_changes_is_invalidated_after_its_commit(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_writer(*_: Any, **__: Any) -> bool:
        return True

    monkeypatch.setattr(SilentWriters, "look", no_writer)  # as if no other process could write
    monkeypatch.setattr(coherence, "VALID_SECONDS", 3600.0)  # on a busy machine too
    async with worker(own_database_url, SERVICE_CACHE="local") as client:
        for path, body in (
            ("/items", {"name": "Lamp"}),
            ("/items/bulk", {"items": [{"name": "Torch"}]}),
            ("/twice", {"go_on": True}),
        ):
            async with asyncio.timeout(30):
                found = await client.get("/items")
                while found.headers["x-cache"] != "HIT":
                    await asyncio.sleep(0.01)
                    found = await client.get("/items")
            answer = await client.post(path, json=body, headers={KEY: path})
            assert answer.is_success, answer.text
            assert (await client.get("/items")).json()["total"] > found.json()["total"], path


# The database's side.
@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    db = Database(url, statements=(*items.prepared, *idempotency.STATEMENTS), **options)
    await db.open()
    try:
        yield db
    finally:
        await db.close()


def keeper(key: str) -> Keeper:
    return Keeper("", key, lambda row: Answer("", key, b"f", 201, b"", str(row.id).encode()))


async def outcomes(work: list[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


@pytest.mark.parametrize("size", (2, None), ids=("pool", "no pool"))
async def test_in_a_batch_only_those_to_blame_are_refused(url: str, size: int | None) -> None:
    await ask(
        url,
        "INSERT INTO idempotency_keys SELECT '', n, 'f', 201, '', ''"
        " FROM unnest(ARRAY['3', '7']) n",
    )
    await ask(url, "INSERT INTO items (name, sku) VALUES ('Old', 'sku5')")
    keyed = KeyedCommit(items.add)
    async with opened(url, size=size) as db:
        writer = Writer(db)
        found = await outcomes(
            [
                writer.run(
                    lambda to, n=n: keyed.run(to, new(f"{n}", f"sku{n}"), keeper(str(n))),  # type: ignore[misc]  # mypy infers no default of a lambda
                    lambda _: (),
                )
                for n in range(40)
            ]
        )
        assert not db._writing.locked()
        assert not db.pool._busy
    for n, one in enumerate(found):
        expected = {3: KeyTaken, 7: KeyTaken, 5: Taken}.get(n)
        if expected is None:
            assert one.name == str(n)
        else:
            assert isinstance(one, expected), one
    rows = {
        row["sku"]: row["id"]
        for row in await ask(url, "SELECT id, sku FROM items WHERE name <> 'Old'")
    }
    assert rows == {f"sku{n}": found[n].id for n in range(40) if n not in (3, 5, 7)}
    kept = await ask(url, "SELECT key, body FROM idempotency_keys WHERE body <> ''")
    assert {f"sku{row['key']}": int(row["body"]) for row in kept} == rows


async def test_a_connection_lost_before_the_commit_has_written_nothing(url: str) -> None:
    async with opened(url, size=2) as db:
        writer = Writer(db)
        one = transaction.Transaction(db)

        async def write(to: Any) -> None:
            await items.add.run(to.within(one), new("Lamp"))

        async with one:
            await writer.run(write, lambda _: ())
            assert one._pooled is not None
            pid = one._pooled.connection.get_server_pid()
            await ask(url, f"SELECT pg_terminate_backend({pid}, 5000)")
            for work in (writer.run(write, lambda _: ()), one.commit()):
                with pytest.raises(Problem) as caught:
                    await work
                assert caught.value.status == 503
                assert not isinstance(caught.value, OutcomeUnknown)
        assert not db._writing.locked()
    assert not await ask(url, "SELECT FROM items")


async def test_expired_keys_count_as_absent_and_are_removed(url: str) -> None:
    old = "INSERT INTO idempotency_keys SELECT '', n::text, 'f', 201, '', '', now() - $1::interval"
    for age in ("24:00:01", "23:59:00"):
        numbers = "generate_series(1, 1500)" if age > "24" else "generate_series(2001, 2010)"
        await ask(url, f"{old.replace('$1', repr(age))} FROM {numbers} n")
    async with worker(url) as client:
        first = await client.post("/items", json={"name": "Lamp"}, headers={KEY: "7"})
        assert first.status_code == 201
        same(first, await client.post("/items", json={"name": "Lamp"}, headers={KEY: "7"}))
        early = await client.post("/items", json={"name": "Lamp"}, headers={KEY: "2001"})
        assert early.status_code == 422
    async with opened(url) as db:
        assert [await remove_some_keys(Writer(db)) for _ in range(3)] == [1000, 499, 0]
    assert len(await ask(url, "SELECT FROM idempotency_keys")) == 11


async def test_expired_keys_are_removed_however_long_their_answers_are(url: str) -> None:
    """A bulk answer has a megabyte: 1,000 of them take longer than a statement may."""
    await ask(
        url,
        "INSERT INTO idempotency_keys SELECT '', n::text, 'f', 201, '', '', now() - interval '2 d'"
        " FROM generate_series(1, 60) n",
    )
    await ask(
        url,
        "CREATE FUNCTION slow_removal() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.01); RETURN old; END'",
    )
    slow = "CREATE TRIGGER slow BEFORE DELETE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION"
    await ask(url, f"{slow} slow_removal()")
    try:
        async with opened(url, statement_timeout=0.3) as db:
            assert await remove_all_expired(Writer(db)) == 60
    finally:
        await ask(url, "DROP FUNCTION slow_removal CASCADE")


# A commit whose result is lost.
class CutCommit:
    """A proxy before PostgreSQL that withholds the result of the first COMMIT, as a lost network.

    `done` is set when PostgreSQL has committed. Then the connection is closed, if `close` is set.
    """

    def __init__(self, url: str, *, close: bool) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.target = url.partition("host=")[2].partition("&")[0]
        self.url = url.replace(self.target, str(self.folder))
        self.close = close
        self.done = asyncio.Event()
        self.armed = False

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_unix_server(self.serve, self.folder / ".s.PGSQL.5432")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        shutil.rmtree(self.folder)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_unix_connection(f"{self.target}/.s.PGSQL.5432")
        cut = asyncio.Event()

        async def requests() -> None:
            while data := await reader.read(65_536):
                if self.armed and b"COMMIT\0" in data:
                    cut.set()
                down.write(data)
            down.close()

        async def results() -> None:
            while data := await up.read(65_536):
                if self.armed and cut.is_set() and b"COMMIT\0" in data:
                    self.armed = False
                    self.done.set()
                    if self.close:
                        break
                    continue
                writer.write(data)
            writer.close()

        try:
            await asyncio.gather(requests(), results(), return_exceptions=True)
        finally:  # also after a reset, or when the test ends
            down.close()
            writer.close()


@pytest.mark.parametrize(
    ("path", "body"),
    (("/items", {"name": "Lamp", "sku": "L"}), ("/items/bulk", {"items": [{"name": "Lamp"}]})),
    ids=("grouped", "alone"),
)
async def test_a_lost_result_of_a_commit_is_looked_up(url: str, path: str, body: Any) -> None:
    async with CutCommit(url, close=True) as proxy, worker(proxy.url) as client:
        proxy.armed = True
        answer = await client.post(path, json=body, headers={KEY: "a"})
        assert proxy.done.is_set()
        assert answer.status_code == 201
        again = await client.post(path, json=body, headers={KEY: "a"})
        assert (again.status_code, again.content) == (201, answer.content)
    assert len(await ask(url, "SELECT FROM items")) == 1


async def test_a_worker_killed_between_commit_and_answer_leaves_the_answer(
    url: str, tmp_path: Path
) -> None:
    item = {"name": "Lamp", "sku": "L"}
    async with CutCommit(url, close=False) as proxy:
        killed = Service(
            tmp_path / "log", "--server", SERVER, DATABASE_URL=proxy.url, REDIS_URL="off"
        )
        try:
            await asyncio.to_thread(killed.wait_until_ready)
            proxy.armed = True
            async with httpx.AsyncClient(base_url=killed.url, timeout=30) as client:
                sent = asyncio.create_task(client.post("/items", json=item, headers={KEY: "a"}))
                async with asyncio.timeout(30):
                    await proxy.done.wait()
                killed.process.kill()
                with pytest.raises(httpx.TransportError):
                    await sent
        finally:
            killed.process.kill()
            killed.process.wait()
    (row,) = await ask(url, "SELECT id FROM items")
    async with worker(url) as client:
        answer = await client.post("/items", json=item, headers={KEY: "a"})
        assert (answer.status_code, answer.json()["id"]) == (201, row["id"])
        assert answer.headers["idempotency-replayed"] == "true"
    assert len(await ask(url, "SELECT FROM items")) == 1
