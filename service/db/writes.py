"""Writes of a row: replace, change, deactivate and remove, each also guarded by a version."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct
from sqlalchemy import Delete, Table, Update, bindparam

from service.db.batch import COMMITS, WRITES
from service.db.batcher import Batcher, Waiter, bisect_on_error
from service.db.changes import changing, deactivating, guarded, merging, removing, replacing
from service.db.shape import shape_of
from service.db.statement import RefusedError, Runner, Statement, columns
from service.db.writable import WritableDatabase

Row = TypeVar("Row", bound=Struct)


class Guard(NamedTuple):
    """The versions at which a row is written: one of `versions` (None: any), none of `excluded`."""

    versions: list[int] | None
    excluded: Sequence[int] = ()

    def allows(self, version: int) -> bool:
        """Whether a row of this version may be written."""
        allowed = self.versions is None or version in self.versions
        return allowed and version not in self.excluded


class Write(Generic[Row]):
    """A write of the row with `id`, as two statements: plain, and only at versions of a guard.

    A table without a version has the plain one alone. `merged` gives the write as a change for
    `Writes.many`, from its own arguments; None if it is none.
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        table: Table,
        core: Update | Delete,
        *,
        among: "Writes[Row]",
        merged: Callable[[Mapping[str, Any]], Mapping[str, object]] | None = None,
    ) -> None:
        returning: Any = core.where(table.c.id == bindparam("id")).returning(*columns(row, table))
        self.plain = Statement(name, row, returning)
        self.guarded: Statement[Row] | None = None
        version = shape_of(table).version
        if version is not None:
            taken = {*self.plain.names, *row.__struct_fields__}
            guarded_, self.versions, self.excluded, found = guarded(
                returning, table, version, taken
            )
            self.guarded = Statement(f"{name}_if", row, guarded_, extra=(found,))
        self.among = among
        self.merged = merged

    @property
    def prepared(self) -> tuple[Statement[Row], ...]:
        """Its statements."""
        return (self.plain,) if self.guarded is None else (self.plain, self.guarded)

    async def run(
        self, db: WritableDatabase, guard: Guard | None, /, **values: object
    ) -> tuple[Row | None, int | None]:
        """The row after the write, or None; and the version of the row if the guard refused it.

        Raises:
            Problem: for this write alone, also when others shared its statement.
        """
        return await self.among.run(db, self, guard, values)

    async def run_one(
        self, db: Runner, guard: Guard | None, values: Mapping[str, object]
    ) -> tuple[Row | None, int | None]:
        """As `run`, by a statement of its own."""
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


class _Call(NamedTuple):
    """A write that waits."""

    write: Write[Any]
    guard: Guard | None
    values: Mapping[str, Any]

    @property
    def mergeable(self) -> bool:
        """Whether `Writes.many` can do it: a change, guarded by one version at most."""
        if self.write.merged is None:
            return False
        guard = self.guard
        if guard is None:
            return True
        return guard.versions is not None and len(guard.versions) == 1 and not guard.excluded


