"""What a worker counts while it serves. Its methods are called for each request or statement."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from service.metrics.families import (
    BATCH_SIZE,
    BATCH_WAIT,
    DB_DURATION,
    DB_QUERIES,
    DB_ROWS,
    HTTP_DURATION,
    HTTP_REFUSED,
    JOBS,
    JOBS_DURATION,
    LIMIT_DECISIONS,
    POOL_WAIT,
    SECONDS,
    SIZES,
    Family,
)
from service.metrics.slots import Store

# From the first value of a histogram to its sum and to its maximum; before them are the buckets.
_SUM = len(SECONDS) + 1
_MAX = _SUM + 1
_SIZES_SUM = len(SIZES) + 1
_FIRST = SECONDS[0]
# Methods of the label `method`; any other is `other`, since a client may send any word.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The counts of this process.

    A position is looked up in a dictionary once per call, and values are added in place; see
    docs/decisions/metrics.md for what that takes.

    Args:
        store: where the values are.

    Attributes:
        in_flight: requests that are being answered; the sampler shows it.
        publish: brings the values up to date that are sampled, such as the size of the pool.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.values = store.values
        self.in_flight = 0
        self.publish: Callable[[], None] = _nothing
        self._hits: dict[str, int] = {}
        self._requests: dict[tuple[str, str, int], int] = {}
        self._statements: dict[str, tuple[int, int, int]] = {}
        self._batches: dict[str, tuple[int, int]] = {}
        self._decisions: dict[tuple[str, bool, bool], int] = {}
        self._pool_wait = store.place(POOL_WAIT)

    def hit(self, route: str, seconds: float) -> None:
        """Count a GET that the cache has answered with 200: like `request`, in half its time."""
        at = self._hits.get(route)
        if at is None:
            at = self._hits[route] = self.store.place(HTTP_DURATION, ("GET", route, "200"))
        values = self.values
        values[at if seconds <= _FIRST else at + bisect_left(SECONDS, seconds)] += 1.0
        values[at + _SUM] += seconds
        if seconds > values[at + _MAX]:  # noqa: PLR1730 - max() and a second write take 0.1 us more
            values[at + _MAX] = seconds

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a response.

        Args:
            method: of the request.
            route: the template of its path.
            status: of the response.
            seconds: from its head to the end of the response.
        """
        at = self._requests.get((method, route, status))
        if at is None:
            at = self._new_request(method, route, status)
        self._observe(at, seconds)

    def statement(self, name: str, seconds: float, rows: int) -> None:
        """Count a statement that succeeded, with its time on the connection and its rows."""
        found = self._statements.get(name)
        if found is None:
            found = self._new_statement(name)
        at, succeeded, returned = found
        self._observe(at, seconds)
        self.values[succeeded] += 1.0
        self.values[returned] += rows

    def failed_statement(self, name: str, seconds: float, *, timeout: bool) -> None:
        """Count a statement that failed, by a timeout or for another reason."""
        self._observe(self._new_statement(name)[0], seconds)
        self.add(DB_QUERIES, name, "timeout" if timeout else "error")

    def pool_wait(self, seconds: float) -> None:
        """Count a wait for a connection."""
        self._observe(self._pool_wait, seconds)

    def batch(self, name: str, size: int) -> None:
        """Count a batch."""
        found = self._batches.get(name)
        if found is None:
            found = self._new_batch(name)
        at, values = found[0], self.values
        values[at + bisect_left(SIZES, size)] += 1.0
        values[at + _SIZES_SUM] += size

    def batch_waits(self, name: str, seconds: Sequence[float]) -> None:
        """Count the waits of requests for their batch."""
        found = self._batches.get(name)
        if found is None:
            found = self._new_batch(name)
        at, values = found[1], self.values
        for one in seconds:
            values[at + bisect_left(SECONDS, one)] += 1.0
        values[at + _SUM] += sum(seconds)
        longest = max(seconds)
        if longest > values[at + _MAX]:  # noqa: PLR1730 - as in `hit`
            values[at + _MAX] = longest

    def refused(self, status: int) -> None:
        """Count a request that the HTTP parser has refused."""
        self.add(HTTP_REFUSED, str(status))

    def decision(self, policy: str, allowed: bool, shared: bool) -> None:
        """Count a decision of a rate limit.

        Args:
            policy: the name.
            allowed: whether the request was allowed.
            shared: whether the count in Redis has decided.
        """
        at = self._decisions.get((policy, allowed, shared))
        if at is None:
            labels = (
                policy,
                "allowed" if allowed else "refused",
                "redis" if shared else "process",
            )
            at = self.store.place(LIMIT_DECISIONS, labels)
            self._decisions[policy, allowed, shared] = at
        self.values[at] += 1.0

    def job(self, kind: str, result: str, seconds: float) -> None:
        """Count an attempt of a job that has ended: `done`, `retry` or `failed`."""
        self.add(JOBS, kind, result)
        self.observe(JOBS_DURATION, seconds, kind)

    def add(self, family: Family, *labels: str, number: float = 1.0) -> None:
        """Add to a counter; for what is counted seldom."""
        self.values[self.store.place(family, labels)] += number

    def set(self, family: Family, value: float, *labels: str) -> None:
        """Set a gauge."""
        self.values[self.store.place(family, labels)] = value

    def observe(self, family: Family, seconds: float, *labels: str) -> None:
        """Add to a histogram of seconds; for what is observed seldom."""
        self._observe(self.store.place(family, labels), seconds)

    def _observe(self, at: int, seconds: float) -> None:
        values = self.values
        values[at + bisect_left(SECONDS, seconds)] += 1.0
        values[at + _SUM] += seconds
        if seconds > values[at + _MAX]:  # noqa: PLR1730 - as in `hit`
            values[at + _MAX] = seconds

    def _new_request(self, method: str, route: str, status: int) -> int:
        known = method if method in METHODS else "other"
        at = self.store.place(HTTP_DURATION, (known, route, str(status)))
        if known == method:  # else a client could fill the dictionary
            self._requests[method, route, status] = at
        return at

    def _new_statement(self, name: str) -> tuple[int, int, int]:
        found = self._statements[name] = (
            self.store.place(DB_DURATION, (name,)),
            self.store.place(DB_QUERIES, (name, "success")),
            self.store.place(DB_ROWS, (name,)),
        )
        return found

    def _new_batch(self, name: str) -> tuple[int, int]:
        found = self._batches[name] = (
            self.store.place(BATCH_SIZE, (name,)),
            self.store.place(BATCH_WAIT, (name,)),
        )
        return found


def _nothing() -> None:
    """Do nothing: there is nothing to sample."""
