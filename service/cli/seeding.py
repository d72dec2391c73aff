"""`swiftlet seed`."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from service.cli.bars import move, progress_bars
from service.cli.group import Command, app_option, application, main, run, stop, with_database

if TYPE_CHECKING:
    from service.app import Application


class SeedCommand(Command):
    """Has an option for each table with sample rows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Load the application, which defines the options, before parsing."""
        for word, after in zip(args, [*args[1:], ""], strict=True):
            name = after if word == "--app" else word.removeprefix("--app=")
            if name and word.startswith("--app"):
                ctx.meta["app"] = name
        fixed = [one for one in self.params if not isinstance(one, RowsOption)]
        if {"-h", "--help"} & {*args}:
            with suppress(Exception):  # show the help also when the application can't be loaded
                self.params = [*_options(application()), *fixed]
        else:
            self.params = [*_options(application()), *fixed]
        return super().parse_args(ctx, args)


class RowsOption(click.Option):
    """The number of rows of a table."""


def _options(app: "Application") -> list[RowsOption]:
    rows = app.seed.rows if app.seed is not None else {}
    return [
        RowsOption([f"--{table}"], type=click.IntRange(0), default=count, show_default=True)
        for table, count in rows.items()
    ]


@main.command(cls=SeedCommand)
@app_option
def seed(**rows: Any) -> None:
    """Fill the database with sample rows; existing rows are not changed.

    An application has sample rows if it gives `seed` to create_app.

    \b
    Example:
      swiftlet seed --users 1000 --items 100000
      swiftlet seed --app notes:app
    """
    app = application()
    samples = app.seed
    if samples is None:
        stop(f"{app.settings.app} has no sample data: give `seed` to create_app", 2)
    with with_database(app) as settings, progress_bars() as bars:
        tasks = {name: bars.add_task(name, total=total, rate="") for name, total in rows.items()}

        def progress(table: str, done: int) -> None:
            move(bars, tasks[table], done)

        new = run(samples.write(settings.required_database_url, rows, progress))
    click.echo(" and ".join(f"{count} {table}" for table, count in new.items()) + " are new")
