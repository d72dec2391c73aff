"""Notifications of users: what is told once, listed, and marked as read."""

import asyncio
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg
import httpx
import pytest
from accounts import account
from conftest import EMPTY_TABLES, Query, query, statements_run
from in_process import worker

from service.db.writable import WritableDatabase
from service.errors import Conflict
from service.notifications.notify import notify, told
from service.notifications.structs import Notification

# What a client of JSON may not lose: names of our own times, digits, and other scripts.
DATA = {
    "created_at": "2026-01-01T00:00:00Z",
    "read_at": None,
    "text": 'a "quoted" \\ größe 日本 \n',
    "list": [1, [True, {}], 1.50],
}
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def user(client: httpx.Client, name: str) -> int:
    made = client.post("/users", json={"email": f"{name}@example.com", "username": name})
    found: int = made.json()["id"]
    return found


def tell(sql: Query, user_id: int, count: int, data: Any = None) -> None:
    sql(
        "INSERT INTO notifications (user_id, kind, message, data)"
        " SELECT $1, 'test', 'Told ' || n, $3 FROM generate_series(1, $2::int) n",
        *(user_id, count, json.dumps(data or {})),
    )


def came(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-cache"])


def settle(client: httpx.Client, *paths: str) -> None:
    """Fill the cache, when the messages of the triggers about what `sql` wrote have come."""
    hits, deadline = 0, time.monotonic() + 60
    while hits < 5:
        hits = hits + 1 if all(came(client.get(path)) == "HIT" for path in paths) else 0
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_notifications_are_listed_by_page_and_by_cursor(client: httpx.Client, sql: Query) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    tell(sql, ada, 25, DATA)
    tell(sql, bob, 1)
    path = f"/users/{ada}/notifications"
    page = client.get(f"{path}?sort=-id&per_page=3").json()
    assert (page["total"], page["pages"]) == (25, 9)
    assert [one["message"] for one in page["items"]] == ["Told 25", "Told 24", "Told 23"]
    first = page["items"][0]
    assert first | {"id": 0, "created_at": ""} == {
        "id": 0,
        "user_id": ada,
        "kind": "test",
        "message": "Told 25",
        "data": DATA,
        "unread": True,
        "read_at": None,
        "created_at": "",
    }
    seen: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        found = client.get(f"{path}?sort=-created_at&cursor={cursor}&per_page=10").json()
        seen += found["items"]
        cursor = found["next_cursor"]
    assert sorted(one["id"] for one in seen) == [*range(first["id"] - 24, first["id"] + 1)]
    assert client.get(f"/users/{bob + 1}/notifications").status_code == 404
    assert client.get("/notifications").status_code == 404


def test_data_comes_back_as_it_was_stored(client: httpx.Client, sql: Query) -> None:
    """Digits too, of a number that is no float; the times beside it keep their six decimals."""
    ada = user(client, "ada")
    text = '{"n": 12345678901234567890.12345678901234567890, "created_at": "2026-01-01T00:00:00Z"}'
    sql(
        "INSERT INTO notifications (user_id, kind, message, data, created_at)"
        " VALUES ($1, 'test', 'Told', $2, '2026-01-01')",
        *(ada, text),
    )
    body = client.get(f"/users/{ada}/notifications").text
    assert '"n": 12345678901234567890.12345678901234567890' in body
    assert '"created_at": "2026-01-01T00:00:00Z"' in body
    assert '"created_at":"2026-01-01T00:00:00.000000Z"' in body


def test_a_notification_is_read_once(client: httpx.Client, sql: Query) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    tell(sql, ada, 3)
    path = f"/users/{ada}/notifications"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(f"{path}/2/read"), range(8)))
    assert {one.status_code for one in answers} == {204}
    assert {one.content for one in answers} == {b""}
    (read,) = client.get(f"{path}?unread=false").json()["items"]
    assert (read["id"], read["unread"]) == (2, False)
    assert read["read_at"] >= read["created_at"]
    assert client.post(f"{path}/2/read").status_code == 204
    again = client.get(f"{path}?unread=false", headers={"Cache-Control": "no-cache"})
    assert again.json()["items"] == [read]
    unread = client.get(f"{path}?unread=true&per_page=1").json()
    assert (unread["total"], unread["items"][0]["id"]) == (2, 1)
    for wrong in (f"/users/{bob}/notifications/1/read", f"{path}/99/read", f"{path}/{2**63}/read"):
        assert client.post(wrong).status_code == 404, wrong
    assert client.post(f"{path}/x/read").status_code == 422
    assert sql("SELECT count(*) FROM notifications WHERE unread")[0][0] == 2


