"""`swiftlet migrate`: migrations of the database."""

from typing import TYPE_CHECKING

import click

from service.cli.group import app_option, application, main, run, stop, with_stores

if TYPE_CHECKING:
    from service.app import Application


@main.group(name="migrate", invoke_without_command=True)
@app_option
@click.pass_context
def migrate_(context: click.Context) -> None:
    """Migrate the database to the newest revision (up), or show its state.

    \b
    Example:
      DATABASE_URL=postgresql://user:pass@db/app swiftlet migrate
      swiftlet migrate --app notes:app
    """
    if context.invoked_subcommand is None:
        context.invoke(up)


@migrate_.command()
@app_option
def up() -> None:
    """Migrate the database to the newest revision.

    Concurrent calls are safe: one migrates, the others wait.

    \b
    Example:
      DATABASE_URL=postgresql://user:pass@db/app swiftlet migrate up
      swiftlet migrate up --app notes:app
    """
    from service.migrations import migrate

    app = application()
    with with_stores(app.settings) as (settings, _):
        migrate.up(settings.required_database_url, app.migrations)
        _show_status(app, settings.required_database_url)
        if app.tables and migrate.head(app.migrations):
            _advise(app, settings.required_database_url)


@migrate_.command()
@app_option
def status() -> None:
    """Show the revision of the database and the newest one.

    \b
    Example:
      swiftlet migrate status
      swiftlet migrate status --app notes:app
    """
    app = application()
    with with_stores(app.settings, read=True) as (settings, _):
        _show_status(app, settings.required_database_url)


@migrate_.command()
@app_option
def check() -> None:
    """Compare database, migrations and the tables in code; exit with 1 if they differ.

    \b
    Example:
      swiftlet migrate check
      swiftlet migrate check --app notes:app
    """
    from service.migrations import migrate

    app = application()
    with with_stores(app.settings, read=True) as (settings, _):
        url = settings.required_database_url
        differences = run(migrate.check(url, app.tables, app.migrations))
        for line in differences:
            click.echo(line, err=True)
        if differences:
            stop("the database, the migrations and the tables in code do not agree", 1)
        click.echo("the database, the migrations and the tables in code agree")
        _advise(app, url)


@migrate_.command()
@app_option
@click.argument("message")
def new(message: str) -> None:
    """Write a migration that changes the database to match the tables in code.

    The database must be at the newest revision; it is not changed. The first migration of an
    application creates all its tables, so its database must have no tables.

    \b
    Example:
      swiftlet migrate new "items have a colour"
      swiftlet migrate new "first tables" --app notes:app
    """
    from service.migrations import migrate, revision

    try:
        message = revision.checked(message)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    app = application()
    first = migrate.head(app.migrations) is None
    with with_stores(app.settings, read=not first) as (settings, _):
        url = settings.required_database_url
        written = run(revision.new(url, message, app.tables, app.migrations))
    for note in written.notes:
        click.echo(note, err=True)
    name = click.get_current_context().meta.get("app")
    option = f" --app {name}" if name else ""
    click.echo(f"{written.path}: read it, then `swiftlet migrate{option}`")


def _advise(app: "Application", url: str) -> None:
    """Print SQL for missing optional indexes."""
    from service.migrations import migrate

    if statements := run(migrate.advice(url, app.tables)):
        click.echo("searches read every row; this creates an index, also while the service runs:")
        click.echo("".join(f"  {statement};\n" for statement in statements), nl=False)


def _show_status(app: "Application", url: str) -> None:
    from service.migrations import migrate

    revision = run(migrate.status(url))
    click.echo(f"revision {revision or 'none'}, newest {migrate.head(app.migrations) or 'none'}")
