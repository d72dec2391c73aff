"""Trials: our service against variants with one change; the reasons of the defaults."""

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import (
    compiled,
    compresscost,
    dashboardcost,
    eviction,
    guardcost,
    importcost,
    interpreters,
    jobscost,
    jsonagg,
    limitcost,
    listcost,
    metricscost,
    micro,
    multirow,
    ormcost,
    pathcost,
    rediscost,
    startcost,
    takencost,
    upsert,
    webhookcost,
)
from bench.contestants import BY_NAME, PLAIN, PYTHON, ROOT, Program
from bench.measure import measure
from bench.result import Run
from bench.stage import (
    OUR_SEARCH,
    Server,
    StagingTable,
    fill,
    keep_totals,
    log_changes,
    prepare,
    queue_jobs,
    search_index,
    served,
    settle,
    stage,
)
from bench.workloads import WRITING, Cell

ITEMS = 100_000
SERVICE = BY_NAME[PLAIN]


class Variant(NamedTuple):
    """A variant: environment variables, server, workers; whether totals, index and log are kept.

    `queued` and `told`: whether new users queue jobs, and NOTIFY in their transaction.
    `tree` is the checkout to run, and `python` its interpreter.
    """

    name: str
    environ: Mapping[str, str] = {}
    server: str = "uvicorn"
    workers: int = 1
    totals: bool = True
    search: str | None = OUR_SEARCH
    logged: bool = True
    queued: bool = True
    told: bool = False
    tree: Path = ROOT
    python: str = PYTHON

    def program(self, database: str) -> Program:
        """Return the contestant, with its own database.

        A worker caches nothing while other processes write to its database.
        """
        module = "bench.variant" if any("VARIANT" in name for name in self.environ) else "service"
        command = (self.python, "-m", module, "serve", "--server", self.server)
        return SERVICE._replace(
            name=self.name,
            command=(*command, "--port", "{port}", "--workers", "{workers}"),
            environ={**SERVICE.environ, **self.environ},
            directory=self.tree,
            database=database,
        )


class Trial(NamedTuple):
    """One question; the first variant is the default."""

    name: str
    question: str
    variants: tuple[Variant, ...]
    workloads: tuple[str, ...]
    connections: tuple[int, ...] = (64,)
    items: int = ITEMS


def brief(trial: Trial) -> Trial:
    """Return the trial with few rows and one number of connections, to see that it runs."""
    return trial._replace(items=1000, connections=trial.connections[:1])


def _each(what: str, variable: str, first: int, *others: int) -> tuple[Variant, ...]:
    return tuple(Variant(f"{what} {value}", {variable: str(value)}) for value in (first, *others))


