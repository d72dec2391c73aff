"""Metrics that are sampled: of the pool, the caches, the event loop and the process."""

import asyncio
import contextlib
import os
import sys
import time

from service import logs
from service.cache.off import NoCache
from service.cache.store import Cache
from service.db.database import Database
from service.limits.limiter import Limiter
from service.metrics import Metrics, families

# Between two samples of the event loop, and samples between two of everything else.
SAMPLE_SECONDS = 0.25
PUBLISH_EVERY = 4


class Sampler:
    """Brings the sampled metrics of a worker up to date, once a second and before a scrape.

    Args:
        metrics: where they go.
        version: of the application.
        db: its pool is shown.
        cache: its tiers are shown.
        limiter: shows whether Redis can be reached; None without limits.
    """

    def __init__(
        self,
        metrics: Metrics,
        version: str,
        db: Database,
        cache: Cache | NoCache,
        limiter: Limiter | None,
    ) -> None:
        self.metrics = metrics
        self.version = version
        self.db = db
        self.cache = cache if isinstance(cache, Cache) else None
        self.limiter = limiter
        self.started = _start_time()
        # The last known value of each count: a slot has those of the workers before this one too.
        self._known: dict[tuple[str, tuple[str, ...]], float] = {}
        metrics.publish = self.publish

    async def run(self) -> None:
        """Sample until it is cancelled."""
        while True:
            self.publish()
            for _ in range(PUBLISH_EVERY):
                due = time.perf_counter() + SAMPLE_SECONDS
                await asyncio.sleep(SAMPLE_SECONDS)
                self.metrics.observe(families.LOOP_LAG, max(0.0, time.perf_counter() - due))

    def publish(self) -> None:
        """Write the present values."""
        metrics = self.metrics
        metrics.set(families.WORKERS, 1)
        metrics.set(families.INFO, 1, self.version)
        metrics.set(families.HTTP_IN_FLIGHT, metrics.in_flight)
        size, in_use, waiting = self.db.pool.use
        metrics.set(families.POOL_SIZE, size)
        metrics.set(families.POOL_IN_USE, in_use)
        metrics.set(families.POOL_WAITING, waiting)
        self._count(families.POOL_TIMEOUTS, 0)
        metrics.set(families.DEPENDENCY_UP, not self.db.pool.away.active, "database")
        reached = []
        if self.cache is not None:
            reached = self._publish_cache(self.cache)
        if self.limiter is not None and self.limiter.leases is not None:
            leases = self.limiter.leases
            reached.append(leases.up or leases.slow)
        if reached:
            metrics.set(families.DEPENDENCY_UP, all(reached), "redis")
        self._count(families.LOG_DROPPED, logs.dropped())
        self._count(families.CPU, time.process_time())
        metrics.set(families.START_TIME, self.started)
        _publish_process(metrics)

    def _publish_cache(self, cache: Cache) -> list[bool]:
        """Show both tiers; return whether Redis can be reached, if there is one."""
        local, shared = cache.local, cache.shared
        self._count(families.CACHE_REQUESTS, local.hits, "process", "hit")
        self._count(families.CACHE_REQUESTS, local.misses, "process", "miss")
        self._count(families.CACHE_EVICTIONS, local.evictions, "process")
        self.metrics.set(families.CACHE_BYTES, local.size, "process")
        self.metrics.set(families.CACHE_ENTRIES, len(local.entries), "process")
        if shared is None:
            return []
        self._count(families.CACHE_REQUESTS, shared.hits, "redis", "hit")
        self._count(families.CACHE_REQUESTS, shared.misses, "redis", "miss")
        return [shared.reached]

    def _count(self, family: families.Family, value: float, *labels: str) -> None:
        """Add what a count of this process has grown since the last time."""
        known = self._known.get((family.name, labels), 0.0)
        self.metrics.add(family, *labels, number=max(0.0, value - known))
        self._known[family.name, labels] = value


def _publish_process(metrics: Metrics) -> None:
    """Show memory and open files, where the system tells them (Linux)."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - a tenth of Path's time
            pages = int(file.read().split()[1])
        files = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - as above; one is of this list
    except OSError:
        return
    metrics.set(families.MEMORY, pages * os.sysconf("SC_PAGE_SIZE"))
    metrics.set(families.OPEN_FILES, files)


def _start_time() -> float:
    """Return when this process started, in seconds since 1970; about now where it is not known."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - as above
                # The name of the program, in parentheses, may have spaces.
                ticks = int(file.read().rpartition(b")")[2].split()[19])
            since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
            start = time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
            return round(start, 2)  # a tick
    return time.time()
