"""What a worker counts while it serves. Its methods are called for each request or statement."""

from bisect import bisect_left

from service.metrics.families import (
    BATCH_SIZE,
    BATCH_WAIT,
    DB_DURATION,
    DB_QUERIES,
    DB_ROWS,
    HTTP_DURATION,
    POOL_WAIT,
    SECONDS,
    SIZES,
    Family,
)
from service.metrics.slots import Store

_INFINITE = len(SECONDS)
_SIZES = len(SIZES)
# Methods of the label `method`; any other is `other`, since a client may send any word.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The counts of this process.

    A position is looked up in a dictionary once per call, and values are added in place. That takes
    about 0.4 us per request, a fifth of prometheus_client's way for several processes.

    Args:
        store: where the values are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.values = store.values
        self._requests: dict[tuple[str, str, int], int] = {}
        self._statements: dict[str, tuple[int, int, int]] = {}
        self._batches: dict[str, tuple[int, int]] = {}
        self._pool_wait = store.place(POOL_WAIT)

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
        values[at + _SIZES + 1] += size

    def batch_wait(self, name: str, seconds: float) -> None:
        """Count a request's wait for its batch."""
        found = self._batches.get(name)
        if found is None:
            found = self._new_batch(name)
        self._observe(found[1], seconds)

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
        at += _INFINITE + 1
        values[at] += seconds
        if seconds > values[at + 1]:  # noqa: PLR1730 - max() and a second write take 0.1 us more
            values[at + 1] = seconds

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
