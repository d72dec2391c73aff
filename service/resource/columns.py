"""Derive a table from a declaration: columns, constraints, indexes and sort expressions.

Constraints are named `<table>_<field>_<key|fkey|check>`: errors.py reads the field from the name.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    collate,
    func,
    literal_column,
    text,
)

from service.db.schema import ACTIVE
from service.resource.fields import Field, Time

TYPES: dict[type, Any] = {
    str: Text(),
    bool: Boolean(),
    int: BigInteger(),
    float: Double(),
    Decimal: Numeric(),
    datetime: DateTime(timezone=True),
    date: Date(),
    UUID: Uuid(),
}
# The value that replaces null in a sort, because a keyset key must not be null: the last value of
# the type, for strings the first one, because there is no last string.
LAST: dict[type, str] = {
    str: "''",
    bool: "true",
    int: "9223372036854775807",
    float: "'Infinity'::double precision",
    Decimal: "'Infinity'::numeric",
    datetime: "'infinity'::timestamp with time zone",
    date: "'infinity'::date",
    UUID: "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid",
}


def table(  # noqa: PLR0913 - the parts of a declaration
    name: str,
    metadata: MetaData,
    given: Mapping[str, Field],
    *,
    stamps: Collection[Column[Any]],
    unique: Collection[str],
    folded: Collection[str],
    parents: Mapping[str, Table],
    sorts: Sequence[str],
    filters: Sequence[str],
    search: Sequence[str],
    active: bool,
    fillfactor: int | None,
) -> Table:
    """Return the table, with its constraints and the indexes that lists need."""
    options: dict[str, Any] = (
        {} if fillfactor is None else {"postgresql_with": {"fillfactor": str(fillfactor)}}
    )
    made = Table(
        name,
        metadata,
        Column("id", BigInteger, Identity(always=True), nullable=False),
        *(_column(one) for one in given.values()),
        *stamps,
        PrimaryKeyConstraint("id", name=f"{name}_pkey"),
        *(UniqueConstraint(one, name=f"{name}_{one}_key") for one in unique if one not in folded),
        *(
            ForeignKeyConstraint([one], [parent.c.id], name=f"{name}_{one}_fkey")
            for one, parent in parents.items()
        ),
        *(
            CheckConstraint(rule, name=f"{name}_{one}_check")
            for one, field in given.items()
            if one not in parents and (rule := _check(field))
        ),
        **options,
    )
    _add_indexes(made, given, folded=folded, parents=parents, sorts=sorts, filters=filters)
    if active:
        Index(f"{name}_inactive_idx", made.c.id, postgresql_where=text(f"NOT {ACTIVE}"))
    if search:
        Index(
            f"{name}_search_idx",
            *(func.lower(made.c[one]).label(one) for one in search),
            postgresql_using="gin",
            postgresql_ops=dict.fromkeys(search, "gin_trgm_ops"),
            info={"optional": True},
        )
    return made


def order(column: Column[Any], field: Field | None) -> ColumnElement[Any]:
    """Return the ORDER BY expression of a column: never null, and strings compare by bytes.

    A locale could differ between machines, and an update of libc could corrupt its indexes.
    """
    plain: ColumnElement[Any] = collate(column, "C") if isinstance(column.type, Text) else column
    if field is None or not field.null:
        return plain
    last = getattr(field.own, "LAST", None) or LAST[field.kind]
    if isinstance(column.type, Text):
        return collate(func.coalesce(column, literal_column(last)), "C")
    return func.coalesce(column, literal_column(last))


def index_of(table: Table, name: str) -> str:
    """Return the name of the index for a sort or filter of a field."""
    return f"{table.name}_{name}_idx"


def choice_index(table: Table, field: Field, value: object) -> str:
    """Return the name of the partial index for a value that is not the default."""
    if field.name == ACTIVE:
        return f"{table.name}_inactive_idx"
    return index_of(table, field.name if field.kind is bool else str(value).lower())


def rare_values(field: Field) -> list[object]:
    """Return the values with a partial index: all but the default, which most rows have."""
    if field.kind is bool:
        return [not field.default]
    return [value for value in field.choices if field.required or value != field.default]


def filter_index(table: Table, field: Field, sorts: Collection[str]) -> str:
    """Return the name of the index for an equality filter; it may be the one of the sort."""
    other = field.name in sorts and (field.null or field.kind is str)
    return f"{table.name}_{field.name}_eq_idx" if other else index_of(table, field.name)


def stamps(*, versioned: bool, stamped: bool) -> list[Column[Any]]:
    """Return the columns that clients can't set: version and times."""
    version = Column("version", BigInteger, nullable=False, server_default=text("1"))
    now = func.now()
    times = (
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=now),
        Column("updated_at", DateTime(timezone=True)),
    )
    return [*((version,) if versioned else ()), *(times if stamped else ())]


