"""The statements of jobs."""

from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Integer,
    Select,
    Text,
    any_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from service.db.arrays import unnested
from service.db.job_table import jobs
from service.db.names import JOBS_CHANNEL
from service.db.statement import Statement, columns

_NOW: ColumnElement[Any] = func.now()
_ONE: ColumnElement[Any] = literal_column("1", Integer)


class JobRow(Struct, frozen=True):
    """A job as it is shown; `result` is JSON."""

    id: int
    kind: str
    state: str
    user_id: int | None
    done: int
    total: int | None
    attempts: int
    result: str | None
    error: str | None
    run_at: datetime
    created_at: datetime
    finished_at: datetime | None


class Claimed(Struct, frozen=True):
    """A job that a worker has taken; `argument` is JSON, `claims` the number that it was given."""

    id: int
    kind: str
    argument: str
    user_id: int | None
    attempts: int
    claims: int


def _interval(name: str) -> ColumnElement[Any]:
    """An argument of seconds."""
    second: ColumnElement[Any] = literal_column("interval '1 second'")
    return bindparam(name, type_=Float) * second


def _state(name: str) -> ColumnElement[Any]:
    """A state as a literal, so that an index of rows in that state can be used."""
    return literal_column(f"'{name}'", Text)


def _given(name: str) -> ColumnElement[Any]:
    return bindparam(name, type_=jobs.c[name].type)


def _told() -> ColumnElement[Any]:
    """Tells the workers at the commit that there are queued jobs."""
    return func.pg_notify(literal_column(f"'{JOBS_CHANNEL}'"), literal_column("''"))


def _held(state: str = "running") -> tuple[ColumnElement[bool], ...]:
    """True as long as the worker has the job, or has already brought it into this state."""
    return (
        jobs.c.id == _given("id"),
        jobs.c.claims == bindparam("claim", type_=BigInteger),
        jobs.c.state == _state("running")
        if state == "running"
        else or_(jobs.c.state == _state("running"), jobs.c.state == _state(state)),
    )


def _queueing() -> Statement[tuple[int, Any]]:
    given = unnested({"argument": JSONB()})
    values = {
        "kind": _given("kind"),
        "argument": given.rows.c.argument,
        "user_id": _given("user_id"),
        "place": _given("place"),
        "run_at": _NOW + _interval("delay"),
    }
    rows = select(*values.values()).select_from(given.rows).order_by(given.place)
    core = insert(jobs).from_select(list(values), rows)
    order = ("kind", "user_id", "place", "delay", "arguments")
    returned = core.returning(jobs.c.id, _told().label("told"))
    return Statement("jobs.enqueue", tuple, returned, order=order)


def _claiming() -> Statement[tuple[Any, ...]]:
    """Take due jobs of each kind, up to its free places; first those whose lease is over.

    Each record has the seconds until the next job is due, null for none; without a job, the one
    record has no others.
    """
    wanted = unnested({"kind": Text(), "free": BigInteger()}).cte("wanted").rows
    places = jobs.c.place == any_(bindparam("places", type_=ARRAY(Text)))
    mine = (jobs.c.kind == wanted.c.kind, or_(jobs.c.place.is_(None), places))
    queued, running = jobs.c.state == _state("queued"), jobs.c.state == _state("running")

    def some(*where: ColumnElement[bool], first: tuple[Any, ...]) -> Select[Any]:
        found = select(jobs.c.id).where(*mine, *where).order_by(*first).limit(wanted.c.free)
        locked = found.with_for_update(skip_locked=True).correlate(wanted).subquery()
        return select(locked.c.id)

    due = union_all(
        some(running, jobs.c.leased_until <= _NOW, first=(jobs.c.leased_until,)),
        some(queued, jobs.c.run_at <= _NOW, first=(jobs.c.run_at, jobs.c.id)),
    ).subquery()
    picked = select(due.c.id).limit(wanted.c.free).correlate(wanted).lateral("picked")
    ids = select(picked.c.id).select_from(wanted.join(picked, true())).scalar_subquery()
    claimed = (
        update(jobs)
        .where(jobs.c.id == any_(func.array(ids)))
        .values(
            state=_state("running"),
            attempts=jobs.c.attempts + _ONE,
            claims=jobs.c.claims + _ONE,
            leased_until=_NOW + _interval("lease"),
        )
        .returning(*columns(Claimed, jobs))
        .cte("claimed")
    )

    def soonest(time: ColumnElement[Any], *where: ColumnElement[bool]) -> ColumnElement[Any]:
        later = select(time).where(*mine, *where, time > _NOW).order_by(time).limit(_ONE)
        return later.correlate(wanted).scalar_subquery()

    next_due = func.min(
        func.least(soonest(jobs.c.run_at, queued), soonest(jobs.c.leased_until, running))
    )
    seconds = func.extract("epoch", next_due - _NOW)
    timer = select(cast(seconds, Float).label("seconds")).select_from(wanted).cte("timer")
    core = select(timer.c.seconds, *claimed.c).select_from(timer.outerjoin(claimed, true()))
    return Statement("jobs.claim", tuple, core)


