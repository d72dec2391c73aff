"""The newest entries of the log in memory: those who resume read them, not the database."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from service.changes.change import SPAN, Change, ChangeForm
from service.changes.log import Entry

# Of one worker; what is decoded takes a few times as much.
RING_ENTRIES, RING_BYTES = 10_000, 8 * 1_048_576
Matches = Callable[[Change], bool]


class Recent:
    """An entry, whose rows are decoded when a client is to get them.

    Attributes:
        end: the last position of the entry.
    """

    __slots__ = ("_changes", "_entry", "end", "position", "size", "table")

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._changes: list[Change] | None = None
        self.position = entry.position
        self.end = entry.position | (SPAN - 1)
        self.size = len(entry.rows)
        self.table = entry.name

    def changes(self, form: ChangeForm) -> list[Change]:
        """Its changes."""
        if self._changes is None:
            self._changes = form.changes(self._entry)
        return self._changes


class Ring:
    """The entries after `start`, up to `end`.

    Attributes:
        start: every change after this position is in the ring.
        end: up to here the log has been read.
        out_of_reach: it is not tried to let the ring begin at such a position.
    """

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.out_of_reach = -1
        self.size = 0
        self._entries: list[Recent] = []

    def append(self, entries: Sequence[Recent]) -> None:
        """Add entries at the end; the oldest ones are forgotten."""
        if not entries:
            return
        self._entries += entries
        self.end = entries[-1].end
        self.size += sum(one.size for one in entries)
        drop = 0
        while self.size > RING_BYTES or len(self._entries) - drop > RING_ENTRIES:
            self.size -= self._entries[drop].size
            self.start = self._entries[drop].end
            drop += 1
        if drop:
            del self._entries[:drop]

    def prepend(self, entries: Sequence[Recent], start: int) -> bool:
        """Add the entries after `start` that are before the ring; False if it has no room."""
        size = sum(one.size for one in entries)
        if self.size + size > RING_BYTES or len(self._entries) + len(entries) > RING_ENTRIES:
            return False
        self._entries[:0] = entries
        self.size += size
        self.start = start
        return True

    def after(self, position: int, limit: int) -> list[Recent]:
        """The next entries that may have changes after a position."""
        first = bisect_right(self._entries, position, key=lambda one: one.end)
        return self._entries[first : first + limit]


def scan(
    entries: Iterable[Recent], form: ChangeForm, matches: Matches | None, after: int, limit: int
) -> tuple[list[Change], int]:
    """The changes of a resource after a position, and up to where the entries were read."""
    found: list[Change] = []
    position = after
    for entry in entries:
        if entry.table == form.table:
            for change in entry.changes(form):
                if change.position > after and (matches is None or matches(change)):
                    found.append(change)
                    if len(found) == limit:
                        return found, change.position
        position = entry.end
    return found, position
