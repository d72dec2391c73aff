"""Problem documents (RFC 9457) as exception classes, and the mapping from SQLSTATE to them."""

from collections.abc import Iterable
from typing import Annotated, ClassVar

import asyncpg
import msgspec
from msgspec import Meta, Struct

JSON = b"application/problem+json"
WRONG = "something went wrong on our side"


class FieldError(Struct, frozen=True):
    """One invalid field; `field` is its path in the body or its name in the query."""

    field: Annotated[str, Meta(examples=["name"])]
    message: Annotated[str, Meta(examples=["required, but missing"])]


class LineError(Struct, frozen=True):
    """One invalid line of a file; lines count from 1."""

    line: Annotated[int, Meta(examples=[7])]
    message: Annotated[str, Meta(examples=["name: required, but missing"])]


class ProblemDocument(Struct, frozen=True, kw_only=True):
    """The document of every error (RFC 9457); `errors` names invalid fields, if any."""

    type: str = "about:blank"
    title: str
    status: int
    detail: Annotated[str, Meta(examples=["line 7 is wrong; nothing was written"])]
    request_id: Annotated[str, Meta(examples=["4f1d9a-1c"])]
    errors: tuple[FieldError, ...] | msgspec.UnsetType = msgspec.UNSET


class Problem(Exception):  # noqa: N818 - the RFC's own word
    """An error response. Subclasses set the status; `detail` says what is wrong and what to do."""

    status = 500
    title = "Internal Server Error"
    document: ClassVar[type[Struct]] = ProblemDocument  # the type that `body` encodes

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


class Unauthorized(Problem):
    """No API key, or one that is not valid."""

    status, title = 401, "Unauthorized"


class Forbidden(Problem):
    """The API key is valid, but may not do this."""

    status, title = 403, "Forbidden"


class NotFound(Problem):
    status, title = 404, "Not Found"


class NotAllowed(Problem):
    status, title = 405, "Method Not Allowed"


class TooSlow(Problem):
    status, title = 408, "Request Timeout"


class Conflict(Problem):
    status, title = 409, "Conflict"


class Gone(Problem):
    """What was asked for is not kept any more."""

    status, title = 410, "Gone"


class Taken(Conflict):
    """Another row already has the unique value."""


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
    """The document of a problem with a file: its errors name lines instead of fields."""

    errors: tuple[LineError, ...]  # type: ignore[assignment]  # only encoded, never read as the base


class InvalidLines(Invalid):
    """A file was refused and nothing was written; `lines` are the first invalid lines."""

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


class TooMany(Problem):
    """A rate limit is exhausted; retry after `retry_after` seconds."""

    status, title = 429, "Too Many Requests"

    def __init__(
        self, detail: str, *, retry_after: int, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        retry = (b"retry-after", str(retry_after).encode())
        super().__init__(detail, headers=(retry, *headers))


class HeadersTooLarge(Problem):
    status, title = 431, "Request Header Fields Too Large"


class Failed(Problem):
    """A bug in the service. The traceback is in the log, never in the response."""


class NotImplementedHere(Problem):
    """The request needs a feature of HTTP that this server does not implement."""

    status, title = 501, "Not Implemented"


class VersionNotSupported(Problem):
    status, title = 505, "HTTP Version Not Supported"


class Unavailable(Problem):
    """Overloaded, or the database is unavailable; retry after `retry_after` seconds."""

    status, title = 503, "Service Unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers=((b"retry-after", str(retry_after).encode()),))


class OutcomeUnknown(Unavailable):
    """A write was sent and its result was lost: it may have been committed, or may be later."""


class TimedOut(Problem):
    status, title = 504, "Gateway Timeout"


class Locked(TimedOut):
    """Another transaction locks a row; in a statement for several rows it may be any of them."""


READ_ONLY = "the database is read-only"
DISK_FULL = "the disk of the database is full; nothing was changed"
NOT_MIGRATED = "the database is not migrated: run `swiftlet migrate`"
NO_RIGHT = "the database role lacks a right that this needs; the log says which"
# Errors of statements that were written for another schema.
OUTDATED = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.DatatypeMismatchError,
    asyncpg.InvalidSchemaNameError,
)
# Raised by rules, triggers or policies that were added to the database.
REFUSED = (
    asyncpg.WithCheckOptionViolationError,
    asyncpg.RaiseError,
    asyncpg.ProgramLimitExceededError,
)

# The first class that matches applies. Only errors that no state of a database explains are 500.
# Texts of errors are never compared: PostgreSQL writes them in the language of `lc_messages`.
MEANINGS: tuple[
    tuple[type[BaseException] | tuple[type[BaseException], ...], type[Problem], str], ...
] = (
    (asyncpg.SequenceGeneratorLimitExceededError, Unavailable, "the database has no ids left"),
    (asyncpg.DataError, Invalid, "a value can't be stored"),
    (REFUSED, Invalid, "the database refuses these values"),
    (asyncpg.QueryCanceledError, TimedOut, "the database took too long; nothing was changed"),
    (asyncpg.TransactionTimeoutError, TimedOut, "the database took too long; nothing was changed"),
    (asyncpg.LockNotAvailableError, Locked, "the row is locked; nothing was changed"),
    (asyncpg.DeadlockDetectedError, Unavailable, "the row is busy; try again"),
    (asyncpg.TransactionRollbackError, Unavailable, "the row was changed concurrently; try again"),
    (asyncpg.ReadOnlySQLTransactionError, Unavailable, READ_ONLY),
    (asyncpg.DiskFullError, Unavailable, DISK_FULL),
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
    """Return the Problem for an exception of asyncpg. The text of the error is never shown.

    `removes` says that the statement deletes rows. A foreign key error then means that other rows
    refer to them; otherwise a value refers to a missing row. PostgreSQL names the same table and
    constraint in both cases.
    """
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return _violated(error, removes=removes)
    for kind, problem, detail in MEANINGS:
        if isinstance(error, kind):
            return problem(detail)
    return Failed(WRONG)


def _violated(error: asyncpg.IntegrityConstraintViolationError, *, removes: bool) -> Problem:
    """Return 409 or 422. Constraints are named `<table>_<field>_<key|fkey|check>`."""
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
            return Conflict(
                f"{field} refers to a row that does not exist", FieldError(field, "does not exist")
            )
    if not field:  # a constraint that was added by hand, with another name
        return Invalid("a constraint of the database does not allow these values")
    return Invalid(f"{field} is not allowed", FieldError(field, "not allowed"))
