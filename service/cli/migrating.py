"""`swiftlet migrate`: the database and its migrations."""

import click

from service.cli.group import main, run, settings_of, stop, with_stores


@main.group(name="migrate", invoke_without_command=True)
@click.pass_context
def migrate_(context: click.Context) -> None:
    """Bring the database to the newest revision (up), or see how it stands.

    \b
    Example:
      DATABASE_URL=postgresql://user:pass@db/app swiftlet migrate
    """
    if context.invoked_subcommand is None:
        context.invoke(up)


@migrate_.command()
def up() -> None:
    """Bring the database to the newest revision.

    Several at once are safe: one migrates, the others wait for it.

    \b
    Example:
      DATABASE_URL=postgresql://user:pass@db/app swiftlet migrate up
    """
    from service import migrate

    with with_stores(settings_of()) as (settings, _):
        migrate.up(settings.required_database_url)
        _tell(settings.required_database_url)


@migrate_.command()
def status() -> None:
    """Tell at which revision the database is, and which is the newest.

    \b
    Example:
      swiftlet migrate status
    """
    with with_stores(settings_of(), read=True) as (settings, _):
        _tell(settings.required_database_url)


@migrate_.command()
def check() -> None:
    """Compare database, migrations and the tables in code; exit with 1 where they differ.

    \b
    Example:
      swiftlet migrate check
    """
    from service import migrate

    with with_stores(settings_of(), read=True) as (settings, _):
        differences = run(migrate.check(settings.required_database_url))
    for line in differences:
        click.echo(line, err=True)
    if differences:
        stop("the database, the migrations and tables.py do not agree", 1)
    click.echo("the database, the migrations and tables.py agree")


def _tell(url: str) -> None:
    from service import migrate

    revision = run(migrate.status(url))
    click.echo(f"revision {revision or 'none'}, newest {migrate.head()}")
