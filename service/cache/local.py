"""The in-process tier: finished answers, bounded by bytes."""

from collections import OrderedDict, deque
from collections.abc import Hashable

from service.cache.entry import Entry

# Of the bytes, for what has been asked for once; of an entry that is gone, so that it is known.
SMALL, GHOST = 0.1, 120
USES = 3


class Local:
    """Entries by key, evicted by S3-FIFO (Yang et al., SOSP 2023, "FIFO queues are all you need").

    What comes new waits in a small queue, and only what is used there reaches the main one, so
    that a scan passes through without touching what is hot. Who was evicted from the small queue
    and comes again goes to the main one at once: its name is kept for a while. A hit only counts.

    Args:
        limit: bytes, the names of what is gone included.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = self.small_size = 0
        self.entries: dict[Hashable, Entry] = {}
        self.small: deque[Hashable] = deque()
        self.main: deque[Hashable] = deque()
        self.gone: OrderedDict[int, None] = OrderedDict()

    def put(self, key: Hashable, entry: Entry) -> None:
        """Keep it in the place of what stood there; what is too large for its queue is not kept."""
        if entry.size > self.limit * SMALL:
            return
        old = self.entries.get(key)
        if old is not None:
            entry.uses, entry.main = old.uses, old.main
            self._count(old, -old.size)
        else:
            entry.main = self.gone.pop(hash(key), True) is None
            (self.main if entry.main else self.small).append(key)
        self.entries[key] = entry
        self._count(entry, entry.size)
        while self.size + GHOST * len(self.gone) > self.limit:
            self._evict()

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self.small.clear()
        self.main.clear()
        self.gone.clear()
        self.size = self.small_size = 0

    def _count(self, entry: Entry, size: int) -> None:
        self.size += size
        if not entry.main:
            self.small_size += size

    def _evict(self) -> None:
        if self.small_size > self.limit * SMALL or not self.main:
            if not self.small:
                self.gone.popitem(last=False)
                return
            key = self.small.popleft()
            entry = self.entries[key]
            self._count(entry, -entry.size)
            if entry.uses:
                entry.uses, entry.main = 0, True
                self.main.append(key)
                self._count(entry, entry.size)
                return
            self.gone[hash(key)] = None
            while len(self.gone) > len(self.entries):
                self.gone.popitem(last=False)
        else:
            key = self.main.popleft()
            entry = self.entries[key]
            if entry.uses:
                entry.uses -= 1
                self.main.append(key)
                return
            self._count(entry, -entry.size)
        del self.entries[key]
