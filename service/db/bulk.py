"""Many rows in one statement, all of them or none: upserted by a key, changed or removed by ids.

Every one of these locks the rows that it finds in the order of their ids, as `Writes` does, before
it writes any; new rows come after that, in the order of their keys. So writers of the same rows
wait for each other, but never in a circle. Ids follow the order in which new rows are given.
"""

from collections.abc import Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    String,
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

from service.db.arrays import Arrays, arrays, unnested
from service.db.changes import changing, deactivating, removing, touched
from service.db.database import Database
from service.db.shape import check_fields, shape_of, unused
from service.db.statement import RefusedError, Statement, columns, next_id
from service.db.writable import WritableDatabase
from service.errors import Taken, Unavailable

Row = TypeVar("Row", bound=Struct)

# A row of ours that somebody else has just made costs one more run; more only if it goes and comes.
RUNS = 5


class Upserted(NamedTuple):
    """What became of a row that was given."""

    id: int
    version: Any  # a number; None if the table has none
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
        check_fields(table, fields)
        arrays = _given(table, fields)
        given, version = arrays.rows, shape_of(table).version
        # Beside the fields, whose names are the client's.
        differs_, id_, version_ = (unused(n, given.c) for n in ("differs", "id", "version"))
        differs = tuple_(*(table.c[field] for field in fields)).is_distinct_from(
            tuple_(*(given.c[field] for field in fields))
        )
        beside = [table.c.id.label(id_), differs.label(differs_)]
        if version is not None:
            beside.insert(1, version.label(version_))
        stood = (
            select(*given.c, *beside)
            .where(fold_case(table.c[key], folded) == fold_case(given.c[key], folded))
            .order_by(table.c.id)
            .with_for_update(of=table, key_share=True)
            .cte("stood")
        )
        updated = (
            update(table)
            .values({**{field: stood.c[field] for field in fields}, **touched(table)})
            .where(table.c.id == stood.c[id_], stood.c[differs_])
            .cte("updated")
        )
        new_ = arrays.place.not_in(select(stood.c[arrays.n]))
        inserted = (
            _inserting(table, arrays, fields, key, new_, folded=folded)
            .returning(table.c.id, table.c[key])
            .cte("inserted")
        )
        versions: list[ColumnElement[Any]] = [cast(null(), BigInteger), cast(null(), BigInteger)]
        if version is not None:
            after = stood.c[version_] + cast(stood.c[differs_], Integer)
            versions = [after, literal_column("1")]
        self.key = key
        # No join at the end: PostgreSQL expects ten rows, and would compare each with each.
        self.statement = Statement(
            name,
            tuple,
            union_all(
                select(stood.c[id_], stood.c[key], versions[0].label("version"), stood.c[differs_]),
                select(inserted.c.id, inserted.c[key], versions[1], cast(null(), Boolean)),
            ).add_cte(updated),
            arrays=arrays.binds,
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
        key: its unique field, which may be null, if it has one.
        folded: whether the key is unique without regard to case.
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        table: Table,
        new: type[Struct],
        key: str | None,
        *,
        folded: bool = False,
    ) -> None:
        fields = new.__struct_fields__
        check_fields(table, fields)
        arrays = _given(table, fields)
        adding = _inserting(table, arrays, fields, key, folded=folded)
        self.place = row.__struct_fields__.index("id")
        self.statement = Statement(
            name,
            row,
            adding.returning(*columns(row, table)),
            arrays=arrays.binds,
            prepare=False,
            numbered=True,
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

        self.name = name
        self.there = Statement(f"{name}.there", int, there, prepare=False)
        self.change = statement("change", changing(table, change))
        self.remove = statement("remove", removing(table))
        active = shape_of(table).active
        # A row that is inactive already is found all the same, and is left alone.
        self._deactivate = (
            None if active is None else statement("deactivate", deactivating(table), active)
        )
        every = (self.there, self.change, self._deactivate, self.remove)
        self.prepared = tuple(one for one in every if one is not None)

    @property
    def deactivate(self) -> Statement[int]:
        """The soft delete.

        Raises:
            RefusedError: the table has none.
        """
        if self._deactivate is None:
            raise RefusedError(f"{self.name}: no column says whether a row is active, see shape.py")
        return self._deactivate


def taken(
    name: str, table: Table, field: str, *, folded: bool = False, key: str | None = None
) -> Statement[int]:
    """The places of values that another row has already; with `key`, a row of another key."""
    arrays = _given(table, (field,) if key is None else (field, key))
    given = arrays.rows
    others = [fold_case(table.c[field], folded) == fold_case(given.c[field], folded)]
    if key is not None:
        others.append(fold_case(table.c[key], folded) != fold_case(given.c[key], folded))
    return _places(name, arrays, exists().where(*others))


def absent(name: str, table: Table, field: str, of: Table) -> Statement[int]:
    """The places of values that are no id of the other table."""
    arrays = _given(table, (field,))
    value = arrays.rows.c[field]
    return _places(name, arrays, value.is_not(None), ~exists().where(of.c.id == value))


async def conflicting_rows(
    db: Database, statement: Statement[int], rows: Sequence[Struct]
) -> list[int]:
    """Where among the rows the values stand that a statement of `taken` or `absent` tells."""
    return [record[0] for record in await db.fetch(statement, arrays(statement, rows))]


def _given(table: Table, fields: Sequence[str]) -> Arrays:
    return unnested({field: table.c[field].type for field in fields}).cte()


def _inserting(
    table: Table,
    arrays: Arrays,
    fields: Sequence[str],
    key: str | None,
    *where: ColumnElement[bool],
    folded: bool,
) -> Any:
    """Rows go in by their key, and have their ids by the order in which they were given."""
    given = (arrays.rows.c[field] for field in fields)
    rows = select(*given).where(*where).order_by(arrays.place).subquery("new")
    numbered = select(next_id(table).label("id"), *rows.c).cte("numbered")
    ordered = select(*numbered.c)
    if key is not None:
        ordered = ordered.order_by(lock_order(numbered.c[key], folded=folded))
    return insert(table).from_select(["id", *fields], ordered)


def _places(name: str, arrays: Arrays, *where: ColumnElement[bool]) -> Statement[int]:
    place = arrays.place
    core = select((place - literal_column("1")).label("n")).where(*where).order_by(place)
    return Statement(name, int, core, arrays=arrays.binds, prepare=False)


def lock_order(key: ColumnElement[Any], *, folded: bool) -> ColumnElement[Any]:
    """What new rows are sorted by, so that those who insert the same keys lock them alike."""
    return collate(fold_case(key, folded), "C") if isinstance(key.type, String) else key


def fold_case(value: ColumnElement[Any], folded: bool) -> ColumnElement[Any]:
    return func.lower(value) if folded else value


def _told(id_: int, version: int | None, differs: bool | None) -> Upserted:
    if differs is None:
        return Upserted(id_, version, "created")
    return Upserted(id_, version, "updated" if differs else "unchanged")
