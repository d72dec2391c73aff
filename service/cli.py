"""The commands: each a few lines over functions that the routes and tests use too."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from service.embedded.programs import EmbeddedError
from service.embedded.site import Stores
from service.embedded.stores import secret, stores
from service.settings import Settings, SettingsError

Result = TypeVar("Result")


class Commands(click.Group):
    """Turns what goes wrong into one line on stderr: 2 for usage and settings, 1 for the work."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and exit."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            raise SystemExit(2) from None
        except click.ClickException as error:
            _stop(f"{error.format_message()} (--help tells more)", error.exit_code)
        except click.Abort:
            _stop("interrupted", 130)
        except SettingsError as error:
            _stop(str(error), 2)
        except EmbeddedError as error:
            _stop(str(error), 1)
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError) as error:
            what = str(error) or type(error).__name__
            _stop(f"{what.splitlines()[0]} (is DATABASE_URL right, and the database up?)", 1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _stop(str(error).splitlines()[0], 1)
        raise SystemExit(code if isinstance(code, int) else 0)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="swiftlet")
def main() -> None:
    """Swiftlet: Items and Users over HTTP.

    \b
    Example:
      service serve
    """
    signal.signal(signal.SIGTERM, _terminate)


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", help="Port to listen on; 0 takes a free one.  [default: 8000]")
@click.option("--workers", help="Worker processes.  [default: 1]")
@click.option("--server", help="uvicorn or granian.  [default: uvicorn]")
@click.option("--data", help="Where embedded stores keep their data.  [default: .data]")
def serve(**options: str | None) -> None:
    """Serve the API; without DATABASE_URL or REDIS_URL on embedded stores.

    \b
    Example:
      service serve --port 9000 --workers 2
    """
    from service import migrate, server

    settings = _settings(options)
    if settings.public and settings.auth != "off":
        raise SettingsError(
            f"SERVICE_HOST={settings.host!r}: others can reach it, and there are no API keys yet; "
            "SERVICE_AUTH=off says that you mean it"
        )
    if settings.cache == "local" and settings.workers > 1:
        raise SettingsError(
            f"SERVICE_CACHE=local is for one worker, SERVICE_WORKERS={settings.workers}: several"
            " need REDIS_URL and SERVICE_CACHE=on to hear of each other's writes"
        )
    if settings.port == 0:
        settings = msgspec.structs.replace(settings, port=server.free_port(settings.host))
    with _stores(settings, join=False) as (settings, running):
        if running is not None and running.database_url is not None:
            migrate.up(settings.required_database_url)
        alone = running is not None and running.redis_url is not None and settings.workers == 1
        # A Redis of our own, and nobody to share it with.
        cache = "local" if alone and settings.cache == "on" else settings.cache
        served = msgspec.structs.replace(settings, cache=cache)
        try:
            server.run(served, lambda: _announce(settings, running))
        except server.ServerError as error:
            _stop(str(error), 1)


@main.command(name="migrate")
@click.argument("action", type=click.Choice(["up", "check", "status"]), default="up")
def migrate_(action: str) -> None:
    """Bring the database to the newest revision, or see how it stands.

    \b
    Example:
      DATABASE_URL=postgresql://user:pass@db/app service migrate check
    """
    from service import migrate

    with _stores(_settings()) as (settings, _):
        url = settings.required_database_url
        if action == "up":
            migrate.up(url)
        if action == "check":
            differences = _run(migrate.check(url))
            for line in differences:
                click.echo(line, err=True)
            if differences:
                _stop("the database, the migrations and tables.py do not agree", 1)
            click.echo("the database, the migrations and tables.py agree")
        else:
            revision = _run(migrate.status(url))
            click.echo(f"revision {revision or 'none'}, newest {migrate.head()}")


@main.command()
@click.option("--users", type=click.IntRange(0), default=1000, show_default=True)
@click.option("--items", type=click.IntRange(0), default=10_000, show_default=True)
def seed(users: int, items: int) -> None:
    """Fill the database with sample rows; those that are there already stay as they are.

    \b
    Example:
      service seed --users 1000 --items 100000
    """
    from service import migrate
    from service import seed as samples

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with _stores(_settings()) as (settings, running):
        if running is not None and not running.joined:
            migrate.up(settings.required_database_url)
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            tasks = {
                name: bars.add_task(name, total=total, rate="")
                for name, total in (("users", users), ("items", items))
            }

            def progress(table: str, done: int) -> None:
                task = tasks[table]
                speed = bars.tasks[task].speed
                bars.update(task, completed=done, rate=f"{speed:,.0f} rows/s" if speed else "")

            new = _run(samples.seed(settings.required_database_url, users, items, progress))
    click.echo(f"{new.users} users and {new.items} items are new")


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
    with _stores(_settings()) as (settings, _):
        plan = catalogue.explain(settings.required_database_url, statement, given, analyze=analyze)
        try:
            click.echo(_run(plan))
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


def _settings(options: dict[str, str | None] | None = None) -> Settings:
    given = {f"SERVICE_{name.upper()}": value for name, value in (options or {}).items()}
    return Settings.load({**os.environ, **{k: v for k, v in given.items() if v is not None}})


@contextlib.contextmanager
def _stores(settings: Settings, *, join: bool = True) -> Iterator[tuple[Settings, Stores | None]]:
    """The settings with every store's address in them; what was missing is started, or joined."""
    database, redis = settings.database_url is None, settings.redis_url is None
    if not database and (not redis or join):
        yield settings, None
        return
    data = Path(settings.data)
    # Only `serve` needs Redis: the other commands don't start one.
    with stores(data, database=database, redis=redis and not join, join=join) as running:
        yield (
            msgspec.structs.replace(
                settings,
                database_url=settings.database_url or running.database_url,
                redis_url=settings.redis_url or running.redis_url,
                secret=settings.secret or (secret(data) if database else None),
            ),
            running,
        )


def _announce(settings: Settings, running: Stores | None) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{settings.port}"
    console = Console()
    lines = [("API", address), ("Docs", f"{address}/docs")]
    if running is not None:
        lines.append(("Data", str(running.data)))
    lines.append(("Stop", "Ctrl-C"))
    lines += [("Note", note) for note in (running.notes if running else ())]
    if settings.cache == "on" and settings.shared_redis_url is None and settings.workers > 1:
        lines.append(("Note", "nothing is cached: several workers need Redis (REDIS_URL) for that"))
    elif settings.cache != "off" and running is not None and running.database_url is None:
        alone = "other nodes on this database must have the same REDIS_URL, or SERVICE_CACHE=off"
        lines.append(("Note", alone))
    if settings.public:
        lines.append(("Note", "SERVICE_AUTH=off: whoever reaches this address may do anything"))
    for name, text in lines:
        console.print(f"[bold]{name:>5}[/bold]  {text}", highlight=False, soft_wrap=True)
    sys.stdout.flush()


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    # Unwinds: whatever was started is stopped on the way out.
    raise SystemExit(0)


def _stop(message: str, code: int) -> NoReturn:
    click.echo(f"service: {message}", err=True)
    raise SystemExit(code)
