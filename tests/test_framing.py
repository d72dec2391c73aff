"""Requests that are not HTTP/1.1, or are ambiguous, are rejected before anything is executed."""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import fuzz_http1
import httpx
import psutil  # type: ignore[import-untyped]  # it has none
import pytest
from conftest import SERVER, Service
from framing_vectors import VECTORS, Vector
from raw_http import LAST, answers, talk

ours = pytest.mark.skipif(SERVER != "uvicorn", reason="granian answers for itself: docs/http.md")


def cut(data: bytes, seed: str) -> list[bytes]:
    """The same bytes in up to five parts."""
    chance = random.Random(seed)
    places = sorted(chance.randrange(len(data)) for _ in range(4))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


@pytest.fixture(scope="module")
def plain(service: Service) -> Iterator[httpx.Client]:
    """A client that does not empty the tables."""
    with httpx.Client(base_url=service.url, headers={"cache-control": "no-cache"}) as one:
        assert one.post("/items", json={"name": "a"}).status_code == 201
        yield one


@pytest.fixture
def item(plain: httpx.Client) -> int:
    """The newest item, which a vector may delete; there is one before it."""
    made: int = plain.post("/items", json={"name": "a"}).json()["id"]
    return made


@ours
@pytest.mark.parametrize("whole", (True, False), ids=("in one write", "in several writes"))
@pytest.mark.parametrize("vector", VECTORS, ids=[vector.name for vector in VECTORS])
def test_vectors_get_their_documented_answers(
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
    assert newest <= item, "an item was created"
    for line in service.log.read_bytes()[logged:].splitlines():
        said = json.loads(line)
        if said["message"] != "Redis is used":  # after a pause, at any time
            # On a busy machine: "slow request".
            assert said["level"] == "WARNING", f"a bad request is no server error: {line!r}"


def test_no_vector_is_repeated() -> None:
    names = [vector.name for vector in VECTORS]
    assert len(names) == len(set(names))


def test_our_parser_accepts_nothing_that_h11_rejects() -> None:
    """CI runs it for a minute: `python tests/fuzz_http1.py`."""
    taken = known = 0
    for seed in range(500):
        mine, its = fuzz_http1.check(seed)
        taken, known = taken + mine, known + its
    assert 300 < taken < known, "most inputs are mutated, and our parser is stricter"


@ours
@pytest.mark.parametrize(
    ("path", "seconds"), (("/items", 3), ("/items/bulk", 3)), ids=("one", "many")
)
def test_a_write_is_answered_after_the_client_has_half_closed(
    service: Service, path: str, seconds: int
) -> None:
    body = b'{"name":"a"}' if path == "/items" else b'{"items":[{"name":"a"}]}'
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    (answer,) = answers(talk(service, head.encode() + body, end=True))
    assert answer.status == 201


@ours
@pytest.mark.parametrize("space", (" ", "\t", " \t  "), ids=("space", "tab", "both"))
def test_white_space_around_a_header_value_is_removed(service: Service, space: str) -> None:
    lines = (
        "POST /items HTTP/1.1",
        f"Host:{space}x{space}",
        f"X-Request-ID:{space}mine{space}",
        f"Content-Encoding:{space}identity{space}",
        f"Content-Type:{space}application/json{space}",
        f"Content-Length:{space}12{space}",
        f"Connection:{space}close{space}",
    )
    head = "\r\n".join([*lines, "", ""]).encode()
    (answer,) = answers(talk(service, head + b'{"name":"a"}'))
    assert (answer.status, answer.headers["x-request-id"]) == (201, "mine")


@ours
def test_an_item_in_many_small_chunks_is_accepted_or_rejected_soon(service: Service) -> None:
    """A chunk for each word of a document is accepted, for each byte of 0.9 MB not."""
    head = (
        b"POST /items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    process = psutil.Process(service.process.pid)
    for size, wanted in ((1, 400), (6, 201)):
        body = b'{"name":"a","description":"%b"}' % (b"x" * 900_000)
        parts = (body[at : at + size] for at in range(0, len(body), size))
        data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        before = sum(process.cpu_times()[:2])
        (answer,) = answers(talk(service, head + data + b"0\r\n\r\n"))
        spent = sum(process.cpu_times()[:2]) - before
        assert answer.status == wanted
        assert spent < 0.2 or wanted == 201, "CPU; 0.03 s, or 0.26 s for those of 6 bytes"


@ours
def test_the_public_suite_finds_no_error_if_it_is_installed(service: Service) -> None:
    """If it is not installed, the vectors have its cases; see docs/http.md."""
    program = os.environ.get("H1SPEC") or shutil.which("h1spec")
    if program is None:
        pytest.skip("h1spec is not here")
    command = [*shlex.split(program), "--strict", f"127.0.0.1:{service.port}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    failed = re.findall(r"\u2717\S* (?:\d+\. )?(.*)", printed)
    assert len(re.findall("\u2713", printed)) >= 32, printed
    assert set(failed) <= {"CONNECT authority-form accepted"}, printed
