"""Jobs: whether some have failed, and whether a worker runs those that are due."""

from service.doctor.check import Check, Finding, ok, skip, warn
from service.doctor.subject import Subject

# A job that has been due for so long should run.
LATE_SECONDS = 60
# No figure counts further.
COUNTED = 10_000
FIGURES = f"""
WITH failed AS MATERIALIZED (
    SELECT kind FROM jobs WHERE state = 'failed' AND finished_at IS NOT NULL LIMIT {COUNTED}
), late AS MATERIALIZED (
    SELECT kind, run_at FROM jobs WHERE state = 'queued' AND kind = any($1)
    AND run_at < now() - interval '{LATE_SECONDS} s' LIMIT {COUNTED}
)
SELECT (SELECT count(*) FROM failed), (SELECT string_agg(DISTINCT kind, ', ') FROM failed),
    (SELECT count(*) FROM late), (SELECT string_agg(DISTINCT kind, ', ') FROM late),
    (SELECT extract(epoch FROM now() - min(run_at))::int FROM late),
    EXISTS (SELECT FROM jobs WHERE state = 'running' AND leased_until > now())
"""  # noqa: S608 - numbers of ours


async def jobs(subject: Subject) -> Finding:
    """Warn if jobs have failed, or have been due for a minute: no worker runs, or too few do."""
    if not subject.app.jobs:
        return skip("this application has no jobs")
    if not subject.migrated:
        return skip("the database is not migrated")
    row = await subject.row(FIGURES, list(subject.app.jobs))
    failed, failed_kinds, late, late_kinds, waited, running = row
    told = f"late jobs: {late} ({late_kinds}), the first by {waited} s"
    if late and not running:
        return warn(
            f"{told}; no worker runs any",
            "start `swiftlet work`, or `swiftlet serve` without --no-jobs",
        )
    if late:
        return warn(told, "start more workers, and see the log for jobs that take long")
    if failed:
        return warn(
            f"failed jobs: {failed} ({failed_kinds})",
            "`swiftlet jobs list --state failed` says why, `swiftlet jobs retry` queues them again",
        )
    return ok("none has failed, and none is late")


CHECKS = (Check("jobs", jobs, "database"),)
