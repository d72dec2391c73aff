"""What `service serve` tells at its start: the stores that answer, with their versions."""

import asyncio
import re
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import asyncpg
from redis.exceptions import ResponseError

from service.cache import client as redis
from service.db.access import CONNECTING, DatabaseRefusedError, no_connection
from service.db.pooled_connection import connect

# A store that does not answer holds up the start for so long.
SECONDS = 2.0
OFF, EMBEDDED = "off", "embedded"


class Database(NamedTuple):
    """PostgreSQL as it was found: `version` is None when it does not answer.

    `revision` is that of its migrations, None before the first; `readable` whether we may see it.
    """

    version: str | None
    revision: str | None
    readable: bool


async def look_at_database(url: str) -> Database:
    """Connect once, as the workers will: they would ask for ever where asking can't help.

    A database that is away is left to them: they wait for it.

    Raises:
        DatabaseRefusedError: it does not let us in.
    """
    try:
        async with asyncio.timeout(SECONDS):
            # Under another name: a worker that keeps answers looks for the pools of others.
            connection = await connect(
                url, statement_timeout=SECONDS, lock_timeout=SECONDS, name="swiftlet-start"
            )
    except CONNECTING as error:
        told = no_connection(error)
        if isinstance(told, DatabaseRefusedError):
            raise told from None
        return Database(None, None, readable=False)
    version = str(connection.get_settings().server_version).partition(" ")[0]
    revision, readable = None, True
    try:
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        pass
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        readable = False
    finally:
        connection.terminate()
    return Database(f"PostgreSQL {version}", revision, readable)


async def look_at_redis(url: str | None) -> str | None:
    """Its name and version; None when it does not answer."""
    if url is None or url == "off":
        return None
    client = redis.client(url, SECONDS)
    try:
        async with asyncio.timeout(SECONDS):
            told = await client.info("server")
    except ResponseError:  # it answers, but not to this question
        return "Redis"
    except redis.REDIS_ERRORS:
        return None
    finally:
        await client.aclose()
    if "valkey_version" in told:
        return f"Valkey {told['valkey_version']}"
    return f"Redis {told.get('redis_version', '')}".rstrip()


def lines(
    found: Database, head: str | None, database: str, redis_name: str | None, redis: str
) -> list[tuple[str, str]]:
    """A line for each store, and a note where something is to be done.

    Args:
        found: the database.
        head: the newest revision of the application; None where it has no migrations.
        database: where it is.
        redis_name: its name and version, None when it does not answer.
        redis: where it is, or `OFF`.
    """
    told = [
        ("Database", _line(found.version, database)),
        ("Redis", OFF if redis == OFF else _line(redis_name, redis)),
    ]
    if head is None:
        return told
    if found.version and not found.readable:
        why = "this role can't read alembic_version: GRANT SELECT ON alembic_version"
        told.append(("Note", f"it is not known whether the database is migrated, {why}"))
    elif found.version and found.revision != head:
        at = f"revision {found.revision or 'none'}, newest {head}"
        told.append(("Note", f"the database is not migrated ({at}): run: swiftlet migrate"))
    return told


def _line(name: str | None, place: str) -> str:
    return f"{name}, {place}" if name else f"no answer, {place}: it is used as soon as it answers"


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
