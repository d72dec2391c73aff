"""The statements of the log of changes."""

from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Interval,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import OID, insert

from service.db.change_log import WIDTH, change_horizon, change_log, change_positions
from service.db.statement import Statement

# Key of an advisory lock, beside the id of the table.
TRIMMING = 1


class Entry(NamedTuple):
    """What one statement changed, or a part of it.

    Args:
        position: of its first row; each further row has the next position.
        name: of the table.
        kind: `created`, `updated` or `deleted`.
        rows: a JSON array of rows as they were after the statement, or before it if deleted.
    """

    position: int
    name: str
    kind: str
    rows: str


def _number(value: int) -> ColumnElement[int]:
    number: ColumnElement[int] = literal_column(str(value), BigInteger)
    return number


_WIDTH = _number(WIDTH)


def _last(position: ColumnElement[int], number: ColumnElement[int]) -> ColumnElement[int]:
    """The position of the last row of an entry."""
    return position * _WIDTH + number - _number(1)


def _settled() -> Statement[int | None]:
    core = select(func.settled_changes(type_=BigInteger).label("position"))
    return Statement("changes.settled", lambda position: position, core, order=())


def _reading() -> Statement[Entry]:
    """Entries that have a row after `after`, in order; after `bytes` no further one begins."""
    after = bindparam("after", type_=BigInteger)
    limit = bindparam("limit", type_=BigInteger)
    place = (
        select(change_positions.c.position, change_positions.c.entry)
        .where(
            change_positions.c.position >= after // _WIDTH,
            change_positions.c.position <= bindparam("until", type_=BigInteger),
        )
        .order_by(change_positions.c.position)
        .limit(limit + _number(1))
        .subquery("place")
    )
    entry = change_log
    # The length of a text is known without reading it.
    size = func.octet_length(entry.c.rows)
    found = (
        select(
            (place.c.position * _WIDTH).label("position"),
            entry.c.name,
            entry.c.kind,
            entry.c.rows,
            (func.sum(size).over(order_by=place.c.position, rows=(None, 0)) - size).label("before"),
        )
        .join(entry, entry.c.id == place.c.entry)
        .where(_last(place.c.position, entry.c.number) > after)
        .subquery("found")
    )
    core = (
        select(found.c.position, found.c.name, found.c.kind, found.c.rows)
        .where(found.c.before < bindparam("bytes", type_=BigInteger))
        .order_by(found.c.position)
        .limit(limit)
    )
    return Statement("changes.read", Entry, core, prepare=False)


def _newest() -> Statement[int]:
    """The last position of the newest entry, also if it was removed; 0 if there was none.

    It is that of a committed entry, since a crash may take back positions that were only drawn.
    """
    place = change_positions.c.position
    kept = select(func.max(place)).where(place <= bindparam("until", type_=BigInteger))
    removed = select(func.max(change_horizon.c.position) // _WIDTH)
    # Null is no greatest. After a restore of the data alone, the horizon is the greater one.
    entry = func.greatest(kept.scalar_subquery(), removed.scalar_subquery(), _number(0))
    core = select((entry * _WIDTH + _number(WIDTH - 1)).label("position"))
    return Statement("changes.newest", int, core, order=("until",), prepare=False)


def _horizon() -> Statement[int]:
    core = select(func.coalesce(func.max(change_horizon.c.position), _number(-1)).label("position"))
    return Statement("changes.horizon", int, core, order=(), prepare=False)


def _trimming() -> Statement[int]:
    """Remove the oldest entries, unless another transaction does; the number of those removed.

    It begins after a position, the horizon, since an index still has what was removed before. It
    looks at no more entries than it may remove: the first ones are the oldest.
    """
    entry, place = change_log, change_positions
    alone = func.pg_try_advisory_xact_lock(
        cast(cast(literal_column("'change_log'::regclass"), OID), Integer), _number(TRIMMING)
    )
    first = (
        select(place.c.position, place.c.committed_at)
        .where(place.c.position > bindparam("after", type_=BigInteger) // _WIDTH)
        .order_by(place.c.position)
        .limit(bindparam("limit", type_=BigInteger))
        .subquery("first")
    )
    old = select(first.c.position).where(
        first.c.committed_at < func.now() - bindparam("kept", type_=Interval),
        select(alone).scalar_subquery(),
    )
    places = (
        delete(place)
        .where(place.c.position.in_(old))
        .returning(place.c.position, place.c.entry)
        .cte("places")
    )
    entries = (
        delete(entry)
        .where(entry.c.id == places.c.entry)
        .returning(places.c.position, entry.c.number)
        .cte("entries")
    )
    newest = (
        select(_last(entries.c.position, entries.c.number).label("position"))
        .order_by(entries.c.position.desc())
        .limit(_number(1))
    )
    moving = insert(change_horizon).from_select(["position"], newest)
    moved = (
        moving.on_conflict_do_update(
            index_elements=[change_horizon.c.id],
            set_={"position": func.greatest(change_horizon.c.position, moving.excluded.position)},
        )
        .returning(change_horizon.c.position)
        .cte("moved")
    )
    core = select(func.count().label("n")).select_from(places).add_cte(moved)
    return Statement("changes.trim", int, core, order=("after", "limit", "kept"), prepare=False)


SETTLED, READ, NEWEST = _settled(), _reading(), _newest()
HORIZON, TRIM = _horizon(), _trimming()
STATEMENTS: tuple[Statement[Any], ...] = (SETTLED, READ, NEWEST, HORIZON, TRIM)
