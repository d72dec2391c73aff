"""Limits of hostile requests: no request blocks the event loop, costs far more than a normal one of
its size, or continues after its client has disconnected.

The tests count CPU time, not the clock, so a busy machine makes no difference; see measured.py.
"""

import asyncio
import gzip
import math
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
from conftest import EMPTY_TABLES, ROOT, free_port, query

from service.errors import Malformed
from service.items.structs import NewItem
from service.resource import transfer
from service.web import stream
from service.web.body import Body
from service.web.request import PIECES, Request
from service.web.stream import Chunks
from service.web.upload import Upload

# The goal is 10 ms on a quiet machine. When two processes share a core and its caches, the same
# work takes up to twice the CPU time. A bug of this kind takes 50 ms or more.
TURN_SECONDS = 0.025
# Allowed CPU, as a multiple of a normal request of the same size.
TIMES = 10
MB = 1_000_000
JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
CSV = {"content-type": "text/csv"}
GZIP = {"content-encoding": "gzip"}


class Spent(NamedTuple):
    """CPU seconds of the longest iteration of the event loop, and of the process."""

    longest: float
    cpu: float


class Measured:
    """A server that counts its CPU time."""

    def __init__(self, database_url: str, directory: Path) -> None:
        self.port = free_port()
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_")}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/measured.py"), str(self.port)],
            cwd=directory,
            env={
                **environ,
                "PYTHONPATH": str(ROOT),
                "DATABASE_URL": database_url,
                "REDIS_URL": "off",
                "SERVICE_LOG": "off",
            },
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.spent()
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the measured server does not start")

    def spent(self) -> Spent:
        """Return the CPU seconds since the last call."""
        told = self.client.get("/measured").json()
        return Spent(told["longest"], told["cpu"])

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[httpx.Response, Spent]:
        self.spent()
        response = self.client.request(method, path, headers=headers, content=body)
        return response, self.spent()

    def bounded(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        cpu: float = math.inf,
    ) -> httpx.Response:
        """Send a request and check its longest loop iteration and its CPU seconds.

        It is sent up to three times, because other processes can only add to the CPU time.
        """
        for _ in range(3):
            response, spent = self.send(method, path, headers, body)
            if spent.longest < TURN_SECONDS and spent.cpu < cpu:
                break
        assert spent.longest < TURN_SECONDS
        assert spent.cpu < cpu
        return response


