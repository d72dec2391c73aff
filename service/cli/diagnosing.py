"""`swiftlet doctor`: what is wrong, and what to do about it."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from service.cli.group import app_option, application, main, run

if TYPE_CHECKING:
    from service.app import Application
    from service.doctor.check import Check, Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@main.command()
@app_option
@click.option("--host", help="Check for this `serve --host`.")
@click.option("--port", help="Check for this `serve --port`.")
@click.option("--workers", help="Check for so many `serve --workers`.")
@click.option("--data", help="Data directory of embedded stores.  [default: .data]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
def doctor(*, as_json: bool, **options: str | None) -> int:
    """Check settings, machine, database and Redis; say what to do; exit with 1 if a check fails.

    Nothing is started, created or changed. A store that hangs is a line too.

    \b
    Example:
      swiftlet doctor
      swiftlet doctor --workers 4 --host 0.0.0.0
      swiftlet doctor --app notes:app --json
    """
    found = run(_examine(application(options), show=not as_json))
    counts = Counter[str](finding.state for _, _, finding in found)
    if as_json:
        lines = [
            {"area": area, "name": check.name, **finding._asdict()}
            for area, check, finding in found
        ]
        click.echo(json.dumps({"ok": not counts["fail"], "checks": lines}, indent=2))
    else:
        click.echo(", ".join(f"{counts[state]} {state}" for state in COLOURS))
    return int(counts["fail"] > 0)


async def _examine(app: "Application", *, show: bool) -> list[tuple[str, "Check", "Finding"]]:
    from service.doctor import AREAS
    from service.doctor.examine import examine
    from service.doctor.subject import Subject
    from service.embedded.stores import attached

    settings, found = app.settings, []
    areas = {check.name: area for area, checks in AREAS.items() for check in checks}
    with ExitStack() as held:
        stores = None
        if settings.database_url is None or settings.redis_url is None:
            stores = held.enter_context(attached(Path(settings.data)))
        if stores is not None:
            settings = msgspec.structs.replace(
                settings,
                database_url=settings.database_url or stores.database_url,
                redis_url=settings.redis_url or stores.redis_url,
            )
        checks = [check for one in AREAS.values() for check in one]
        async for check, finding in examine(Subject(app, settings, stores), checks):
            found.append((areas[check.name], check, finding))
            if show:
                _show(check, finding)
    return found


def _show(check: "Check", finding: "Finding") -> None:
    state = click.style(f"{finding.state:<4}", fg=COLOURS[finding.state])
    advice = f": {finding.advice}" if finding.advice else ""
    # One line, whatever a message of a store has in it.
    click.echo(f"{state}  {check.name:<18}  {' '.join(f'{finding.found}{advice}'.split())}")
