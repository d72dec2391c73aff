"""The command group `swiftlet`: common options, and errors as one line."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import asyncpg
import click
import msgspec

from service.db.access import DatabaseError, first_line
from service.embedded.data_directory import Stores
from service.embedded.programs import EmbeddedError
from service.embedded.stores import secret, stores
from service.embedded.watch import Watch
from service.errors import InvalidLines, Problem
from service.logs import logger
from service.server.loading import ApplicationError, load
from service.server.processes import ServerError, dropped_exits, send_soon
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from service.app import Application

Result = TypeVar("Result")
NO_FILE = Path(os.devnull)


class Stopped(Exception):  # noqa: N818 - it ends a command
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Command(click.Command):
    """Shows its examples with the name that it was called by: `service` or `swiftlet`."""

    def get_help(self, ctx: click.Context) -> str:
        """Return the text of `--help`."""
        return super().get_help(ctx).replace("swiftlet ", f"{ctx.find_root().info_name} ")


class Commands(Command, click.Group):
    """Shows errors as one line on stderr; exit code 2 for usage and settings, 1 for the work."""

    command_class = Command
    group_class = type

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command and exit."""
        open_standard_streams()
        name = kwargs.get("prog_name") or Path(sys.argv[0]).name.removesuffix(".exe")
        try:
            with dropped_exits(_again):
                code = super().main(
                    *args, **{**kwargs, "prog_name": name, "standalone_mode": False}
                )
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            raise SystemExit(2) from None
        except InvalidLines as problem:
            for line in problem.lines:
                click.echo(f"line {line.line}: {line.message}", err=True)
            _end(name, problem.detail, 1)
        except WRONG as error:
            _end(name, *_told(error))
        raise SystemExit(code if isinstance(code, int) else 0)


# Errors of a user, setting, file or database. Any other error is a bug and shows a traceback.
WRONG = (
    Stopped,
    click.Abort,
    click.ClickException,
    SettingsError,
    ApplicationError,
    EmbeddedError,
    ServerError,
    DatabaseError,
    Problem,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


def _told(error: BaseException) -> tuple[str, int]:
    """Return the message of an error, and the exit code."""
    match error:
        case Stopped():
            return str(error), error.code
        case click.Abort():
            return "interrupted", 130
        case click.UsageError():
            return f"{error.format_message()} (see --help)", error.exit_code
        case click.ClickException():
            return error.format_message(), error.exit_code
        case SettingsError() | ApplicationError():
            return str(error), 2
        case Problem() if isinstance(error.__cause__, asyncpg.PostgresError):
            return f"{error.detail}: {first_line(error.__cause__)}", 1
        case Problem():
            return error.detail, 1
        case OSError() if error.filename is not None:
            return f"{os.fsdecode(error.filename)}: {error.strerror}", 1
        case OSError() if error.errno is not None:  # a standard stream
            return str(error.strerror), 1
        case asyncpg.InterfaceError() if "connection is closed" in str(error):
            return "the connection to the database is lost: see its log, and try again", 1
        case asyncpg.PostgresConnectionError():
            return f"the connection to the database is lost: {first_line(error)}", 1
    return first_line(error) or type(error).__name__, 1


def _end(name: str, message: str, code: int) -> NoReturn:
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    raise SystemExit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="swiftlet")
def main() -> None:
    """Swiftlet: a JSON API on PostgreSQL, for the built-in or your own application (--app).

    \b
    Example:
      swiftlet serve
      swiftlet serve --app notes:app
    """
    signal.signal(signal.SIGTERM, _terminate)
    # A command shows its error in one line; `serve` sets up logging for its workers.
    logger.handlers = [logging.NullHandler()]
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # ignored until now, see __main__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)


def open_standard_streams() -> None:
    """Open closed streams (`>&-`) on /dev/null; else a socket or file would get their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(null, True)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - a number


def _remember_app(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta["app"] = value  # shared with the contexts of subcommands


app_option = click.option(
    "--app",
    metavar="MODULE:NAME",
    expose_value=False,
    callback=_remember_app,
    help="The application, such as notes:app; also SERVICE_APP.  [default: service.asgi:app]",
)


def application(options: Mapping[str, str | None] | None = None) -> "Application":
    """Return the application of `--app` or SERVICE_APP; `options` override its settings."""
    given = {f"SERVICE_{k.upper()}": v for k, v in (options or {}).items() if v is not None}
    name = click.get_current_context().meta.get("app")
    name = name or Settings.load({**os.environ, **given}).app
    before = dict(os.environ)
    os.environ.update(given)  # the module may read its settings from them
    try:
        app = load(name)
    finally:
        os.environ.clear()
        os.environ.update(before)
    kind = type(app.settings)
    asked = kind.load(given, NO_FILE)
    fields = [field for field in kind.__struct_fields__ if kind.variable(field) in given]
    replaced = {field: getattr(asked, field) for field in fields}
    app.settings = msgspec.structs.replace(app.settings, app=name, **replaced)
    return app


@contextlib.contextmanager
def with_stores(
    settings: Settings, *, join: bool = True, read: bool = False, watch: Watch | None = None
) -> Iterator[tuple[Settings, Stores | None]]:
    """Yield the settings with the URLs of all stores; start or join embedded ones if needed.

    With `read` no new database is created; `watch` gets the embedded PostgreSQL.
    """
    database, redis = settings.database_url is None, settings.redis_url is None
    if not database and (not redis or join):
        yield settings, None
        return
    data = Path(settings.data)
    if read and database and not (data / "postgres").exists():
        raise EmbeddedError(
            f"there is no database in {data}, and DATABASE_URL is not set:"
            " `swiftlet serve` or `swiftlet migrate` creates one"
        )
    # Only `serve` needs Redis, so other commands do not start one.
    with stores(
        data, database=database, redis=redis and not join, join=join, watch=watch
    ) as running:
        yield (
            msgspec.structs.replace(
                settings,
                database_url=settings.database_url or running.database_url,
                redis_url=settings.redis_url or running.redis_url,
                secret=settings.secret or (secret(data) if database else None),
            ),
            running,
        )


@contextlib.contextmanager
def with_database(app: "Application", *, read: bool = False) -> Iterator[Settings]:
    """Yield the settings with the URL of a migrated database.

    An embedded database is migrated first, unless the command only reads.
    """
    from service.migrations import migrate

    with with_stores(app.settings, read=read) as (settings, running):
        if running is not None and not running.joined and not read:
            migrate.up(settings.required_database_url, app.migrations)
        run(migrate.require(settings.required_database_url, app.migrations))
        yield settings


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    # SystemExit unwinds the stack, so everything that was started is stopped.
    raise SystemExit(128 + number)


def _again(dropped: BaseException) -> None:
    send_soon(signal.SIGINT if isinstance(dropped, KeyboardInterrupt) else signal.SIGTERM)


def stop(message: str, code: int) -> NoReturn:
    """End the command with one line on stderr and an exit code."""
    raise Stopped(message, code)