@pytest.fixture(scope="module")
def measured(own_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    query(own_database_url, EMPTY_TABLES)
    one = Measured(own_database_url, tmp_path_factory.mktemp("measured"))
    try:
        yield one
    finally:
        one.client.close()
        one.process.terminate()
        one.process.wait(30)


@pytest.fixture(scope="module")
def honest(measured: Measured) -> Callable[[str], float]:
    """Return the CPU seconds of a normal request of a kind; the first one is not counted."""
    rows = b",".join(
        b'{"sku":"H%d","name":"Widget","description":"%b","price":29.99}' % (n, b"text " * 190)
        for n in range(1000)
    )
    small = [b'{"sku":"L%d","name":"Widget %d","price":2.5}\n' % (n, n) for n in range(20000)]
    records = [b"R%d,A widget with the number %d,2.5\n" % (n, n) for n in range(25000)]
    # As many bytes as the gzip of a million lines `{}`.
    plain = b'{"sku":"L%d","name":"Widget","description":"A useful widget","price":2.5}\n'
    packed = gzip.compress(b"".join(plain % n for n in range(1000)))
    requests = {
        "json": ("PUT", "/items/bulk", JSON, b'{"items":[%b]}' % rows),
        "lines": ("POST", "/items/import", NDJSON, b"".join(small)),
        "csv": ("POST", "/items/import", CSV, b"sku,name,price\n" + b"".join(records)),
        "gzip": ("POST", "/items/import", {**NDJSON, **GZIP}, packed),
    }
    known: dict[str, float] = {}

    def seconds(kind: str) -> float:
        if kind not in known:
            measured.send(*requests[kind])
            response, spent = measured.send(*requests[kind])
            assert response.status_code == 200, response.text[:500]
            known[kind] = spent.cpu
            measured.bounded(*requests[kind])
        return known[kind]

    return seconds


def array(before: bytes, one: bytes, behind: bytes = b"]}") -> bytes:
    """Return a body of one megabyte that repeats `one`."""
    return before + b",".join([one] * (MB // (len(one) + 1))) + behind


KEYS = b'{"name":1,' + b",".join(b'"%x":1' % n for n in range(MB // 9)) + b"}"
BODIES = {
    "a list that is ignored, beside a wrong name": array(b'{"name":1,"x":[', b"1"),
    "a list of fractions that is ignored": array(b'{"name":"a ","x":[', b"1.5"),
    "a list in the place of a price": array(b'{"name":"a","price":[', b"1.5"),
    "a list in the place of a text": array(b'{"name":[', b'"a"'),
    "a price again and again": array(b'{"name":"a",', b'"price":1.5', b"}"),
    "a name again and again": array(b'{"x":1,', b'"name":" "', b"}"),
    "a hundred thousand keys": KEYS,
    "lists within lists": b'{"name":"a","x":' + b"[" * (MB // 2) + b"]" * (MB // 2) + b"}",
    "white space around a text": b'{"name":"a","description":"a' + b" " * MB + b'"}',
    "white space around the body": b" " * MB + b'{"name":1}',
    "escapes": b'{"name":1,"description":"' + rb"\u0041" * (MB // 6) + b'"}',
    "lone surrogates": b'{"name":1,"description":"' + rb"\ud800" * (MB // 6) + b'"}',
    "digits of an integer": b'{"name":"a","owner_id":' + b"1" * MB + b"}",
    "digits of a price": b'{"name":"a","price":1.' + b"1" * MB + b"}",
    "a great exponent": b'{"name":"a","price":1e999999999,"owner_id":1e999999999}',
    "no UTF-8": b'{"name":"' + b"\xff" * MB + b'"}',
    "a list that is cut short": array(b'{"name":"a","x":[', b"1", b""),
}
MANY = {
    "empty rows": array(b'{"items":[', b"{}"),
    "numbers for rows": array(b'{"items":[', b"1"),
    "too many rows": array(b'{"items":[', b'{"name":"a","price":0.1}'),
    "a wrong price in each row": array(b'{"items":[', b'{"name":"%b","price":-1}' % (b"a" * 970)),
    "a space in each row": array(b'{"items":[', b'{"name":"a ","x":"%b"}' % (b"a" * 980)),
    "a surrogate in each row": array(b'{"items":[', rb'{"name":"\ud800","x":"%b"}' % (b"a" * 980)),
    "rows again and again": array(b"{", b'"items":[{"name":"a"}]', b"}"),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_is_parsed_in_short_steps(
    measured: Measured, honest: Callable[[str], float], body: bytes
) -> None:
    response = measured.bounded("POST", "/items", JSON, body, cpu=TIMES * honest("json"))
    assert response.status_code in (201, 400, 422)


@pytest.mark.parametrize("body", MANY.values(), ids=MANY)
def test_a_body_of_many_rows_is_parsed_in_short_steps(
    measured: Measured, honest: Callable[[str], float], body: bytes
) -> None:
    response = measured.bounded("POST", "/items/bulk", JSON, body, cpu=TIMES * honest("json"))
    assert response.status_code in (201, 400, 422)


def test_a_list_of_wrong_ids_is_parsed_in_short_steps(measured: Measured) -> None:
    ids = array(b'{"ids":[', b"123456789012345678901234567890")
    assert measured.bounded("POST", "/items/bulk/delete", JSON, ids).status_code == 422


def csv(body: bytes, header: bytes = b"sku,name\n") -> tuple[Mapping[str, str], bytes]:
    return CSV, header + body


COLUMNS = b"name," + b",".join(b"c%d" % n for n in range(99)) + b"\n"
FILES: dict[str, tuple[Mapping[str, str], bytes]] = {
    "wrong lines that are alike": (NDJSON, b"{}\n" * (MB // 3)),
    "wrong lines that differ": (NDJSON, b"".join(b"%d\n" % n for n in range(MB // 6))),
    "no JSON in each line": (NDJSON, b"".join(b"x%d\n" % n for n in range(MB // 6))),
    "blank lines": (NDJSON, b"\n" * MB),
    "one long line": (NDJSON, array(b'{"name":1,"x":[', b"1")),
    "wrong records that are alike": csv(b"x\n" * (MB // 2)),
    "wrong records that differ": csv(b"".join(b"%d,\n" % n for n in range(MB // 7))),
    "text behind a quote": csv(b'a,"b"c\n' * (MB // 7)),
    "quotes that open each other": csv(b'a","b\n' * (MB // 6)),
    "a quote that is never closed": csv(b'a,"b\n' + b"x\n" * (MB // 2)),
    "a text of many lines": csv(b'a,"' + b"x\n" * (MB // 2) + b'"\n'),
    "blank records": csv(b"\r" * MB),
    "a hundred columns": csv(
        (b"a" + b"," * 99 + b"\n") * (MB // 101),
        b"name," + b",".join([b"c%d" % n for n in range(99)]) + b"\n",
    ),
    "commas": csv(b"," * MB),
    "empty gzip members": ({**NDJSON, **GZIP}, gzip.compress(b"") * (MB // 20)),
}


@pytest.mark.parametrize(("headers", "body"), FILES.values(), ids=FILES)
def test_a_file_is_parsed_in_short_steps(
    measured: Measured, honest: Callable[[str], float], headers: Mapping[str, str], body: bytes
) -> None:
    cpu = TIMES * honest("csv" if headers is CSV else "lines")
    response = measured.bounded("POST", "/items/import?on_error=skip", headers, body, cpu=cpu)
    assert response.status_code in (200, 400, 422)


GOOD = b'{"name":"a"}\n'


@pytest.mark.parametrize("line", (b"{}\n", b"\n", GOOD), ids=("wrong", "blank", "good"))
def test_a_gzip_bomb_is_rejected(
    measured: Measured, honest: Callable[[str], float], line: bytes
) -> None:
    body = gzip.compress(line * (3 * MB // len(line)))
    cpu = math.inf if line == GOOD else TIMES * honest("gzip")  # no limit for valid lines
    packed = {**NDJSON, **GZIP}
    response = measured.bounded("POST", "/items/import?on_error=skip", packed, body, cpu=cpu)
    assert response.status_code == 413
    assert "200 times" in response.json()["detail"]


SIZE = 60_000
REQUESTS = {
    "If-None-Match: tags": ("/items/1", {"if-none-match": '"1",' * (SIZE // 4)}),
    "If-None-Match: a tag without end": ("/items/1", {"if-none-match": 'W/"' + "x" * SIZE}),
    "If-None-Match: commas": ("/items/1", {"if-none-match": "," * SIZE}),
    "If-None-Match: spaces": ("/items/1", {"if-none-match": '"a"' + " " * SIZE + "x"}),
    "Accept-Encoding": ("/items?per_page=100", {"accept-encoding": "gzip;q=0.1," * (SIZE // 11)}),
    "Cache-Control": ("/items/1", {"cache-control": "no-" * (SIZE // 3)}),
    "Content-Type": ("/items/1", {"content-type": "application/json" + ";" * SIZE}),
    "a query of escapes": ("/items?q=" + "%41" * (SIZE // 3), {}),
    "a query of ampersands": ("/items?" + "&" * SIZE, {}),
    "a query of parameters": ("/items?" + "a=1&" * (SIZE // 4), {}),
    "a page of digits": ("/items?page=" + "1" * SIZE, {}),
    "a price of digits": ("/items?min_price=" + "1" * SIZE, {}),
    "a cursor": ("/items?cursor=" + "A" * SIZE, {}),
    "a path of digits": ("/items/" + "1" * SIZE, {}),
    "a path of escapes": ("/items/" + "%41" * (SIZE // 3), {}),
    "a path of slashes": ("/a" + "/" * SIZE, {}),
    "many headers": ("/items/1", {f"a{n}": "b" for n in range(90)}),
}


@pytest.mark.parametrize(("path", "headers"), REQUESTS.values(), ids=REQUESTS)
def test_a_long_request_head_is_parsed_in_short_steps(
    measured: Measured, path: str, headers: Mapping[str, str]
) -> None:
    response = measured.bounded("GET", path, headers)
    assert response.status_code in (200, 304, 400, 404, 414, 422), response.text[:200]
    if "content-type" in headers or "if-none-match" in headers:
        write = {name.replace("none-", ""): value for name, value in headers.items()}
        response = measured.bounded("PATCH", "/items/1", {**JSON, **write}, b"{}")
        assert response.status_code in (200, 400, 404, 412, 415, 422)


def test_a_page_of_long_strings_is_sent_in_short_steps(
    measured: Measured, own_database_url: str
) -> None:
    query(
        own_database_url,
        "INSERT INTO items (name, description)"
        " SELECT 'long', repeat('text.', 200000) FROM generate_series(1, 20)",
    )
    for path in ("/items?q=long&per_page=100", "/items?q=long&per_page=100&cursor="):
        response = measured.bounded("GET", path, {"accept-encoding": "identity"})
        assert len(response.content) > 20 * MB
        assert {len(one["description"]) for one in response.json()["items"]} == {MB}
    for encoding in ("gzip", "zstd"):
        response = measured.bounded("GET", "/items/export", {"accept-encoding": encoding})
        assert response.status_code == 200
    query(own_database_url, "DELETE FROM items WHERE name = 'long'")


# Bodies in many pieces.


def pieces(size: int, count: int) -> tuple[Request, Callable[[], int]]:
    """Return a request whose body arrives in pieces, and a count of the pieces it received."""
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b" " * size, "more_body": asked < count}

    class Settings:
        body_limit = 10**6

    scope = {
        "type": "http",
        "headers": [(b"content-type", b"application/json")],
        "state": {"settings": Settings},
    }
    return Request(scope, receive), lambda: asked


def test_a_body_in_pieces_of_one_byte_is_rejected() -> None:
    request, asked = pieces(1, 900_000)
    with pytest.raises(Malformed, match="larger ones"):
        asyncio.run(request.body(Body(NewItem)))
    assert asked() < PIECES * 1.1

    request, asked = pieces(1, 900_000)

    async def upload() -> None:
        async with Upload(request, 10**9) as body:
            await body.run(read(body))

    with pytest.raises(Malformed, match="larger ones"):
        asyncio.run(upload())
    assert asked() < PIECES * 2.2, "discarded pieces are limited too"


async def read(body: Upload) -> int:
    return sum([len(part) async for part in body.parts()])


def test_a_body_in_pieces_of_one_line_is_accepted() -> None:
    request, asked = pieces(20, 40_000)
    with pytest.raises(Malformed, match="not JSON"):
        asyncio.run(request.body(Body(NewItem)))
    assert asked() == 40_000


# Clients that disconnect.


def test_an_import_ends_when_its_client_disconnects(
    measured: Measured, own_database_url: str
) -> None:
    """The body is read ahead, so the disconnect is noticed while earlier rows are processed."""
    chance = random.Random(1)
    rows = [b'{"sku":"G%d","name":"%x"}\n' % (n, chance.randrange(99)) for n in range(200_000)]
    body = gzip.compress(b"".join(rows), 6)
    assert len(body) < MB, "at most 1 MB is read ahead"
    measured.spent()
    with socket.create_connection(("127.0.0.1", measured.port)) as one:
        one.sendall(
            b"POST /items/import HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
            b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        time.sleep(0.3)
    spent = 0.0
    while (more := measured.spent().cpu) > 0.02:
        spent += more
        time.sleep(0.2)
    assert spent < 1, "the whole file takes twice as long"
    assert not query(own_database_url, "SELECT 1 FROM items WHERE sku LIKE 'G%' LIMIT 1")


def test_an_import_that_waits_for_a_lock_ends_when_its_client_disconnects(
    measured: Measured, own_database_url: str
) -> None:
    importing = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE query ~ 'stage' AND wait_event_type = 'Lock' AND datname = current_database()"
    )

    async def leave() -> None:
        holder, watcher = [await asyncpg.connect(own_database_url) for _ in range(2)]

        async def until(count: int) -> None:
            for _ in range(500):
                if await watcher.fetchval(importing) == count:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError(f"not {count}")

        try:
            await holder.execute("BEGIN; LOCK TABLE items IN EXCLUSIVE MODE")
            body = b'{"sku":"W1","name":"waits"}\n'
            _, writer = await asyncio.open_connection("127.0.0.1", measured.port)
            writer.write(
                b"POST /items/import HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            await until(1)
            writer.close()
            await writer.wait_closed()
            await until(0)  # far below the 60 s for which it would wait for the lock
        finally:
            await holder.close()
            await watcher.close()

    asyncio.run(leave())


def test_an_export_that_waits_for_rows_ends_when_its_client_disconnects() -> None:
    closed = False

    async def made() -> AsyncGenerator[bytes]:
        nonlocal closed
        try:
            yield b"first"
            await asyncio.sleep(60)
        finally:
            closed = True

    async def run() -> list[bytes]:
        sent: list[bytes] = []
        left = asyncio.Event()

        async def send(message: Any) -> None:
            sent.append(message["body"])
            left.set()

        async def gone() -> None:
            await left.wait()

        chunks = Chunks(made())
        await chunks.begin(gone())
        await chunks.send(send)
        return sent

    assert asyncio.run(run()) == [b"first"]
    assert closed


def test_an_export_ends_when_its_client_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds one of two connections of a worker, so a client may not keep it for long."""
    monkeypatch.setattr(stream, "SLOW_SECONDS", 0.05)
    closed = False

    async def made() -> AsyncGenerator[bytes]:
        nonlocal closed
        try:
            while True:
                yield b"x" * 10
        finally:
            closed = True

    async def run() -> list[bytes]:
        sent: list[bytes] = []

        async def send(message: Any) -> None:
            if len(sent) == 3:
                await asyncio.Event().wait()
            sent.append(message["body"])

        chunks = Chunks(made())
        await chunks.begin(asyncio.Event().wait())  # type: ignore[arg-type]  # it never returns
        await chunks.send(send)
        return sent

    assert len(asyncio.run(run())) == 3
    assert closed


def test_a_sent_commit_is_awaited_after_a_cancel() -> None:
    class Connection:
        committed = False

        async def execute(self, _: str) -> None:
            await asyncio.sleep(0.05)
            self.committed = True

    async def run() -> None:
        one: Any = Connection()
        committing = asyncio.create_task(transfer._commit(one))
        await asyncio.sleep(0.01)
        committing.cancel()
        await committing
        assert one.committed

    asyncio.run(run())
