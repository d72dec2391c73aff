"""The statements of a staging table: what its rows are checked, locked and written by."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Index,
    String,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.schema import CreateIndex, CreateTable

from service.db.arrays import fold_case, lock_order
from service.db.ownership import OWN, Owner
from service.db.row_changes import touched
from service.db.shape import part, shape_of, unused
from service.db.statement import DIALECT, Statement, quoted, sequence_of

# Rejected rows that are reported one by one.
MAX_REPORTED = 100
# Rows that a statement upserts: more make no row cheaper (`python -m bench trials multi-row`), and
# its triggers keep each row until it ends.
BATCH = 20_000


class RejectedRow(NamedTuple):
    """A row that can't be written, as a statement finds it.

    Args:
        line: in the file.
        value: the one that is wrong.
        first: the line before it that has the same value, if that is why.
        alike: how many rows are rejected for the same reason.
    """

    line: int
    value: str
    first: int | None
    alike: int


class Rejected(NamedTuple):
    """A line that can't be written, with what is wrong, and how many are rejected for `why`."""

    line: int
    message: str
    why: str
    alike: int


class Merged(NamedTuple):
    """How many rows of a batch were given, created and written; the next begins after `last`."""

    given: int
    created: int
    written: int
    last: Any


def creating(stage: Table, table: Table) -> str:
    """The SQL that creates the staging table. Its ids are from the sequence of the other table.

    The name of that sequence is looked up once, and not for each row.
    """
    create = str(CreateTable(stage).compile(dialect=DIALECT)).strip().replace("%", "%%")
    alter = f"ALTER TABLE {quoted(stage)} ALTER id SET DEFAULT nextval(%L)"
    return (
        f"DO $do$ BEGIN EXECUTE format($sql$\n{create};\n{alter}\n$sql$,"
        f" {sequence_of(table)}); END $do$"
    )


def held(name: str, field: ColumnElement[Any], parent: ColumnElement[Any]) -> Statement[int]:
    """Rows that ours refer to are locked now; the foreign key would lock them later."""
    rows = (
        select(parent)
        .where(parent.in_(select(field)))
        .order_by(parent)
        .with_for_update(read=True, key_share=True)
        .subquery("held")
    )
    return Statement(name, int, select(func.count().label("held")).select_from(rows), prepare=False)


def orphans(
    name: str, n: ColumnElement[Any], this: ColumnElement[Any], parent: ColumnElement[Any]
) -> Statement[RejectedRow]:
    """Rows that refer to a row that does not exist are deleted."""
    nothing = literal_column("null", BigInteger)
    return _rejecting(name, n, this, nothing, this.is_not(null()), ~exists().where(parent == this))


def _rejecting(
    name: str,
    n: ColumnElement[Any],
    value: ColumnElement[Any],
    first: ColumnElement[Any],
    *where: ColumnElement[bool],
) -> Statement[RejectedRow]:
    """Delete rows; return how many, and the first of them."""
    gone = (
        delete(n.table)
        .where(*where)
        .returning(n.label("n"), value.label("value"), first.label("first"))
    )
    rows = gone.cte("gone")
    reported = (
        select(
            rows.c.n,
            cast(rows.c.value, Text).label("value"),
            rows.c.first,
            func.count().over().label("alike"),
        )
        .order_by(rows.c.n)
        .limit(literal_column(str(MAX_REPORTED)))
    )
    return Statement(name, RejectedRow, reported, prepare=False)


