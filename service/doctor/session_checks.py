"""Connections to the database: their number, their limits, and a pooler in between."""

import asyncio

import asyncpg

from service.db.access import first_line
from service.db.copy import DEDICATED
from service.doctor.check import Check, Finding, fail, ok, skip, warn
from service.doctor.database_checks import STATEMENT_SECONDS, open_connection
from service.doctor.subject import Subject

# Connections for migrations, commands, readiness and psql, beside those of the workers.
RESERVED = 5
SESSION_MODE = "set pool_mode = session in PgBouncer, or connect to PostgreSQL itself"

# Every role may see the name of an application; those of workers begin with swiftlet.
CONNECTIONS = """
SELECT current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
    (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
    (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
    (SELECT count(*) FROM pg_stat_activity
        WHERE datid IS NOT NULL AND application_name NOT LIKE 'swiftlet%')
"""
TIMEOUTS = """
SELECT name, setting::bigint FROM pg_settings
WHERE name IN ('statement_timeout', 'idle_session_timeout', 'transaction_timeout')
"""


async def pooler(subject: Subject) -> Finding:
    """Fail if a pooler gives a session another server process at each transaction.

    Prepared statements then belong to a process that the next request may not have.
    """
    connection = subject.connection()
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    if pid == connection.get_server_pid():
        return ok("none between the service and PostgreSQL")
    subject.pooled = True
    try:
        async with asyncio.timeout(STATEMENT_SECONDS / 2):
            shared = await _is_shared(subject, pid)
    except TimeoutError:  # a session pool of one process, which is ours
        shared = False
    except asyncpg.PostgresError as error:
        return fail(f"a pooler refuses a transaction: {first_line(error)}", SESSION_MODE)
    if shared:
        return fail("a pooler in transaction mode: prepared statements fail", SESSION_MODE)
    return ok("a pooler in session mode")


async def _is_shared(subject: Subject, pid: int) -> bool:
    """Return whether another session gets our server process while our session is idle."""
    other = await open_connection(subject)
    try:
        async with other.transaction():
            if pid == await other.fetchval("SELECT pg_backend_pid()"):
                return True
            return bool(pid != await subject.connection().fetchval("SELECT pg_backend_pid()"))
    finally:
        other.terminate()


async def connections(subject: Subject) -> Finding:
    """Fail if all workers of this node together may need more connections than there are.

    Each has its pool, one connection that listens for writes, one that listens for jobs and
    changes, and two for files; five are reserved for migrations and commands. Warn if they fit only
    while other programs have none.
    """
    settings = subject.settings
    if settings.pool == "none":
        return skip("SERVICE_POOL=none: each statement opens a connection")
    limits = await subject.row(CONNECTIONS)
    server, role, own, others = limits
    app = subject.app
    hears = (app.jobs and settings.jobs == "on") or any(one.changes for one in app.resources)
    listeners = int(settings.cache != "off") + int(bool(hears))
    each = settings.pool + DEDICATED + listeners
    needed = settings.workers * each + RESERVED
    if subject.pooled:
        return skip(f"{needed} are needed, and the pooler's limits are not visible here")
    limit, name = min(
        (value, name)
        for value, name in (
            (server, "max_connections, without those reserved,"),
            (role, "CONNECTION LIMIT of the role"),
            (own, "CONNECTION LIMIT of the database"),
        )
        if value >= 0
    )
    sum_ = f"{settings.workers} x ({settings.pool} + {listeners} + {DEDICATED}) + {RESERVED}"
    sum_ = f"{sum_} = {needed} are needed on each node, {name} is {limit}"
    what = "raise it, or lower SERVICE_WORKERS or SERVICE_POOL"
    if needed > limit:
        return fail(sum_, what)
    if needed + others > limit:
        return warn(f"{sum_}, and other programs have {others}", what)
    return ok(sum_)


async def timeouts(subject: Subject) -> Finding:
    """Warn if the server ends idle connections or long transactions, or a pooler drops limits."""
    records = await subject.connection().fetch(TIMEOUTS)
    found = {record["name"]: record["setting"] for record in records}
    wanted = round(STATEMENT_SECONDS * 1000)
    own = subject.settings.statement_timeout_ms
    if found["statement_timeout"] != wanted and found["statement_timeout"] != own:
        return warn(
            f"statement_timeout is {found['statement_timeout']} ms: the pooler does not pass on"
            " SERVICE_STATEMENT_TIMEOUT_MS",
            f"ALTER ROLE ... SET statement_timeout = '{own}ms'",
        )
    if found["idle_session_timeout"]:
        return warn(
            f"idle_session_timeout is {found['idle_session_timeout']} ms: the server closes"
            " connections that the pool keeps",
            "ALTER ROLE ... SET idle_session_timeout = 0",
        )
    if longest := found.get("transaction_timeout", 0):
        return warn(
            f"transaction_timeout is {longest} ms: imports and exports that take longer fail",
            "ALTER ROLE ... SET transaction_timeout = 0",
        )
    return ok("sessions have our limits, and the server ends no idle connection")


CHECKS = (
    Check("pooler", pooler, "database"),
    Check("connections", connections, "database"),
    Check("timeouts", timeouts, "database"),
)
