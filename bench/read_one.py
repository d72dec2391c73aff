"""CPU per `GET /items/{id}`: our statements on held connections, against SQLAlchemy's AsyncEngine.

    uv run python bench/read_one.py [--rounds 5] [--seconds 5] [--connections 64]

One run starts the wheel's PostgreSQL 18 with 100,000 items and, in front of it, each contestant
under the same server with one worker; then rounds in turn, random ids, load by wrk. Measured is
CPU time from /proc, server and database with all their children, per answered request: rates on a
shared machine say more about its neighbours. Exits 1 when ours takes more than a third of the
engine's.
"""

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from service import migrate, server
from service.embedded.programs import wheel_postgres
from service.embedded.stores import stores
from service.seed import seed

ROOT = Path(__file__).parent.parent
ITEMS = 100_000
GOAL = 1 / 3
TICKS = os.sysconf("SC_CLK_TCK")

SCRIPT = f"""
math.randomseed(tonumber(os.getenv("SEED")))
request = function()
  return wrk.format("GET", "/items/" .. math.random(1, {ITEMS}))
end
done = function(summary)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Contestant(NamedTuple):
    """A name, the ASGI application, and what its environment has beside ours."""

    name: str
    app: str
    environ: dict[str, str]


class Round(NamedTuple):
    """One measurement; microseconds of CPU per request."""

    rate: float
    server: float
    database: float

    @property
    def total(self) -> float:
        return self.server + self.database


CONTESTANTS = (
    Contestant("ours", "service.asgi:app", {}),
    Contestant("engine", "bench.engine_app:app", {}),
    Contestant("engine, autocommit", "bench.engine_app:app", {"ENGINE_ISOLATION": "AUTOCOMMIT"}),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: `apt-get install wrk`, or brew install wrk")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(
            stores(directory / "data", redis=False, postgres_bin=wheel_postgres())
        )
        url = running.database_url
        assert url is not None
        migrate.up(url)
        print(f"seeding {ITEMS} items", flush=True)
        asyncio.run(seed(url, 1000, ITEMS, lambda *_: None))
        database = postmaster(running.data)
        script = directory / "read.lua"
        script.write_text(SCRIPT)
        ports = {one.name: stack.enter_context(served(one, url, directory)) for one in CONTESTANTS}
        rounds: dict[str, list[Round]] = {one.name: [] for one in CONTESTANTS}
        for number in range(options.rounds + 1):
            for one in CONTESTANTS:
                result = measure(ports[one.name], database, script, options, number)
                if number:  # the first warms plans and caches
                    rounds[one.name].append(result)
            print(f"round {number} of {options.rounds}", flush=True)
    return report(rounds, options)


def report(rounds: dict[str, list[Round]], options: argparse.Namespace) -> int:
    median = {
        name: Round(*(statistics.median(column) for column in zip(*found, strict=True)))
        for name, found in rounds.items()
    }
    ours = median["ours"].total
    print(
        f"\nGET /items/{{id}}, {ITEMS} items, {options.connections} connections, 1 worker of "
        f"granian, median of {options.rounds} rounds of {options.seconds} s, CPU us per request"
    )
    print(
        f"{'':20}{'server':>9}{'database':>10}{'both':>8}{'spread':>14}{'requests/s':>12}  ours is"
    )
    for name, one in median.items():
        totals = [found.total for found in rounds[name]]
        spread = f"{min(totals):.0f}-{max(totals):.0f}"
        print(
            f"{name:20}{one.server:9.1f}{one.database:10.1f}{one.total:8.1f}"
            f"{spread:>14}{one.rate:12.0f}  {ours / one.total:.2f}"
        )
    ratio = ours / median["engine"].total
    print(f"goal: at most {GOAL:.2f} of the engine's; is {ratio:.2f}")
    return 0 if ratio <= GOAL else 1


@contextmanager
def served(one: Contestant, url: str, directory: Path) -> Iterator[tuple[int, int]]:
    """The contestant's port and the pid of its server."""
    port = server.free_port("127.0.0.1")
    command = (
        f"{sys.executable} -m granian --interface asgi --port {port} --workers 1 --loop uvloop"
        f" --http 1 --no-ws --backlog 4096 --backpressure 4096 --log-level warning {one.app}"
    )
    log = directory / f"{one.name}.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.split(),
            cwd=ROOT,
            env={**kept, **one.environ, "DATABASE_URL": url, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(port, process, log)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            sys.exit(log.read_text())
        try:
            with urlopen(f"http://127.0.0.1:{port}/items/1", timeout=1) as answer:
                if b'"id":1,' in answer.read():
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"no answer: {log.read_text()}")


def measure(
    place: tuple[int, int],
    database: int,
    script: Path,
    options: argparse.Namespace,
    number: int,
) -> Round:
    port, pid = place
    before = cpu(pid), cpu(database)
    found = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{options.connections}",
            f"-d{options.seconds}s",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}",
        ],
        env={**os.environ, "SEED": str(number)},
        check=True,
        capture_output=True,
        text=True,
    )
    after = cpu(pid), cpu(database)
    result = re.search(r"RESULT (\d+) (\d+) (\d+)", found.stdout)
    assert result is not None, found.stdout
    requests, duration, errors = map(int, result.groups())
    assert errors == 0, found.stdout
    server_us, database_us = ((b - a) / requests * 1e6 for a, b in zip(before, after, strict=True))
    return Round(requests / duration * 1e6, server_us, database_us)


def cpu(pid: int) -> float:
    """Seconds of CPU of a process and all below it, those that have ended included."""
    total = 0.0
    for process in (pid, *children(pid)):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / TICKS
    return total


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def postmaster(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
