"""Helpers for handlers of single rows: build the response of a row, and write a row."""

from collections.abc import Awaitable, Callable, Collection
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from service.cache.generations import TableTags
from service.db.batch import BatchLoader, GroupCommit
from service.db.keyed_commit import KeyedCommit
from service.db.writes import Write
from service.errors import NotFound, Problem, Stale
from service.web.codec import Reply
from service.web.conditional import Preconditions, etag_headers, preconditions
from service.web.request import Request
from service.web.times import encode_rows

Row = TypeVar("Row", bound=Struct)


def shower(version: str | None) -> Callable[[Any], Reply]:
    """Return a function that builds a row's response, with an ETag if the table has a version."""
    if version is None:
        return lambda row: Reply(encode_rows(row, (row,)))
    version_of = attrgetter(version)

    def show(row: Any) -> Reply:
        number = version_of(row)
        return Reply(encode_rows(row, (row,)), headers=etag_headers(number), version=number)

    return show


class Adder(Protocol):
    """Creates a row, and returns the response with its Location."""

    def __call__(
        self, request: Request, values: tuple[object, ...], *, last: bool = False
    ) -> Awaitable[Reply]:
        """Create a row of these values, which are in the order of the fields.

        `last` says that the handler does nothing else, and returns the response as it is. Then
        requests with an Idempotency-Key may share a commit.
        """
        ...


def adder(statement: GroupCommit[Any], tags: TableTags, path: str, version: str | None) -> Adder:
    """Return a function that creates a row.

    Args:
        statement: the INSERT.
        tags: cache tags of the table.
        path: path of the collection, such as `/items`.
        version: name of the version field; None without one.
    """
    show, keyed = shower(version), KeyedCommit(statement)

    async def add(request: Request, values: tuple[object, ...], *, last: bool = False) -> Reply:
        def reply(row: Any) -> Reply:
            shown = show(row)
            location = (b"location", f"{request.root}{path}/{row.id}".encode())
            return Reply(shown.body, 201, (*shown.headers, location))

        keeper = request.keeper(reply) if last else None
        if keeper is None:
            return reply(await request.write(lambda db: statement.run(db, values), tags.written))
        return reply(await request.write(lambda db: keyed.run(db, values, keeper), tags.written))

    return add


async def write(
    request: Request,
    statement: Write[Row],
    tags: TableTags,
    changed: Collection[str] = (),
    given: Struct | None = None,
) -> Row:
    """Write the row whose id is in the path, if the request's preconditions hold.

    A missing row, or one that the principal does not own, is 404 with any ETag, because the request
    would fail without preconditions too (RFC 9110, 13.2.1). Only `If-Match: *` requires that the
    row exists, so it is 412 then. `changed` names the fields that the statement sets, for
    invalidation; `given` is what Write.run takes.

    Returns:
        The row after the write; a deleted row as it was before.

    Raises:
        NotFound: the row does not exist.
        Stale: a precondition failed.
    """
    conditions = preconditions(request) if statement.guarded else None
    guard = None if conditions is None else conditions.guard
    row_id, owner = request.row_id(), request.owner
    row, found = await request.write(
        lambda db: statement.run(db, guard, owner, id=row_id, given=given),
        lambda done: () if done[0] is None else tags.written(done[0], changed),
    )
    if row is None:
        raise _refusal(conditions, found)
    return row


async def unchanged(
    request: Request,
    by_id: BatchLoader[Row],
    version: str | None,
    owns: Callable[[int | None, Struct], bool],
) -> Row:
    """Return the row whose id is in the path, unchanged; raise the errors of `write`.

    `owns` says whether a row belongs to Request.owner.
    """
    conditions = None if version is None else preconditions(request)
    row = await by_id.get(request.db, request.row_id())
    if row is None or not owns(request.owner, row):
        raise _refusal(conditions, None)
    if conditions is None or version is None:
        return row
    number = getattr(row, version)
    if conditions.guard is not None and not conditions.guard.allows(number):
        raise _refusal(conditions, number)
    return row


def _refusal(conditions: Preconditions | None, found: int | None) -> Problem:
    """Return why a write was refused; `found` is the version of the row, None without a row."""
    if conditions is not None and found is not None:
        return conditions.refuse(found)
    if conditions is not None and conditions.match is not None and conditions.match.any:
        return Stale("there is no such row")
    return NotFound("there is no such row")
