"""Which runs stand for what: the usual case of a workload, rounds side by side."""

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from bench.result import Contestant, Kind, Result, Run, Spread, Workload, of, spread

CONNECTIONS = 64
Named = TypeVar("Named")


class Case(NamedTuple):
    """What a row of the table of all runs has in common; its rounds are apart."""

    workload: str
    contestant: str
    connections: int
    workers: int
    items: int
    offered: float | None


class Paired(NamedTuple):
    """A ratio taken within each round, and the number of rounds."""

    spread: Spread
    rounds: int


class Book:
    """A result, asked by name; what the result does not name is there all the same."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.contestants = _known(
            {one.name: one for one in result.contestants},
            [run.contestant for run in result.runs],
            lambda name: Contestant(name, name, "opponent", ""),
        )
        self.workloads = _known(
            {one.name: one for one in result.workloads},
            [run.workload for run in result.runs],
            lambda name: Workload(name, name, ""),
        )
        self.closed = [run for run in result.runs if run.offered is None]
        self.items = statistics.mode(run.items for run in self.closed) if self.closed else None
        self.ours = self._first("ours", "swiftlet")
        self.reference = self._first("reference", "reference")

    def _first(self, kind: Kind, wanted: str) -> str | None:
        names = [one.name for one in self.contestants.values() if one.kind == kind]
        return wanted if wanted in names else next(iter(names), None)

    def kind(self, contestant: str) -> Kind:
        return self.contestants[contestant].kind

    def look(self, contestant: str) -> str:
        """The classes its marks have: its kind, and which of its kind it is."""
        same = [one.name for one in self.contestants.values() if one.kind == self.kind(contestant)]
        return f"{self.kind(contestant)} n{same.index(contestant) % 6}"

    def shape(self, contestant: str) -> int:
        return list(self.contestants).index(contestant)

    def sized(self, runs: Iterable[Run]) -> list[Run]:
        """Those with the usual number of items, else with the one most of them have."""
        return _mostly(list(runs), lambda run: run.items, self.items)

    def usual(self, workload: str, *, workers: int = 1) -> list[Run]:
        """The workload's runs at 64 connections, or at the number it is asked with."""
        found = self.sized(
            run for run in self.closed if run.workload == workload and run.workers == workers
        )
        asked = self.workloads[workload].connections if workload in self.workloads else CONNECTIONS
        return _mostly(found, lambda run: run.connections, asked, CONNECTIONS)


def rate(run: Run) -> float:
    """Requests per second, 0 for a run that took no time."""
    return run.rate if run.seconds > 0 else 0.0


def by(runs: Iterable[Run], contestant: str) -> list[Run]:
    return [run for run in runs if run.contestant == contestant]


def paired(
    above: Iterable[Run], below: Iterable[Run], value: Callable[[Run], float] = rate
) -> Paired | None:
    """`value` of `above` by that of `below`, round by round; None where no round has both."""
    first = {run.round: value(run) for run in above}
    second = {run.round: value(run) for run in below}
    ratios = [first[one] / second[one] for one in first if second.get(one, 0) > 0]
    return Paired(spread(ratios), len(ratios)) if ratios else None


def cases(runs: Iterable[Run]) -> dict[Case, list[Run]]:
    """All runs by what they have in common, in the order they came."""
    found: dict[Case, list[Run]] = {}
    for run in runs:
        case = Case(
            run.workload,
            run.contestant,
            run.connections,
            run.workers,
            run.items,
            run.offered,
        )
        found.setdefault(case, []).append(run)
    return found


def median(runs: list[Run], value: Callable[[Run], float]) -> float:
    found = of(runs, value)
    return found.median if found else 0.0


def rounds(runs: Iterable[Run]) -> int:
    return len({run.round for run in runs})


def _mostly(runs: list[Run], value: Callable[[Run], int], *wanted: int | None) -> list[Run]:
    present = [value(run) for run in runs]
    if not present:
        return []
    chosen = next((one for one in wanted if one in present), statistics.mode(present))
    return [run for run in runs if value(run) == chosen]


def _known(
    told: dict[str, Named], met: Iterable[str], made: Callable[[str], Named]
) -> dict[str, Named]:
    return told | {name: made(name) for name in met if name not in told}
