"""A cached response depends on its key and its tags alone."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlencode

import asyncpg
import httpx
import pytest
from msgspec import structs
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.cache import coherence
from service.cache.generations import TableTags
from service.cache.silent_writers import SilentWriters
from service.db.database import Database
from service.db.statement import Statement
from service.errors import NotFound
from service.items import items
from service.resource import operations
from service.settings import Settings
from service.users import users
from service.web.cached import key_of, name_of
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.include import Include
from service.web.request import VIEWER, Request
from service.web.routing import Paths

pytestmark = pytest.mark.anyio

RESOURCES = (users, items)
OPERATIONS = [operation for one in RESOURCES for operation in operations.served(one, RESOURCES)]
CACHED = [operation for operation in OPERATIONS if operation.cache_tags is not None]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late heartbeat on a busy machine, or a connection that is still closing, is no miss."""

    async def look(_: SilentWriters, connection: asyncpg.Connection, *, at_once: bool) -> bool:
        del at_once
        await connection.fetchval("SELECT 1")
        return True

    monkeypatch.setattr(SilentWriters, "look", look)
    monkeypatch.setattr(coherence, "VALID_SECONDS", 3600.0)


@asynccontextmanager
async def client_of(url: str, app: Any, **scope_fields: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application in this process; `scope_fields` as a middleware would set them."""
    environ = {"DATABASE_URL": url, "REDIS_URL": "off", "SERVICE_CACHE": "local"}
    settings = Settings.load({**environ, "SERVICE_AUTH": "off", "SERVICE_JOBS": "off"})
    main = create_app(settings, resources=RESOURCES)
    main.alone = True
    async with main.lifespan_context(Starlette()) as state:
        assert state is not None
        async with asyncio.timeout(60):
            await state["cache"].coherence.connected.wait()

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            principal = dict(scope["headers"]).get(b"x-principal")
            if principal is not None:
                scope[VIEWER] = principal.decode()
            await (app or main)({**scope, **scope_fields, "state": state}, receive, send)

        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


def came(response: httpx.Response) -> str:
    found: str = response.headers["x-cache"]
    return found


def queries(operation: Operation) -> Iterator[dict[str, str]]:
    """Each query parameter by itself, with a value that finds the one row of this test."""
    yield {}
    if operation.query is None:
        return
    hints = get_type_hints(operation.query)
    for one in structs.fields(operation.query):
        kind = hints[one.name]
        kinds = (kind,) if get_origin(kind) is Literal else get_args(kind) or (kind,)
        choices = [get_args(kind) for kind in kinds if get_origin(kind) is Literal]
        included = [kind for kind in kinds if issubclass(kind, Include)] if not choices else []
        if included:
            yield from ({one.name: name} for name in included[0].ALLOWED)
            if len(included[0].ALLOWED) > 1:
                yield {one.name: ",".join(included[0].ALLOWED)}
        elif choices:
            yield from ({one.name: choice} for choice in choices[0])
        elif one.name == "cursor":
            yield {"cursor": ""}
        elif bool in kinds:
            yield {one.name: "true"}
        elif str in kinds:
            yield {one.name: "lamp"}
        else:
            yield {one.name: "1"}


def tables_in(statement: Statement[Any], tables: Sequence[str]) -> set[str]:
    """The tables that a statement names. A CTE of the same name would count too."""
    text = re.sub(r"'[^']*'", "''", statement.sql)
    return {table for table in tables if re.search(rf"\b{table}\b", text)}


@pytest.mark.parametrize("operation", CACHED, ids=lambda one: one.path)
async def test_a_cached_get_declares_every_table_that_it_reads(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch, operation: Operation
) -> None:
    """The tables come from the SQL that ran; after a write to one of them, the GET is a miss."""
    ran: list[Statement[Any]] = []
    fetch = Database.fetch

    async def recording(
        self: Database, statement: Statement[Any], *args: Any, **options: Any
    ) -> Any:
        ran.append(statement)
        return await fetch(self, statement, *args, **options)

    monkeypatch.setattr(Database, "fetch", recording)
    connection = await asyncpg.connect(own_database_url)
    names = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    await connection.execute("DELETE FROM items; DELETE FROM users")
    await connection.close()
    # The totals are counted from the other tables, by their triggers.
    uncached = {"totals", "idempotency_keys", "alembic_version"}
    tables = [name for (name,) in names if name not in uncached]
    async with client_of(own_database_url, None) as client:
        new_user = {"email": "lamp@example.com", "username": "lamp"}
        user = (await client.post("/users", json=new_user)).json()
        new_item = {"name": "Lamp", "price": 1, "owner_id": user["id"]}
        item = (await client.post("/items", json=new_item)).json()
        rows = {"users": user, "items": item}
        about = user if operation.path.startswith("/users") else item
        seen = set()
        for query in queries(operation):
            if "owner_id" in query:
                query["owner_id"] = str(user["id"])
            path = operation.path.replace("{id}", str(about["id"]))
            where = f"{path}?{urlencode(query)}" if query else path
            ran.clear()
            first = await client.get(where)
            assert first.status_code == 200, (where, first.text)
            read = {table for one in ran for table in tables_in(one, tables)}
            assert read, "no statement was seen"
            seen |= read
            for table in sorted(read):
                assert came(await client.get(where)) == "HIT", where
                # A replacement sets all fields, so it may touch every list of the table.
                given = rows[table] | {"description": where}
                written = await client.put(f"/{table}/{rows[table]['id']}", json=given)
                assert written.status_code == 200, written.text
                again = await client.get(where)
                assert came(again) == "MISS", f"GET {where} reads {table}; its tags don't say so"
        assert seen


async def show_language(request: Request) -> Reply:
    return Reply(request.header(b"accept-language") or b"null")


async def show_scope(request: Request) -> Reply:
    return Reply(str(request.scope["client"]).encode())


async def show_id(request: Request) -> Reply:
    return Reply(request.id.encode())


async def show_receive(request: Request) -> Reply:
    return Reply(str(await request.receive()).encode())


async def show_principal(request: Request) -> Reply:
    return Reply(str(request.principal).encode())


async def show_owner(request: Request) -> Reply:
    if request.owner == 3:
        raise NotFound("there is no such row")
    return Reply(str(request.owner).encode())


def served(handler: Any) -> ASGIApp:
    tags = TableTags("notes")
    return Paths([Operation("GET", "/notes", handler, "A test", cache_tags=lambda _: tags.lists)])


@pytest.mark.parametrize(
    ("handler", "what"),
    (
        (show_language, "the header 'accept-language'"),
        (show_scope, r"scope\['client'\]"),
        (show_id, "the request's id"),
        (show_receive, "the body"),
        (show_principal, "the principal"),
    ),
)
@pytest.mark.parametrize("control", ("max-age=0", "no-cache"))
async def test_a_cached_get_can_read_nothing_outside_its_key(
    own_database_url: str, handler: Any, what: str, control: str
) -> None:
    """Not even where the cache is bypassed, so that it shows in the first test of a handler."""
    errors = []

    async def trying(request: Request) -> Reply:
        try:
            reply: Reply = await handler(request)
        except RuntimeError as error:
            errors.append(str(error))
            raise
        return reply

    async with client_of(own_database_url, served(trying)) as client:
        headers = {"Accept-Language": "de", "Cache-Control": control}
        assert (await client.get("/notes", headers=headers)).status_code == 500
    (error,) = errors
    assert re.match(f"a cached operation can't read {what}", error), error


async def test_cached_handlers_can_use_the_common_parts_of_a_request(own_database_url: str) -> None:
    """Preconditions, encodings and the request's id are handled outside the cached handler."""
    async with client_of(own_database_url, None) as client:
        path = await client.post("/items", json={"name": "Lamp" * 60, "description": "x" * 999})
        where = path.headers["location"]
        for expected in ("MISS", "HIT"):
            headers = {"X-Request-ID": "mine", "Accept-Encoding": "gzip", "Accept-Language": "de"}
            response = await client.get(where, headers=headers)
            assert (came(response), response.headers["x-request-id"]) == (expected, "mine")
            assert response.headers["content-encoding"] == "gzip"
        assert (await client.get(where, headers={"If-None-Match": "*"})).status_code == 304


async def test_no_principal_is_shown_the_response_of_another(own_database_url: str) -> None:
    async with client_of(own_database_url, served(show_owner)) as client:
        for expected in ("MISS", "HIT"):
            for viewer in ("1", "2", "3", "admin"):
                response = await client.get("/notes", headers={"X-Principal": viewer})
                assert came(response) == expected
                assert (response.status_code == 404) == (viewer == "3")
                owner = "None" if viewer == "admin" else viewer
                assert response.status_code == 404 or response.text == owner
            anyone = await client.get("/notes")
            assert (came(anyone), anyone.text) == (expected, "None")


def test_no_two_keys_have_one_name_in_redis() -> None:
    """The path is decoded, and may hold anything."""
    scopes = [
        {VIEWER: principal, "root_path": root, "query_string": query, "path": path}
        for principal in ("", "a")
        for root in ("", "/a")
        for query in (b"", b"a=1")
        for path in ("/items", "/items?a=1", "/a/items", "\n", "\n\n/items", "a\n/items")
    ]
    keys = [key_of(scope) for scope in scopes]
    assert len(set(map(name_of, keys))) == len(set(keys)) == len(scopes)
    without = {**scopes[0]}
    del without[VIEWER]
    assert key_of(without) == keys[0]
