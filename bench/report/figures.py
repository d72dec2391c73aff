"""The drawn sections: what was measured, put into the shapes of `plots.py`."""

import re
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from bench.report import markup, plots
from bench.report.pick import CONNECTIONS, Book, Paired, by, cases, median, paired, rate, rounds
from bench.report.words import DASH, TIMES, factor, number, plural, times, unit
from bench.result import CPU, Figure, Run, Spread, Table, multiple, of, spread

PERCENTILES: tuple[tuple[str, Callable[[Run], float]], ...] = (
    ("p50", lambda run: run.p50),
    ("p95", lambda run: run.p95),
    ("p99", lambda run: run.p99),
)
PARTS: tuple[tuple[str, str, Callable[[CPU], float]], ...] = (
    ("server", "server", lambda cpu: cpu.server),
    ("database", "database", lambda cpu: cpu.database),
    ("Redis", "redis", lambda cpu: cpu.redis),
    ("load generator", "load", lambda cpu: cpu.load),
)
KINDS = (
    ("ours", "ours"),
    ("reference", "reference"),
    ("others", "opponent"),
    ("limits, not contestants", "limit"),
)
WHOLE = "whole"
DEPTH = re.compile(r"(page|cursor)-(\d+)")


def said(name: str, found: Spread, unit: str, runs: Sequence[Run]) -> str:
    """A mark's title: the numbers exactly."""
    errors = sum(run.errors for run in runs)
    beside = f"; {plural(errors, 'error')}" if errors else ""
    late = of([run for run in runs if run.late is not None], lambda run: run.late or 0.0)
    beside += f"; sent up to {number(late.median)} ms late (p99)" if late else ""
    return (
        f"{name}: {number(found.median)} {unit} (least {number(found.least)}, most "
        f"{number(found.most)}; {plural(rounds(runs), 'round')}{beside})"
    )


class Compared(NamedTuple):
    """A workload's rates by that of `base`: contestant, ratio, its runs."""

    workload: str
    base: str
    connections: int
    found: list[tuple[str, Paired, list[Run]]]


def ratios(book: Book) -> str:
    """Everyone's rate by the reference's."""
    measured = [one for name in book.workloads if (one := _against(book, name))]
    ends = [
        end
        for one in measured
        if one.base == book.reference
        for _, ratio, _ in one.found
        for end in ratio.spread
        if end > 0
    ]
    wide = bool(ends) and max(ends) > 20 * min(ends)
    common = plots.logarithmic([*ends, 1.0], below=False) if wide else plots.linear([*ends, 1.0])
    shown = [_ratio_panel(book, one, common) for one in measured]
    factors = " Each step of the axis is a factor." if wide else ""
    caption = (
        f"Requests per second relative to the reference (1{TIMES}), and as they are; the thin "
        f"line goes from the worst round to the best.{factors}"
    )
    return markup.panels("ratios", caption, shown, markup.legend(KINDS))


def _against(book: Book, workload: str) -> Compared | None:
    runs = book.usual(workload)
    base = _base(book, runs)
    if base is None:
        return None
    found = [
        (name, ratio, by(runs, name))
        for name in book.contestants
        if (ratio := paired(by(runs, name), by(runs, base)))
    ]
    found.sort(key=lambda one: (book.kind(one[0]) == "limit", -one[1].spread.median))
    return Compared(workload, base, runs[0].connections, found)


def _ratio_panel(book: Book, compared: Compared, common: plots.Axis) -> str:
    """On the common axis, or from zero where the reference was not measured."""
    title = book.workloads[compared.workload].title
    base = book.contestants[compared.base].title
    rows = [
        plots.Bar(
            book.contestants[name].title,
            ratio.spread,
            f"{times(ratio.spread.median)} · {number(median(runs, rate))}/s",
            f"{_rates(book, name, runs)}; {_compared(ratio, base)}",
            book.look(name),
        )
        for name, ratio, runs in compared.found
    ]
    axis = common
    notes = []
    if compared.connections != CONNECTIONS:
        notes.append(plural(compared.connections, "connection"))
    if compared.base != book.reference:
        notes.append(f"relative to {base}")
        axis = plots.linear([1.0, *(end for row in rows for end in row.spread)])
    drawing = plots.bars(
        rows,
        axis,
        label=f"{title}: requests per second relative to {base}",
        tick=factor,
        origin=1.0 if axis.log else 0.0,
        mark=1.0,
    )
    return markup.panel(title, drawing, ", ".join(notes))


