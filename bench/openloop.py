"""`python -m bench.openloop HOST_PORT`: offer requests at a fixed rate, and print what came of it.

Request n is due at n / rate, whether or not earlier ones are answered, and takes the connection
that has been free for longest. Its latency counts from when it was due, so a wait for a free
connection is part of it (no coordinated omission). The load comes from this process alone, and so
its CPU and how late it was itself are known. wrk can do neither: it waits in whole milliseconds,
and asks again only when a connection is answered.

A timer of the kernel (timerfd) gives the schedule, since those of event loops count milliseconds.
"""

import asyncio
import ctypes
import os
import random
import re
import resource
import sys
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

# Seconds after the schedule in which requests under way may still be answered.
GRACE = 0.25
# Part of the schedule that may still wait for a free connection at its end: a pause of 20 ms in a
# second. A contestant with more does not reach the rate.
WAITING = 0.02
# Ticks a second at most: at more requests/s several are due at once.
TICKS = 10_000
LIBC = ctypes.CDLL(None, use_errno=True)
AVAILABLE = hasattr(LIBC, "timerfd_create")  # Linux

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED_END = b"0\r\n\r\n"


class Load(Struct, frozen=True):
    """What to offer; `items` rows stand throughout, with ids from 1."""

    port: int
    workload: str
    rate: int
    seconds: int
    items: int
    collection: str = "/items"
    connections: int = 64
    seed: int = 0


class Offered(Struct, frozen=True):
    """What came of it: latencies in ms from when a request was due; CPU in seconds.

    `unanswered` are counted in the latencies with what they had waited until the end. `waiting`
    were due and not yet sent when the schedule ended. `late` is the 99th percentile in ms of how
    late this process was itself.
    """

    requests: int
    errors: int
    unanswered: int
    waiting: int
    seconds: float
    p50: float
    p95: float
    p99: float
    p999: float
    late: float
    cpu: float

    @property
    def reached(self) -> bool:
        return self.waiting <= WAITING * (self.requests + self.unanswered)