def test_all_notifications_up_to_one_are_read_at_once(client: httpx.Client, sql: Query) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    tell(sql, ada, 1501)
    tell(sql, bob, 1)
    path = f"/users/{ada}/notifications"
    assert client.get(f"{path}?unread=true").json()["total"] == 1501
    client.post(f"{path}/1/read")
    found = [client.post(f"{path}/read", json={"up_to": 1500}) for _ in range(3)]
    assert [one.json() for one in found] == [{"read": 1000}, {"read": 499}, {"read": 0}]
    assert [statements_run(one) for one in found] == [1, 1, 2]
    (left,) = client.get(f"{path}?unread=true").json()["items"]
    assert left["id"] == 1501
    assert sql("SELECT count(*) FROM notifications WHERE unread")[0][0] == 2
    with ThreadPoolExecutor(8) as pool:
        tell(sql, ada, 900)
        body = {"up_to": 10_000}
        several = list(pool.map(lambda _: client.post(f"{path}/read", json=body), range(8)))
    assert sum(one.json()["read"] for one in several) == 901
    for wrong in ({}, {"up_to": None}, {"up_to": "1"}, {"up_to": 0}):
        assert client.post(f"{path}/read", json=wrong).status_code == 422, wrong
    assert client.post("/users/99/notifications/read", json=body).status_code == 404


def test_lists_are_cached_until_what_they_show_changes(client: httpx.Client, sql: Query) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    tell(sql, ada, 2)
    tell(sql, bob, 1)
    paths = [
        f"/users/{ada}/notifications{query}" for query in ("", "?unread=true", "?unread=false")
    ]
    other = f"/users/{bob}/notifications"
    settle(client, *paths, other)
    read = client.post(f"/users/{ada}/notifications/1/read")
    assert statements_run(read) == 1
    for path, total in zip(paths, (2, 1, 1), strict=True):
        found = client.get(path)
        assert (came(found), found.json()["total"]) == ("MISS", total), path
        assert came(client.get(path)) == "HIT"
    assert came(client.get(other)) == "HIT"
    client.post(f"/users/{ada}/notifications/1/read")  # it changes nothing
    assert came(client.get(paths[0])) == "HIT"


def test_notifications_go_with_their_user(client: httpx.Client, sql: Query) -> None:
    ada, bob = user(client, "ada"), user(client, "bob")
    tell(sql, ada, 2)
    tell(sql, bob, 1)
    path = f"/users/{ada}/notifications"
    assert client.get(path).json()["total"] == 2
    assert client.delete(f"/users/{ada}").status_code == 200
    assert client.get(path).json()["total"] == 2
    assert client.delete(f"/users/{ada}?permanent=true").status_code == 204
    assert client.get(path).status_code == 404
    assert [one["user_id"] for one in sql("SELECT user_id FROM notifications")] == [bob]


# In the process of the test.


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url(own_database_url: str) -> str:
    """A database with empty tables."""
    query(own_database_url, EMPTY_TABLES)
    return own_database_url


