"""Bulk operations: all rows or none, in one statement, answered in the order given."""

import asyncio
import json
import os
import random
import re
import signal
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from conftest import Query, Service, check_answer, own_stores_in, query, statements_run
from starlette.routing import Route
from test_faults import eventually, processes, serving

from service.asgi import app
from service.embedded.data_directory import Stores
from service.resource.bulk_rows import folded
from service.web.routing import Paths

JSON = {"content-type": "application/json"}
BULK = "/items/bulk"
BIG = 2**63


def create(client: httpx.Client, items: list[dict[str, Any]]) -> httpx.Response:
    return client.post(BULK, json={"items": items})


def upsert(client: httpx.Client, items: list[dict[str, Any]]) -> httpx.Response:
    return client.put(BULK, json={"items": items})


def change(client: httpx.Client, ids: list[int], **fields: object) -> httpx.Response:
    return client.patch(BULK, json={"ids": ids, "set": fields})


def delete(client: httpx.Client, ids: list[int], *, permanent: bool = False) -> httpx.Response:
    return client.post(f"{BULK}/delete", json={"ids": ids, "permanent": permanent})


def users(client: httpx.Client, items: list[dict[str, Any]]) -> httpx.Response:
    return client.put("/users/bulk", json={"items": items})


def named(count: int, prefix: str = "S", **fields: object) -> list[dict[str, Any]]:
    return [{"sku": f"{prefix}-{n}", "name": f"Item {n}", **fields} for n in range(count)]


def blamed(response: httpx.Response) -> list[tuple[str, str]]:
    return [(one["field"], one["message"]) for one in response.json().get("errors", [])]


def versions(sql: Query) -> dict[str, int]:
    return dict(map(tuple, sql("SELECT sku, version FROM items")))


# POST /items/bulk


def test_new_items_are_returned_complete_and_in_the_order_given(client: httpx.Client) -> None:
    owner = client.post("/users", json={"email": "a@b.co", "username": "ada"}).json()["id"]
    given = [
        {"name": f"Item {n}", "sku": f"S-{n}" if n % 3 else None, "price": n / 100, "owner_id": o}
        for n, o in enumerate((None, owner) * 500)
    ]
    random.Random(1).shuffle(given)
    response = create(client, given)
    assert response.status_code == 201
    assert statements_run(response) == 1
    made = response.json()["items"]
    assert [{name: item[name] for name in given[0]} for item in made] == given
    assert [item["id"] for item in made] == list(range(1, 1001)), "as they were given"
    assert {(item["version"], item["updated_at"], item["is_active"]) for item in made} == {
        (1, None, True)
    }
    assert client.get(f"/items/{made[7]['id']}").json() == made[7]
    assert client.get("/items").json()["total"] == 1000


@pytest.mark.parametrize(
    ("how", "field", "value", "message"),
    (
        (create, "sku", "S-1", "already taken"),
        (create, "owner_id", 77, "does not exist"),
        (upsert, "owner_id", 77, "does not exist"),
    ),
)
def test_conflicting_rows_are_named_by_their_places(
    client: httpx.Client,
    sql: Query,
    how: Callable[..., httpx.Response],
    field: str,
    value: object,
    message: str,
) -> None:
    client.post("/items", json={"name": "Lamp", "sku": "S-1"})
    given = named(1000, "N")
    given[3][field] = value
    if field == "owner_id":
        given[998][field] = value
    response = how(client, given)
    assert response.status_code == 409
    places = [3, 998] if field == "owner_id" else [3]
    assert blamed(response) == [(f"items[{n}].{field}", message) for n in places]
    assert sql("SELECT count(*) FROM items")[0][0] == 1


# PUT /items/bulk


