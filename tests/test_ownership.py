"""Owners: who may write which row, and who may read the rows of a private resource."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, NamedTuple

import asyncpg
import httpx
import pytest
from conftest import BATCHING
from guarded_app import Keys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct
from sqlalchemy.schema import CreateIndex, CreateTable
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from service.admin import catalogue
from service.admin.connecting import explain_once
from service.admin.explain import Question
from service.app import create_app
from service.cache import coherence
from service.cache.silent_writers import SilentWriters
from service.db.database import Database
from service.db.ownership import OWN
from service.db.statement import DIALECT, Statement
from service.db.writable import WritableDatabase
from service.items import items
from service.resource import ID, Resource
from service.resource.operations import served
from service.settings import Settings
from service.users import users

pytestmark = pytest.mark.anyio


class NewNote(Struct, kw_only=True):
    """A note that only its owner reads, with a field for admins."""

    slug: Annotated[str, Meta(max_length=64)] | None = None
    text: Annotated[str, Meta(max_length=200)] = ""
    place: int = 0
    pinned: bool = False
    owner_id: ID | None = None


notes = Resource(
    "notes",
    NewNote,
    key="slug",
    sorts=("place",),
    filters=("owner_id", "pinned"),
    search=("text",),
    references={"owner_id": users},
    under=("owner_id",),
    owner="owner_id",
    private=True,
    admin_fields=("pinned",),
)
RESOURCES = (users, items, notes)
ADA, BOB, ADMIN = 1, 2, 0
MISSING = 999_999
SAME_ID = {"X-Request-ID": "same"}


auth = Keys()
KEYS = {
    ADA: auth.add("ada", "read", "write", user=ADA),
    BOB: auth.add("bob", "read", "write", user=BOB),
    ADMIN: auth.add("admin", "read", "write", "admin", user=9, admin=True),
}


class Caller:
    """Sends requests as one principal."""

    def __init__(self, client: httpx.AsyncClient, user: int, key: str) -> None:
        self.client = client
        self.user = user
        self.key = key

    async def __call__(
        self, method: str, path: str, body: Any = None, headers: Any = (), **options: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}", **dict(headers)}
        if body is not None:
            options["json"] = body
        return await self.client.request(method, path, headers=headers, **options)

    async def made(self, path: str, body: Any) -> dict[str, Any]:
        """The row that was created."""
        answer = await self("POST", path, body)
        assert answer.status_code == 201, answer.text
        row: dict[str, Any] = answer.json()
        return row

    async def seen(self, path: str) -> Any:
        """What a GET shows."""
        answer = await self("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()


class Callers:
    """Two users, an admin, and the statements that have run."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        keys = KEYS.items()
        self.ada, self.bob, self.admin = (Caller(client, user, key) for user, key in keys)
        self.url = url
        self.ran: list[str] = []


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def callers(own_database_url: str) -> AsyncIterator[Callers]:
    """An application in this process, with a cache, and with a key for each caller."""
    connection = await asyncpg.connect(own_database_url)
    await connection.execute(str(CreateTable(notes.table).compile(dialect=DIALECT)))
    for index in notes.table.indexes:
        if not index.info.get("optional"):
            await connection.execute(str(CreateIndex(index).compile(dialect=DIALECT)))
    await connection.close()
    options = Settings.load(
        {
            "DATABASE_URL": own_database_url,
            "REDIS_URL": "off",
            "SERVICE_AUTH": "on",
            "SERVICE_BATCHING": BATCHING,
            "SERVICE_CACHE": "local",
        }
    )
    app = create_app(options, resources=RESOURCES, auth=auth)
    app.alone = True

    async def look(_: SilentWriters, connection: asyncpg.Connection, *, at_once: bool) -> bool:
        del at_once
        await connection.fetchval("SELECT 1")
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SilentWriters, "look", look)
        patch.setattr(coherence, "VALID_SECONDS", 3600.0)
        async with app.lifespan_context(Starlette()) as state:
            assert state is not None
            async with asyncio.timeout(60):
                await state["cache"].coherence.connected.wait()

            async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
                scope["state"] = state
                await app(scope, receive, send)

            transport = httpx.ASGITransport(with_state)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                made = Callers(client, own_database_url)
                fetch = Database.fetch

                async def recording(
                    self: Database, statement: Statement[Any], *args: Any, **options: Any
                ) -> Any:
                    made.ran.append(statement.name)
                    return await fetch(self, statement, *args, **options)

                patch.setattr(Database, "fetch", recording)
                for n, name in enumerate(("ada", "bob", "cyd"), 1):
                    user = {"email": f"{name}@example.com", "username": name}
                    assert (await made.admin.made("/users", user))["id"] == n
                yield made


