"""Connections for commands, and why the database refuses one: with what to do about it."""

import re
import ssl

import asyncpg

CONNECT_SECONDS = 10.0

# All that asyncpg raises while it connects; InternalClientError: no host has the role that the URL
# asks for.
CONNECTING = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    ValueError,
)
# A server that answers with one of these may accept us later: it starts, stops, or is full.
# Its other errors (28P01, 28000, 3D000, 42501, 42704, …) stay until an operator corrects them.
PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
)
# PgBouncer has one SQLSTATE (08P01) for every refusal, and its messages are always in English. A
# startup parameter that it refuses is accepted after a RELOAD; readiness reports what to set.
POOLER = re.compile(r"no such (database|user)")


class DatabaseError(Exception):
    """Why the database can't be used, in one line, with what to do."""


class DatabaseAwayError(DatabaseError):
    """It does not answer, or starts, or is full: another try may help."""


class DatabaseRefusedError(DatabaseError):
    """It refuses what DATABASE_URL says: another try does not help."""


def refusal(error: BaseException) -> str | None:
    """The reason why no later try can succeed; None if one may."""
    match error:
        case asyncpg.ProtocolViolationError():
            return str(error) if POOLER.search(str(error)) else None
        case asyncpg.PostgresError():
            return None if isinstance(error, PASSING) else first_line(error)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            return None  # the connection ended in the middle of the handshake
        case asyncpg.InterfaceError() | ssl.SSLError():
            return first_line(error)
        case PermissionError():
            return f"its socket can't be used: {error.strerror}"
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return "it does not speak TLS, which sslmode asks for"
        case OSError() if "path too long" in str(error):
            return "the path of its socket is too long"
        case ValueError():  # from a PG… variable: the URL has been checked
            return "its address can't be read; is a variable like PGPORT or PGHOST set?"
    return None


def no_connection(error: BaseException) -> DatabaseError:
    """The error to raise in place of the one that asyncpg raised while it connected."""
    reason = refusal(error)
    if reason is not None:
        return DatabaseRefusedError(
            f"the database refuses the connection: {reason} (see DATABASE_URL)"
        )
    what = first_line(error) or type(error).__name__
    return DatabaseAwayError(
        f"the database is away: {what} (is DATABASE_URL right, and the database up?)"
    )


async def connect(url: str, **settings: str) -> asyncpg.Connection:
    """A connection for a command, with these settings of the server.

    Raises:
        DatabaseError: the database can't be reached, or refuses the connection.
    """
    try:
        return await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=settings)
    except CONNECTING as error:
        raise no_connection(error) from None


def first_line(error: BaseException) -> str:
    """The message of an error, without the details that PostgreSQL puts on further lines."""
    return str(error).strip().partition("\n")[0]
