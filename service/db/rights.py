"""Which of the rights that the service needs its database role lacks, and the schema's revision."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from service.db.database import Database
from service.db.pool import Pool
from service.db.pooled_connection import AUDIBLE, refusal
from service.logs import logger
from service.tables import items, totals, users

WRITTEN = [table.name for table in (items, users)]
# Read only: what writes the totals is a trigger that has its owner's rights.
READ = [totals.name]

# A right on a part of the columns counts. What does not exist is not told here.
LACKING = """
SELECT needed || ' on ' || name
FROM (
    SELECT name, needed, CASE needed
        WHEN 'delete' THEN has_table_privilege(to_regclass(name), needed)
        ELSE has_any_column_privilege(to_regclass(name), needed) END AS has
    FROM unnest($1::text[]) AS name, unnest('{select,insert,update,delete}'::text[]) AS needed
    UNION ALL
    SELECT name, 'select', has_any_column_privilege(to_regclass(name), 'select')
    FROM unnest($2::text[]) AS name
    UNION ALL
    SELECT 'sequence ' || name || '_id_seq', 'usage',
        has_sequence_privilege(to_regclass(name || '_id_seq'), 'usage, update')
    FROM unnest($1::text[]) AS name
    UNION ALL
    SELECT 'database ' || current_database(), 'temporary',
        has_database_privilege(current_database(), 'temporary')
) AS wanted
WHERE NOT has
"""
REVISION = "SELECT version_num FROM alembic_version"
UNREADABLE = "select on alembic_version"


class Found(NamedTuple):
    """The rights that the role lacks, and the revision of the schema; None for none."""

    lacking: list[str]
    revision: str | None

    @property
    def unreadable(self) -> bool:
        """Whether a table can't even be read; then hardly any request can be answered."""
        tables = [*WRITTEN, *READ]
        return any(f"select on {name}" in self.lacking for name in tables)


async def find(connection: asyncpg.Connection) -> Found:
    """Ask on a connection as requests have it; raises as asyncpg does."""
    records: list[Any] = await connection.fetch(LACKING, WRITTEN, READ)
    lacking = [record[0] for record in records]
    revision = None
    try:
        revision = await connection.fetchval(REVISION)
    except asyncpg.UndefinedTableError:
        pass
    except asyncpg.InsufficientPrivilegeError:
        lacking.append(UNREADABLE)
    return Found(lacking, revision)


@asynccontextmanager
async def spare(pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    """A connection as requests have it, without waiting for those that are in use.

    Raises:
        Unavailable: none can be had.
    """
    link = pool.take()
    if link is None:
        try:
            new = await pool.connect(AUDIBLE)
        except Exception as error:
            raise refusal(error) from error
        try:
            yield new.connection
        finally:
            new.connection.terminate()
        return
    try:
        yield link.connection
    except asyncpg.PostgresError:
        raise
    except BaseException:
        link.connection.terminate()  # its answer may be still to come
        raise
    finally:
        pool.release(link)


async def log_lacking(db: Database) -> None:
    """Say at the start which rights the role lacks; a database that is away says so itself."""
    try:
        async with spare(db.pool) as connection:
            found = await find(connection)
    except Exception:  # noqa: BLE001 - whatever it is, requests and readiness tell it
        return
    if found.lacking:
        fields = {"lacking": found.lacking}
        logger.error("the database role lacks rights: GRANT them", extra={"fields": fields})
