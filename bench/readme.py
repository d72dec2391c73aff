"""Write the tables of README.md and docs/performance.md from results."""

from collections.abc import Sequence

from bench.contestants import CACHED, OURS
from bench.result import Result, Run, of
from bench.workloads import HOT

# Columns: contestants that are compared with ours.
OTHERS = ("reference", "reference-cached", "blacksheep", "fastify", "pgbench")
ROWS = (
    *("read", "hot", "list", "page-100000", "cursor-100000", "search"),
    *("create", "create-1000", "patch", "mixed", "mixed-bulk"),
)
# Rows of the README, compared with the reference only.
FEW = ("read", "list", "create")


def few(result: Result, later: Sequence[Result] = ()) -> str:
    """Return the three rows of the README."""
    return rows(result, later, shown=FEW, against=("reference",))


def rows(
    result: Result,
    later: Sequence[Result] = (),
    *,
    shown: Sequence[str] = ROWS,
    against: Sequence[str] = OTHERS,
) -> str:
    """Return our requests/s, and the ratio to each contestant, with one worker each.

    Our cache is off, except for hot reads. A row that a later result has too comes from there, with
    the figures of all contestants.
    """
    latest = {one.name: found for found in (result, *later) for one in found.workloads}
    titles = {one.name: one.title for one in result.contestants}
    others = [name for name in against if name in titles]
    lines = [
        "| workload (connections) | Swiftlet, requests/s | "
        + " | ".join(f"times {titles[name]}" for name in others)
        + " |",
        "|---" * (len(others) + 2) + "|",
    ]
    for workload in result.workloads:
        if workload.name not in shown:
            continue
        mine = CACHED if workload.name == HOT else OURS
        if not _at(result, workload.name, workload.connections, mine):
            continue
        found = latest[workload.name]
        ours = of(_at(found, workload.name, workload.connections, mine), lambda run: run.rate)
        if ours is None:
            continue
        ratios = [
            _ratio(found, workload.name, workload.connections, name, ours.median) for name in others
        ]
        lines.append(
            f"| {workload.title} ({workload.connections:,}) | {ours.median:,.0f}"
            f" ({ours.least:,.0f}-{ours.most:,.0f}) | {' | '.join(ratios)} |"
        )
    return "\n".join(lines)


def _ratio(result: Result, workload: str, connections: int, name: str, ours: float) -> str:
    theirs = of(_at(result, workload, connections, name), lambda run: run.rate)
    if theirs is None or not theirs.median:
        return "-"
    ratio = ours / theirs.median
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def _at(result: Result, workload: str, connections: int, contestant: str) -> list[Run]:
    place = (workload, contestant, connections, 1, int(result.settings["items"]), None)
    return [
        run
        for run in result.runs
        if (run.workload, run.contestant, run.connections, run.workers, run.items, run.offered)
        == place
    ]
