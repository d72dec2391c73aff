"""Many rows in one statement, all of them or none: upserted by a key, changed or removed by ids.

Each statement locks existing rows in the order of their ids, as `Writes` does, before it writes
any; then it inserts new rows in the order of their keys. So writers of the same rows wait for each
other, but never in a circle. New rows have their ids in the order in which they are given.
docs/decisions/multi-row-statements.md says why some statements exist twice.
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
    Table,
    any_,
    bindparam,
    cast,
    insert,
    literal_column,
    null,
    select,
    tuple_,
    union_all,
    update,
)

from service.db.arrays import Arrays, arrays, fold_case, given_rows, lock_order
from service.db.changes import changing, deactivating, removing, touched
from service.db.shape import check_fields, part, shape_of, unused
from service.db.statement import RefusedError, Statement, columns, next_id
from service.db.writable import WritableDatabase
from service.errors import Taken, Unavailable

Row = TypeVar("Row", bound=Struct)

# An upsert runs again when another transaction has inserted one of its keys since it began. One
# more run is enough, unless that row is removed and inserted again.
RUNS = 5


class Upserted(NamedTuple):
    """The result for one given row."""

    id: int
    version: Any  # a number; None if the table has none
    status: Literal["created", "updated", "unchanged"]


class Upsert:
    """Rows by a unique key: new ones are made, others set to what is given, equal ones left alone.

    It has no ON CONFLICT, which would use up an id for each existing row, and would lock a row that
    another transaction inserts after our snapshot in the wrong order. Instead such a row fails the
    whole statement by its key: nothing was written, and it runs again and finds the row.

    Args:
        name: of the statement.
        table: where the rows go.
        new: the Struct of a row, whose fields are all set.
        key: the field.
        folded: whether the key is unique without regard to case.
    """

    def __init__(
        self, name: str, table: Table, new: type[Struct], key: str, *, folded: bool = False
    ) -> None:
        fields = new.__struct_fields__
        check_fields(table, fields)
        arrays = given_rows(table, fields)
        given, version = arrays.rows, shape_of(table).version
        # Columns beside the fields, which may have any names.
        differs_, id_, version_ = (unused(n, given.c) for n in ("differs", "id", "version"))
        differs = tuple_(*(table.c[field] for field in fields)).is_distinct_from(
            tuple_(*(given.c[field] for field in fields))
        )
        beside = [table.c.id.label(id_), differs.label(differs_)]
        if version is not None:
            beside.insert(1, version.label(version_))
        existing = (
            select(*given.c, *beside)
            .where(fold_case(table.c[key], folded) == fold_case(given.c[key], folded))
            .order_by(table.c.id)
            .with_for_update(of=table, key_share=True)
            .cte(part("existing", table))
        )
        updated = (
            update(table)
            .values({**{field: existing.c[field] for field in fields}, **touched(table)})
            .where(table.c.id == existing.c[id_], existing.c[differs_])
            .cte(part("updated", table))
        )
        new_ = arrays.place.not_in(select(existing.c[arrays.n]))
        inserted = (
            _inserting(table, arrays, fields, key, new_, folded=folded)
            .returning(table.c.id, table.c[key])
            .cte(part("inserted", table))
        )
        versions: list[ColumnElement[Any]] = [cast(null(), BigInteger), cast(null(), BigInteger)]
        if version is not None:
            after = existing.c[version_] + cast(existing.c[differs_], Integer)
            versions = [after, literal_column("1")]
        self.key = key
        # No join at the end: PostgreSQL expects ten rows, and would compare each with each.
        self.statement = Statement(
            name,
            tuple,
            union_all(
                select(
                    existing.c[id_],
                    existing.c[key],
                    versions[0].label("version"),
                    existing.c[differs_],
                ),
                select(inserted.c.id, inserted.c[key], versions[1], cast(null(), Boolean)),
            ).add_cte(updated),
            arrays=arrays.binds,
            prepare=False,
            numbered=True,
        )
        self.prepared = (self.statement,)

    async def run(self, db: WritableDatabase, rows: Sequence[Struct]) -> list[Upserted]:
        """The results for the rows, in their order; no two may have the same key.

        Raises:
            Problem: 409 and others; nothing was written.
        """
        if not rows:
            return []
        args = arrays(self.statement, rows)
        for run in range(RUNS):
            try:
                records = await db.fetch(self.statement, args)
            except Taken as taken:
                # The new row may conflict by another unique field first, but not twice.
                if run and all(error.field != self.key for error in taken.errors):
                    raise
            else:
                done = {key: (id_, version, differs) for id_, key, version, differs in records}
                return [_result(*done[getattr(row, self.key)]) for row in rows]
        raise Unavailable("other requests insert and remove the same rows; try again")


class Adds(Generic[Row]):
    """New rows of one request.

    Args:
        name: of the statement.
        row: the Struct of a row as it was made.
        table: where the rows go.
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
        arrays = given_rows(table, fields)
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
    """Writes of the rows with `ids`; each returns the ids that exist.

    Args:
        name: of the statements: `<name>.change_all`, ….
        table: has a column `id`.
        change: the Struct that a change takes, the same for all.
    """

    def __init__(self, name: str, table: Table, change: type[Struct]) -> None:
        ids = bindparam("ids", type_=ARRAY(BigInteger))
        existing = select(table.c.id).where(table.c.id == any_(ids)).order_by(table.c.id)

        def statement(what: str, write: Any, *only: ColumnElement[bool]) -> Statement[int]:
            locked = existing.with_for_update(key_share=what != "remove").cte(
                part("existing", table)
            )
            written = write.where(table.c.id == locked.c.id, *only).cte(part("written", table))
            core = select(locked.c.id).add_cte(written)
            return Statement(f"{name}.{what}_all", int, core, prepare=False)

        self.name = name
        self.existing = Statement(f"{name}.existing", int, existing, prepare=False)
        self.change = statement("change", changing(table, change))
        self.remove = statement("remove", removing(table))
        active = shape_of(table).active
        # A row that is inactive already is found all the same, and is left alone.
        self._deactivate = (
            None if active is None else statement("deactivate", deactivating(table), active)
        )
        every = (self.existing, self.change, self._deactivate, self.remove)
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


def _inserting(
    table: Table,
    arrays: Arrays,
    fields: Sequence[str],
    key: str | None,
    *where: ColumnElement[bool],
    folded: bool,
) -> Any:
    """Rows are inserted in the order of their keys; their ids are in the order given."""
    given = (arrays.rows.c[field] for field in fields)
    rows = select(*given).where(*where).order_by(arrays.place).subquery("new")
    numbered = select(next_id(table).label("id"), *rows.c).cte(part("numbered", table))
    ordered = select(*numbered.c)
    if key is not None:
        ordered = ordered.order_by(lock_order(numbered.c[key], folded=folded))
    return insert(table).from_select(["id", *fields], ordered)


def _result(id_: int, version: int | None, differs: bool | None) -> Upserted:
    if differs is None:
        return Upserted(id_, version, "created")
    return Upserted(id_, version, "updated" if differs else "unchanged")
