"""Run migrations with Alembic, and compare code, migrations and database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import Index
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex

from service.db.access import DatabaseError, connect
from service.db.quoting import literal, quoted
from service.db.schema import Table, Tables, active_rows, counted
from service.db.statement import DIALECT
from service.migrations.snapshot import Snapshot, describe, describe_code, differences

if TYPE_CHECKING:
    from alembic.config import Config

ROOM = Path(__file__).parent  # the folder of env.py, which Alembic runs

# The optional indexes that the database has, if it has their extension.
OPTIONAL = """
SELECT relname FROM pg_class
WHERE relnamespace = $1::regnamespace AND relname = ANY ($2::text[]) AND EXISTS (
    SELECT FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND pg_opclass_is_visible(oid)
)
"""
# Tables with a wrong total: the sum of their slots differs from the number of rows.
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
    """Migrations can't continue; the message says why in one line."""


class NotMigratedError(MigrationError):
    """The database has no tables, or older ones than this code needs."""


def head(migrations: Path) -> str | None:
    """Return the newest revision of a folder, None without one; names are numbered, `0001_….py`."""
    return max((path.stem[:4] for path in migrations.glob("[0-9]*.py")), default=None)


def up(url: str, migrations: Path, revision: str = "head") -> None:
    """Migrate to a revision; concurrent calls are safe, one migrates while the others wait."""
    _alembic("upgrade", url, revision, migrations)


def down(url: str, migrations: Path, revision: str) -> None:
    """Undo migrations down to a revision; `base` undoes all."""
    _alembic("downgrade", url, revision, migrations)


async def status(url: str) -> str | None:
    """Return the revision of the database; None before the first."""
    connection = await connect(url)
    try:
        found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()
    return found


async def require(url: str, migrations: Path) -> None:
    """Check that the database is migrated; tables of a newer revision are accepted.

    An application without migrations manages its tables itself.

    Raises:
        NotMigratedError: the tables are missing or too old.
    """
    newest = head(migrations)
    if newest is None:
        return
    try:
        found = await status(url)
    except asyncpg.InsufficientPrivilegeError:
        return  # a role that may not read the revision may still read the tables
    if found is None:
        raise NotMigratedError("the database is not migrated: run `swiftlet migrate`")
    if found < newest:
        raise NotMigratedError(
            f"the database is at revision {found}, and this code needs {newest}:"
            " run `swiftlet migrate`"
        )


async def check(url: str, tables: Tables, migrations: Path, *, totals: bool = True) -> list[str]:
    """Return the differences between the database and the newest revision, or the tables in code.

    The tables are created from the code in a separate schema, in a transaction that is rolled
    back. PostgreSQL's own descriptions of both are compared: types, defaults, every constraint,
    every index with its expression and predicate, every trigger. An optional index may be missing:
    see `advice`. Finally, with `totals`, these are compared with the rows, which reads every row.
    """
    found, newest = await status(url), head(migrations)
    if found != newest:
        return [f"the database is at revision {found or 'none'}, the newest is {newest or 'none'}"]
    async with compared(url, tables) as (connection, database, code):
        told = differences(database, code)
        these = [one for one in counted(tables) if totals and quoted(one.name) in database.tables]
        wrong = WRONG_TOTALS.format(counted="\nUNION ALL\n".join(map(_counts, these)))
        await connection.execute("RESET search_path")
        records = await connection.fetch(wrong) if these else []
    return [*told, *(f"the totals of {n} are wrong; SELECT recount_totals()" for (n,) in records)]


@asynccontextmanager
async def compared(
    url: str, tables: Tables
) -> AsyncIterator[tuple[asyncpg.Connection, Snapshot, Snapshot]]:
    """Describe the database and the tables in code, in a transaction that the caller rolls back."""
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
    """Return SQL for missing optional indexes; CONCURRENTLY, so that writes continue."""
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
    # Without ANALYZE the planner has no statistics of an index's expressions.
    names = {quoted(index.table.name): None for index in lacking if index.table is not None}
    return [*statements, *(f"ANALYZE {name}" for name in names)]


async def missing(connection: asyncpg.Connection, tables: Tables) -> list[Index]:
    """Return the optional indexes that the database does not have."""
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
    # Imported here: only migrations need it, and it takes 0.2 s.
    from alembic import command as commands
    from alembic.util.exc import CommandError

    try:
        getattr(commands, command)(config(url, migrations), revision)
    except CommandError as error:
        raise MigrationError(f"{error} (was the database migrated by other code?)") from None
    except DBAPIError as error:
        # SQLAlchemy wraps the driver's error twice and adds the whole statement to the message.
        cause = error.orig.__cause__ if error.orig is not None else None
        raise (cause or error) from None


def config(url: str, migrations: Path) -> "Config":
    """Return Alembic's configuration; there is no configuration file."""
    from alembic.config import Config

    made = Config(attributes={"url": url})
    # ConfigParser reads this value, and would interpret a % in a path.
    made.set_main_option("script_location", str(ROOM).replace("%", "%%"))
    made.set_main_option("version_locations", str(migrations).replace("%", "%%"))
    made.set_main_option("path_separator", "newline")  # a path may contain spaces and colons
    return made
