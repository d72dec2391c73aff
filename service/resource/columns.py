"""Derive the table of a declaration: columns, constraints, indexes, and the order of each sort.

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
from service.db.statement import DIALECT, RefusedError
from service.resource.fields import Field, Time

# PostgreSQL truncates longer names.
NAME_BYTES = 63
# Quotes names that are SQL keywords, such as `order` and `user`.
quoted = DIALECT.identifier_preparer.quote
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
    """Return the table with its constraints and the indexes of its lists.

    Raises:
        RefusedError: a name is too long.
    """
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
    for part in (made, *made.columns, *made.constraints, *made.indexes):
        if len(str(part.name).encode()) > NAME_BYTES:
            raise RefusedError(
                f"{name}: the name {part.name!r} is longer than PostgreSQL's {NAME_BYTES} bytes:"
                " use a shorter name for the field or the resource"
            )
    return made


def order(column: Column[Any], field: Field | None) -> ColumnElement[Any]:
    """Return the sort expression: strings by bytes, not by locale; never null.

    So the order is the same on every machine, and indexes stay valid after an update of libc.
    """
    plain: ColumnElement[Any] = collate(column, "C") if isinstance(column.type, Text) else column
    if field is None or not field.null:
        return plain
    last = getattr(field.own, "LAST", None) or LAST[field.kind]
    if isinstance(column.type, Text):
        return collate(func.coalesce(column, literal_column(last)), "C")
    return func.coalesce(column, literal_column(last))


def index_of(table: Table, name: str) -> str:
    """Return the name of the index of a sort or a filter of a field."""
    return f"{table.name}_{name}_idx"


def choice_index(table: Table, given: Mapping[str, Field], field: Field, value: object) -> str:
    """Return the name of the partial index of a value that is not the default.

    The name has only the value, unless another field or value has the same word.
    """
    if field.name == ACTIVE:
        return f"{table.name}_inactive_idx"
    if field.kind is bool:
        return index_of(table, field.name)
    word = str(value).lower()
    words = [str(one).lower() for other in given.values() for one in other.choices]
    alone = words.count(word) == 1 and word not in {*table.c.keys(), "search", "inactive"}
    return index_of(table, word if alone else f"{field.name}_{value}")


def rare_values(field: Field) -> list[object]:
    """Return the rare values of a filter with few values: all except the default."""
    if field.kind is bool:
        return [not field.default]
    return [value for value in field.choices if field.required or value != field.default]


def filter_index(table: Table, field: Field, sorts: Collection[str]) -> str:
    """Return the name of the index of a filter by value; the index of the sort if it is equal."""
    other = field.name in sorts and (field.null or field.kind is str)
    return f"{table.name}_{field.name}_eq_idx" if other else index_of(table, field.name)


def stamps(*, versioned: bool, stamped: bool) -> list[Column[Any]]:
    """Return the columns that the database and the statements set."""
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
    column = quoted(field.name)
    own = getattr(field.own, "CHECK", None)
    if own is not None:
        return str(own).format(column)
    if field.choices:
        values = ", ".join(literal(value) for value in field.choices)
        return f"{column} IN ({values})"
    meta = field.meta
    if field.kind is str:
        return _between(f"length({column})", meta.min_length, meta.max_length)
    strict = [
        f"{column} {sign} {bound}"
        for sign, bound in ((">", meta.gt), ("<", meta.lt))
        if bound is not None
    ]
    loose = _between(column, meta.ge, meta.le)
    rules = [*strict, *([loose] if loose else [])]
    return " AND ".join(rules) or None


def _between(what: str, low: float | None, high: float | None) -> str | None:
    if low is not None and high is not None:
        return f"{what} BETWEEN {low} AND {high}"
    if high is not None:
        return f"{what} <= {high}"
    return None if low is None else f"{what} >= {low}"


def literal(value: object) -> str:
    """Return a value of a Literal in SQL."""
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
    """Add one index per sort (read in both directions) and per filter; `id` breaks ties."""
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
            _index_choices(made, given, field)
        elif (index := filter_index(made, field, sorts)) not in {i.name for i in made.indexes}:
            some: dict[str, Any] = (
                {"postgresql_where": text(f"{quoted(one)} IS NOT NULL")} if field.null else {}
            )
            Index(index, c[one], c.id, **some)
    for one in folded:
        Index(f"{name}_{one}_key", func.lower(c[one]), unique=True)


def _index_choices(made: Table, given: Mapping[str, Field], field: Field) -> None:
    """Add an index per value; the default needs none, because most rows have it."""
    if field.name == ACTIVE:
        return
    for value in rare_values(field):
        where = (
            ("" if value else "NOT ") + quoted(field.name)
            if field.kind is bool
            else f"{quoted(field.name)} = {literal(value)}"
        )
        Index(choice_index(made, given, field, value), made.c.id, postgresql_where=text(where))
