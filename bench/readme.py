"""Write the tables of README.md and docs/performance.md from a result."""

from collections.abc import Callable, Sequence

from bench.contestants import OURS, PLAIN
from bench.report.pick import paired
from bench.result import Result, Run, Spread, multiple, of
from bench.workloads import AT_REST

# Columns: contestants that are compared with ours.
OTHERS = ("reference", "reference-cached", "blacksheep", "fastify", "pgbench")
COSTS = (OURS, PLAIN, "reference", "reference-cached", "blacksheep", "fastify")
ROWS = (
    *("read", "hot", "list", "list-no-cache", "page-100000", "cursor-100000", "search"),
    *("create", "create-1000", "patch", "mixed", "mixed-bulk"),
)
# Rows of the README, compared with the reference only.
FEW = ("read", "list-no-cache", "create")
NONE = "-"


def measured(result: Result) -> str:
    """Return the sentence that names the commit and the run."""
    command = result.command.replace("python -m bench measure", "just bench").strip()
    rounds, seconds = (result.settings[name] for name in ("rounds", "seconds per measurement"))
    return (
        f"Commit {result.commit}, {result.taken[:10]} (`{command}`): medians of {rounds} rounds of"
        f" {seconds} s (least and most)."
    )


def few(result: Result) -> str:
    """Return the table of the README: ours, and the ratio to the reference."""
    head = (
        *("workload (connections)", "requests/s", "CPU us", "of a constant answer"),
        *("cache off: requests/s", "CPU us", "of a constant answer", "times FastAPI reference"),
    )
    rows = []
    for title, connections, name in _shown(result, FEW):
        mine, plain = _at(result, name, connections, OURS), _at(result, name, connections, PLAIN)
        ratio = _ratio(mine, _at(result, name, connections, "reference"))
        rows.append([title, *_brief(result, mine), *_brief(result, plain), ratio])
    return _table(head, rows)


def ours(result: Result) -> str:
    """Return the rates and the CPU of ours, by default and with the cache off."""
    columns = ("requests/s", "CPU us: server", "with stores", "of a constant answer")
    head = ("workload (connections)", *columns, f"cache off: {columns[0]}", *columns[1:])
    rows = [
        [
            title,
            *_full(result, _at(result, name, connections, OURS)),
            *_full(result, _at(result, name, connections, PLAIN)),
        ]
        for title, connections, name in (*_shown(result, ROWS), *_shown(result, AT_REST, 1))
    ]
    return _table(head, rows)


def rows(result: Result) -> str:
    """Return our requests/s by default, and the ratio to each of the others."""
    titles = {one.name: one.title for one in result.contestants}
    others = [name for name in OTHERS if name in titles]
    head = (
        *("workload (connections)", "Swiftlet, requests/s"),
        *(f"times {titles[name]}" for name in others),
    )
    found = []
    for title, connections, name in _shown(result, ROWS):
        mine = _at(result, name, connections, OURS)
        ratios = [_ratio(mine, _at(result, name, connections, other)) for other in others]
        found.append([title, _rate(mine), *ratios])
    return _table(head, found)


def costs(result: Result) -> str:
    """Return the CPU per request of everyone, with that of the stores."""
    titles = {one.name: one.title for one in result.contestants}
    shown = [name for name in COSTS if name in titles]
    found = [
        [
            title,
            *(
                _number(of(_at(result, name, connections, who), lambda run: run.cpu.total))
                for who in shown
            ),
        ]
        for title, connections, name in (*_shown(result, ROWS), *_shown(result, AT_REST, 1))
    ]
    return _table(("workload (connections)", *(titles[name] for name in shown)), found)


def rates(result: Result) -> str:
    """Return the latencies and the CPU at fixed rates; empty if there were none."""
    titles = {one.name: one.title for one in result.contestants}
    names = {one.name: one.title for one in result.workloads}
    head = ("workload, requests/s", "", "p50 ms", "p99 ms", "p99.9 ms", "CPU us: server", "all")
    cases: dict[tuple[str, float, str], list[Run]] = {}
    for run in result.runs:
        if run.offered is not None:
            cases.setdefault((run.workload, run.offered, run.contestant), []).append(run)
    if not cases:
        return ""
    found = []
    order = [*titles]
    for (name, offered, who), runs in sorted(
        cases.items(), key=lambda one: (*one[0][:2], order.index(one[0][2]))
    ):
        reached = sum(run.reached for run in runs) * 2 > len(runs)
        values: tuple[Callable[[Run], float], ...] = (
            lambda run: run.p50,
            lambda run: run.p99,
            lambda run: run.p999 or 0.0,
        )
        times = [_number(of(runs, value), 2) for value in values]
        if not reached:
            got = of(runs, lambda run: run.rate)
            times = [f"does not reach it: {_number(got, 0)}/s", NONE, NONE]
        found.append(
            [
                f"{names[name]}, {offered:,.0f}",
                titles[who],
                *times,
                _number(of(runs, lambda run: run.cpu.server)),
                _number(of(runs, lambda run: run.cpu.total)),
            ]
        )
    return _table(head, found)


TABLES: tuple[Callable[[Result], str], ...] = (ours, rows, costs, rates)


def _shown(
    result: Result, names: Sequence[str], connections: int | None = None
) -> list[tuple[str, int, str]]:
    """Return title, connections and name of the workloads that were measured with ours."""
    found = []
    for one in result.workloads:
        asked = connections or one.connections
        if one.name in names and any(_at(result, one.name, asked, who) for who in (OURS, PLAIN)):
            found.append((f"{one.title} ({asked:,})", asked, one.name))
    return found


def _brief(result: Result, runs: list[Run]) -> list[str]:
    """Return requests/s, CPU with the stores, and the multiple of a constant answer."""
    return [
        _rate(runs),
        _number(of(runs, lambda run: run.cpu.total)),
        _number(multiple(result, runs), 2),
    ]


def _full(result: Result, runs: list[Run]) -> list[str]:
    rate, total, of_constant = _brief(result, runs)
    return [rate, _number(of(runs, lambda run: run.cpu.server)), total, of_constant]


def _rate(runs: list[Run]) -> str:
    found = of(runs, lambda run: run.rate)
    return f"{found.median:,.0f} ({found.least:,.0f}-{found.most:,.0f})" if found else NONE


def _number(found: Spread | None, digits: int = 1) -> str:
    return f"{found.median:,.{digits}f}" if found else NONE


def _ratio(mine: list[Run], theirs: list[Run]) -> str:
    found = paired(mine, theirs)
    if found is None:
        return NONE
    ratio = found.spread.median
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def _at(result: Result, workload: str, connections: int, contestant: str) -> list[Run]:
    place = (workload, contestant, connections, 1, int(result.settings["items"]), None)
    return [
        run
        for run in result.runs
        if (run.workload, run.contestant, run.connections, run.workers, run.items, run.offered)
        == place
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
