"""Changes after a position of the past, for those who resume."""

import asyncio
from time import monotonic

from service.changes import log
from service.changes.change import SPAN, Change, ChangeForm
from service.changes.log import Entry
from service.changes.ring import RING_BYTES, RING_ENTRIES, Matches, Recent, Ring, scan
from service.changes.statements import READ
from service.db.database import Database
from service.errors import Gone

# Entries of one read; and bytes of one page, which has at most 1,000 changes.
READ_ENTRIES, PAGE_BYTES = 500, 262_144
# Reads for those who resume from further back than the ring; the pool has few connections.
READS = 2
# The ring begins so many entries earlier than asked: clients that resume come together.
MARGIN = 2000
# Seconds for which the two ends of the log are known: thousands of clients ask at the same time.
KNOWN_SECONDS = 1.0


class Backlog:
    """Reads what is before the ring from the database.

    Args:
        db: the database.
    """

    def __init__(self, db: Database) -> None:
        self.db = db
        self._free = asyncio.Semaphore(READS)
        self._checking = asyncio.Lock()
        self._known_until = 0.0
        self._horizon = self._newest = 0
        # Questions for the newest position, and the number of the last one that was answered.
        self._asking = asyncio.Lock()
        self._asked = self._answered = 0

    async def check(self, after: int) -> None:
        """Check that the log still has all changes after a position.

        Raises:
            Gone: it has not, or the position is of another database.
            Problem: 503 or 504, the database is not available.
        """
        async with self._checking:
            known = monotonic() < self._known_until
            if not known or after > self._newest:
                self._horizon = await log.horizon(self.db)
                await self.newest()
                self._known_until = monotonic() + KNOWN_SECONDS
        if after < self._horizon:
            raise _too_old()
        if after > self._newest:
            raise Gone(
                "the position is newer than all changes: the database was restored, or is another"
                " one; read the list again, and go on without a position"
            )

    async def page(
        self, ring: Ring | None, form: ChangeForm, matches: Matches | None, after: int, limit: int
    ) -> tuple[list[Change], int]:
        """The next changes that match, and up to where it was read; see Feed.read."""
        if ring is None or after < ring.start:
            async with self._free:
                if ring is not None and after < ring.start:
                    await self._extend(ring, after)
                if ring is None or after < ring.start:
                    upto = await self.newest() if ring is None else ring.end
                    return await self._page_of_log(upto, form, matches, after, limit)
        entries = ring.after(after, READ_ENTRIES)
        found, position = scan(entries, form, matches, after, limit)
        return found, max(position, ring.end if not entries else 0)

    async def look(
        self, form: ChangeForm, matches: Matches, after: int, limit: int
    ) -> tuple[list[Change], int]:
        """As `page`, from the database."""
        async with self._free:
            return await self._page_of_log(await self.newest(), form, matches, after, limit)

    async def _page_of_log(
        self, upto: int, form: ChangeForm, matches: Matches | None, after: int, limit: int
    ) -> tuple[list[Change], int]:
        """The same from the database; every change up to `upto` is committed."""
        entries = await self._read(after, upto, PAGE_BYTES)
        if after < await log.horizon(self.db):  # asked last: it may have been trimmed
            raise _too_old()
        found, position = scan(map(Recent, entries), form, matches, after, limit)
        return found, position if entries else max(after, upto)

    async def _extend(self, ring: Ring, after: int) -> None:
        """Let the ring begin earlier, for all who resume from about there."""
        upto = ring.start
        if upto - after > RING_ENTRIES * SPAN or after <= ring.out_of_reach:
            return
        horizon = await log.horizon(self.db)
        for margin in (MARGIN, 1):
            start = max(horizon, (after | (SPAN - 1)) - margin * SPAN)
            if start > after:
                return
            found = await self._between(start, upto, RING_BYTES - ring.size)
            if found is not None:
                break
        else:
            # Who reads on from there tries again when half of it is left.
            ring.out_of_reach = (after + upto) // 2
            return
        if await log.horizon(self.db) > start:  # entries were trimmed at the same time
            return
        if ring.start == upto:  # nothing was dropped since
            ring.prepend(found, start)

    async def _between(self, start: int, upto: int, room: int) -> list[Recent] | None:
        """The entries between two positions; None if they have more bytes than there is room."""
        found: list[Recent] = []
        while start < upto:
            recent = list(map(Recent, await self._read(start, upto, room)))
            if not recent:
                break
            found += recent
            start = recent[-1].end
            room -= sum(one.size for one in recent)
            if room < 0 or len(found) > RING_ENTRIES:
                return None
        return found

    async def newest(self) -> int:
        """The last position of the newest entry; all who come at the same time ask once."""
        asked = self._asked
        async with self._asking:
            if self._answered <= asked:  # the last question was asked before this call
                self._asked = number = self._asked + 1
                self._newest = (await log.newest(self.db)) | (SPAN - 1)
                self._answered = number
            return self._newest

    async def _read(self, after: int, upto: int, size: int) -> list[Entry]:
        """The next entries after a position; all up to `upto` are settled, so none is missing."""
        values = {"after": after, "until": upto // SPAN, "limit": READ_ENTRIES, "bytes": size}
        return [Entry(*one) for one in await READ.records(self.db, **values)]


def _too_old() -> Gone:
    return Gone(
        "the changes after this position are not kept any more: read the list again, and go on from"
        " its position, or without one"
    )
