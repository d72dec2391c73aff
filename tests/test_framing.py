"""What is no HTTP/1.1, or could be read in two ways, is refused before anything is executed."""

import random
import socket
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from conftest import SERVER, Service
from framing_vectors import VECTORS, Vector

LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

ours = pytest.mark.skipif(SERVER != "uvicorn", reason="granian answers for itself: docs/http.md")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def talk(service: Service, *parts: bytes, end: bool = False) -> bytes:
    """Everything that is answered until the server closes; `end` closes our side behind `parts`."""
    received = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                connection.sendall(part)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except ConnectionError:  # it has closed before all was sent; what it said is still there
            pass
        while part := connection.recv(65536):
            received += part
    return received


def answers(data: bytes, *, head: bool = False) -> list[Answer]:
    """Take apart what was received; `head` where no answer has a body."""
    found = []
    while data:
        top, _, data = data.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
        length = 0 if head else int(headers.get("content-length", 0))
        found.append(Answer(int(first.split()[1]), headers, data[:length]))
        data = data[length:]
    return found


def cut(data: bytes, seed: str) -> list[bytes]:
    """The same bytes in up to five parts."""
    chance = random.Random(seed)
    places = sorted(chance.randrange(len(data)) for _ in range(4))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


@pytest.fixture(scope="module")
def plain(service: Service) -> Iterator[httpx.Client]:
    """A client that leaves the tables as they are."""
    with httpx.Client(base_url=service.url, headers={"cache-control": "no-cache"}) as one:
        assert one.post("/items", json={"name": "a"}).status_code == 201
        yield one


@pytest.fixture
def item(plain: httpx.Client) -> int:
    """The newest item, to be deleted, or not; there is one before it."""
    made: int = plain.post("/items", json={"name": "a"}).json()["id"]
    return made


@ours
@pytest.mark.parametrize("whole", (True, False), ids=("in one write", "in several writes"))
@pytest.mark.parametrize("vector", VECTORS, ids=[vector.name for vector in VECTORS])
def test_what_is_answered(
    service: Service, plain: httpx.Client, item: int, vector: Vector, whole: bool
) -> None:
    logged = service.log.stat().st_size
    data = vector.bytes(item) + LAST
    received = talk(service, *([data] if whole else cut(data, vector.name)))
    found = answers(received, head=vector.text.startswith("HEAD"))
    assert tuple(answer.status for answer in found) == vector.statuses
    for answer in found:
        assert answer.headers["date"]
        assert answer.headers["x-request-id"]
        assert (answer.headers.get("connection") == "close") == (answer is found[-1])
        if answer.status >= 400 and not vector.text.startswith("HEAD"):
            assert answer.headers["content-type"] == "application/problem+json"
            assert f'"status":{answer.status},'.encode() in answer.body
    newest = plain.get("/items?per_page=1&sort=-id&total=none").json()["items"][0]["id"]
    assert (newest < item) == vector.deletes, "executed, or not"
    assert newest <= item, "an item was made"
    assert service.log.stat().st_size == logged, "nothing that a client sends is worth a line"


def test_no_vector_is_there_twice() -> None:
    names = [vector.name for vector in VECTORS]
    assert len(names) == len(set(names))
