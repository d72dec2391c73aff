"""Items by the million: files of them in and out, for the routes and the commands alike."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack

import msgspec
from msgspec import Struct, structs

from service.db.copy import Apart, apart, copied
from service.db.database import UNKNOWN, Database
from service.db.link import AUDIBLE
from service.db.stage import TOLD, Spoiled
from service.errors import InvalidLines, LineError, OutcomeUnknown, Problem, Unavailable
from service.items.statements import exported, listing, stage
from service.items.structs import ExportQuery
from service.web.lines import Lines, Row, Table, Trailer

# Others have their turn after so many rows and after so many bytes, whatever these hold.
TURN, SLICE = 50, 16_384
# Bytes of a COPY into the stage.
STAGED = 262_144
# When the database has undone all of it for the sake of somebody else.
TRIES = 3

# Told of the rows read so far, and of those that went over of how many.
Progress = Callable[[int, int, int], None]


class Imported(Struct, frozen=True):
    """What became of a file: every row read is one of the four; `errors` are the first 100."""

    read: int
    created: int
    updated: int
    unchanged: int
    failed: int
    errors: list[LineError]


class _Failures:
    """Lines that are wrong: how many, and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[LineError] = []

    def add(self, error: LineError) -> None:
        self.count += 1
        if len(self.told) < TOLD:
            self.told.append(error)

    def with_spoiled(self, found: Sequence[tuple[Spoiled, str]]) -> tuple[int, list[LineError]]:
        """All of them, together with what the stage found."""
        counts = {field: spoiled.alike for spoiled, field in found}
        told = [*self.told, *(_told(spoiled, field) for spoiled, field in found)]
        told.sort(key=lambda error: error.line)
        return self.count + sum(counts.values()), told[:TOLD]


async def import_(
    db: Database,
    chunks: AsyncIterable[bytes],
    reader: Lines | Table,
    *,
    skip: bool,
    progress: Progress = lambda *_: None,
    name: str = AUDIBLE,
) -> Imported:
    """Bring the rows of a file in: an item whose sku stands is changed, any other is new.

    The rows wait in a stage until the file has ended, with no transaction open. Then all of them
    go over in one: whoever ends before it leaves nothing behind.

    Args:
        db: where.
        chunks: the file.
        reader: makes rows of it.
        skip: whether lines that are wrong are left out; else nothing is written.
        progress: told how far it is.
        name: of the connection, see link.connect.

    Raises:
        InvalidLines: lines are wrong, and nothing was written.
        Problem: of the file as a whole, or of the database; nothing was written, unless the
            outcome is unknown.
    """
    failures = _Failures()
    rows: list[tuple[object, ...]] = []
    size = 0
    async with AsyncExitStack() as opened:
        one: Apart | None = None  # from the first rows on: who sends none takes no connection
        async for part in _slices(chunks):
            await _take(reader.feed(part), rows, failures)
            size += len(part)
            if not skip and failures.count:
                if failures.count >= TOLD:
                    break
                rows.clear()
            elif size >= STAGED:
                one = one or await _opened(opened, db, name)
                await stage.add(one, rows)
                rows.clear()
                size = 0
                progress(reader.read, 0, 0)
        else:
            await _take(reader.end(), rows, failures)
        if failures.count and not skip:
            raise _nothing(failures.count, failures.told)
        one = one or await _opened(opened, db, name)
        await stage.add(one, rows)
        progress(reader.read, 0, reader.read - failures.count)
        return await _over(one, reader, failures, skip=skip, progress=progress)


def export(db: Database, query: ExportQuery, *, name: str = AUDIBLE) -> AsyncGenerator[bytes]:
    """The items that a query asks for as a file, in the order of their ids, in one snapshot."""
    chosen, values = listing.choose(query)
    statement = exported.statement(query.format, chosen)
    rows = copied(db, statement, values, name, query.format)
    return _with_trailer(rows) if query.trailer else rows


async def _opened(on: AsyncExitStack, db: Database, name: str) -> Apart:
    one = await on.enter_async_context(apart(db, name))
    await stage.open(one)
    return one


async def _slices(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    async for chunk in chunks:
        for start in range(0, len(chunk), SLICE):
            await asyncio.sleep(0)
            yield chunk[start : start + SLICE]


async def _take(
    found: Iterator[Row | LineError], rows: list[tuple[object, ...]], failures: _Failures
) -> None:
    """What a chunk holds, to the rows and to the failures."""
    for place, one in enumerate(found):
        if place % TURN == 0:
            await asyncio.sleep(0)
        if isinstance(one, LineError):
            failures.add(one)
        else:
            rows.append((one[0], *structs.astuple(one[1])))


async def _over(
    one: Apart, reader: Lines | Table, failures: _Failures, *, skip: bool, progress: Progress
) -> Imported:
    """The transaction; once more when it was in somebody's way."""
    for left in reversed(range(TRIES)):
        try:
            return await _try_over(one, reader, failures, skip=skip, progress=progress)
        except Unavailable:
            if not left or one.connection.is_closed():
                raise
            await one.execute("ROLLBACK")
    raise AssertionError("unreachable")


async def _try_over(
    one: Apart, reader: Lines | Table, failures: _Failures, *, skip: bool, progress: Progress
) -> Imported:
    await one.execute("BEGIN")
    failed, told = failures.with_spoiled(await stage.settle(one))
    if failed and not skip:
        raise _nothing(failed, told)
    given = created = written = 0
    async for done in stage.merge(one):
        given += done.given
        created += done.created
        written += done.written
        progress(reader.read, given, reader.read - failed)
    if written:
        try:
            await one.execute("COMMIT")
        except Problem as problem:
            if one.connection.is_closed():
                raise OutcomeUnknown(UNKNOWN) from problem
            raise
    return Imported(
        read=reader.read,
        created=created,
        updated=written - created,
        unchanged=given - written,
        failed=failed,
        errors=told,
    )


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


def _nothing(failed: int, told: Sequence[LineError]) -> InvalidLines:
    lines = "1 line is" if failed == 1 else f"{failed} lines are"
    more = "at least " if failed >= TOLD else ""
    return InvalidLines(f"{more}{lines} wrong; nothing was written", told)


def _told(spoiled: Spoiled, field: str) -> LineError:
    if spoiled.first is not None:
        return LineError(spoiled.line, f"{field}: the same as in line {spoiled.first}")
    return LineError(spoiled.line, f"{field}: {spoiled.value} names no existing row")
