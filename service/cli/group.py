"""`service`: what all its commands share, and how what goes wrong is told."""

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

from service.embedded.programs import EmbeddedError
from service.embedded.site import Stores
from service.embedded.stores import secret, stores
from service.errors import InvalidLines, Problem
from service.processes import ServerError
from service.settings import Settings, SettingsError

Result = TypeVar("Result")


class Commands(click.Group):
    """Turns what goes wrong into one line on stderr: 2 for usage and settings, 1 for the work."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and exit."""
        open_standard_streams()
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            raise SystemExit(2) from None
        except click.ClickException as error:
            stop(f"{error.format_message()} (--help tells more)", error.exit_code)
        except click.Abort:
            stop("interrupted", 130)
        except SettingsError as error:
            stop(str(error), 2)
        except (EmbeddedError, ServerError) as error:
            stop(str(error), 1)
        except InvalidLines as problem:
            for line in problem.lines:
                click.echo(f"line {line.line}: {line.message}", err=True)
            stop(problem.detail, 1)
        except Problem as problem:
            stop(problem.detail, 1)
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError) as error:
            what = str(error) or type(error).__name__
            stop(f"{what.splitlines()[0]} (is DATABASE_URL right, and the database up?)", 1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            stop(str(error).splitlines()[0], 1)
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
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # until here, see __main__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)


def open_standard_streams() -> None:
    """Open what was closed (`>&-`) on /dev/null, or a socket or file of ours gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(null, True)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - a number


def settings_of(options: dict[str, str | None] | None = None) -> Settings:
    given = {f"SERVICE_{name.upper()}": value for name, value in (options or {}).items()}
    return Settings.load({**os.environ, **{k: v for k, v in given.items() if v is not None}})


@contextlib.contextmanager
def with_stores(
    settings: Settings, *, join: bool = True
) -> Iterator[tuple[Settings, Stores | None]]:
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


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    # Unwinds: whatever was started is stopped on the way out.
    raise SystemExit(128 + number)


def stop(message: str, code: int) -> NoReturn:
    click.echo(f"service: {message}", err=True)
    raise SystemExit(code)
