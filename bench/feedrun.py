"""The fault run of the feed of changes: does every subscriber get each change once, in order?

A server with an embedded PostgreSQL, thousands of subscribers, writes by the API and by SQL. On
the way a worker and the database are killed with SIGKILL. Subscribers that lose their connection
go on from their last position. In the end, what each has got is compared with the log itself.
"""

import asyncio
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from bench import processes
from service.server import free_port

OWNERS, ITEMS = 1000, 2000
UNFILTERED = 10
# Rows of one statement by SQL, and connections of the API.
ROWS, CONNECTIONS = 10, 16
# Subscribers for each change of the phase at rest, and the pause between two changes.
AT_REST, PAUSE = 25, 0.03
# Clients that connect at the same time; seconds to wait for the last change.
OPENING, LAST_SECONDS = 100, 40.0
# What asyncpg raises when the database is killed.
ENDED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_EVENT = re.compile(rb"id: (\d+)\n(event: )?")
_ROW = re.compile(rb'data: \{"position":\d+,"kind":"\w+","id":(\d+),"version":(\d+)')


class Subscriber(asyncio.Protocol):
    """One client, as a browser: it connects again, and says which event was its last."""

    def __init__(self, run: "Run", owner: int | None) -> None:
        self.run = run
        self.owner = owner
        self.last = run.start
        self.places = array("q")
        self.data = b""
        self.opened = False
        self.transport: asyncio.Transport | None = None
        self.on_data: Callable[[bytes], None] | None = None

    async def connect(self) -> None:
        while not self.run.over:
            with suppress(OSError):
                await asyncio.get_running_loop().create_connection(
                    lambda: self, "127.0.0.1", self.run.port
                )
                return
            await asyncio.sleep(random.uniform(0.2, 1))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, b""
        query = "" if self.owner is None else f"?owner_id={self.owner}"
        transport.write(
            f"GET /items/changes{query} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n"
            f"Last-Event-ID: {self.last}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.data += data
        if data.endswith(b"\r\n0\r\n\r\n") or self.data.startswith(b"HTTP/1.1 5"):
            assert self.transport is not None
            self.transport.close()  # the end of a response, or none; its connection may stay open
        whole, end, rest = self.data.rpartition(b"\n\n")
        if not end:
            return
        self.data = rest
        self.opened = True
        for found in _EVENT.finditer(whole + end):
            self.last = int(found[1])
            if found[2]:
                self.places.append(self.last)
        if self.on_data is not None:
            self.on_data(whole)

    def connection_lost(self, _: Exception | None) -> None:
        self.run.lost += 1
        if not self.run.over:
            self.run.spawn(self._again())

    async def _again(self) -> None:
        await asyncio.sleep(random.uniform(0.5, 1.5))
        await self.connect()


class Sizes(NamedTuple):
    """The sizes of a run; `kills` is how often, in turn, a worker or the database is killed."""

    subscribers: int
    rate: float
    seconds: float
    kills: int


class Result(NamedTuple):
    """What a run has found."""

    subscribers: int
    changes: int
    events: int
    reconnected: int
    lost: int
    duplicated: int
    out_of_order: int
    at_rest: tuple[float, float]
    loaded: tuple[float, float]
    bytes_each: float

    def lines(self) -> Iterator[str]:
        """Yield it as text."""
        yield f"{self.subscribers} subscribers, {self.changes} changes, {self.events} events"
        yield f"{self.reconnected} connections were lost and made again"
        yield f"lost {self.lost}, duplicated {self.duplicated}, out of order {self.out_of_order}"
        for name, (middle, late) in (("at rest", self.at_rest), ("loaded", self.loaded)):
            yield f"from the answer to the event, {name}: p50 {middle:.1f} ms, p99 {late:.1f} ms"
        yield f"{self.bytes_each / 1024:.1f} KiB of the server for each subscriber"


class Run:
    """A run; `say` is called with each line of progress."""

    def __init__(self, port: int, url: str, say: Callable[[str], None]) -> None:
        self.port = port
        self.url = url
        self.say = say
        self.start = self.lost = 0
        self.over = False
        self.answered: dict[tuple[int, int], float] = {}
        self.latencies: list[float] = []
        self.failed = 0
        self.owners: list[int] = []
        self.items: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def prepare(self) -> None:
        """Make owners and items."""
        connection = await asyncpg.connect(self.url)
        self.owners = [
            one["id"]
            for one in await connection.fetch(
                "INSERT INTO users (email, username) SELECT 'f' || n || '@example.com', 'feed' || n"
                " FROM generate_series(1, $1) AS n RETURNING id",
                OWNERS,
            )
        ]
        self.items = [
            one["id"]
            for one in await connection.fetch(
                "INSERT INTO items (name, owner_id)"
                " SELECT 'feed', ($2::bigint[])[n % $1::integer + 1]"
                " FROM generate_series(1, $3::integer) AS n RETURNING id",
                OWNERS,
                self.owners,
                ITEMS,
            )
        ]
        self.start = await connection.fetchval(
            "SELECT max(position) * 1024 + 1023 FROM change_positions"
        )
        await connection.close()

    async def subscribe(self, count: int) -> list[Subscriber]:
        """Connect so many clients; the first ones have no filter."""
        chosen = [None] * UNFILTERED + [self.owners[n % OWNERS] for n in range(count - UNFILTERED)]
        all_ = [Subscriber(self, owner) for owner in chosen]
        for n in range(0, count, OPENING):
            await asyncio.gather(*(one.connect() for one in all_[n : n + OPENING]))
        while not all(one.opened for one in all_):  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.05)
        all_[0].on_data = self._heard
        return all_

    def _heard(self, data: bytes) -> None:
        now = time.perf_counter()
        for found in _ROW.finditer(data):
            # An event may come before the answer has been read: then it took no time.
            key = int(found[1]), int(found[2])
            answered = self.answered.pop(key, None)
            if answered is None:
                self.answered[key] = -now
            else:
                self.latencies.append(max(0.0, now - answered))

    def _answer(self, body: bytes) -> None:
        now = time.perf_counter()
        found = re.search(rb'\{"id":(\d+),.*"version":(\d+)', body)
        if found is not None:
            key = int(found[1]), int(found[2])
            if self.answered.pop(key, None) is None:
                self.answered[key] = now
            else:
                self.latencies.append(0.0)

    async def api(self, rate: float, seconds: float) -> None:
        """Change items over one connection, so many a second."""
        due, end = time.perf_counter(), time.perf_counter() + seconds
        reader = writer = None
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += 1 / rate
            body = b'{"price":%d}' % random.randint(1, 10**6)
            head = b"PATCH /items/%d HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            head %= random.choice(self.items)
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                assert reader is not None
                writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(answer.partition(b"content-length: ")[2].split(b"\r\n")[0])
                row = await reader.readexactly(size)
                if answer.startswith(b"http/1.1 200"):
                    self._answer(row)
                else:
                    self.failed += 1
            except (OSError, asyncio.IncompleteReadError):
                self.failed += 1
                if writer is not None:
                    writer.close()
                writer = None
        if writer is not None:
            writer.close()

    async def sql(self, rate: float, seconds: float) -> None:
        """Change rows as another program does, ROWS in a statement."""
        due, end = time.perf_counter(), time.perf_counter() + seconds
        connection: asyncpg.Connection | None = None
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += ROWS / rate
            ids = random.sample(self.items, ROWS)
            try:
                if connection is None:
                    connection = await asyncpg.connect(self.url)
                await connection.execute(
                    "UPDATE items SET price = $1, version = version + 1"
                    " WHERE id IN (SELECT id FROM items WHERE id = ANY ($2)"
                    " ORDER BY id FOR UPDATE)",
                    random.randint(1, 10**6),
                    ids,
                )
            except (OSError, *ENDED):
                self.failed += 1
                if connection is not None:
                    connection.terminate()
                connection = None
                await asyncio.sleep(0.1)
        if connection is not None:
            connection.terminate()

    async def _recovered(self) -> asyncpg.Connection:
        """Connect as soon as the database has recovered."""
        async with asyncio.timeout(LAST_SECONDS):
            while True:
                with suppress(OSError, asyncpg.PostgresError):
                    return await asyncpg.connect(self.url)
                await asyncio.sleep(0.2)

    async def check(self, all_: list[Subscriber]) -> tuple[int, int, int, int]:
        """Compare what each has got with the log: changes, lost, duplicated and out of order."""
        connection = await self._recovered()
        await asyncio.gather(self.api(50, 1), self.sql(50, 1))  # some changes after the recovery
        truth: dict[int | None, list[int]] = {None: []}
        for place, owner in await connection.fetch(
            "SELECT position * 1024 + place - 1, (row ->> 'owner_id')::bigint"
            " FROM change_positions JOIN change_log ON change_log.id = entry,"
            " json_array_elements(rows::json) WITH ORDINALITY AS r (row, place)"
            " WHERE position > $1 AND name = 'items' ORDER BY position, place",
            self.start // 1024,
        ):
            truth[None].append(place)
            truth.setdefault(owner, []).append(place)
        await connection.close()
        deadline = time.perf_counter() + LAST_SECONDS
        while time.perf_counter() < deadline and any(  # noqa: ASYNC110 - as above
            len(one.places) < len(truth.get(one.owner, ())) for one in all_
        ):
            await asyncio.sleep(0.2)
        lost = duplicated = disordered = 0
        for one in all_:
            expected, found = truth.get(one.owner, []), one.places.tolist()
            lost += len(set(expected) - set(found))
            duplicated += len(found) - len(set(found)) + len(set(found) - set(expected))
            disordered += found != sorted(found)
        return len(truth[None]), lost, duplicated, disordered


