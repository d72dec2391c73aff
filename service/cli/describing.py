"""Commands that describe the service: statements, plans, the OpenAPI document."""

from pathlib import Path

import click
import msgspec

from service.cli.group import app_option, application, main, run, with_database


@main.command()
@app_option
def statements() -> None:
    """Print every statement that the service runs, as in `sql/statements.sql`.

    \b
    Example:
      swiftlet statements > sql/statements.sql
      swiftlet statements --app notes:app
    """
    from service.cli import catalogue

    click.echo(catalogue.listing(application().resources), nl=False)


@main.command()
@app_option
@click.argument("name")
@click.option(
    "--param", "params", multiple=True, metavar="NAME=VALUE", help="An argument of the statement."
)
@click.option("--analyze", is_flag=True, help="Run the statement too, and roll it back.")
def explain(name: str, params: tuple[str, ...], *, analyze: bool) -> None:
    """Show PostgreSQL's plan of a statement.

    \b
    Example:
      swiftlet explain 'items.page?sort=-price&q' --param q=%lamp% --analyze
      swiftlet explain notes.by_id --app notes:app
    """
    from service.cli import catalogue

    app = application()
    try:
        resource, statement = catalogue.find(app.resources, name)
    except KeyError:
        raise click.BadParameter(
            f"there is no statement {name!r}; `swiftlet statements` lists all"
        ) from None
    given = dict(param.partition("=")[::2] for param in params)
    try:
        catalogue.check_names(statement, given)  # before a database is started
        with with_database(app, read=True) as settings:
            url = settings.required_database_url
            click.echo(run(catalogue.explain(url, resource, statement, given, analyze=analyze)))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@main.command()
@app_option
@click.argument("file", type=click.Path(dir_okay=False, writable=True), default="-")
def openapi(file: str) -> None:
    """Write the OpenAPI 3.1 document.

    \b
    Example:
      swiftlet openapi openapi.json
      swiftlet openapi --app notes:app
    """
    from service.web.openapi import document

    app = application()
    found = document(app.operations, app.about, checks=app.checks)
    text = msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
    if file == "-":
        click.echo(text)
        return
    try:
        Path(file).write_text(f"{text}\n", encoding="utf-8")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, file) from None
