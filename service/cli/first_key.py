"""What `swiftlet serve` says while there is no API key: the commands that make the first one."""

import asyncio
import shlex
from typing import TYPE_CHECKING

from service.cli.banner import SECONDS
from service.cli.group import run
from service.embedded.data_directory import Stores
from service.errors import Problem
from service.logs import logger
from service.settings import Settings

if TYPE_CHECKING:
    from service.app import Application

ADVICE = "there is no API key yet, so nearly every request gets 401: make an admin and a key"


def lines(app: "Application", settings: Settings, running: Stores | None) -> list[tuple[str, str]]:
    """Return lines for the banner, and log them; none if there is a key or none is needed.

    Args:
        app: the application; only with the built-in keys it is known how to make one.
        settings: with the URL of the database.
        running: the embedded stores.
    """
    from service.keys.authenticator import Authenticator

    if not settings.authenticated or not isinstance(app.auth, Authenticator):
        return []
    if not run(_is_without_keys(settings.required_database_url)):
        return []
    commands = _commands(app, running)
    own = running is not None and running.database_url is not None
    where = ADVICE if own else f"{ADVICE}, with the same DATABASE_URL"
    logger.warning("%s", where, extra={"fields": {"run": commands}})
    return [("Note", where), *(("Run", command) for command in commands)]


def _commands(app: "Application", running: Stores | None) -> list[str]:
    options = []
    if running is not None and running.database_url is not None:
        options += ["--data", str(running.data)]
    if app.settings.app != Settings().app:
        options += ["--app", app.settings.app]
    end = "".join(f" {shlex.quote(option)}" for option in options)
    return [
        f"swiftlet users create you@example.com you --role admin{end}",
        f"swiftlet keys create --user you@example.com{end}",
    ]


async def _is_without_keys(url: str) -> bool:
    """Return whether there is no key; False if the database does not tell."""
    from service.db.database import Database
    from service.keys import statements

    db = Database(url, size=None, batching=False)
    try:
        async with asyncio.timeout(SECONDS):
            return not await statements.exists.only(db)
    except (Problem, TimeoutError):  # the banner and the log say what is wrong with it
        return False
    finally:
        await db.close()
