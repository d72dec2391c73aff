"""Read the log of changes, and trim it."""

import asyncio
import random
from contextlib import suppress
from datetime import timedelta

from service.cache.writer import Writer
from service.changes.statements import HORIZON, NEWEST, READ, SETTLED, TRIM, Entry
from service.db.change_log import WIDTH
from service.db.database import Database
from service.db.writable import WritableDatabase
from service.errors import Problem, TimedOut, Unavailable

__all__ = ["Entry", "horizon", "newest", "read_entries", "trim", "trim_always"]

# Of one read: with more in memory at once, a reader that was away for long could have no room.
READ_BYTES = 8_000_000
# Entries that are removed at once: 1,000 of them take some 40 ms.
TRIMMED_AT_ONCE = 1000
# Seconds between two of them, so that no other work waits long; and between two looks, per worker.
PAUSE_SECONDS, LOOK_SECONDS = 0.1, 60.0


async def read_entries(db: Database, after: int, limit: int) -> list[Entry]:
    """The next entries that have a change after a position, in order; some 8 MB of them at most.

    An empty list means that there is nothing new, or that the next changes are being committed: ask
    again after a notification, or after a second. The first entry may begin before the position.

    Args:
        db: where it runs.
        after: the position of a change; 0 for all that are kept.
        limit: the maximum number of entries.

    Raises:
        Problem: see errors.from_database.
    """
    until = await SETTLED.only(db)
    if until is None or until < after // WIDTH:
        return []
    values = {"after": after, "until": until, "limit": limit, "bytes": READ_BYTES}
    return [Entry(*record) for record in await READ.records(db, **values)]


async def newest(db: Database) -> int:
    """The last position of the newest entry: all changes that become visible later come after it.

    Raises:
        Unavailable: a transaction takes long to commit.
        Problem: see errors.from_database.
    """
    until = await SETTLED.only(db)
    if until is None:
        raise Unavailable("a transaction takes long to commit; try again")
    return await NEWEST.only(db, until)


async def horizon(db: Database) -> int:
    """The position of the last change that was removed; -1 if none was.

    After a smaller position, changes are missing. Ask after `read_entries`, since changes may be
    removed at the same time.
    """
    return await HORIZON.only(db)


async def trim(
    writer: Writer, older_than: timedelta, at_once: int = TRIMMED_AT_ONCE, *, whole: bool = False
) -> int:
    """Remove entries from the log that are older; return how many there were.

    Fewer at once if that takes longer than a statement may. Nothing while another worker does it.

    Args:
        writer: where it runs.
        older_than: the age.
        at_once: entries of a statement.
        whole: whether to look also before the horizon, where a restored log has entries.

    Raises:
        Problem: the database is not available.
    """
    removed = 0

    async def trim_some(db: WritableDatabase) -> int:
        after = 0 if whole else max(0, await HORIZON.only(db))
        return await TRIM.only(db, after, at_once, older_than)

    while True:
        try:
            some = await writer.run(trim_some, lambda _: ())
        except TimedOut:
            if at_once == 1:
                raise
            at_once = max(1, at_once // 10)
            continue
        removed += some
        if some < at_once:
            return removed
        await asyncio.sleep(PAUSE_SECONDS)


async def trim_always(writer: Writer, older_than: timedelta) -> None:
    """Trim the log now and then, without an end; a database that is away is asked later."""
    whole = True
    while True:
        await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads workers
        with suppress(Problem):
            await trim(writer, older_than, whole=whole)
            whole = False
