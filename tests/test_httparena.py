"""HttpArena's CRUD profile: the steps of its validation, and stale reads."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, SERVER, check_answer, free_port

from service.embedded.data_directory import Stores

if str(ROOT) not in sys.path:  # the package `bench` is in the checkout, not installed
    sys.path.insert(0, str(ROOT))
from bench.httparena.app import lifespan  # isort: skip
from bench.httparena.seed import seed  # isort: skip

ROWS = 2000
APP = "bench.httparena.app:app"
COMMANDS = {
    "granian": "granian --interface asgi --loop uvloop --log-level warning --port {} " + APP,
    "uvicorn": "uvicorn --loop uvloop --lifespan on --log-level warning --port {} " + APP,
}
# Ids that no other test uses.
fresh = itertools.count(100)


@contextmanager
def served(log: Path, **environ: str) -> Iterator[httpx.Client]:
    """Start a server process of the app, like its docstring says."""
    port = free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[SERVER].format(port).split()],
            cwd=ROOT,
            env={**kept, "REDIS_URL": "off", "PYTHONPATH": str(ROOT), **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [check_answer]}
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=10, event_hooks=hooks) as client:
            give_up = time.monotonic() + 20
            while True:
                assert process.poll() is None, log.read_text()
                try:
                    client.get("/crud/items/1")
                    break
                except httpx.TransportError:
                    assert time.monotonic() < give_up, log.read_text()
                    time.sleep(0.02)
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def redis_url(stores: Stores) -> str:
    assert stores.redis_url is not None
    return stores.redis_url


@pytest.fixture(scope="module")
def clients(
    new_database: Callable[[], str], redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, httpx.Client]]:
    """One server with a cache in its process, and two that share a Redis; all on one database."""
    url = new_database()
    asyncio.run(seed(url, ROWS))
    logs = tmp_path_factory.mktemp("httparena")
    with ExitStack() as stack:
        start = stack.enter_context
        yield {
            "in process": start(served(logs / "1", DATABASE_URL=url, DATABASE_MAX_CONN="2")),
            "Redis": start(
                served(logs / "2", DATABASE_URL=url, REDIS_URL=redis_url, WORKERS="100")
            ),
            "same Redis": start(served(logs / "3", DATABASE_URL=url, REDIS_URL=redis_url)),
        }


@pytest.fixture(params=["in process", "Redis"])
def client(request: pytest.FixtureRequest, clients: dict[str, httpx.Client]) -> httpx.Client:
    found: httpx.Client = clients[request.param]
    return found


@pytest.fixture
def path() -> str:
    return f"/crud/items/{next(fresh)}"


def cached(client: httpx.Client, path: str) -> str:
    return str(client.get(path).headers["x-cache"])


def put(client: httpx.Client, path: str, price: int) -> httpx.Response:
    return client.put(path, json={"name": "Changed", "price": price, "quantity": 3})


def test_a_list_has_items_with_a_nested_rating(client: httpx.Client) -> None:
    found = client.get("/crud/items?category=electronics&page=1&limit=5").json()
    assert found.keys() == {"items", "total", "page", "limit"}
    assert (found["total"], found["page"], found["limit"]) == (5, 1, 5)
    assert len(found["items"]) == 5
    for item in found["items"]:
        assert list(item) == [
            *("id", "name", "category", "price", "quantity", "active", "tags", "rating")
        ]
        assert item["rating"].keys() == {"score", "count"}
        assert item["category"] == "electronics"
        assert all(isinstance(tag, str) for tag in item["tags"])
    ids = [item["id"] for item in found["items"]]
    assert ids == sorted(ids)


def test_pages_follow_one_another_and_end(client: httpx.Client) -> None:
    def ids(page: int, limit: int) -> list[int]:
        found = client.get(f"/crud/items?category=sports&page={page}&limit={limit}").json()
        return [item["id"] for item in found["items"]]

    assert ids(1, 10) + ids(2, 10) == ids(1, 20)
    assert ids(ROWS, 50) == []


@pytest.mark.parametrize(
    "query",
    ("", "category=office&limit=51", "category=office&limit=0", "category=office&page=0"),
)
def test_a_list_has_at_most_50_items_and_requires_a_category(
    client: httpx.Client, query: str
) -> None:
    assert client.get(f"/crud/items?{query}").status_code == 422
    most = client.get("/crud/items?category=office&limit=50").json()
    assert most["total"] == len(most["items"]) == 50


def test_an_item_is_found_and_a_missing_one_is_not(client: httpx.Client) -> None:
    assert client.get("/crud/items/1").json()["id"] == 1
    assert client.get("/crud/items/999999").status_code == 404
    assert put(client, "/crud/items/999999", 1).status_code == 404


def test_a_second_read_is_answered_from_the_cache(client: httpx.Client) -> None:
    first, second = client.get("/crud/items/42"), client.get("/crud/items/42")
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.content == second.content
    assert first.headers["content-type"] == second.headers["content-type"] == "application/json"


def test_an_entry_expires_200_ms_after_its_creation_also_when_it_is_read_often(
    client: httpx.Client, path: str
) -> None:
    assert cached(client, path) == "MISS"
    started = time.monotonic()
    while cached(client, path) == "HIT":
        assert time.monotonic() - started < 30, "reading prolongs it"
        time.sleep(0.01)
    assert time.monotonic() - started > 0.15


def test_a_changed_item_is_read_again(client: httpx.Client, path: str) -> None:
    client.get(path)
    assert cached(client, path) == "HIT"
    answer = put(client, path, 777)
    assert answer.status_code == 200
    changed = {"id": int(path.rpartition("/")[2]), "name": "Changed", "price": 777, "quantity": 3}
    assert answer.json() == changed
    read = client.get(path)
    assert read.headers["x-cache"] == "MISS"
    assert read.json() | changed == read.json()


def test_a_change_through_one_process_is_a_miss_in_the_other(
    clients: dict[str, httpx.Client], path: str
) -> None:
    one, other = clients["Redis"], clients["same Redis"]
    assert cached(one, path) == "MISS"
    assert cached(other, path) == "HIT"
    put(one, path, 778)
    read = other.get(path)
    assert (read.headers["x-cache"], read.json()["price"]) == ("MISS", 778)
    assert cached(one, path) == "HIT"


def test_a_create_is_an_upsert(client: httpx.Client) -> None:
    new = {"id": 200_001, "name": "New", "category": "office", "price": 5, "quantity": 6}
    for price in (5, 9):
        answer = client.post("/crud/items", json=new | {"price": price})
        assert answer.status_code == 201
        whole = {"active": True, "tags": [], "rating": {"score": 0, "count": 0}}
        assert answer.json() == new | whole | {"price": price}
        read = client.get("/crud/items/200001")
        assert (read.headers["x-cache"], read.json()) == ("MISS", answer.json())
    again = client.post("/crud/items", json=new | {"id": 50}).json()
    assert (again["id"], again["name"], len(again["tags"])) == (50, "New", 2)


@pytest.mark.parametrize(
    ("body", "status"),
    (
        ("{", 400),
        ("[]", 422),
        ("{}", 422),
        ('{"name": "x", "price": "1", "quantity": 1}', 422),
        ('{"name": "x", "price": 2147483648, "quantity": 1}', 422),
        ('{"name": "x", "price": 1.5, "quantity": 1}', 422),
        ('{"name": "\\u0000", "price": 1, "quantity": 1}', 422),
        ('{"name": "x", "price": 1, "quantity": 1, "id": 9223372036854775808}', 422),
    ),
)
def test_bad_bodies_are_problems(client: httpx.Client, body: str, status: int) -> None:
    headers = {"content-type": "application/json"}
    assert client.post("/crud/items", content=body, headers=headers).status_code == status
    if "id" not in body:
        assert client.put("/crud/items/2", content=body, headers=headers).status_code == status
    assert client.put("/crud/items/2", content="x").status_code == 415


def test_impossible_ids_are_rejected(client: httpx.Client) -> None:
    assert client.get("/crud/items/9223372036854775808").status_code == 404
    assert client.get("/crud/items/x").status_code == 422
    assert client.delete("/crud/items/1").status_code == 405
    assert client.get("/crud").status_code == 404


def test_no_read_after_an_acknowledged_change_shows_the_old_row(
    client: httpx.Client, path: str
) -> None:
    """Readers read one row without a pause in the process that changes it."""
    readers = [client] * 4
    acknowledged, done, old = 0, False, []

    def read(of: httpx.Client) -> None:
        while not done:
            least = acknowledged
            price = of.get(path).json()["price"]
            if price < least:
                old.append((price, least))

    assert put(client, path, 0).status_code == 200
    threads = [threading.Thread(target=read, args=(of,)) for of in readers]
    for thread in threads:
        thread.start()
    try:
        for price in range(1, 151):
            assert put(client, path, price).status_code == 200
            acknowledged = price
    finally:
        done = True
        for thread in threads:
            thread.join()
    assert not old, f"read {old[0][0]} after {old[0][1]} was acknowledged"


@pytest.mark.parametrize(
    ("environ", "size"),
    (
        ({}, 4),
        ({"DATABASE_MAX_CONN": "3"}, 3),
        ({"DATABASE_MAX_CONN": "256", "WORKERS": "100"}, 2),
        ({"DATABASE_MAX_CONN": "1", "WORKERS": "2"}, 1),
        ({"DATABASE_MAX_CONN": "", "SERVICE_POOL": "8"}, 8),
        ({"SERVICE_POOL": "none"}, 4),
    ),
)
def test_the_pool_stays_within_its_limit(
    monkeypatch: pytest.MonkeyPatch, database_url: str, environ: dict[str, str], size: int
) -> None:
    for name in ("DATABASE_MAX_CONN", "WORKERS", "SERVICE_POOL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"DATABASE_URL": database_url, "REDIS_URL": "off", **environ}.items():
        monkeypatch.setenv(name, value)

    async def run() -> None:
        async with lifespan(None) as state:
            assert state["db"].pool.size == size

    asyncio.run(run())


def test_the_application_has_fewer_than_200_lines() -> None:
    """Without blank lines: the rest is the work of the library."""
    files = (ROOT / "bench" / "httparena").glob("*.py")
    lines = [line for one in files for line in one.read_text().splitlines() if line.strip()]
    assert 100 < len(lines) < 200
