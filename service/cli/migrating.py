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
    from service.migrations import migrate

    with with_stores(settings_of()) as (settings, _):
        migrate.up(settings.required_database_url)
        _tell(settings.required_database_url)
        _advise(settings.required_database_url)


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
    from service.migrations import migrate

    with with_stores(settings_of(), read=True) as (settings, _):
        differences = run(migrate.check(settings.required_database_url))
        for line in differences:
            click.echo(line, err=True)
        if differences:
            stop("the database, the migrations and tables.py do not agree", 1)
        click.echo("the database, the migrations and tables.py agree")
        _advise(settings.required_database_url)


@migrate_.command()
@click.argument("message")
def new(message: str) -> None:
    """Write a migration that makes the database's tables those in code.

    The database must be at the newest revision. Nothing is changed there.

    \b
    Example:
      swiftlet migrate new "items have a colour"
    """
    from service.migrations import revision

    try:
        message = revision.checked(message)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    with with_stores(settings_of(), read=True) as (settings, _):
        written = run(revision.new(settings.required_database_url, message))
    for note in written.notes:
        click.echo(note, err=True)
    click.echo(f"{written.path}: read it, then `swiftlet migrate`")


def _advise(url: str) -> None:
    """Say how to make what is optional and missing."""
    from service.migrations import migrate

    if statements := run(migrate.advice(url)):
        click.echo("searches read every row here; to make an index for them, also while it serves:")
        click.echo("".join(f"  {statement};\n" for statement in statements), nl=False)


def _tell(url: str) -> None:
    from service.migrations import migrate

    revision = run(migrate.status(url))
    click.echo(f"revision {revision or 'none'}, newest {migrate.head()}")
