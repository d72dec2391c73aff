"""`swiftlet jobs`: list jobs, and queue those that have failed again."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from service.cli.accounts import data_option
from service.cli.group import app_option, application, main, stop
from service.cli.one_use import read, write
from service.cli.printing import print_table, shown_time

if TYPE_CHECKING:
    from service.app import Application
    from service.db.database import Database
    from service.db.writable import WritableDatabase
    from service.jobs.statements import JobRow

STATES = ("queued", "running", "done", "failed")
MOST = 10_000
# Jobs that one statement queues again: 100,000 take some 2 s.
AT_ONCE = 5000
# Characters of an error in the table; `--json` has all of it.
ERROR_WIDTH = 80


@main.group()
def jobs() -> None:
    """List jobs, and retry those that have failed.

    \b
    Example:
      swiftlet jobs list --state failed
      swiftlet jobs retry --all
    """


@jobs.command(name="list")
@app_option
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--kind", help="Only jobs of this kind.")
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=20, show_default=True, help="How many."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
@data_option
def list_jobs(
    *, state: str | None, kind: str | None, limit: int, as_json: bool, data: str | None
) -> None:
    """List jobs, the newest first.

    \b
    Example:
      swiftlet jobs list --state failed --limit 100
      swiftlet jobs list --kind welcome --json
      swiftlet jobs list --app notes:app
    """
    from service.jobs import statements
    from service.jobs.routes import encode_job

    async def find(db: "Database") -> list["JobRow"]:
        records = await statements.list_.records(
            db, state=state, kind=kind, before=None, limit=limit
        )
        return [statements.JobRow(*record) for record in records]

    found = read(_application(data), find)
    if as_json:
        click.echo(json.dumps([json.loads(encode_job(one)) for one in found], indent=2))
        return
    print_table(
        ("ID", "KIND", "STATE", "DONE", "ATTEMPTS", "CREATED", "DUE OR ENDED", "ERROR"),
        (
            (
                str(one.id),
                one.kind,
                one.state,
                _progress(one),
                str(one.attempts),
                shown_time(one.created_at),
                shown_time(one.finished_at or one.run_at),
                _shortened(one.error or ""),
            )
            for one in found
        ),
    )


@jobs.command(name="retry")
@app_option
@click.argument("ids", nargs=-1, type=click.IntRange(1, 2**63 - 1), metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All jobs that have failed.")
@click.option("--kind", help="With --all: only jobs of this kind.")
@data_option
def retry_jobs(*, ids: tuple[int, ...], every: bool, kind: str | None, data: str | None) -> None:
    """Queue failed jobs again, with all their attempts.

    \b
    Example:
      swiftlet jobs retry 7 8
      swiftlet jobs retry --all --kind welcome
      swiftlet jobs retry --all --app notes:app
    """
    from service.jobs import statements

    if every == bool(ids):
        raise click.UsageError("give the ids of jobs, or --all")
    if kind is not None and not every:
        raise click.UsageError("--kind is for --all")

    async def retry(db: "WritableDatabase") -> set[int]:
        if not every:
            return await _retried(db, ids)
        done, before = set[int](), None
        while found := await statements.list_.records(
            db, state="failed", kind=kind, before=before, limit=AT_ONCE
        ):
            before = found[-1]["id"]
            done |= await _retried(db, [record["id"] for record in found])
        return done

    done = write(_application(data), retry)
    click.echo(f"{len(done)} {'job is' if len(done) == 1 else 'jobs are'} queued again")
    if left := sorted({*ids} - done):
        named = ", ".join(map(str, left))
        stop(f"not failed, or there is no such job: {named}; `swiftlet jobs list` shows jobs", 1)


async def _retried(db: "WritableDatabase", ids: Sequence[int]) -> set[int]:
    """Retry the jobs with these ids, and return those that had failed."""
    from service.jobs import statements

    return {record[0] for record in await statements.retry.records(db, ids=ids)}


def _application(data: str | None) -> "Application":
    """Return the application; stop if it has no jobs."""
    app = application({"data": data})
    if not app.jobs:
        stop(f"{app.settings.app} has no jobs: give create_app(jobs=...)", 2)
    return app


def _progress(job: "JobRow") -> str:
    return str(job.done) if job.total is None else f"{job.done} of {job.total}"


def _shortened(text: str) -> str:
    return text if len(text) <= ERROR_WIDTH else f"{text[: ERROR_WIDTH - 1]}…"
