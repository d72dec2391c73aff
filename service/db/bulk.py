"""Many rows in one statement, all of them or none: upserted by a key, changed or removed by ids.

Every one of these locks the rows that it finds in the order of their ids, as `Writes` does, before
it writes any; new rows come after that, in the order of their keys. So writers of the same rows
wait for each other, but never in a circle. Ids follow the order in which new rows are given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    Table,
    any_,
    bindparam,
    cast,
    collate,
    exists,
    func,
    insert,
    literal_column,
    null,
    select,
    tuple_,
    union_all,
    update,
)

from service.db.batch import unnested
from service.db.changes import changing, deactivating, removing, touched
from service.db.database import Database
from service.db.statement import Statement, columns, next_id
from service.db.writable import WritableDatabase
from service.errors import Taken, Unavailable

Row = TypeVar("Row", bound=Struct)

# A row of ours that somebody else has just made costs one more run; more only if it goes and comes.
RUNS = 5


class Upserted(NamedTuple):
    """What became of a row that was given."""

    id: int
    version: int
    status: Literal["created", "updated", "unchanged"]


class Upsert:
    """Rows by a unique key: new ones are made, others set to what is given, equal ones left alone.

    There is no ON CONFLICT in it. It would draw an id for each row that is there already, and where
    a row came in between, after our snapshot, lock it out of turn. Such a row refuses the whole
    statement by its key instead; nothing was written, and it runs again with the row in sight.

    Args:
        new: the Struct of a row, whose fields are all set.
        key: the field.
        folded: whether the key is unique without regard to case.
    """

    def __init__(
        self, name: str, table: Table, new: type[Struct], key: str, *, folded: bool = False
    ) -> None:
        fields = new.__struct_fields__
        given = _given(table, fields)
        differs = tuple_(*(table.c[field] for field in fields)).is_distinct_from(
            tuple_(*(given.c[field] for field in fields))
        )
        stood = (
            select(*given.c, table.c.id, table.c.version, differs.label("differs"))
            .where(_folded(table.c[key], folded) == _folded(given.c[key], folded))
            .order_by(table.c.id)
            .with_for_update(of=table, key_share=True)
            .cte("stood")
        )
        updated = (
            update(table)
            .values(**{field: stood.c[field] for field in fields}, **touched(table))
            .where(table.c.id == stood.c.id, stood.c.differs)
            .cte("updated")
        )
        new_ = given.c.n.not_in(select(stood.c.n))
        inserted = (
            _inserting(table, given, fields, _key(key, folded=folded), new_)
            .returning(table.c.id, table.c[key])
            .cte("inserted")
        )
        version = stood.c.version + cast(stood.c.differs, Integer)
        self.key = key
        # No join at the end: PostgreSQL expects ten rows, and would compare each with each.
        self.statement = Statement(
            name,
            tuple,
            union_all(
                select(stood.c.id, stood.c[key], version.label("version"), stood.c.differs),
                select(inserted.c.id, inserted.c[key], literal_column("1"), cast(null(), Boolean)),
            ).add_cte(updated),
            prepare=False,
            numbered=True,
        )
        self.prepared = (self.statement,)

    async def run(self, db: WritableDatabase, rows: Sequence[Struct]) -> list[Upserted]:
        """What became of the rows, in their order; no two may have the same key.

        Raises:
            Problem: 409 and others; nothing was written.
        """
        if not rows:
            return []
        args = arrays(self.statement, rows)
        for run in range(RUNS):
            try:
                records = await db.fetch(self.statement, args)
            except Taken as taken_:
                # Such a row may be in the way by another unique field first, but not twice.
                if run and all(error.field != self.key for error in taken_.errors):
                    raise
            else:
                done = {key: (id_, version, differs) for id_, key, version, differs in records}
                return [_told(*done[getattr(row, self.key)]) for row in rows]
        raise Unavailable("others make and remove the same rows; try again")


class Adds(Generic[Row]):
    """New rows of one request.

    Args:
        new: the Struct of a row.
        key: its unique field, which may be null.
    """

    def __init__(
        self, name: str, row: type[Row], table: Table, new: type[Struct], key: str
    ) -> None:
        fields = new.__struct_fields__
        adding = _inserting(table, _given(table, fields), fields, _key(key, folded=False))
        self.place = row.__struct_fields__.index("id")
        self.statement = Statement(
            name, row, adding.returning(*columns(row, table)), prepare=False, numbered=True
        )
        self.prepared = (self.statement,)

    async def run(self, db: WritableDatabase, rows: Sequence[Struct]) -> list[Row]:
        """The rows as they were made, in their order.

        Raises:
            Problem: 409 and others; nothing was written.
        """
        records = await db.fetch(self.statement, arrays(self.statement, rows))
        made = sorted(records, key=lambda record: record[self.place])
        return [self.statement.row(*record) for record in made]


class Bulk:
    """Writes of the rows with `ids`, each giving the ids that were there.

    Args:
        change: the Struct that a change takes, the same for all.
    """

    def __init__(self, name: str, table: Table, change: type[Struct]) -> None:
        ids = bindparam("ids", type_=ARRAY(BigInteger))
        there = select(table.c.id).where(table.c.id == any_(ids)).order_by(table.c.id)

        def statement(what: str, write: Any, *only: ColumnElement[bool]) -> Statement[int]:
            stood = there.with_for_update(key_share=what != "remove").cte("stood")
            written = write.where(table.c.id == stood.c.id, *only).cte("written")
            core = select(stood.c.id).add_cte(written)
            return Statement(f"{name}.{what}_all", int, core, prepare=False)

        self.there = Statement(f"{name}.there", int, there, prepare=False)
        self.change = statement("change", changing(table, change))
        # Who is inactive already is there all the same, and is left alone.
        self.deactivate = statement("deactivate", deactivating(table), table.c.is_active)
        self.remove = statement("remove", removing(table))
        self.prepared = (self.there, self.change, self.deactivate, self.remove)


def taken(
    name: str, table: Table, field: str, *, folded: bool = False, key: str | None = None
) -> Statement[int]:
    """The places of values that another row has already; with `key`, a row of another key."""
    given = _given(table, (field,) if key is None else (field, key))
    others = [_folded(table.c[field], folded) == _folded(given.c[field], folded)]
    if key is not None:
        others.append(_folded(table.c[key], folded) != _folded(given.c[key], folded))
    return Statement(name, int, _places(given, exists().where(*others)), prepare=False)


def absent(name: str, table: Table, field: str, of: Table) -> Statement[int]:
    """The places of values that are no id of the other table."""
    given = _given(table, (field,))
    nobody = ~exists().where(of.c.id == given.c[field])
    core = _places(given, given.c[field].is_not(None), nobody)
    return Statement(name, int, core, prepare=False)


async def conflicting_rows(
    db: Database, statement: Statement[int], rows: Sequence[Struct]
) -> list[int]:
    """Where among the rows the values stand that a statement of `taken` or `absent` tells."""
    return [record[0] for record in await db.fetch(statement, arrays(statement, rows))]


def arrays(statement: Statement[Any], rows: Sequence[Struct]) -> list[list[object]]:
    """The rows as the arguments of a statement that takes an array of each field."""
    fields = [name.removesuffix("s") for name in statement.names]
    return [[getattr(row, field) for row in rows] for field in fields]


def _given(table: Table, fields: Sequence[str]) -> Any:
    kinds: Mapping[str, Any] = {field: table.c[field].type for field in fields}
    given = unnested(kinds)
    return select(*given.c).cte("rows")


def _key(key: str, *, folded: bool) -> Callable[[Any], ColumnElement[Any]]:
    return lambda rows: collate(_folded(rows.c[key], folded), "C")


def _inserting(
    table: Table,
    given: Any,
    fields: Sequence[str],
    key: Callable[[Any], ColumnElement[Any]],
    *where: ColumnElement[bool],
) -> Any:
    """Rows go in by their key, and have their ids by the order in which they were given."""
    some = select(*(given.c[field] for field in fields)).where(*where).order_by(given.c.n)
    rows = some.subquery("new")
    numbered = select(next_id(table).label("id"), *rows.c).cte("numbered")
    ordered = select(*numbered.c).order_by(key(numbered))
    return insert(table).from_select(["id", *fields], ordered)


def _places(given: Any, *where: ColumnElement[bool]) -> Any:
    return select((given.c.n - literal_column("1")).label("n")).where(*where).order_by(given.c.n)


def _folded(value: ColumnElement[Any], folded: bool) -> ColumnElement[Any]:
    return func.lower(value) if folded else value


def _told(id_: int, version: int, differs: bool | None) -> Upserted:
    if differs is None:
        return Upserted(id_, version, "created")
    return Upserted(id_, version, "updated" if differs else "unchanged")
