"""A write of one row, plain or guarded by the versions at which it may happen."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct
from sqlalchemy import Delete, Table, Update, bindparam

from service.db.ownership import OWN, Owner
from service.db.row_changes import guarded
from service.db.shape import shape_of
from service.db.statement import Runner, Statement, columns

Row = TypeVar("Row", bound=Struct)


class Guard(NamedTuple):
    """The versions at which a row is written: one of `versions` (None: any), none of `excluded`."""

    versions: list[int] | None
    excluded: Sequence[int] = ()

    def allows(self, version: int) -> bool:
        """Whether a row of this version may be written."""
        allowed = self.versions is None or version in self.versions
        return allowed and version not in self.excluded


class Variant(Generic[Row]):
    """A write of the row with `id`, as two statements: plain, and only at versions of a guard.

    A table without a version has the plain one alone. With `owner` both have one more argument,
    and only write a row of this user; any other row does not exist for them.
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        table: Table,
        core: Update | Delete,
        owner: Owner | None = None,
    ) -> None:
        end, own, self.owner = "", [], ""
        returning: Any = core.where(table.c.id == bindparam("id"))
        if owner is not None:
            end, self.owner = OWN, owner.bind
            own = [owner.owns]
            returning = returning.where(*own)
        returning = returning.returning(*columns(row, table))
        self.plain = Statement(f"{name}{end}", row, returning, prepare=not own)
        self.guarded: Statement[Row] | None = None
        version = shape_of(table).version
        if version is not None:
            taken = {*self.plain.names, *row.__struct_fields__}
            guarded_, self.versions, self.excluded, found = guarded(
                returning, table, version, taken, *own
            )
            self.guarded = Statement(
                f"{name}_if{end}", row, guarded_, extra=(found,), prepare=not own
            )

    @property
    def statements(self) -> tuple[Statement[Row], ...]:
        """One or both."""
        return (self.plain,) if self.guarded is None else (self.plain, self.guarded)

    async def run(
        self, db: Runner, guard: Guard | None, values: Mapping[str, object]
    ) -> tuple[Row | None, int | None]:
        """See `Write.run`."""
        if guard is None:
            return await self.plain.one(db, **values), None
        if self.guarded is None:
            raise TypeError(f"{self.plain.name}: a table without a version has nothing to guard by")
        given = {**values, self.versions: guard.versions, self.excluded: guard.excluded}
        records = await self.guarded.records(db, **given)
        if not records:
            return None, None
        record = records[0]
        if record[0] is None:
            return None, record[self.guarded.width]
        return self.guarded.row(*record[: self.guarded.width]), None
