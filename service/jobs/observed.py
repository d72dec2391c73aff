"""An attempt of a job in the metrics, the log and the traces."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from service.jobs.running import Outcome, RunningJob
from service.timing import JobTiming, timing
from service.web.request import State

# The result of an attempt, by the state that the job has then.
RESULTS = {"done": "done", "queued": "retry", "failed": "failed"}


class Observed:
    """What is noted of an attempt.

    Attributes:
        result: of RESULTS, or `lost` if another worker has taken the job, or this process stops.
    """

    result = "lost"

    def ended(self, one: RunningJob, outcome: Outcome | None) -> None:
        """Note how it has ended."""
        if outcome is None:
            self.result = "done" if one.finished else "lost"
        elif outcome.counts:
            self.result = RESULTS[outcome.state]


@contextmanager
def observed(state: State, one: RunningJob) -> Iterator[Observed]:
    """Observe an attempt within the block: it has a span, and its log lines name the job."""
    spent, tracer, metrics = JobTiming(one.fields), state["tracer"], state["metrics"]
    if tracer is not None:
        spent.span = tracer.job(one.job.kind, one.id, one.attempt)
    timing.set(spent)
    started, seen = perf_counter(), Observed()
    try:
        yield seen
    finally:
        if metrics is not None and seen.result != "lost":
            metrics.job(one.job.kind, seen.result, perf_counter() - started)
        if spent.span is not None:
            spent.span.end_job(seen.result)