def test_an_upsert_creates_updates_and_leaves_equal_rows_alone(
    client: httpx.Client, sql: Query
) -> None:
    first = upsert(client, named(600, price=1.5))
    assert first.status_code == 200
    assert statements_run(first) == 1
    assert {k: v for k, v in first.json().items() if k != "items"} == {
        "created": 600,
        "updated": 0,
        "unchanged": 0,
    }
    ids = {item["sku"]: item["id"] for item in first.json()["items"]}
    given = named(1000, price=1.50)
    for item in given[:200]:
        item["price"] = 2.25
    random.Random(2).shuffle(given)
    response = upsert(client, given)
    assert statements_run(response) == 1
    answer = response.json()
    assert (answer["created"], answer["updated"], answer["unchanged"]) == (400, 200, 400)
    assert [item["sku"] for item in answer["items"]] == [item["sku"] for item in given]
    for item in answer["items"]:
        number = int(item["sku"][2:])
        expected = (
            ("updated", 2) if number < 200 else ("unchanged" if number < 600 else "created", 1)
        )
        assert (item["status"], item["version"]) == expected
        assert item["id"] == ids.get(item["sku"], item["id"])
    new = [item["id"] for item in answer["items"] if item["status"] == "created"]
    assert new == sorted(new)
    stored = {row["id"]: row for row in sql("SELECT * FROM items")}
    for item in answer["items"]:
        row = stored[item["id"]]
        assert (row["sku"], row["version"]) == (item["sku"], item["version"])
        assert (row["updated_at"] is None) == (item["version"] == 1)
    assert client.get("/items").json()["total"] == 1000


def test_only_new_rows_use_up_ids(client: httpx.Client) -> None:
    upsert(client, named(5))
    for _ in range(3):
        upsert(client, named(5))
    assert client.post("/items", json={"name": "Next"}).json()["id"] == 6


def test_prices_are_exact_to_the_digit(client: httpx.Client) -> None:
    prices = ("29.99", "0", "100", "0.0001", "9999999999.9999", "1234567890.1234")
    rows = ",".join(f'{{"sku":"{n}","name":"a","price":{p}}}' for n, p in enumerate(prices))
    body = f'{{"items":[{rows}]}}'
    assert client.put(BULK, content=body, headers=JSON).json()["created"] == len(prices)
    for text in (
        client.get("/items").text,
        client.post(BULK, content=body.replace('"sku"', '"x"'), headers=JSON).text,
    ):
        assert tuple(re.findall(r'"price":([^,]+),', text)) == prices
    written_otherwise = body.replace("29.99", "29.9900").replace(":100}", ":1e2}")
    again = client.put(BULK, content=written_otherwise, headers=JSON).json()
    assert again["unchanged"] == len(prices)


def test_the_same_sku_twice_is_refused_before_any_statement(client: httpx.Client) -> None:
    given = [*named(5), {"sku": " S-1 ", "name": "Again"}]
    for how in (create, upsert):
        response = how(client, given)
        assert (response.status_code, statements_run(response)) == (422, 0)
        assert blamed(response) == [
            ("items[1].sku", "the same as items[5].sku"),
            ("items[5].sku", "the same as items[1].sku"),
        ]
    # What has no sku is the same as nothing.
    assert create(client, [{"name": "a"}, {"name": "a"}]).status_code == 201


def test_a_row_created_by_a_concurrent_transaction_is_updated(
    client: httpx.Client, sql: Query, database_url: str
) -> None:
    """It conflicts without being in the statement's snapshot: nothing is half written."""
    for end, price, expected in (
        ("COMMIT", 1, ("unchanged", 1)),
        ("COMMIT", 2, ("updated", 2)),
        ("ROLLBACK", 1, ("created", 1)),
    ):
        sql("DELETE FROM items")
        made = "INSERT INTO items (sku, name, price) VALUES ('S-2', 'Item 2', 1)"
        with holding(database_url, made) as finish, ThreadPoolExecutor(1) as pool:
            running = pool.submit(upsert, client, named(5, price=price))
            eventually(lambda: waiting(sql) == 1, 5)
            finish(end)
            response = running.result()
        assert response.status_code == 200
        items = response.json()["items"]
        assert [item["sku"] for item in items] == [f"S-{n}" for n in range(5)]
        assert (items[2]["status"], items[2]["version"]) == expected
        assert {item["status"] for item in items[:2] + items[3:]} == {"created"}
        assert statements_run(response) == (1 if end == "ROLLBACK" else 2)


def test_a_user_created_by_a_concurrent_transaction_is_updated(
    client: httpx.Client, sql: Query, database_url: str
) -> None:
    given = [{"email": f"u{n}@b.co", "username": f"user{n}"} for n in range(5)]
    for text, status in (
        ("('U2@b.co', 'user2')", 200),  # both unique fields are in the way
        ("('u2@b.co', 'other')", 200),
        ("('other@b.co', 'USER2')", 409),
    ):
        sql("DELETE FROM users")
        made = f"INSERT INTO users (email, username) VALUES {text}"
        with holding(database_url, made) as finish, ThreadPoolExecutor(1) as pool:
            running = pool.submit(users, client, given)
            eventually(lambda: waiting(sql) == 1, 5)
            finish("COMMIT")
            response = running.result()
        assert response.status_code == status
        if status == 200:
            assert [item["status"] == "updated" for item in response.json()["items"]] == [
                number == 2 for number in range(5)
            ]
        else:
            assert blamed(response) == [("items[2].username", "already taken")]
            assert sql("SELECT count(*) FROM users")[0][0] == 1


