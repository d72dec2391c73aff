"""Who writes to the database without being heard.

The service's own connections do not fire the triggers that tell of writes (link.SILENT): a NOTIFY
costs a write up to a third of its CPU. What they write is told over Redis, so it is not heard by a
node with another Redis, or with none. Such connections are seen in PostgreSQL instead; while there
are any, nothing may be kept. Figures: docs/decisions/unheard-writers.md.
"""

from collections.abc import Callable
from time import monotonic

import asyncpg

from service.db.condition import Condition
from service.db.names import SILENT

# PostgreSQL's processes whose writes the triggers do not tell; every role may see them.
SILENT_WRITERS = """
SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
WHERE application_name = $1 AND datname = current_database()
"""
# Before the name of the channel of what has moved: where workers tell who writes for them.
PRESENCE = "presence:"
# What another worker has told of itself counts for so long; it tells it twice a second, and a busy
# machine is late with it. One that loses this Redis tells its writes by NOTIFY.
TOLD_SECONDS = 5.0


class Writers:
    """The silent writers of one database, and which of them this worker hears.

    Args:
        own: gives the processes that write for this worker; None to look for nobody.
    """

    def __init__(self, own: Callable[[], set[int]] | None) -> None:
        self.own = own
        self.unheard = False
        self._lasting = Condition(
            "nothing is cached: another process writes to this database and is not heard;"
            " give every node the same REDIS_URL",
            "answers are cached: every process that writes to this database is heard",
        )
        self._told: dict[str, tuple[float, set[int]]] = {}
        self._unknown: set[int] = set()

    def presence(self) -> str:
        """What this worker tells the others over Redis."""
        return ",".join(map(str, self.own() if self.own is not None else ()))

    def told(self, sender: str, presence: str) -> bool:
        """What another worker tells over Redis: so what it writes is heard there too.

        Returns whether it is new, and should be told of us.
        """
        new = sender not in self._told
        pids = {int(word) for word in presence.split(",") if word.isdigit()}
        self._told[sender] = (monotonic(), pids)
        return new

    async def look(self, connection: asyncpg.Connection, *, at_once: bool) -> bool:
        """Whether all are heard now.

        One who has just connected may not have been told of yet: that counts only when it is so
        again at the next look, unless `at_once`.
        """
        if self.own is None:
            await connection.fetchval("SELECT 1")
            return True
        writers = set(await connection.fetchval(SILENT_WRITERS, SILENT))
        before, self._unknown = self._unknown, writers - self._known()
        unheard = bool(self._unknown if at_once or self.unheard else self._unknown & before)
        if not unheard:
            self._lasting.end()
        elif self.unheard:  # and not only because somebody is just starting
            self._lasting.begin()
        self.unheard = unheard
        return not unheard

    def _known(self) -> set[int]:
        assert self.own is not None  # noqa: S101 - `look` has seen to it
        now = monotonic()
        self._told = {
            sender: (spoke, pids)
            for sender, (spoke, pids) in self._told.items()
            if now - spoke < TOLD_SECONDS
        }
        return self.own().union(*(pids for _, pids in self._told.values()))
