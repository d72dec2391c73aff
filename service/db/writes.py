"""Writes of a row: replace, change, deactivate and remove, each also guarded by a version."""

import asyncio
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import UNSET, Struct, structs
from sqlalchemy import Delete, Table, Update

from service.db.arrays import array_arguments, padded
from service.db.batch import COMMITS, WRITES, answer_all
from service.db.batcher import Batcher, Waiter
from service.db.bisection import bisect_on_error
from service.db.guarded import Guard, Variant
from service.db.ownership import OWN, Owner
from service.db.row_changes import (
    change_values,
    changing,
    deactivating,
    merging,
    removing,
    replacing,
)
from service.db.shape import shape_of
from service.db.statement import RefusedError, Runner, Statement
from service.db.writable import WritableDatabase

Row = TypeVar("Row", bound=Struct)


class Write(Generic[Row]):
    """A write of the row with `id`: of any row, and only of a row of an owner.

    Args:
        every: of any row.
        own: None if the table's rows have no owner.
        among: the writes with which it shares a batcher.
        values: gives its arguments from the Struct that it takes.
        changes: gives the new value of each field of a change, from the same; UNSET for one that is
            kept. None if it is no change, so that `Writes.many` can't do it.
    """

    def __init__(
        self,
        every: Variant[Row],
        own: Variant[Row] | None,
        *,
        among: "Writes[Row]",
        values: Callable[[Any], dict[str, object]],
        changes: Callable[[Any], tuple[object, ...]] | None,
    ) -> None:
        self.every = every
        self.own = own
        self.guarded = every.guarded is not None
        self.among = among
        self.values = values
        self.changes = changes

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
        *,
        id: int,  # noqa: A002 - the column
        given: Struct | None = None,
    ) -> tuple[Row | None, int | None]:
        """The row after the write, or None; and the version of the row if the guard refused it.

        `given` is what a replacement or a change takes. With `owner`, a row of another user is as
        one that does not exist, if the table's rows have an owner.

        Raises:
            Problem: for this write alone, also when others shared its statement.
        """
        owner = None if self.own is None else owner
        return await self.among.run(db, Call(self, guard, owner, id, given))


class Call(NamedTuple):
    """A write that waits; see `Write.run`."""

    write: Write[Any]
    guard: Guard | None
    owner: int | None
    id: int
    given: Struct | None

    @property
    def mergeable(self) -> bool:
        """Whether `Writes.many` can do it: a change, guarded by one version at most."""
        if self.write.changes is None:
            return False
        guard = self.guard
        if guard is None:
            return True
        return guard.versions is not None and len(guard.versions) == 1 and not guard.excluded

    async def run_one(self, db: Runner) -> tuple[Any | None, int | None]:
        """Run it by a statement of its own."""
        write, owner = self.write, self.owner
        values = write.values(self.given)
        values["id"] = self.id
        if owner is None or write.own is None:
            return await write.every.run(db, self.guard, values)
        return await write.own.run(db, self.guard, {**values, write.own.owner: owner})


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
        self.fields = fields = change.__struct_fields__
        self.place = row.__struct_fields__.index("id")
        active = shape_of(table).active

        def write(
            what: str,
            core: Callable[..., Update | Delete],
            *of: type[Struct],
            values: Callable[[Any], dict[str, object]] = lambda _: {},
            changes: Callable[[Any], tuple[object, ...]] | None = None,
        ) -> Write[Row]:
            name_ = f"{name}.{what}"
            own = None
            if owner is not None:
                kept = (owner.admin_fields,) if of else ()
                own = Variant(name_, row, table, core(table, *of, *kept), owner)
            every = Variant(name_, row, table, core(table, *of))
            return Write(every, own, among=self, values=values, changes=changes)

        self.replace = write(
            "replace",
            replacing,
            new,
            values=structs.asdict,
            changes=(lambda given: tuple(getattr(given, field) for field in fields))
            if set(fields) == set(new.__struct_fields__)
            else None,
        )
        self.change = write(
            "change", changing, change, values=change_values, changes=structs.astuple
        )
        self.remove = write("remove", removing)
        self._deactivate: Write[Row] | None = None
        if active is not None:
            inactive = tuple(False if field == active.name else UNSET for field in fields)
            self._deactivate = write(
                "deactivate",
                deactivating,
                changes=(lambda _: inactive) if active.name in fields else None,
            )
        many, arrays = merging(table, self.fields, row)
        self.many = Statement(
            f"{name}.change_many", row, many, arrays=arrays.binds, as_text=arrays.as_text
        )
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

    async def run(self, db: WritableDatabase, call: Call) -> tuple[Row | None, int | None]:
        """See `Write.run`."""
        if not db.batching:
            return await call.run_one(db)
        batcher = db.batchers.get(self) or self._batcher(db)
        done: tuple[Row | None, int | None] = await batcher.run(db, call.id, call)
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
        return await call.run_one(db)

    async def _run_many(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        # In the order of the ids, so that statements of two workers lock rows alike.
        batch = sorted(batch, key=attrgetter("key"))
        given = self._columns([waiter.args for waiter in batch])
        many = self.many_own if self.many_own is not None and "owner" in given else self.many
        columns = [given.get(many.arrays[name], ()) for name in many.names]
        records = await db.fetch(many, array_arguments(many, columns))
        found = {record[self.place]: many.row(*record) for record in records}
        others = [one for one in batch if one.key not in found and one.args.guard is not None]
        done = [one for one in batch if one not in others] if others else batch
        answer_all([(one, (found.get(one.key), None)) for one in done])
        for one in others:  # no such row, or another version: its own statement finds out
            await bisect_on_error(db, [one], self._run_one, self._run_many)

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

    def _columns(self, calls: Sequence[Call]) -> dict[str, Sequence[object]]:
        """The columns of the arguments of `many`, by name.

        Those of nulls alone are left out: `unnest` fills up an array that is shorter than others.
        So fields that no call sets cost nothing.
        """
        fixed: dict[str, Sequence[object]] = {
            "id": padded([one.id for one in calls]),
            "version": [
                one.guard.versions[0] if one.guard and one.guard.versions else None for one in calls
            ],
            "soft": [one.write is self._deactivate for one in calls],
            "owner": [one.owner for one in calls],
        }
        columns = {
            name: column
            for name, column in fixed.items()
            if any(one is not None and one is not False for one in column)
        }
        changes = [one.write.changes(one.given) for one in calls]  # type: ignore[misc]  # they are mergeable
        for field, values in zip(self.fields, zip(*changes, strict=True), strict=True):
            sets = [value is not UNSET for value in values]
            if any(sets):
                columns[f"set_{field}"] = sets
                columns[f"new_{field}"] = [None if value is UNSET else value for value in values]
        return columns
