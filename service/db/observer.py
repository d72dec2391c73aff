"""What is noted about statements and batches: metrics, times of requests, the log."""

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg

from service.db.shown_statements import ShownStatements
from service.errors import TimedOut
from service.logs import logger
from service.metrics import Metrics
from service.metrics.families import POOL_TIMEOUTS
from service.settings import Settings
from service.timing import BatchTiming, Timing

if TYPE_CHECKING:
    from service.db.batcher import Waiter
    from service.db.statement import Statement
    from service.tracing.tracer import Tracer

# Counted as timeouts.
TIMEOUTS = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, TimeoutError, TimedOut)


class Observer:
    """Counts and logs each statement, each wait for a connection and each batch of a Database.

    Args:
        metrics: counts them; None to count nothing.
        slow_query: seconds above which a statement is logged.
        shown: the statements that are logged each time; None to log none.
        tracer: records the traces of batches; None without traces.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        slow_query: float = 0.2,
        shown: ShownStatements | None = None,
        tracer: "Tracer | None" = None,
    ) -> None:
        self.metrics = metrics
        self.slow_query = slow_query
        self.shown = shown
        self.tracer = tracer

    def ran(
        self,
        statement: "Statement[Any]",
        spent: Timing,
        waited: float,
        seconds: float,
        rows: int,
        args: Sequence[object],
    ) -> None:
        """Note that a statement succeeded.

        Args:
            statement: that ran.
            spent: of the request or the batch.
            waited: seconds for a connection.
            seconds: on the connection.
            rows: number of records.
            args: its arguments.
        """
        spent.sql += seconds
        if self.shown is not None:
            self.shown.log(statement, args, seconds, rows)
        if spent.span is not None:
            spent.span.statement(statement, seconds, rows)
        if self.metrics is not None:
            self.metrics.statement(statement.name, seconds, rows)
        if seconds + waited > self.slow_query:
            self._log_slow(statement, spent, waited, seconds, rows)

    def failed(
        self,
        statement: "Statement[Any]",
        spent: Timing,
        seconds: float,
        error: BaseException,
        args: Sequence[object],
    ) -> None:
        """Note that a statement failed after some seconds on its connection."""
        spent.sql += seconds
        if self.shown is not None:
            self.shown.log(statement, args, seconds, 0, error)
        if spent.span is not None:
            spent.span.statement(statement, seconds, 0, error)
        if self.metrics is not None:
            timeout = isinstance(error, TIMEOUTS)
            self.metrics.failed_statement(statement.name, seconds, timeout=timeout)
        if seconds > self.slow_query:
            self._log_slow(statement, spent, 0.0, seconds, 0)

    def copied(self, name: str, seconds: float, rows: int) -> None:
        """Note that a file was made: how long it waited for the server, which may be for minutes.

        So it is no slow statement for the log.
        """
        if self.metrics is not None:
            self.metrics.statement(name, seconds, rows)

    def waited(self, spent: Timing, seconds: float) -> None:
        """Note a wait for a connection."""
        spent.pool += seconds
        if spent.span is not None:
            now = perf_counter()
            spent.span.child("wait for a connection", now - seconds, now)
        if self.metrics is not None:
            self.metrics.pool_wait(seconds)

    def gave_up(self) -> None:
        """Note that no connection came free in time."""
        if self.metrics is not None:
            self.metrics.add(POOL_TIMEOUTS)

    def alone(self, name: str) -> None:
        """Note that a request ran its own statement at once instead of waiting for a batch."""
        if self.metrics is not None:
            self.metrics.batch(name, 1)

    def batch(
        self, name: str, waiters: "Sequence[Waiter]", spent: BatchTiming, began: float
    ) -> None:
        """Note that a batch begins.

        Args:
            name: of the batcher.
            waiters: the requests that it serves.
            spent: of the batch.
            began: perf_counter().
        """
        for waiter in waiters:
            waiter.batch, waiter.began = spent, began
        if self.tracer is not None:
            spent.span = self.tracer.batch(waiters)
        if self.metrics is not None:
            self.metrics.batch(name, len(waiters))
            self.metrics.batch_waits(name, [began - waiter.arrived for waiter in waiters])

    def _log_slow(
        self, statement: "Statement[Any]", spent: Timing, waited: float, seconds: float, rows: int
    ) -> None:
        fields = {
            "statement": statement.name,
            "seconds": round(seconds, 4),
            "rows": rows,
            "waited_for_connection": round(waited, 4),
            "waited_for_batch": round(getattr(spent, "waited", 0.0), 4),
        }
        logger.warning("slow query", extra={"fields": fields, "each": True})


def observer_of(settings: Settings, metrics: Metrics | None, tracer: "Tracer | None") -> Observer:
    """Return the observer with these settings."""
    return Observer(
        metrics,
        settings.slow_query_ms / 1000,
        ShownStatements.of(settings.log_statements),
        tracer,
    )
