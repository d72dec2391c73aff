"""The in-process tier: finished answers, bounded by bytes."""

from collections import OrderedDict, deque
from collections.abc import Hashable

from service.cache.entry import CachedResponse, EncodedBody, Entry

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
        self._shrink()

    def grow(self, key: Hashable, entry: Entry, size: int) -> bool:
        """Make room for more bytes of an entry; False if it is gone, or would be too large."""
        if self.entries.get(key) is not entry or entry.size + size > self.limit * SMALL:
            return False
        entry.size += size
        self._count(entry, size)
        self._shrink()
        return True

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

    def _shrink(self) -> None:
        while self.size + GHOST * len(self.gone) > self.limit:
            self._evict()

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


class CachedBodies:
    """The compressed bodies of an answer, by encoding: beside it for as long as it stands here."""

    __slots__ = ("answer", "key", "tier")

    def __init__(self, tier: Local, key: Hashable, answer: CachedResponse) -> None:
        self.tier = tier
        self.key = key
        self.answer = answer

    def get(self, encoding: bytes, /) -> bytes | None:
        """None also where the answer has never been kept, or is no longer."""
        entry = self._entry()
        if entry is None or entry.variants is None:
            return None
        variant = entry.variants.get(encoding)
        return None if variant is None else variant.body

    def __setitem__(self, encoding: bytes, body: bytes, /) -> None:
        """Keep it, if there is room: it counts as a second answer with the same headers."""
        entry = self._entry()
        if entry is None or encoding in (entry.variants or ()):
            return
        size = self.answer.size - len(self.answer.body) + len(body)
        if self.tier.grow(self.key, entry, size):
            entry.variants = {**(entry.variants or {}), encoding: EncodedBody(body)}

    def _entry(self) -> Entry | None:
        entry = self.tier.entries.get(self.key)
        return entry if entry is not None and entry.answer is self.answer else None
