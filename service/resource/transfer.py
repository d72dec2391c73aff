"""Import and export of files, for the operations and the commands."""

import asyncio
import hashlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import AsyncExitStack
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, structs

from service.cache.generations import EVERYTHING, Tags
from service.db.copy import DedicatedConnection, Export, copied, dedicated
from service.db.database import UNKNOWN, Database
from service.db.names import AUDIBLE
from service.db.staging import StagingTable
from service.db.staging_statements import Rejected
from service.db.statement import Runner
from service.db.writable import WritableDatabase
from service.errors import InvalidLines, LineError, OutcomeUnknown, Problem, Unavailable
from service.slices import SLICE_ROWS, next_slice
from service.web.row_readers import MAX_REPORTED, Reader, Row, Trailer

# Bytes of a file that are parsed at once, into rows that are taken in slices.
PARSED = 8_192
# Bytes of one COPY into the staging table.
STAGED = 262_144
# Attempts of the transaction, if the database aborts it (deadlock or lock timeout).
TRIES = 3

# Called with the number of rows read, the number written, and the number to write.
Progress = Callable[[int, int, int], None]
# Called with a row; returns what is wrong with it. It may set the owner of the row.
Claim = Callable[[Any], str | None]


class Imported(Struct, frozen=True):
    """The result of an import; `read` is the sum of the other counts, `errors` has at most 100."""

    read: Annotated[int, Meta(examples=[7])]
    created: Annotated[int, Meta(examples=[4])]
    updated: Annotated[int, Meta(examples=[2])]
    unchanged: Annotated[int, Meta(examples=[0])]
    failed: Annotated[int, Meta(examples=[1])]
    errors: list[LineError]


def changed_tags(done: Imported) -> Tags:
    """Return the cache tags that an import invalidates."""
    return (EVERYTHING,) if done.created or done.updated else ()


# Writes more in the transaction of an import: called with its connection and its result.
Also = Callable[[Runner, Imported], Awaitable[None]]


async def import_(  # noqa: PLR0913 - an import is its arguments
    stage: StagingTable,
    db: WritableDatabase,
    chunks: AsyncIterable[bytes],
    reader: Reader,
    *,
    skip: bool,
    owner: int | None = None,
    claim: Claim = lambda _: None,
    progress: Progress = lambda *_: None,
    also: Also | None = None,
) -> Imported:
    """Import the rows of a file: rows whose key exists are updated, others are created.

    The rows are collected in a staging table until the end of the file, without an open
    transaction. Then all are written in one transaction, so an aborted import writes nothing.

    Args:
        stage: the staging table, with its target table.
        db: the database.
        chunks: the file.
        reader: parses the file.
        skip: whether wrong lines are skipped; otherwise nothing is written.
        owner: the user to whom existing rows must belong; None for any.
        claim: called with each row.
        progress: called with the number of rows.
        also: writes more in the same transaction, as the answer to an Idempotency-Key; it is given
            the result. Without it, a transaction that has changed no row is not committed.

    Raises:
        InvalidLines: lines are wrong; nothing was written.
        Problem: the file can't be read, the database failed, or `also` raised it; nothing was
            written, unless it is OutcomeUnknown.
    """
    rows: list[tuple[object, ...]] = []
    size = 0
    async with AsyncExitStack() as opened:
        # Opened with the first rows, so that a client that sends nothing takes no connection.
        one: DedicatedConnection | None = None
        async for part in _slices(chunks):
            await _take(reader, reader.feed(part), rows, claim)
            size += len(part)
            if not skip and reader.failed:
                if reader.failed >= MAX_REPORTED:
                    break
                rows.clear()
            elif size >= STAGED:
                one = one or await _opened(stage, opened, db)
                await stage.add(one, rows)
                rows.clear()
                size = 0
                progress(reader.read, 0, 0)
        else:
            await _take(reader, reader.end(), rows, claim)
        if reader.failed and not skip:
            raise _nothing(reader.failed, reader.errors)
        one = one or await _opened(stage, opened, db)
        await stage.add(one, rows)
        progress(reader.read, 0, reader.read - reader.failed)
        return await _over(stage, one, reader, owner, also, skip=skip, progress=progress)


