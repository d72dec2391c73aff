"""Which of the rights that the service needs its database role lacks, and the schema's revision."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from service.db.database import Database
from service.db.names import AUDIBLE
from service.db.pool import Pool
from service.db.pooled_connection import refusal
from service.db.quoting import quoted
from service.db.schema import Tables, totals
from service.logs import logger

# A right on some of the columns counts. Objects that do not exist are not reported here.
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
    SELECT 'sequence ' || relname, 'usage',
        CASE relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'usage, update') ELSE true END
    FROM unnest($3::text[]) AS name
    JOIN pg_depend ON refobjid = to_regclass(name) AND refclassid = 'pg_class'::regclass
        AND classid = 'pg_class'::regclass
    JOIN pg_class c ON c.oid = objid
    UNION ALL
    SELECT 'database ' || current_database(), 'temporary',
        has_database_privilege(current_database(), 'temporary')
) AS wanted
WHERE NOT has
"""
REVISION = "SELECT version_num FROM alembic_version"
UNREADABLE = "select on alembic_version"


class Needs(NamedTuple):
    """Tables of a service, quoted where need be.

    Args:
        written: those that it writes.
        read: those that it only reads.
        numbered: those for which it draws ids; PostgreSQL asks for no right when it does so itself.
    """

    written: list[str]
    read: list[str]
    numbered: list[str]


def needs(tables: Tables) -> Needs:
    """What a service of these tables needs; a trigger with its owner's rights writes the totals."""
    written = sorted(quoted(one.name) for one in tables if one is not totals)
    numbered = sorted(quoted(one.name) for one in tables if not one.info.get("internal"))
    return Needs(written, [totals.name] if totals in tables else [], numbered)


class Found(NamedTuple):
    """The rights that the role lacks, and the revision of the schema; None for none."""

    lacking: list[str]
    revision: str | None
    needs: Needs

    @property
    def unreadable(self) -> bool:
        """Whether a table can't even be read; then hardly any request can be answered."""
        return any(
            f"select on {name}" in self.lacking for name in (*self.needs.written, *self.needs.read)
        )


async def find(connection: asyncpg.Connection, needs: Needs) -> Found:
    """Ask on a connection as requests have it; raises as asyncpg does."""
    records: list[Any] = await connection.fetch(LACKING, *needs)
    lacking = [record[0] for record in records]
    revision = None
    try:
        revision = await connection.fetchval(REVISION)
    except asyncpg.UndefinedTableError:
        pass
    except asyncpg.InsufficientPrivilegeError:
        lacking.append(UNREADABLE)
    return Found(lacking, revision, needs)


@asynccontextmanager
async def spare(pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    """A connection as requests have it, without waiting for those that are in use.

    Raises:
        Unavailable: no connection is possible.
    """
    pooled = pool.take()
    if pooled is None:
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
        yield pooled.connection
    except asyncpg.PostgresError:
        raise
    except BaseException:
        pooled.connection.terminate()  # its answer may still come
        raise
    finally:
        pool.release(pooled)


async def log_lacking(db: Database, needs: Needs) -> None:
    """Log at the start which rights the role lacks; the pool logs a database that is away."""
    try:
        async with spare(db.pool) as connection:
            found = await find(connection, needs)
    except Exception:  # noqa: BLE001 - requests and readiness report it
        return
    if found.lacking:
        fields = {"lacking": found.lacking}
        logger.error("the database role lacks rights: GRANT them", extra={"fields": fields})
