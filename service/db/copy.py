"""COPY, and other work that takes longer than a statement may: on connections beside the pool."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from time import perf_counter
from typing import Any, Literal
from urllib.parse import parse_qsl

import asyncpg
from msgspec import Struct
from sqlalchemy import Boolean, ColumnElement, DateTime, Text, cast, func, literal_column, select

from service.db.database import Database
from service.db.filters import LIMITED, Chosen, worded
from service.db.keyset import Listing
from service.db.list_names import chosen
from service.db.names import AUDIBLE
from service.db.ownership import OWN
from service.db.pooled_connection import LOST, connect
from service.db.shape import unused
from service.db.statement import Statement, UnannouncedWriteError, columns
from service.db.writable import WritableDatabase
from service.errors import Problem, Unavailable
from service.timing import Timing, timing

# Connections beside the pool, per worker; a request for one more gets 503 with Retry-After.
DEDICATED = 2
AGAIN_SECONDS = 10
# Waiting for a lock. Longer than in the pool, since a whole file would be lost.
LOCK_SECONDS = 60
# A server that does not answer for so long is given up.
SILENCE_SECONDS = 120
# For the server to cancel a statement whose result is not needed any more.
STOP_SECONDS = 1
# Bytes that are passed on at once.
CHUNK = 65_536

Format = Literal["ndjson", "csv"]
# JSON never contains these characters, so lines are written as they are, without quotes.
OPTIONS: dict[Format, dict[str, Any]] = {
    "ndjson": {"format": "csv", "delimiter": "\x02", "quote": "\x01"},
    "csv": {"format": "csv", "header": True},
}


# Times in UTC, as in JSON: with six decimals, even if all are zero.
RFC_3339 = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


class DedicatedConnection:
    """A connection beside the pool; statements run on it as on a Database, without a timeout.

    When it is closed, a transaction that was not committed is rolled back.
    `writing` says whether it runs statements that write, see WritableDatabase.
    """

    def __init__(self, db: Database, connection: asyncpg.Connection, *, writing: bool) -> None:
        self.db = db
        self.connection = connection
        self.writing = writing

    async def fetch(self, statement: Statement[Any], args: Sequence[object]) -> list[Any]:
        """Run a statement, and return its records.

        Raises:
            Problem: see errors.from_database.
            UnannouncedWriteError: the statement writes, and the connection is not for writes.
        """
        if statement.writes and not self.writing:
            raise UnannouncedWriteError(statement)
        spent, started = timing.get() or Timing(), perf_counter()
        spent.statements += 1
        try:
            with self.watched(statement):
                records: list[Any] = await self.connection.fetch(statement.sql, *args)
        except Problem as problem:
            self.db.observer.failed(statement, spent, perf_counter() - started, problem, args)
            raise
        self.db.observer.ran(statement, spent, 0.0, perf_counter() - started, len(records), args)
        return records

    async def execute(self, sql: str) -> None:
        """Run SQL that returns no records; raises as `fetch`."""
        with self.watched():
            await self.connection.execute(sql)

    @contextmanager
    def watched(self, statement: Statement[Any] | None = None) -> Iterator[None]:
        """Around each wait for the server: bounds it, and turns errors into Problems."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(SILENCE_SECONDS, self.connection.terminate)
        started, spent = perf_counter(), timing.get()
        try:
            yield
        except (
            *LOST,
            asyncpg.InternalClientError,
        ) as error:  # the latter if it was closed
            self.connection.terminate()
            raise Unavailable("the database is away") from error
        except asyncpg.PostgresError as error:
            raise self.db.problem(error, statement) from error
        finally:
            timer.cancel()
            if statement is None and spent is not None:  # else `fetch` adds it
                spent.sql += perf_counter() - started


class Export:
    """The rows of a listing as COPY writes them into files, in the order of their ids.

    Times are RFC 3339 in UTC, as in JSON.

    Args:
        name: of its statements.
        listing: has the filters.
        row: the Struct that names the columns.
    """

    def __init__(self, name: str, listing: Listing[Any], row: type[Struct]) -> None:
        self.name = name
        self.listing = listing
        self.row = row
        self.statement = cache(self._statement)

    def named(self, name: str) -> Statement[str]:
        """The statement of a name: `<name>?format=csv&is_active=true`.

        Raises:
            KeyError: no such statement.
        """
        start, _, query = name.partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        format_ = given.pop("format", "")
        if format_ not in OPTIONS:
            raise KeyError(name)
        return self.statement(format_, chosen(self.listing, given, own=start.endswith(OWN)))

    def samples(self) -> Iterator[Statement[str]]:
        """One for each kind of file."""
        yield from (self.statement(format_, ()) for format_ in OPTIONS)
        if self.listing.own is not None:
            yield from (self.statement(format_, (LIMITED,)) for format_ in OPTIONS)

    def _statement(self, format_: Format, chosen: Chosen) -> Statement[str]:
        """Arguments: the filters' own."""
        table = self.listing.table
        shown = [_shown(column, format_) for column in columns(self.row, table)]
        rows: Any = select(*shown).where(*self.listing.clauses(chosen)).order_by(table.c.id)
        if format_ == "ndjson":
            # A column of the same name would be taken in its place.
            row = rows.subquery(unused("line", table.c.keys()))
            rows = select(func.row_to_json(row.table_valued()).label("line"))
        parts = [f"format={format_}", *worded(chosen)]
        name = self.name + (OWN if LIMITED in chosen else "")
        return Statement(f"{name}?{'&'.join(parts)}", str, rows, prepare=False)


