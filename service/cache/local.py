"""The in-process tier: responses, bounded by bytes."""

from collections import OrderedDict, deque
from collections.abc import Hashable

from service.cache.response import CachedResponse

# The share of the bytes for responses that were asked for once; and the bytes that an evicted key
# counts for while it is remembered. `python -m bench trials eviction` compares the alternatives.
SMALL, GHOST = 0.1, 120
# Small sizes are the same objects for all responses: a number for each takes memory.
SIZES = tuple(range(2048))


class Local:
    """Responses by key, evicted by S3-FIFO (Yang et al., SOSP 2023).

    A new response enters a small queue. If it is used there it moves to the main queue, else it is
    evicted, so a scan does not displace what is used often. The keys evicted from the small queue
    are remembered for a while; a response that comes back under one enters the main queue. A hit
    only sets a flag.

    Args:
        limit: bytes, the remembered keys included.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = self.small_size = 0
        self.hits = self.misses = self.evictions = 0  # since the start, for metrics
        self.entries: dict[Hashable, CachedResponse] = {}
        self.small: deque[Hashable] = deque()
        self.main: deque[Hashable] = deque()
        self.gone: OrderedDict[int, None] = OrderedDict()

    def put(self, key: Hashable, response: CachedResponse, key_size: int = 0) -> None:
        """Keep a response, instead of another one under the same key.

        It is not kept if it is larger than the small queue. `key_size` are the bytes of the key.
        """
        size = response.cost + len(response.body) + key_size
        if size > self.limit * SMALL:
            return
        old = self.entries.get(key)
        if old is not None:
            response.used, response.main = old.used, old.main
            self._count(old, -old.size)
        elif self.gone and self.gone.pop(hash(key), True) is None:
            response.main = True
            self.main.append(key)
        else:
            self.small.append(key)
        response.key, response.size = key, SIZES[size] if size < len(SIZES) else size
        self.entries[key] = response
        self.size += size
        if not response.main:
            self.small_size += size
        if self.size + GHOST * len(self.gone) > self.limit:
            self._shrink()

    def keep_encoded(self, response: CachedResponse, encoding: bytes, body: bytes) -> None:
        """Keep the body in a content coding beside its response, if this is still kept.

        It counts as a second response with the same headers, and is not kept if both together are
        larger than the small queue.
        """
        if self.entries.get(response.key) is not response or encoding in (response.encoded or ()):
            return
        size = response.cost + len(body)
        if response.size + size > self.limit * SMALL:
            return
        response.encoded = {**(response.encoded or {}), encoding: body}
        response.size += size
        self._count(response, size)
        self._shrink()

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self.small.clear()
        self.main.clear()
        self.gone.clear()
        self.size = self.small_size = 0

    def _count(self, response: CachedResponse, size: int) -> None:
        self.size += size
        if not response.main:
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
            response = self.entries[key]
            self._count(response, -response.size)
            if response.used:
                response.used, response.main = False, True
                self.main.append(key)
                self._count(response, response.size)
                return
            self.gone[hash(key)] = None
            while len(self.gone) > len(self.entries):
                self.gone.popitem(last=False)
        else:
            key = self.main.popleft()
            response = self.entries[key]
            if response.used:
                response.used = False
                self.main.append(key)
                return
            self._count(response, -response.size)
        del self.entries[key]
        self.evictions += 1