def kinds(table: Iterable[Column[Any]], known: Collection[str]) -> dict[str, Any]:
    """Return the Python type of each column that is not in `known`, for a Struct."""
    found: dict[str, Any] = {}
    for column in table:
        if column.key not in known:
            kind = Time if isinstance(column.type, DateTime) else column.type.python_type
            found[str(column.key)] = kind | None if column.nullable else kind
    return found


def _column(field: Field) -> Column[Any]:
    default: Any = None
    if isinstance(field.default, bool):
        default = text(str(field.default).lower())
    elif isinstance(field.default, str):
        default = field.default
    elif isinstance(field.default, int | float | Decimal):
        default = text(str(field.default))
    return Column(field.name, TYPES[field.kind], nullable=field.null, server_default=default)


def _check(field: Field) -> str | None:
    """Return the CHECK of a field; a custom type may have a CHECK, with `{}` for the column."""
    own = getattr(field.own, "CHECK", None)
    if own is not None:
        return str(own).format(field.name)
    if field.choices:
        values = ", ".join(literal(value) for value in field.choices)
        return f"{field.name} IN ({values})"
    meta = field.meta
    if field.kind is str:
        return _between(f"length({field.name})", meta.min_length, meta.max_length)
    strict = [
        f"{field.name} {sign} {bound}"
        for sign, bound in ((">", meta.gt), ("<", meta.lt))
        if bound is not None
    ]
    loose = _between(field.name, meta.ge, meta.le)
    rules = [*strict, *([loose] if loose else [])]
    return " AND ".join(rules) or None


def _between(what: str, low: float | None, high: float | None) -> str | None:
    if low is not None and high is not None:
        return f"{what} BETWEEN {low} AND {high}"
    if high is not None:
        return f"{what} <= {high}"
    return None if low is None else f"{what} >= {low}"


def literal(value: object) -> str:
    """Return a value of a Literal as SQL."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _add_indexes(
    made: Table,
    given: Mapping[str, Field],
    *,
    folded: Collection[str],
    parents: Mapping[str, Table],
    sorts: Sequence[str],
    filters: Sequence[str],
) -> None:
    """Add an index per sort, for both directions, and one per filter; `id` breaks ties."""
    name, c = made.name, made.c
    for one in sorts:
        Index(index_of(made, one), order(c[one], given.get(one)), c.id)
    ranges = [bound[4:] for bound in filters if bound not in given]
    for one in dict.fromkeys(ranges):
        if one not in sorts:
            Index(index_of(made, one), order(c[one], given[one]), c.id)
    for one in dict.fromkeys((*parents, *(n for n in filters if n in given))):
        field = given[one]
        if field.kind is bool or field.choices:
            _index_choices(made, field)
        elif (index := filter_index(made, field, sorts)) not in {i.name for i in made.indexes}:
            some: dict[str, Any] = (
                {"postgresql_where": text(f"{one} IS NOT NULL")} if field.null else {}
            )
            Index(index, c[one], c.id, **some)
    for one in folded:
        Index(f"{name}_{one}_key", func.lower(c[one]), unique=True)


def _index_choices(made: Table, field: Field) -> None:
    """Add a partial index per value; the default needs none, because it is frequent."""
    if field.name == ACTIVE:
        return
    for value in rare_values(field):
        where = (
            ("" if value else "NOT ") + field.name
            if field.kind is bool
            else f"{field.name} = {literal(value)}"
        )
        Index(choice_index(made, field, value), made.c.id, postgresql_where=text(where))
