"""The schema: migrations, rights, extensions, indexes."""

from datetime import timedelta

import asyncpg

from service.db import rights
from service.db.quoting import quoted
from service.doctor.check import Check, Finding, fail, ok, skip, warn
from service.doctor.subject import Skipped, Subject
from service.migrations import migrate

# An index counts as unused only if its table has so many rows and was read so often, over so long.
ROWS, SCANS, OBSERVED = 10_000, 1_000, timedelta(days=7)
DRIFT_SECONDS = 15.0
MAX_SHOWN = 3

EXTENSION = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements'),
    (SELECT setting LIKE '%pg_stat_statements%' FROM pg_settings
        WHERE name = 'shared_preload_libraries')
"""
# Without those that are being built.
INVALID = """
SELECT quote_ident(c.relname)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = current_schema()::regnamespace AND NOT (i.indisvalid AND i.indisready)
    AND i.indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index)
ORDER BY 1
"""
# Without a reset, the statistics are as old as the database; how old they are is not known.
OBSERVING = """
SELECT coalesce(stats_reset, pg_postmaster_start_time()) AS since,
    now() - coalesce(stats_reset, pg_postmaster_start_time()) AS age
FROM pg_stat_database WHERE datname = current_database()
"""
# Unique indexes are there for their constraint.
UNUSED = """
SELECT quote_ident(x.indexrelname), pg_size_pretty(pg_relation_size(i.indexrelid))
FROM pg_index i
JOIN pg_stat_user_indexes x USING (indexrelid)
JOIN pg_stat_user_tables t ON t.relid = i.indrelid
WHERE t.relid = ANY (SELECT to_regclass(name) FROM unnest($1::text[]) AS name)
    AND x.idx_scan = 0 AND NOT i.indisunique AND i.indisvalid
    AND t.n_live_tup >= $2 AND coalesce(t.seq_scan, 0) + coalesce(t.idx_scan, 0) >= $3
ORDER BY pg_relation_size(i.indexrelid) DESC, 1
"""


async def migrations(subject: Subject) -> Finding:
    """Fail if the database is not at the newest revision of the application's migrations."""
    connection = subject.connection()
    newest = migrate.head(subject.app.migrations)
    if newest is None:
        subject.migrated = True
        if subject.app.tables and subject.embedded:
            return fail(
                f"there are no migrations in {subject.app.migrations}",
                'write the first with `swiftlet migrate new "first tables"`',
            )
        return ok("this application has no migrations")
    try:
        found = await connection.fetchval(rights.REVISION)
    except asyncpg.UndefinedTableError:
        found = None
    if found is not None and found > newest:
        subject.migrated = True
        return ok(f"at revision {found}, newer than {newest}, the newest of this code")
    if found != newest:
        return fail(
            f"the database is at revision {found or 'none'}, this code needs {newest}",
            "run `swiftlet migrate`",
        )
    subject.migrated = True
    return ok(f"at revision {found}, the newest")


async def permissions(subject: Subject) -> Finding:
    """Fail if the role of DATABASE_URL lacks a right that requests need."""
    connection = subject.connection()
    found = await rights.find(connection, subject.app.needs)
    if not found.lacking:
        return ok("the role has every right that it needs")
    role = await connection.fetchval("SELECT quote_ident(current_user)")
    lacking: dict[str, list[str]] = {}
    for one in found.lacking:
        right, _, place = one.partition(" on ")
        lacking.setdefault(place, []).append(right)
    told = ", ".join(f"{'/'.join(rights_)} on {place}" for place, rights_ in lacking.items())
    grants = (_grant(", ".join(rights_), place, role) for place, rights_ in lacking.items())
    return fail(f"the role {role} lacks {told}", "; ".join(grants))


def _grant(needed: str, place: str, role: str) -> str:
    kind, _, name = place.partition(" ")
    # A table stands alone; a sequence or a database has its kind before its name.
    where = f"{kind.upper()} {name}" if kind in {"sequence", "database"} and name else place
    return f"GRANT {needed.upper()} ON {where} TO {role}"


