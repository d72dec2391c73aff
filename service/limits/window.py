"""An exact moving window: when the last requests were, counted in slices of time.

No window ever admits more than its limit: a slice counts until its last request is out of the
window. So up to EXACT requests are counted one by one, and above that a request counts up to a
fiftieth of the window too long, never too short.
"""

from array import array
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Generic, TypeVar

from service.limits.policy import Policy, Verdict, prefix

# Up to this limit every request has its own time; above it, slices are a fiftieth of the window.
EXACT, SLICES = 100, 50
# The most users and addresses of a policy in this process. Beyond, the oldest is forgotten.
MAX_IDENTITIES = 100_000
# How many of the oldest are checked when a new one comes; more than one, so they get fewer.
STEPS = 2

# Nanoseconds as whole numbers: a sum of floats may be off by one at the end of a window.
Clock = Callable[[], int]
SECOND = 1_000_000_000


def slice_length(policy: Policy) -> int:
    """The length of a slice in nanoseconds; 0 if each request has its own time."""
    return policy.window * SECOND // SLICES if policy.limit > EXACT else 0


def seconds(wait: int) -> int:
    """Nanoseconds as whole seconds, rounded up, at least 1."""
    return -(-wait // SECOND) if wait > SECOND else 1


class Window:
    """The requests of one user or address.

    Times are nanoseconds of a clock that never goes back.
    """

    __slots__ = ("count", "first", "identity", "last", "older", "used")

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.used = 0  # requests in the window, at the last `expire`
        # The newest slice: the times of its first and last request, and how many it has.
        self.first = self.last = 0
        self.count = 0
        # The other slices, oldest first: the time of the last request, then how many it has.
        self.older: array[int] | None = None

    def expire(self, now: int, window: int) -> None:
        """Forget the slices that are out of the window."""
        older = self.older
        if older:
            while older and older[0] + window <= now:
                self.used -= older[1]
                del older[:2]
            if older:
                return
            self.older = None
        if self.count and self.last + window <= now:
            self.used -= self.count
            self.count = 0

    def add(self, now: int, width: int) -> None:
        """Count a request; `width` is the length of a slice."""
        if self.count:
            if now - self.first <= width:
                self.last = now
                self.count += 1
                self.used += 1
                return
            if self.older is None:
                self.older = array("q")
            self.older.append(self.last)
            self.older.append(self.count)
        self.first = self.last = now
        self.count = 1
        self.used += 1

    def frees(self, limit: int) -> int:
        """When the next request becomes available: a time, less the window.

        That is when the oldest slice ends, or a later one if more are used than `limit`.
        """
        excess = self.used - limit
        older = self.older
        if older:
            for place in range(0, len(older), 2):
                excess -= older[place + 1]
                if excess < 0:
                    return older[place]
        return self.last


Kind = TypeVar("Kind", bound=Window)


class Book(Generic[Kind]):
    """The windows of a policy, one for each user or address, at most MAX_IDENTITIES.

    Args:
        policy: the limit and the window.
        kind: makes a new window.
        share: of the limit that this process may use without asking others.
        clock: nanoseconds.
    """

    def __init__(
        self,
        policy: Policy,
        kind: type[Kind],
        share: int | None = None,
        clock: Clock = monotonic_ns,
    ) -> None:
        self.policy = policy
        self.kind = kind
        self.share = policy.limit if share is None else share
        self.clock = clock
        self.length = policy.window * SECOND
        self.width = slice_length(policy)
        self.prefix = prefix(policy)
        self.windows: dict[str, Kind] = {}
        # Each identity once, the next to check first. (The first key of a dictionary takes long to
        # find after many deletions.)
        self._queue: deque[str] = deque()

    def find(self, identity: str) -> Kind:
        """The window of a user or an address; a new one if it has none."""
        found = self.windows.get(identity)
        if found is None:
            found = self.windows[identity] = self.kind(identity)
            self._sweep()
            self._queue.append(identity)
        return found

    def decide(self, window: Kind, now: int) -> Verdict:
        """Count a request in a window, if it is less than the share."""
        window.expire(now, self.length)
        allowed = window.used < self.share
        if allowed:
            window.add(now, self.width)
        return self.verdict(window, now, allowed=allowed)

    def verdict(self, window: Kind, now: int, *, allowed: bool) -> Verdict:
        """The verdict from the state of a window."""
        wait = self.length
        if window.used:
            wait += window.frees(self.share) - now
        left = self.share - window.used
        return Verdict(allowed, max(0, left), seconds(wait), self.policy, self.prefix)

    def idle(self, window: Kind, now: int) -> bool:
        """Whether a window can be forgotten."""
        window.expire(now, self.length)
        return not window.used

    def _sweep(self) -> None:
        """Check the oldest windows, STEPS of them: forget those that are idle."""
        now = self.clock()
        for _ in range(min(STEPS, len(self._queue))):
            identity = self._queue.popleft()
            if self.idle(self.windows[identity], now):
                del self.windows[identity]
            else:
                self._queue.append(identity)
        if len(self._queue) >= MAX_IDENTITIES:
            del self.windows[self._queue.popleft()]


class LocalBook(Book[Window]):
    """A policy that this process decides alone."""

    def __init__(
        self, policy: Policy, share: int | None = None, clock: Clock = monotonic_ns
    ) -> None:
        super().__init__(policy, Window, share, clock)

    def take(self, identity: str) -> Verdict:
        """Count a request if this process alone may allow it."""
        window = self.windows.get(identity)
        now = self.clock()
        if (
            window is not None
            and window.count
            and now - window.first <= self.width
            and window.used < self.share
        ):  # one more in the newest slice
            older = window.older
            oldest = older[0] if older else now
            if oldest + self.length > now:
                # The result of `decide` without its calls, which take 1.5 us.
                window.last = now
                window.count += 1
                window.used += 1
                wait = -((now - oldest - self.length) // SECOND)
                return Verdict(True, self.share - window.used, wait, self.policy, self.prefix)
        return self.decide(window or self.find(identity), now)

    def look(self, identity: str) -> Verdict:
        """Return what `take` would, and count nothing."""
        window = self.windows.get(identity) or self.kind(identity)
        now = self.clock()
        window.expire(now, self.length)
        return self.verdict(window, now, allowed=window.used < self.share)