def export(
    exported: Export,
    db: Database,
    query: Any,
    *,
    owner: int | None = None,
    name: str = AUDIBLE,
) -> AsyncGenerator[bytes]:
    """Yield the rows of a query as a file, in the order of their ids, from one snapshot.

    Args:
        exported: the statements of the resource.
        db: the database.
        query: the filters, and `format` and `trailer`.
        owner: the user to whom the rows must belong, if the listing is limited; None for all.
        name: application_name of the connection.
    """
    chosen, values = exported.listing.choose(query, owner)
    statement = exported.statement(query.format, chosen)
    rows = copied(db, statement, values, name, query.format)
    return _with_trailer(rows) if query.trailer else rows


async def _opened(
    stage: StagingTable, on: AsyncExitStack, db: WritableDatabase
) -> DedicatedConnection:
    one = await on.enter_async_context(dedicated(db))
    await stage.open(one)
    return one


async def _slices(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    async for chunk in chunks:
        for start in range(0, len(chunk), PARSED):
            await next_slice()
            yield chunk[start : start + PARSED]


async def _take(
    reader: Reader, found: Iterator[Row | None], rows: list[tuple[object, ...]], claim: Claim
) -> None:
    """Append the rows of a slice."""
    for number, one in enumerate(found, 1):
        if number % SLICE_ROWS == 0:
            await next_slice()
        if one is None:
            continue
        line, row = one
        wrong = claim(row)
        if wrong is None:
            rows.append((line, *structs.astuple(row)))
        else:
            reader.fail(line, wrong)


async def _over(
    stage: StagingTable,
    one: DedicatedConnection,
    reader: Reader,
    owner: int | None,
    also: Also | None,
    *,
    skip: bool,
    progress: Progress,
) -> Imported:
    """Run the transaction; retry it when the database aborts it."""
    for left in reversed(range(TRIES)):
        try:
            return await _try_over(stage, one, reader, owner, also, skip=skip, progress=progress)
        except Unavailable:
            if not left or one.connection.is_closed():
                raise
            await one.execute("ROLLBACK")
    raise AssertionError("unreachable")


async def _try_over(
    stage: StagingTable,
    one: DedicatedConnection,
    reader: Reader,
    owner: int | None,
    also: Also | None,
    *,
    skip: bool,
    progress: Progress,
) -> Imported:
    await one.execute("BEGIN")
    failed, told = _all_failed(reader, await stage.validate(one, owner))
    if failed and not skip:
        raise _nothing(failed, told)
    given = created = written = 0
    async for done in stage.upsert(one, owner):
        given += done.given
        created += done.created
        written += done.written
        progress(reader.read, given, reader.read - failed)
    imported = Imported(
        read=reader.read,
        created=created,
        updated=written - created,
        unchanged=given - written,
        failed=failed,
        errors=told,
    )
    if also is not None:
        await also(one, imported)
    if written or also is not None:
        await _commit(one)
    return imported


async def _commit(one: DedicatedConnection) -> None:
    """Commit; wait for its end also when the task is cancelled, to know the outcome."""
    commit = asyncio.create_task(one.execute("COMMIT"))
    try:
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            await commit
    except Problem as problem:
        if one.connection.is_closed():
            raise OutcomeUnknown(UNKNOWN) from problem
        raise


async def _with_trailer(rows: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    count, checksum = 0, hashlib.sha256()
    try:
        async for chunk in rows:
            count += chunk.count(b"\n")
            checksum.update(chunk)
            yield chunk
    finally:
        await rows.aclose()
    yield msgspec.json.encode(Trailer(count, checksum.hexdigest())) + b"\n"


def _all_failed(reader: Reader, found: Sequence[Rejected]) -> tuple[int, list[LineError]]:
    """Return the number of wrong lines and the first errors, of parsing and of the database."""
    counts = {rejected.why: rejected.alike for rejected in found}
    told = [*reader.errors, *(LineError(rejected.line, rejected.message) for rejected in found)]
    told.sort(key=lambda error: error.line)
    return reader.failed + sum(counts.values()), told[:MAX_REPORTED]


def _nothing(failed: int, told: Sequence[LineError]) -> InvalidLines:
    lines = "1 line is" if failed == 1 else f"{failed} lines are"
    more = "at least " if failed >= MAX_REPORTED else ""
    return InvalidLines(f"{more}{lines} wrong; nothing was written", told)