@contextmanager
def holding(url: str, text: str) -> Iterator[Callable[[str], None]]:
    """A transaction that has run `text`; yields a function that ends it."""
    begun, word, ended = threading.Event(), [""], threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(url, server_settings={"application_name": "swiftlet"})
        await connection.execute("BEGIN")
        await connection.execute(text)
        begun.set()
        await asyncio.to_thread(ended.wait, 120)
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # killed with all
            await connection.execute(word[0] or "ROLLBACK")
            await connection.close()

    def finish(end: str) -> None:
        word[0] = end
        ended.set()

    holder = threading.Thread(target=lambda: asyncio.run(hold()))
    holder.start()
    try:
        assert begun.wait(60)
        yield finish
    finally:
        ended.set()
        holder.join()


def waiting(sql: Query) -> int:
    locked = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return int(sql(locked)[0][0])


# PATCH /items/bulk, POST /items/bulk/delete


def test_an_impossible_change_changes_no_row(client: httpx.Client, sql: Query) -> None:
    create(client, named(3))
    for field, value, message in (
        ("sku", "S-2", "already taken"),
        ("sku", "N", "already taken"),  # one for two
        ("owner_id", 7, "does not exist"),
    ):
        response = change(client, [1, 2], **{field: value})
        assert response.status_code == 409
        assert blamed(response) == [(f"set.{field}", message)]
    assert versions(sql) == {"S-0": 1, "S-1": 1, "S-2": 1}
    assert change(client, [1], sku="N").json()["updated"] == 1


# PUT /users/bulk


def test_users_are_upserted_by_email_without_regard_to_case(client: httpx.Client) -> None:
    given = [{"email": f"u{n}@example.com", "username": f"user{n}"} for n in range(500)]
    first = users(client, given)
    assert (first.status_code, statements_run(first)) == (200, 1)
    ids = {item["email"]: item["id"] for item in first.json()["items"]}
    more = [{"email": f"u{n}@example.com", "username": f"user{n}"} for n in range(501)]
    more[1]["email"] = "U1@Example.COM"
    more[2] |= {"username": "USER2", "role": "admin"}
    random.Random(3).shuffle(more)
    response = users(client, more)
    assert statements_run(response) == 1
    answer = response.json()
    assert (answer["created"], answer["updated"], answer["unchanged"]) == (1, 2, 498)
    assert [item["email"] for item in answer["items"]] == [item["email"] for item in more]
    for item in answer["items"]:
        assert list(item) == ["id", "email", "version", "status"]
        assert item["id"] == ids.get(item["email"].lower(), 501)
    changed = client.get(f"/users/{ids['u1@example.com']}").json()
    assert (changed["email"], changed["version"]) == ("U1@Example.COM", 2)
    assert client.get("/users").json()["total"] == 501


def test_a_conflicting_username_is_named_by_its_place(client: httpx.Client, sql: Query) -> None:
    users(client, [{"email": f"{n}@b.co", "username": f"user{n}"} for n in range(3)])
    fresh = {"email": "new@b.co", "username": "USER2"}
    response = users(client, [{"email": "0@b.co", "username": "user0", "role": "admin"}, fresh])
    assert response.status_code == 409
    assert blamed(response) == [("items[1].username", "already taken")]
    swapped = users(
        client,
        [{"email": "0@b.co", "username": "user1"}, {"email": "1@b.co", "username": "user0"}],
    )
    assert blamed(swapped) == [(f"items[{n}].username", "already taken") for n in (0, 1)]
    assert {row[0] for row in sql("SELECT version FROM users")} == {1}


