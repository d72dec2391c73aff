"""The families of metrics: name, kind, labels and description. Only these exist.

All labels are bounded: a route is a template such as `/items/{id}`, a query type is the name of a
statement. An id, a path or an address is never a label.
"""

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
# How the gauges of several workers become one number.
Merge = Literal["sum", "max", "min"]

# Seconds: from a hit of the cache (0.1 ms) to a request that times out.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# Requests in a batch; the largest is batch.READS.
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class Family(NamedTuple):
    """Metrics with one name.

    `merge` says how gauges of several workers are merged; counters and histograms are summed.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    merge: Merge = "sum"

    @property
    def width(self) -> int:
        """The number of values of one series. A histogram has buckets, +Inf, sum and maximum."""
        return len(self.buckets) + 3 if self.kind == "histogram" else 1


HTTP_DURATION = Family(
    "http_request_duration_seconds",
    "histogram",
    ("method", "route", "status"),
    "Time from the head of a request to the end of its response.",
    SECONDS,
)
DB_DURATION = Family(
    "db_query_duration_seconds",
    "histogram",
    ("query_type",),
    "Time of a statement on its connection.",
    SECONDS,
)
DB_QUERIES = Family(
    "db_query_total",
    "counter",
    ("query_type", "status"),
    "Statements, by their result: success, error or timeout.",
)
DB_ROWS = Family("db_rows_total", "counter", ("query_type",), "Rows that statements returned.")
POOL_WAIT = Family(
    "db_pool_wait_seconds",
    "histogram",
    (),
    "Time that a statement waited for a connection, if none was idle.",
    SECONDS,
)
BATCH_SIZE = Family(
    "db_batch_size",
    "histogram",
    ("query_type",),
    "Requests that one statement served.",
    SIZES,
)
BATCH_WAIT = Family(
    "db_batch_wait_seconds",
    "histogram",
    ("query_type",),
    "Time that a request waited for its batch to begin.",
    SECONDS,
)

FAMILIES = {
    one.name: one
    for one in (
        HTTP_DURATION,
        DB_DURATION,
        DB_QUERIES,
        DB_ROWS,
        POOL_WAIT,
        BATCH_SIZE,
        BATCH_WAIT,
    )
}
