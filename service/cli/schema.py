"""Commands about what the service is made of: its schema, its statements, its document."""

import click
import msgspec

from service.cli.group import main, run, settings_of, stop, with_stores


@main.command(name="migrate")
@click.argument("action", type=click.Choice(["up", "check", "status"]), default="up")
def migrate_(action: str) -> None:
    """Bring the database to the newest revision, or see how it stands.

    \b
    Example:
      DATABASE_URL=postgresql://user:pass@db/app service migrate check
    """
    from service import migrate

    with with_stores(settings_of()) as (settings, _):
        url = settings.required_database_url
        if action == "up":
            migrate.up(url)
        if action == "check":
            differences = run(migrate.check(url))
            for line in differences:
                click.echo(line, err=True)
            if differences:
                stop("the database, the migrations and tables.py do not agree", 1)
            click.echo("the database, the migrations and tables.py agree")
        else:
            revision = run(migrate.status(url))
            click.echo(f"revision {revision or 'none'}, newest {migrate.head()}")
        if action != "status" and (advice := run(migrate.advice(url))):
            click.echo("Searches have no index here, and read every row. To make it:")
            click.echo("".join(f"  {statement};\n" for statement in advice), nl=False)


@main.command()
def statements() -> None:
    """Print every statement the service runs, as `sql/statements.sql` has them.

    \b
    Example:
      service statements > sql/statements.sql
    """
    from service import catalogue

    click.echo(catalogue.listing(), nl=False)


@main.command()
@click.argument("name")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="An argument.")
@click.option("--analyze", is_flag=True, help="Run it, in a transaction that is rolled back.")
def explain(name: str, params: tuple[str, ...], *, analyze: bool) -> None:
    """Show PostgreSQL's plan of a named statement.

    \b
    Example:
      service explain 'items.page?sort=-price&q' --param q=%lamp% --analyze
    """
    from service import catalogue

    try:
        statement = catalogue.named(name)
    except KeyError:
        raise click.BadParameter(f"{name!r} is none; `service statements` lists them") from None
    given = dict(param.partition("=")[::2] for param in params)
    with with_stores(settings_of()) as (settings, _):
        plan = catalogue.explain(settings.required_database_url, statement, given, analyze=analyze)
        try:
            click.echo(run(plan))
        except ValueError as error:
            raise click.BadParameter(str(error)) from None


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, writable=True), default="-")
def openapi(file: str) -> None:
    """Write the OpenAPI 3.1 document.

    \b
    Example:
      service openapi openapi.json
    """
    from service.app import ROUTES
    from service.web.openapi import document

    text = msgspec.json.format(msgspec.json.encode(document(ROUTES)), indent=2).decode()
    with click.open_file(file, "w", encoding="utf-8") as output:
        output.write(f"{text}\n")
