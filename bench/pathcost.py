"""The trial `path`: CPU of requests between socket and database, which are both left out.

The protocol of our HTTP server gets the bytes of requests on 64 connections, and a Database in
which each statement takes one turn of the event loop. So it measures Python alone, also on a busy
machine: the least of many rounds. `AGAINST=/path/of/other/checkout` measures that too, in turn.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from time import process_time
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from bench.opponents.constant import app as constant
from service.asgi import app as built_in
from service.cache.off import NoCache
from service.cache.store import Cache
from service.cache.writer import Writer
from service.db.observer import Observer
from service.http1.connection import Connection
from service.metrics import Metrics
from service.metrics.slots import Store
from service.settings import Settings
from service.timing import Timing
from service.web.cursor import Cursors
from service.web.routing import Paths

CONNECTIONS, TURNS, REPEATS, ROUNDS = 64, 2_000, 5, 5
NOW = datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=UTC)
END = b" HTTP/1.1\r\nHost: bench\r\n\r\n"
CREATE = b'{"name": "Brass Widget 123", "description": "Made by the benchmark", "price": 29.99}'
PATCH = b'{"price": 12.34}'
TYPED = b" HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: "
# What is measured: whether the cache is on, and the request number n.
KINDS: dict[str, tuple[bool, Callable[[int], bytes]]] = {
    "constant answer": (False, lambda _: b"GET /items/1" + END),
    "hit": (True, lambda _: b"GET /items/1" + END),
    "read, cache on": (True, lambda n: b"GET /items/%d" % n + END),
    "read, cache off": (False, lambda n: b"GET /items/%d" % n + END),
    "create": (True, lambda _: b"POST /items" + TYPED + b"%d\r\n\r\n" % len(CREATE) + CREATE),
    "create, cache off": (
        False,
        lambda _: b"POST /items" + TYPED + b"%d\r\n\r\n" % len(CREATE) + CREATE,
    ),
    "patch": (
        True,
        lambda n: b"PATCH /items/%d" % n + TYPED + b"%d\r\n\r\n" % len(PATCH) + PATCH,
    ),
}


def row(number: int) -> tuple[object, ...]:
    return (number, None, "Brass", "A widget", Decimal("29.99"), True, 5, 1, NOW, None)


class Statements:
    """In the place of a Database."""

    batching, queue_limit, statement_timeout, name = True, 10_000, 10.0, "bench"

    def __init__(self, metrics: Metrics) -> None:
        self.observer = Observer(metrics)
        self.batchers: dict[object, Any] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.spent = Timing()
        self.made = 0

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def fetch(self, statement: Any, args: Any, *, writing: bool = False) -> list[Any]:
        del writing
        await asyncio.sleep(0)
        self.observer.ran(statement, self.spent, 0.0, 0.0, 1, args)
        if statement.name.endswith("by_id"):
            return [row(args[0])]
        if statement.name.endswith("by_id_many"):
            return [row(number) for number in args[0] if number is not None]
        first = args[statement.names.index("ids")] if "ids" in statement.names else args[0]
        if "ids" in statement.names:
            ids = first[1:-1].split(",") if isinstance(first, str) else first
            return [row(int(number)) for number in ids if number not in (None, "NULL")]
        length = first.count(",") + 1 if isinstance(first, str) else len(first or "1")
        self.made += length
        return [row(self.made - length + n) for n in range(length)]


class Transport:
    """In the place of a socket: each response is followed by the next request."""

    def __init__(self, written: Callable[[], object]) -> None:
        self.written = written
        self.last = b""

    def write(self, data: bytes) -> None:
        self.last = data
        self.written()

    def get_extra_info(self, name: str, default: object = None) -> object:
        del name
        return default

    def is_closing(self) -> bool:
        return False


async def measured(kind: str) -> list[float]:
    """Return the microseconds of CPU per request, by round."""
    cached, request = KINDS[kind]
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        metrics = Metrics(Store(Path(folder)))
        db: Any = Statements(metrics)
        cache: Cache | NoCache = NoCache()
        if cached:
            cache = Cache("postgresql:///x", None, limit=64 << 20, ttl=300, fingerprint="x")
            cache.coherence.valid_until = float("inf")
        state = {
            "db": db,
            "settings": Settings(),
            "cache": cache,
            "guard": None,
            "metrics": metrics,
            "tracer": None,
            "cursors": Cursors("x" * 32),
            "writer": Writer(db, cache),
            "running_keys": set(),
        }
        app: Any = constant if kind == "constant answer" else Paths(built_in.operations)
        config = uvicorn.Config(app, http=Connection, lifespan="off")
        config.load()
        config.loaded_app = app
        shared = ServerState()
        numbers = count(1)
        due = 0
        ended = loop.create_future()
        connections: list[tuple[Connection, Transport]] = []

        def ask(connection: Connection) -> None:
            nonlocal due
            if due > 0:
                due -= 1
                connection.data_received(request(next(numbers)))
            elif not ended.done():
                ended.set_result(None)

        def connect() -> None:
            connection = Connection(config, shared, state)
            transport: Any = Transport(lambda: loop.call_soon(ask, connection))
            connection.connection_made(transport)
            connections.append((connection, transport))

        for _ in range(CONNECTIONS):
            connect()
        found: list[float] = []
        for _ in range(REPEATS + 1):
            due, ended = TURNS, loop.create_future()
            start = process_time()
            for connection, _ in connections:
                loop.call_soon(ask, connection)
            await ended
            found.append((process_time() - start) / TURNS * 1e6)
            await asyncio.sleep(0.01)  # the last requests
        last = connections[0][1].last
        if last.split(b" ")[1] not in {b"200", b"201"}:
            raise RuntimeError(last.decode())
        for connection, _ in connections:
            connection.idle.cancel()
        return found[1:]


def rounds(tree: Path) -> dict[str, float]:
    """Return the least of each kind in a checkout, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def table() -> str:
    """Return a table in Markdown: the least of all rounds."""
    trees = {"this": Path(__file__).parent.parent}
    if against := os.environ.get("AGAINST"):
        trees = {"other": Path(against), **trees}
    least: dict[str, dict[str, float]] = {name: {} for name in trees}
    for _ in range(ROUNDS):
        for name, tree in trees.items():
            for kind, value in rounds(tree).items():
                least[name][kind] = min(value, least[name].get(kind, value))
    return "\n".join(_lines(least))


def _lines(least: dict[str, dict[str, float]]) -> Iterator[str]:
    yield (
        f"**What does a request cost between socket and database?** (`path`, us of CPU at"
        f" {CONNECTIONS} connections, the least of {ROUNDS * REPEATS} rounds)"
    )
    yield ""
    yield f"| | {' | '.join(least)} |"
    yield "|---" * (len(least) + 1) + "|"
    for kind in KINDS:
        yield f"| {kind} | {' | '.join(f'{found[kind]:.1f}' for found in least.values())} |"
    yield ""


if __name__ == "__main__":
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    print(json.dumps({kind: min(uvloop.run(measured(kind))) for kind in KINDS}))