async def ask(url: str, text: str) -> list[asyncpg.Record]:
    """As the fixture `sql`, in a running event loop."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(text)
    finally:
        await connection.close()


async def make(state: Any, **fields: Any) -> Notification | None:
    given = {"user_id": None, "kind": "test", "message": "Told", **fields}
    made: Notification | None = await state["writer"].run(
        lambda db: notify(db, state["settings"], **given), told
    )
    return made


@pytest.mark.anyio
async def test_one_cause_tells_once(url: str) -> None:
    async with worker(url, SERVICE_JOBS="off") as (_, state):
        found = await asyncio.gather(*(make(state, source="order 1") for _ in range(8)))
        assert len([one for one in found if one is not None]) == 1
        assert [await make(state) is None for _ in range(2)] == [False, False]
        with pytest.raises(Conflict):
            await make(state, user_id=99)
    assert (await ask(url, "SELECT count(*) FROM notifications"))[0][0] == 3


@pytest.mark.anyio
async def test_a_notification_is_part_of_the_transaction_of_its_cause(url: str) -> None:
    async with worker(url, SERVICE_JOBS="off") as (_, state):

        async def write(db: WritableDatabase) -> Notification | None:
            async with db.transaction() as one:
                await notify(one, state["settings"], user_id=None, kind="test", message="Told")
                raise Conflict("the cause failed")

        with pytest.raises(Conflict):
            await state["writer"].run(write, told)
    assert (await ask(url, "SELECT count(*) FROM notifications"))[0][0] == 0


@pytest.mark.anyio
async def test_a_new_user_is_welcomed_once(url: str) -> None:
    """Also if the job runs a second time, and in a list that was cached before."""
    async with worker(url, SERVICE_JOBS="on", SERVICE_CACHE="local") as (client, _):
        made = await client.post("/users", json={"email": "ada@example.com", "username": "ada"})
        path = f"/users/{made.json()['id']}/notifications"
        welcome = await _first(client, path)
        assert (welcome["kind"], welcome["message"]) == ("welcome", "Welcome, ada")
        await _done(url)
        again = "UPDATE jobs SET state = 'queued', run_at = now(), finished_at = NULL"
        await ask(url, again)
        await ask(url, 'NOTIFY "swiftlet-jobs"')
        await _done(url)
        assert (await client.get(path)).json()["items"] == [welcome]


@pytest.mark.anyio
async def test_a_user_who_has_gone_needs_no_welcome(url: str) -> None:
    async with worker(url, SERVICE_JOBS="off") as (client, _):
        await client.post("/users", json={"email": "ada@example.com", "username": "ada"})
        await client.delete("/users/1?permanent=true")
    async with worker(url, SERVICE_JOBS="on"):
        await _done(url)
    assert (await ask(url, "SELECT count(*) FROM notifications"))[0][0] == 0


@pytest.mark.anyio
async def test_the_end_of_an_import_is_told_to_the_user_who_sent_the_file(
    url: str, tmp_path: Path
) -> None:
    ada = await asyncio.to_thread(account, url)
    await ask(url, "UPDATE jobs SET state = 'done', finished_at = now()")  # the welcome
    options = {"SERVICE_AUTH": "on", "SERVICE_JOBS": "on", "SERVICE_DATA": str(tmp_path)}
    path = f"/users/{ada.user_id}/notifications"
    async with worker(url, **options) as (client, _):
        found = []
        for lines in (b'{"name": "Lamp"}\n{"name": "Chair"}\n', b'{"name": ""}\n'):
            sent = await client.post(
                "/items/import?background=true",
                content=lines,
                headers={**ada.headers, "content-type": "application/x-ndjson"},
            )
            assert sent.status_code == 202
            found.append(await _first(client, f"{path}?unread=true&sort=-id", ada.headers))
            read = await client.post(f"{path}/{found[-1]['id']}/read", headers=ada.headers)
            assert read.status_code == 204
    done, failed = found
    assert done["message"] == "Import of items finished: 2 created, 0 updated, 0 unchanged"
    assert (done["kind"], done["data"]["state"], done["data"]["created"]) == ("import", "done", 2)
    assert failed["message"].startswith("Import of items failed: ")
    assert failed["data"]["error"] in failed["message"]
    assert "line" in failed["message"]


async def _first(
    client: httpx.AsyncClient, path: str, headers: Mapping[str, str] = NO_HEADERS
) -> Any:
    """Wait for the first notification of a list."""
    async with asyncio.timeout(30):
        while True:
            found = (await client.get(path, headers=headers)).json()["items"]
            if found:
                return found[0]
            await asyncio.sleep(0.01)


async def _done(url: str) -> None:
    """Wait until no job is left to run."""
    async with asyncio.timeout(30):
        left = "SELECT FROM jobs WHERE state <> 'done'"
        while await ask(url, left):  # noqa: ASYNC110 - in the database
            await asyncio.sleep(0.02)