class Requests:
    """The requests of a workload, as load.lua makes them."""

    def __init__(self, load: Load) -> None:
        self.chance = random.Random(load.seed)
        self.items = load.items
        self.collection = load.collection
        made = {"read": self.read, "create": self.create, "patch": self.patch, "mixed": self.mixed}
        self.next: Callable[[], bytes] = made[load.workload]

    def read(self) -> bytes:
        return b"GET /items/%d HTTP/1.1\r\nHost: bench\r\n\r\n" % self._id()

    def create(self) -> bytes:
        number, price = self._below(1_000_000), self._below(100_000) / 100
        body = (
            f'{{"name": "Brass Widget {number}", "description": "Made by the benchmark",'
            f' "price": {price:.2f}}}'
        )
        return self._with("POST", self.collection, body)

    def patch(self) -> bytes:
        change = (
            f'{{"price": {self._below(100_000) / 100:.2f}}}'
            if self._below(2)
            else f'{{"description": "Changed to {self._below(1_000_000)}"}}'
        )
        return self._with("PATCH", f"/items/{self._id()}", change)

    def mixed(self) -> bytes:
        die = self._below(100)
        if die < 80:
            return self.read()
        return self.patch() if die < 95 else self.create()

    def _below(self, most: int) -> int:
        return int(self.chance.random() * most)  # half the CPU of randrange

    def _id(self) -> int:
        return self._below(self.items) + 1

    def _with(self, method: str, path: str, body: str) -> bytes:
        return (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


class Client(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.due: float | None = None
        self.data = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, due: float) -> None:
        self.due = due
        self.transport.write(self.run.requests.next())

    def data_received(self, data: bytes) -> None:
        data = self.data + data if self.data else data
        if not complete(data):
            self.data = data
            return
        self.data = b""
        due, self.due = self.due, None
        if due is not None:
            self.run.answered(self, due, data)

    def connection_lost(self, _: Exception | None) -> None:
        self.run.lost(self)


def complete(data: bytes) -> bool:
    """Return whether the bytes are a whole response."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    if length := CONTENT_LENGTH.search(data, 0, head):
        return len(data) >= head + 4 + int(length[1])
    return data[9:12] in {b"204", b"304"} or data.endswith(CHUNKED_END)


class Run:
    """The schedule, and the figures."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.requests = Requests(load)
        self.clients: list[Client] = []
        self.free: deque[Client] = deque()
        self.waiting: deque[float] = deque()  # when those are due that found no free connection
        self.took: list[float] = []
        self.late: list[float] = []
        self.errors = 0
        self.due = 0  # requests so far
        self.total = load.rate * load.seconds
        self.start = self.end = 0.0
        self.left = 0
        self.done = asyncio.Event()

    async def __call__(self) -> Offered:
        loop = asyncio.get_running_loop()
        for _ in range(self.load.connections):
            _, client = await loop.create_connection(
                lambda: Client(self), "127.0.0.1", self.load.port
            )
            self.clients.append(client)
        self.free.extend(self.clients)
        spent = _cpu()
        self.start = perf_counter()
        timer = ticks(1 / min(self.load.rate, TICKS))
        loop.add_reader(timer, self.tick, timer)
        try:
            limit = self.load.seconds + GRACE
            await asyncio.wait_for(self.done.wait(), limit)
        except TimeoutError:
            self.end = perf_counter()
        finally:
            loop.remove_reader(timer)
            os.close(timer)
            for client in self.clients:
                client.transport.abort()
        return self.figures(_cpu() - spent)

    def tick(self, timer: int) -> None:
        os.read(timer, 8)
        now = perf_counter()
        until = min(int((now - self.start) * self.load.rate) + 1, self.total)
        for number in range(self.due, until):
            due = self.start + number / self.load.rate
            self.late.append(now - due)
            if self.free:
                self.free.popleft().ask(due)
            else:
                self.waiting.append(due)
        self.due = until
        if until == self.total and now >= self.start + self.load.seconds:
            self.left = len(self.waiting)
            loop = asyncio.get_running_loop()
            loop.remove_reader(timer)
            if len(self.took) == self.total:
                self.finish()

    def answered(self, client: Client, due: float, data: bytes) -> None:
        now = perf_counter()
        self.took.append(now - due)
        if data[9:10] not in b"23":
            self.errors += 1
        if self.waiting:
            client.ask(self.waiting.popleft())
            return
        self.free.append(client)
        if len(self.took) == self.total and now >= self.start + self.load.seconds:
            self.finish()

    def lost(self, client: Client) -> None:
        """Count a connection that the server has closed as an error, and go on without it."""
        if self.end:
            return
        self.errors += 1
        if client in self.free:
            self.free.remove(client)

    def finish(self) -> None:
        self.end = perf_counter()
        self.done.set()

    def figures(self, used: float) -> Offered:
        open_ones = [one.due for one in self.clients if one.due is not None]
        open_ones += [self.start + n / self.load.rate for n in range(self.due, self.total)]
        missing = [self.end - due for due in (*open_ones, *self.waiting)]
        took = sorted((*self.took, *missing))
        p50, p95, p99, p999 = (1000 * part(took, share) for share in (0.5, 0.95, 0.99, 0.999))
        return Offered(
            requests=len(self.took),
            errors=self.errors,
            unanswered=len(missing),
            waiting=self.left,
            seconds=self.end - self.start,
            p50=p50,
            p95=p95,
            p99=p99,
            p999=p999,
            late=1000 * part(sorted(self.late), 0.99),
            cpu=used,
        )


def part(found: list[float], share: float) -> float:
    """Return a quantile of sorted values; 0 of none."""
    return found[min(int(len(found) * share), len(found) - 1)] if found else 0.0


class _Interval(ctypes.Structure):
    """`struct itimerspec`: seconds and nanoseconds of the interval, then of the first tick."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_ns", "first", "first_ns")]


def ticks(seconds: float) -> int:
    """Return a file that can be read at each tick: a timer with an interval below 1 s."""
    timer = int(LIBC.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC))  # CLOCK_MONOTONIC
    nanoseconds = min(round(seconds * 1e9), 999_999_999)
    value = _Interval(0, nanoseconds, 0, nanoseconds)
    if timer < 0 or LIBC.timerfd_settime(timer, 0, ctypes.byref(value), None):
        raise OSError(ctypes.get_errno(), "no timer")
    return timer


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _main(load: Load) -> None:
    sys.stdout.write(msgspec.json.encode(await Run(load)()).decode())


if __name__ == "__main__":
    uvloop.run(_main(msgspec.json.decode(sys.argv[1], type=Load)))
