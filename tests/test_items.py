"""Items through HTTP: create, read, replace, change, delete, each in one statement."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from conftest import Query, statements_run

FIELDS = [
    "id",
    "sku",
    "name",
    "description",
    "price",
    "is_active",
    "owner_id",
    "version",
    "created_at",
    "updated_at",
]


@pytest.fixture
def lamp(client: httpx.Client) -> dict[str, Any]:
    new = {"name": "Lamp", "description": "Lights up", "price": 29.99, "sku": "L-1"}
    item: dict[str, Any] = client.post("/items", json=new).json()
    return item


def test_a_new_item_is_shown_whole(client: httpx.Client) -> None:
    response = client.post("/items", json={"name": "Lamp", "price": 29.99})
    assert response.status_code == 201
    assert response.headers["location"] == "/items/1"
    assert response.headers["etag"] == '"1"'
    assert response.headers["content-type"] == "application/json"
    assert statements_run(response) == 1
    item = response.json()
    assert list(item) == FIELDS
    created = item.pop("created_at")
    assert created.endswith("Z")
    assert datetime.fromisoformat(created).tzinfo is not None
    assert item == {
        "id": 1,
        "sku": None,
        "name": "Lamp",
        "description": None,
        "price": 29.99,
        "is_active": True,
        "owner_id": None,
        "version": 1,
        "updated_at": None,
    }


def test_a_new_item_bears_the_time_of_its_request(client: httpx.Client, sql: Query) -> None:
    created = client.post("/items", json={"name": "Lamp"}).json()["created_at"]
    now = sql("SELECT clock_timestamp()")[0][0]
    assert now - datetime.fromisoformat(created) < timedelta(seconds=5)


def test_what_was_created_can_be_read(client: httpx.Client, lamp: dict[str, Any]) -> None:
    response = client.get("/items/1")
    assert response.status_code == 200
    assert response.json() == lamp
    assert response.headers["etag"] == '"1"'
    assert statements_run(response) == 1


@pytest.mark.parametrize(
    ("sent", "shown"),
    (
        ("29.99", "29.99"),
        ("0", "0"),
        ("100", "100"),
        ("1e2", "100"),
        ("0.1000", "0.1"),
        ("9999999999.9999", "9999999999.9999"),
        ("1234567890.1234", "1234567890.1234"),
        ("0.0001", "0.0001"),
        ("5.0", "5"),
    ),
)
def test_a_price_is_exact_to_the_digit(client: httpx.Client, sent: str, shown: str) -> None:
    body = f'{{"name": "Lamp", "price": {sent}}}'
    headers = {"content-type": "application/json"}
    response = client.post("/items", content=body, headers=headers)
    assert response.status_code == 201
    for text in (response.text, client.get("/items/1").text, client.get("/items").text):
        found = re.search(r'"price":([^,]+),', text)
        assert found is not None
        assert found[1] == shown


def test_an_item_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    for response in (
        client.get("/items/1"),
        client.put("/items/1", json={"name": "Lamp"}),
        client.patch("/items/1", json={"name": "Lamp"}),
        client.patch("/items/1", json={}),
        client.delete("/items/1"),
        client.delete("/items/1?permanent=true"),
    ):
        assert response.status_code == 404
        assert statements_run(response) == 1


def test_put_replaces_and_what_is_missing_takes_its_default(
    client: httpx.Client, lamp: dict[str, Any]
) -> None:
    client.patch("/items/1", json={"is_active": False})
    response = client.put("/items/1", json={"name": "Torch"})
    assert response.status_code == 200
    assert statements_run(response) == 1
    item = response.json()
    assert (item["name"], item["description"], item["price"]) == ("Torch", None, None)
    assert (item["sku"], item["is_active"], item["version"]) == (None, True, 3)
    assert item["created_at"] == lamp["created_at"]
    assert item["updated_at"] > lamp["created_at"]
    assert client.get("/items/1").json() == item


@pytest.mark.parametrize(
    ("change", "field", "value"),
    (
        ({"name": "Torch"}, "name", "Torch"),
        ({"description": None}, "description", None),
        ({"price": None}, "price", None),
        ({"price": 5}, "price", 5),
        ({"is_active": False}, "is_active", False),
        ({"sku": None}, "sku", None),
    ),
)
def test_patch_changes_what_is_given_and_null_clears(
    client: httpx.Client, lamp: dict[str, Any], change: dict[str, Any], field: str, value: object
) -> None:
    response = client.patch("/items/1", json=change)
    assert response.status_code == 200
    assert statements_run(response) == 1
    item = response.json()
    assert item.pop("updated_at") is not None
    assert item == {
        **{name: lamp[name] for name in FIELDS if name != "updated_at"},
        field: value,
        "version": 2,
    }


def test_an_empty_patch_changes_nothing_and_keeps_the_version(
    client: httpx.Client, lamp: dict[str, Any]
) -> None:
    response = client.patch("/items/1", json={})
    assert response.status_code == 200
    assert response.json() == lamp
    assert statements_run(response) == 1


def test_a_soft_delete_shows_the_item_inactive_and_twice_is_once(
    client: httpx.Client, lamp: dict[str, Any]
) -> None:
    first = client.delete("/items/1")
    assert first.status_code == 200
    assert statements_run(first) == 1
    assert (first.json()["is_active"], first.json()["version"]) == (False, 2)
    second = client.delete("/items/1")
    assert second.json() == first.json()
    assert client.get("/items/1").json() == first.json()


def test_a_permanent_delete_leaves_nothing(client: httpx.Client, lamp: dict[str, Any]) -> None:
    response = client.delete("/items/1?permanent=true")
    assert (response.status_code, response.content) == (204, b"")
    assert statements_run(response) == 1
    assert client.get("/items/1").status_code == 404


def test_a_sku_is_taken_once(client: httpx.Client, lamp: dict[str, Any]) -> None:
    client.post("/items", json={"name": "Torch"})
    for response in (
        client.post("/items", json={"name": "Other", "sku": "L-1"}),
        client.put("/items/2", json={"name": "Other", "sku": "L-1"}),
        client.patch("/items/2", json={"sku": "L-1"}),
    ):
        assert response.status_code == 409
        assert response.json()["errors"] == [{"field": "sku", "message": "already taken"}]


def test_an_owner_must_be_there(client: httpx.Client, lamp: dict[str, Any]) -> None:
    for response in (
        client.post("/items", json={"name": "Other", "owner_id": 1}),
        client.patch("/items/1", json={"owner_id": 1}),
    ):
        assert response.status_code == 409
        assert response.json()["errors"] == [{"field": "owner_id", "message": "does not exist"}]


@pytest.mark.parametrize("tag", ('"1"', 'W/"1"', '"7", "1"', "*", '"x",W/"1"'))
def test_a_version_the_client_has_is_answered_304(
    client: httpx.Client, lamp: dict[str, Any], tag: str
) -> None:
    response = client.get("/items/1", headers={"if-none-match": tag})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == '"1"'
    assert response.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("tag", ('"2"', "1", "garbage", '"11"', ""))
def test_another_version_is_sent_whole(
    client: httpx.Client, lamp: dict[str, Any], tag: str
) -> None:
    assert client.get("/items/1", headers={"if-none-match": tag}).json() == lamp


def write(client: httpx.Client, how: str, tag: str) -> httpx.Response:
    headers = {"if-match": tag}
    match how:
        case "put":
            return client.put("/items/1", json={"name": "Torch"}, headers=headers)
        case "patch":
            return client.patch("/items/1", json={"name": "Torch"}, headers=headers)
        case "empty":
            return client.patch("/items/1", json={}, headers=headers)
        case "delete":
            return client.delete("/items/1", headers=headers)
    return client.delete("/items/1?permanent=true", headers=headers)


WRITES = ("put", "patch", "empty", "delete", "remove")


@pytest.mark.parametrize("how", WRITES)
@pytest.mark.parametrize("tag", ('"1"', "*", '"9", "1"'))
def test_a_matching_guard_lets_a_write_through(
    client: httpx.Client, lamp: dict[str, Any], how: str, tag: str
) -> None:
    response = write(client, how, tag)
    assert response.status_code in (200, 204)
    assert statements_run(response) == 1


@pytest.mark.parametrize("how", WRITES)
@pytest.mark.parametrize("tag", ('"2"', 'W/"1"', '"x"', '"01"'))
def test_a_guard_that_does_not_match_changes_nothing(
    client: httpx.Client, lamp: dict[str, Any], how: str, tag: str
) -> None:
    response = write(client, how, tag)
    assert response.status_code == 412
    assert statements_run(response) == 1
    assert client.get("/items/1").json() == lamp


@pytest.mark.parametrize("how", WRITES)
def test_a_guard_on_nothing(client: httpx.Client, how: str) -> None:
    assert write(client, how, '"1"').status_code == 404
    assert write(client, how, "*").status_code == 412
    assert write(client, how, "1").status_code == 400


def test_of_many_guarded_writers_each_step_has_one_winner(
    client: httpx.Client, lamp: dict[str, Any]
) -> None:
    """A lost update would leave fewer versions than winners."""

    def increment(_: int) -> int:
        won = 0
        for _ in range(10):
            read = client.get("/items/1")
            count = int(read.json()["price"] or 0)
            headers = {"if-match": read.headers["etag"]}
            answer = client.patch("/items/1", json={"price": count + 1}, headers=headers)
            won += answer.status_code == 200
        return won

    client.patch("/items/1", json={"price": 0})
    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(increment, range(8)))
    item = client.get("/items/1").json()
    assert item["price"] == won
    assert item["version"] == 2 + won