class Writes(Generic[Row]):
    """Every write of a row: replace, change, deactivate, remove.

    They share one batcher: writes of one row run in the order in which they came, each after the
    answer to the one before. Changes of different rows share one statement and so one commit,
    whichever fields each of them sets.

    Args:
        name: of the statements: `<name>.replace`, `<name>.change`, ….
        row: the Struct of a row.
        table: has a column `id`; see shape.py for others that are optional.
        new: the Struct that a replacement takes.
        change: the Struct that a change takes.
    """

    def __init__(
        self, name: str, row: type[Row], table: Table, new: type[Struct], change: type[Struct]
    ) -> None:
        self.name = name
        self.fields = change.__struct_fields__
        self.place = row.__struct_fields__.index("id")
        shape = shape_of(table)
        self.active = None if shape.active is None else shape.active.name
        all_ = self._all if set(self.fields) == set(new.__struct_fields__) else None
        self.replace = Write(
            f"{name}.replace", row, table, replacing(table, new), among=self, merged=all_
        )
        self.change = Write(
            f"{name}.change", row, table, changing(table, change), among=self, merged=dict
        )
        self.remove = Write(f"{name}.remove", row, table, removing(table), among=self)
        self._deactivate: Write[Row] | None = None
        if self.active is not None:
            self._deactivate = Write(
                f"{name}.deactivate",
                row,
                table,
                deactivating(table),
                among=self,
                merged=self._inactive if self.active in self.fields else None,
            )
        many, arrays = merging(table, self.fields, row)
        self.many = Statement(f"{name}.change_many", row, many, arrays=arrays.binds)
        self._order = [arrays.binds[bind] for bind in self.many.names]
        every = (self.replace, self.change, self._deactivate, self.remove)
        self.prepared = (
            *(statement for one in every if one is not None for statement in one.prepared),
            self.many,
        )

    @property
    def deactivate(self) -> Write[Row]:
        """The soft delete.

        Raises:
            RefusedError: the table has none.
        """
        if self._deactivate is None:
            raise RefusedError(f"{self.name}: no column says whether a row is active, see shape.py")
        return self._deactivate

    async def run(
        self,
        db: WritableDatabase,
        write: Write[Row],
        guard: Guard | None,
        values: Mapping[str, object],
    ) -> tuple[Row | None, int | None]:
        """See `Write.run`."""
        if not db.batching:
            return await write.run_one(db, guard, values)
        batcher: Batcher | None = db.batchers.get(self)
        if batcher is None:
            batcher = db.batchers[self] = Batcher(
                self._run_one, self._run_batch, ordered=True, max_batch=WRITES, in_flight=COMMITS
            )
        done: tuple[Row | None, int | None] = await batcher.run(
            db, values["id"], _Call(write, guard, values)
        )
        return done

    async def _run_one(self, db: WritableDatabase, call: _Call) -> tuple[Row | None, int | None]:
        return await call.write.run_one(db, call.guard, call.values)

    async def _run_many(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        # In the order of the ids, so that statements of two workers lock rows alike.
        batch = sorted(batch, key=lambda waiter: int(waiter.key))
        rows = [self._arguments(waiter.args) for waiter in batch]
        records = await db.fetch(self.many, list(zip(*rows, strict=True)))
        found = {record[self.place]: self.many.row(*record) for record in records}
        for waiter in batch:
            if waiter.key in found:
                waiter.answer((found[waiter.key], None))
            elif waiter.args.guard is None:
                waiter.answer((None, None))
            else:  # no such row, or another version: its own statement finds out
                await bisect_on_error(db, [waiter], self._run_one, self._run_many)

    async def _run_batch(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        # Side by side, so that a locked row holds up its own statement alone.
        merged = [waiter for waiter in batch if waiter.args.mergeable]
        others = [[waiter] for waiter in batch if not waiter.args.mergeable]
        groups = [merged, *others] if merged else others
        await asyncio.gather(
            *(bisect_on_error(db, group, self._run_one, self._run_many) for group in groups)
        )

    def _arguments(self, call: _Call) -> list[object]:
        """One element of each array of `many`, in the order of its arguments."""
        assert call.write.merged is not None  # noqa: S101 - `mergeable` has looked
        version = call.guard.versions[0] if call.guard and call.guard.versions else None
        given = {"soft": False, **call.write.merged(call.values), "version": version}
        return [given[name] for name in self._order]

    def _all(self, values: Mapping[str, Any]) -> Mapping[str, object]:
        set_ = {f"set_{name}": True for name in self.fields}
        return {"id": values["id"], **set_, **{f"new_{n}": values[n] for n in self.fields}}

    def _inactive(self, values: Mapping[str, Any]) -> Mapping[str, object]:
        keep: dict[str, object] = {f"set_{name}": False for name in self.fields}
        keep |= {f"new_{name}": None for name in self.fields}
        inactive = {f"set_{self.active}": True, f"new_{self.active}": False, "soft": True}
        return {"id": values["id"], **keep, **inactive}