def connections(book: Book) -> str:
    """Latency against the number of connections."""
    shown = []
    for workload in book.workloads:
        runs = book.sized(r for r in book.closed if r.workload == workload and r.workers == 1)
        counts = sorted({run.connections for run in runs})
        if len(counts) < 2:
            continue
        groups = {f"{count:,}": [r for r in runs if r.connections == count] for count in counts}
        shown.append(_latencies(book, workload, groups, "connections"))
    return markup.plotted(
        "latency-connections",
        "How long an answer takes, in milliseconds (each step of the axis is a factor), as "
        "more connections ask at once: lower is better.",
        "".join(shown),
    )


def offered(book: Book) -> str:
    """Latency at a fixed rate; a contestant that does not reach the rate is marked."""
    rows = []
    for case, runs in cases(book.result.runs).items():
        if case.offered is None:
            continue
        reached = sum(run.reached for run in runs) * 2 > len(runs)
        latencies = [
            markup.spread(found) if reached and found else markup.numbers(DASH)
            for found in (
                of(runs, lambda run: run.p50),
                of(runs, lambda run: run.p99),
                of(runs, lambda run: run.p999 or 0.0),
            )
        ]
        got = number(median(runs, rate))
        rows.append(
            (
                escape(book.workloads[case.workload].title),
                markup.numbers(f"{case.offered:,.0f}"),
                escape(book.contestants[case.contestant].title),
                markup.numbers(got if reached else f"does not reach it: {got}"),
                *latencies,
                markup.spread(of(runs, lambda run: run.cpu.server)),
                markup.spread(of(runs, lambda run: run.cpu.total)),
                markup.spread(of(runs, lambda run: run.late or 0.0)),
            )
        )
    if not rows:
        return markup.NONE
    head = (
        *("workload", "offered/s", "contestant", "answered/s", "p50 ms", "p99 ms", "p99.9 ms"),
        *("server µs", "with stores µs", "load late ms"),
    )
    return (
        "<p>Requests come at a fixed rate, whether or not earlier ones are answered. Latency "
        "counts from when a request was due, so a wait for a free connection is part of it. The "
        "last column is how late the load generator was itself (p99).</p>"
        + markup.table(head, rows)
    )


def cpu(book: Book) -> str:
    """Microseconds per request, by part."""
    shown = []
    for workload in book.workloads:
        runs = book.usual(workload)
        names = [name for name in book.contestants if by(runs, name)]
        rows = [_parts(book, name, by(runs, name)) for name in names]
        rows.sort(key=lambda row: ("limit" in row.look, sum(one.value for one in row.parts[:3])))
        totals = [sum(part.value for part in row.parts) for row in rows]
        if not any(totals):
            continue
        title = book.workloads[workload].title
        drawing = plots.stacks(
            rows, plots.linear(totals), label=f"{title}: microseconds of CPU per request by part"
        )
        shown.append(markup.panel(title, drawing))
    return markup.panels(
        "cpu",
        "Microseconds of CPU that one request costs, by who spends it: shorter is better; the "
        "number at the right leaves the load generator out; beside it is the server's part as a "
        "multiple of a constant answer's, in the same rounds.",
        shown,
        markup.legend([(name, f"part {look}") for name, look, _ in PARTS]),
    )


def depth(book: Book) -> str:
    """Rate by the rate at depth 1, by page and by cursor."""
    found: dict[str, dict[int, list[Run]]] = {"page": {}, "cursor": {}}
    for workload in book.workloads:
        match = DEPTH.fullmatch(workload)
        runs = book.usual(workload)
        if match and runs:
            found[match[1]][int(match[2])] = runs
    depths = sorted({one for kind in found.values() for one in kind})
    series: dict[str, list[plots.Line]] = {}
    for kind, at in found.items():
        if len(at) < 2 or 1 not in at:
            continue
        series[kind] = [
            one
            for name in book.contestants
            if len((one := _deeper(book, name, at, depths)).points) > 1
        ]
    axis = plots.logarithmic(_ends([one for kind in series.values() for one in kind]))
    shown = [
        markup.panel(
            f"By {kind}",
            plots.lines(
                lined,
                [f"{one:,}" for one in depths],
                axis,
                label=f"Rate by depth, by {kind}",
                under="first row of the page",
                tick=factor,
            ),
            "rate relative to the first page",
        )
        for kind, lined in series.items()
        if lined
    ]
    return markup.panels(
        "depth",
        "How much of its own speed on the first page each keeps further down the list: a level "
        "line keeps all of it.",
        shown,
    )