def test_emails_that_are_equal_to_postgresql_are_equal_to_us(
    client: httpx.Client, sql: Query
) -> None:
    """Else two rows of a request would be answered as two, and be one row in the database."""
    # Those that this Python knows: PostgreSQL may know letters of a later Unicode.
    unknown = {"Cn", "Cs"}
    everything = map(chr, range(1, 0x110000))
    letters = [one for one in everything if unicodedata.category(one) not in unknown]
    assert all(folded(letter.lower()) == folded(letter) for letter in letters)
    lowered = sql("SELECT one, lower(one) FROM unnest($1::text[]) one", letters)
    assert [one for one, lower in lowered if folded(one) != folded(lower)] == []


# Of all of them


@pytest.mark.parametrize(
    ("request_line", "body"),
    (
        ("POST /items/bulk", {"items": []}),
        ("PUT /items/bulk", {"items": []}),
        ("PATCH /items/bulk", {"ids": [], "set": {"name": "a"}}),
        ("PATCH /items/bulk", {"ids": [0, BIG], "set": {}}),
        ("POST /items/bulk/delete", {"ids": []}),
        ("PUT /users/bulk", {"items": []}),
    ),
)
def test_an_empty_list_runs_no_statement(
    client: httpx.Client, request_line: str, body: object
) -> None:
    method, _, path = request_line.partition(" ")
    response = client.request(method, path, json=body)
    assert response.status_code == (201 if request_line == "POST /items/bulk" else 200)
    assert statements_run(response) == 0
    assert not any(value for name, value in response.json().items() if name != "missing")


def many(count: int) -> bytes:
    return json.dumps({"items": named(count)}).encode()


def third(rest: bytes, first: bytes = b'{"sku":"a","name":"a"}') -> bytes:
    return b'{"items":[%s,{"sku":"b","name":"b"},%s]}' % (first, rest)


BAD = (
    ("POST /items/bulk", b"{}", 422, "items"),
    ("POST /items/bulk", b'{"items":null}', 422, "items"),
    ("POST /items/bulk", b'{"items":{}}', 422, "items"),
    ("POST /items/bulk", b'{"items":[1]}', 422, "items[0]"),
    ("POST /items/bulk", b"[]", 422, None),
    ("POST /items/bulk", b'{"items":[', 400, None),
    ("POST /items/bulk", b'{"items":[{"name":"a","price":NaN}]}', 400, None),
    ("POST /items/bulk", many(1001), 422, "items"),
    ("PUT /items/bulk", many(1001), 422, "items"),
    ("POST /items/bulk", third(b"{}"), 422, "items[2].name"),
    ("POST /items/bulk", third(b'{"name":" "}'), 422, "items[2].name"),
    ("POST /items/bulk", third(b'{"name":"a","price":"1"}'), 422, "items[2].price"),
    ("POST /items/bulk", third(b'{"name":"a","price":1.00001}'), 422, "items[2].price"),
    ("POST /items/bulk", third(b'{"name":"a","price":-1}'), 422, "items[2].price"),
    ("POST /items/bulk", third(rb'{"name":"a\u0000"}'), 422, "items[2].name"),
    (
        "POST /items/bulk",
        third(rb'{"name":"a","description":"\ud800"}'),
        422,
        "items[2].description",
    ),
    ("POST /items/bulk", third(b'{"name":"a","owner_id":0}'), 422, "items[2].owner_id"),
    ("PUT /items/bulk", third(b'{"name":"a"}'), 422, "items[2].sku"),
    ("PUT /items/bulk", third(b'{"name":"a","sku":null}'), 422, "items[2].sku"),
    ("PUT /items/bulk", third(b'{"name":"a","sku":" "}'), 422, "items[2].sku"),
    ("PUT /items/bulk", third(b"null"), 422, "items[2]"),
    ("PATCH /items/bulk", b'{"ids":[1]}', 422, "set"),
    ("PATCH /items/bulk", b'{"set":{}}', 422, "ids"),
    ("PATCH /items/bulk", b'{"ids":[1],"set":null}', 422, "set"),
    ("PATCH /items/bulk", b'{"ids":[1],"set":{"name":null}}', 422, "set.name"),
    ("PATCH /items/bulk", b'{"ids":[1],"set":{"name":"  "}}', 422, "set.name"),
    ("PATCH /items/bulk", rb'{"ids":[1],"set":{"sku":"\u0000"}}', 422, "set.sku"),
    ("PATCH /items/bulk", b'{"ids":[1],"set":{"price":"1"}}', 422, "set.price"),
    ("PATCH /items/bulk", b'{"ids":[1,"2"],"set":{}}', 422, "ids[1]"),
    ("PATCH /items/bulk", b'{"ids":[1,2.5],"set":{}}', 422, "ids[1]"),
    ("PATCH /items/bulk", b'{"ids":[true],"set":{}}', 422, "ids[0]"),
    ("POST /items/bulk/delete", b'{"ids":[null]}', 422, "ids[0]"),
    ("POST /items/bulk/delete", b'{"ids":[1],"permanent":"yes"}', 422, "permanent"),
    ("POST /items/bulk/delete", b'{"ids":%s}' % str([*range(1001)]).encode(), 422, "ids"),
    ("PUT /users/bulk", b'{"items":[{"email":"x","username":"ada"}]}', 422, "items[0].email"),
    (
        "PUT /users/bulk",
        b'{"items":[{"email":"a@b.co","username":"ada","role":"boss"}]}',
        422,
        "items[0].role",
    ),
)


