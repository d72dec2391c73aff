"""The start banner of `swiftlet serve` and `swiftlet work`: the stores, with their versions."""

import asyncio
import os
from typing import NamedTuple

import asyncpg
import click

from service.cache import client as redis
from service.db.access import CONNECTING, DatabaseRefusedError, no_connection
from service.db.pooled_connection import connect

# Seconds to wait for a store that does not answer.
SECONDS = 2.0
OFF, EMBEDDED = "off", "embedded"


class Database(NamedTuple):
    """State of PostgreSQL; `version` is None when it does not answer.

    `revision` is the revision of its migrations, None before the first. `readable` says whether the
    role may read it.
    """

    version: str | None
    revision: str | None
    readable: bool


async def look_at_database(url: str) -> Database:
    """Connect once, like the workers will.

    The workers wait for a database that is not available. Without this check they would also wait
    when waiting can't help.

    Raises:
        DatabaseRefusedError: the database refuses the connection.
    """
    try:
        async with asyncio.timeout(SECONDS):
            # Another application_name: workers with a cache look for the pools of others.
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


async def look_at_redis(url: str) -> str | None:
    """Return name and version of Redis; None when it does not answer."""
    from redis.exceptions import ResponseError

    client = redis.client(url, SECONDS)
    try:
        async with asyncio.timeout(SECONDS):
            told = await client.info("server")
    except ResponseError:  # it answers, but not to INFO
        return "Redis"
    except redis.redis_errors():
        return None
    finally:
        await client.aclose()
    if "valkey_version" in told:
        return f"Valkey {told['valkey_version']}"
    return f"Redis {told.get('redis_version', '')}".rstrip()


def lines(
    found: Database, head: str | None, database: str, redis_name: str | None, redis: str
) -> list[tuple[str, str]]:
    """Return a line for each store, with notes about what to do.

    Args:
        found: state of the database.
        head: the newest revision of the application; None without migrations.
        database: place of the database.
        redis_name: name and version of Redis; None when it does not answer.
        redis: place of Redis, or `OFF`.
    """
    shown = [
        ("Database", _line(found.version, database)),
        ("Redis", OFF if redis == OFF else _line(redis_name, redis)),
    ]
    if head is None:
        return shown
    if found.version and not found.readable:
        why = "this role can't read alembic_version: GRANT SELECT ON alembic_version"
        shown.append(("Note", f"unknown whether the database is migrated, {why}"))
    elif found.version and found.revision != head:
        at = f"revision {found.revision or 'none'}, newest {head}"
        shown.append(("Note", f"the database is not migrated ({at}): run: swiftlet migrate"))
    return shown


def _line(name: str | None, place: str) -> str:
    return f"{name}, {place}" if name else f"no answer, {place}: used as soon as it answers"


def show(shown: list[tuple[str, str]]) -> None:
    """Print the lines of a banner."""
    try:
        for name, text in shown:
            click.echo(f"{click.style(f'{name:>8}', bold=True)}  {text}")
    except OSError:
        # The reader of the output is gone, or the disk is full: go on without the banner.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
