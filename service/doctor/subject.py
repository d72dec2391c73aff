"""What is examined: an application with its settings, and one connection to each store."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from service.cache.client import redis_errors
from service.embedded.data_directory import Stores
from service.settings import Settings

if TYPE_CHECKING:
    from service.app import Application
    from service.cache.client import Client

DATABASE_OFF = "the embedded PostgreSQL does not run: `swiftlet serve` starts it"
REDIS_OFF = "the embedded Redis does not run"


class Skipped(Exception):  # noqa: N818 - it is no error
    """Something can't be checked; the message says why."""


class Subject:
    """An application with its settings, and the connections of the checks.

    Args:
        app: the application.
        settings: its settings, with the URLs of embedded stores if they run.
        stores: the running embedded stores; None without.
    """

    def __init__(self, app: "Application", settings: Settings, stores: Stores | None) -> None:
        self.app = app
        self.settings = settings
        self.stores = stores
        self.database: asyncpg.Connection | None = None
        self.redis: Client | None = None
        # Through a pooler, limits and settings of sessions are not those that were asked for.
        self.pooled = False
        # The newest revision of the migrations, once it is known that the database has it.
        self.migrated = False
        self.redis_info: dict[str, object] = {}

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return self.app.settings.database_url is None

    def connection(self) -> asyncpg.Connection:
        """The connection to the database.

        Raises:
            Skipped: there is none.
        """
        if self.database is None:
            raise Skipped("there is no connection to the database")
        if self.database.is_closed():
            raise Skipped("the connection to the database is lost")
        return self.database

    async def row(self, sql: str, *args: object) -> Any:
        """The only row of a query; raises as `connection`."""
        return (await self.connection().fetch(sql, *args))[0]

    def client(self) -> "Client":
        """The client of Redis.

        Raises:
            Skipped: there is none.
        """
        if self.redis is None:
            raise Skipped("there is no connection to Redis")
        return self.redis

    def give_up(self, store: str | None) -> None:
        """Close the connection to a store that does not answer."""
        if store == "database" and self.database is not None:
            self.database.terminate()
        elif store == "redis":
            self.redis = None

    async def close(self) -> None:
        """Close the connections, without waiting for a store that does not answer."""
        if self.database is not None and not self.database.is_closed():
            self.database.terminate()
        if self.redis is not None:
            with suppress(*redis_errors()):
                await self.redis.aclose()
            self.redis = None