async def in_transaction(
    callers: Callers, sql: str, waiting: Callable[[], Awaitable[httpx.Response]]
) -> httpx.Response:
    """The answer to a request that waits for the locks of a transaction, which then commits."""
    connection = await asyncpg.connect(callers.url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(sql)
        asked = asyncio.ensure_future(waiting())
        look = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        async with asyncio.timeout(20):
            while not await connection.fetchval(look) and not asked.done():  # noqa: ASYNC110 - the database's state
                await asyncio.sleep(0.01)
        assert not asked.done(), "it did not wait"
        await transaction.commit()
        return await asked
    finally:
        await connection.close()


WRITES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "", {"name": "Mine"}),
    ("PATCH", "", {"name": "Mine"}),
    ("PATCH", "", {}),
    ("DELETE", "", None),
    ("DELETE", "?permanent=true", None),
)
CONDITIONS: tuple[dict[str, str], ...] = (
    {},
    {"If-Match": '"1"'},
    {"If-Match": '"7"'},
    {"If-Match": "*"},
    {"If-None-Match": '"1"'},
)


def shown(answer: httpx.Response) -> tuple[Any, ...]:
    """All of a response except the times."""
    headers = {**answer.headers, "x-process-time": "", "server-timing": ""}
    statements = re.findall(r'desc="(\d+) ', answer.headers["server-timing"])
    return answer.status_code, headers, statements, answer.content


async def both(
    caller: Any, method: str, paths: list[str], body: Any, headers: dict[str, str]
) -> list[httpx.Response]:
    """Ask two paths; again if they differ, since a look-up of the key is a statement of one."""
    for _ in range(5):
        found: list[httpx.Response] = [await caller(method, one, body, headers) for one in paths]
        if shown(found[0]) == shown(found[1]):
            break
    return found


@pytest.mark.parametrize("owner", (BOB, None))
async def test_a_row_of_another_user_is_answered_as_a_missing_row(
    callers: Callers, owner: int | None
) -> None:
    row = await callers.admin.made("/items", {"name": "Lamp", "owner_id": owner})
    for method, query, body in WRITES:
        for condition in CONDITIONS:
            headers = {**condition, **SAME_ID}
            paths = [f"/items/{one}{query}" for one in (row["id"], MISSING)]
            others, missing = await both(callers.ada, method, paths, body, headers)
            assert shown(others) == shown(missing), (method, query, condition)
            expected = 412 if condition == {"If-Match": "*"} else 404
            assert others.status_code == expected, (method, query, condition)
    assert await callers.ada.seen(f"/items/{row['id']}") == row, "reads are not limited"


async def test_a_private_row_of_another_user_is_answered_as_a_missing_row(callers: Callers) -> None:
    note = await callers.bob.made("/notes", {"text": "secret"})
    bodies = {"/notes": {"text": "Mine"}, "/users": {"email": "x@example.com", "username": "xyz"}}
    for path, row_id in (("/notes", note["id"]), ("/users", BOB)):
        for method, query, _ in (("GET", "", None), ("HEAD", "", None), *WRITES):
            if "permanent" in query and path == "/notes":
                continue
            body = None if method in {"GET", "HEAD", "DELETE"} else bodies[path]
            for condition in CONDITIONS:
                headers = {**condition, **SAME_ID}
                paths = [f"{path}/{one}{query}" for one in (row_id, MISSING)]
                others, missing = await both(callers.ada, method, paths, body, headers)
                assert shown(others) == shown(missing), (method, path, condition)
                assert others.status_code in {404, 412}, (method, path, condition)
    assert await callers.bob.seen(f"/notes/{note['id']}") == note
    for method, body in (("GET", None), ("POST", {"name": "Yours"})):
        for path in ("items", "notes"):
            given = body and {"name": "Yours", "text": "Yours"}
            others, missing = [
                await callers.ada(method, f"/users/{one}/{path}", given, SAME_ID)
                for one in (BOB, MISSING)
            ]
            assert shown(others) == shown(missing)
            assert others.status_code == 404


async def test_an_owner_writes_own_rows_as_an_admin_does(callers: Callers) -> None:
    row = await callers.ada.made("/items", {"name": "Lamp"})
    path = f"/items/{row['id']}"
    assert row["owner_id"] == ADA
    replaced = await callers.ada("PUT", path, {"name": "Second"}, {"If-Match": '"1"'})
    assert (replaced.status_code, replaced.json()["owner_id"]) == (200, ADA)
    assert (await callers.ada("PATCH", path, {"name": "x"}, {"If-Match": '"1"'})).status_code == 412
    changed = await callers.ada("PATCH", path, {"price": 2}, {"If-Match": '"2"'})
    assert (changed.status_code, changed.json()["version"]) == (200, 3)
    assert (await callers.ada("PATCH", path, {})).json() == changed.json()
    assert (await callers.ada("DELETE", path)).json()["is_active"] is False
    assert (await callers.ada("DELETE", f"{path}?permanent=true")).status_code == 204
    assert (await callers.ada("GET", path)).status_code == 404
    under = await callers.ada.made(f"/users/{ADA}/items", {"name": "Under", "owner_id": BOB})
    assert under["owner_id"] == ADA


