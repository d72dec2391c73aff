"""Others beside heavy work: p99 of single reads at rest, and while other clients send much.

A process of its own reads single rows, one every 10 ms. In each round it reads at rest first, and
then beside each kind of heavy work, which further processes send without a pause. Their requests
are made beforehand, so they take little CPU.
"""

import itertools
import json
import multiprocessing
import os
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from bench import upsert
from bench.contestants import BY_NAME, DATABASE, OURS, ROOT
from bench.processes import cpu
from bench.stage import Server, StagingTable, fill, served, sql, stage

# Alone with its database, so that it caches.
SERVICE = BY_NAME[OURS]._replace(database=DATABASE)
# AGAINST=/path/of/another/checkout measures that one too, in turn.
TREES = [ROOT, *map(Path, filter(None, [os.environ.get("AGAINST")]))]
AT_REST = "at rest"
# The probe: single rows, one request at a time.
PAUSE = 0.01
# Requests that a client sends in turn, and rows of a file.
REQUESTS, LINES = 60, 20_000
Say = Callable[[str], None]
Rows = list[dict[str, Any]]


class Work(NamedTuple):
    """A kind of heavy work.

    Args:
        title: as the table shows it.
        requests: makes the requests of a client from its seed and the number of items.
        clients: that send them at the same time.
        rows: in each request or response; 0 for all items.
    """

    title: str
    requests: Callable[[str, int], list[bytes]]
    clients: int = 1
    rows: int = upsert.ROWS


class Beside(NamedTuple):
    """Figures of a round: p99 of the reads in ms, and of the work rows per second and CPU.

    `cpu` is that of the server per request of the work, in ms, with the reads beside it.
    """

    tree: str
    title: str
    p99: float
    rate: float = 0.0
    cpu: float = 0.0


class Probe:
    """Reads single rows in a separate process; `p99` is that of the time in `during`, in ms."""

    def __init__(self, server: Server, items: int) -> None:
        self.server = server
        self.items = items
        self.p99 = 0.0

    @contextmanager
    def during(self) -> Iterator["Probe"]:
        with _process(_read, self.server.port, self.items) as pipe:
            yield self
            pipe.send(None)
            took: list[float] = sorted(pipe.recv())
        self.p99 = took[int(len(took) * 0.99)] * 1000


@contextmanager
def _process(work: Callable[..., None], *given: object) -> Iterator[Connection]:
    """Run `work` in a process until the end of the block, from when it has sent a message."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=work, args=(*given, there))
    process.start()
    try:
        here.recv()
        yield here
    finally:
        here.close()
        process.join(60)
        process.kill()


def _read(port: int, items: int, to: Connection) -> None:
    """Read rows one after the other until a message arrives; then send the seconds of each."""
    chance = random.Random(1)
    took = []
    to.send(None)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        while not to.poll(PAUSE):
            path = f"/items/{chance.randint(1, items)}"
            began = perf_counter()
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            if not one.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{path} is not answered")
            took.append(perf_counter() - began)
    to.send(took)


def _send(port: int, requests: Sequence[bytes], to: Connection) -> None:
    """Send requests in turn, until a message is False; then send how many were answered.

    They are counted from the last message that was True.
    """
    done = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        to.send(None)
        for request in itertools.cycle(requests):
            if to.poll():
                if not to.recv():
                    break
                done = 0
            one.sendall(request)
            _answer(one, request)
            done += 1
    to.send(done)


def _answer(one: socket.socket, request: bytes) -> None:
    """Receive a response, and throw it away."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += one.recv(1 << 18) or _closed()
    head, _, body = data.partition(b"\r\n\r\n")
    head = head.lower()
    if not head.startswith((b"http/1.1 200", b"http/1.1 201")):
        raise RuntimeError(f"{request[:60]!r} is answered {data[:300]!r}")
    if b"content-length:" in head:
        left = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]) - len(body)
        while left > 0:
            left -= len(one.recv(1 << 18) or _closed())
        return
    end = body[-5:]
    while end != b"0\r\n\r\n":
        end = (end + (one.recv(1 << 18) or _closed()))[-5:]


def _closed() -> bytes:
    raise RuntimeError("the server has closed the connection")


def run(items: int, rounds: int, seconds: float, only: Sequence[str], say: Say) -> Iterator[Beside]:
    """Yield the figures of each round: at rest, and beside each kind of work."""
    chosen = [one for one in WORK if not only or any(word in one.title for word in only)]
    with tempfile.TemporaryDirectory(prefix="beside-") as name, stage(_open(name)) as on:
        say(f"{items:,} items")
        fill(on, items)
        give_skus(on, items)
        for number in range(rounds):
            for tree in TREES:
                with served(SERVICE._replace(directory=tree), on, 1) as server:
                    say(f"round {number + 1} of {rounds}, {tree.name}")
                    yield from measured(on, server, items, number, seconds, chosen)


def _open(name: str) -> Path:
    """Open a directory to PostgreSQL, which runs as another user under root."""
    directory = Path(name)
    directory.chmod(0o711)
    return directory


def give_skus(on: StagingTable, items: int) -> None:
    """Give existing rows the skus of the upserts."""
    sql(on, f"UPDATE items SET sku = 'U-' || id WHERE id <= {items}", "VACUUM (ANALYZE) items")


