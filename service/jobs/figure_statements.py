"""The statement that counts the jobs that wait, and those that have failed."""

from msgspec import Struct
from sqlalchemy import Float, Integer, Text, cast, func, literal_column, select

from service.db.arrays import unnested
from service.db.job_table import jobs
from service.db.statement import Statement

# No figure counts further. With 100,000 queued and 100,000 failed jobs the statement takes 10 ms.
COUNTED = 10_000


class Figures(Struct, frozen=True):
    """How many jobs of a kind there are, and the seconds since the first of them was due."""

    kind: str
    queued: int
    failed: int
    waited: float


def _figures() -> Statement[Figures]:
    """How many jobs of each kind are queued and have failed, each counted up to COUNTED."""
    wanted = unnested({"kind": Text()}).cte("wanted").rows
    most, one = literal_column(str(COUNTED), Integer), literal_column("1", Integer)
    queued = (jobs.c.kind == wanted.c.kind, jobs.c.state == literal_column("'queued'", Text))
    # The index of ended jobs has those with a time.
    ended = (jobs.c.state == literal_column("'failed'", Text), jobs.c.finished_at.is_not(None))
    some = select(jobs.c.id).where(*queued).limit(most).correlate(wanted).subquery()
    first = select(jobs.c.run_at).where(*queued).order_by(jobs.c.run_at).limit(one)
    waited = func.extract("epoch", func.now() - first.correlate(wanted).scalar_subquery())
    failed = select(jobs.c.kind).where(*ended).limit(most).cte("failed")
    core = select(
        wanted.c.kind,
        select(func.count()).select_from(some).scalar_subquery().label("queued"),
        select(func.count())
        .select_from(failed)
        .where(failed.c.kind == wanted.c.kind)
        .scalar_subquery()
        .label("failed"),
        func.greatest(cast(waited, Float), literal_column("0", Float)).label("waited"),
    ).select_from(wanted)
    return Statement("jobs.figures", Figures, core, order=("kinds",), prepare=False)


figures = _figures()
