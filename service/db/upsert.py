"""Rows upserted by a unique key, in one statement: all of them or none.

It locks existing rows in the order of their ids and inserts new rows in the order of their keys, as
the other writes of many rows do, see bulk.py.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    Table,
    cast,
    literal_column,
    null,
    select,
    tuple_,
    union_all,
    update,
)

from service.db.arrays import arrays, fold_case, given_rows
from service.db.bulk import inserting
from service.db.conflicts import conflicting_rows, foreign_values
from service.db.ownership import OWN, Owner
from service.db.row_changes import touched
from service.db.shape import check_fields, part, shape_of, unused
from service.db.statement import Statement
from service.db.writable import WritableDatabase
from service.errors import Taken, Unavailable
from service.slices import MANY_ROWS, next_slice, sliced

# An upsert runs again when another transaction has inserted one of its keys since it began. One
# more run is enough, unless that row is removed and inserted again.
RUNS = 5


Status = Literal["created", "updated", "unchanged"]
# By whether the row that existed differed; None if there was none.
_STATUSES: dict[bool | None, Status] = {None: "created", True: "updated", False: "unchanged"}


class Upserted(NamedTuple):
    """The result for one given row."""

    id: int
    version: Any  # a number; None if the table has none
    status: Status


class Upsert:
    """Rows by a unique key: new ones are made, others set to what is given, equal ones left alone.

    It has no ON CONFLICT, which would use up an id for each existing row, and would lock a row that
    another transaction inserts after our snapshot in the wrong order. Instead such a row fails the
    whole statement by its key: nothing was written, and it runs again and finds the row.

    Limited to an owner, it finds rows of this user only, so a row of another user fails it too.

    Args:
        name: of the statement.
        table: where the rows go.
        new: the Struct of a row, whose fields are all set; an owner keeps the `admin_fields`.
        key: the field.
        folded: whether the key is unique without regard to case.
        owner: of the table's rows, if they have one.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        new: type[Struct],
        key: str,
        *,
        folded: bool = False,
        owner: Owner | None = None,
    ) -> None:
        check_fields(table, new.__struct_fields__)
        self.key = key
        self.statement = _statement(name, table, new, key, folded, None)
        self.own: Statement[Any] | None = None
        self.foreign: Statement[int] | None = None
        self.bind = ""
        if owner is not None:
            self.bind = owner.bind
            self.own = _statement(name, table, new, key, folded, owner)
            self.foreign = foreign_values(f"{name}_taken{OWN}", table, key, owner, folded=folded)
        every = (self.statement, self.own, self.foreign)
        self.prepared = tuple(one for one in every if one is not None)

    async def run(
        self, db: WritableDatabase, rows: Sequence[Struct], owner: int | None = None
    ) -> list[Upserted]:
        """The results for the rows, in their order; no two may have the same key.

        Args:
            db: the database.
            rows: what is given.
            owner: the user to whom the rows must belong; None for any.

        Raises:
            Problem: 409 and others; nothing was written.
        """
        if not rows:
            return []
        statement, given = self.statement, {}
        if owner is not None and self.own is not None:
            statement, given = self.own, {self.bind: owner}
        await next_slice()
        args = arrays(statement, rows, **given)
        for run in range(RUNS):
            await next_slice()
            try:
                records = await db.fetch(statement, args)
            except Taken as taken:
                by_key = any(error.field == self.key for error in taken.errors)
                # The new row may conflict by another unique field first, but not twice.
                if run and not by_key:
                    raise
                if given and by_key and await self.foreign_rows(db, rows, owner):
                    raise
            else:
                return await self._results(records, rows)
        raise Unavailable("other requests insert and remove the same rows; try again")

    async def _results(
        self, records: Sequence[Sequence[Any]], rows: Sequence[Struct]
    ) -> list[Upserted]:
        """The results in the order of the rows."""
        done: dict[Any, Upserted] = {}
        for some in sliced(records, MANY_ROWS):
            await next_slice()
            for id_, key, version, differs in some:
                done[key] = Upserted(id_, version, _STATUSES[differs])
        return [done[key] for key in map(attrgetter(self.key), rows)]

    async def foreign_rows(self, db: Any, rows: Sequence[Struct], owner: int | None) -> list[int]:
        """The places of the rows whose key a row of another user has."""
        if self.foreign is None:
            return []
        return await conflicting_rows(db, self.foreign, rows, **{self.bind: owner})


def _statement(
    name: str, table: Table, new: type[Struct], key: str, folded: bool, owner: Owner | None
) -> Statement[Any]:
    fields = new.__struct_fields__
    arrays = given_rows(table, fields)
    given, version = arrays.rows, shape_of(table).version
    kept = frozenset[str]() if owner is None else owner.admin_fields
    set_ = [field for field in fields if field not in kept]
    # Columns beside the fields, which may have any names.
    differs_, id_, version_ = (unused(n, given.c) for n in ("differs", "id", "version"))
    differs = tuple_(*(table.c[field] for field in set_)).is_distinct_from(
        tuple_(*(given.c[field] for field in set_))
    )
    beside = [table.c.id.label(id_), differs.label(differs_)]
    if version is not None:
        beside.insert(1, version.label(version_))
    own = [] if owner is None else [owner.owns]
    existing = (
        select(*given.c, *beside)
        .where(fold_case(table.c[key], folded) == fold_case(given.c[key], folded), *own)
        .order_by(table.c.id)
        .with_for_update(of=table, key_share=True)
        .cte(part("existing", table))
    )
    updated = (
        update(table)
        .values({**{field: existing.c[field] for field in set_}, **touched(table)})
        .where(table.c.id == existing.c[id_], existing.c[differs_])
        .cte(part("updated", table))
    )
    new_ = arrays.place.not_in(select(existing.c[arrays.n]))
    inserted = (
        inserting(table, arrays, fields, key, new_, folded=folded)
        .returning(table.c.id, table.c[key])
        .cte(part("inserted", table))
    )
    versions: list[ColumnElement[Any]] = [cast(null(), BigInteger), cast(null(), BigInteger)]
    if version is not None:
        after = existing.c[version_] + cast(existing.c[differs_], Integer)
        versions = [after, literal_column("1")]
    # No join at the end: PostgreSQL expects ten rows, and would compare each with each.
    core = union_all(
        select(
            existing.c[id_],
            existing.c[key],
            versions[0].label("version"),
            existing.c[differs_],
        ),
        select(inserted.c.id, inserted.c[key], versions[1], cast(null(), Boolean)),
    ).add_cte(updated)
    end = "" if owner is None else OWN
    return Statement(
        f"{name}{end}",
        tuple,
        core,
        arrays=arrays.binds,
        as_text=arrays.as_text,
        prepare=False,
        numbered=True,
    )
