"""Budgets: required ratios to an opponent or a limit, each with its reason."""

import statistics
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from bench.result import Result, Run
from bench.workloads import AT_REST, BY_NAME, CONSTANT, QUICK, Cell

BUDGETS = Path(__file__).parent / "budgets.toml"
BEST = "best other"
OURS = "swiftlet"


class Verdict(Struct, frozen=True):
    """One budget judged by one result.

    `holds` is None where nothing was measured; `expected` is False for a budget marked
    "not yet met".
    """

    name: str
    reason: str
    goal: str
    found: float | None
    bound: float
    holds: bool | None
    expected: bool


Measure = Literal["rate", "p50", "cpu", "server"]


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ratio of two contestants in one run, under the same conditions by default.

    It is taken within each round, and the median of the rounds counts.

    Args:
        workload: a name, or `every` for each measured workload.
        of: the contestant whose figure is judged.
        against: a contestant's name; `best other` for the best of the opponents and references.
            `constant` is compared in its own workload: a multiple of a constant answer.
        against_workload, against_items: conditions of the other figure, if they differ.
        measure: `rate` (requests/s), `p50` (ms), `cpu` (us per request, load generator left out)
            or `server` (us per request of the server alone).
        connections, workers, items: conditions; None means the workload's own, 1, and the default.
        at_least, at_most: the bounds.
        met: False for a goal that is not reached yet.
    """

    name: str
    reason: str
    workload: str
    of: str = OURS
    against: str
    against_workload: str | None = None
    against_items: int | None = None
    measure: Measure = "rate"
    connections: int | None = None
    workers: int = 1
    items: int | None = None
    at_least: float | None = None
    at_most: float | None = None
    met: bool = True

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.name}: give at_least, at_most or both")

    @property
    def other_workload(self) -> str | None:
        """The workload of the other figure, None for the same."""
        return CONSTANT if self.against == CONSTANT else self.against_workload


class _File(Struct, forbid_unknown_fields=True):
    budget: list[Budget]


def load(path: Path = BUDGETS) -> list[Budget]:
    """Read the budgets of a file.

    Raises:
        msgspec.ValidationError: a field is unknown, missing or has the wrong type.
    """
    return msgspec.convert(tomllib.loads(path.read_text()), _File).budget


def judge(result: Result, budgets: list[Budget]) -> list[Verdict]:
    """Return the verdict of each budget; `every` gives one per workload."""
    return [verdict for budget in budgets for verdict in _verdicts(result, budget)]


def broken(verdicts: list[Verdict]) -> list[Verdict]:
    """Return the verdicts that must hold and do not."""
    return [one for one in verdicts if one.expected and one.holds is False]


def needed(
    budgets: list[Budget], names: Sequence[str], best: Sequence[str], items: int
) -> dict[Cell, frozenset[str]]:
    """Return the cells that budgets compare, and with which contestants.

    Args:
        budgets: those to judge later.
        names: the workloads that `every` stands for; none for those of a quick run.
        best: the contestants among which the best other is looked for.
        items: the default number of rows. Budgets with another are left out.
    """
    found: dict[Cell, frozenset[str]] = {}
    for budget in budgets:
        if {budget.items, budget.against_items} - {None, items} or budget.workers != 1:
            continue
        others = best if budget.against == BEST else (budget.against,)
        every = names or (AT_REST if budget.connections else QUICK)
        for name in every if budget.workload == "every" else [budget.workload]:
            connections = budget.connections or BY_NAME[name].connections
            mine = Cell(name, connections, 1, items)
            theirs = mine._replace(workload=budget.other_workload or name)
            found[theirs] = found.get(theirs, frozenset()) | frozenset(others)
            found[mine] = found.get(mine, frozenset()) | {budget.of}
    return found


def _verdicts(result: Result, budget: Budget) -> Iterator[Verdict]:
    usual = {one.name: one.connections for one in result.workloads}
    default = int(result.settings.get("items", "0"))
    items = budget.items or default
    every = budget.workload == "every"
    for name in usual if every else [budget.workload]:
        connections = budget.connections or usual.get(name, 64)
        place = (connections, budget.workers)
        mine = _rounds(result, budget, budget.of, (name, items), place)
        other = (budget.other_workload or name, budget.against_items or items)
        if budget.against == BEST:
            theirs = _best(result, budget, other, place)
        else:
            theirs = _rounds(result, budget, budget.against, other, place)
        ratios = [mine[one] / theirs[one] for one in mine if theirs.get(one)]
        if not ratios and every:
            continue  # some contestants do not take part in some workloads
        ratio = statistics.median(ratios) if ratios else None
        yield _verdict(budget, f"{budget.name}: {name}" if every else budget.name, ratio)


def _verdict(budget: Budget, name: str, ratio: float | None) -> Verdict:
    least, most = budget.at_least, budget.at_most
    bounds = [f">= {least:g}"] if least is not None else []
    bounds += [f"<= {most:g}"] if most is not None else []
    holds = None
    if ratio is not None:
        holds = (least is None or ratio >= least) and (most is None or ratio <= most)
    what = {
        "rate": "requests/s",
        "p50": "p50",
        "cpu": "CPU per request",
        "server": "the server's CPU per request",
    }[budget.measure]
    against = budget.against if budget.against != budget.of else "its own"
    if budget.against_workload:
        against += f" {budget.against_workload}"
    if budget.against_items:
        against += f" with {budget.against_items:,} rows"
    goal = f"{what} {' and '.join(bounds)} of {against}"
    bound = least if least is not None else most
    assert bound is not None
    return Verdict(name, budget.reason, goal, ratio, bound, holds, budget.met)


def _rounds(
    result: Result, budget: Budget, who: str, what: tuple[str, int], place: tuple[int, int]
) -> dict[int, float]:
    """Return the figure of a contestant by round."""
    return {
        run.round: _value(run, budget.measure)
        for run in result.runs
        if run.contestant == who
        and (run.workload, run.items) == what
        and (run.connections, run.workers) == place
        and run.offered is None
    }


def _best(
    result: Result, budget: Budget, what: tuple[str, int], place: tuple[int, int]
) -> dict[int, float]:
    """Return the figures of the one whose median is the best."""
    others = [one.name for one in result.contestants if one.kind in {"opponent", "reference"}]
    found = [_rounds(result, budget, name, what, place) for name in others]
    better = max if budget.measure == "rate" else min
    return better(
        (one for one in found if one), key=lambda one: statistics.median(one.values()), default={}
    )


def _value(run: Run, measure: Measure) -> float:
    match measure:
        case "rate":
            return run.rate
        case "p50":
            return run.p50
        case "cpu":
            return run.cpu.total
        case "server":
            return run.cpu.server
