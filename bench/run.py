"""A run: first correctness, then rounds that interleave all contestants."""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path

from msgspec import Struct

from bench import contestants, correctness, layers, limits, machine, micro, openloop
from bench.contestants import (
    MAIN,
    OTHERS,
    OURS,
    PGBENCH,
    PGBENCH_WORKLOADS,
    PROGRAMS,
    PUBLIC,
    Program,
)
from bench.measure import measure, pgbench
from bench.result import Agreement, Result, Run, Table
from bench.stage import (
    OUR_SEARCH,
    THEIR_SEARCH,
    Server,
    StagingTable,
    create,
    empty_caches,
    fill,
    prepare,
    quiet,
    searches_by_index,
    served,
    settle,
    sql,
    stage,
)
from bench.workloads import BY_NAME, HOT, HOT_SECONDS, WORKLOADS, WRITING, Cell, cells

CORRECTNESS_ITEMS = 200
WARMING = {"constant", "read", "list", "create", "patch"}
# Of a load at a fixed rate at least: a thousandth of 1,000/s must be some requests.
RATE_SECONDS = 3

Say = Callable[[str], None]


class Options(Struct, frozen=True, kw_only=True):
    """What a run measures; `only` has names of contestants, `names` those of workloads.

    Args:
        wanted: exactly these cells with these contestants, instead of `names`; without correctness.
    """

    command: str
    rounds: int
    seconds: int
    items: int
    quick: bool = False
    only: list[str] = []
    names: list[str] = []
    slow: float = 0.0
    reference_path: Path | None = None
    tables: bool = True
    wanted: Mapping[Cell, frozenset[str]] = {}


def run(options: Options, say: Say, keep: Callable[[Result], None]) -> Result:
    """Measure, from a minute to an hour. Exit if a program does not start.

    If the run does not come to its end, `keep` gets what was measured so far.
    """
    began = time.monotonic()
    commit = machine.commit()
    with ExitStack() as held:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        directory.chmod(0o711)  # PostgreSQL runs as another user under root
        say("starting PostgreSQL and Redis")
        on = held.enter_context(stage(directory))
        notes: list[str] = []
        programs = _programs(options, directory, notes)
        settings = machine.settings(on) | {
            "items": str(options.items),
            "rounds": str(options.rounds),
            "seconds per measurement": str(options.seconds),
        }
        versions = machine.versions(on)
        agreements = [] if options.wanted else _agree(programs, on, say)
        wrong = {one.contestant for one in agreements if one.wrong}
        notes += [f"{name} answers wrongly and was not measured" for name in sorted(wrong)]
        rounds = _Rounds(options, [one for one in programs if one.name not in wrong], on, say)

        def result(tables: list[Table], *more: str) -> Result:
            found = rounds.found
            measured = {one.contestant for one in found} | {one.name for one in programs}
            return Result(
                taken=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                commit=commit,
                command=options.command,
                seconds=round(time.monotonic() - began),
                machine=machine.machine(),
                versions=versions,
                settings=settings,
                contestants=[
                    one
                    for one in (*(program.described() for program in programs), PGBENCH)
                    if one.name in measured
                ],
                workloads=[
                    one for one in WORKLOADS if any(run.workload == one.name for run in found)
                ],
                allowed=correctness.ALLOWED,
                agreements=agreements,
                runs=found,
                tables=tables,
                notes=[*notes, *more],
            )

        try:
            rounds.run()
            tables = _tables(options, on, rounds.found, say) if options.tables else []
        except BaseException as error:  # Ctrl-C and SIGTERM too: what was measured is not lost
            if rounds.found:
                keep(
                    result([], f"ended early by {type(error).__name__}: this is a part of the run")
                )
            raise
        return result(tables)


