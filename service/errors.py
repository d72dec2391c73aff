"""Problems: what may go wrong as exception classes, and SQLSTATE to Problem (RFC 9457)."""

from collections.abc import Iterable
from typing import ClassVar

import asyncpg
import msgspec
from msgspec import Struct

JSON = b"application/problem+json"


class FieldError(Struct, frozen=True):
    """One field that is in the way; `field` is its path in the body or its name in the query."""

    field: str
    message: str


class LineError(Struct, frozen=True):
    """One line of a file that is wrong; lines are counted from 1."""

    line: int
    message: str


class ProblemDocument(Struct, frozen=True, kw_only=True):
    """The one shape of every error (RFC 9457); `errors` only where fields are to blame."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: tuple[FieldError, ...] | msgspec.UnsetType = msgspec.UNSET


class Problem(Exception):  # noqa: N818 - the RFC's own word
    """An answer that is not a success. Subclasses fix the status; `detail` says what to do."""

    status = 500
    title = "Internal Server Error"
    document: ClassVar[type[Struct]] = ProblemDocument  # what `body` makes

    def __init__(
        self,
        detail: str,
        *errors: FieldError,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def body(self, request_id: str) -> bytes:
        """The problem document."""
        return msgspec.json.encode(
            ProblemDocument(
                title=self.title,
                status=self.status,
                detail=self.detail,
                request_id=request_id,
                errors=self.errors or msgspec.UNSET,
            )
        )


class Malformed(Problem):
    status, title = 400, "Bad Request"


class NotFound(Problem):
    status, title = 404, "Not Found"


class NotAllowed(Problem):
    status, title = 405, "Method Not Allowed"


class TooSlow(Problem):
    status, title = 408, "Request Timeout"


class Conflict(Problem):
    status, title = 409, "Conflict"


class Taken(Conflict):
    """Another row has the unique value."""


class Stale(Problem):
    status, title = 412, "Precondition Failed"


class TooLarge(Problem):
    status, title = 413, "Content Too Large"


class Unsupported(Problem):
    status, title = 415, "Unsupported Media Type"


class Invalid(Problem):
    status, title = 422, "Unprocessable Content"


class LinesDocument(ProblemDocument, frozen=True, kw_only=True):
    """The shape of a problem with a file: its errors name lines in the place of fields."""

    errors: tuple[LineError, ...]  # type: ignore[assignment]  # only ever made and sent, as this


class InvalidLines(Invalid):
    """A file of which nothing was taken: `lines` are wrong, or the first of those that are."""

    document = LinesDocument

    def __init__(self, detail: str, lines: Iterable[LineError]) -> None:
        super().__init__(detail)
        self.lines = tuple(lines)

    def body(self, request_id: str) -> bytes:
        """The problem document."""
        return msgspec.json.encode(
            LinesDocument(
                title=self.title,
                status=self.status,
                detail=self.detail,
                request_id=request_id,
                errors=self.lines,
            )
        )


class HeadersTooLarge(Problem):
    status, title = 431, "Request Header Fields Too Large"


class Failed(Problem):
    """A bug of ours; the traceback is in the log, never in the answer."""


class Unavailable(Problem):
    """Overloaded, or the database is away: come back in `retry_after` seconds."""

    status, title = 503, "Service Unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers=((b"retry-after", str(retry_after).encode()),))


class OutcomeUnknown(Unavailable):
    """A write was sent, and its answer was lost: it may have happened, or may yet happen."""


class TimedOut(Problem):
    status, title = 504, "Gateway Timeout"


class Locked(TimedOut):
    """Somebody else holds a row for so long; of several rows in one statement it may be any."""


# By class, the first that fits; what a row in the way means is told from its constraint instead.
MEANINGS: tuple[tuple[type[BaseException], type[Problem], str], ...] = (
    (asyncpg.DataError, Invalid, "a value can't be stored"),
    (asyncpg.QueryCanceledError, TimedOut, "the database took too long; nothing was changed"),
    (asyncpg.LockNotAvailableError, Locked, "somebody else holds the row; nothing was changed"),
    (asyncpg.DeadlockDetectedError, Unavailable, "the row is busy; try again"),
    (asyncpg.SerializationError, Unavailable, "the row changed meanwhile; try again"),
    (asyncpg.ReadOnlySQLTransactionError, Unavailable, "the database is read-only at the moment"),
    (asyncpg.InsufficientResourcesError, Unavailable, "the database is short of resources"),
    (asyncpg.OperatorInterventionError, Unavailable, "the database is going down or coming up"),
    (asyncpg.UndefinedTableError, Unavailable, "the database is not migrated: `service migrate`"),
    (asyncpg.UndefinedColumnError, Unavailable, "the database is not migrated: `service migrate`"),
    (asyncpg.PostgresConnectionError, Unavailable, "the database is away"),
    (asyncpg.InvalidAuthorizationSpecificationError, Unavailable, "the database is away"),
    (OSError, Unavailable, "the database is away"),
    (TimeoutError, Unavailable, "the database is away"),
)


def from_database(error: BaseException) -> Problem:
    """The Problem behind what asyncpg raised; nothing of the error's own text goes out."""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return _in_the_way(error)
    for kind, problem, detail in MEANINGS:
        if isinstance(error, kind):
            return problem(detail)
    return Failed("something went wrong on our side")


def _in_the_way(error: asyncpg.IntegrityConstraintViolationError) -> Problem:
    """409 or 422; constraints are named `<table>_<field>_<key|fkey|check>`, see tables.py."""
    table, constraint = error.table_name or "", error.constraint_name or ""
    field = error.column_name or constraint.removeprefix(f"{table}_").rpartition("_")[0]
    match error:
        case asyncpg.UniqueViolationError():
            return Taken(f"{field} is already taken", FieldError(field, "already taken"))
        case asyncpg.ForeignKeyViolationError() if "still referenced" in (error.detail or ""):
            return Conflict(
                f"{table} still refer to it: delete or reassign them first",
                FieldError(table, "still refer to it"),
            )
        case asyncpg.ForeignKeyViolationError():
            return Conflict(f"{field} names no existing row", FieldError(field, "no such row"))
    return Invalid(f"{field} is not allowed", FieldError(field, "not allowed"))
