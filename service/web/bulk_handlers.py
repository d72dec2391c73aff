"""Helpers for handlers of many rows: write them, and name the rows of a conflict.

If-Match is ignored here: an ETag belongs to one row.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from msgspec import Struct

from service.cache.generations import TableTags, Tags
from service.db.bulk import Adds
from service.db.conflicts import conflicting_rows
from service.db.ownership import Limited
from service.db.statement import Statement
from service.db.upsert import Upsert, Upserted
from service.errors import Conflict, FieldError, Problem
from service.slices import MANY_ROWS, next_slice, sliced
from service.web.codec import ID_MAX, MAX_ERRORS, invalid
from service.web.request import Request

Row = TypeVar("Row", bound=Struct)
Done = TypeVar("Done")


async def distinct(rows: Sequence[Struct], unique: Mapping[str, Callable[[Any], Any]]) -> None:
    """Check that no two rows have the same value in a unique field.

    Args:
        rows: the rows.
        unique: by field, a function whose results are equal for equal values.

    Raises:
        Invalid: two rows have the same value; the error names both.
    """
    errors = []
    for field, alike in unique.items():
        values = [value for value in map(attrgetter(field), rows) if value is not None]
        keys: set[Any] = set()
        for some in sliced(values, MANY_ROWS):
            await next_slice()
            keys.update(map(alike, some))
        if len(keys) == len(values):
            continue
        seen: dict[Any, list[str]] = {}
        for n, row in enumerate(rows):
            value = getattr(row, field)
            if value is not None:
                seen.setdefault(alike(value), []).append(f"items[{n}].{field}")
        for first, *others in seen.values():
            if others:
                errors.append(FieldError(first, f"the same as {others[0]}"))
                errors += [FieldError(other, f"the same as {first}") for other in others]
    if errors:
        raise invalid(errors)


async def add(
    request: Request,
    statement: Adds[Row],
    tags: TableTags,
    rows: Sequence[Struct],
    conflict_locators: Mapping[str, Statement[int]],
) -> list[Row]:
    """Create rows, all or none. `conflict_locators` find the rows that violate a constraint."""
    if not rows:
        return []

    def written(made: list[Any]) -> Tags:
        return tags.many([row.id for row in made])

    work = request.write(lambda db: statement.run(db, rows), written)
    return await _placed(request, work, rows, conflict_locators)


async def upsert(
    request: Request,
    statement: Upsert,
    tags: TableTags,
    rows: Sequence[Struct],
    conflict_locators: Mapping[str, Statement[int]],
) -> list[Upserted]:
    """Upsert rows, all or none; see `add`."""

    def written(done: list[Upserted]) -> Tags:
        changed = [one.id for one in done if one.status != "unchanged"]
        return tags.many(changed) if changed else ()

    owner = request.owner
    work = request.write(lambda db: statement.run(db, rows, owner), written)
    if owner is None or statement.foreign is None:
        return await _placed(request, work, rows, conflict_locators)
    locators = {**conflict_locators, statement.key: statement.foreign}
    return await _placed(request, work, rows, locators, **{statement.bind: owner})


def counted(done: Sequence[Upserted]) -> dict[str, int]:
    """Return the number of rows by status."""
    counts = Counter(one.status for one in done)
    return {status: counts[status] for status in ("created", "updated", "unchanged")}


async def by_ids(
    request: Request,
    statement: Limited,
    tags: TableTags,
    ids: Sequence[int],
    /,
    **values: object,
) -> tuple[int, list[int]]:
    """Run a statement of db.bulk.Bulk; return the number of rows found and the missing ids.

    Rows that the principal does not own are missing.
    """
    await next_slice()
    owner = request.owner
    distinct_ids = dict.fromkeys(ids)
    possible = [row_id for row_id in distinct_ids if 0 < row_id <= ID_MAX]
    if not possible:
        return 0, list(distinct_ids)
    if statement.writes:
        records = await request.write(
            lambda db: statement.records(db, owner, ids=possible, **values),
            lambda records: tags.many([record[0] for record in records]) if records else (),
        )
    else:
        records = await statement.records(request.db, owner, ids=possible, **values)
    await next_slice()
    found = {record[0] for record in records}
    return len(found), [row_id for row_id in distinct_ids if row_id not in found]


async def _placed(
    request: Request,
    work: Awaitable[Done],
    rows: Sequence[Struct],
    conflict_locators: Mapping[str, Statement[int]],
    **others: object,
) -> Done:
    try:
        return await work
    except Conflict as conflict:
        refused = conflict
    (error,) = refused.errors
    statement = conflict_locators.get(error.field)
    if statement is None:
        raise refused
    try:
        found = await conflicting_rows(request.db, statement, rows, **others)
    except Problem:
        raise refused from None
    if not found:  # the conflicting row was removed in between
        raise refused
    errors = [FieldError(f"items[{n}].{error.field}", error.message) for n in found[:MAX_ERRORS]]
    raise Conflict(f"{errors[0].field}: {error.message}", *errors)
