"""`python -m bench`: measure, check budgets, draw reports. See bench/README.md."""

import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from bench import budgets, result

OUT = Path(".data/bench")
DIRECTORY = click.Path(file_okay=False, path_type=Path)
RESULTS = Path(__file__).parent / "results"
BEGAN = time.monotonic()
# The best of the others was one of these in every full result so far.
BEST_OTHERS = ("blacksheep", "fastify")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Swiftlet against the FastAPI reference, its peers and the physical limit."""


def _comma(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    return [part for part in value.split(",") if part]


@main.command()
@click.option("--quick", is_flag=True, help="Fewer workloads, shorter: under 8 minutes.")
@click.option("--rounds", type=click.IntRange(1), help="5, with --quick 3.")
@click.option("--seconds", type=click.IntRange(1), default=1, show_default=True, help="Of each.")
@click.option("--items", type=click.IntRange(100), default=100_000, show_default=True)
@click.option("--only", default="", callback=_comma, help="Contestants, separated by commas.")
@click.option("--workloads", default="", callback=_comma, help="Workloads, separated by commas.")
@click.option(
    "--reference-path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkout of the public reference repository, measured unchanged.",
)
@click.option("--no-tables", is_flag=True, help="Without micro tables, layers and COPY.")
@click.option("--out", type=DIRECTORY, default=OUT, show_default=True, help="Where it goes.")
def measure(  # noqa: PLR0913 - click gives each option as an argument
    *,
    quick: bool,
    rounds: int | None,
    seconds: int,
    items: int,
    only: list[str],
    workloads: list[str],
    reference_path: Path | None,
    no_tables: bool,
    out: Path,
) -> None:
    """Measure all contestants; write the result as JSON and as a page.

    \b
    Examples:
      python -m bench measure --quick
      python -m bench measure --only swiftlet,fastify --workloads read,create --seconds 3
    """
    _measure(
        out,
        "quick" if quick else "full",
        rounds=rounds or (3 if quick else 5),
        seconds=seconds,
        items=items,
        quick=quick,
        only=only,
        names=workloads,
        reference_path=reference_path,
        tables=not no_tables,
    )


@main.command()
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--items", type=click.IntRange(100), default=100_000, show_default=True)
@click.option(
    "--slow",
    type=click.FloatRange(0),
    default=0.0,
    help="Milliseconds of CPU to waste in each of our requests, to see that the check fails.",
)
@click.option("--workloads", default="", callback=_comma, help="Only the budgets of these.")
@click.option("--against", default="", callback=_comma, help="Only the budgets against these.")
@click.option("--out", type=DIRECTORY, default=OUT, show_default=True, help="Where it goes.")
def check(
    *,
    file: Path | None,
    rounds: int,
    items: int,
    slow: float,
    workloads: list[str],
    against: list[str],
    out: Path,
) -> None:
    """Check FILE against bench/budgets.toml; without FILE measure first. Exit 1 if a budget fails.

    \b
    Examples:
      python -m bench check --workloads read,create --against reference
      python -m bench check bench/results/2026-11-21-full.json
    """
    if file is not None:
        verdicts = budgets.judge(result.read(file), budgets.load())
        _show(verdicts)
    else:
        from bench.run import check_names

        if wrong := check_names(workloads, []):
            raise click.UsageError(wrong)
        asked = [
            one
            for one in budgets.load()
            if (not workloads or one.workload in {*workloads, "every"})
            and (not against or one.against in against)
        ]
        wanted = budgets.needed(asked, workloads, BEST_OTHERS, items)
        if not wanted:
            raise click.UsageError("no budget compares these; see bench/budgets.toml")
        verdicts = _measure(
            out,
            "check",
            rounds=rounds,
            seconds=1,
            items=items,
            slow=slow,
            tables=False,
            wanted=wanted,
        )
    if broken := budgets.broken(verdicts):
        click.echo(f"{len(broken)} of the budgets that must hold fall short")
        sys.exit(1)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("html", type=click.Path(dir_okay=False, path_type=Path))
def report(file: Path, html: Path) -> None:
    """Draw FILE as the page HTML."""
    from bench.report.page import page

    found = result.read(file)
    html.write_text(page(found, budgets.judge(found, budgets.load())))


@main.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--quick", is_flag=True, help="Few rows and connections, to see that a trial runs.")
def trials(names: tuple[str, ...], rounds: int, seconds: int, *, quick: bool) -> None:
    """Compare variants of our service; print tables. All trials take half an hour.

    \b
    Examples:
      python -m bench trials
      python -m bench trials server batching --rounds 3
      python -m bench trials objects
      AGAINST=../other-checkout python -m bench trials tree-cache-off tree-cache-on
    """
    from bench.measure import require_wrk
    from bench.trials import PLAIN_TABLES, TABLES, TRIALS, brief, run, shown, tabled

    if not names or not PLAIN_TABLES.keys() >= set(names):
        require_wrk()
    tables = [*TABLES, *PLAIN_TABLES]
    known = [*(one.name for one in TRIALS), *tables]
    if wrong := [name for name in names if name not in known]:
        raise click.UsageError(f"no trial {', '.join(wrong)}; trials: {', '.join(known)}")
    for trial in TRIALS:
        if not names or trial.name in names:
            one = brief(trial) if quick else trial
            rows = run(one, rounds, seconds, lambda line: click.echo(line, err=True))
            click.echo(shown(one, rows))
    for name in tables:
        if not names or name in names:
            click.echo(tabled(name))


@main.command()
@click.option("--rows", type=click.IntRange(10_000), default=1_000_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--only", default="", help="Only lists whose name contains this: `items?q=lamp`.")
@click.option("--without-trigrams", is_flag=True, help="Without the index of pg_trgm.")
@click.option("--database", help="The URL of an empty, migrated database; else a throw-away one.")
@click.option("--filled", is_flag=True, help="The database was filled by an earlier run.")
def lists(
    *,
    rows: int,
    rounds: int,
    only: str,
    without_trigrams: bool,
    database: str | None,
    filled: bool,
) -> None:
    """Compare filtered lists of large tables with both possible plans; 20 minutes.

    \b
    Examples:
      python -m bench lists
      python -m bench lists --only items?q=lamp --without-trigrams
    """
    from bench.lists import Measured, run
    from bench.trials import stage_in_temporary

    def say(one: Measured) -> None:
        click.echo(f"{one.case} {one.sort} {one.view}: {one.ours:.1f} {one.ratio:.1f}", err=True)

    with ExitStack() as held:
        url = database or held.enter_context(stage_in_temporary()).database_url
        trigrams = not without_trigrams
        click.echo(run(url, rows, rounds, only, say, trigrams=trigrams, filled=filled))


@main.command()
@click.option("--seconds", type=click.IntRange(1), default=20, show_default=True, help="Of load.")
@click.option("--no-memory", is_flag=True, help="Do not read a million ids; saves 2 minutes.")
def promises(seconds: int, *, no_memory: bool) -> None:
    """Check the promises of the cache under load: delays between two workers, memory.

    \b
    Example:
      python -m bench promises --seconds 60
    """
    from bench.measure import require_wrk
    from bench.promises import ALLOWED, memory, staleness

    require_wrk()
    found = staleness(seconds, _say)
    click.echo("| load | changes | ms to the other worker: p50 | p99 | most | broken promises |")
    click.echo("|---|---|---|---|---|---|")
    for one in found:
        click.echo(
            f"| {one.load} | {one.probes:,} | {one.p50:.2f} | {one.p99:.2f} | {one.most:.2f}"
            f" | {one.violations} |"
        )
    broken = any(one.violations for one in found)
    if not no_memory:
        before, most, read = memory(_say)
        click.echo(
            f"{read:,} ids read: {before:.0f} MiB before, {most:.0f} at most,"
            f" {(most - before) / ALLOWED:.2f} of the limit of the cache"
        )
        broken = broken or most - before > 1.2 * ALLOWED
    if broken:
        sys.exit(1)


@main.command()
@click.option("--items", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def files(items: int, rounds: int) -> None:
    """Measure import and export against psql, the effect on other requests, and upserts.

    \b
    Example:
      python -m bench files --items 100000
    """
    from bench.files import run, shown

    told: list[str] = []
    for line in shown(list(run(items, rounds, _say, told))):
        click.echo(line)
    click.echo("\n" + "\n".join(told))


@main.command()
@click.option("--items", type=click.IntRange(10_000), default=100_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=5, show_default=True)
@click.option("--only", default="", callback=_comma, help="Work whose name contains one of these.")
def beside(items: int, rounds: int, seconds: float, only: list[str]) -> None:
    """Measure p99 of single reads beside heavy work: writes of many rows, files, long lists.

    \b
    Examples:
      python -m bench beside --only PUT,import --seconds 10
      AGAINST=../other-checkout python -m bench beside --only PUT
    """
    from bench.beside import run, shown

    for line in shown(list(run(items, rounds, seconds, only, _say))):
        click.echo(line)


@main.command()
@click.option("--subscribers", type=click.IntRange(20), default=5000, show_default=True)
@click.option("--rate", type=click.FloatRange(1), default=1000, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=30, show_default=True)
@click.option("--kills", type=click.IntRange(0), default=2, show_default=True)
@click.option("--server", type=click.Choice(["uvicorn", "granian"]), default="uvicorn")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
def feed(
    *, subscribers: int, rate: float, seconds: int, kills: int, server: str, workers: int
) -> None:
    """The fault run of the feed of changes: SIGKILL in between; lost 0, duplicated 0.

    \b
    Example:
      python -m bench feed --subscribers 500 --rate 200 --seconds 10
    """
    from bench.feedrun import Sizes, feed_run

    sizes = Sizes(subscribers, rate, seconds, kills)

    with tempfile.TemporaryDirectory() as place:
        found = feed_run(Path(place), click.echo, sizes, server=server, workers=workers)
    for line in found.lines():
        click.echo(line)
    if found.lost or found.duplicated or found.out_of_order:
        sys.exit(1)


@main.command()
@click.option("--rate", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Factor.")
@click.option("--ramp", type=click.IntRange(1), default=180, show_default=True, help="Seconds.")
@click.option("--cpus", type=click.FloatRange(0.1), default=1.5, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
def rinha(*, rate: float, ramp: int, cpus: float, workers: int) -> None:
    """The load of the Rinha de Backend 2023-Q3 on examples/rinha; exit 1 if its rules are broken.

    \b
    Example:
      python -m bench rinha --rate 0.5 --ramp 30
    """
    from bench.rinha import rinha_run

    with tempfile.TemporaryDirectory() as place:
        found = rinha_run(Path(place), _say, rate=rate, ramp=ramp, cpus=cpus, workers=workers)
    for line in found.lines():
        click.echo(line)
    if not found.ok:
        sys.exit(1)


@main.command()
def table() -> None:
    """Print the tables of README.md and docs/performance.md, from the newest full result."""
    from bench.readme import TABLES, few, measured

    found = result.read(newest())
    click.echo(f"README.md:\n\n{measured(found)}\n\n{few(found)}\n\ndocs/performance.md:\n")
    click.echo("\n\n".join([measured(found), *(each(found) for each in TABLES)]))


def newest() -> Path:
    """Return the newest committed full result."""
    found = sorted(RESULTS.glob("*-full.json"))
    if not found:
        raise click.ClickException("no result in bench/results: run `just bench`")
    return found[-1]


def _measure(out: Path, kind: str, **options: Any) -> list[budgets.Verdict]:
    """Run and write the result; exit 1 if a contestant answers wrongly, as it may be ours.

    A run that ends early, as at Ctrl-C or SIGTERM, writes what it has.
    """
    from bench import run
    from bench.measure import require_wrk
    from bench.report.page import page

    def write(found: result.Result, name: str) -> list[budgets.Verdict]:
        result.write(found, out / f"{name}.json")
        verdicts = budgets.judge(found, budgets.load())
        (out / f"{name}.html").write_text(page(found, verdicts))
        _say(f"written: {out / name}.json and .html")
        return verdicts

    def keep(found: result.Result) -> None:
        write(found, f"{found.taken[:10]}-{kind}-partial")

    require_wrk()
    if wrong := run.check_names(options.get("names", []), options.get("only", [])):
        raise click.UsageError(wrong)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    command = f"python -m bench {' '.join(sys.argv[1:])}"
    found = run.run(run.Options(command=command, **options), _say, keep)
    verdicts = write(found, f"{found.taken[:10]}-{kind}")
    _show(verdicts)
    if faulty := [one.contestant for one in found.agreements if one.wrong]:
        _say(f"answered wrongly, and were not measured: {', '.join(faulty)}")
        sys.exit(1)
    return verdicts


def _show(verdicts: list[budgets.Verdict]) -> None:
    """Print the table of the goals: goal, found, holds."""
    words = {True: "holds", False: "SHORT", None: "not measured"}
    click.echo("\n| goal | | found | holds |\n|---|---|---|---|")
    for one in verdicts:
        word = words[one.holds] if one.expected or one.holds is not False else "not yet met"
        if one.holds and not one.expected:
            word = "holds; its `met = false` can go"
        found = "-" if one.found is None else f"{one.found:.2f}"
        click.echo(f"| {one.name} | {one.goal} | {found} | {word} |")


def _say(line: str) -> None:
    click.echo(f"{time.monotonic() - BEGAN:6.0f} s  {line}")


if __name__ == "__main__":
    main()
