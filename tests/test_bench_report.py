"""Tests of the benchmark report, with an invented result, in a real browser."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import newest as newest_file
from bench.budgets import Verdict, judge, load
from bench.report import plots
from bench.report.page import page
from bench.result import (
    CPU,
    Agreement,
    Contestant,
    Figure,
    Kind,
    Result,
    Run,
    Spread,
    Table,
    Workload,
    read,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
WIDTHS = (400, 1400)
PLOTS = {
    *("ratios", "latency-connections", "cpu", "depth", "sizes", "workers"),
    *("layers-read", "layers-create", "table-encode", "table-statements"),
}
COMMITTED = {
    *("ratios", "latency-connections", "cpu", "depth", "sizes", "workers"),
    *("layers-read", "layers-create"),
    *(
        f"table-{name}"
        for name in ("creation", "memory", "decoding", "encoding", "copy", "checks-hit")
    ),
}


def committed_figures() -> set[str]:
    """The figures of the newest committed result, which may have no lists at a depth."""
    workloads = {one.name for one in read(newest_file()).workloads}
    return COMMITTED if "page-1" in workloads else COMMITTED - {"depth"}


# Name, title, kind and speed.
CONTESTANTS: tuple[tuple[str, str, Kind, float], ...] = (
    ("swiftlet", "Swiftlet", "ours", 12.4),
    ("swiftlet-granian", "Swiftlet (granian)", "ours", 9.8),
    ("reference", "FastAPI reference", "reference", 1.0),
    ("reference-cached", "FastAPI reference, cached", "reference", 1.3),
    ("starlette", "Starlette + asyncpg", "opponent", 7.1),
    ("litestar", "Litestar + msgspec", "opponent", 6.2),
    ("blacksheep", "BlackSheep + asyncpg", "opponent", 7.9),
    ("fastify", "Fastify + postgres.js", "opponent", 8.8),
    ("engine", "Swiftlet on AsyncEngine", "opponent", 3.4),
    ("engine-autocommit", "Swiftlet on AsyncEngine, AUTOCOMMIT", "opponent", 3.9),
    ("constant", "Constant answer", "limit", 38.0),
    ("pgbench", "pgbench", "limit", 21.0),
)
SPEED = {name: speed for name, _, _, speed in CONTESTANTS}
# Name, title, connections, and the reference's rate.
WORKLOADS = (
    ("read", "Read one item", 64, 820),
    ("hot", "Read hot items", 64, 840),
    ("list", "List, first page", 64, 310),
    *(
        (f"page-{depth}", f"List at depth {depth:,} by page", 16, 300)
        for depth in (1, 1000, 100000)
    ),
    *(
        (f"cursor-{depth}", f"List at depth {depth:,} by cursor", 16, 420)
        for depth in (1, 1000, 100000)
    ),
    ("search", "Search", 4, 40),
    ("create", "Create", 64, 510),
    ("create-1000", "Create, 1,000 at once", 1000, 480),
    ("patch", "Patch", 64, 450),
    ("mixed", "Mixed 80/15/5", 64, 700),
    ("mixed-bulk", "Mixed 80/15/5 beside a bulk insert", 64, 600),
)
SLOWER = {"page-1000": 0.8, "page-100000": 0.03, "cursor-100000": 0.97}


def run(workload: str, contestant: str, number: int, **more: Any) -> Run:
    connections = next(one[2] for one in WORKLOADS if one[0] == workload)
    settled: dict[str, Any] = {"connections": connections, "workers": 1, "items": 100_000, **more}
    base = next(one[3] for one in WORKLOADS if one[0] == workload)
    noise = 1 + ((number * 7 + len(contestant) * 3) % 9 - 4) / 60
    rate = base * SPEED[contestant] ** (0.6 if "list" in workload else 1) * noise
    rate *= SLOWER.get(workload, 1) * (1.6 if settled["workers"] == 2 else 1)
    rate *= (settled["connections"] / 64) ** 0.15 * (100_000 / settled["items"]) ** 0.3
    offered = settled.get("offered")
    wait = settled["connections"] / rate * 1000
    if offered:
        settled |= {"late": 0.2, "reached": offered <= rate, "p999": 7.5}
        wait = 900.0 if offered > rate else 6 / (1 - offered / rate / 1.2)
        rate = min(rate, offered)
    cost = 1e6 / rate
    return Run(
        workload=workload,
        contestant=contestant,
        round=number,
        requests=int(rate * 5),
        seconds=5.0,
        errors=3 if contestant == "reference" and workload == "create-1000" else 0,
        p50=wait,
        p95=wait * 1.8,
        p99=wait * 3.1,
        cpu=CPU(cost * 0.6, cost * 0.3, 12.0 if "cached" in contestant else 0.0, 9.5),
        rss=90 + len(contestant),
        **settled,
    )


def runs() -> list[Run]:
    cases: list[tuple[str, dict[str, Any]]] = [(one[0], {}) for one in WORKLOADS]
    cases += [(name, {"connections": n}) for name in ("read", "create") for n in (1, 256)]
    cases += [(name, {"workers": 2}) for name in ("read", "list", "create", "patch", "mixed")]
    sizes = (1_000, 100_000, 1_000_000)
    cases += [("list", {"items": items, "connections": 16}) for items in sizes]
    cases += [(name, {"offered": n}) for name in ("read", "mixed") for n in (1_000, 8_000)]
    return [
        run(workload, contestant, number, **more)
        for number in (1, 2, 3, 4, 5)
        for workload, more in cases
        for contestant in SPEED
        if contestant not in {"constant", "pgbench"} or (workload in {"read", "hot"} and not more)
        if not (workload.startswith("cursor") and contestant.startswith("reference"))
    ]


def table(name: str, title: str, unit: str, figures: dict[str, float]) -> Table:
    made = [Figure(one, value, value * 0.95, value * 1.1) for one, value in figures.items()]
    return Table(name, title, unit, f"{title}, 1,000 times in a loop, best of 5.", made)


FULL = Result(
    taken="2026-11-21 06:30 UTC",
    command="just bench",
    seconds=5421.7,
    machine={"cpu": "Some CPU @ 3 GHz", "cores": "2", "memory": "7.7 GiB", "kernel": "Linux 6.1"},
    versions={"Python": "3.11.7", "PostgreSQL": "18.1", "granian": "2.8.7", "FastAPI": "0.165.0"},
    settings={"rounds": "5", "seconds": "5", "load": "wrk, one thread"},
    contestants=[
        Contestant(name, title, kind, f"About {title}", f"python -m granian {name}", "30 of a pool")
        for name, title, kind, _ in CONTESTANTS
    ],
    workloads=[Workload(name, title, f"GET /{name}", n) for name, title, n, _ in WORKLOADS],
    allowed={"number-format": "The reference writes 1.0 where ours writes 1"},
    agreements=[
        Agreement(name, 400, 396, {"number-format": 3}, ["GET /items/1: 200, not 404"])
        if name == "engine"
        else Agreement(name, 400, 397, {"number-format": 3}, [])
        for name in SPEED
    ],
    runs=runs(),
    tables=[
        table(
            "layers-read",
            "The layers of a request: Read one item",
            "us",
            {
                "socket and HTTP": 9.1, "routing": 1.2, "path and query": 0.9, "the pool": 0.6,
                "to the database": 14.0, "the database": 22.5, "rows": -0.3, "encoding": 1.1,
                "answer": 4.4, "whole": 61.0,
            },
        ),
        table("layers-create", "The layers: Create", "us", {"server": 9.1, "whole": 10}),
        table("encode", "Encoding an item", "µs", {"msgspec": 0.31, "orjson": 0.82, "json": 4.6}),
        table("statements", "One statement", "µs", {"held": 31.0, "AsyncEngine": 210.4}),
    ],
    notes=["The machine had neighbours."],
)  # fmt: skip
BUDGETS = [
    Verdict("read-rate", "Reads are most of it.", "at least 10 times", 12.4, 10, True, True),
    Verdict("create-rate", "Writes wait.", "at least 5 times", 3.2, 5, False, True),
    Verdict("rss", "Small machines.", "at most 80 MiB", 98.0, 80, False, False),
    Verdict("start", "Tests start it often.", "at most 1 s", None, 1, None, True),
]
EMPTY = Result(
    taken="", command="", seconds=0, machine={}, versions={}, settings={}, contestants=[],
    workloads=[],
)  # fmt: skip


def measured(runs: list[Run]) -> Result:
    return Result(
        taken="t", command="c", seconds=1, machine={}, versions={}, settings={},
        contestants=[], workloads=[], runs=runs,
        agreements=[Agreement("gone", 0, 0, {}, [])],
        tables=[Table("layers", "L", "µs", "", []), Table("empty", "E", "ns", "", [])],
    )  # fmt: skip


def nothing(workload: str, number: int, **more: Any) -> Run:
    """Return a run of no duration without answers."""
    zero: dict[str, Any] = {
        "contestant": "gone", "connections": 0, "workers": 1, "items": 0, "requests": 0,
        "seconds": 0.0, "errors": 0, "p50": 0.0, "p95": 0.0, "p99": 0.0, "rss": 0.0,
    }  # fmt: skip
    return Run(workload=workload, round=number, cpu=CPU(0, 0, 0, 0), **{**zero, **more})


def titles(text: str, plot: str) -> list[str]:
    found = re.search(f'<figure data-plot="{plot}">.*?</figure>', text, re.DOTALL)
    assert found is not None
    return [unescape(one) for one in re.findall("<title>(.*?)</title>", found[0])]


def test_the_report_loads_nothing_from_other_hosts() -> None:
    text = page(FULL, BUDGETS)
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert not re.findall(r"""(?:src|href)=["'](?!#)|<script|@import|url\((?!#)""", text)
    assert set(re.findall(r'href="#([\w-]+)"', text)) <= set(re.findall(r'id="([\w-]+)"', text))


