"""One measurement: a load, and its CPU in each process."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import asyncpg
import msgspec
from msgspec import structs
from uvloop import run as uvloop_run

from bench import openloop
from bench.contestants import ROOT
from bench.processes import cpu, forget_peak, peak
from bench.result import CPU, Run
from bench.stage import Server, StagingTable
from bench.workloads import CRUD, Cell

SCRIPT = ROOT / "bench" / "load.lua"
CRUD_SCRIPT = ROOT / "bench" / "httparena" / "crud.lua"
BULK_RATE = 5_000  # rows/s
BULK_ROWS = 1_000  # per statement

PGBENCH = {
    "read": "\\set id random(1, {items})\nSELECT {columns} FROM items WHERE id = :id;\n",
    "create": (
        "\\set n random(1, 1000000)\n\\set cents random(0, 99999)\n"
        "INSERT INTO items (name, description, price, is_active)"
        " VALUES ('Brass Widget ' || :n, 'Made by the benchmark', :cents / 100.0, true)"
        " RETURNING {columns};\n"
    ),
    "patch": (
        "\\set id random(1, {items})\n\\set cents random(0, 99999)\n"
        "UPDATE items SET price = :cents / 100.0, version = version + 1, updated_at = now()"
        " WHERE id = :id RETURNING {columns};\n"
    ),
}
COLUMNS = "id, sku, name, description, price, is_active, owner_id, version, created_at, updated_at"


class Loaded(NamedTuple):
    """The figures of the load generator; times in milliseconds, its CPU in seconds."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p95: float
    p99: float
    cpu: float


def require_wrk() -> None:
    """Exit with instructions if wrk is missing."""
    if shutil.which("wrk") is None:
        sys.exit(
            "wrk is missing: `apt-get install wrk` on Debian or Ubuntu, `brew install wrk` on macOS"
        )


def measure(of: Server, on: StagingTable, cell: Cell, seconds: int, number: int) -> Run:
    """Run the load of a cell for a number of seconds; `number` is the round."""
    forget_peak(of.pid)
    watched = (of.pid, on.postmaster, on.redis_pid)
    before = [cpu(pid) for pid in watched]
    with _bulk(on.of(of.program), at_work=cell.workload == "mixed-bulk"):
        more: dict[str, Any] = {}
        if cell.offered is None:
            found = _wrk(of, cell, seconds, number)
        else:
            found, more = _open_loop(of, cell, seconds, number)
    used = [cpu(pid) - start for pid, start in zip(watched, before, strict=True)]
    run = _run(of.program.name, cell, number, found, tuple(used))
    return structs.replace(run, rss=peak(of.pid), **more)


def pgbench(on: StagingTable, cell: Cell, seconds: int, number: int) -> Run:
    """Run the workload with pgbench, one row per statement and commit."""
    script = PGBENCH[cell.workload.partition("-")[0]]
    with tempfile.TemporaryDirectory(dir=on.directory) as place:
        file = Path(place, "script.sql")
        file.write_text(script.format(items=cell.items, columns=COLUMNS))
        before, spent = cpu(on.postmaster), _children_cpu()
        done = subprocess.run(
            [
                *(str(on.programs / "pgbench"), "-n", "-M", "prepared", "-j", "1"),
                *("-c", str(min(cell.connections, 256)), "-T", str(seconds)),
                *("-f", str(file), "-l", "--sampling-rate", "0.02", "--random-seed", str(number)),
                on.database_url,
            ],
            cwd=place,
            check=True,
            capture_output=True,
            text=True,
        )
        load, used = _children_cpu() - spent, cpu(on.postmaster) - before
        requests = _number(r"actually processed: (\d+)", done.stdout)
        # The time to connect is excluded; without a transaction pgbench prints no more figures.
        rate = _number(r"tps = ([\d.]+)", done.stdout) if requests else 0.0
        failed = _number(r"failed transactions: (\d+)", done.stdout) if requests else 0.0
        lines = [line for log in Path(place).glob("pgbench_log*") for line in log.open()]
    took = sorted(int(line.split()[2]) / 1000 for line in lines) or [0.0]
    p50, p95, p99 = (took[int(len(took) * part)] for part in (0.5, 0.95, 0.99))
    spent_seconds = requests / rate if rate else seconds
    found = Loaded(round(requests), spent_seconds, round(failed), p50, p95, p99, 0.0)
    # Count the client as the server: it makes the queries and reads the rows.
    return _run("pgbench", cell, number, found, (load, used, 0.0))


