"""What `service serve` tells at its start: the stores that answer, with their versions."""

import asyncio
import re
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import asyncpg
from redis.exceptions import ResponseError

from service import migrate
from service.cache import client as redis
from service.db import link

# A store that does not answer holds up the start for so long.
SECONDS = 2.0
OFF, EMBEDDED = "off", "embedded"
# What passes without anybody's doing; every other error of a connection is a setting to mend.
PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    OSError,
    TimeoutError,
)


class Database(NamedTuple):
    """PostgreSQL as it was found: `version` is None when it does not answer.

    `revision` is that of its migrations, None before the first; `readable` whether we may see it.
    """

    version: str | None
    revision: str | None
    readable: bool


async def look(database_url: str, redis_url: str | None) -> tuple[Database, str | None]:
    """The database, and the name and version of Redis; None when that does not answer.

    Raises:
        asyncpg.PostgresError: the database refuses us, and waiting would not help.
    """
    return await asyncio.gather(_database(database_url), _redis(redis_url))


async def _database(url: str) -> Database:
    try:
        async with asyncio.timeout(SECONDS):
            connection = await link.connect(
                url, statement_timeout=SECONDS, lock_timeout=SECONDS, name="swiftlet-start"
            )
    except PASSING:
        return Database(None, None, readable=False)
    revision, readable = None, True
    try:
        version = str(connection.get_settings().server_version).partition(" ")[0]
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        pass
    except asyncpg.InsufficientPrivilegeError:
        readable = False
    finally:
        connection.terminate()
    return Database(f"PostgreSQL {version}", revision, readable)


async def _redis(url: str | None) -> str | None:
    if url is None or url == "off":
        return None
    client = redis.client(url, SECONDS)
    try:
        async with asyncio.timeout(SECONDS):
            told = await client.info("server")
    except ResponseError:  # it answers, but not to this question
        return "Redis"
    except redis.TROUBLE:
        return None
    finally:
        await client.aclose()
    if "valkey_version" in told:
        return f"Valkey {told['valkey_version']}"
    return f"Redis {told.get('redis_version', '')}".rstrip()


def lines(database: Database, redis: str | None, places: tuple[str, str]) -> list[tuple[str, str]]:
    """A line for each store, and a note where something is to be done.

    Args:
        database: as it was found, and `redis` too.
        redis: its name and version.
        places: where they are, as `place` says it.
    """
    told = [
        ("Database", _line(database.version, places[0])),
        ("Redis", "off" if places[1] == OFF else _line(redis, places[1])),
    ]
    head = migrate.head()
    if database.version and not database.readable:
        why = "this role may not read alembic_version: GRANT SELECT ON alembic_version"
        told.append(("Note", f"it is not known whether the database is migrated, {why}"))
    elif database.version and database.revision != head:
        found = f"revision {database.revision or 'none'}, newest {head}"
        told.append(("Note", f"the database is not migrated ({found}): run: swiftlet migrate"))
    return told


def _line(name: str | None, place: str) -> str:
    return f"{name}, {place}" if name else f"no answer, {place}: it is used as soon as it answers"


def place(url: str | None, *, embedded: bool) -> str:
    """Where a store is, without user and password."""
    if url is None or url == "off":
        return OFF
    return EMBEDDED if embedded else f"at {address(url)}"


def address(url: str) -> str:
    """The hosts and the path of a URL."""
    try:
        parts = urlsplit(url)
        directory = parse_qs(parts.query).get("host", [""])[0]
    except ValueError:
        return "an address that is not told"
    hosts = parts.netloc.rpartition("@")[2]
    # A password that is not percent-encoded may reach into any part.
    if "@" in parts.path + parts.query or not re.fullmatch(r"([\w.-]|\[[\w:.]+\]|:\d+|,)*", hosts):
        return "an address that is not told"
    return parts.path if parts.scheme == "unix" else (hosts or directory) + parts.path
