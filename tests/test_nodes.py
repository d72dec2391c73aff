"""Several nodes on one database never show old rows, with a shared Redis or without."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import SERVER, Service

from service.asgi import MIGRATIONS
from service.embedded.data_directory import Stores
from service.migrations import migrate

NODES = {
    "no Redis": ("off", "off"),
    "one of them with a Redis": ("shared", "off"),
    "each with a Redis of its own": (None, None),
}


class Node:
    """A service process and its client."""

    def __init__(self, running: Service, client: httpx.Client) -> None:
        self.running = running
        self.client = client

    def lines(self) -> list[str]:
        text = self.running.log.read_text()
        return [json.loads(one)["message"] for one in text.splitlines() if one.startswith("{")]

    def shows(self, where: str) -> str:
        return str(self.client.get(where).json()["name"])

    def total(self) -> int:
        return int(self.client.get("/items").json()["total"])


@contextmanager
def node(url: str, redis_url: str | None, place: Path) -> Iterator[Node]:
    place.mkdir()
    settings = {"REDIS_URL": redis_url} if redis_url is not None else {}
    running = Service(
        place / "log",
        "--server",
        SERVER,
        "--data",
        str(place / "data"),
        DATABASE_URL=url,
        SERVICE_LOG="json",
        **settings,
    )
    try:
        running.wait_until_ready()
        with httpx.Client(base_url=running.url, timeout=10) as client:
            yield Node(running, client)
    finally:
        running.process.kill()
        running.process.wait()


def eventually(test: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not test():
        assert time.monotonic() - started < 60
        time.sleep(0.05)


def hits(one: Node, where: str) -> bool:
    return one.client.get(where).headers["x-cache"] == "HIT"


@pytest.mark.parametrize(
    "kind",
    (
        pytest.param("no Redis", marks=pytest.mark.slow),
        "one of them with a Redis",
        pytest.param("each with a Redis of its own", marks=pytest.mark.slow),
    ),
)
def test_no_node_shows_an_old_row_after_a_change_by_another(
    kind: str, new_database: Callable[[], str], stores: Stores, tmp_path: Path
) -> None:
    url = new_database()
    migrate.up(url, MIGRATIONS)
    redis = [stores.redis_url if one == "shared" else one for one in NODES[kind]]
    with ExitStack() as opened:
        first = opened.enter_context(node(url, redis[0], tmp_path / "1"))
        where = first.client.post("/items", json={"name": "Lamp"}).headers["location"]
        # A single node caches.
        eventually(lambda: hits(first, where))
        assert first.total() == 1

        second = opened.enter_context(node(url, redis[1], tmp_path / "2"))
        nodes = first, second
        for number, (writer, reader) in enumerate(itertools.product(nodes, nodes)):
            for n in range(4):
                assert reader.shows(where) == reader.shows(where)
                assert reader.total() == reader.total()
                name = f"Lamp {number} {n}"
                assert writer.client.patch(where, json={"name": name}).status_code == 200
                assert reader.shows(where) == name
                assert writer.client.post("/items", json={"name": "More"}).status_code == 201
                assert reader.total() == writer.total() == 2 + 4 * number + n

        # Each node logs once what to do; the state ends with the other node.
        told = "nothing is cached: another process writes to this database"
        for one in nodes:
            eventually(lambda one=one: any(line.startswith(told) for line in one.lines()))  # type: ignore[misc]  # the loop's own
        assert second.running.stop() == 0
        eventually(lambda: hits(first, where))
        assert sum(line.startswith(told) for line in first.lines()) == 1
        assert sum(line.startswith("responses are cached:") for line in first.lines()) == 1


def test_workers_that_share_a_redis_invalidate_each_other(
    new_database: Callable[[], str], stores: Stores, tmp_path: Path
) -> None:
    url = new_database()
    migrate.up(url, MIGRATIONS)
    with (
        node(url, stores.redis_url, tmp_path / "1") as first,
        node(url, stores.redis_url, tmp_path / "2") as second,
    ):
        where = first.client.post("/items", json={"name": "Lamp"}).headers["location"]
        for one in (first, second):
            eventually(lambda one=one: hits(one, where))  # type: ignore[misc]  # the loop's own
        time.sleep(1.2)  # two checks
        for one in (first, second):
            eventually(lambda one=one: hits(one, where))  # type: ignore[misc]  # the loop's own
            assert not [line for line in one.lines() if line.startswith("nothing is cached")]


def test_a_redis_that_does_not_answer_is_logged_once(database_url: str, tmp_path: Path) -> None:
    with node(database_url, "redis://127.0.0.1:1", tmp_path / "1") as one:
        eventually(lambda: "Redis is not used" in one.lines())
        assert one.client.get(f"/items/{2**62}").status_code == 404
        assert one.client.get("/health/ready").json()["status"] == "degraded"
        time.sleep(1)  # four more tries
        assert one.lines().count("Redis is not used") == 1
        assert "Redis is used" not in one.lines()