SERVERS = (
    Variant("uvicorn, our HTTP"),
    Variant("uvicorn, its HTTP", {"VARIANT_HTTP": "httptools"}),
    Variant("granian", server="granian"),
)
TIERS = tuple(Variant(f"cache {tier}", {"SERVICE_CACHE": tier}) for tier in ("off", "local", "on"))
TRIALS: tuple[Trial, ...] = (
    Trial(
        "server", "Which server?", SERVERS, ("read", "create", "patch", "list", "mixed"), (1, 64)
    ),
    Trial(
        "workers",
        "How many workers, and of which server?",
        (
            SERVERS[0],
            Variant("uvicorn, our HTTP, 2 workers", workers=2),
            SERVERS[2],
            Variant("granian, 2 workers", server="granian", workers=2),
        ),
        ("read", "create", "mixed"),
        (64, 256),
    ),
    Trial(
        "batching",
        "What does batching cost at rest, and bring under load?",
        (Variant("together"), Variant("each alone", {"SERVICE_BATCHING": "off"})),
        ("read", "create", "patch"),
        (1, 4, 16, 64, 256),
    ),
    Trial(
        "in-flight",
        "How many statements of a kind at once?",
        (
            Variant("in flight 2 of reads, 1 of writes"),
            *_each("in flight", "VARIANT_IN_FLIGHT", 1, 2, 3),
        ),
        ("read", "create", "patch", "mixed"),
        (4, 64),
    ),
    Trial(
        "unqueued",
        "How many statements of a kind at once while no request waits?",
        _each("unqueued", "VARIANT_UNQUEUED", 4, 2, 8),
        ("read", "create", "patch", "mixed"),
        (4, 8, 16, 64),
    ),
    Trial(
        "max-batch",
        "How many requests to a statement?",
        _each("max batch", "VARIANT_MAX_BATCH", 128, 32, 512),
        ("read", "create", "patch"),
        (64, 256),
    ),
    Trial(
        "patience",
        "After how many seconds does a statement that is held up get another beside it?",
        tuple(
            Variant(f"patience {value}", {"VARIANT_PATIENCE": value})
            for value in ("0.05", "0.01", "0.5")
        ),
        ("read", "create", "patch"),
        (64,),
    ),
    Trial(
        "pool",
        "How many connections to PostgreSQL?",
        _each("pool", "SERVICE_POOL", 4, 2, 8, 16),
        ("read", "create", "mixed"),
        (64,),
    ),
    Trial(
        "prepared",
        "What do prepared statements save?",
        (Variant("held"), Variant("parsed at each use", {"VARIANT_PREPARED": "0"})),
        ("read", "create", "list"),
        (1, 64),
    ),
    Trial(
        "gc",
        "How often should garbage be collected, and should the imports be frozen?",
        tuple(Variant(name, environ) for name, environ in interpreters.COLLECTING.items()),
        ("read", "create", "list"),
    ),
    Trial(
        "environment",
        "What do settings of Python and of memory bring?",
        (
            Variant("as it is"),
            Variant("PYTHONOPTIMIZE=2", {"PYTHONOPTIMIZE": "2"}),
            Variant("MALLOC_ARENA_MAX=2", {"MALLOC_ARENA_MAX": "2"}),
            Variant("huge pages", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
            Variant("jemalloc", {"LD_PRELOAD": "libjemalloc.so.2"}),  # Debian's libjemalloc2
            Variant("jemalloc alone", {"LD_PRELOAD": "libjemalloc.so.2", "PYTHONMALLOC": "malloc"}),
        ),
        ("read", "create", "list"),
    ),
    Trial(
        "totals",
        "What do exact totals cost writers?",
        (Variant("kept"), Variant("not kept", totals=False)),
        ("create", "patch"),
        (1, 16, 64, 256),
    ),
    Trial(
        "changes",
        "What does the log of changes cost writers?",
        (Variant("not logged", logged=False), Variant("logged")),
        ("create", "patch"),
        (1, 64, 256),
    ),
    Trial(
        "idempotency",
        "What does an Idempotency-Key cost a create (`keyed`)?",
        (Variant("grouped"), Variant("each alone", {"SERVICE_BATCHING": "off"})),
        ("create", "keyed"),
        (1, 64),
    ),
    Trial(
        "jobs",
        "What do jobs cost the creation of a user, which queues one?",
        (
            Variant("no job is queued", {"SERVICE_JOBS": "off"}, queued=False),
            Variant("queued", {"SERVICE_JOBS": "off"}),
            Variant("queued, NOTIFY in the transaction", {"SERVICE_JOBS": "off"}, told=True),
            Variant("queued and run", {"SERVICE_JOBS": "on"}),
        ),
        ("user",),
        (1, 64),
    ),
    Trial(
        "trigram",
        "What does the index of searches cost writers?",
        (Variant("with the index"), Variant("without", search=None)),
        ("create", "patch"),
        (1, 64),
    ),
    Trial(
        "cache",
        "Which tiers of the cache pay?",
        TIERS,
        ("read", "hot", "list", "create", "patch", "mixed"),
        (1, 64),
    ),
)
# This checkout against another: AGAINST=/path/of/the/other, in one run.
if against := os.environ.get("AGAINST"):
    TRIALS += tuple(
        Trial(
            f"tree-cache-{cache}",
            f"What do requests cost here and in the other checkout, with SERVICE_CACHE={cache}?",
            tuple(
                Variant(name, {"SERVICE_CACHE": cache}, tree=tree)
                for name, tree in (("other", Path(against)), ("this", ROOT))
            ),
            ("read", "hot", "list", "create", "patch", "mixed"),
            (1, 64),
        )
        for cache in ("off", "on")
    )
# This checkout on several versions of Python; see bench/interpreters.py.
if os.environ.get("PYTHONS"):
    TRIALS += tuple(
        Trial(
            f"pythons-cache-{cache}",
            f"What do requests cost in each Python, with SERVICE_CACHE={cache}?",
            tuple(
                Variant(version, {"SERVICE_CACHE": cache}, python=path)
                for version, path in interpreters.pythons().items()
            ),
            workloads,
        )
        for cache, workloads in (
            ("off", ("read", "list", "create", "patch", "mixed")),
            ("on", ("hot",)),
        )
    )


class Row(NamedTuple):
    """The medians of one variant; microseconds of CPU per request, milliseconds, MiB."""

    workload: str
    connections: int
    variant: str
    rate: float
    p50: float
    p99: float
    server: float
    database: float
    total: float
    ratio: float  # of the CPU of the default, by rounds
    memory: float  # the most of the server


# Trials without wrk: each makes its own table.
TABLES: dict[str, Callable[[StagingTable], str]] = {
    "json-agg": jsonagg.table,
    "list-cost": listcost.table,
    "compress": compresscost.table,
    "dashboard": dashboardcost.table,
    "imports": importcost.table,
    "multi-row": multirow.table,
    "eviction": eviction.table,
    "taken-keys": takencost.table,
    "redis": rediscost.table,
    "upsert": upsert.table,
    "job-loop": jobscost.table,
    "webhooks": webhookcost.table,
    "start": startcost.table,
    "interpreters": interpreters.table,
    "collecting": interpreters.collecting,
    "compiled": compiled.table,
    "orm": ormcost.table,
}


# Trials that need neither stores nor a server.
PLAIN_TABLES: dict[str, Callable[[], str]] = {
    "objects": micro.table,
    "path": pathcost.table,
    "guard": guardcost.table,
    "metrics": metricscost.table,
    "limits": limitcost.table,
}


def tabled(name: str) -> str:
    """Return the table of a trial that makes its own."""
    if name in PLAIN_TABLES:
        return PLAIN_TABLES[name]()
    with _staged() as on:
        return TABLES[name](on)


def run(trial: Trial, rounds: int, seconds: int, say: Callable[[str], None]) -> list[Row]:
    """Start all variants and measure them in turn, after a second of warm-up each."""
    with ExitStack() as held:
        on = held.enter_context(_staged(trial.items))
        servers = [
            held.enter_context(_served(one, on, f"variant_{place}"))
            for place, one in enumerate(trial.variants)
        ]
        found: dict[tuple[str, int], list[list[Run]]] = {}
        for number in range(rounds + 1):
            for workload in trial.workloads:
                for connections in trial.connections if number else trial.connections[:1]:
                    cell = Cell(workload, connections, 1, trial.items)
                    runs = _turn(on, servers, cell, seconds if number else 1, number)
                    if number:
                        found.setdefault((workload, connections), []).append(runs)
            say(f"{trial.name}: round {number} of {rounds}")
    return list(_rows(trial, found))


@contextmanager
def stage_in_temporary() -> Iterator[StagingTable]:
    """Run temporary, empty stores."""
    with tempfile.TemporaryDirectory(prefix="trials-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL runs as another user under root
        with stage(directory) as on:
            yield on


@contextmanager
def _staged(items: int = ITEMS) -> Iterator[StagingTable]:
    with stage_in_temporary() as on:
        fill(on, items)
        yield on


@contextmanager
def _served(variant: Variant, on: StagingTable, database: str) -> Iterator[Server]:
    program = variant.program(database)
    prepare(on, program)
    keep_totals(on.of(program), kept=variant.totals)
    queue_jobs(on.of(program), queued=variant.queued, told=variant.told)
    search_index(on.of(program), variant.search)
    log_changes(on.of(program), logged=variant.logged)
    with served(program, on, variant.workers) as server:
        yield server


def _turn(
    on: StagingTable, servers: list[Server], cell: Cell, seconds: int, number: int
) -> list[Run]:
    runs = {}
    shift = number % len(servers)
    order = [*range(len(servers))]
    for place in (*order[shift:], *order[:shift]):
        runs[place] = measure(servers[place], on, cell, seconds, number)
        if cell.workload in WRITING:
            settle(on.of(servers[place].program), cell.items)
    return [runs[place] for place in order]


def _rows(trial: Trial, found: dict[tuple[str, int], list[list[Run]]]) -> Iterator[Row]:
    for (workload, connections), turns in found.items():
        for place, variant in enumerate(trial.variants):
            runs = [turn[place] for turn in turns]

            def middle(value: Callable[[Run], float], runs: list[Run] = runs) -> float:
                return statistics.median(value(one) for one in runs)

            yield Row(
                workload,
                connections,
                variant.name,
                middle(lambda one: one.rate),
                middle(lambda one: one.p50),
                middle(lambda one: one.p99),
                middle(lambda one: one.cpu.server),
                middle(lambda one: one.cpu.database),
                middle(lambda one: one.cpu.total),
                statistics.median(turn[place].cpu.total / turn[0].cpu.total for turn in turns),
                middle(lambda one: one.rss),
            )


HEADER = (
    "| workload | connections | | requests/s | p50 ms | p99 ms | CPU us: server | database | both"
    " | of the first | MiB |"
)


def shown(trial: Trial, rows: list[Row]) -> str:
    """Return a table in Markdown."""
    lines = [
        f"**{trial.question}** (`{trial.name}`)",
        "",
        HEADER,
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.workload} | {row.connections} | {row.variant} | {row.rate:,.0f} | {row.p50:.2f}"
        f" | {row.p99:.2f} | {row.server:.1f} | {row.database:.1f} | {row.total:.1f}"
        f" | {row.ratio:.2f} | {row.memory:.0f} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])