def test_every_figure_has_its_numbers() -> None:
    text = page(FULL, BUDGETS)
    assert set(re.findall('data-plot="([^"]+)"', text)) == PLOTS
    assert all(titles(text, plot) for plot in PLOTS)
    read = [one for one in titles(text, "ratios") if one.startswith("Swiftlet: ")]
    rates = sorted(one.rate for one in FULL.runs if one == run("read", "swiftlet", one.round))
    assert (
        f"Swiftlet: {rates[2]:,.0f} requests/s (least {rates[0]:,.0f}, most {rates[-1]:,.0f}; "
        "5 rounds)"
    ) in read[0]


def test_who_does_not_reach_a_fixed_rate_is_named() -> None:
    text = page(FULL, BUDGETS)
    late = {(one.workload, one.contestant, one.offered) for one in FULL.runs if not one.reached}
    assert 0 < text.count("does not reach it: ") <= len(late)


def test_ratios_are_taken_within_a_round() -> None:
    def of(contestant: str, number: int, requests: int) -> Run:
        told = {"contestant": contestant, "requests": requests, "seconds": 1.0, "connections": 64}
        return nothing("read", number, **told)

    pairs = {1: (100, 50), 2: (300, 100), 3: (400, 400)}
    found = [of("swiftlet", number, ours) for number, (ours, _) in pairs.items()]
    found += [of("reference", number, theirs) for number, (_, theirs) in pairs.items()]
    found.append(of("swiftlet", 4, 9000))  # a round without the reference
    told = [Contestant("swiftlet", "S", "ours", ""), Contestant("reference", "R", "reference", "")]
    result = Result(
        taken="t", command="c", seconds=1, machine={}, versions={}, settings={},
        contestants=told, workloads=[], runs=found,
    )  # fmt: skip
    text = page(result, [])
    assert '<p class="large">2.00×</p><p>1.00 to 3.00× in 3 rounds</p>' in text  # noqa: RUF001


