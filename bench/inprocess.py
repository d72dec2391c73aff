"""Variants of our service without the sockets of clients: steady figures on a busy machine.

Each variant is a process of bench/socketless.py, and has its own database. They take turns.
"""

import os
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.contestants import OURS, PROGRAMS, PYTHON, ROOT
from bench.stage import StagingTable, prepare

KINDS = ("hot", "read", "list", "create", "patch")
TURNS = 10  # requests of each connection in a round
WARMING = 3  # rounds
SERVICE = next(one for one in PROGRAMS if one.name == OURS)


class Inside(NamedTuple):
    """A variant: its interpreter, checkout and environment variables."""

    name: str
    python: str = PYTHON
    tree: Path = ROOT
    environ: Mapping[str, str] = {}


class Process(NamedTuple):
    """A running variant; the other half of bench/socketless.py."""

    process: "subprocess.Popen[str]"

    def cost(self, kind: str) -> float:
        """Return the microseconds of CPU per request."""
        given, answers = self.process.stdin, self.process.stdout
        assert given is not None
        assert answers is not None
        given.write(f"{kind} {TURNS}\n")
        given.flush()
        if not (line := answers.readline()):
            raise SystemExit(f"a variant has ended: {self.process.args!r}")
        return float(line)


def measured(
    on: StagingTable, variants: Sequence[Inside], kinds: Sequence[str] = KINDS, rounds: int = 20
) -> dict[str, dict[str, list[float]]]:
    """Return the microseconds of CPU per request: by kind, by variant, one a round."""
    with ExitStack() as held:
        running: dict[tuple[str, str], Process] = {}
        for place, one in enumerate(variants):
            for kind in kinds:
                cache = "local" if kind == "hot" else "off"
                if (one.name, cache) not in running:
                    database = f"inside_{place}_{cache}"
                    prepare(on, SERVICE._replace(database=database))
                    its = on.of(SERVICE._replace(database=database))
                    running[one.name, cache] = held.enter_context(_started(one, its, cache))
        found: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
        for number in range(-WARMING, rounds):
            shift = number % len(variants)
            for kind in kinds:
                cache = "local" if kind == "hot" else "off"
                for one in (*variants[shift:], *variants[:shift]):
                    cost = running[one.name, cache].cost(kind)
                    if number >= 0:
                        found[kind].setdefault(one.name, []).append(cost)
    return found


@contextmanager
def _started(one: Inside, on: StagingTable, cache: str) -> Iterator[Process]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    process = subprocess.Popen(
        [one.python, "-m", "bench.socketless"],
        cwd=one.tree,
        env={
            **kept,
            "PYTHONPATH": str(one.tree),
            "DATABASE_URL": on.database_url,
            "SERVICE_CACHE": cache,
            "SERVICE_JOBS": "off",
            # Not logged, however busy the machine is.
            "SERVICE_SLOW_REQUEST_MS": "60000",
            "SERVICE_SLOW_QUERY_MS": "60000",
            **one.environ,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Process(process)
        finally:
            process.terminate()


def table_of(title: str, found: dict[str, dict[str, list[float]]]) -> str:
    """Return a table in Markdown: the CPU per request, and its ratio to the first in a round."""
    names = list(next(iter(found.values())))
    lines = [
        title,
        "",
        f"| | {' | '.join(f'{kind}: CPU us | of the first (quartiles)' for kind in found)} |",
        "|---" * (1 + 2 * len(found)) + "|",
    ]
    for name in names:
        parts = [name]
        for costs in found.values():
            ratios = [one / other for one, other in zip(costs[name], costs[names[0]], strict=True)]
            least, middle, most = statistics.quantiles(ratios, n=4)
            parts.append(f"{statistics.median(costs[name]):.1f}")
            parts.append(f"{middle:.2f} ({least:.2f}-{most:.2f})")
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join([*lines, ""])