async def search(subject: Subject) -> Finding:
    """Warn if pg_trgm or an index that needs it is missing: searches then read every row."""
    lacking = await migrate.missing(_migrated(subject), subject.app.tables)
    if not lacking:
        return ok("no optional index is missing")
    names = ", ".join(str(one.name) for one in lacking)
    return warn(
        f"searches read every row, without the index {names}",
        "run the statements that `swiftlet migrate check` prints, as the owner of the tables",
    )


async def statistics(subject: Subject) -> Finding:
    """Say whether pg_stat_statements is there, which shows statements of all programs."""
    created, loaded = await subject.row(EXTENSION)
    if created:
        return ok("pg_stat_statements is there")
    first = "" if loaded else "add it to shared_preload_libraries and restart PostgreSQL, then "
    return ok(
        f"optional: {first}CREATE EXTENSION pg_stat_statements, to see the statements of all"
        " programs"
    )


async def invalid_indexes(subject: Subject) -> Finding:
    """Fail if an index is invalid: CREATE INDEX CONCURRENTLY failed, and only writes use it."""
    found = [name for (name,) in await subject.connection().fetch(INVALID)]
    if not found:
        return ok("none")
    return fail(
        f"invalid: {', '.join(found)}",
        f"REINDEX INDEX CONCURRENTLY {found[0]}, or DROP INDEX CONCURRENTLY",
    )


async def unused_indexes(subject: Subject) -> Finding:
    """Warn if no query has used an index; only of tables that are large and often read.

    Checked once the statistics are 7 days old. Indexes of constraints do not count.
    """
    connection = _migrated(subject)
    since, age = await subject.row(OBSERVING)
    if age < OBSERVED:
        return skip(f"the statistics begin at {since:%Y-%m-%d %H:%M} UTC: too young")
    names = [quoted(one.name) for one in subject.app.tables]
    found = await connection.fetch(UNUSED, names, ROWS, SCANS)
    if not found:
        return ok(f"none since {since:%Y-%m-%d}")
    told = ", ".join(f"{name} ({size})" for name, size in found[:MAX_SHOWN])
    return warn(
        f"no query used {told} since {since:%Y-%m-%d}",
        "remove the index from the declaration and migrate, if no foreign key or rare query"
        " needs it, also on standbys",
    )


async def drift(subject: Subject) -> Finding:
    """Fail if the database and the tables in code differ, as `swiftlet migrate check` finds out.

    Totals are not counted here, because that reads every row.
    """
    _migrated(subject)
    url, app = subject.settings.required_database_url, subject.app
    newest = migrate.head(app.migrations)
    if newest is None:
        return skip("this application has no migrations")
    try:
        found = await migrate.check(url, app.tables, app.migrations, totals=False)
    except asyncpg.ReadOnlySQLTransactionError:
        return skip("the database is read-only")
    except asyncpg.InsufficientPrivilegeError:
        return skip("the role may not create a schema: run `swiftlet migrate check` as the owner")
    if not found:
        return ok("the database has the tables that the code declares")
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return fail(f"{found[0]}{more}", "`swiftlet migrate check` shows all; write a migration")


def _migrated(subject: Subject) -> asyncpg.Connection:
    """The connection, if the database is at the revision that the tables need.

    Raises:
        Skipped: it is not, or there is no connection.
    """
    connection = subject.connection()
    if not subject.migrated:
        raise Skipped("the database is not migrated")
    return connection


CHECKS = (
    Check("migrations", migrations, "database"),
    Check("rights", permissions, "database"),
    Check("search-index", search, "database"),
    Check("pg_stat_statements", statistics, "database"),
    Check("invalid-indexes", invalid_indexes, "database"),
    Check("unused-indexes", unused_indexes, "database"),
    Check("drift", drift, "database", DRIFT_SECONDS),
)
