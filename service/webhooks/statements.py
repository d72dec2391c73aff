"""The statements of webhooks."""

from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Double,
    Text,
    bindparam,
    cast,
    delete,
    extract,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from service.db.change_log import change_log, change_positions
from service.db.job_table import jobs
from service.db.statement import Statement, columns
from service.db.webhook_tables import webhook_failures, webhooks

# Entries of the log of which the list counts the changes, and failures that the metrics count.
COUNTED, MOST_FAILURES = 500, 10_000


class Webhook(Struct, frozen=True):
    """What a worker needs of a webhook."""

    id: int
    url: str
    resource: str
    position: int


class ShownWebhook(Struct, frozen=True):
    """A webhook in the list, with the number of changes that were not delivered."""

    id: int
    url: str
    resource: str
    position: int
    error: str | None
    failures: int


class Behind(Struct, frozen=True):
    """How far behind a webhook is: entries of the log, their changes, and the age of the first."""

    entries: int
    changes: int
    seconds: float | None


class Figures(Struct, frozen=True):
    """What the metrics show; `lag` is in seconds."""

    lag: float
    failures: int


class Failure(Struct, frozen=True):
    """What was not delivered."""

    id: int
    webhook_id: int
    position: int
    body: str | None
    lost_to: int | None
    attempts: int
    error: str
    created_at: datetime


class DeadLetter(Struct, frozen=True):
    """A failure that can be posted again."""

    id: int
    webhook_id: int
    url: str
    position: int
    body: str


hooks, failures = webhooks.c, webhook_failures.c
_ZERO: ColumnElement[int] = literal_column("0", BigInteger)
_ONE: ColumnElement[int] = literal_column("1", BigInteger)
_SPAN: ColumnElement[int] = literal_column("1024", BigInteger)
_ID = hooks.id == bindparam("id", type_=BigInteger)
# The job that posts has not been taken by another worker.
_mine = (
    select(jobs.c.id)
    .where(
        jobs.c.id == bindparam("job_id", type_=BigInteger),
        jobs.c.claims == bindparam("claim", type_=BigInteger),
        jobs.c.state == literal_column("'running'", Text),
    )
    .exists()
)


def _given(name: str, column: "Column[Any]") -> ColumnElement[Any]:
    return bindparam(name, type_=column.type)


find = Statement(
    "webhooks.by_id", Webhook, select(*columns(Webhook, webhooks)).where(_ID), prepare=False
)
add = Statement(
    "webhooks.add",
    int,
    insert(webhooks)
    .values({name: _given(name, hooks[name]) for name in ("url", "resource", "position")})
    .returning(hooks.id),
    prepare=False,
)
remove = Statement(
    "webhooks.remove", int, delete(webhooks).where(_ID).returning(hooks.id), prepare=False
)
save = Statement(
    "webhooks.save",
    int,
    update(webhooks)
    .where(_ID, _mine)
    .values(
        position=func.greatest(hooks.position, _given("position", hooks.position)),
        error=_given("error", hooks.error),
    )
    .returning(hooks.id),
    prepare=False,
)
check = Statement("webhooks.check", int, select(hooks.id).where(_ID, _mine), prepare=False)


def _giving_up() -> Statement[int]:
    names = ("webhook_id", "position", "body", "lost_to", "attempts", "error")
    inserting = insert(webhook_failures).values(
        {name: _given(name, failures[name]) for name in names}
    )
    # A worker that died after it may have stored it already.
    core = inserting.on_conflict_do_nothing(index_elements=[failures.webhook_id, failures.position])
    return Statement("webhooks.give_up", int, core.returning(failures.id), prepare=False)


def _listing() -> Statement[ShownWebhook]:
    mine = failures.webhook_id == hooks.id
    failed = select(func.count(failures.id)).where(mine).correlate(webhooks).scalar_subquery()
    shown = (hooks[name] for name in ShownWebhook.__struct_fields__[:-1])
    core = select(*shown, failed.label("failures")).order_by(hooks.id)
    return Statement("webhooks.list", ShownWebhook, core, prepare=False)


