"""Trial: CPU of a cached read with and without metrics, API keys and rate limits.

In this process: bytes of a request go into our HTTP/1.1 protocol, and those of a hit come out.
Only the socket and the cache's look-up are left out, which are the same for all. The variants take
turns, so that the machine's other work affects all of them.
"""

import asyncio
import hashlib
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import uvicorn
import uvloop
from uvicorn.server import ServerState

from service.cache.local import Local
from service.cache.response import CachedResponse
from service.cache.writer import Writer
from service.db.database import Database
from service.http1.connection import Connection
from service.items import items
from service.limits.limiter import Limiter
from service.limits.policy import Policies
from service.metrics import Metrics, Store
from service.settings import Settings
from service.web.api_keys import KeyRecord, ParsedKey
from service.web.guard import Guard
from service.web.principal import Principal
from service.web.principal_cache import PrincipalCache
from service.web.routing import Paths

ROUNDS, TURNS = 200, 500
KEY = b"svc_live_abcdefgh_" + b"x" * 38
BODY = b'{"id":1,"name":"Brass Widget 123","description":"Made by the benchmark","price":29.99}'
HEAD = (
    b"GET /items/1 HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\naccept: */*\r\n"
    b"accept-encoding: gzip\r\n"
)
LIMIT = "10000000/60s"


class Variant(NamedTuple):
    """What is on: the metrics, a guard with keys, a limit."""

    name: str
    metrics: bool = False
    keys: bool = False
    limit: str = "off"


VARIANTS = (
    Variant("off"),
    Variant("metrics", metrics=True),
    Variant("keys", keys=True),
    Variant("keys and limit", keys=True, limit=LIMIT),
    Variant("all three", metrics=True, keys=True, limit=LIMIT),
)


class Transport:
    """Takes what the protocol writes."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written = data

    def get_extra_info(self, name: str) -> Any:
        return {"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 50_000)}.get(name)

    def is_closing(self) -> bool:
        return False


class Hit:
    """A cache in which everything is found."""

    on = True

    def __init__(self) -> None:
        self.local = Local(1)  # it counts the hits
        self.response = CachedResponse(BODY, ((b"etag", b'"1"'),), 1)

    def find(self, key: object, *, refreshes: bool = True) -> CachedResponse:
        del key, refreshes
        return self.response


class Keys:
    """One key, which needs no database."""

    record = KeyRecord(hashlib.sha256(KEY).digest(), Principal(1, 1, frozenset({"read"})))

    def parse(self, key: bytes) -> ParsedKey:
        return ParsedKey("abcdefgh", hashlib.sha256(key).digest())

    async def look_up(self, db: Database, public_id: str) -> KeyRecord:
        del db, public_id
        return self.record

    async def is_user_active(self, db: Database, user_id: int) -> bool:
        del db, user_id
        return True

    def used(self, db: Database, writer: Writer, principal: Principal) -> None:
        del db, writer, principal


class Spawner:
    """The part of a Database that finds a key."""

    def spawn(self, work: Any) -> None:
        self.task = asyncio.create_task(work)


async def reader(variant: Variant, store: Store) -> Callable[[], None]:
    """Return a function that handles some requests."""
    guard = None
    metrics = Metrics(store) if variant.metrics else None
    spawner: Any = Spawner()
    nothing: Any = None
    if variant.keys:
        principals = PrincipalCache(Keys(), spawner, nothing)
        await principals.authenticate(KEY, "bench")
        limiter = None if variant.limit == "off" else Limiter(Policies(variant.limit))
        guard = Guard(principals, limiter, metrics=metrics)
    state = {
        "settings": Settings(),
        "cache": Hit(),
        "guard": guard,
        "metrics": metrics,
        "tracer": None,
    }
    config = uvicorn.Config(Paths(items.operations), http=Connection, lifespan="off")
    config.load()
    config.loaded_app = Paths(items.operations)
    connection = Connection(config, ServerState(), state)
    transport: Any = Transport()
    connection.connection_made(transport)
    key = b"authorization: Bearer " + KEY + b"\r\n" if variant.keys else b""
    request = HEAD + key + b"\r\n"

    def some() -> None:
        for _ in range(TURNS):
            connection.data_received(request)

    some()
    assert BODY in transport.written, transport.written
    return some


async def _measured() -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        readers = {one.name: await reader(one, store) for one in VARIANTS}
        found: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(ROUNDS):
            for name, some in readers.items():
                await asyncio.sleep(0.001)  # time for a look-up in the background
                began = process_time()
                some()
                found[name].append((process_time() - began) / TURNS * 1e6)
    return found


def measured() -> dict[str, list[float]]:
    """Return the microseconds of CPU per cached read, by variant and round."""
    return uvloop.run(_measured())


def table() -> str:
    """Return a table in Markdown: CPU per request, and the difference to the first in a round."""
    return table_of(
        f"**What does it cost to count and check a cached read?** (`guard`, median of {ROUNDS}"
        " rounds)",
        measured(),
    )


def table_of(title: str, found: dict[str, list[float]]) -> str:
    """Return a table in Markdown of variants, each with the microseconds of its rounds."""
    name_of_first, first = next(iter(found.items()))
    lines = [
        title,
        "",
        f"| | CPU us | more than {name_of_first}, us (quartiles) |",
        "|---|---|---|",
    ]
    for name, used in found.items():
        more = [one - other for one, other in zip(used, first, strict=True)]
        least, middle, most = statistics.quantiles(more, n=4)
        lines.append(
            f"| {name} | {statistics.median(used):.2f} | {middle:.2f} ({least:.2f}-{most:.2f}) |"
        )
    return "\n".join([*lines, ""])
