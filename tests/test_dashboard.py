"""The dashboard of a user: its parts are those of the other operations, and never old."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest
from conftest import EMPTY_TABLES, Query, query, statements_run
from in_process import until, worker
from test_faults import eventually
from test_notifications import settle

FRESH = {"Cache-Control": "no-cache"}
PATH = "/users/1/dashboard"
TELL = "INSERT INTO notifications (user_id, kind, message) VALUES ($1, 'test', $2)"


def user(client: httpx.Client, name: str) -> int:
    made = client.post("/users", json={"email": f"{name}@example.com", "username": name})
    found: int = made.json()["id"]
    return found


def give(client: httpx.Client, owner: int | None, **fields: object) -> str:
    made = client.post("/items", json={"name": "Lamp", "owner_id": owner, **fields})
    location: str = made.headers["location"]
    return location


def shown(client: httpx.Client, path: str = PATH) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_dashboard_has_what_the_other_operations_show(client: httpx.Client, sql: Query) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    for n in range(12):
        give(client, ada, name=f"Lamp {n}", price=n + 0.25)
        give(client, bob, price=7)
    client.patch("/items/3", json={"price": 20000})
    client.delete("/items/1")
    for n in range(25):
        sql(TELL, ada, f"Told {n}")
        sql(TELL, bob, "Not for ada")
    client.post(f"/users/{ada}/notifications/49/read")
    answer = client.get(f"/users/{ada}/dashboard", headers=FRESH)
    assert statements_run(answer) == 1
    found = answer.json()
    assert [*found] == ["user", "stats", "recent", "notifications"]
    assert found["user"] == client.get(f"/users/{ada}").json()
    assert found["stats"] == {
        "items": 12,
        "active_items": 11,
        # Lamp 0 is not active, Lamp 1 has another price.
        "total_price": 20000 + sum(n + 0.25 for n in range(2, 12)),
        "unread_notifications": 24,
    }
    changed = ["Lamp 0", "Lamp 1", *(f"Lamp {n}" for n in range(11, 3, -1))]
    assert [one["name"] for one in found["recent"]] == changed
    for one in found["recent"]:
        assert one == client.get(f"/items/{one['id']}").json()
    unread = client.get(f"/users/{ada}/notifications?unread=true&sort=-id&per_page=20").json()
    assert found["notifications"] == unread["items"]
    assert len(unread["items"]) == 20
    assert client.get("/users/99/dashboard").status_code == 404


@pytest.mark.parametrize(
    ("prices", "total"),
    (
        ((), "0"),
        ((None,), "0"),
        ((0.1, 0.2), "0.3"),
        ((0.5, 0.5), "1"),
        ((10_000, 20_000), "30000"),
        ((9999999999.9999,) * 3, "29999999999.9997"),
    ),
)
def test_the_total_price_is_exact(
    client: httpx.Client, prices: tuple[float | None, ...], total: str
) -> None:
    ada = user(client, "ada")
    for price in prices:
        give(client, ada, price=price)
    body = client.get(f"/users/{ada}/dashboard").text
    assert f'"total_price":{total},' in body


WRITES: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "the user": lambda client: client.patch("/users/1", json={"full_name": "Ada"}),
    "a new item": lambda client: client.post("/users/1/items", json={"name": "Chair"}),
    "a changed item": lambda client: client.patch("/items/1", json={"price": 5}),
    "an inactive item": lambda client: client.delete("/items/1"),
    "an item that is gone": lambda client: client.delete("/items/1?permanent=true"),
    "an item given away": lambda client: client.patch("/items/1", json={"owner_id": 2}),
    "an item given to them": lambda client: client.patch("/items/2", json={"owner_id": 1}),
    "many items": lambda client: client.patch(
        "/items/bulk", json={"ids": [2], "set": {"owner_id": 1}}
    ),
    "a file": lambda client: client.post(
        "/items/import",
        content=b'{"name":"Torch","owner_id":1}\n',
        headers={"content-type": "application/x-ndjson"},
    ),
    "a read notification": lambda client: client.post("/users/1/notifications/1/read"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_change_of_each_part_is_seen_at_once(
    client: httpx.Client, sql: Query, write: Callable[[httpx.Client], httpx.Response]
) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    give(client, ada)
    give(client, bob)
    sql(TELL, ada, "Told")
    settle(client, PATH)
    before = client.get(PATH)
    assert write(client).is_success
    after = client.get(PATH)
    assert (after.headers["x-cache"], after.json() == before.json()) == ("MISS", False)
    assert after.json() == client.get(PATH, headers=FRESH).json()


def test_a_change_of_another_user_keeps_a_dashboard_in_the_cache(
    client: httpx.Client, sql: Query
) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    sql(TELL, bob, "Told")
    where = give(client, bob)
    settle(client, PATH)
    first = shown(client)
    client.patch(where, json={"price": 5})
    client.post(f"/users/{bob}/items", json={"name": "Chair"})
    client.post(f"/users/{bob}/notifications/1/read")
    again = client.get(f"/users/{ada}/dashboard")
    assert (again.headers["x-cache"], again.json()) == ("HIT", first)


def test_a_write_of_another_program_is_seen_soon(client: httpx.Client, sql: Query) -> None:
    """Its triggers report it; a job that runs in `swiftlet work` is such a program."""
    ada = user(client, "ada")
    assert shown(client)["stats"]["unread_notifications"] == 0
    sql(TELL, ada, "Told")
    eventually(lambda: shown(client)["stats"]["unread_notifications"] == 1, 2)
    sql("INSERT INTO items (name, owner_id) VALUES ('Lamp', $1)", ada)
    eventually(lambda: shown(client)["stats"]["items"] == 1, 2)


def test_a_dashboard_may_have_long_texts(client: httpx.Client) -> None:
    ada = user(client, "ada")
    text = '"created_at":"2026-01-01T00:00:00Z" größe ' * 10_000
    for _ in range(10):
        give(client, ada, description=text)
    assert [one["description"] for one in shown(client)["recent"]] == [text.strip()] * 10


# In the process of the test.


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url(own_database_url: str) -> str:
    """A database with 50 users, their items and notifications."""
    query(own_database_url, EMPTY_TABLES)
    for text in (
        "users (email, username) SELECT n || '@example.com', 'user' || n",
        "items (name, owner_id) SELECT 'Lamp', (n + 9) / 10",
        "notifications (user_id, kind, message) SELECT (n + 9) / 10, 'test', 'Told'",
    ):
        count = 50 if text.startswith("users") else 500
        query(own_database_url, f"INSERT INTO {text} FROM generate_series(1, {count}) n")
    return own_database_url


@pytest.mark.anyio
async def test_a_hundred_dashboards_at_once_need_one_connection(url: str) -> None:
    """None holds a connection while it waits for another one."""
    async with worker(url, SERVICE_POOL="1", SERVICE_JOBS="off") as (client, state):
        paths = [f"/users/{1 + n % 50}/dashboard" for n in range(100)]
        answers = await asyncio.gather(*map(client.get, paths))
        assert {one.status_code for one in answers} == {200}
        assert {one.json()["stats"]["items"] for one in answers} == {10}
        assert state["db"].pool.use == (1, 0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("table", ("users", "items", "notifications"))
async def test_a_part_that_takes_too_long_ends_the_whole(url: str, table: str) -> None:
    """With one problem, within the timeout of a statement, and the connection is free again."""
    options = {"SERVICE_POOL": "1", "SERVICE_STATEMENT_TIMEOUT_MS": "200", "SERVICE_JOBS": "off"}
    async with worker(url, **options) as (client, state):
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table}")
                answer = await client.get(PATH)
        finally:
            await connection.close()
        assert answer.status_code == 504
        assert answer.json()["status"] == 504
        await until(lambda: state["db"].pool.use == (1, 0, 0))
        assert (await client.get(PATH)).status_code == 200
