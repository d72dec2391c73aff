"""The result of a run: the Structs of its JSON file."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct, field

Kind = Literal["ours", "reference", "opponent", "limit"]


class Contestant(Struct, frozen=True):
    """A contestant: its command, and what is unfair in whose favour."""

    name: str
    title: str
    kind: Kind
    about: str
    command: str = ""
    unfair: str = ""


class Workload(Struct, frozen=True):
    """A workload; `connections` is its default number of connections."""

    name: str
    title: str
    about: str
    connections: int = 64


class CPU(Struct, frozen=True):
    """Microseconds of CPU per request, with all children and kernel time."""

    server: float
    database: float
    redis: float
    load: float

    @property
    def total(self) -> float:
        """The CPU of a request without the load generator."""
        return self.server + self.database + self.redis


class Run(Struct, frozen=True, kw_only=True):
    """One contestant under one workload in one round; latencies in milliseconds.

    `offered` is the fixed rate in requests/s, None if each connection sends its next request at
    once. With a fixed rate latencies count from when a request was due; `reached` is whether the
    contestant kept up, and `late` the 99th percentile of how late the load generator was itself.
    `rss` is the peak in MiB of all processes of the server.
    """

    workload: str
    contestant: str
    connections: int
    workers: int
    items: int
    round: int
    requests: int
    seconds: float
    errors: int
    p50: float
    p95: float
    p99: float
    cpu: CPU
    p999: float | None = None
    rss: float = 0.0
    offered: float | None = None
    reached: bool = True
    late: float | None = None

    @property
    def rate(self) -> float:
        """Successful requests per second."""
        return max(self.requests - self.errors, 0) / self.seconds


class Agreement(Struct, frozen=True):
    """The correctness run of a contestant: equal answers, intended differences, errors."""

    contestant: str
    requests: int
    agreed: int
    intended: dict[str, int]
    wrong: list[str]


class Figure(Struct, frozen=True):
    """A named number of a table, with minimum and maximum of its repeats."""

    name: str
    value: float
    least: float
    most: float


class Table(Struct, frozen=True):
    """A table of figures: their `unit`, and a description in `about`."""

    name: str
    title: str
    unit: str
    about: str
    figures: list[Figure]


class Result(Struct, frozen=True, kw_only=True):
    """All data of a run of the benchmark.

    `commit` is the commit that was measured, with `-dirty` if files differed from it, or empty.
    """

    taken: str
    commit: str = ""
    command: str
    seconds: float
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, str]
    contestants: list[Contestant]
    workloads: list[Workload]
    allowed: dict[str, str] = field(default_factory=dict)
    agreements: list[Agreement] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Spread(NamedTuple):
    """Median, minimum and maximum of the rounds."""

    median: float
    least: float
    most: float


def read(path: Path) -> Result:
    return msgspec.json.decode(path.read_bytes(), type=Result)


def write(result: Result, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def spread(values: list[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def of(runs: list[Run], value: Callable[[Run], float]) -> Spread | None:
    """Return the spread of a value over the rounds; None without rounds."""
    found = [value(run) for run in runs]
    return spread(found) if found else None


def multiple(result: Result, runs: list[Run]) -> Spread | None:
    """Return the server's CPU per request as a multiple of a constant answer's.

    That one is from the same round, at as many connections. None for more workers than one, for a
    fixed rate, for pgbench, which is no server, and without such a round.
    """
    constant = {
        (run.round, run.connections): run.cpu.server
        for run in result.runs
        if (run.contestant, run.workload) == ("constant", "constant")
    }
    found = [
        run.cpu.server / constant[place]
        for run in runs
        if (run.workers, run.offered) == (1, None)
        and run.contestant != "pgbench"
        and constant.get(place := (run.round, run.connections), 0) > 0
    ]
    return spread(found) if found else None
