"""Migrations: Alembic on a database, and whether code, migrations and database agree."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import Index
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex

from service.db.access import DatabaseError, connect
from service.db.schema import Table, Tables, active_rows, counted, literal, quoted
from service.db.statement import DIALECT
from service.migrations.snapshot import Snapshot, describe, describe_code, differences

if TYPE_CHECKING:
    from alembic.config import Config

ROOM = Path(__file__).parent  # with env.py, which Alembic runs

# Which of the optional indexes the database has, if it has what they are made with.
OPTIONAL = """
SELECT relname FROM pg_class
WHERE relnamespace = $1::regnamespace AND relname = ANY ($2::text[]) AND EXISTS (
    SELECT FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND pg_opclass_is_visible(oid)
)
"""
# The tables whose totals, summed over the slots, are not the number of their rows; one snapshot.
WRONG_TOTALS = """
WITH kept AS (
    SELECT name, sum(total) AS total, sum(active) AS active FROM totals GROUP BY name
), counted AS (
{counted}
)
SELECT name FROM counted LEFT JOIN kept USING (name)
WHERE (coalesce(kept.total, 0), coalesce(kept.active, 0)) <> (counted.total, counted.active)
ORDER BY name
"""
COUNTED = """\
    SELECT {table} AS name, count(*) AS total, {active} AS active
    FROM {on}"""


class MigrationError(DatabaseError):
    """Why the migrations can't go on, in one line."""


class NotMigratedError(MigrationError):
    """The database has no tables, or older ones than this code reads."""


def head(migrations: Path) -> str | None:
    """The newest revision of a folder, None for none: migrations are numbered, `0001_….py`."""
    return max((path.stem[:4] for path in migrations.glob("[0-9]*.py")), default=None)


def up(url: str, migrations: Path, revision: str = "head") -> None:
    """Migrate; several starts at once are safe, each waits for the one before."""
    _alembic("upgrade", url, revision, migrations)


def down(url: str, migrations: Path, revision: str) -> None:
    """Undo migrations down to a revision, `base` for all."""
    _alembic("downgrade", url, revision, migrations)


async def status(url: str) -> str | None:
    """The revision that the database is at; None before the first."""
    connection = await connect(url)
    try:
        found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()
    return found


async def require(url: str, migrations: Path) -> None:
    """Make sure that the tables are there; newer ones than this code's may serve it too.

    An application without migrations has its tables from elsewhere.

    Raises:
        NotMigratedError: they are not.
    """
    newest = head(migrations)
    if newest is None:
        return
    try:
        found = await status(url)
    except asyncpg.InsufficientPrivilegeError:
        return  # who may not read the revision may still read the tables
    if found is None:
        raise NotMigratedError("the database is not migrated: run `swiftlet migrate`")
    if found < newest:
        raise NotMigratedError(
            f"the database is at revision {found}, and this code needs {newest}:"
            " run `swiftlet migrate`"
        )


async def check(url: str, tables: Tables, migrations: Path) -> list[str]:
    """What differs: the database against the newest revision, then against the tables in code.

    The tables are made from the code in a schema of their own, in a transaction that is rolled
    back, and PostgreSQL's own descriptions of both are compared: types, defaults, every
    constraint, every index with its expression and predicate, every trigger. An optional index may
    be missing: see `advice`. Last the totals are compared with the rows, which reads every one of
    them.
    """
    found, newest = await status(url), head(migrations)
    if found != newest:
        return [f"the database is at revision {found or 'none'}, the newest is {newest or 'none'}"]
    async with compared(url, tables) as (connection, database, code):
        told = differences(database, code)
        these = [one for one in counted(tables) if quoted(one.name) in database.tables]
        wrong = WRONG_TOTALS.format(counted="\nUNION ALL\n".join(map(_counts, these)))
        await connection.execute("RESET search_path")
        records = await connection.fetch(wrong) if these else []
    return [*told, *(f"the totals of {n} are wrong; SELECT recount_totals()" for (n,) in records)]


@asynccontextmanager
async def compared(
    url: str, tables: Tables
) -> AsyncIterator[tuple[asyncpg.Connection, Snapshot, Snapshot]]:
    """What the database has and what it would have by the code, within a transaction to undo."""
    connection = await connect(url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        schema = await connection.fetchval("SELECT current_schema()")
        database = await describe(connection, schema)
        code = await describe_code(connection, tables, await missing(connection, tables))
        yield connection, database, code
    finally:
        await transaction.rollback()
        await connection.close()


def _counts(table: Table) -> str:
    return COUNTED.format(
        table=literal(table.name), active=active_rows(table), on=quoted(table.name)
    )


async def advice(url: str, tables: Tables) -> list[str]:
    """SQL for the optional indexes that the database lacks; CONCURRENTLY, so that writes go on."""
    connection = await connect(url)
    try:
        lacking = await missing(connection, tables)
    finally:
        await connection.close()
    if not lacking:
        return []
    statements = ["CREATE EXTENSION IF NOT EXISTS pg_trgm"]
    for index in lacking:
        made = str(CreateIndex(index).compile(dialect=DIALECT))
        statements.append(made.replace("INDEX", "INDEX CONCURRENTLY", 1))
    # The planner knows nothing of an index's expressions before.
    names = {quoted(index.table.name): None for index in lacking if index.table is not None}
    return [*statements, *(f"ANALYZE {name}" for name in names)]


async def missing(connection: asyncpg.Connection, tables: Tables) -> list[Index]:
    """The optional indexes that the database lacks."""
    optional = {
        str(index.name): index
        for table in tables
        for index in table.indexes
        if index.info.get("optional")
    }
    schema = await connection.fetchval("SELECT current_schema()")
    for (name,) in await connection.fetch(OPTIONAL, schema, list(optional)):
        del optional[name]
    return [optional[name] for name in sorted(optional)]


def _alembic(command: str, url: str, revision: str, migrations: Path) -> None:
    # Only those who migrate pay for this import: 0.2 s.
    from alembic import command as commands
    from alembic.util.exc import CommandError

    try:
        getattr(commands, command)(config(url, migrations), revision)
    except CommandError as error:
        raise MigrationError(f"{error} (was the database migrated by other code?)") from None
    except DBAPIError as error:
        # SQLAlchemy wraps the driver's error twice, and adds the whole statement to the message.
        cause = error.orig.__cause__ if error.orig is not None else None
        raise (cause or error) from None


def config(url: str, migrations: Path) -> "Config":
    """Alembic's settings, which are in no file."""
    from alembic.config import Config

    made = Config(attributes={"url": url})
    # ConfigParser reads this value, and takes a % in a path for its own.
    made.set_main_option("script_location", str(ROOM).replace("%", "%%"))
    made.set_main_option("version_locations", str(migrations).replace("%", "%%"))
    made.set_main_option("path_separator", "newline")  # a path may have spaces and colons
    return made
