"""`swiftlet webhooks`: where changes are posted to, and what could not be delivered."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.accounts import data_option
from service.cli.group import app_option, application, main, stop
from service.cli.one_use import read, write
from service.cli.printing import print_table, shown_time

if TYPE_CHECKING:
    from service.app import Application
    from service.db.database import Database
    from service.db.writable import WritableDatabase
    from service.webhooks.statements import Behind, Failure, ShownWebhook
    from service.webhooks.webhook_jobs import Again

MOST = 10_000
ID = click.IntRange(1, 2**63 - 1)
HOW = """\
Each change is posted there as JSON. X-Signature is `sha256=` and the HMAC of the body, in
hexadecimal digits, with {}. X-Delivery-ID is the same in each attempt."""

id_argument = click.argument("id", type=ID, metavar="ID")
ids_argument = click.argument("ids", nargs=-1, type=ID, metavar="[ID]...")
webhook_option = click.option("--webhook", "webhook_id", type=ID, metavar="ID", help="All of one.")
all_option = click.option("--all", "every", is_flag=True, help="All of all webhooks.")


@main.group()
def webhooks() -> None:
    """Post the changes of a resource to a URL.

    \b
    Example:
      swiftlet webhooks add https://example.com/changes --resource items
      swiftlet webhooks list
      swiftlet webhooks failed
    """


@webhooks.command(name="add")
@app_option
@click.argument("url")
@click.option("--resource", required=True, help="Whose changes are posted, such as notes.")
@data_option
def add_webhook(url: str, resource: str, data: str | None) -> None:
    """Post each change of a resource from now on to a URL, and print the id of the webhook.

    \b
    Example:
      swiftlet webhooks add https://example.com/changes --resource items
      swiftlet webhooks add http://127.0.0.1:9000/ --resource notes --app notes:app
    """
    from service.outgoing import check_target
    from service.settings.targets import check_target_url
    from service.settings.urls import URLError
    from service.webhooks import registry

    app = _application(data)
    known = [one.name for one in app.resources if one.changes]
    if resource not in known:
        raise click.UsageError(f"--resource must be one with changes: {', '.join(known)}")
    try:
        check_target_url(url)
    except URLError as error:
        raise click.UsageError(f"the URL is wrong: {error}") from None
    check_target(app.settings, url, name="a webhook")

    async def add(db: "WritableDatabase") -> int:
        return await registry.add(db, url, resource)

    click.echo(f"webhook {write(app, add)}: {resource} to {registry.shown_url(url)}")
    embedded = app.settings.secret is None
    secret = f"the secret in {Path(app.settings.data) / 'secret'}" if embedded else "SERVICE_SECRET"
    click.echo(HOW.format(secret), err=True)


@webhooks.command(name="list")
@app_option
@data_option
def list_webhooks(data: str | None) -> None:
    """List webhooks: how far behind each is, and why if nothing gets through.

    \b
    Example:
      swiftlet webhooks list
      swiftlet webhooks list --app notes:app
    """
    from service.webhooks import registry

    app = _application(data)
    tables = {one.name: one.table.name for one in app.resources if one.changes}

    async def find(db: "Database") -> "list[tuple[ShownWebhook, Behind | None]]":
        return await registry.every(db, tables)

    print_table(
        ("ID", "URL", "RESOURCE", "POSITION", "BEHIND", "FOR", "FAILURES", "LAST FAILURE"),
        (
            (
                str(one.id),
                registry.shown_url(one.url),
                one.resource,
                str(one.position),
                *_shown(behind),
                str(one.failures),
                one.error or "",
            )
            for one, behind in read(app, find)
        ),
    )


@webhooks.command(name="remove")
@app_option
@id_argument
@data_option
def remove_webhook(id: int, data: str | None) -> None:  # noqa: A002 - the name of the argument
    """Remove a webhook and its list of failures; within seconds nothing more is posted.

    \b
    Example:
      swiftlet webhooks remove 7
      swiftlet webhooks remove 7 --app notes:app
    """
    from service.webhooks import registry

    async def remove(db: "WritableDatabase") -> bool:
        return await registry.remove(db, id)

    if not write(_application(data), remove):
        stop(f"there is no webhook {id}: `swiftlet webhooks list` shows all", 1)
    click.echo(f"webhook {id} is removed")


@webhooks.command(name="failed")
@app_option
@webhook_option
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=100, show_default=True, help="How many."
)
@click.option("--body", is_flag=True, help="Print what was posted, a line each, and nothing else.")
@data_option
def failed_changes(*, webhook_id: int | None, limit: int, body: bool, data: str | None) -> None:
    """List changes that were given up, the oldest first.

    \b
    Example:
      swiftlet webhooks failed
      swiftlet webhooks failed --webhook 7 --body
      swiftlet webhooks failed --app notes:app
    """
    from service.webhooks import registry

    async def find(db: "Database") -> "list[Failure]":
        return await registry.failed(db, webhook_id, limit)

    found = read(_application(data), find)
    if body:
        for one in found:
            if one.body is not None:
                click.echo(one.body)
        return
    print_table(
        ("ID", "WEBHOOK", "POSITION", "ATTEMPTS", "TIME", "ERROR"),
        (
            (
                str(one.id),
                str(one.webhook_id),
                str(one.position),
                str(one.attempts),
                shown_time(one.created_at),
                one.error,
            )
            for one in found
        ),
    )


@webhooks.command(name="retry")
@app_option
@ids_argument
@webhook_option
@all_option
@data_option
def retry_failed(
    *, ids: tuple[int, ...], webhook_id: int | None, every: bool, data: str | None
) -> None:
    """Queue a job that posts failures again; those that are delivered leave the list.

    The ids are those of `swiftlet webhooks failed`.

    \b
    Example:
      swiftlet webhooks retry 12 13
      swiftlet webhooks retry --webhook 7
      swiftlet webhooks retry --all --app notes:app
    """
    from service.webhooks import registry

    these = _these(ids, webhook_id, every=every)

    async def retry(db: "WritableDatabase") -> list[int]:
        async with db.transaction() as one:
            return [await registry.retry(one, what) for what in these]

    queued = write(_application(data), retry)
    named = f"{'job' if len(queued) == 1 else 'jobs'} {', '.join(map(str, queued))}"
    click.echo(f"queued as {named}: `swiftlet jobs list --kind webhook-retry` shows the result")


@webhooks.command(name="forget")
@app_option
@ids_argument
@webhook_option
@all_option
@data_option
def forget_failed(
    *, ids: tuple[int, ...], webhook_id: int | None, every: bool, data: str | None
) -> None:
    """Remove failures from the list for good.

    \b
    Example:
      swiftlet webhooks forget 12
      swiftlet webhooks forget --all
      swiftlet webhooks forget --webhook 7 --app notes:app
    """
    from service.webhooks import registry

    these = _these(ids, webhook_id, every=every)

    async def forget(db: "WritableDatabase") -> int:
        async with db.transaction() as one:
            return sum([await registry.forget(one, what) for what in these])

    number = write(_application(data), forget)
    click.echo(f"{number} {'failure is' if number == 1 else 'failures are'} forgotten")
    if number < len(ids):
        stop("some of the ids are unknown: `swiftlet webhooks failed` shows them", 1)


def _these(ids: tuple[int, ...], webhook_id: int | None, *, every: bool) -> "list[Again]":
    from service.webhooks.webhook_jobs import Again

    if bool(ids) + (webhook_id is not None) + every != 1:
        raise click.UsageError("give ids of failures, or --webhook, or --all")
    return [Again(id=one) for one in ids] or [Again(webhook_id=webhook_id)]


def _application(data: str | None) -> "Application":
    """Return the application; stop if none of its resources has changes."""
    app = application({"data": data})
    if not any(one.changes for one in app.resources):
        stop(f"{app.settings.app} has no changes: declare a Resource(..., changes=True)", 2)
    return app


def _shown(behind: "Behind | None") -> tuple[str, str]:
    from service.webhooks.statements import COUNTED

    if behind is None:
        return "?", "?"
    more = "+" if behind.entries == COUNTED else ""
    return f"{behind.changes}{more}", "" if behind.seconds is None else f"{behind.seconds:.0f} s"
