"""Commands that describe the service: statements, plans, the OpenAPI document."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from service.cli.group import app_option, application, main, run, stop, with_database
from service.web.codec import encode

if TYPE_CHECKING:
    from service.admin.explain import Explained, Plan, Value


@main.command()
@app_option
def statements() -> None:
    """Print every statement that the service runs, as in `sql/statements.sql`.

    \b
    Example:
      swiftlet statements > sql/statements.sql
      swiftlet statements --app notes:app
    """
    from service.admin import catalogue

    click.echo(catalogue.listing(application().sources), nl=False)


@main.command()
@app_option
@click.argument("name")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument of the statement; NAME:=JSON for any value of JSON. Others get examples.",
)
@click.option("--analyze", is_flag=True, help="Run the statement too, and roll it back.")
@click.option(
    "--plan",
    type=click.Choice(("auto", "custom", "generic")),
    default="auto",
    show_default=True,
    help="For these values, or one for all; auto: what a connection uses after five runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def explain(
    name: str, params: tuple[str, ...], plan: "Plan", *, analyze: bool, as_json: bool
) -> None:
    """Show PostgreSQL's plan of a statement. Nothing is changed for good.

    Arguments are sent as the service sends them. An array is JSON: --param ids=[1,2]. The word
    null is null, except for a text: --param description:=null.

    \b
    Example:
      swiftlet explain items.by_id --param id=7
      swiftlet explain 'items.page?sort=-price&q' --param q=%lamp% --analyze
      swiftlet explain items.by_ids --param ids=[1,2] --plan generic --json
      swiftlet explain notes.by_id --app notes:app
    """
    from service.admin import catalogue
    from service.admin.connecting import explain_once
    from service.admin.explain import Question

    app = application()
    try:
        resource, statement = catalogue.find(app.sources, name)
    except KeyError:
        raise click.BadParameter(catalogue.unknown(app.sources, name)) from None
    try:
        given = dict(map(_given, params))
        catalogue.check_names(statement, given)  # before a database is started
        with with_database(app, read=True) as settings:
            asked = Question(
                statement, resource, given, analyze, plan, "json" if as_json else "text"
            )
            found = run(explain_once(settings.required_database_url, asked))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(encode(found), indent=2))
    else:
        click.echo("\n".join(_lines(found)))


def _given(param: str) -> tuple[str, "Value"]:
    from service.admin import arguments

    name, equals, text = param.partition("=")
    if not equals:
        raise ValueError(f"--param {param}: write NAME=VALUE")
    if name.endswith(":"):
        value = arguments.decoded(name[:-1], text)
        return name[:-1], partial(arguments.from_json, value=value)
    return name, partial(arguments.from_text, text=text)


def _lines(found: "Explained") -> Iterator[str]:
    """Yield the plan, after lines of comments with what belongs to it."""
    what = (
        "this plan is for these values" if found.planned == "custom" else "one plan for all values"
    )
    yield f"-- {found.statement}: {what}"
    for place, one in enumerate(found.parameters, 1):
        value = one.value if isinstance(one.value, str) else encode(one.value).decode()
        hint = "" if one.given else f" (an example: give yours as --param {one.name}=...)"
        yield f"-- ${place} {one.name} {one.type} = {value}{hint}"
    yield from (f"-- {note}" for note in found.notes)
    yield from found.lines


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