@contextmanager
def served(data: Path, server: str, workers: int) -> Iterator[tuple[int, int]]:
    """Run the service with embedded stores; yields its port and process."""
    port = free_port("127.0.0.1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--server", server]
    with (data / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--workers", str(workers), "--data", str(data / "data")],
            stdout=log,
            stderr=log,
            env={**kept, "SERVICE_LOG": "json", "REDIS_URL": "off"},
        )
    try:
        deadline = time.monotonic() + 60
        while b"Console" not in (data / "log").read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((data / "log").read_text())
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def workers_of(pid: int) -> list[int]:
    """Return the worker processes: forks of the process of the command."""
    mine = Path(f"/proc/{pid}/cmdline").read_bytes()
    found = []
    for one in processes.tree(pid)[1:]:
        with suppress(OSError):
            if Path(f"/proc/{one}/cmdline").read_bytes() == mine:
                found.append(one)
    return found


def resident(pids: list[int]) -> int:
    """Return the private memory of processes, in bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Dirty", "Private_Clean")):
                total += int(line.split()[1]) * 1024
    return total


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    if len(seconds) < 2:
        return (0.0, 0.0)
    cut = statistics.quantiles(seconds, n=100)
    return cut[49] * 1000, cut[98] * 1000


async def _run(run: Run, data: Path, pid: int, sizes: Sizes) -> Result:
    count, rate, seconds, kills = sizes
    await run.prepare()
    before = resident(workers_of(pid) or [pid])
    all_ = await run.subscribe(count)
    await asyncio.sleep(1)
    each = (resident(workers_of(pid) or [pid]) - before) / count
    run.say(f"{count} subscribers have connected")
    for _ in range(count // AT_REST):
        await run.api(1 / PAUSE, PAUSE)
    await asyncio.sleep(1)
    at_rest, run.latencies = percentiles(run.latencies), []
    part, loaded = seconds / (kills + 1), (0.0, 0.0)
    for kill in range(kills + 1):
        if kill:
            victim = workers_of(pid)[0] if kill % 2 else _postmaster(data)
            run.spawn(_kill_later(run, victim, part / 4))
        await asyncio.gather(
            *(run.api(rate / 2 / CONNECTIONS, part) for _ in range(CONNECTIONS)),
            run.sql(rate / 2, part),
        )
        if not kill:
            loaded = percentiles(run.latencies)
    changes, lost, duplicated, disordered = await run.check(all_)
    run.over = True
    events, reconnected = sum(len(one.places) for one in all_), run.lost
    for one in all_:
        if one.transport is not None:
            one.transport.abort()
    run.say(f"{run.failed} writes failed during the faults")
    return Result(
        count,
        changes,
        events,
        reconnected,
        lost,
        duplicated,
        disordered,
        at_rest,
        loaded,
        each,
    )


async def _kill_later(run: Run, pid: int, seconds: float) -> None:
    await asyncio.sleep(seconds)
    run.say(f"kill -9 {pid}")
    os.kill(pid, signal.SIGKILL)


def _postmaster(data: Path) -> int:
    return int(_pid_file(data)[0])


def _pid_file(data: Path) -> list[str]:
    return (data / "data" / "postgres" / "postmaster.pid").read_text().split("\n")


def feed_run(
    data: Path,
    say: Callable[[str], None],
    sizes: Sizes,
    *,
    server: str = "uvicorn",
    workers: int = 2,
) -> Result:
    """Run it in a directory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
    with served(data, server, workers) as (port, pid):
        sockets = _pid_file(data)[4]
        url = f"postgresql:///service?host={sockets}&user=service"
        run = Run(port, url, say)
        return asyncio.run(_run(run, data, pid, sizes))
