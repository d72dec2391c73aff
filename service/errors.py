"""Problems: what may go wrong as exception classes, and SQLSTATE to Problem (RFC 9457)."""

from collections.abc import Iterable
from typing import ClassVar

import asyncpg
import msgspec
from msgspec import Struct

JSON = b"application/problem+json"
WRONG = "something went wrong on our side"


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


class TargetTooLong(Problem):
    status, title = 414, "URI Too Long"


class Unsupported(Problem):
    status, title = 415, "Unsupported Media Type"


class BadExpectation(Problem):
    status, title = 417, "Expectation Failed"


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


class NotImplementedHere(Problem):
    """The request needs something of HTTP that this server does not have."""

    status, title = 501, "Not Implemented"


class VersionNotSupported(Problem):
    status, title = 505, "HTTP Version Not Supported"


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


READ_ONLY = "the database is read-only"
NOT_MIGRATED = "the database is not migrated: run `swiftlet migrate`"
NO_RIGHT = "the database role lacks a right that this needs; the log says which"
# The schema is not the one that the statements were written for.
OUTDATED = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.DatatypeMismatchError,
    asyncpg.InvalidSchemaNameError,
)
# Raised by a rule that somebody has added to the database, about the row at hand.
REFUSED = (
    asyncpg.WithCheckOptionViolationError,
    asyncpg.RaiseError,
    asyncpg.ProgramLimitExceededError,
)

# By class, the first that fits. Only what no state of a database explains is a bug of ours (500).
# Never by the text of an error: PostgreSQL writes it in the language of `lc_messages`.
MEANINGS: tuple[
    tuple[type[BaseException] | tuple[type[BaseException], ...], type[Problem], str], ...
] = (
    (asyncpg.SequenceGeneratorLimitExceededError, Unavailable, "the database has no ids left"),
    (asyncpg.DataError, Invalid, "a value can't be stored"),
    (REFUSED, Invalid, "the database refuses these values"),
    (asyncpg.QueryCanceledError, TimedOut, "the database took too long; nothing was changed"),
    (asyncpg.TransactionTimeoutError, TimedOut, "the database took too long; nothing was changed"),
    (asyncpg.LockNotAvailableError, Locked, "somebody else holds the row; nothing was changed"),
    (asyncpg.DeadlockDetectedError, Unavailable, "the row is busy; try again"),
    (asyncpg.TransactionRollbackError, Unavailable, "the row changed meanwhile; try again"),
    (asyncpg.ReadOnlySQLTransactionError, Unavailable, READ_ONLY),
    (asyncpg.InsufficientResourcesError, Unavailable, "the database is short of resources"),
    (asyncpg.OperatorInterventionError, Unavailable, "the database is going down or coming up"),
    (OUTDATED, Unavailable, NOT_MIGRATED),
    (asyncpg.InsufficientPrivilegeError, Unavailable, NO_RIGHT),
    (asyncpg.PostgresConnectionError, Unavailable, "the database is away"),
    (asyncpg.InvalidAuthorizationSpecificationError, Unavailable, "the database is away"),
    (asyncpg.InvalidCatalogNameError, Unavailable, "the database does not exist"),
    (asyncpg.SyntaxOrAccessError, Failed, WRONG),
    (asyncpg.CardinalityViolationError, Failed, WRONG),
    (asyncpg.PostgresError, Unavailable, "the database can't do this now; the log says why"),
    (OSError, Unavailable, "the database is away"),
    (TimeoutError, Unavailable, "the database is away"),
)


def from_database(error: BaseException, *, removes: bool = False) -> Problem:
    """The Problem behind what asyncpg raised; nothing of the error's own text goes out.

    `removes` tells that the statement deletes rows: a foreign key is then violated by rows that
    refer to them, else by a value that refers to nothing. PostgreSQL names the same table and
    constraint for both.
    """
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return _violated(error, removes=removes)
    for kind, problem, detail in MEANINGS:
        if isinstance(error, kind):
            return problem(detail)
    return Failed(WRONG)


def _violated(error: asyncpg.IntegrityConstraintViolationError, *, removes: bool) -> Problem:
    """409 or 422; constraints are named `<table>_<field>_<key|fkey|check>`, see tables.py."""
    table, constraint = error.table_name or "", error.constraint_name or ""
    field = error.column_name or constraint.removeprefix(f"{table}_").rpartition("_")[0]
    match error:
        case asyncpg.UniqueViolationError() | asyncpg.ExclusionViolationError():
            return Taken(f"{field} is already taken", FieldError(field, "already taken"))
        case asyncpg.ForeignKeyViolationError() | asyncpg.RestrictViolationError() if removes:
            return Conflict(
                f"{table} still refer to it: delete or reassign them first",
                FieldError(table, "still refer to it"),
            )
        case asyncpg.ForeignKeyViolationError():
            return Conflict(f"{field} names no existing row", FieldError(field, "no such row"))
    return Invalid(f"{field} is not allowed", FieldError(field, "not allowed"))
