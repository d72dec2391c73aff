"""The Rinha de Backend 2023-Q3: its load on examples/rinha, with 1.5 CPUs for everything."""

import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import NamedTuple
from urllib.request import urlopen

import asyncpg
import uvloop

from bench import processes
from bench.quota import Quota, limited
from bench.rinhaload import CREATE, Load
from service.server import free_port

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "rinha"
# What the rules give to everything together.
CPUS = 1.5
# Seconds over which the highest use of CPU is a mean.
WINDOW = 10
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


class Served(NamedTuple):
    """The running example: the process of the command, and PostgreSQL below it."""

    port: int
    pid: int
    postmaster: int
    database_url: str


class Used(NamedTuple):
    """CPU seconds: the server without PostgreSQL, PostgreSQL, the load generator."""

    server: float
    database: float
    load: float


class Result(NamedTuple):
    """What a run has found."""

    load: Load
    seconds: float
    used: Used
    highest: float
    waited: float
    memory: float
    throttled: tuple[int, int] | None
    people: int
    durable: str

    @property
    def ok(self) -> bool:
        """Whether each response was as the rules say, and each person with a 201 is there."""
        created = self.load.statuses[CREATE][201]
        return not (self.load.unexpected or self.load.wrong) and self.people == created

    def lines(self) -> Iterator[str]:
        """Yield it as text."""
        yield "| request | statuses | p50 ms | p99 ms | most ms |"
        yield "|---|---|---|---|---|"
        for kind, counts in self.load.statuses.items():
            told = ", ".join(
                f"{status or 'none'}: {count:,}" for status, count in sorted(counts.items())
            )
            middle, late, most = (
                f"{part * 1000:.1f}" for part in _percentiles(self.load.took[kind])
            )
            yield f"| {kind} | {told} | {middle} | {late} | {most} |"
        created, each = self.load.statuses[CREATE][201], 1e6 / max(1, self.load.requests)
        yield ""
        yield f"{created:,} people were created, {self.people:,} are there; {self.durable}"
        yield f"{self.load.unexpected} unexpected statuses, {len(self.load.wrong)} wrong responses"
        yield from self.load.wrong[:5]
        used = self.used.server + self.used.database
        yield (
            f"CPUs used: {used / self.seconds:.2f} on average, {self.highest:.2f} in the busiest"
            f" {WINDOW} s; per request {self.used.server * each:,.0f} us in the server,"
            f" {self.used.database * each:,.0f} us in PostgreSQL"
        )
        if self.throttled is None:
            yield "the CPU was not limited: this system lets us make no cgroup"
        else:
            yield f"stopped by the limit in {self.throttled[1]} of {self.throttled[0]} periods"
        yield f"its processes waited for a CPU for {self.waited:.1f} s: the limit, or neighbours"
        yield f"memory: {self.memory:.0f} MiB at most"
        _, late, most = (f"{part * 1000:.1f}" for part in _percentiles(self.load.late))
        yield (
            f"the load itself took {self.used.load / self.seconds:.2f} CPUs, and was late by"
            f" {late} ms (p99), {most} ms at most"
        )


def _percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return p50, p99 and the most."""
    if len(seconds) < 2:
        return 0.0, 0.0, 0.0
    cut = statistics.quantiles(seconds, n=100)
    return cut[49], cut[98], max(seconds)


@contextmanager
def _served(data: Path, quota: Quota | None, workers: int) -> Iterator[Served]:
    port = free_port("127.0.0.1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    command = [sys.executable, "-m", "service", "serve", "--app", "rinha:app", "--port", str(port)]
    command += ["--workers", str(workers), "--data", str(data / "data")]
    log = data / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command if quota is None else quota.command(command),
            cwd=EXAMPLE,
            env={**kept, "PYTHONPATH": str(ROOT), "DATABASE_URL": "", "SERVICE_LOG": "json"},
            stdout=output,
            stderr=output,
        )
    try:
        give_up = time.monotonic() + 60
        while not re.search(rb"^ *Stop ", log.read_bytes(), re.MULTILINE):
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        lines = (data / "data" / "postgres" / "postmaster.pid").read_text().split("\n")
        url = f"postgresql:///service?host={lines[4]}&user=service"
        yield Served(port, process.pid, int(lines[0]), url)
    finally:
        process.terminate()
        process.wait()


def rinha_run(
    data: Path,
    say: Callable[[str], None],
    *,
    rate: float,
    ramp: float,
    cpus: float = CPUS,
    workers: int = 1,
) -> Result:
    """Run it in a directory; see __main__.py for the arguments."""
    with limited(cpus) as quota, _served(data, quota, workers) as served:
        load = Load(served.port, rate, ramp)
        say(f"the load begins; {'no limit of CPU' if quota is None else f'{cpus} CPUs'}")
        began, before = time.perf_counter(), _used(served)
        waited = processes.waited(served.pid)
        highest = uvloop.run(_sampled(load, served, say))
        seconds = time.perf_counter() - began
        used = Used(*(new - old for new, old in zip(_used(served), before, strict=True)))
        with urlopen(f"http://127.0.0.1:{served.port}/contagem-pessoas", timeout=30) as answer:
            people = int(answer.read())
        return Result(
            load,
            seconds,
            used,
            highest,
            processes.waited(served.pid) - waited,
            processes.peak(served.pid),
            None if quota is None else quota.throttled(),
            people,
            asyncio.run(_durable(served)),
        )


async def _sampled(load: Load, served: Served, say: Callable[[str], None]) -> float:
    """Run the load; return the CPUs that were used in the busiest WINDOW."""
    used: list[tuple[float, float]] = []

    async def sample() -> None:
        while True:
            used.append((time.perf_counter(), processes.cpu(served.pid)))
            await asyncio.sleep(1)

    sampling = asyncio.create_task(sample())
    await load.run(say)
    sampling.cancel()
    windows = zip(used, used[WINDOW:], strict=False)
    return max(((new[1] - old[1]) / (new[0] - old[0]) for old, new in windows), default=0.0)


def _used(served: Served) -> Used:
    database = processes.cpu(served.postmaster)
    return Used(processes.cpu(served.pid) - database, database, process_time())


async def _durable(served: Served) -> str:
    connection = await asyncpg.connect(served.database_url)
    found = [f"{name}={await connection.fetchval(f'SHOW {name}')}" for name in DURABLE]
    await connection.close()
    return ", ".join(found)