def _run(name: str, cell: Cell, number: int, found: Loaded, used: tuple[float, ...]) -> Run:
    server, database, redis, load = (
        part / max(found.requests, 1) * 1e6 for part in (*used, found.cpu)
    )
    return Run(
        workload=cell.workload,
        contestant=name,
        connections=cell.connections,
        workers=cell.workers,
        items=cell.items,
        round=number,
        requests=found.requests,
        seconds=found.seconds,
        errors=found.errors,
        p50=found.p50,
        p95=found.p95,
        p99=found.p99,
        cpu=CPU(server, database, redis, load),
        offered=cell.offered,
    )


def _wrk(of: Server, cell: Cell, seconds: int, number: int) -> Loaded:
    """Load by wrk: each connection asks again as soon as it is answered."""
    environ = {
        "WORKLOAD": cell.workload,
        "SEED": str(number),
        "ITEMS": str(cell.items),
        "COLLECTION": of.program.collection,
        **_depth(of, cell),
    }
    script = CRUD_SCRIPT if cell.workload == CRUD else SCRIPT
    spent = _children_cpu()
    done = subprocess.run(
        [
            *("wrk", "-t1", f"-c{cell.connections}", f"-d{seconds}s"),
            *("--timeout", "10s", "-s", str(script), of.url),
        ],
        env={**os.environ, **environ},
        check=True,
        capture_output=True,
        text=True,
    )
    result = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if result is None:
        sys.exit(f"the output of wrk can't be parsed:\n{done.stdout}{done.stderr}")
    requests, duration, errors, p50, p95, p99 = map(int, result.groups())
    return Loaded(
        requests,
        duration / 1e6,
        errors,
        p50 / 1000,
        p95 / 1000,
        p99 / 1000,
        _children_cpu() - spent,
    )


def _open_loop(of: Server, cell: Cell, seconds: int, number: int) -> tuple[Loaded, dict[str, Any]]:
    """Load at a fixed rate, with what only such a load has: p999, late, reached."""
    assert cell.offered is not None
    load = openloop.Load(
        port=of.port,
        workload=cell.workload,
        rate=cell.offered,
        seconds=seconds,
        items=cell.items,
        collection=of.program.collection,
        connections=cell.connections,
        seed=number,
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench.openloop", msgspec.json.encode(load).decode()],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    found = msgspec.json.decode(done.stdout, type=openloop.Offered)
    loaded = Loaded(
        found.requests, found.seconds, found.errors, found.p50, found.p95, found.p99, found.cpu
    )
    return loaded, {"p999": found.p999, "late": found.late, "reached": found.reached}


def _depth(of: Server, cell: Cell) -> dict[str, str]:
    """Return the parameters of the list: its page, or the cursor of the page before."""
    kind, _, depth = cell.workload.partition("-")
    if kind not in {"page", "cursor"}:
        return {}
    page = max(min(int(depth), cell.items) // 10, 1)
    if kind == "page":
        return {"PAGE": str(page)}
    if page == 1:
        return {}
    with urlopen(f"{of.url}{of.program.collection}?page={page - 1}&per_page=10") as answer:
        return {"CURSOR": str(json.load(answer)["next_cursor"])}


@contextmanager
def _bulk(on: StagingTable, *, at_work: bool) -> Iterator[None]:
    """Run another client that inserts rows at a fixed rate until the measurement ends."""
    if not at_work:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=lambda: uvloop_run(_insert(on.database_url, stop)))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def _insert(url: str, stop: threading.Event) -> None:
    connection = await asyncpg.connect(url)
    try:
        while not stop.wait(BULK_ROWS / BULK_RATE):
            await connection.execute(
                "INSERT INTO items (name, description, price) SELECT 'Bulk ' || n, 'Bulk row', 1"
                f" FROM generate_series(1, {BULK_ROWS}) n"
            )
    finally:
        await connection.close()


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        sys.exit(f"the output of pgbench can't be parsed:\n{text}")
    return float(found[1])
