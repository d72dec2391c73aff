"""Writers whose writes are not announced to this worker.

The triggers leave out the service's pooled connections (names.SILENT), because a NOTIFY costs
a write up to a third of its CPU. Workers announce such writes over Redis instead. A node with
another Redis, or with none, does not receive these messages. Each worker therefore looks for such
connections in PostgreSQL, and caches nothing while there are some that do not announce themselves
over its Redis. Figures: docs/decisions/unheard-writers.md.
"""

from collections.abc import Callable
from time import monotonic

import asyncpg

from service.db.condition import Condition
from service.db.names import SILENT

# The PostgreSQL processes that the triggers leave out; every role may see them.
SILENT_WRITERS = """
SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
WHERE application_name = $1 AND datname = current_database()
"""
# Before the name of the channel of invalidations: the channel where workers announce which
# PostgreSQL processes write for them.
PRESENCE = "presence:"
# How long an announcement counts. It is repeated twice a second, but a busy machine may be late.
# A worker that loses Redis announces its writes by NOTIFY.
PRESENCE_SECONDS = 5.0


class SilentWriters:
    """The silent writers of a database, and which of them announce themselves to this worker.

    Args:
        own: gives the processes that write for this worker; None to look for no writers.
    """

    def __init__(self, own: Callable[[], set[int]] | None) -> None:
        self.own = own
        self.found = False  # some that are not announced
        self._lasting = Condition(
            "nothing is cached: another process writes to this database and does not announce it;"
            " give every node the same REDIS_URL",
            "responses are cached: every process that writes to this database announces it",
        )
        self._announced: dict[str, tuple[float, set[int]]] = {}
        self._unknown: set[int] = set()

    def presence(self) -> str:
        """What this worker announces over Redis."""
        return ",".join(map(str, self.own() if self.own is not None else ()))

    def on_presence(self, sender: str, presence: str) -> bool:
        """Another worker announces its processes; its writes come over this Redis too.

        Returns whether the worker is new, and should be sent our announcement.
        """
        new = sender not in self._announced
        pids = {int(pid) for pid in presence.split(",") if pid.isdigit()}
        self._announced[sender] = (monotonic(), pids)
        return new

    async def look(self, connection: asyncpg.Connection, *, at_once: bool) -> bool:
        """Look for silent writers, and return whether all are announced.

        One that has just connected may not be announced yet. It counts only when it is still
        unknown at the next look, unless `at_once` is set.
        """
        if self.own is None:
            await connection.fetchval("SELECT 1")
            return True
        writers = set(await connection.fetchval(SILENT_WRITERS, SILENT))
        before, self._unknown = self._unknown, writers - self._known()
        found = bool(self._unknown if at_once or self.found else self._unknown & before)
        if not found:
            self._lasting.end()
        elif self.found:  # twice: it was not only a worker that starts
            self._lasting.begin()
        self.found = found
        return not found

    def _known(self) -> set[int]:
        assert self.own is not None  # noqa: S101 - `look` has checked it
        now = monotonic()
        self._announced = {
            sender: (since, pids)
            for sender, (since, pids) in self._announced.items()
            if now - since < PRESENCE_SECONDS
        }
        return self.own().union(*(pids for _, pids in self._announced.values()))