def _counting() -> Statement[Behind]:
    """Of the first COUNTED entries: each may have a thousand changes."""
    after = bindparam("position", type_=BigInteger)
    place = change_positions.c.position
    # An entry may have been delivered in part.
    passed = func.greatest(after - place * _SPAN + _ONE, _ZERO)
    changes = func.json_array_length(cast(change_log.c.rows, JSON)) - passed
    entries = (
        select(changes.label("changes"), change_positions.c.committed_at)
        .join(change_log, change_log.c.id == change_positions.c.entry)
        .where(
            place >= after // _SPAN,
            change_log.c.name == _given("table", change_log.c.name),
            changes > _ZERO,
        )
        .order_by(place)
        .limit(literal_column(str(COUNTED), BigInteger))
        .subquery()
    )
    age = func.clock_timestamp() - func.min(entries.c.committed_at)
    core = select(
        func.count().label("entries"),
        cast(func.coalesce(func.sum(entries.c.changes), _ZERO), BigInteger).label("changes"),
        cast(extract("epoch", age), Double).label("seconds"),
    ).select_from(entries)
    return Statement("webhooks.behind", Behind, core, prepare=False, by_values=True)


def _figures() -> Statement[Figures]:
    """The lag is the age of the oldest change, of whatever table, that a webhook has not passed."""
    entry = change_positions.c.position
    first = (
        select(change_positions.c.committed_at)
        .where(entry > hooks.position // _SPAN)
        .order_by(entry)
        .limit(_ONE)
        .correlate(webhooks)
        .scalar_subquery()
    )
    age = extract("epoch", func.clock_timestamp() - func.min(first))
    some = select(failures.id).limit(literal_column(str(MOST_FAILURES), BigInteger)).subquery()
    core = select(
        cast(func.coalesce(age, _ZERO), Double).label("lag"),
        select(func.count(some.c.id)).scalar_subquery().label("failures"),
    ).select_from(webhooks)
    return Statement("webhooks.figures", Figures, core, prepare=False)


def _of(name: str, column: "Column[Any]") -> ColumnElement[bool]:
    """True for rows with the given value, or for all if it is null."""
    given = _given(name, column)
    return or_(given.is_(None), column == given)


def _retrying() -> Statement[DeadLetter]:
    """The next failures after an id: of one webhook, or one of them, or all if both are null."""
    core = (
        select(failures.id, failures.webhook_id, hooks.url, failures.position, failures.body)
        .join(webhooks, hooks.id == failures.webhook_id)
        .where(
            failures.id > bindparam("after", type_=BigInteger),
            _of("id", failures.id),
            _of("webhook_id", failures.webhook_id),
            failures.body.is_not(None),
        )
        .order_by(failures.id)
        .limit(bindparam("limit", type_=BigInteger))
    )
    return Statement("webhooks.retry", DeadLetter, core, prepare=False, by_values=True)


# `list_` so that it hides no builtin.
give_up, list_, behind, figures, retry = (
    *(_giving_up(), _listing(), _counting(), _figures(), _retrying()),
)
failed = Statement(
    "webhooks.failed",
    Failure,
    select(*columns(Failure, webhook_failures))
    .where(_of("webhook_id", failures.webhook_id))
    .order_by(failures.id)
    .limit(bindparam("limit", type_=BigInteger)),
    prepare=False,
    by_values=True,
)
failed_again = Statement(
    "webhooks.failed_again",
    int,
    update(webhook_failures)
    .where(failures.id == bindparam("id", type_=BigInteger))
    .values(attempts=failures.attempts + _ONE, error=_given("error", failures.error))
    .returning(failures.id),
    prepare=False,
)
forget = Statement(
    "webhooks.forget",
    int,
    delete(webhook_failures)
    .where(_of("id", failures.id), _of("webhook_id", failures.webhook_id))
    .returning(failures.id),
    prepare=False,
    by_values=True,
)
STATEMENTS: tuple[Statement[Any], ...] = (
    *(find, add, remove, save, check, give_up, list_, behind, figures, retry),
    *(failed, failed_again, forget),
)
