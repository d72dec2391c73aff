"""What the handlers of single rows share: how a row is shown, and how it is written."""

from collections.abc import Awaitable, Callable, Collection
from operator import attrgetter
from typing import Any, TypeVar

from msgspec import Struct

from service.cache.generations import TableTags
from service.db.batch import BatchLoader, GroupCommit
from service.db.writes import Write
from service.errors import NotFound, Problem, Stale
from service.web.codec import Reply
from service.web.conditional import Preconditions, etag, preconditions
from service.web.request import Request
from service.web.times import encode_rows

Row = TypeVar("Row", bound=Struct)


def shower(version: str | None) -> Callable[[Any], Reply]:
    """What shows a row: with its ETag, unless the table has no version (None)."""
    if version is None:
        return lambda row: Reply(encode_rows(row, (row,)))
    version_of = attrgetter(version)

    def show(row: Any) -> Reply:
        number = version_of(row)
        return Reply(encode_rows(row, (row,)), headers=((b"etag", etag(number)),), version=number)

    return show


def adder(
    statement: GroupCommit[Any], tags: TableTags, path: str, version: str | None
) -> Callable[[Request, tuple[object, ...]], Awaitable[Reply]]:
    """What makes a row from the values of its fields, and shows it with its Location.

    Args:
        statement: the INSERT.
        tags: of the table.
        path: of the collection, as `/items`.
        version: the field that is the ETag; None without one.
    """
    show = shower(version)

    async def add(request: Request, values: tuple[object, ...]) -> Reply:
        row: Any = await request.write(lambda db: statement.run(db, values), tags.written)
        shown = show(row)
        location = (b"location", f"{request.root}{path}/{row.id}".encode())
        return Reply(shown.body, 201, (*shown.headers, location))

    return add


async def write(
    request: Request,
    statement: Write[Row],
    tags: TableTags,
    changed: Collection[str] = (),
    /,
    **values: object,
) -> Row:
    """Run a write of the row whose id is in the path, under the request's preconditions.

    A missing row is 404 whatever the tags say, since the request fails without them too (RFC
    9110, 13.2.1); only `If-Match: *` asks for a row to exist, and is answered as such. `changed`
    names the fields that it sets, for the caches.

    Returns:
        The row after it; what was removed, as it was.

    Raises:
        NotFound: no such row.
        Stale: If-Match or If-None-Match does not allow its version.
    """
    conditions = None if statement.guarded is None else preconditions(request)
    guard = None if conditions is None else conditions.guard
    row_id = request.row_id()
    row, found = await request.write(
        lambda db: statement.run(db, guard, id=row_id, **values),
        lambda done: () if done[0] is None else tags.written(done[0], changed),
    )
    if row is None:
        raise _refusal(conditions, found)
    return row


async def unchanged(request: Request, by_id: BatchLoader[Row], version: str | None) -> Row:
    """The row whose id is in the path, if the preconditions allow it; else raises as `write`."""
    conditions = None if version is None else preconditions(request)
    row = await by_id.get(request.db, request.row_id())
    if row is None or conditions is None or version is None:
        if row is None:
            raise _refusal(conditions, None)
        return row
    number = getattr(row, version)
    if conditions.guard is not None and not conditions.guard.allows(number):
        raise _refusal(conditions, number)
    return row


def _refusal(conditions: Preconditions | None, found: int | None) -> Problem:
    """Why a write did not happen; `found` is the version of the row, None without one."""
    if conditions is not None and found is not None:
        return conditions.refuse(found)
    if conditions is not None and conditions.match is not None and conditions.match.any:
        return Stale("there is no such row")
    return NotFound("there is no such row")
