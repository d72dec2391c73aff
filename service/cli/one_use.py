"""The database of a command that asks or changes something once."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from service.cli.group import run, with_database

if TYPE_CHECKING:
    from service.app import Application
    from service.db.database import Database
    from service.db.writable import WritableDatabase

Done = TypeVar("Done")


def read(app: "Application", ask: Callable[["Database"], Coroutine[Any, Any, Done]]) -> Done:
    """Return what `ask` returns for the database of an application; nothing is created."""
    from service.db.database import Database

    async def opened(url: str) -> Done:
        db = Database(url, size=None, batching=False)
        try:
            return await ask(db)
        finally:
            await db.close()

    with with_database(app, read=True) as settings:
        return run(opened(settings.required_database_url))


def write(
    app: "Application", change: Callable[["WritableDatabase"], Coroutine[Any, Any, Done]]
) -> Done:
    """Run a write on the database of an application, and return what it returns."""
    from service.cache.writer import Writer
    from service.db.database import Database

    async def opened(url: str) -> Done:
        db = Database(url, size=None, batching=False)
        try:
            return await Writer(db).run(change, lambda _: ())  # triggers report the write
        finally:
            await db.close()

    with with_database(app) as settings:
        return run(opened(settings.required_database_url))