async def test_owners_and_admins_share_a_batch_and_only_the_guilty_are_refused(
    callers: Callers,
) -> None:
    rows = [await callers.ada.made("/items", {"name": f"Lamp {n}"}) for n in range(30)]
    who = (callers.ada, callers.bob, callers.admin)
    callers.ran.clear()
    methods = ("PATCH", "PUT", "DELETE")
    answers = await asyncio.gather(
        *(
            who[n % 3](
                methods[n // 3 % 3],
                f"/items/{row['id']}",
                {"name": "Changed", "owner_id": ADA} if n // 3 % 3 < 2 else None,
                {"If-Match": '"1"'} if n % 2 else {},
            )
            for n, row in enumerate(rows)
        )
    )
    assert ("items.change_many_own" in callers.ran) == (BATCHING == "on")
    if BATCHING == "on":
        assert "items.change_many" not in callers.ran, "a batch with an owner ran unlimited"
    for n, answer in enumerate(answers):
        now = await callers.ada.seen(f"/items/{rows[n]['id']}")
        if n % 3 == 1:
            # Bob also can't make it Ada's: that is refused before the row is looked for.
            assert answer.status_code in {403, 404}, n
            assert now == rows[n]
        else:
            assert (answer.status_code, now["version"]) == (200, 2), n


@pytest.mark.parametrize("batched", (False, True))
async def test_a_row_that_is_transferred_before_the_write_is_not_written(
    callers: Callers, batched: bool
) -> None:
    """The write waits for the admin's, and then finds a row of another user."""
    other = await callers.ada.made("/items", {"name": "Other"})
    for method, query, body in (one for one in WRITES if one[2] != {}):
        for condition in ({}, {"If-Match": '"1"'}):
            row = await callers.ada.made("/items", {"name": "Lamp"})

            async def write(
                row: Any = row, condition: Any = condition, one: Any = (method, query, body)
            ) -> httpx.Response:
                method, query, body = one
                work = [callers.ada(method, f"/items/{row['id']}{query}", body, condition)]
                if batched:
                    path = f"/items/{other['id']}"
                    work += [callers.ada("PATCH", path, {"name": "n"}) for _ in range(8)]
                return (await asyncio.gather(*work))[0]

            transfer = f"UPDATE items SET owner_id = {BOB} WHERE id = {row['id']}"
            refused = await in_transaction(callers, transfer, write)
            assert refused.status_code in {404, 412}, (method, query, condition)
            now = await callers.admin(
                "GET", f"/items/{row['id']}", None, {"Cache-Control": "no-cache"}
            )
            assert now.json() == row | {"owner_id": BOB}


async def test_bulk_writes_leave_rows_of_others_alone(callers: Callers) -> None:
    mine = [(await callers.ada.made("/items", {"name": "Mine"}))["id"] for _ in range(3)]
    his = [(await callers.bob.made("/items", {"name": "His"}))["id"] for _ in range(2)]
    nobodys = (await callers.admin.made("/items", {"name": "None"}))["id"]
    others = [*his, nobodys, MISSING]
    given: dict[str, Any]
    for change in ({"name": "Changed"}, {}):
        given = {"ids": [*mine, *others], "set": change}
        done = (await callers.ada("PATCH", "/items/bulk", given)).json()
        assert done == {"updated": 3 if change else 0, "missing": others}
    for permanent in (False, True):
        given = {"ids": [*mine, *others], "permanent": permanent}
        done = (await callers.ada("POST", "/items/bulk/delete", given)).json()
        assert done == {"deleted": 3, "missing": others}
    for row_id in his:
        assert (await callers.bob.seen(f"/items/{row_id}"))["version"] == 1
    given = {"ids": [*his, nobodys], "set": {"name": "By the admin"}}
    assert (await callers.admin("PATCH", "/items/bulk", given)).json()["updated"] == 3


@pytest.mark.parametrize("how", ("change", "delete"))
async def test_a_row_that_is_transferred_before_a_bulk_write_is_missing(
    callers: Callers, how: str
) -> None:
    mine = [(await callers.ada.made("/items", {"name": "Mine"}))["id"] for _ in range(2)]

    def write() -> Awaitable[httpx.Response]:
        if how == "change":
            return callers.ada("PATCH", "/items/bulk", {"ids": mine, "set": {"name": "x"}})
        return callers.ada("POST", "/items/bulk/delete", {"ids": mine})

    transfer = f"UPDATE items SET owner_id = {BOB} WHERE id = {mine[0]}"
    done = (await in_transaction(callers, transfer, write)).json()
    assert done["missing"] == mine[:1]


async def test_an_upsert_by_the_key_of_another_user_is_a_conflict(callers: Callers) -> None:
    await callers.bob.made("/items", {"sku": "bob-1", "name": "His"})
    await callers.admin.made("/items", {"sku": "none-1", "name": "None"})
    await callers.ada.made("/items", {"sku": "ada-1", "name": "Mine"})
    given = [{"sku": one, "name": "x"} for one in ("ada-1", "bob-1", "ada-2", "none-1")]
    callers.ran.clear()
    refused = await callers.ada("PUT", "/items/bulk", {"items": given})
    assert refused.status_code == 409, refused.text
    assert refused.json()["errors"] == [
        {"field": f"items[{n}].sku", "message": "already taken"} for n in (1, 3)
    ]
    assert callers.ran.count("items.upsert_own") == 1, "it was tried again in vain"
    done = (await callers.ada("PUT", "/items/bulk", {"items": given[::2]})).json()
    assert [one["status"] for one in done["items"]] == ["updated", "created"]
    listed = await callers.ada.seen("/items?q=x&per_page=100")
    assert {one["sku"]: one["owner_id"] for one in listed["items"] if one["sku"]} == {
        "ada-1": ADA,
        "ada-2": ADA,
    }
    done = (await callers.admin("PUT", "/items/bulk", {"items": given})).json()
    assert (done["updated"], done["unchanged"]) == (4, 0), "an admin's rows have the owner given"


async def test_an_upsert_meets_a_row_that_is_inserted_or_transferred_in_between(
    callers: Callers,
) -> None:
    await callers.ada.made("/items", {"sku": "moved", "name": "Mine"})
    sql = {
        "moved": f"UPDATE items SET owner_id = {BOB} WHERE sku = 'moved'",
        "inserted": f"INSERT INTO items (sku, name, owner_id) VALUES ('inserted', 'His', {BOB})",
        "mine": f"INSERT INTO items (sku, name, owner_id) VALUES ('mine', 'Mine', {ADA})",
    }
    for sku, statement in sql.items():
        given = {"items": [{"sku": sku, "name": "x"}, {"sku": f"{sku}-2", "name": "x"}]}
        answer = await in_transaction(
            callers,
            statement,
            lambda given=given: callers.ada("PUT", "/items/bulk", given),  # type: ignore[misc]
        )
        if sku == "mine":  # of an own request that came at the same time
            assert [one["status"] for one in answer.json()["items"]] == ["updated", "created"]
        else:
            assert (answer.status_code, answer.json()["errors"]) == (
                409,
                [{"field": "items[0].sku", "message": "already taken"}],
            )


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


async def imported(caller: Caller, path: str, content: bytes, on_error: str) -> httpx.Response:
    return await caller(
        "POST",
        f"{path}/import?on_error={on_error}",
        None,
        {"Content-Type": "application/x-ndjson"},
        content=content,
    )


async def test_an_import_of_an_owner_writes_own_rows_only(callers: Callers) -> None:
    await callers.bob.made("/items", {"sku": "imp-bob", "name": "His"})
    await callers.ada.made("/items", {"sku": "imp-ada", "name": "Mine"})
    wrong = (
        {"sku": "imp-bob", "name": "Stolen"},
        {"sku": "imp-4", "name": "For Bob", "owner_id": BOB},
    )
    right: tuple[dict[str, Any], ...] = (
        {"sku": "imp-ada", "name": "Imported"},
        {"sku": "imp-1", "name": "New"},
        {"name": "Without a key", "owner_id": ADA},
    )
    content = lines(*wrong, *right)
    errors = [
        {"line": 1, "message": "sku: already taken"},
        {"line": 2, "message": "owner_id: only an admin can set another user"},
    ]
    # An error of a line comes before those that the database finds.
    refused = await imported(callers.ada, "/items", content, "abort")
    assert (refused.status_code, refused.json()["errors"]) == (422, errors[1:])
    refused = await imported(callers.ada, "/items", lines(wrong[0], *right), "abort")
    assert (refused.status_code, refused.json()["errors"]) == (422, errors[:1])
    assert (await callers.ada.seen("/items?q=Imported"))["total"] == 0
    done = (await imported(callers.ada, "/items", content, "skip")).json()
    assert done == {
        "read": 5, "created": 2, "updated": 1, "unchanged": 0, "failed": 2, "errors": errors,
    }  # fmt: skip
    listed = await callers.bob.seen("/items?q=imp&per_page=100")
    assert "Stolen" not in str(listed)
    again = (await imported(callers.ada, "/items", lines(*right[:2]), "abort")).json()
    assert (again["unchanged"], again["failed"]) == (2, 0)


async def test_an_import_meets_a_row_that_is_inserted_in_between(callers: Callers) -> None:
    """It is not overwritten, and not counted as unchanged."""
    insert = f"INSERT INTO items (sku, name, owner_id) VALUES ('late', 'His', {BOB})"
    content = lines({"sku": "late", "name": "Stolen"}, {"sku": "late-2", "name": "Mine"})
    refused = await in_transaction(
        callers, insert, lambda: imported(callers.ada, "/items", content, "abort")
    )
    errors = [{"line": 1, "message": "sku: already taken"}]
    assert (refused.status_code, refused.json()["errors"]) == (422, errors)
    done = (await imported(callers.ada, "/items", content, "skip")).json()
    assert (done["created"], done["failed"], done["errors"]) == (1, 1, errors)
    await callers.ada.made("/items", {"sku": "given away", "name": "Mine"})
    transfer = f"UPDATE items SET owner_id = {BOB} WHERE sku = 'given away'"
    content = lines({"sku": "given away", "name": "Stolen"})
    done = (
        await in_transaction(
            callers, transfer, lambda: imported(callers.ada, "/items", content, "skip")
        )
    ).json()
    assert (done["updated"], done["unchanged"], done["failed"]) == (0, 0, 1)


async def test_private_lists_and_files_show_own_rows_only(callers: Callers) -> None:
    for n in range(5):
        await callers.ada.made("/notes", {"slug": f"list-ada-{n}", "text": "list", "place": n})
    for n in range(4):
        await callers.bob.made("/notes", {"slug": f"list-bob-{n}", "text": "list", "place": n})
    await callers.admin.made("/notes", {"slug": "list-none", "text": "list"})
    for total in ("exact", "estimated"):
        for query in ("", "&sort=place", "&sort=-place", "&sort=-id", "&pinned=false"):
            asked = f"/notes?q=list&per_page=3&total={total}{query}"
            page = await callers.ada.seen(asked)
            assert (page["total"], page["pages"]) == (5, 2), asked
            assert {row["owner_id"] for row in page["items"]} == {ADA}
            assert (await callers.bob.seen(asked))["total"] == 4
            assert (await callers.admin.seen(asked))["total"] == 10
    assert (await callers.ada.seen(f"/notes?owner_id={BOB}"))["total"] == 0
    assert (await callers.ada.seen(f"/users/{ADA}/notes?q=list"))["total"] == 5
    everything = await callers.ada("GET", "/notes/export")
    found = [json.loads(line)["owner_id"] for line in everything.text.splitlines()]
    assert set(found) == {ADA}
    assert len((await callers.admin("GET", "/notes/export?q=list")).text.splitlines()) == 10
    assert "list-bob" not in (await callers.ada("GET", "/notes/export?format=csv")).text


async def test_a_cursor_of_another_user_is_refused(callers: Callers) -> None:
    for name in ("ada", "bob"):
        for n in range(3):
            await getattr(callers, name).made("/notes", {"text": f"cursor {n}", "place": n})
    for sort in ("id", "-place"):
        start = f"/notes?q=cursor&per_page=2&sort={sort}&cursor="
        cursor = (await callers.bob.seen(start))["next_cursor"]
        rows = [
            await caller("GET", start + cursor)
            for caller in (callers.bob, callers.ada, callers.admin)
        ]
        assert [one.status_code for one in rows] == [200, 422, 422]
        found, cursor = [], ""
        while cursor is not None:
            page = await callers.ada.seen(start + cursor)
            found += page["items"]
            cursor = page["next_cursor"]
        assert [(one["owner_id"], one["text"]) for one in found] == [
            (ADA, f"cursor {n}") for n in ((0, 1, 2) if sort == "id" else (2, 1, 0))
        ]


async def test_a_user_sees_only_itself(callers: Callers) -> None:
    for query in ("", "?sort=-username", "?q=example", "?total=estimated", "?is_active=true"):
        page = await callers.ada.seen(f"/users{query}")
        assert [one["id"] for one in page["items"]] == [ADA], query
        assert (page["total"], page["next_cursor"]) == (1, None), query
    assert (await callers.ada.seen("/users?q=bob"))["total"] == 0
    assert (await callers.admin.seen("/users"))["total"] >= 3


async def test_an_included_parent_is_shown_to_its_owner(callers: Callers) -> None:
    for caller in (callers.ada, callers.bob, callers.admin):
        await caller.made("/items", {"name": "Included"})
    asked = "/items?q=Included&include=owner"
    for caller, names in (
        (callers.ada, ["ada", None, None]),
        (callers.bob, [None, "bob", None]),
        (callers.admin, ["ada", "bob", None]),
    ):
        for query in (asked, asked, asked.replace("include", "%69nclude")):
            answer = await caller("GET", query)
            rows = answer.json()["items"]
            assert [one["owner"] and one["owner"]["username"] for one in rows] == names
        cached = await caller("GET", asked)
        assert cached.headers["x-cache"] == "HIT"


async def test_included_children_are_those_of_the_owner(callers: Callers) -> None:
    await callers.bob.made("/notes", {"text": "of Bob"})
    mine = await callers.ada.made("/notes", {"text": "of Ada"})
    asked = "?include=items,notes"
    for _ in range(2):  # the second time from the cache
        user = await callers.ada.seen(f"/users/{ADA}{asked}")
        assert user["notes"][0] == mine
        assert {one["owner_id"] for one in (*user["notes"], *user["items"])} == {ADA}
        (user,) = (await callers.ada.seen(f"/users{asked}"))["items"]
        assert (user["id"], user["notes"][0]) == (ADA, mine)
        others, missing = [
            await callers.ada("GET", f"/users/{one}{asked}", None, SAME_ID)
            for one in (BOB, MISSING)
        ]
        assert shown(others) == shown(missing)
        assert others.status_code == 404
        assert (await callers.admin.seen(f"/users/{BOB}{asked}"))["notes"][0]["text"] == "of Bob"


async def test_a_list_without_an_included_parent_is_cached_for_all(callers: Callers) -> None:
    await callers.ada.made("/items", {"name": "Shared"})
    answers = [
        await caller("GET", "/items?q=Shared")
        for caller in (callers.ada, callers.bob, callers.admin)
    ]
    assert [one.headers["x-cache"] for one in answers] == ["MISS", "HIT", "HIT"]
    assert len({one.content for one in answers}) == 1
    for path in (f"/users/{ADA}", "/users", "/notes"):
        for caller in (callers.ada, callers.bob):
            await caller("GET", path)
            assert (await caller("GET", path)).headers["x-cache"] == "HIT"


STAMPS: dict[str, Any] = {
    "id": 77,
    "version": 77,
    "created_at": "2001-01-01T00:00:00Z",
    "updated_at": "2001-01-01T00:00:00Z",
}
VALUES: dict[str, dict[str, Any]] = {
    "items": {"sku": "mass", "name": "Mass", "description": "x", "price": 1, "is_active": False},
    "notes": {"slug": "mass", "text": "Mass", "place": 3},
    "users": {"email": "ada@example.com", "username": "ada", "full_name": "A", "is_active": True},
}
FORBIDDEN: dict[str, dict[str, Any]] = {
    "items": {"owner_id": BOB},
    "notes": {"owner_id": BOB, "pinned": True},
    "users": {"role": "admin"},
}


@pytest.mark.parametrize("of", RESOURCES, ids=lambda one: one.name)
async def test_no_write_sets_a_column_that_its_sender_may_not_set(
    callers: Callers, of: Resource[Any]
) -> None:
    """Every column of the table, sent to every write."""
    name, good, bad = of.name, VALUES[of.name], FORBIDDEN[of.name]
    assert {*STAMPS, *good, *bad} == set(of.table.c.keys()), "a new column needs a value here"
    row = (
        await callers.ada.seen(f"/users/{ADA}")
        if of is users
        else await callers.ada.made(f"/{name}", good | STAMPS)
    )
    path = f"/{name}/{row['id']}"

    def sent(values: dict[str, Any]) -> list[tuple[str, str, Any]]:
        one = good | STAMPS | values
        found: list[tuple[str, str, Any]] = [("PUT", path, one), ("PATCH", path, values | STAMPS)]
        if of is users:
            return found
        found.append(("PATCH", f"/{name}/bulk", {"ids": [row["id"]], "set": values | STAMPS}))
        found.append(("PUT", f"/{name}/bulk", {"items": [one]}))
        new = one | {of.key: "another"}
        return [*found, ("POST", f"/{name}", new), ("POST", f"/{name}/bulk", {"items": [new]})]

    for field, value in bad.items():
        for method, where, body in sent({field: value}):
            refused = await callers.ada(method, where, body)
            assert refused.status_code == 403, (method, where, refused.text)
            (error,) = refused.json()["errors"]
            assert error["field"].rpartition(".")[2] == field
    if of is not users:
        for field, value in bad.items():
            done = await imported(callers.ada, f"/{name}", lines(good | {field: value}), "skip")
            assert done.json()["errors"][0]["message"].startswith(f"{field}: ")
    first = await callers.admin.seen(path)
    assert first == row
    for method, where, body in sent({}):
        answer = await callers.ada(method, where, body)
        assert answer.status_code in {200, 201}, (method, where, answer.text)
        now = await callers.admin.seen(path)
        assert now["id"] == row["id"]
        assert now["version"] < 77
        assert now["created_at"] == row["created_at"]
        assert {one: now[one] for one in bad} == {one: row[one] for one in bad}
        if method == "POST":
            made = answer.json().get("items", [answer.json()])[0]
            assert made["owner_id"] == ADA
            await callers.admin(
                "DELETE",
                f"/{name}/{made['id']}?permanent=true" if of is items else f"/{name}/{made['id']}",
            )


async def test_a_field_for_admins_may_be_sent_back_as_it_is(callers: Callers) -> None:
    path = f"/users/{ADA}"
    me = await callers.ada.seen(path)
    for role in ("admin", "user"):
        assert (await callers.admin("PATCH", path, {"role": role})).json()["role"] == role
        other = "user" if role == "admin" else "admin"
        for method, body in (
            ("PUT", {**me, "role": role}),
            ("PUT", {one: me[one] for one in me if one != "role"}),
            ("PATCH", {"role": role}),
            ("PATCH", {"full_name": "Ada", "role": role}),
            ("PATCH", {"full_name": "Ada"}),
        ):
            done = await callers.ada(method, path, body)
            assert (done.status_code, done.json()["role"]) == (200, role), (method, body)
        for method, body in (("PUT", {**me, "role": other}), ("PATCH", {"role": other})):
            refused = await callers.ada(method, path, body)
            assert refused.status_code == 403
            assert [one["field"] for one in refused.json()["errors"]] == ["role"]
        assert (await callers.admin.seen(path))["role"] == role
    # A row of another user is not there, whatever is sent.
    for role in ("admin", "user"):
        assert (await callers.ada("PATCH", f"/users/{BOB}", {"role": role})).status_code == 404


async def test_an_owner_can_not_give_a_row_away(callers: Callers) -> None:
    row = await callers.ada.made("/items", {"name": "Lamp", "owner_id": ADA})
    path = f"/items/{row['id']}"
    for owner in (BOB, None, MISSING):
        refused = await callers.ada("PATCH", path, {"owner_id": owner})
        assert refused.status_code == 403
        given = {"ids": [row["id"]], "set": {"owner_id": owner}}
        assert (await callers.ada("PATCH", "/items/bulk", given)).status_code == 403
    replaced = await callers.ada("PUT", path, {"name": "Lamp", "owner_id": None})
    assert (replaced.status_code, replaced.json()["owner_id"]) == (200, ADA)
    assert (await callers.ada("PATCH", path, {"owner_id": ADA})).status_code == 200
    moved = await callers.admin("PATCH", path, {"owner_id": BOB})
    assert moved.json()["owner_id"] == BOB
    assert (await callers.ada("PATCH", path, {"name": "x"})).status_code == 404
    assert (await callers.bob("PATCH", path, {"name": "x"})).status_code == 200
    assert (await callers.admin("PATCH", path, {"owner_id": None})).json()["owner_id"] is None


async def test_each_limited_statement_can_be_explained(callers: Callers) -> None:
    found = (one.name for one in catalogue.statements(RESOURCES))
    names = [name for name in found if name.partition("?")[0].endswith(OWN)]
    assert len(names) > 50
    for name in names:
        resource, statement = catalogue.find(RESOURCES, name)
        assert resource is not None
        assert resource.owner is not None
        assert resource.owner.bind in statement.names or "owners" in statement.names, name
        assert not statement.prepare, "a connection prepares it, also without authentication"
    for name in names[::8]:
        of, statement = catalogue.find(RESOURCES, name)
        explained = await explain_once(callers.url, Question(statement, of))
        assert "cost=" in explained.lines[0]


async def test_a_field_for_admins_is_kept_by_an_upsert_and_an_import(callers: Callers) -> None:
    note = await callers.ada.made("/notes", {"slug": "kept", "text": "one"})
    path = f"/notes/{note['id']}"
    await callers.admin("PATCH", path, {"pinned": True})
    given = {"slug": "kept", "text": "two"}
    done = (await callers.ada("PUT", "/notes/bulk", {"items": [given]})).json()
    assert done["updated"] == 1
    assert (await callers.ada("PUT", "/notes/bulk", {"items": [given]})).json()["unchanged"] == 1
    content = lines(given | {"text": "three"})
    assert (await imported(callers.ada, "/notes", content, "abort")).json()["updated"] == 1
    now = await callers.ada.seen(path)
    assert (now["pinned"], now["text"]) == (True, "three")


class Step(NamedTuple):
    """One request of the model: `place` says which row, `owner` is the one in the body."""

    user: int
    how: str
    place: int
    slug: str
    owner: int | None
    text: str = ""

    @property
    def admin(self) -> bool:
        return self.user == ADMIN

    @property
    def body(self) -> dict[str, Any]:
        return {"slug": self.slug, "text": self.text, "owner_id": self.owner}

    @property
    def sets_another(self) -> bool:
        """Whether it sets an owner that it may not set; null is the sender, except in PATCH."""
        allowed = {self.user} if self.how == "PATCH" else {self.user, None}
        return not self.admin and self.owner not in allowed


STEP = st.builds(
    Step,
    st.sampled_from((ADA, BOB, ADMIN)),
    st.sampled_from(
        ("POST", "PUT", "PATCH", "DELETE", "upsert", "import", "bulk change", "bulk delete")
    ),
    st.integers(0, 3),
    st.sampled_from(("a", "b", "c")),
    st.sampled_from((None, ADA, BOB)),
)


class Model:
    """The notes: a slug and an owner for each id."""

    def __init__(self, callers: Callers) -> None:
        self.who = {ADA: callers.ada, BOB: callers.bob, ADMIN: callers.admin}
        self.rows: dict[int, tuple[str | None, int | None]] = {}

    async def look(self) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = (await self.who[ADMIN].seen("/notes?per_page=100"))["items"]
        self.rows = {one["id"]: (one["slug"], one["owner_id"]) for one in seen}
        return seen

    def owns(self, step: Step, row_id: int) -> bool:
        return row_id in self.rows and (step.admin or self.rows[row_id][1] == step.user)

    def with_slug(self, step: Step) -> list[int]:
        return [one for one, (slug, _) in self.rows.items() if slug == step.slug]

    async def one_row(self, step: Step) -> None:
        row_id = [*self.rows, MISSING][step.place % (len(self.rows) + 1)]
        taken = self.with_slug(step) not in ([], [row_id])
        path = "/notes" if step.how == "POST" else f"/notes/{row_id}"
        body = None if step.how == "DELETE" else step.body
        if step.how == "PATCH":
            body = {"text": step.text, "owner_id": step.owner}
        answer = await self.who[step.user](step.how, path, body)
        if step.how == "DELETE":
            expected = 204 if self.owns(step, row_id) else 404
        elif step.sets_another:
            expected = 403
        elif step.how == "POST":
            expected = 409 if self.with_slug(step) else 201
        elif not self.owns(step, row_id):
            expected = 404
        else:
            expected = 409 if step.how == "PUT" and taken else 200
        assert answer.status_code == expected, answer.text

    async def by_ids(self, step: Step) -> None:
        ids = [*self.rows, MISSING]
        if step.how == "bulk delete":
            answer = await self.who[step.user]("POST", "/notes/bulk/delete", {"ids": ids})
        else:
            change = {"ids": ids, "set": {"text": step.text}}
            answer = await self.who[step.user]("PATCH", "/notes/bulk", change)
        assert answer.json()["missing"] == [one for one in ids if not self.owns(step, one)]

    async def by_key(self, step: Step) -> None:
        foreign = any(not self.owns(step, one) for one in self.with_slug(step))
        if step.how == "upsert":
            answer = await self.who[step.user]("PUT", "/notes/bulk", {"items": [step.body]})
            expected = 403 if step.sets_another else 409 if foreign else 200
            assert answer.status_code == expected, answer.text
        else:
            done = await imported(self.who[step.user], "/notes", lines(step.body), "skip")
            assert done.json()["failed"] == (step.sets_another or foreign)

    async def check(self, step: Step) -> None:
        """Rows have changed only by who may change them, and belong to whom they may."""
        before = self.rows
        seen = await self.look()
        becomes = step.user if step.owner is None and not step.admin else step.owner
        for row in seen:
            was = before.get(row["id"])
            if row["text"] == step.text or was != self.rows[row["id"]]:
                assert step.admin or was is None or was[1] == step.user
            if was != self.rows[row["id"]]:
                assert row["owner_id"] == becomes
        for gone in before.keys() - self.rows.keys():
            assert step.admin or before[gone][1] == step.user
        for user in (ADA, BOB):
            own = [one["id"] for one in seen if one["owner_id"] == user]
            page = await self.who[user].seen("/notes?per_page=100")
            assert ([one["id"] for one in page["items"]], page["total"]) == (own, len(own))


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, min_size=8, max_size=20))
async def test_two_users_and_an_admin_never_get_further_than_a_model_allows(
    callers: Callers, steps: list[Step]
) -> None:
    model = Model(callers)
    ids = [one["id"] for one in await model.look()]
    await callers.admin("POST", "/notes/bulk/delete", {"ids": ids})
    await model.look()
    for n, step in enumerate(steps):
        step = step._replace(text=f"step {n}")  # noqa: PLW2901 - its text is its number
        if step.how in {"upsert", "import"}:
            await model.by_key(step)
        elif step.how.startswith("bulk"):
            await model.by_ids(step)
        else:
            await model.one_row(step)
        await model.check(step)


