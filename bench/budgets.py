"""Budgets: required ratios to an opponent or a limit, each with its reason."""

import operator
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from bench.result import Result, Run

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


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ratio of two contestants: medians of one run, under the same conditions by default.

    Args:
        workload: a name, or `every` for each measured workload.
        of: the contestant whose figure is judged.
        against: a contestant's name; `best other` for the best of the opponents and references.
        against_workload, against_items: conditions of the other figure, if they differ.
        measure: `rate` (requests/s), `p50` (ms) or `cpu` (us per request, load generator left out).
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
    measure: Literal["rate", "p50", "cpu"] = "rate"
    connections: int | None = None
    workers: int = 1
    items: int | None = None
    at_least: float | None = None
    at_most: float | None = None
    met: bool = True

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.name}: give at_least, at_most or both")


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


def _verdicts(result: Result, budget: Budget) -> Iterator[Verdict]:
    usual = {one.name: one.connections for one in result.workloads}
    default = int(result.settings.get("items", "0"))
    items = budget.items or default
    every = budget.workload == "every"
    for name in usual if every else [budget.workload]:
        connections = budget.connections or usual.get(name, 64)
        place = (connections, budget.workers)
        mine = _median(result, budget, budget.of, (name, items), place)
        other = (budget.against_workload or name, budget.against_items or items)
        if budget.against == BEST:
            theirs = _best(result, budget, other, place)
        else:
            theirs = _median(result, budget, budget.against, other, place)
        ratio = mine / theirs if mine is not None and theirs else None
        if ratio is None and every:
            continue  # some contestants do not take part in some workloads
        yield _verdict(budget, f"{budget.name}: {name}" if every else budget.name, ratio)


def _verdict(budget: Budget, name: str, ratio: float | None) -> Verdict:
    least, most = budget.at_least, budget.at_most
    bounds = [f">= {least:g}"] if least is not None else []
    bounds += [f"<= {most:g}"] if most is not None else []
    holds = None
    if ratio is not None:
        holds = (least is None or ratio >= least) and (most is None or ratio <= most)
    what = {"rate": "requests/s", "p50": "p50", "cpu": "CPU per request"}[budget.measure]
    against = budget.against if budget.against != budget.of else "its own"
    if budget.against_workload:
        against += f" {budget.against_workload}"
    if budget.against_items:
        against += f" with {budget.against_items:,} rows"
    goal = f"{what} {' and '.join(bounds)} of {against}"
    bound = least if least is not None else most
    assert bound is not None
    return Verdict(name, budget.reason, goal, ratio, bound, holds, budget.met)


def _median(
    result: Result, budget: Budget, who: str, what: tuple[str, int], place: tuple[int, int]
) -> float | None:
    found = [
        _value(run, budget.measure)
        for run in result.runs
        if run.contestant == who
        and (run.workload, run.items) == what
        and (run.connections, run.workers) == place
        and run.offered is None
    ]
    return statistics.median(found) if found else None


def _best(
    result: Result, budget: Budget, what: tuple[str, int], place: tuple[int, int]
) -> float | None:
    others = [one.name for one in result.contestants if one.kind in {"opponent", "reference"}]
    found = [_median(result, budget, name, what, place) for name in others]
    better = max if budget.measure == "rate" else min
    return better((one for one in found if one is not None), default=None)


def _value(run: Run, measure: str) -> float:
    read = {"rate": operator.attrgetter("rate"), "p50": operator.attrgetter("p50")}
    return float(read[measure](run) if measure in read else run.cpu.total)