class Merging(NamedTuple):
    """The statements that move the rows of a staging table into their table.

    With `owner` they are limited to the rows of a user, and there is `foreign`.
    """

    name: str
    stage: Table
    table: Table
    fields: Sequence[str]
    n: str
    key: str | None
    folded: bool
    owner: Owner | None = None

    def repeated(self, key: str) -> Statement[RejectedRow]:
        """Of lines with the same key all but the first are deleted."""
        stage = self.stage
        same = fold_case(stage.c[key], self.folded)
        firsts = (
            select(same.label("key"), func.min(stage.c[self.n]).label("first"))
            .where(stage.c[key].is_not(null()))
            .group_by(same)
            .having(func.count() > literal_column("1"))
            .cte("firsts")
        )
        return _rejecting(
            f"{self.name}.repeated",
            stage.c[self.n],
            stage.c[key],
            firsts.c.first,
            same == firsts.c.key,
            stage.c[self.n] != firsts.c.first,
        )

    def foreign(self, key: str) -> Statement[RejectedRow]:
        """Lines with the key of a row of another user are deleted."""
        assert self.owner is not None  # noqa: S101 - the caller has looked
        stage, owner = self.stage, self.owner
        same = fold_case(self.table.c[key], self.folded) == fold_case(stage.c[key], self.folded)
        return _rejecting(
            f"{self.name}.foreign{OWN}",
            stage.c[self.n],
            stage.c[key],
            literal_column("null", BigInteger),
            exists().where(same, owner.is_foreign),
        )

    def indexing(self, key: str) -> str:
        """The SQL of the index by which batches find their rows."""
        order = lock_order(self.stage.c[key], folded=self.folded)
        return str(CreateIndex(Index(f"{self.stage.name}_key", order)).compile(dialect=DIALECT))

    def locked(self, key: str) -> Statement[int]:
        """Existing rows, in the order of their ids."""
        table = self.table
        rows = (
            select(table.c.id)
            .where(
                fold_case(table.c[key], self.folded) == fold_case(self.stage.c[key], self.folded),
                *([] if self.owner is None else [self.owner.owns]),
            )
            .order_by(table.c.id)
            .with_for_update(of=table, key_share=True)
            .subquery("locked")
        )
        counted = select(func.count().label("locked")).select_from(rows)
        return Statement(f"{self.name}.locked{self._end}", int, counted, prepare=False)

    def merging(self, key: str | None = None) -> Statement[Merged]:
        """Upsert a batch of rows after `after`: by their keys, or those without a key by line."""
        stage, table, fields = self.stage, self.table, self.fields
        order = stage.c[self.n] if key is None else lock_order(stage.c[key], folded=self.folded)
        column = stage.c[self.n if key is None else key]  # lower() of it has no type
        kind = Text() if isinstance(column.type, String) else column.type
        after = bindparam("after", type_=kind)
        place = unused("place", ("id", *fields))
        rows = (
            select(stage.c.id, *(stage.c[field] for field in fields), order.label(place))
            .where(or_(after.is_(null()), order > after))
            .order_by(order)
            .limit(literal_column(str(BATCH)))
        )
        if key is not None:
            rows = rows.where(stage.c[key].is_not(null()))
        elif self.key is not None:
            rows = rows.where(stage.c[self.key].is_(null()))
        batch = rows.cte(part("batch", table))
        given = ["id", *fields]
        adding = insert(table).from_select(
            given, select(*(batch.c[field] for field in given)).order_by(batch.c[place])
        )
        if key is not None:
            adding = self._changing(adding, key)
        version = shape_of(table).version
        written = adding.returning(table.c.id if version is None else version).cte(
            part("written", table)
        )
        # A new row has the id of its line, and version 1.
        new: ColumnElement[bool]
        if version is None:
            new = exists().where(batch.c.id == written.c.id)
        else:
            new = written.c[version.name] == literal_column("1")
        counted: Any = select(
            select(func.count()).select_from(batch).scalar_subquery().label("given"),
            func.count().filter(new).label("created"),
            func.count().label("written"),
            select(func.max(batch.c[place])).scalar_subquery().label("last"),
        ).select_from(written)
        name = f"{self.name}.keyless" if key is None else f"{self.name}.keyed{self._end}"
        return Statement(name, Merged, counted, prepare=False, numbered=True)

    def _changing(self, adding: Any, key: str) -> Any:
        """The same INSERT, which sets an existing row to what is given where it differs.

        A row that it does not set for its owner is locked all the same, so `foreign` finds it.
        """
        table, excluded, owner = self.table, adding.excluded, self.owner
        kept = frozenset[str]() if owner is None else owner.admin_fields
        others = [
            field for field in self.fields if (self.folded or field != key) and field not in kept
        ]
        if not others:
            return adding.on_conflict_do_nothing(index_elements=[table.c[key]])
        differs = tuple_(*(table.c[field] for field in others)).is_distinct_from(
            tuple_(*(excluded[field] for field in others))
        )
        return adding.on_conflict_do_update(
            index_elements=[fold_case(table.c[key], self.folded)],
            set_={**{field: excluded[field] for field in others}, **touched(table)},
            where=differs if owner is None else and_(differs, owner.owns),
        )

    @property
    def _end(self) -> str:
        return "" if self.owner is None else OWN
