"""When each key was last used: written in the background, for all keys of a worker at once."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic

from service.cache.generations import TableTags, Tags
from service.cache.writer import Writer
from service.db.database import Database
from service.db.writable import WritableDatabase
from service.errors import Problem
from service.keys import statements
from service.keys.statements import UsedKey

# Seconds between two writes for one key, and for a worker to gather keys before it writes.
KEY_SECONDS, GATHER_SECONDS = 60.0, 1.0
# From so many keys on, all lists of keys are invalidated: that is one message of a few bytes.
MAX_TAGGED = 100
# Keys in a statement: 1000 take 0.1 s on a busy machine, and their rows are locked as long.
BATCH = 1000

tags = TableTags(statements.table.name, "user_id")


class LastUsed:
    """The keys that one worker has seen since its last write.

    A write that fails is not repeated: the next use of a key a minute later writes its time. So a
    read-only database is no error.
    """

    def __init__(self) -> None:
        self._noted: dict[int, float] = {}  # by key, the oldest first
        self._waiting: list[int] = []

    def note(self, db: Database, writer: Writer, key_id: int) -> None:
        """Note that a key is in use. It does not wait."""
        now = monotonic()
        if now - self._noted.get(key_id, -KEY_SECONDS) < KEY_SECONDS:
            return
        self._noted.pop(key_id, None)
        self._noted[key_id] = now
        self._waiting.append(key_id)
        if len(self._waiting) == 1:
            db.spawn(self._write_soon(writer))

    async def _write_soon(self, writer: Writer) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        ids, self._waiting = self._waiting, []
        self._forget_old()
        with suppress(Problem):  # the database logs what an operator must know
            for start in range(0, len(ids), BATCH):
                batch = ids[start : start + BATCH]
                await writer.run(partial(_write, ids=batch), invalidated)

    def _forget_old(self) -> None:
        since = monotonic() - KEY_SECONDS
        while self._noted and (key := next(iter(self._noted))) and self._noted[key] < since:
            del self._noted[key]


async def _write(db: WritableDatabase, ids: Sequence[int]) -> list[UsedKey]:
    return [UsedKey(*record) for record in await statements.use.records(db, ids=ids)]


def invalidated(keys: Sequence[UsedKey]) -> Tags:
    """Return the cache tags of responses that show these keys."""
    if len(keys) > MAX_TAGGED:
        return tags.many(())
    return tuple({tag for key in keys for tag in tags.written(key)})
