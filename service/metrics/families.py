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
HTTP_IN_FLIGHT = Family("http_requests_in_flight", "gauge", (), "Requests that are being answered.")
HTTP_REFUSED = Family(
    "http_refused_total",
    "counter",
    ("status",),
    "Requests that the HTTP/1.1 parser refused before the application saw them.",
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
POOL_SIZE = Family("db_pool_size", "gauge", (), "Open connections of the pool.")
POOL_IN_USE = Family(
    "db_pool_in_use", "gauge", (), "Connections of the pool that run a statement or a transaction."
)
POOL_WAITING = Family("db_pool_waiting", "gauge", (), "Statements that wait for a connection.")
POOL_WAIT = Family(
    "db_pool_wait_seconds",
    "histogram",
    (),
    "Time that a statement waited for a connection, if none was idle.",
    SECONDS,
)
POOL_TIMEOUTS = Family(
    "db_pool_timeouts_total", "counter", (), "Waits for a connection that were given up (503)."
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
CACHE_REQUESTS = Family(
    "cache_requests_total",
    "counter",
    ("tier", "result"),
    "Look-ups in the cache, by tier (process or redis) and result (hit or miss).",
)
CACHE_EVICTIONS = Family(
    "cache_evictions_total", "counter", ("tier",), "Responses removed because the cache was full."
)
CACHE_BYTES = Family(
    "cache_bytes", "gauge", ("tier",), "Memory of the cached responses, estimated."
)
CACHE_ENTRIES = Family("cache_entries", "gauge", ("tier",), "Cached responses.")
LIMIT_DECISIONS = Family(
    "ratelimit_decisions_total",
    "counter",
    ("policy", "decision", "source"),
    "Requests allowed and refused by a rate limit. The source is redis if the workers share the"
    " count, process if this worker decided alone.",
)
DELIVERIES = Family(
    "deliveries_total",
    "counter",
    ("target", "result"),
    "Posts to receivers, by target (notification, webhook or other) and result (success or"
    " failure).",
)
DELIVERY_DURATION = Family(
    "delivery_duration_seconds",
    "histogram",
    ("target",),
    "Time of a post until the receiver's answer, or until it was given up.",
    SECONDS,
)
JOBS = Family(
    "jobs_total",
    "counter",
    ("kind", "result"),
    "Attempts of jobs that have ended, by result: done, retry (it is tried again) or failed.",
)
JOBS_DURATION = Family(
    "jobs_duration_seconds", "histogram", ("kind",), "Time of an attempt of a job.", SECONDS
)
JOBS_QUEUED = Family(
    "jobs_queued",
    "gauge",
    ("kind",),
    "Jobs that wait, counted up to 10,000.",
    merge="max",
)
JOBS_FAILED = Family(
    "jobs_failed",
    "gauge",
    ("kind",),
    "Jobs that have failed and are kept, counted up to 10,000.",
    merge="max",
)
JOBS_WAITED = Family(
    "jobs_oldest_wait_seconds",
    "gauge",
    ("kind",),
    "How long the oldest waiting job has been due.",
    merge="max",
)
FEED_SUBSCRIBERS = Family(
    "feed_subscribers", "gauge", (), "Clients that are subscribed to changes."
)
FEED_EVENTS = Family("feed_events_total", "counter", (), "Changes that were sent to clients.")
FEED_DROPPED = Family(
    "feed_dropped_total", "counter", (), "Clients that were dropped because they read too slowly."
)
FEED_LAG = Family(
    "feed_lag_seconds",
    "gauge",
    (),
    "Time from the notification of a change until it was read and given to the clients.",
    merge="max",
)
WEBHOOK_LAG = Family(
    "webhook_lag_seconds",
    "gauge",
    (),
    "Age of the oldest change that a webhook has not passed, to some 30 s.",
    merge="max",
)
WEBHOOK_FAILURES = Family(
    "webhook_failures",
    "gauge",
    (),
    "Changes that webhooks have given up, counted up to 10,000.",
    merge="max",
)
LOOP_LAG = Family(
    "event_loop_lag_seconds",
    "histogram",
    (),
    "How late a timer of the event loop was, sampled four times a second.",
    SECONDS,
)
MEMORY = Family(
    "process_resident_memory_bytes",
    "gauge",
    (),
    "Resident memory of the workers. A page that they share is counted for each of them.",
)
CPU = Family("process_cpu_seconds_total", "counter", (), "CPU time of the workers.")
OPEN_FILES = Family("process_open_fds", "gauge", (), "Open files and sockets of the workers.")
START_TIME = Family(
    "process_start_time_seconds",
    "gauge",
    (),
    "When the youngest worker started, in seconds since 1970.",
    merge="max",
)
DEPENDENCY_UP = Family(
    "dependency_up",
    "gauge",
    ("dependency",),
    "1 if every worker can use the database or redis, 0 if one can't.",
    merge="min",
)
WORKERS = Family("service_workers", "gauge", (), "Worker processes that run.")
INFO = Family("service_info", "gauge", ("version",), "1, with the version.", merge="max")
LOG_DROPPED = Family(
    "log_lines_dropped_total",
    "counter",
    (),
    "Log lines dropped because the log could not be written fast enough.",
)

FAMILIES = {one.name: one for one in globals().values() if isinstance(one, Family)}