def _programs(options: Options, directory: Path, notes: list[str]) -> list[Program]:
    programs = list(PROGRAMS)
    if options.reference_path is not None:
        programs.append(
            contestants.public_reference(options.reference_path, directory / "reference")
        )
    chosen: list[Program] = []
    for one in programs:
        program = one
        if options.only and program.name not in options.only:
            continue
        if options.wanted and not any(program.name in some for some in options.wanted.values()):
            continue
        if options.quick and not options.only and program.name in contestants.FULL_ONLY:
            continue
        if options.slow and program.name == OURS:
            program = contestants.slowed(program, options.slow)
            notes.append(f"{OURS} was slowed by {options.slow:g} ms per request, on purpose")
        if why := contestants.missing(program):
            notes.append(f"{program.name} was left out: {why}")
        else:
            chosen.append(program)
    return chosen


def agree(program: Program, on: StagingTable) -> Agreement:
    """Run the correctness script for a program, on a small table.

    Its searches are forced to use the trigram index, which such a small table would not need.
    """
    fill(on, CORRECTNESS_ITEMS)
    prepare(on, program)
    rows = sql(on, f"SELECT {', '.join(correctness.FIELDS)} FROM items ORDER BY id")
    items = [
        {**row, "price": None if row["price"] is None else float(row["price"])}
        for row in map(dict, rows)
    ]
    with searches_by_index(on, program.database), served(program, on, 1) as server:
        return correctness.check(server, items)


def search_of(program: Program) -> str:
    """Return the index of its searches."""
    return OUR_SEARCH if program.kind == "ours" else THEIR_SEARCH


def _agree(programs: list[Program], on: StagingTable, say: Say) -> list[Agreement]:
    agreements: list[Agreement] = []
    for program in programs:
        if program.rules is None:
            continue
        agreement = agree(program, on)
        agreements.append(agreement)
        say(
            f"correctness of {program.name}: {agreement.agreed} of {agreement.requests} right,"
            f" {sum(agreement.intended.values())} differ as allowed, {len(agreement.wrong)} wrong"
        )
        for line in agreement.wrong[:5]:
            say(f"  {line}")
    return agreements


