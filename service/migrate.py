"""Migrations: Alembic on a database, and whether tables.py, migrations and database agree."""

from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable

from service.db.access import DatabaseError, connect
from service.db.statement import DIALECT
from service.tables import (
    KEEP_TOTALS,
    RECOUNT_TOTALS,
    TELL_WRITES,
    TOTALS_TRIGGERS,
    WRITES_TRIGGER,
    items,
    metadata,
    users,
)

if TYPE_CHECKING:
    from alembic.config import Config

PACKAGE = Path(__file__).parent
# In a checkout beside the package; in an installed wheel within it (pyproject.toml says so).
MIGRATIONS = next(
    path
    for path in (PACKAGE.parent / "sql" / "migrations", PACKAGE / "migrations")
    if path.is_dir()
)

COLUMNS = """
SELECT format('column %s.%s: %s%s%s%s', c.relname, a.attname,
              format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
              coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''),
              CASE a.attidentity WHEN '' THEN '' ELSE ' identity ' || a.attidentity::text END)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
"""
CONSTRAINTS = """
SELECT format('constraint %s: %s', conname, pg_get_constraintdef(oid))
FROM pg_constraint
WHERE connamespace = $1::regnamespace AND contype IN ('c', 'f', 'p', 'u')
  AND conname <> 'alembic_version_pkc'
"""
INDEXES = """
SELECT replace(format('index %s: %s', c.relname, pg_get_indexdef(c.oid)), $1 || '.', '')
FROM pg_class c
WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'i' AND c.relname <> 'alembic_version_pkc'
"""
FUNCTIONS = """
SELECT format('function %s: %s', p.proname, md5(replace(pg_get_functiondef(p.oid), $1 || '.', '')))
FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = $1::regnamespace AND l.lanname = 'plpgsql'
"""
TRIGGERS = """
SELECT replace(
    format('trigger %s: %s %s', t.tgname, t.tgenabled, pg_get_triggerdef(t.oid)), $1 || '.', '')
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal
"""
STORAGE = """
SELECT format('table %s: %s', relname, reloptions)
FROM pg_class
WHERE relnamespace = $1::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
"""
TRIGRAM = """
SELECT true FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND pg_opclass_is_visible(oid)
"""
# All in one snapshot.
WRONG_TOTALS = """
WITH kept AS (
    SELECT name, sum(total) AS total, sum(active) AS active FROM totals GROUP BY name
), counted AS (
    SELECT 'items' AS name, count(*) AS total, count(*) FILTER (WHERE is_active) AS active
    FROM items
    UNION ALL SELECT 'users', count(*), count(*) FILTER (WHERE is_active) FROM users
)
SELECT name FROM counted LEFT JOIN kept USING (name)
WHERE (coalesce(kept.total, 0), coalesce(kept.active, 0)) <> (counted.total, counted.active)
ORDER BY name
"""


class MigrationError(DatabaseError):
    """Why the migrations can't go on, in one line."""


class NotMigratedError(MigrationError):
    """The database has no tables, or older ones than this code reads."""


def head() -> str:
    """The newest revision: migrations are numbered, `0001_….py`."""
    return max(path.stem[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def up(url: str, revision: str = "head") -> None:
    """Migrate; several starts at once are safe, each waits for the one before."""
    _alembic("upgrade", url, revision)


def down(url: str, revision: str) -> None:
    """Undo migrations down to a revision, `base` for all."""
    _alembic("downgrade", url, revision)


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


async def require(url: str) -> None:
    """Make sure that the tables are there; newer ones than this code's may serve it too.

    Raises:
        NotMigratedError: they are not.
    """
    try:
        found = await status(url)
    except asyncpg.InsufficientPrivilegeError:
        return  # who may not read the revision may still read the tables
    if found is None:
        raise NotMigratedError("the database is not migrated: run `swiftlet migrate`")
    if found < head():
        raise NotMigratedError(
            f"the database is at revision {found}, and this code needs {head()}:"
            " run `swiftlet migrate`"
        )


async def check(url: str) -> list[str]:
    """What differs: the database against the newest revision, then against tables.py.

    The tables are made from the code in a schema of their own, in a transaction that is rolled
    back, and PostgreSQL's own descriptions of both are compared: types, defaults, every
    constraint, every index with its expression and predicate, every trigger. Last the totals are
    compared with the rows, which reads every one of them.
    """
    found = await status(url)
    if found != head():
        return [f"the database is at revision {found}, the newest is {head()}"]
    connection = await connect(url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        trigram = await connection.fetchval(TRIGRAM)
        schema: str = await connection.fetchval("SELECT current_schema()")
        stands = await _describe(connection, schema)
        wrong = await connection.fetch(WRONG_TOTALS)
        await connection.execute("CREATE SCHEMA as_in_code")
        await connection.execute(f"SET LOCAL search_path TO as_in_code, {schema}")
        for table in metadata.sorted_tables:
            await connection.execute(str(CreateTable(table).compile(dialect=DIALECT)))
            for index in table.indexes:
                if trigram or not index.info.get("optional"):
                    await connection.execute(str(CreateIndex(index).compile(dialect=DIALECT)))
        await _make_triggers(connection, "as_in_code")
        wanted = await _describe(connection, "as_in_code")
    finally:
        await transaction.rollback()
        await connection.close()
    return [
        *(f"only in the database: {line}" for line in sorted(stands - wanted)),
        *(f"only in tables.py: {line}" for line in sorted(wanted - stands)),
        *(f"the totals of {name} are wrong; SELECT recount_totals()" for (name,) in wrong),
    ]


async def _make_triggers(connection: asyncpg.Connection, schema: str) -> None:
    for function in (KEEP_TOTALS, RECOUNT_TOTALS, TELL_WRITES):
        await connection.execute(function.format(schema=schema))
    for table in (items, users):
        for triggers in (TOTALS_TRIGGERS, WRITES_TRIGGER):
            await connection.execute(triggers.format(table=table.name))


async def _describe(connection: asyncpg.Connection, schema: str) -> set[str]:
    found: set[str] = set()
    for query in (COLUMNS, CONSTRAINTS, INDEXES, FUNCTIONS, TRIGGERS, STORAGE):
        found.update(record[0] for record in await connection.fetch(query, schema))
    return found


def _alembic(command: str, url: str, revision: str) -> None:
    # Only those who migrate pay for this import: 0.2 s.
    from alembic import command as commands
    from alembic.util.exc import CommandError

    try:
        getattr(commands, command)(config(url), revision)
    except CommandError as error:
        raise MigrationError(f"{error} (was the database migrated by other code?)") from None
    except DBAPIError as error:
        # SQLAlchemy wraps the driver's error twice, and adds the whole statement to the message.
        cause = error.orig.__cause__ if error.orig is not None else None
        raise (cause or error) from None


def config(url: str) -> "Config":
    """Alembic's settings, which are in no file."""
    from alembic.config import Config

    made = Config(attributes={"url": url})
    # ConfigParser reads this value, and takes a % in a path for its own.
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return made