@pytest.mark.parametrize(
    ("request_line", "body", "status", "field"),
    BAD,
    ids=[f"{line} {body[:60]!r}" for line, body, *_ in BAD],
)
def test_one_bad_value_refuses_all_rows_and_is_named_by_its_place(
    client: httpx.Client, sql: Query, request_line: str, body: bytes, status: int, field: str | None
) -> None:
    method, _, path = request_line.partition(" ")
    response = client.request(method, path, content=body, headers=JSON)
    assert response.status_code == status, response.text
    assert [place for place, _ in blamed(response)] == ([] if field is None else [field])
    assert statements_run(response) == 0
    assert sql("SELECT count(*) FROM items")[0][0] == 0


def test_an_error_in_a_row_says_what_is_allowed(client: httpx.Client) -> None:
    given = [{"email": "a@b.co", "username": "ada", "role": "boss"}]
    ((_, message),) = blamed(users(client, given))
    assert message == "must be one of user, admin"


def test_strings_are_stripped_in_every_row(client: httpx.Client) -> None:
    upsert(client, [{"sku": "A", "name": "Lamp"}, {"sku": " B ", "name": " Torch\n"}])
    assert change(client, [1], description="  Bright ").json()["updated"] == 1
    items = client.get("/items").json()["items"]
    assert [(one["sku"], one["name"]) for one in items] == [("A", "Lamp"), ("B", "Torch")]
    assert items[0]["description"] == "Bright"


@pytest.mark.parametrize("field", ("price", "name"))
def test_one_bad_row_among_a_thousand_writes_nothing(
    client: httpx.Client, sql: Query, field: str
) -> None:
    upsert(client, named(10))
    before = sql("SELECT * FROM items ORDER BY id")
    given = named(1000, price=5)
    given[700][field] = -1
    assert upsert(client, given).status_code == 422
    assert create(client, given).status_code == 422
    given[700] = {"sku": "S-700", "name": "Nobody's", "owner_id": 5}
    assert upsert(client, given).status_code == 409
    assert sql("SELECT * FROM items ORDER BY id") == before
    assert client.get("/items").json()["total"] == 10


@pytest.mark.parametrize("path", ("/items/bulk", "/items/bulk/", "/users/bulk"))
def test_the_path_of_a_bulk_is_not_an_id(client: httpx.Client, path: str) -> None:
    allowed = {"PUT"} if path.startswith("/users") else {"POST", "PUT", "PATCH"}
    for method in ("GET", "DELETE"):
        response = client.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == allowed
    assert client.get("/items/bulk/delete").headers["allow"] == "POST"
    assert client.put(path, json={"items": []}).status_code == 200


def test_if_match_is_ignored_by_bulk_operations(client: httpx.Client) -> None:
    headers = {"if-match": '"7"'}
    assert client.put(BULK, json={"items": named(1)}, headers=headers).status_code == 200
    assert change(client, [1], price=1).json()["updated"] == 1