def measured(
    on: StagingTable,
    server: Server,
    items: int,
    number: int,
    seconds: float,
    chosen: Sequence[Work],
) -> Iterator[Beside]:
    """Yield the figures of a round: at rest, and beside each kind of work."""
    yield _one(server, items, None, seconds, str(number))
    for work in chosen:
        yield _one(server, items, work, seconds, str(number))
        sql(on, f"DELETE FROM items WHERE id > {items}", "VACUUM items", "CHECKPOINT")


def _one(server: Server, items: int, work: Work | None, seconds: float, seed: str) -> Beside:
    probe, tree = Probe(server, items), server.program.directory.name
    if work is None:
        with probe.during():
            time.sleep(seconds)
        return Beside(tree, AT_REST, probe.p99)
    requests = [work.requests(f"{seed} {client}", items) for client in range(work.clients)]
    with _several([(server.port, some) for some in requests]) as pipes:
        with probe.during():
            for pipe in pipes:
                pipe.send(True)
            used, began = cpu(server.pid), perf_counter()
            time.sleep(seconds)
        for pipe in pipes:
            pipe.send(False)
        done = sum(pipe.recv() for pipe in pipes)
        took, spent = perf_counter() - began, cpu(server.pid) - used
    rows = done * (work.rows or items)
    return Beside(tree, work.title, probe.p99, rows / took, spent / max(done, 1) * 1000)


@contextmanager
def _several(given: Sequence[tuple[int, list[bytes]]]) -> Iterator[list[Connection]]:
    if not given:
        yield []
        return
    with _process(_send, *given[0]) as pipe, _several(given[1:]) as others:
        yield [pipe, *others]


def shown(found: Sequence[Beside]) -> list[str]:
    """Return lines of a table: medians of the rounds; ratios to rest are taken within a round."""
    lines = [
        "| beside | p99 of reads, of that at rest | ms | rows/s | server CPU, ms per request |",
        "|---|---|---|---|---|",
    ]
    trees = list(dict.fromkeys(one.tree for one in found))
    for title in dict.fromkeys(one.title for one in found):
        for tree in trees:
            rest, some = (
                [one for one in found if (one.tree, one.title) == (tree, what)]
                for what in (AT_REST, title)
            )
            ratios = [one.p99 / at.p99 for one, at in zip(some, rest, strict=True)]
            rate = statistics.median(one.rate for one in some)
            spent = statistics.median(one.cpu for one in some)
            p99 = _middle([one.p99 for one in some])
            name = title if len(trees) == 1 else f"{title} ({tree})"
            lines.append(f"| {name} | {_middle(ratios)} | {p99} | {rate:,.0f} | {spent:.1f} |")
    return lines


def _middle(values: Sequence[float]) -> str:
    median = f"{statistics.median(values):.1f}"
    return f"{median} ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else median


def _request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nCache-Control: no-cache\r\n"
    if body:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _upserts(seed: str, items: int) -> list[bytes]:
    """Half of the rows exist."""
    return [next(upsert.together(upsert.rows(f"{seed} {n}", items))) for n in range(REQUESTS)]


def _new(name: str) -> Rows:
    chance = random.Random(name)
    return [
        {
            "name": f"Brass Widget {name}",
            "description": "New",
            "price": chance.randrange(10**6) / 100,
        }
        for _ in range(upsert.ROWS)
    ]


def _creates(seed: str, _: int) -> list[bytes]:
    return [
        _request("POST", "/items/bulk", _json({"items": _new(f"{seed} {n}")}))
        for n in range(REQUESTS)
    ]


def _changes(seed: str, items: int) -> list[bytes]:
    chance = random.Random(seed)
    ids = [chance.sample(range(1, items + 1), upsert.ROWS) for _ in range(REQUESTS)]
    return [
        _request("PATCH", "/items/bulk", _json({"ids": some, "set": {"price": n}}))
        for n, some in enumerate(ids)
    ]


def _imports(seed: str, items: int) -> list[bytes]:
    rows = [row for n in range(LINES // upsert.ROWS) for row in upsert.rows(f"{seed} {n}", items)]
    lines = [_json({k: v for k, v in row.items() if k != "id"}) + b"\n" for row in rows]
    unique = b"".join({line[: line.index(b",")]: line for line in lines}.values())
    return [_request("POST", "/items/import", unique, "application/x-ndjson")]


def _exports(_: str, __: int) -> list[bytes]:
    return [_request("GET", "/items/export")]


def _lists(path: str) -> Callable[[str, int], list[bytes]]:
    """Requests of pages."""
    return lambda _, __: [_request("GET", f"{path}&page={n + 1}") for n in range(10)]


WORK = (
    Work("PUT /items/bulk, 1,000 rows", _upserts),
    Work("PUT /items/bulk, 8 clients", _upserts, clients=8),
    Work("POST /items/bulk, 1,000 rows", _creates),
    Work("PATCH /items/bulk, 1,000 rows", _changes),
    Work("POST /items/import", _imports, rows=LINES),
    Work("GET /items/export", _exports, rows=0),
    Work(
        "GET /items?per_page=100&include=owner",
        _lists("/items?per_page=100&include=owner"),
        rows=100,
    ),
    Work("GET /items?per_page=100&q=lamp", _lists("/items?per_page=100&q=lamp"), rows=100),
    Work(
        "GET /users?per_page=100&include=items",
        _lists("/users?per_page=100&include=items"),
        rows=100,
    ),
)