def sizes(book: Book) -> str:
    """Rate against the number of items in the table."""
    shown = []
    for workload in sorted(book.workloads, key=lambda name: name != "list"):
        runs = [run for run in book.closed if run.workload == workload and run.workers == 1]
        # At the connections at which most sizes were asked.
        met = {
            run.connections: {r.items for r in runs if r.connections == run.connections}
            for run in runs
        }
        wanted = max(met, key=lambda connections: len(met[connections]), default=0)
        runs = [run for run in runs if run.connections == wanted]
        counts = sorted({run.items for run in runs})
        if len(counts) < 2:
            continue
        groups = [[run for run in runs if run.items == count] for count in counts]
        series = [
            _line(book, name, groups, rate, "requests/s")
            for name in book.contestants
            if by(runs, name)
        ]
        title = book.workloads[workload].title
        drawing = plots.lines(
            series,
            [f"{count:,}" for count in counts],
            plots.logarithmic(_ends(series)),
            label=f"{title}: requests per second by number of items",
            under="items in the table",
        )
        shown.append(markup.panel(title, drawing, f"requests/s at {wanted} connections"))
    return markup.panels(
        "sizes",
        "Requests per second as the table grows (each step of the axis is a factor): a level "
        "line does not mind the size.",
        shown,
    )


def workers(book: Book) -> str:
    """Rate of two workers by that of one."""
    measured = []
    for workload in book.workloads:
        one, two = book.usual(workload), book.usual(workload, workers=2)
        found = [
            (name, ratio, by(two, name))
            for name in book.contestants
            if (ratio := paired(by(two, name), by(one, name)))
            and one[0].connections == two[0].connections
        ]
        if found:
            measured.append((workload, found))
    if not measured:
        return markup.NONE
    ends = [end for _, found in measured for _, ratio, _ in found for end in ratio.spread]
    axis = plots.linear([*ends, 1.0])
    shown = []
    for workload, found in measured:
        title = book.workloads[workload].title
        found.sort(key=lambda one: -one[1].spread.median)
        rows = [
            plots.Bar(
                book.contestants[name].title,
                ratio.spread,
                f"{times(ratio.spread.median)} · {number(median(runs, rate))}/s",
                f"{_rates(book, name, runs)}; {_compared(ratio, 'one worker')}",
                book.look(name),
            )
            for name, ratio, runs in found
        ]
        drawing = plots.bars(
            rows,
            axis,
            label=f"{title}: rate of two workers relative to one",
            tick=factor,
            mark=1.0,
        )
        shown.append(markup.panel(title, drawing))
    return markup.panels(
        "workers",
        f"Requests per second with two workers relative to one (1{TIMES}): what a second process "
        "adds on this machine, which the database and the load generator share.",
        shown,
        markup.legend(KINDS),
    )


def layers(table: Table) -> str:
    """One bar in the order of the request's way, and its numbers; the whole is not a part."""
    parts = [one for one in table.figures if one.name != WHOLE]
    if not parts:
        return markup.figure(table.name, f"{table.title}: not measured.", "")
    of_unit = unit(table.unit)
    total = sum(max(one.value, 0.0) for one in parts) or 1.0
    pieces, rows = [], []
    for index, one in enumerate(parts):
        tone = sum(before.value > 0 for before in parts[:index]) % 2
        label = f"{index + 1}. {one.name}"
        look = f"layer n{tone}"
        pieces.append(plots.Part(label, one.value, number(one.value), _exact(one, of_unit), look))
        share = markup.numbers(f"{max(one.value, 0.0) / total:.0%}")
        rows.append((str(index + 1), escape(one.name), _figure(one), share))
    rows += [
        ("", f"<b>{escape(one.name)}</b>, measured at once", _figure(one), markup.numbers(""))
        for one in table.figures
        if one.name == WHOLE
    ]
    drawing = plots.column(pieces, label=f"{table.title}, in {of_unit}")
    numbers = markup.table(("", "layer", of_unit, "of all parts"), rows)
    about = f" {table.about}" if table.about else ""
    return markup.figure(
        table.name,
        f"{table.title}: {number(total)} {of_unit} in the order of a request's way, from the top "
        f"down.{about}",
        f'<div class="beside">{drawing}{numbers}</div>',
    )


