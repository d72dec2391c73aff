"""The database server: whether it can be reached, and how it is set up."""

import asyncio
from datetime import UTC, datetime

import asyncpg

from service.db.access import CONNECTING, first_line, refusal
from service.db.pooled_connection import POOLED, connect
from service.doctor.check import Check, Finding, fail, ok, skip, warn
from service.doctor.clocks import skewed
from service.doctor.subject import DATABASE_OFF, Subject
from service.embedded.programs import OLDEST
from service.settings.urls import address

# Another name than those of workers: a worker with a cache looks for the pools of others.
NAME = "swiftlet-doctor"
STATEMENT_SECONDS = 4.0  # below the time of a check
NEWEST = 18  # the last major version on which the tests run

DURABILITY = """
SELECT current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
    current_setting('synchronous_commit'), current_setting('data_checksums') = 'on'
"""


async def open_connection(subject: Subject) -> asyncpg.Connection:
    """Open a connection with the settings of a worker; raises as asyncpg does."""
    return await connect(
        subject.settings.required_database_url,
        statement_timeout=STATEMENT_SECONDS,
        lock_timeout=STATEMENT_SECONDS,
        name=NAME,
    )


async def database(subject: Subject) -> Finding:
    """Connect as a worker does; fail if the server does not answer, or refuses the connection."""
    url = subject.settings.database_url
    if url is None:
        return skip(DATABASE_OFF)
    try:
        async with asyncio.timeout(STATEMENT_SECONDS):
            subject.database = await open_connection(subject)
    except CONNECTING as error:
        return _unreachable(error, url)
    place = f"embedded, in {subject.settings.data}" if subject.embedded else address(url)
    return ok(f"it answers: {place}")


def _unreachable(error: BaseException, url: str) -> Finding:
    if isinstance(error, asyncpg.ProtocolViolationError) and refusal(error) is None:
        return fail(
            f"a pooler refuses the connection: {first_line(error)}",
            f"with PgBouncer set ignore_startup_parameters = {', '.join(POOLED)}",
        )
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return fail(
            f"it has no free connection: {first_line(error)}",
            "raise max_connections, or lower SERVICE_POOL or SERVICE_WORKERS",
        )
    why = refusal(error)
    if why is not None:
        return fail(
            f"it refuses the connection: {why}",
            "correct DATABASE_URL, or the role, database or pg_hba.conf that it names",
        )
    if isinstance(error, TimeoutError):
        why = f"no answer within {STATEMENT_SECONDS:g} s"
    else:
        why = first_line(error) or type(error).__name__
    return fail(f"it is away ({address(url)}): {why}", "start it, or correct DATABASE_URL")


async def postgres_version(subject: Subject) -> Finding:
    """Fail below PostgreSQL 15; warn above the newest version that the tests use."""
    connection = subject.connection()
    major = connection.get_server_version().major
    text = str(connection.get_settings().server_version)
    if major < OLDEST:
        return fail(f"PostgreSQL {text}", f"use PostgreSQL {OLDEST} or newer")
    if major > NEWEST:
        return warn(f"PostgreSQL {text} is not tested yet", f"prefer {OLDEST} to {NEWEST}")
    return ok(f"PostgreSQL {text}")


async def encoding(subject: Subject) -> Finding:
    """Fail unless the database stores text as UTF-8, and the session has UTC."""
    connection = subject.connection()
    stored = await connection.fetchval("SHOW server_encoding")
    zone = await connection.fetchval("SHOW timezone")
    if stored != "UTF8":
        return fail(
            f"the database stores text as {stored}",
            "make a database with ENCODING 'UTF8' TEMPLATE template0, and move the rows",
        )
    if zone not in {"UTC", "Etc/UTC", "GMT"}:
        return warn(
            f"the time zone of a session is {zone}: a pooler does not pass on the setting",
            "ALTER ROLE ... SET timezone = 'UTC'",
        )
    return ok(f"{stored}, time zone {zone}")


async def writable(subject: Subject) -> Finding:
    """Fail if the database takes no writes: it is a standby, or set to read-only."""
    connection = subject.connection()
    standby = await connection.fetchval("SELECT pg_is_in_recovery()")
    if standby:
        return fail("it is a standby: writes are answered 503", "give DATABASE_URL the primary")
    if await connection.fetchval("SHOW transaction_read_only") == "on":
        return fail(
            "default_transaction_read_only is on: writes are answered 503",
            "ALTER DATABASE or ALTER ROLE ... SET default_transaction_read_only = off",
        )
    return ok("it takes writes")


async def durability(subject: Subject) -> Finding:
    """Fail if a crash may lose acknowledged writes: fsync, full_page_writes, synchronous_commit."""
    fsync, full, commit, _ = await subject.row(DURABILITY)
    wrong = [
        *(() if fsync else ("fsync",)),
        *(() if full else ("full_page_writes",)),
        *(() if commit != "off" else ("synchronous_commit",)),
    ]
    if wrong:
        return fail(
            f"off: {', '.join(wrong)}; a crash may lose acknowledged writes or the database",
            "; ".join(f"ALTER SYSTEM SET {name} = on" for name in wrong)
            + "; SELECT pg_reload_conf()",
        )
    return ok(f"fsync and full_page_writes on, synchronous_commit {commit}")


async def checksums(subject: Subject) -> Finding:
    """Warn without data checksums: a page that a disk has damaged is read as if it were right."""
    if (await subject.row(DURABILITY))[3]:
        return ok("data checksums are on")
    return warn(
        "data checksums are off: damage of the disk is not noticed",
        "stop PostgreSQL and run pg_checksums --enable",
    )


async def clock(subject: Subject) -> Finding:
    """Warn if the clock of PostgreSQL differs by more than 1 s, fail from 60 s on."""
    connection = subject.connection()
    before = datetime.now(UTC)
    there = await connection.fetchval("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    # The round trip may be slow, so only what is beyond it is a difference.
    ahead = max(there - after, before - there).total_seconds()
    return skewed(ahead, "PostgreSQL")


CHECKS = (
    Check("database", database, "database"),
    Check("postgresql-version", postgres_version, "database"),
    Check("encoding", encoding, "database"),
    Check("writable", writable, "database"),
    Check("durability", durability, "database"),
    Check("checksums", checksums, "database"),
    Check("database-clock", clock, "database"),
)