def test_a_private_child_is_not_included_in_a_parent_that_others_read() -> None:
    shelves = Resource("shelves", NewNote)
    private = Resource(
        "books",
        NewNote,
        references={"owner_id": shelves},
        filters=("owner_id",),
        under=("owner_id",),
        owner="owner_id",
        private=True,
    )
    assert served(shelves, (shelves, private)) == shelves.operations
    assert served(users, (users, notes)) != users.operations
    admins = Resource("boxes", NewNote, admin_only=("read", "list"))
    child = Resource(
        "lids", NewNote, references={"owner_id": admins}, filters=("owner_id",), under=("owner_id",)
    )
    for one in served(admins, (admins, child))[:2]:
        assert one.needs == "admin", "the operation with `include` is not the one that is served"
    for only, needs in (((), ("read", "write")), (("list", "create"), ("admin", "admin"))):
        parts = Resource(
            "parts", NewNote, references={"owner_id": shelves}, filters=("owner_id",),
            under=("owner_id",), admin_only=only,
        )  # fmt: skip
        below = [one.needs for one in parts.operations if one.path == "/shelves/{id}/parts"]
        assert tuple(below) == needs, "rows under a parent are not for admins only"
        assert (served(shelves, (shelves, parts)) == shelves.operations) == bool(only)