class _Rounds:
    """The measurements: phases with the same servers and rows, each with rounds of all contestants.

    Args:
        found: what was measured so far.
    """

    def __init__(
        self, options: Options, programs: list[Program], on: StagingTable, say: Say
    ) -> None:
        self.options = options
        self.programs = programs
        self.on = on
        self.say = say
        self.found: list[Run] = []
        self.cells = [*options.wanted] or cells(options.names, options.items, quick=options.quick)
        if not openloop.AVAILABLE:
            self.cells = [cell for cell in self.cells if cell.offered is None]
            say("no fixed rates: they need Linux")
        self.began = 0.0
        self.done = 0

    def run(self) -> None:
        # In the order of `cells`.
        for (workers, items), part in groupby(self.cells, lambda cell: (cell.workers, cell.items)):
            phase = list(part)
            fill(self.on, items)
            with ExitStack() as held:
                wanted = [one for one in self.programs if self._serves(one, phase)]
                prepare(self.on, *wanted)
                if OTHERS not in {one.database for one in wanted} and any(
                    map(self._limited, phase)
                ):
                    create(self.on, OTHERS)  # for pgbench
                start = partial(served, on=self.on, workers=workers)
                kept = [held.enter_context(start(one)) for one in wanted if not one.fresh]
                self.say(f"{workers} worker(s), {items:,} items: warming up")
                self._warm(kept, phase)
                self.began = self.began or time.monotonic()
                for number in range(1, self.options.rounds + 1):
                    with ExitStack() as passing:
                        fresh = [passing.enter_context(start(one)) for one in wanted if one.fresh]
                        self._warm(fresh, phase)
                        self._round([*kept, *fresh], phase, number)

    def _round(self, servers: list[Server], phase: list[Cell], number: int) -> None:
        # Rotate the order, so that each contestant is first in some round.
        turn = number % max(len(servers), 1)
        for cell in phase:
            self.say(f"round {number} of {self.options.rounds}: {cell}{self._left()}")
            for server in (*servers[turn:], *servers[:turn]):
                if self._takes_part(server.program, cell):
                    self._measure(server, cell, number)
            if self._limited(cell):
                on = self.on.named(OTHERS)
                self._before(on, cell)
                self.found.append(pgbench(on, cell, self.options.seconds, number))
                self._after(on, cell)
            self.done += 1

    def _measure(self, server: Server, cell: Cell, number: int) -> None:
        on = self.on.of(server.program)
        if server.program.kind == "ours" and server.program.caches:
            empty_caches(on)  # else uniform reads would be hits in later rounds
        self._before(on, cell)
        if cell.workload == HOT and server.program.caches:
            measure(server, self.on, cell, HOT_SECONDS, number)
        seconds = self.options.seconds
        if cell.offered is not None:
            seconds = max(seconds, RATE_SECONDS)
        found = measure(server, self.on, cell, seconds, number)
        self._after(on, cell, server.program)
        self.found.append(found)
        if found.errors or not found.requests:
            self.say(f"{found.contestant}, {cell}: {found.errors} of {found.requests} failed")

    def _warm(self, servers: list[Server], phase: list[Cell]) -> None:
        """Send each kind of request for a second, to warm plans, caches and pools."""
        first = {cell.workload: cell for cell in reversed(phase) if cell.workload in WARMING}
        for name, cell in first.items():
            for server in servers:
                if any(
                    one.workload == name and self._takes_part(server.program, one) for one in phase
                ):
                    measure(server, self.on, cell._replace(offered=None), 1, 0)
                    self._after(self.on.of(server.program), cell, server.program)

    def _before(self, on: StagingTable, cell: Cell) -> None:
        quiet(on)
        if cell.workload in WRITING:
            sql(on, "CHECKPOINT")  # so that each contestant pays for the first change of a page

    def _after(self, on: StagingTable, cell: Cell, program: Program | None = None) -> None:
        if cell.workload in WRITING:
            settle(on, cell.items, program)

    def _serves(self, program: Program, phase: list[Cell]) -> bool:
        return program.most_workers >= phase[0].workers and any(
            self._takes_part(program, cell) for cell in phase
        )

    def _takes_part(self, program: Program, cell: Cell) -> bool:
        if self.options.wanted:
            return program.name in self.options.wanted[cell]
        usual = Cell(cell.workload, BY_NAME[cell.workload].connections, 1, self.options.items)
        return cell.workload in program.workloads and (
            cell == usual or self.options.quick or program.name in MAIN
        )

    def _limited(self, cell: Cell) -> bool:
        """Return whether pgbench is a limit here; above 64 it mostly starts processes."""
        if self.options.wanted:
            return PGBENCH.name in self.options.wanted[cell]
        return (
            cell.workload in PGBENCH_WORKLOADS
            and (not self.options.only or PGBENCH.name in self.options.only)
            and (cell.offered, cell.workers) == (None, 1)
            and cell.connections <= 64
        )

    def _left(self) -> str:
        if not self.done:
            return ""
        due = len(self.cells) * self.options.rounds - self.done
        minutes = (time.monotonic() - self.began) / self.done * due / 60
        return f"; about {minutes:.0f} min left"


def _tables(options: Options, on: StagingTable, found: list[Run], say: Say) -> list[Table]:
    say("micro tables, the layers of a request, COPY")
    if options.quick:
        micro.REPEATS = layers.REPEATS = limits.REPEATS = 1
    fill(on, options.items)
    return [*micro.tables(), *layers.tables(on, found), limits.copy(on, options.items)]


def check_names(names: list[str], only: list[str]) -> str | None:
    """Return an error for unknown names, or None."""
    known = {*(one.name for one in PROGRAMS), "pgbench", PUBLIC}
    wrong = [name for name in names if name not in BY_NAME]
    wrong += [name for name in only if name not in known]
    if not wrong:
        return None
    return (
        f"unknown: {', '.join(wrong)}; workloads are {', '.join(BY_NAME)};"
        f" contestants are {', '.join(sorted(known))}"
    )
