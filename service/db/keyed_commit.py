"""Group commit of requests with idempotency keys: rows and keys in one transaction."""

from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from service.db.batch import COMMITS, WRITES, GroupCommit
from service.db.batcher import Batcher, Waiter
from service.db.bisection import bisect_on_error
from service.db.idempotency import Keeper, KeyTaken, keep, keep_one
from service.db.transaction import Transaction
from service.db.writable import WritableDatabase

Row = TypeVar("Row", bound=Struct)


class _NewRow(NamedTuple):
    """The values of a row, as GroupCommit takes them, and the request that waits for it."""

    args: tuple[object, ...]
    waiter: Waiter


class KeyedCommit(Generic[Row]):
    """As GroupCommit, for requests with a key: concurrent ones share a transaction.

    The rows are inserted first, and the keys last, because they are stored with the answers. Both
    are in the order of their keys, so no two transactions wait for each other in a circle.

    Requests without a key never share a statement with these: they keep the shorter way.
    """

    def __init__(self, add: GroupCommit[Row]) -> None:
        self.add = add

    async def run(self, db: WritableDatabase, values: tuple[object, ...], keeper: Keeper) -> Row:
        """The row as it was made; see GroupCommit.run.

        Raises:
            KeyTaken: another request with the key was first; nothing was written.
            Problem: 409 or 422 for this row alone, also when others shared the transaction.
        """
        if not db.batching:
            return await self._run_one(db, (values, keeper))
        batcher: Batcher | None = db.batchers.get(self)
        if batcher is None:
            batcher = db.batchers[self] = Batcher(
                f"{self.add.single.name}.keyed",
                self._run_one,
                self._run_batch,
                ordered=False,
                max_batch=WRITES,
                in_flight=COMMITS,
                unqueued=2,
            )
        made: Row = await batcher.run(db, None, (values, keeper))
        return made

    async def _run_one(self, db: WritableDatabase, args: tuple[tuple[object, ...], Keeper]) -> Row:
        values, keeper = args
        async with Transaction(db.database) as transaction:
            within = db.within(transaction)
            row = await self.add.single.only(within, *values)
            await keep_one(within, keeper.answer(row))
            await transaction.commit()
        return row

    async def _run_many(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        async with Transaction(db.database) as transaction:
            within = db.within(transaction)
            made = await self.add.insert(within, [_NewRow(one.args[0], one) for one in batch])
            answers = [one.waiter.args[1].answer(row) for one, row in made]
            kept = await keep(within, answers)
            if len(kept) == len(batch):
                await transaction.commit()
                for one, row in made:
                    one.waiter.answer(row)
                return
        # The others are not to blame: they run again without those whose key is taken.
        others = [waiter for waiter in batch if _name(waiter) in kept]
        for waiter in batch:
            if _name(waiter) not in kept:
                waiter.refuse(KeyTaken("another request with this Idempotency-Key was first"))
        if others:
            await self._run_batch(db, others)

    async def _run_batch(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        await bisect_on_error(db, batch, self._run_one, self._run_many)


def _name(waiter: Waiter) -> tuple[str, str]:
    keeper: Any = waiter.args[1]
    return keeper.principal, keeper.key
