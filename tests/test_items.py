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


def test_a_new_item_is_returned_whole(client: httpx.Client) -> None:
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


def test_a_new_item_has_the_time_of_its_request(client: httpx.Client, sql: Query) -> None:
    created = client.post("/items", json={"name": "Lamp"}).json()["created_at"]
    now = sql("SELECT clock_timestamp()")[0][0]
    assert now - datetime.fromisoformat(created) < timedelta(seconds=5)


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


def test_each_version_is_written_by_one_of_many_guarded_writers(
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
