"""Tests of the benchmark: wrong contestants are not measured, and its check finds slowness."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest
from conftest import ROOT

from bench import budgets, result
from bench.readme import TABLES, few, measured, ours, rates, rows
from bench.result import CPU, Contestant, Result, Run, Workload

pytest.importorskip("fastapi", reason="the opponents are not here: `uv run --group bench pytest`")

from bench import contestants, correctness
from bench.__main__ import newest
from bench.inprocess import KINDS, Inside, table_of
from bench.inprocess import measured as measured_inside
from bench.run import agree, search_of
from bench.stage import (
    OUR_SEARCH,
    THEIR_SEARCH,
    StagingTable,
    create,
    empty_caches,
    fill,
    keep_totals,
    prepare,
    quiet,
    search_index,
    served,
    sql,
    stage,
)
from bench.workloads import WORKLOADS, Cell, cells

ASKED = [one for one in contestants.PROGRAMS if one.rules is not None]
# The same programs with another setting; a benchmark asks them too before it measures them.
VARIANTS = {
    *("swiftlet-plain", "swiftlet-alone", "swiftlet-granian"),
    *("reference-cached", "fastify-single"),
}
BY_NAME = {one.name: one for one in contestants.PROGRAMS}
needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not here: `apt-get install wrk`"
)


@pytest.fixture(scope="module")
def on() -> Iterator[StagingTable]:
    # As root, PostgreSQL passes through it as another user. Not a folder of pytest: each start of a
    # pytest closes those to other users.
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        Path(name).chmod(0o711)
        with stage(Path(name)) as standing:
            yield standing


def bench(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )


# Correctness.


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [one for one in ASKED if one.name not in VARIANTS],
    ids=lambda program: program.name,
)
def test_every_contestant_answers_like_the_model(
    program: contestants.Program, on: StagingTable
) -> None:
    if why := contestants.missing(program):
        pytest.skip(why)
    before = searches(on, search_of(program))
    agreement = agree(program, on)
    assert agreement.wrong == []
    after = searches(on.of(program), search_of(program))
    assert after > before, "no search of it took its index"
    assert agreement.requests > 400
    assert agreement.agreed + sum(agreement.intended.values()) >= agreement.requests
    assert set(agreement.intended) <= (program.rules or frozenset())


def searches(on: StagingTable, index: str) -> int:
    """Return how often the index was scanned; a backend reports it when it ends."""
    quiet(on)
    text = f"SELECT sum(idx_scan)::int FROM pg_stat_user_indexes WHERE indexrelname = '{index}'"
    return sql(on, text)[0][0] or 0


@pytest.mark.slow
def test_wrong_answers_are_reported(on: StagingTable) -> None:
    agreement = agree(BY_NAME["constant"]._replace(rules=frozenset()), on)
    assert len(agreement.wrong) > agreement.requests / 2


@pytest.mark.slow
def test_a_difference_that_is_not_allowed_is_wrong(on: StagingTable) -> None:
    agreement = agree(BY_NAME["reference"]._replace(rules=frozenset({"detail"})), on)
    assert any("price" in line for line in agreement.wrong), "a null in PATCH is dropped there"


def test_the_allow_list_is_short_and_used() -> None:
    assert BY_NAME.keys() >= VARIANTS
    used = {rule for one in ASKED for rule in one.rules or ()}
    published = {"PUT is PATCH", "410 for 204", "wildcards", "no zone"}
    assert used | published == set(correctness.ALLOWED)
    assert not next(one.rules for one in ASKED if one.name == "swiftlet")
    assert all(reason.endswith(".") for reason in correctness.ALLOWED.values())


# The harness.


@needs_wrk
@pytest.mark.slow
def test_a_run_leaves_a_result_and_its_page(tmp_path: Path) -> None:
    found = bench(
        *("measure", "--quick", "--rounds", "1", "--items", "1000", "--out", str(tmp_path)),
        *("--only", "swiftlet,swiftlet-plain,constant,pgbench", "--workloads", "read,create"),
    )
    assert found.returncode == 0, found.stdout + found.stderr
    (file,) = tmp_path.glob("*.json")
    told = result.read(file)
    assert re.match("[0-9a-f]{7}", told.commit)
    assert {(run.workload, run.contestant) for run in told.runs} >= {
        ("constant", "constant"),
        ("read", "swiftlet"),
        ("read", "swiftlet-plain"),
        ("read", "pgbench"),
        ("create", "swiftlet"),
    }
    for run in told.runs:
        assert run.errors == 0
        assert run.cpu.server > 0 or not run.requests  # pgbench, for a second on a busy machine
    (ours,) = (
        run
        for run in told.runs
        if (run.contestant, run.connections, run.workload) == ("swiftlet-plain", 64, "read")
    )
    assert ours.requests > 0
    assert ours.cpu.database > 0
    assert ours.rss > 10
    assert told.settings["postgresql fsync"] == "on"
    assert {table.name for table in told.tables} >= {"creation", "memory", "layers-read", "copy"}
    (page,) = tmp_path.glob("*.html")
    assert page.read_text().startswith("<!doctype html>")


@needs_wrk
@pytest.mark.slow
def test_a_slowed_service_makes_the_check_fail(tmp_path: Path) -> None:
    found = bench(
        *("check", "--slow", "20", "--rounds", "1", "--items", "1000", "--out", str(tmp_path)),
        *("--workloads", "read", "--against", "reference"),
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert re.search(r"read, against the reference .* SHORT", found.stdout)
    assert "fall short" in found.stdout


def test_without_wrk_it_says_how_to_get_it(tmp_path: Path) -> None:
    found = bench("measure", PATH=str(tmp_path))
    assert found.returncode == 1
    assert "apt-get install wrk" in found.stderr


@needs_wrk
@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_what_it_has_measured(tmp_path: Path) -> None:
    options = ("--only", "constant", "--workloads", "constant", "--items", "100", "--no-tables")
    with subprocess.Popen(
        [sys.executable, "-m", "bench", "measure", *options, "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "round 2 of 5" in line:
                process.terminate()
        assert process.wait(60) == 1
    (file,) = tmp_path.glob("*-partial.json")
    told = result.read(file)
    assert {run.round for run in told.runs} >= {1}
    assert "ended early" in told.notes[-1]


@needs_wrk
def test_an_unknown_workload_is_named() -> None:
    found = bench("measure", "--workloads", "reed")
    assert found.returncode == 2
    assert "reed" in found.stderr
    assert "mixed-bulk" in found.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (("--workloads", "reed"), "unknown: reed"),
        (("--against", "unknown"), "no budget compares these"),
    ),
)
def test_a_check_of_nothing_is_refused(options: tuple[str, str], message: str) -> None:
    found = bench("check", *options)
    assert found.returncode == 2
    assert message in found.stderr


def test_every_command_has_help() -> None:
    for name in ("measure", "check", "report", "table"):
        found = bench(name, "--help")
        assert found.returncode == 0
        assert "Usage:" in found.stdout


def test_wrk_knows_every_workload() -> None:
    script = (ROOT / "bench" / "load.lua").read_text()
    for one in WORKLOADS:
        kind = one.name.partition("-")[0]
        assert kind == "crud" or re.search(rf"\b{kind} = ", script), one.name


def test_a_full_run_has_all_data_of_the_report() -> None:
    planned = cells([], 100_000, quick=False)
    assert {cell.connections for cell in planned if cell.workload == "read"} == {1, 64, 256}
    assert {cell.workers for cell in planned if cell.workload == "mixed"} == {1, 2}
    assert {cell.items for cell in planned if cell.workload == "list"} == {1000, 100_000, 1_000_000}
    assert {(cell.workload, cell.offered) for cell in planned if cell.offered} == {
        *(("read", 1_000), ("read", 10_000), ("mixed", 1_000), ("mixed", 10_000)),
        ("create", 1_000),
    }
    assert {cell.workload for cell in planned} == {one.name for one in WORKLOADS}


# Budgets.


def made(rates: dict[tuple[str, str], float]) -> Result:
    """Return a result with these rates, in three rounds."""
    kinds = {
        **dict.fromkeys(("swiftlet", "swiftlet-plain"), "ours"),
        **dict.fromkeys(("pgbench", "constant"), "limit"),
        "reference": "reference",
    }
    return Result(
        taken="",
        command="",
        seconds=0,
        machine={},
        versions={},
        settings={"items": "1000"},
        contestants=[
            Contestant(name, name, kinds.get(name, "opponent"), "")  # type: ignore[arg-type]  # a str there
            for name in sorted({who for _, who in rates})
        ],
        workloads=[Workload(name, name, "") for name in sorted({what for what, _ in rates})],
        runs=[
            Run(
                workload=workload,
                contestant=who,
                connections=64,
                workers=1,
                items=1000,
                round=number,
                requests=round(rate * number),
                seconds=2.0,
                errors=0,
                p50=1000 / rate,
                p95=1.0,
                p99=1.0,
                cpu=CPU(1e6 / rate, 0.0, 0.0, 0.0),
            )
            for (workload, who), rate in rates.items()
            for number in (1, 2, 3)
        ],
    )


def budget(**fields: Any) -> budgets.Budget:
    defaults = {"name": "a", "reason": "b", "workload": "read", "against": "reference"}
    return budgets.Budget(**(defaults | fields))


RATES = {("read", "swiftlet"): 900.0, ("read", "reference"): 100.0, ("read", "fastify"): 600.0}


@pytest.mark.parametrize(
    ("fields", "found", "holds"),
    (
        ({"at_least": 8}, 9.0, True),
        ({"at_least": 10}, 9.0, False),
        ({"at_most": 8}, 9.0, False),
        ({"against": "best other", "at_least": 1.3}, 1.5, True),
        ({"against": "best other", "measure": "p50", "at_most": 1}, 2 / 3, True),
        ({"against": "reference", "measure": "cpu", "at_most": 0.2}, 1 / 9, True),
        ({"against": "pgbench", "at_least": 1}, None, None),
        ({"workload": "list", "at_least": 1}, None, None),
        ({"connections": 1, "at_least": 1}, None, None),
        ({"against": "swiftlet", "against_items": 5, "at_least": 1}, None, None),
    ),
)
def test_a_budget_is_the_median_of_ratios_within_rounds(
    fields: dict[str, Any], found: float | None, holds: bool | None
) -> None:
    (verdict,) = budgets.judge(made(RATES), [budget(**fields)])
    assert verdict.found == (None if found is None else pytest.approx(found))
    assert verdict.holds is holds


def test_a_budget_compares_the_figures_of_one_round() -> None:
    found = made(RATES)
    slower = {("swiftlet", 1): 10.0, ("reference", 1): 1.0, ("reference", 3): 0.5}
    runs = [
        msgspec.structs.replace(
            run, seconds=run.seconds * slower.get((run.contestant, run.round), 1)
        )
        for run in found.runs
    ]
    found = msgspec.structs.replace(found, runs=runs)
    (verdict,) = budgets.judge(found, [budget(at_least=1)])
    assert verdict.found == pytest.approx(4.5)  # of 0.9, 9 and 4.5
    (row,) = rows(found).split("\n")[2:]
    assert " | 4.5 |" in row  # and the tables of the documentation show the same


def test_a_goal_is_a_multiple_of_the_constant_answer_at_as_many_connections() -> None:
    found = made({("read", "swiftlet"): 1000, ("constant", "constant"): 2500})
    goal = budget(against="constant", measure="server", at_most=2)
    assert [one.found for one in budgets.judge(found, [goal])] == [pytest.approx(2.5)]
    at_one = msgspec.structs.replace(goal, connections=1)
    assert [one.found for one in budgets.judge(found, [at_one])] == [None]


def test_a_check_measures_what_the_budgets_compare_and_no_more() -> None:
    goals = [
        budget(against="constant", measure="server", at_most=2),
        budget(workload="every", against="best other", at_least=1, connections=1),
        budget(workload="list", against="swiftlet", items=1_000_000, at_least=1),
    ]
    read, constant = Cell("read", 64, 1, 1000), Cell("constant", 64, 1, 1000)
    assert budgets.needed(goals, ["create"], ["fastify"], 1000) == {
        constant: {"constant"},
        read: {"swiftlet"},
        Cell("create", 1, 1, 1000): {"swiftlet", "fastify"},
    }


def test_only_budgets_that_must_hold_fail_the_check() -> None:
    due = budget(at_least=10)
    goal = budget(at_least=10, met=False)
    assert len(budgets.broken(budgets.judge(made(RATES), [due, goal]))) == 1
    assert budgets.broken(budgets.judge(made(RATES), [goal])) == []


def test_a_budget_for_every_workload_is_judged_per_workload() -> None:
    rates = RATES | {("list", "swiftlet"): 5.0, ("list", "fastify"): 10.0, ("hot", "fastify"): 1.0}
    of_all = budget(workload="every", against="best other", at_least=1)
    verdicts = budgets.judge(made(rates), [of_all])
    assert {one.name: one.holds for one in verdicts} == {"a: read": True, "a: list": False}


def test_a_misspelled_field_of_a_budget_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "budgets.toml"
    file.write_text('[[budget]]\nname = "a"\nreason = "b"\nworkload = "read"\nagainst = "c"\nx = 1')
    with pytest.raises(Exception, match="unknown field `x`"):
        budgets.load(file)


def test_budgets_name_existing_workloads_and_contestants() -> None:
    workloads = {one.name for one in WORKLOADS} | {"every"}
    known = {*BY_NAME, contestants.PGBENCH.name, budgets.BEST}
    for one in budgets.load():
        assert {one.workload, one.against_workload or "read"} <= workloads, one.name
        assert {one.of, one.against} <= known, one.name


# Trials.


@needs_wrk
@pytest.mark.slow
def test_a_trial_compares_variants_of_the_service() -> None:
    done = bench("trials", "idempotency", "--rounds", "1", "--quick")
    assert done.returncode == 0, done.stderr
    assert "| create | 1 | grouped |" in done.stdout
    assert "| keyed | 1 | each alone |" in done.stdout
    assert bench("trials", "luck").returncode == 2


@pytest.mark.slow
def test_requests_without_sockets_cost_less_from_the_cache(on: StagingTable) -> None:
    fill(on, 10_000)
    found = measured_inside(on, [Inside("first"), Inside("again")], rounds=2)
    assert found.keys() == set(KINDS)
    for kind, costs in found.items():
        assert {name: len(each) for name, each in costs.items()} == {"first": 2, "again": 2}, kind
    # By four to five times: the cache answers, and no database.
    assert min(found["hot"]["first"]) < min(found["read"]["first"])
    assert "| again | " in table_of("A question", found)


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    (
        (
            {
                "VARIANT_IN_FLIGHT": "7",
                "VARIANT_UNQUEUED": "6",
                "VARIANT_MAX_BATCH": "9",
                "VARIANT_PATIENCE": "0.5",
                "VARIANT_GC": "5",
            },
            "one.in_flight, one.unqueued, one.max_batch, b.PATIENCE, app_state.GC_THRESHOLD",
            "7 6 9 0.5 5",
        ),
        ({"VARIANT_FREEZE": "0"}, "gc.freeze() or gc.get_freeze_count()", "0"),
        ({}, "one.in_flight, one.max_batch", "2 128"),
    ),
)
def test_a_variant_changes_what_its_name_says(
    environ: dict[str, str], code: str, said: str
) -> None:
    text = (
        "import gc, bench.variant as v; v.change(); from service import app_state\n"
        "from service.db import batcher as b\n"
        f"one = b.Batcher('x', None, None, ordered=False, max_batch=128); print({code})"
    )
    found = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, env=environ, check=True, capture_output=True
    )
    assert found.stdout.decode().strip() == said


@pytest.mark.slow
def test_the_others_have_the_indexes_that_serve_them_and_no_others(on: StagingTable) -> None:
    fill(on, 50)
    create(on, contestants.OTHERS)
    theirs = on.named(contestants.OTHERS)
    found = sql(theirs, "SELECT indexname FROM pg_indexes WHERE tablename = 'items'")
    assert {name for (name,) in found} == {"items_pkey", "items_sku_key", THEIR_SEARCH}
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'items'::regclass"
    assert sql(theirs, f"{triggers} AND NOT tgisinternal")[0][0] == 0
    assert sql(on, f"{triggers} AND NOT tgisinternal")[0][0] > 0
    assert sql(theirs, "SELECT count(*) FROM items")[0][0] == 50


@pytest.mark.slow
def test_a_measurement_begins_with_an_empty_cache(on: StagingTable) -> None:
    fill(on, 50)
    program = BY_NAME["swiftlet"]
    prepare(on, program)
    with served(program, on, 1) as server:

        def found() -> str:
            with urlopen(f"{server.url}/items/1") as answer:
                return str(answer.headers["X-Cache"])

        deadline = time.monotonic() + 30
        while found() != "HIT":  # a worker first learns whether it is alone
            assert time.monotonic() < deadline
        empty_caches(on.of(program))
        time.sleep(0.5)
        assert found() == "MISS"
        assert found() == "HIT"


@pytest.mark.slow
def test_a_variant_maintains_one_search_index_or_none(on: StagingTable) -> None:
    fill(on, 50)
    names = "SELECT array_agg(indexname) FROM pg_indexes WHERE indexdef LIKE '%(%gin_trgm_ops)'"
    for wanted in (None, OUR_SEARCH, OUR_SEARCH):
        search_index(on, wanted)
        assert sql(on, f"{names} AND tablename = 'items'")[0][0] == ([wanted] if wanted else None)


@pytest.mark.slow
def test_a_variant_without_totals_writes_without_the_triggers(on: StagingTable) -> None:
    fill(on, 50)
    keep_totals(on, kept=False)
    sql(on, "INSERT INTO items (name) VALUES ('x')")
    assert sql(on, "SELECT sum(total) FROM totals WHERE name = 'items'")[0][0] == 50
    keep_totals(on, kept=True)
    assert sql(on, "SELECT sum(total) FROM totals WHERE name = 'items'")[0][0] == 51


# Committed results.


@pytest.fixture
def committed() -> Result:
    return result.read(newest())


def test_the_committed_result_holds_its_budgets(committed: Result) -> None:
    assert budgets.broken(budgets.judge(committed, budgets.load())) == []
    assert all(not one.wrong for one in committed.agreements)
    assert sum(run.errors for run in committed.runs if run.contestant == "swiftlet") == 0


def test_the_documents_show_the_newest_result_and_name_its_commit(committed: Result) -> None:
    assert re.fullmatch("[0-9a-f]{7,40}", committed.commit), "measure a clean checkout"
    for page, tables in (("README.md", [few]), ("docs/performance.md", TABLES)):
        told = (ROOT / page).read_text()
        for table in (measured, *tables):
            assert table(committed) in told, "run `just bench-table`"


def test_a_table_shows_the_default_configuration_beside_the_cache_off() -> None:
    found = made(
        {
            ("read", "swiftlet"): 1000, ("read", "swiftlet-plain"): 500, ("read", "reference"): 100,
            ("constant", "constant"): 2000, ("create", "swiftlet-plain"): 10,
        }
    )  # fmt: skip
    assert "| read (64) | 1,000 (500-1,500) | 10.0 |" in rows(found)
    with_cache = "1,000 (500-1,500) | 1,000.0 | 1,000.0 | 2.00"
    assert f"| read (64) | {with_cache} | 500 (250-750) | 2,000.0 | 2,000.0 | 4.00 |" in ours(found)
    assert "| create (64) | - | - | - | - | 10 (5-15) | 100,000.0 | 100,000.0 | 200.00 |" in ours(
        found
    )
    assert rates(found) == ""


def test_who_does_not_reach_a_rate_is_shown_as_such() -> None:
    found = made({("read", "swiftlet"): 1000, ("read", "reference"): 100})
    kept = [
        msgspec.structs.replace(run, offered=1000, p999=3.0, reached=run.contestant == "swiftlet")
        for run in found.runs
    ]
    text = rates(msgspec.structs.replace(found, runs=kept))
    assert "| read, 1,000 | swiftlet | 1.00 | 1.00 | 3.00 |" in text
    assert "| read, 1,000 | reference | does not reach it: 100/s | - | - |" in text


def test_a_result_contains_no_path_and_no_machine_name(committed: Result) -> None:
    text = newest().read_text()
    assert not re.search(r"/(?:home|root|work|tmp|Users)\b", text)
    assert set(committed.machine) == {"processor", "cores", "memory", "system", "python"}


def test_every_recipe_of_the_benchmark_is_documented() -> None:
    recipes = re.findall(r"^(bench[\w-]*)", (ROOT / "justfile").read_text(), re.MULTILINE)
    told = (ROOT / "bench" / "README.md").read_text()
    assert {"bench", "bench-check", "bench-report"} <= set(recipes)
    for recipe in recipes:
        assert f"just {recipe}" in told


def test_every_contestant_is_documented() -> None:
    told = (ROOT / "bench" / "README.md").read_text()
    for one in contestants.PROGRAMS:
        assert one.title.split(" (")[0].removesuffix(", AUTOCOMMIT") in told
