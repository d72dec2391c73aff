"""`python -m bench.socketless`: requests without the sockets of clients, for bench/inprocess.py.

Bytes of requests go into 64 connections of our HTTP/1.1 protocol, and those of the responses come
out. Everything behind them is real: the application, its cache, PostgreSQL. Each line of stdin has
the kind of requests and how many to send on each connection, such as `read 20`. Each is answered by
a line with the microseconds of CPU per request of this process, kernel time included.
"""

import asyncio
import random
import sys
from collections.abc import Callable
from time import process_time
from typing import Any

import uvloop
from uvicorn.server import ServerState

from bench.stage import USERS
from bench.variant import change
from service.app_state import opened_state
from service.asgi import app
from service.http1.connection import Connection
from service.server.uvicorn import config

CONNECTIONS = 64
HOT = 1_000  # ids that are read again and again
END = " HTTP/1.1\r\nHost: bench\r\n\r\n"


def _get(path: str) -> bytes:
    return f"GET {path}{END}".encode()


def _send(method: str, path: str, body: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def _created() -> bytes:
    name = f"Brass Widget {random.randrange(1_000_000)}"
    return _send(
        "POST", "/items", f'{{"name": "{name}", "description": "A benchmark", "price": 2.5}}'
    )


REQUESTS: dict[str, Callable[[], bytes]] = {
    "read": lambda: _get(f"/items/{random.randrange(USERS * 10) + 1}"),
    "hot": lambda: _get(f"/items/{random.randrange(HOT) + 1}"),
    "list": lambda: _get("/items"),
    "create": _created,
    "patch": lambda: _send(
        "PATCH", f"/items/{random.randrange(USERS * 10) + 1}", f'{{"price": {random.random():.2f}}}'
    ),
}


class Client:
    """The transport of a connection: it sends the next request when a response was written."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.connection: Connection
        self.left: list[bytes] = []
        self.sent = False

    def write(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 2"):
            raise SystemExit(f"a request failed: {data!r}")
        # As from a socket: not before the connection has finished this one.
        self.load.loop.call_soon(self.go_on)

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def go_on(self) -> None:
        if self.left:
            self.connection.data_received(self.left.pop())
        else:
            self.load.finished()

    def get_extra_info(self, name: str) -> Any:
        return {"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 50_000)}.get(name)

    def is_closing(self) -> bool:
        return False


class Load:
    """64 clients that send the same number of requests."""

    def __init__(self, state: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.clients = [Client(self) for _ in range(CONNECTIONS)]
        self.busy = 0
        self.done: asyncio.Future[None]
        server, settings = ServerState(), config(app)
        settings.timeout_keep_alive = 86_400  # a turn of others may take longer than the usual
        for one in self.clients:
            one.connection = Connection(settings, server, state)
            transport: Any = one
            one.connection.connection_made(transport)

    def finished(self) -> None:
        self.busy -= 1
        if not self.busy:
            self.done.set_result(None)

    async def run(self, kind: str, turns: int) -> float:
        """Return the microseconds of CPU per request."""
        self.done, self.busy = self.loop.create_future(), CONNECTIONS
        for one in self.clients:
            one.left = [REQUESTS[kind]() for _ in range(turns)]
        began = process_time()
        for one in self.clients:
            one.go_on()
        await self.done
        return (process_time() - began) / (turns * CONNECTIONS) * 1e6


async def main() -> None:
    async with opened_state(app) as state:
        load = Load(state)
        while line := await asyncio.to_thread(sys.stdin.readline):
            kind, turns = line.split()
            print(await load.run(kind, int(turns)), flush=True)


if __name__ == "__main__":
    change()
    app.alone = True
    uvloop.run(main())