def test_verdicts_are_words() -> None:
    text = page(FULL, BUDGETS)
    for word in ("✓</span> holds", "✗</span> short", "○</span> not yet met", "not measured"):
        assert word in text


@pytest.mark.parametrize(
    "result",
    (
        EMPTY,
        measured([nothing("read", 1)]),
        measured([nothing("page-1", 1), nothing("page-1000", 1), nothing("x", 1, offered=5)]),
        measured([nothing("list", 1, items=size) for size in (0, 1, 1000)]),
        measured([nothing("read", 1, workers=2), nothing("read", 2, connections=9)]),
    ),
)
def test_missing_measurements_are_shown_as_not_measured(result: Result) -> None:
    text = page(result, [])
    assert "Not measured." in text
    assert not re.search(r"\bnan\b|\binf\b|None", text)


def test_every_part_of_a_result_may_be_missing() -> None:
    for name in SPEED:
        page(measured([one for one in FULL.runs if one.contestant == name]), BUDGETS)
    for name, *_ in WORKLOADS:
        text = page(measured([one for one in FULL.runs if one.workload == name]), BUDGETS)
        assert 'data-plot="ratios"' in text


def test_names_are_escaped() -> None:
    evil = "<b id='x'>\"&"
    one = nothing(evil, 1, contestant=evil, requests=5, seconds=1.0, p50=1.0)
    result = Result(
        taken=evil, command=evil, seconds=1, machine={evil: evil}, versions={evil: evil},
        settings={evil: evil}, contestants=[Contestant(evil, evil, "ours", evil, evil, evil)],
        workloads=[Workload(evil, evil, evil)], allowed={evil: evil},
        agreements=[Agreement(evil, 1, 1, {evil: 1}, [evil])], runs=[one],
        tables=[Table(evil, evil, evil, evil, [Figure(evil, 1, 1, 1)]),
                Table("layers", evil, evil, evil, [Figure(evil, 1, 1, 1)])], notes=[evil],
    )  # fmt: skip
    text = page(result, [Verdict(evil, evil, evil, 1, 1, True, True)])
    assert escape(evil) in text
    assert "<b id" not in text


def test_labels_of_lines_do_not_overlap() -> None:
    places = plots.apart([50, 51, 10, 52, 199], 13, 0, 200)
    assert all(b - a >= 12.99 for a, b in zip(sorted(places), sorted(places)[1:], strict=False))
    assert sorted(range(5), key=places.__getitem__) == [2, 0, 1, 3, 4]
    assert 0 <= min(places) <= max(places) <= 200