def test_operations_of_admins_say_so() -> None:
    needs = {(one.method, one.path): one.needs for one in users.operations}
    assert needs["POST", "/users"] == needs["PUT", "/users/bulk"] == "admin"
    assert needs["PUT", "/users/{id}"] == "write"


@pytest.mark.parametrize(
    ("message", "options"),
    (
        ("need `owner`", {"private": True}),
        ("need `owner`", {"admin_fields": ("pinned",)}),
        ("must be `id`, or a field", {"owner": "text"}),
        ("must be `id`, or a field", {"owner": "colour"}),
        ("private lists need an index", {"owner": "place", "private": True}),
        ("must be a field with a default", {"owner": "place", "admin_fields": ("colour",)}),
        ("add 'create' to `admin_only`", {"owner": "id"}),
        ("'fly' is not an operation", {"admin_only": ("fly",)}),
    ),
)
def test_an_impossible_declaration_of_owners_is_rejected(
    message: str, options: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=message):
        Resource("drafts", NewNote, **options)


class NewPage(Struct, kw_only=True):
    """A page that only admins publish."""

    title: str
    owner_id: ID | None = None
    is_active: bool = True


published = Resource("published", NewPage, owner="owner_id", admin_fields=("is_active",))


@pytest.mark.anyio
@pytest.mark.parametrize("batching", (False, True))
async def test_owners_delete_softly_what_only_admins_activate(
    own_database_url: str, batching: bool
) -> None:
    connection = await asyncpg.connect(own_database_url)
    await connection.execute("DROP TABLE IF EXISTS published")
    await connection.execute(str(CreateTable(published.table).compile(dialect=DIALECT)))
    await connection.execute(
        "INSERT INTO published (title, owner_id) SELECT 'A', 1 FROM generate_series(1, 20)"
    )
    await connection.close()
    db = Database(own_database_url, batching=batching, statement_timeout=60)
    await db.open()
    try:
        write, to = published.writes.deactivate, WritableDatabase(db)
        done = await asyncio.gather(*(write.run(to, None, 1, id=n) for n in range(1, 21)))
        assert {row and (row.is_active, row.version) for row, _ in done} == {(False, 2)}
    finally:
        await db.close()
