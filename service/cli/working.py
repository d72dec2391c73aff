"""`swiftlet work`."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, NoReturn

import click
import msgspec

from service import logs, tracing
from service.cli.group import app_option, application, main, run, stop, with_stores
from service.embedded.data_directory import Stores
from service.embedded.stores import attached
from service.embedded.watch import Watch
from service.outgoing import check_notify_url
from service.server.processes import StopSignals
from service.settings import Settings
from service.settings.urls import address

if TYPE_CHECKING:
    from service.app import Application
    from service.cli.banner import Database

# Between two looks whether the service that runs the joined database still does.
LOOK_SECONDS = 1.0
# A service that has just begun migrates its database for so long, at most.
MIGRATION_SECONDS = 30.0
# A job loop answers no requests: no cache, whose invalidations it would have to hear, and no
# counts, which nothing would show. The triggers announce what it writes.
OFF = {
    "auth": "off",
    "cache": "off",
    "jobs": "on",
    "metrics": "off",
    "rate_limit": "off",
    "rate_limit_writes": "off",
}


@main.command()
@app_option
@click.option("--data", help="Data directory of embedded stores.  [default: .data]")
def work(data: str | None) -> None:
    """Run jobs and serve no requests, until SIGTERM or Ctrl-C.

    Running jobs get some seconds to end; those that do not are run again later.

    \b
    Example:
      swiftlet work
      swiftlet work --app notes:app
    """
    # A stop signal is the normal end of a service.
    with StopSignals(_exit).installed() as signals:
        app = application({"data": data})
        tracing.check(app.settings.traces)
        check_notify_url(app.settings)
        if not app.jobs:
            stop(f"{app.settings.app} has no jobs: give create_app(jobs=...)", 2)
        logs.plain(app.settings.log)
        _run_in_database(app, signals)


def _run_in_database(app: "Application", signals: StopSignals) -> None:
    from service.cli import banner, serving

    found, asked, watch = None, app.settings, Watch()
    if asked.database_url is not None:
        found = run(banner.look_at_database(asked.database_url))
    with with_stores(asked, watch=watch) as (settings, running):
        if found is None:
            joined = running is not None and running.joined
            found = _migrated_by_owner(app, settings) if joined else serving.migrated(app, settings)
        app.serves = False
        app.settings = msgspec.structs.replace(settings, **OFF)
        with watch.installed(), signals.bounded():
            ended = run(_run_jobs(app, signals, _banner(app, running, found), running))
    if ended:
        stop("the service that ran the database has ended: start `swiftlet work` again", 1)


def _migrated_by_owner(app: "Application", settings: Settings) -> "Database":
    """Wait until the service that runs the database has migrated it; return its state."""
    from service.cli import banner
    from service.migrations import migrate

    head, give_up = migrate.head(app.migrations), time.monotonic() + MIGRATION_SECONDS
    while True:
        found = run(banner.look_at_database(settings.required_database_url))
        if found.revision == head or time.monotonic() > give_up:
            return found
        time.sleep(0.1)


async def _run_jobs(
    app: "Application",
    signals: StopSignals,
    lines: list[tuple[str, str]],
    running: Stores | None,
) -> bool:
    """Run jobs until the stop; return whether the joined stores have ended before."""
    from service.app_state import opened_state
    from service.cli import banner

    joined = running if running is not None and running.joined else None
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(stopped.set)

    signals.action = wake
    with logs.queued(app.settings.log):
        async with opened_state(app):
            banner.show(lines)
            while not signals.received:
                if joined is not None and not _still_run(joined):
                    return True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), LOOK_SECONDS if joined else None)
    return False


def _still_run(joined: Stores) -> bool:
    """Return whether the service whose stores were joined still runs them."""
    with attached(joined.data) as found:
        return found is not None and found.database_url == joined.database_url


def _banner(app: "Application", running: Stores | None, found: "Database") -> list[tuple[str, str]]:
    from service.cli import banner
    from service.migrations import migrate

    url = app.settings.required_database_url
    place = f"at {address(url)}" if running is None else banner.EMBEDDED
    lines = banner.lines(found, migrate.head(app.migrations), place, None, banner.OFF)
    shown = [("Jobs", ", ".join(app.jobs)), *(line for line in lines if line[0] != "Redis")]
    if running is not None:
        shown += [("Data", str(running.data)), *(("Note", note) for note in running.notes)]
    return [*shown, ("Stop", "Ctrl-C")]


def _exit() -> NoReturn:
    # SystemExit unwinds the stack, so everything that was started is stopped.
    raise SystemExit(0)