@pytest.mark.parametrize("log", (False, True))
@pytest.mark.parametrize("values", ([], [0.0], [5.0], [0.001, 7.0], [3.0, 3.1], [1.0, 1e6]))
def test_an_axis_has_some_ticks(values: list[float], log: bool) -> None:
    axis = plots.logarithmic(values) if log else plots.linear(values)
    assert 2 <= len(axis.ticks()) <= 8
    assert all(axis.low <= one <= axis.high for one in axis.ticks())
    row = plots.Bar("a", Spread(1, 0, 2), "1", "a: 1", "ours")
    assert "<title>a: 1</title>" in plots.bars([row], axis, label="one")


# Each frame has one width; the script writes the measurements into the outer page.
MEASURE = """
const found = {};
for (const frame of document.querySelectorAll("iframe")) {
  const inner = frame.contentDocument, root = inner.documentElement;
  const box = one => one.getBoundingClientRect();
  const clipped = [...inner.querySelectorAll("figure svg text")].filter(text => {
    const a = box(text), b = box(text.ownerSVGElement);
    return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1
      || a.bottom > b.bottom + 1;
  });
  const crossed = [...inner.querySelectorAll("figure svg")].flatMap(svg => {
    const all = [...svg.querySelectorAll("text:not(.in)")].map(text => [text, box(text)]);
    return all.filter(([, a], i) => all.some(([, b], j) => j > i && a.left < b.right - 1
      && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4));
  });
  const wide = [...inner.querySelectorAll("body *")].filter(one =>
    box(one).right > root.clientWidth + 1 && !one.closest(".box"));
  found[frame.name] = {
    width: root.clientWidth, scroll: root.scrollWidth,
    ground: getComputedStyle(inner.body).backgroundColor,
    clipped: clipped.map(one => one.textContent),
    crossed: crossed.map(([one]) => one.textContent),
    wide: wide.map(one => one.outerHTML.slice(0, 80)),
    figures: Object.fromEntries([...inner.querySelectorAll("figure[data-plot]")].map(one =>
      [one.dataset.plot, [...one.querySelectorAll("svg")].map(svg => [box(svg).width,
        box(svg).height, svg.querySelectorAll("g title").length,
        [...svg.querySelectorAll(".mark, .dot")].filter(mark => box(mark).height > 0).length])])),
  };
}
document.body.append(Object.assign(document.createElement("pre"), {id: "found",
  textContent: JSON.stringify(found)}));
"""


def browse(pages: dict[str, str], directory: Path, *, dark: bool) -> dict[str, Any]:
    """Show each page in frames of every width; return the measurements of the browser."""
    assert CHROMIUM is not None
    frames = "".join(
        f'<iframe name="{name}-{width}" srcdoc="{escape(text)}" '
        f'style="width:{width}px;height:900px;border:0"></iframe>'
        for name, text in pages.items()
        for width in WIDTHS
    )
    around = directory / "around.html"
    around.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{frames}'
        f"<script>addEventListener('load', () => {{{MEASURE}}})</script>"
    )
    found = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={directory / 'profile'}",
            "--window-size=1500,1000",
            "--dump-dom",
            around.as_uri(),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in found.stderr, found.stderr
    told = re.search('<pre id="found">(.*?)</pre>', found.stdout, re.DOTALL)
    assert told is not None, found.stderr
    answer: dict[str, Any] = json.loads(unescape(told[1]))
    return answer


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `apt-get install chromium`")
@pytest.mark.slow
def test_a_browser_shows_the_report_on_phone_and_desktop_in_light_and_dark(tmp_path: Path) -> None:
    full = page(FULL, BUDGETS).replace("<details>", "<details open>")
    newest = read(newest_file())
    committed = page(newest, judge(newest, load()))
    pages = {"full": full, "empty": page(EMPTY, []), "committed": committed}
    light, dark = browse(pages, tmp_path, dark=False), browse(pages, tmp_path, dark=True)
    assert set(light["full-400"]["figures"]) == PLOTS
    assert set(light["committed-400"]["figures"]) == committed_figures()
    for found in (light, dark):
        for name, frame in found.items():
            assert frame["scroll"] <= frame["width"], name
            assert not frame["wide"], name
            assert not frame["clipped"], name
            assert not frame["crossed"], name
            for plot, drawings in frame["figures"].items():
                assert drawings, plot
                for width, height, told, marks in drawings:
                    assert min(width, height) > 40, plot
                    assert min(told, marks) > 0, plot
    assert light["full-400"]["ground"] == "rgb(255, 255, 255)"
    assert dark["full-400"]["ground"] == "rgb(20, 23, 28)"