def test_no_read_after_a_bulk_shows_old_values(client: httpx.Client) -> None:
    ada = {"email": "a@b.co", "username": "ada"}
    owner = users(client, [ada]).json()["items"][0]["id"]
    create(client, named(3, owner_id=owner))
    lists = (
        *("/items", "/items?is_active=true", "/items?is_active=false", "/items?q=item"),
        *(f"/items?owner_id={owner}", f"/users/{owner}/items", "/items?include=owner&sort=-price"),
        *("/items/1", "/items/2", "/items/3", "/items/4", "/users?role=admin", f"/users/{owner}"),
    )

    def kept() -> dict[str, Any]:
        """As it comes from the cache, which is asked twice, and as the database has it."""
        shown = {path: [_plain(client.get(path)) for _ in range(2)] for path in lists}
        fresh = {
            path: _plain(client.get(path, headers={"cache-control": "no-cache"})) for path in lists
        }
        assert shown == {path: [one, one] for path, one in fresh.items()}
        return fresh

    states = [kept()]
    writes: tuple[Callable[[], httpx.Response], ...] = (
        lambda: change(client, [1, 2], price=7),
        lambda: upsert(client, [*named(2, price=9, owner_id=owner), {"sku": "N", "name": "New"}]),
        lambda: delete(client, [1, 3]),
        lambda: change(client, [3], is_active=True, owner_id=None),
        lambda: users(client, [{**ada, "role": "admin"}]),
        lambda: delete(client, [2, 4], permanent=True),
        lambda: create(client, [{"name": "Item", "owner_id": owner}]),
    )
    for written in writes:
        assert written().status_code in (200, 201)
        states.append(kept())
        assert states[-1] != states[-2]


def _plain(response: httpx.Response) -> object:
    found = response.json()
    found.pop("request_id", None)
    return found


