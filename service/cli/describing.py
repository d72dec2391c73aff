"""Commands that describe the service: statements, plans, the OpenAPI document."""

from pathlib import Path

import click
import msgspec

from service.cli.group import app_option, application, main, run, stop, with_database


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
@click.option("--complete", is_flag=True, help="As if API keys and rate limits were on.")
@click.option("--server", metavar="URL", default="", help="The address of the service.")
@click.option(
    "--compare",
    metavar="RELEASED",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Write instead what breaks the clients of this document; exit code 1 if anything does.",
)
def openapi(file: str, server: str, compare: Path | None, *, complete: bool) -> None:
    """Write the OpenAPI 3.1 document.

    \b
    Example:
      swiftlet openapi openapi.json
      swiftlet openapi --app notes:app --server https://notes.example.com
      swiftlet openapi --complete --compare released.json
    """
    from service.web.openapi import document
    from service.web.openapi_changes import breaking_changes
    from service.web.openapi_texts import Checks

    app = application()
    checks = Checks(keys=app.auth is not None, limits=True) if complete else app.checks
    found = document(app.operations, app.about, server, checks)
    if compare is not None:
        try:
            released = msgspec.json.decode(compare.read_bytes())
            lines = breaking_changes(released, found)
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            stop(f"{compare} is not an OpenAPI document that `swiftlet openapi` wrote", 1)
        for line in lines:
            click.echo(line)
        if lines:
            stop(f"{len(lines)} changes break the clients of {compare}", 1)
        return
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
