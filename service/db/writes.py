"""Writes of a row: replace, change, deactivate and remove, each also guarded by a version."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct
from sqlalchemy import Delete, Table, Update

from service.db.arrays import array_arguments
from service.db.batch import COMMITS, WRITES
from service.db.batcher import Batcher, Waiter, bisect_on_error
from service.db.guarded import Guard, Variant
from service.db.ownership import OWN, Owner
from service.db.row_changes import changing, deactivating, merging, removing, replacing
from service.db.shape import shape_of
from service.db.statement import RefusedError, Runner, Statement
from service.db.writable import WritableDatabase

Row = TypeVar("Row", bound=Struct)


class Write(Generic[Row]):
    """A write of the row with `id`: of any row, and only of a row of an owner.

    `merged` gives the write as a change for `Writes.many`, from its own arguments; None if it is
    none.
    """

    def __init__(
        self,
        every: Variant[Row],
        own: Variant[Row] | None,
        *,
        among: "Writes[Row]",
        merged: Callable[[Mapping[str, Any]], Mapping[str, object]] | None = None,
    ) -> None:
        self.every = every
        self.own = own
        self.guarded = every.guarded is not None
        self.among = among
        self.merged = merged

    @property
    def prepared(self) -> tuple[Statement[Row], ...]:
        """Its statements."""
        return (*self.every.statements, *(() if self.own is None else self.own.statements))

    async def run(
        self,
        db: WritableDatabase,
        guard: Guard | None,
        owner: int | None = None,
        /,
        **values: object,
    ) -> tuple[Row | None, int | None]:
        """The row after the write, or None; and the version of the row if the guard refused it.

        With `owner`, a row of another user is as one that does not exist, if the table's rows have
        an owner.

        Raises:
            Problem: for this write alone, also when others shared its statement.
        """
        return await self.among.run(db, self, guard, None if self.own is None else owner, values)

    async def run_one(
        self, db: Runner, guard: Guard | None, owner: int | None, values: Mapping[str, object]
    ) -> tuple[Row | None, int | None]:
        """As `run`, by a statement of its own."""
        if owner is None or self.own is None:
            return await self.every.run(db, guard, values)
        return await self.own.run(db, guard, {**values, self.own.owner: owner})


class Call(NamedTuple):
    """A write that waits."""

    write: Write[Any]
    guard: Guard | None
    owner: int | None
    values: Mapping[str, Any]  # with the id

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
        owner: of the table's rows, if they have one.
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        table: Table,
        new: type[Struct],
        change: type[Struct],
        *,
        owner: Owner | None = None,
    ) -> None:
        self.name = name
        self.kept = frozenset() if owner is None else owner.admin_fields
        self.fields = change.__struct_fields__
        self.place = row.__struct_fields__.index("id")
        shape = shape_of(table)
        self.active = None if shape.active is None else shape.active.name
        all_ = self._all if set(self.fields) == set(new.__struct_fields__) else None

        def write(
            what: str,
            core: Callable[..., Update | Delete],
            *of: type[Struct],
            merged: Callable[[Mapping[str, Any]], Mapping[str, object]] | None = None,
        ) -> Write[Row]:
            name_ = f"{name}.{what}"
            own = None
            if owner is not None:
                kept = (self.kept,) if of else ()
                own = Variant(name_, row, table, core(table, *of, *kept), owner)
            return Write(
                Variant(name_, row, table, core(table, *of)), own, among=self, merged=merged
            )

        self.replace = write("replace", replacing, new, merged=all_)
        self.change = write("change", changing, change, merged=lambda values: values)
        self.remove = write("remove", removing)
        self._deactivate: Write[Row] | None = None
        if self.active is not None:
            inactive = self._inactive if self.active in self.fields else None
            self._deactivate = write("deactivate", deactivating, merged=inactive)
        many, arrays = merging(table, self.fields, row)
        self.many = Statement(
            f"{name}.change_many", row, many, arrays=arrays.binds, as_text=arrays.as_text
        )
        self._order = [arrays.binds[bind] for bind in self.many.names]
        self.many_own: Statement[Row] | None = None
        if owner is not None:
            many, arrays = merging(table, self.fields, row, owner)
            self.many_own = Statement(
                f"{name}.change_many{OWN}",
                row,
                many,
                arrays=arrays.binds,
                as_text=arrays.as_text,
                prepare=False,
            )
            self._order_own = [arrays.binds[bind] for bind in self.many_own.names]
        every = (self.replace, self.change, self._deactivate, self.remove)
        self.prepared = (
            *(statement for one in every if one is not None for statement in one.prepared),
            self.many,
            *(() if self.many_own is None else (self.many_own,)),
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
        owner: int | None,
        values: Mapping[str, object],
    ) -> tuple[Row | None, int | None]:
        """See `Write.run`."""
        if not db.batching:
            return await write.run_one(db, guard, owner, values)
        batcher = db.batchers.get(self) or self._batcher(db)
        done: tuple[Row | None, int | None] = await batcher.run(
            db, values["id"], Call(write, guard, owner, values)
        )
        return done

    def submit(self, db: WritableDatabase, waiter: Waiter) -> None:
        """Let a waiter take what `run` returns; see Batcher.submit.

        Its key is the id of the row, and its `args` are a Call.
        """
        (db.batchers.get(self) or self._batcher(db)).submit(db, waiter)

    def _batcher(self, db: WritableDatabase) -> Batcher:
        made = db.batchers[self] = Batcher(
            f"{self.name}.write",
            self._run_one,
            self._run_batch,
            ordered=True,
            max_batch=WRITES,
            in_flight=COMMITS,
        )
        return made

    async def _run_one(self, db: WritableDatabase, call: Call) -> tuple[Row | None, int | None]:
        return await call.write.run_one(db, call.guard, call.owner, call.values)

    async def _run_many(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        # In the order of the ids, so that statements of two workers lock rows alike.
        batch = sorted(batch, key=lambda waiter: int(waiter.key))
        many, order = self.many, self._order
        if self.many_own is not None and any(waiter.args.owner is not None for waiter in batch):
            many, order = self.many_own, self._order_own
        given = [self._given(waiter.args) for waiter in batch]
        columns = []
        for name in order:
            default = False if name == "soft" else None
            columns.append([one.get(name, default) for one in given])
        records = await db.fetch(many, array_arguments(many, columns))
        found = {record[self.place]: many.row(*record) for record in records}
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
        if len(groups) == 1:  # without a task of its own
            await bisect_on_error(db, groups[0], self._run_one, self._run_many)
            return
        await asyncio.gather(
            *(bisect_on_error(db, group, self._run_one, self._run_many) for group in groups)
        )

    def _given(self, call: Call) -> Mapping[str, object]:
        """The arguments of `many` for one row; those that are missing have their default."""
        assert call.write.merged is not None  # noqa: S101 - `mergeable` has looked
        given, guard = call.write.merged(call.values), call.guard
        if guard is not None and guard.versions:
            given = {**given, "version": guard.versions[0]}
        if call.owner is not None:
            kept = {f"set_{name}": False for name in self.kept}
            given = {**given, **kept, "owner": call.owner}
        return given

    def _all(self, values: Mapping[str, Any]) -> Mapping[str, object]:
        set_ = {f"set_{name}": True for name in self.fields}
        return {"id": values["id"], **set_, **{f"new_{n}": values[n] for n in self.fields}}

    def _inactive(self, values: Mapping[str, Any]) -> Mapping[str, object]:
        keep: dict[str, object] = {f"set_{name}": False for name in self.fields}
        keep |= {f"new_{name}": None for name in self.fields}
        inactive = {f"set_{self.active}": True, f"new_{self.active}": False, "soft": True}
        return {"id": values["id"], **keep, **inactive}