def test_writers_of_the_same_rows_never_deadlock(
    client: httpx.Client, service: Service, stores: Stores, sql: Query
) -> None:
    """Eight clients upsert the same keys in different orders, others change and delete them."""
    log = stores.data / "postgres.log"
    before = log.read_text().count("deadlock detected")
    keys = 120
    statuses: set[int] = set()
    updates: dict[str, int] = {}
    counted = threading.Lock()

    def write(number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(
            base_url=service.url, timeout=30, event_hooks={"response": [check_answer]}
        ) as one:
            for turn in range(12):
                given = named(keys, price=number * 100 + turn)
                chance.shuffle(given)
                response = upsert(one, given[: chance.randrange(60, keys)])
                statuses.add(response.status_code)
                if response.status_code != 200:
                    continue
                with counted:
                    for item in response.json()["items"]:
                        changed = item["status"] == "updated"
                        updates[item["sku"]] = updates.get(item["sku"], 0) + changed

    def disturb(number: int) -> None:
        chance = random.Random(100 + number)
        with httpx.Client(base_url=service.url, timeout=30) as one:
            for _ in range(25):
                ids = chance.sample(range(1, keys * 3), keys)
                answers = (
                    change(one, ids, description=str(chance.random())),
                    one.patch(f"/items/{ids[0]}", json={"name": "Single"}),
                    delete(one, ids),
                    create(one, named(20, f"D{number}")),
                )
                statuses.update(answer.status_code for answer in answers)

    with ThreadPoolExecutor(12) as pool:
        for done in [
            *(pool.submit(write, n) for n in range(8)),
            *(pool.submit(disturb, n) for n in range(3)),
        ]:
            done.result()
    assert statuses <= {200, 201, 404, 409}
    assert log.read_text().count("deadlock detected") == before
    rows = sql("SELECT sku, version FROM items WHERE sku LIKE 'S-%'")
    assert len(rows) == keys
    # Whatever else has changed it: no change of an upsert is lost, and none is counted twice.
    assert all(row["version"] >= 1 + updates[row["sku"]] for row in rows)
    total = client.get("/items?cursor=&total=exact").json()["total"]
    assert total == sql("SELECT count(*) FROM items")[0][0]


def test_each_request_is_one_change_of_a_version(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    """Each upsert is atomic: in the end all rows are those of one request."""
    keys = 100
    updated = [0] * keys

    def write(number: int) -> list[dict[str, Any]]:
        chance = random.Random(number)
        items = []
        with httpx.Client(base_url=service.url, timeout=30) as one:
            for turn in range(10):
                given = named(keys, description=f"{number} {turn}")
                chance.shuffle(given)
                response = upsert(one, given)
                assert response.status_code == 200, response.text
                items += response.json()["items"]
        return items

    upsert(client, named(keys // 2))
    with ThreadPoolExecutor(8) as pool:
        for items in pool.map(write, range(8)):
            for item in items:
                updated[int(item["sku"][2:])] += item["status"] == "updated"
    rows = sql("SELECT sku, version, description FROM items")
    assert len(rows) == keys
    assert {row["sku"]: row["version"] for row in rows} == {
        f"S-{n}": 1 + count for n, count in enumerate(updated)
    }
    assert len({row["description"] for row in rows}) == 1


def test_concurrent_upserts_create_each_user_once(client: httpx.Client, service: Service) -> None:
    given = [{"email": f"u{n}@b.co", "username": f"user{n}"} for n in range(200)]

    def write(number: int) -> dict[str, Any]:
        mine = [*given]
        random.Random(number).shuffle(mine)
        with httpx.Client(base_url=service.url, timeout=30) as one:
            response = users(one, mine)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(8)))
    assert sum(one["created"] for one in answers) == 200
    assert sum(one["unchanged"] for one in answers) == 7 * 200
    assert client.get("/users").json()["total"] == 200


@pytest.fixture
def own_stores(tmp_path: Path) -> Iterator[Stores]:
    with own_stores_in(tmp_path / "data") as running:
        yield running


def test_a_connection_lost_during_a_bulk_means_an_unknown_outcome_and_no_half_of_it(
    own_stores: Stores, tmp_path: Path
) -> None:
    url = own_stores.database_url
    assert url is not None

    def ask(text: str) -> list[asyncpg.Record]:
        return query(url, text)

    with (
        serving(own_stores, tmp_path / "log") as running,
        httpx.Client(base_url=running.url, timeout=10) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        assert upsert(client, named(500)).json()["created"] == 500
        assert client.get("/items/1").json()["price"] is None
        victim = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with holding(url, "SELECT 1 FROM items WHERE sku = 'S-400' FOR UPDATE"):
            blocked = pool.submit(upsert, client, named(1000, price=3))
            eventually(lambda: len(ask(victim)) == 1, 5)
            (pid,) = ask(victim)[0]
            assert pid in processes(own_stores)
            os.kill(pid, signal.SIGKILL)
            response = blocked.result()
        check_answer(response)
        assert response.status_code == 503
        assert "outcome unknown" in response.json()["detail"]
        assert int(response.headers["retry-after"]) >= 1
        eventually(lambda: client.get("/items/1").status_code == 200, 10)
        deadline = time.monotonic() + 30
        shown = client.get("/items/1").json()
        while time.monotonic() < deadline and shown["price"] is not None:
            shown = client.get("/items/1").json()
        found = ask("SELECT count(*), count(price) FROM items")[0]
        assert tuple(found) in {(500, 0), (1000, 1000)}
        assert (shown["price"] is None) == (found[1] == 0)
        again = upsert(client, named(1000, price=3))
        assert again.status_code == 200
        assert client.get("/items/1").json()["price"] == 3


def test_constant_paths_come_first_where_the_router_goes_in_order() -> None:
    """With a prefix (root_path) the dictionary of paths is not used."""
    paths = [route.path for route in Paths(app.operations).routes if isinstance(route, Route)]
    assert paths.index("/items/bulk") < paths.index("/items/{id}")
    assert sorted(paths, key=lambda path: "{" in path) == paths


# Each element of an array is quoted: these would end an element, or be taken for something else.
AWKWARD = [
    '"',
    "\\",
    "NULL",
    "null",
    "{}",
    ",",
    '","',
    '\\"',
    "a b",
    "é\U0001f600",
    "a\nb",
    "'",
    "(1)",
]


def test_texts_that_mean_something_in_an_array_are_only_texts(client: httpx.Client) -> None:
    for given in (AWKWARD, *([one] for one in AWKWARD), ["a", "b"]):
        rows = [
            {"sku": f"{len(given)} {n} {text}"[:64], "name": text, "description": other}
            for n, (text, other) in enumerate(zip(given, [None, *given], strict=False))
        ]
        answer = upsert(client, rows)
        assert answer.status_code == 200, answer.text
        assert [one["sku"] for one in answer.json()["items"]] == [one["sku"] for one in rows]
        made = create(client, [one | {"sku": None} for one in rows]).json()["items"]
        assert [(one["name"], one["description"]) for one in made] == [
            (one["name"], one["description"]) for one in rows
        ]


def test_numbers_and_nulls_keep_their_values(client: httpx.Client) -> None:
    prices = [None, 0, 0.0001, 9999999999.9999, 20000, 1e4, 29.99]
    made = create(client, [{"name": "a", "price": price} for price in prices]).json()["items"]
    assert [one["price"] for one in made] == prices