def _renewing() -> Statement[tuple[int, int]]:
    """Renew the leases of all jobs that a worker runs; returns those that it still has."""
    given = unnested({"id": BigInteger(), "claim": BigInteger()})
    core = (
        update(jobs)
        .where(
            jobs.c.id == given.rows.c.id,
            jobs.c.claims == given.rows.c.claim,
            jobs.c.state == _state("running"),
        )
        .values(leased_until=_NOW + _interval("lease"))
        .returning(jobs.c.id, jobs.c.claims)
    )
    return Statement("jobs.renew", tuple, core)


def _reporting() -> Statement[int]:
    values = {name: _given(name) for name in ("done", "total")}
    core = update(jobs).where(*_held()).values(values).returning(jobs.c.id)
    return Statement("jobs.progress", int, core)


def _ending(state: str) -> Statement[int]:
    """Store how a job has ended; no row if the worker has it no more."""
    given = {name: _given(name) for name in ("done", "total", "result", "error")}
    values = {**given, "state": _state(state), "finished_at": _NOW, "leased_until": null()}
    # `Job.failed` runs once: a second try, after a commit with an unknown outcome, finds no row.
    held = _held("done" if state == "done" else "running")
    core = update(jobs).where(*held).values(values).returning(jobs.c.id)
    return Statement(f"jobs.{'finish' if state == 'done' else 'fail'}", int, core)


def _releasing() -> Statement[tuple[int, Any]]:
    """Queue a job again after an attempt, with the number of attempts that count."""
    given = {name: _given(name) for name in ("done", "total", "error", "attempts")}
    values = {
        **given,
        "state": _state("queued"),
        "run_at": _NOW + _interval("delay"),
        "leased_until": null(),
    }
    core = update(jobs).where(*_held()).values(values).returning(jobs.c.id, _told().label("told"))
    return Statement("jobs.release", tuple, core)


def _retrying() -> Statement[tuple[int, Any]]:
    """Queue the jobs with these ids again, as far as they have failed."""
    failed = (
        jobs.c.state == _state("failed"),
        jobs.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger))),
    )
    values = {
        "state": _state("queued"),
        "run_at": _NOW,
        "attempts": literal_column("0", Integer),
        "result": null(),
        "error": null(),
        "finished_at": null(),
    }
    core = update(jobs).where(*failed).values(values)
    returned = core.returning(jobs.c.id, _told().label("told"))
    return Statement("jobs.retry", tuple, returned, order=("ids",), prepare=False)


def _listing() -> Statement[JobRow]:
    """Newest first: those in a state, of a kind, before an id; null does not limit."""
    state, kind, before = _given("state"), _given("kind"), bindparam("before", type_=BigInteger)
    core = (
        select(*columns(JobRow, jobs))
        .where(
            or_(state.is_(None), jobs.c.state == state),
            # True for every job; an index of few rows can be used where the state is known.
            or_(state.is_(None), state != _state("failed"), jobs.c.finished_at.is_not(None)),
            or_(kind.is_(None), jobs.c.kind == kind),
            or_(before.is_(None), jobs.c.id < before),
        )
        .order_by(jobs.c.id.desc())
        .limit(bindparam("limit", type_=BigInteger))
    )
    return Statement("jobs.list", JobRow, core, prepare=False, by_values=True)


def _trimming() -> Statement[int]:
    """Remove the oldest jobs that ended in a state so many seconds ago; how many there were."""
    ended = (
        select(jobs.c.id)
        .where(jobs.c.state == _given("state"), jobs.c.finished_at <= _NOW - _interval("kept"))
        .order_by(jobs.c.finished_at)
        .limit(bindparam("limit", type_=BigInteger))
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    removed = delete(jobs).where(jobs.c.id == any_(func.array(ended))).returning(jobs.c.id)
    core = select(func.count().label("n")).select_from(removed.cte("removed"))
    return Statement("jobs.trim", int, core, order=("state", "kept", "limit"), prepare=False)


enqueue = _queueing()
claim = _claiming()
renew = _renewing()
progress = _reporting()
finish, fail, release = _ending("done"), _ending("failed"), _releasing()
by_id = Statement(
    "jobs.by_id",
    JobRow,
    select(*columns(JobRow, jobs)).where(jobs.c.id == _given("id")),
    order=("id",),
)
# `list_` so that it hides no builtin.
list_, retry, trim = _listing(), _retrying(), _trimming()
STATEMENTS: tuple[Statement[Any], ...] = (
    *(enqueue, claim, renew, progress, finish, fail, release, by_id, list_, retry, trim),
)