def micro(table: Table) -> str:
    """A bar per figure."""
    name = f"table-{table.name}"
    if not table.figures:
        return markup.figure(name, f"{table.title}: not measured.", "")
    of_unit = unit(table.unit)
    rows = [
        plots.Bar(
            one.name,
            Spread(one.value, one.least, one.most),
            f"{number(one.value)} {of_unit}",
            _exact(one, of_unit),
            "opponent",
        )
        for one in table.figures
    ]
    axis = plots.linear(end for row in rows for end in row.spread)
    drawing = plots.bars(rows, axis, label=f"{table.title}, in {of_unit}")
    about = table.about or f"{table.title}, in {of_unit}."
    return markup.figure(name, about, markup.panel(table.title, drawing, of_unit))


def _exact(one: Figure, of_unit: str) -> str:
    least, most = number(one.least), number(one.most)
    return f"{one.name}: {number(one.value)} {of_unit} (least {least}, most {most})"


def _figure(one: Figure) -> str:
    return markup.spread(Spread(one.value, one.least, one.most))


def _compared(ratio: Paired, base: str) -> str:
    return (
        f"{times(ratio.spread.median)} of {base} (least {times(ratio.spread.least)}, most "
        f"{times(ratio.spread.most)}; {plural(ratio.rounds, 'paired round')})"
    )


def _base(book: Book, runs: list[Run]) -> str | None:
    """Return the contestant for ratios: the reference, else ours, else the first."""
    names = [book.reference, book.ours, *book.contestants]
    return next((name for name in names if name and any(map(rate, by(runs, name)))), None)


def _parts(book: Book, name: str, runs: list[Run]) -> plots.Stack:
    title = book.contestants[name].title
    pieces = []
    for part, look, value in PARTS:
        found = spread([value(run.cpu) for run in runs])
        told = said(f"{title}, {part}", found, "µs per request", runs)
        pieces.append(plots.Part(part, found.median, number(found.median), told, f"part {look}"))
    total = number(median(runs, lambda run: run.cpu.total))
    of_constant = multiple(book.result, runs)
    beside = f" · {times(of_constant.median)}" if of_constant else ""
    return plots.Stack(title, pieces, f"{total} µs{beside}", book.look(name))


def _latencies(
    book: Book,
    workload: str,
    groups: dict[str, list[Run]],
    under: str,
) -> str:
    """A panel per percentile, all on the same axis."""
    title = book.workloads[workload].title
    present = {run.contestant for runs in groups.values() for run in runs}
    names = [name for name in book.contestants if name in present and book.kind(name) != "limit"]
    drawn = {
        percentile: [
            _line(book, name, list(groups.values()), value, f"ms {percentile}") for name in names
        ]
        for percentile, value in PERCENTILES
    }
    ends = _ends([one for series in drawn.values() for one in series])
    if not ends:
        return ""
    axis = plots.logarithmic(ends)
    return markup.row(
        markup.panel(
            f"{title}, {percentile}",
            plots.lines(
                series,
                list(groups),
                axis,
                label=f"{title}: {percentile} in milliseconds, by {under}",
                under=under,
                tick=lambda value: f"{value:,g}",
            ),
            "ms",
        )
        for percentile, series in drawn.items()
    )


def _line(
    book: Book,
    name: str,
    groups: Sequence[list[Run]],
    value: Callable[[Run], float],
    unit: str,
) -> plots.Line:
    """A point per group that has the contestant."""
    points = []
    for at, group in enumerate(groups):
        here = by(group, name)
        found = of(here, value)
        if found:
            points.append(plots.Point(at, found, said(name, found, unit, here)))
    return plots.Line(name, book.look(name), book.shape(name), points)


def _rates(book: Book, name: str, runs: list[Run]) -> str:
    found = spread([rate(run) for run in runs])
    return said(book.contestants[name].title, found, "requests/s", runs)


def _deeper(book: Book, name: str, at: dict[int, list[Run]], depths: list[int]) -> plots.Line:
    points = []
    for one, runs in sorted(at.items()):
        ratio = paired(by(runs, name), by(at[1], name))
        if ratio:
            told = f"{_rates(book, name, by(runs, name))}; {_compared(ratio, 'its first page')}"
            points.append(plots.Point(depths.index(one), ratio.spread, told))
    return plots.Line(name, book.look(name), book.shape(name), points)


def _ends(series: Sequence[plots.Line]) -> list[float]:
    """All that is drawn, from whisker to whisker; only what a log axis can show."""
    found = [end for one in series for point in one.points for end in point.spread]
    return [end for end in found if end > 0]
