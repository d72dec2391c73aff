"""Idempotency-Key: a POST that is sent again is done once, and gets its first answer again."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from conftest import Query

KEY = "Idempotency-Key"


def post(client: httpx.Client, path: str, key: str, **options: Any) -> httpx.Response:
    return client.post(path, headers={KEY: key, **options.pop("headers", {})}, **options)


def same(first: httpx.Response, again: httpx.Response) -> None:
    """Check that the second is the first answer, replayed."""
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("location", "etag", "content-type", "cache-control"):
        assert again.headers.get(name) == first.headers.get(name), name


def test_a_repeated_create_is_done_once_and_gets_the_first_answer(
    client: httpx.Client, sql: Query
) -> None:
    first = post(client, "/items", "a", json={"name": "Lamp", "sku": "L"})
    again = post(client, "/items", "a", json={"name": "Lamp", "sku": "L"})
    assert first.status_code == 201
    assert first.headers["location"] == f"/items/{first.json()['id']}"
    same(first, again)
    same(first, post(client, "/items", '"a"', json={"name": "Lamp", "sku": "L"}))
    assert len(sql("SELECT FROM items")) == 1
    other = post(client, "/items", "a", json={"name": "Torch"})
    assert other.status_code == 422
    assert "another request" in other.json()["detail"]
    assert len(sql("SELECT FROM items")) == 1


@pytest.mark.parametrize("writers", (50,))
def test_parallel_requests_with_one_key_create_one_row(
    client: httpx.Client, sql: Query, writers: int
) -> None:
    with ThreadPoolExecutor(writers) as pool:
        answers = list(
            pool.map(lambda _: post(client, "/items", "one", json={"name": "Lamp"}), range(writers))
        )
    done = [answer for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in done}) == 1
    for answer in answers:
        assert answer.status_code == 201 or answer.headers["retry-after"] == "1"
    assert len(sql("SELECT FROM items")) == 1


def test_an_import_is_done_once(client: httpx.Client, sql: Query) -> None:
    lines = b'{"name":"Lamp"}\n{"name":"Torch"}\n'
    kind = {"Content-Type": "application/x-ndjson"}
    first = post(client, "/items/import", "i", content=lines, headers=kind)
    assert first.json()["created"] == 2
    same(first, post(client, "/items/import", "i", content=lines, headers=kind))
    assert len(sql("SELECT FROM items")) == 2
    assert post(client, "/items/import", "i", content=lines * 2, headers=kind).status_code == 422
    packed = {**kind, "Content-Encoding": "gzip"}
    zipped = gzip.compress(lines)
    first = post(client, "/items/import", "z", content=zipped, headers=packed)
    same(first, post(client, "/items/import", "z", content=zipped, headers=packed))
    assert len(sql("SELECT FROM items")) == 4


def test_bulk_is_done_once(client: httpx.Client, sql: Query) -> None:
    rows = {"items": [{"name": "Lamp", "sku": "1"}, {"name": "Torch", "sku": "2"}]}
    first = post(client, "/items/bulk", "b", json=rows)
    assert first.status_code == 201
    same(first, post(client, "/items/bulk", "b", json=rows))
    assert post(client, "/items/bulk", "c", json=rows).status_code == 409
    ids = {"ids": [row["id"] for row in first.json()["items"]], "permanent": True}
    first = post(client, "/items/bulk/delete", "d", json=ids)
    same(first, post(client, "/items/bulk/delete", "d", json=ids))
    assert not sql("SELECT FROM items")
