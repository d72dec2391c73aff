"""One result of the benchmark as one HTML page that needs no network and no script."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench.budgets import Verdict
from bench.report import figures, markup
from bench.report.pick import CONNECTIONS, Book, by, cases, median, paired, rate, rounds
from bench.report.words import DASH, number, plural, short, times
from bench.result import Agreement, Result, Run, Table, multiple, of

HEADLINE = ("read", "create", "patch", "list", "mixed")
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
SHOWN_WRONG = 20
# A limit's stripes and Redis's dots, once for all drawings.
PATTERNS = (
    '<svg class="patterns" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="stripes" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><path class="stripe" d="M0 0V5"/></pattern>'
    '<pattern id="dots" width="5" height="5" patternUnits="userSpaceOnUse">'
    '<circle class="point" cx="2.5" cy="2.5" r="1"/></pattern></defs></svg>'
)


def page(result: Result, budgets: list[Verdict]) -> str:
    book = Book(result)
    sections = (
        ("goals", "Goals", _goals(budgets)),
        ("ratios", "Throughput", figures.ratios(book)),
        ("latency", "Latency", _latency(book)),
        ("cpu", "CPU per request", figures.cpu(book)),
        ("depth", "Deep lists", figures.depth(book)),
        ("sizes", "Size of the table", figures.sizes(book)),
        ("workers", "One worker and two", figures.workers(book)),
        ("layers", "Layers and parts", _tables(book)),
        ("correctness", "Correctness", _correctness(book)),
        ("contestants", "Contestants and conditions", _conditions(book)),
        ("runs", "All runs", _runs(book)),
    )
    contents = "".join(f'<li><a href="#{name}">{title}</a>' for name, title, _ in sections)
    body = "".join(markup.section(*one) for one in sections)
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Swiftlet: benchmark of {escape(result.taken)}</title><style>{style}</style>"
        f"</head><body>{PATTERNS}<header>{_headline(book)}</header>"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav><main>{body}</main></body></html>\n'
    )


def _headline(book: Book) -> str:
    result = book.result
    cards = "".join(_card(book, name) for name in HEADLINE)
    commit = f", commit {escape(result.commit)}" if result.commit else ""
    return (
        f'<h1>Swiftlet, measured</h1><p class="when">{escape(result.taken)}{commit}</p>'
        f"<p>{escape(_method(book))}</p>"
        f'<h2 class="lead">Requests per second, relative to the reference</h2>'
        f'<div class="cards">{cards}</div>'
        f'<h2 class="lead">The machine</h2>{markup.facts(result.machine)}'
    )


def _method(book: Book) -> str:
    closed = [run for run in book.closed if run.workers == 1]
    if not closed:
        return "Nothing was measured."
    seconds = short(round(median(closed, lambda run: run.seconds), 1))
    items = f"{book.items:,}" if book.items is not None else "the same"
    return (
        f"All contestants in turn on the same machine and the same {items} items, "
        f"{plural(rounds(closed), 'round')} of {seconds}\N{NO-BREAK SPACE}s, unless said otherwise "
        f"{CONNECTIONS} connections against one worker; ratios are taken within a round, and what "
        "is quoted is the median of the rounds, with the least and the most beside it."
    )


def _card(book: Book, workload: str) -> str:
    told = book.workloads.get(workload)
    title = escape(told.title if told else workload)
    runs = book.usual(workload)
    ours, base = by(runs, book.ours or ""), by(runs, book.reference or "")
    ratio = paired(ours, base)
    if ratio is None:
        return f'<div class="card"><h3>{title}</h3><p class="none">Not measured.</p></div>'
    least, most = number(ratio.spread.least), times(ratio.spread.most)
    return (
        f'<div class="card"><h3>{title}</h3><p class="large">{times(ratio.spread.median)}</p>'
        f"<p>{least} to {most} in {plural(ratio.rounds, 'round')}</p>"
        f"<p>{number(median(ours, rate))}/s against {number(median(base, rate))}/s</p></div>"
    )


def _goals(budgets: list[Verdict]) -> str:
    if not budgets:
        return "<p>No goals were set for this run.</p>"
    rows = [
        (
            f"<b>{escape(one.name)}</b><p>{escape(one.reason)}</p>",
            escape(one.goal),
            markup.numbers(DASH if one.found is None else number(one.found)),
            _verdict(one),
        )
        for one in budgets
    ]
    held = sum(one.holds is True for one in budgets)
    return f"<p>{held} of {plural(len(budgets), 'goal')} held.</p>" + markup.table(
        ("what", "goal", "found", "verdict"), rows, "goals"
    )


def _verdict(one: Verdict) -> str:
    if one.holds is None:
        look, sign, word = "unknown", DASH, "not measured"
    elif one.holds:
        look, sign, word = "holds", "✓", "holds"
        if not one.expected:
            word += ", though marked not yet met"
    elif one.expected:
        look, sign, word = "short", "✗", "short"
    else:
        look, sign, word = "later", "○", "not yet met"
    return f'<span class="verdict {look}"><span aria-hidden="true">{sign}</span> {word}</span>'


def _latency(book: Book) -> str:
    return (
        f"<h3>As more ask at once</h3>{figures.connections(book)}"
        f"<h3>At a fixed rate</h3>{figures.offered(book)}"
    )


def _tables(book: Book) -> str:
    tables = book.result.tables
    if not tables:
        return markup.NONE
    first = [figures.layers(one) for one in tables if _layered(one)]
    rest = [figures.micro(one) for one in tables if not _layered(one)]
    return "".join(first) + (markup.row(rest) if rest else "")


def _layered(table: Table) -> bool:
    """`layers`, or `layers-` and a workload."""
    return table.name.partition("-")[0] == "layers"


def _correctness(book: Book) -> str:
    result = book.result
    if not result.agreements:
        return markup.NONE
    rows = [
        (
            _who(book, one.contestant),
            markup.numbers(f"{one.requests:,}"),
            markup.numbers(f"{one.agreed:,}"),
            markup.numbers(f"{sum(one.intended.values()):,}"),
            markup.numbers(f"<b>{len(one.wrong):,}</b>" if one.wrong else "0"),
            ", ".join(f"{escape(name)} {count:,}" for name, count in one.intended.items()),
        )
        for one in result.agreements
    ]
    head = ("contestant", "requests", "agreed", "meant to differ", "wrong", "differences meant")
    allowed = ""
    if result.allowed:
        why = [(f"<code>{escape(a)}</code>", escape(b)) for a, b in result.allowed.items()]
        allowed = "<h3>Differences that are meant</h3>" + markup.table(("which", "why"), why)
    return (
        "<p>Everyone was asked the same.</p>"
        + markup.table(head, rows)
        + "".join(_wrong(one) for one in result.agreements if one.wrong)
        + allowed
    )


def _wrong(one: Agreement) -> str:
    told = "".join(f"<li><code>{escape(each)}</code>" for each in one.wrong[:SHOWN_WRONG])
    more = len(one.wrong) - SHOWN_WRONG
    told += f"<li>and {more:,} more" if more > 0 else ""
    what = f"{one.contestant}: {plural(len(one.wrong), 'wrong answer')}"
    return f"<details><summary>{escape(what)}</summary><ul>{told}</ul></details>"


def _conditions(book: Book) -> str:
    result = book.result
    contestants = [
        (
            f"<b>{escape(one.title)}</b><small>{escape(one.name)}</small>",
            escape(one.kind),
            f"<p>{escape(one.about)}</p>"
            + (f"<p><code>{escape(one.command)}</code></p>" if one.command else ""),
            escape(one.unfair) or DASH,
        )
        for one in book.contestants.values()
    ]
    workloads = [
        (
            f"<b>{escape(one.title)}</b><small>{escape(one.name)}</small>",
            escape(one.about),
            markup.numbers(f"{one.connections:,}"),
        )
        for one in book.workloads.values()
    ]
    settings = {
        "commit": result.commit or DASH,
        "command": result.command,
        "took": f"{number(result.seconds)} s",
    } | result.settings
    notes = "".join(f"<li>{escape(note)}" for note in result.notes)
    return (
        markup.table(("contestant", "kind", "what it is", "what is unfair"), contestants, "text")
        + "<h3>Workloads</h3>"
        + markup.table(("workload", "what was asked", "connections"), workloads, "text")
        + f"<h3>Settings</h3>{markup.facts(settings)}"
        + f"<h3>Versions</h3>{markup.facts(result.versions)}"
        + (f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "")
    )


def _runs(book: Book) -> str:
    if not book.result.runs:
        return markup.NONE
    head = (
        *("workload", "contestant", "conns", "workers", "items", "offered/s", "rounds"),
        *("requests/s", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms"),
        *("server µs", "of constant", "database µs", "Redis µs", "load µs"),
        *("late ms", "RSS MiB", "errors"),
    )
    found = cases(book.result.runs)
    rows = [_row(book, runs) for runs in found.values()]
    return (
        f"<details><summary>{plural(len(rows), 'case')}, "
        f"{plural(len(book.result.runs), 'run')}: medians, the least and the most beneath"
        "</summary><p>No rate was offered where each connection asks again as soon as it is "
        f"answered.</p>{markup.table(head, rows, 'runs')}</details>"
    )


def _row(book: Book, runs: list[Run]) -> Sequence[str]:
    """A row of the table of all runs; they are one case's."""
    one = runs[0]
    offered = of([run for run in runs if run.offered is not None], lambda run: run.offered or 0.0)
    late = of([run for run in runs if run.late is not None], lambda run: run.late or 0.0)
    p999 = of([run for run in runs if run.p999 is not None], lambda run: run.p999 or 0.0)
    errors = sum(run.errors for run in runs)
    return (
        escape(one.workload),
        _who(book, one.contestant),
        markup.numbers(f"{one.connections:,}"),
        markup.numbers(f"{one.workers:,}"),
        markup.numbers(f"{one.items:,}"),
        markup.numbers(number(offered.median) if offered else DASH),
        markup.numbers(f"{rounds(runs):,}"),
        *(
            markup.spread(found)
            for found in (
                of(runs, rate),
                of(runs, lambda run: run.p50),
                of(runs, lambda run: run.p95),
                of(runs, lambda run: run.p99),
                p999,
                of(runs, lambda run: run.cpu.server),
                multiple(book.result, runs),
                of(runs, lambda run: run.cpu.database),
                of(runs, lambda run: run.cpu.redis),
                of(runs, lambda run: run.cpu.load),
                late,
                of(runs, lambda run: run.rss),
            )
        ),
        markup.numbers(f"<b>{errors:,}</b>" if errors else "0"),
    )


def _who(book: Book, contestant: str) -> str:
    ours = contestant in book.contestants and book.kind(contestant) == "ours"
    return f"<b>{escape(contestant)}</b>" if ours else escape(contestant)