def _shown(column: ColumnElement[Any], format_: Format) -> ColumnElement[Any]:
    if isinstance(column.type, DateTime):
        utc = func.timezone(literal_column("'UTC'"), column)
        return func.to_char(utc, literal_column(RFC_3339)).label(column.key)
    if isinstance(column.type, Boolean) and format_ == "csv":
        return cast(column, Text).label(column.key)
    return column


@asynccontextmanager
async def dedicated(
    db: Database | WritableDatabase, name: str = AUDIBLE
) -> AsyncIterator[DedicatedConnection]:
    """A connection beside the pool; see pooled_connection.connect for its name.

    For a WritableDatabase the connection runs statements that write, and has that one's name.

    Raises:
        Problem: 503, there are too many already, or the database is away.
    """
    writing = isinstance(db, WritableDatabase)
    if isinstance(db, WritableDatabase):
        db, name = db.database, db.name
    if db.dedicated >= DEDICATED:
        busy = f"{DEDICATED} files are being transferred: try again in {AGAIN_SECONDS} s"
        raise Unavailable(busy, retry_after=AGAIN_SECONDS)
    db.dedicated += 1
    try:
        started, spent = perf_counter(), timing.get()
        try:
            connection = await connect(
                db.pool.url, statement_timeout=0, lock_timeout=LOCK_SECONDS, name=name
            )
        except Exception as error:
            raise db.refused(error) from error
        finally:
            if spent is not None:
                spent.pool += perf_counter() - started
        db.beside.add(connection)
        try:
            yield DedicatedConnection(db, connection, writing=writing)
        except asyncio.CancelledError:
            # asyncpg cancels the running statement, which `terminate` would prevent.
            with suppress(Exception):
                await connection.close(timeout=STOP_SECONDS)
            raise
        finally:
            db.beside.discard(connection)
            connection.terminate()
    finally:
        db.dedicated -= 1


async def copied(
    db: Database,
    statement: Statement[Any],
    values: Mapping[str, object],
    name: str,
    format_: Format,
) -> AsyncGenerator[bytes]:
    """The rows of a statement as COPY writes them, in one snapshot, as fast as they are read.

    Nothing is read ahead: while a chunk waits, asyncpg stops reading and PostgreSQL stops sending.
    Close the generator (`aclose`) to end it early.

    Args:
        db: where.
        statement: a SELECT.
        values: its arguments.
        name: of the connection, see pooled_connection.connect.
        format_: of the file.
    """
    args = [values[bind] for bind in statement.names]
    async with dedicated(db, name) as one:
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        taken = asyncio.Event()
        parts: list[bytes] = []

        async def take(data: bytes) -> None:
            parts.append(data)
            if sum(map(len, parts)) >= CHUNK:
                chunks.put_nowait(b"".join(parts))
                parts.clear()
                await taken.wait()
                taken.clear()

        async def run() -> str:
            try:
                query = one.connection.copy_from_query
                tag: str = await query(statement.sql, *args, output=take, **OPTIONS[format_])
                chunks.put_nowait(b"".join(parts))
                return tag
            finally:
                chunks.put_nowait(None)

        if (spent := timing.get()) is not None:
            spent.statements += 1
        waited = 0.0
        copying = asyncio.create_task(run())
        try:
            while True:
                started = perf_counter()
                with one.watched():
                    chunk = await chunks.get()
                    if chunk is None:
                        tag = await copying
                waited += perf_counter() - started
                if chunk is None:
                    db.observer.copied(statement.name, waited, int(tag.rpartition(" ")[2]))
                    return
                taken.set()
                if chunk:
                    yield chunk
        finally:
            if copying.cancel():
                await asyncio.wait({copying}, timeout=STOP_SECONDS)
                with suppress(Exception):  # the server cancels the statement, see `dedicated`
                    await one.connection.close(timeout=STOP_SECONDS)
            one.connection.terminate()
            await asyncio.gather(copying, return_exceptions=True)
