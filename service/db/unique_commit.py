"""Group commit of rows with a unique key: a taken key does not delay the rows of other requests."""

from typing import TypeVar

from msgspec import Struct

from service.db.arrays import array_arguments
from service.db.batch import GroupCommit
from service.db.batcher import Waiter
from service.db.bisection import bisect_on_error
from service.db.schema import Table
from service.db.statement import Statement
from service.db.writable import WritableDatabase
from service.errors import Taken

Row = TypeVar("Row", bound=Struct)


class UniqueCommit(GroupCommit[Row]):
    """As GroupCommit, but it looks up which keys are taken when a statement fails for that reason.

    The others are inserted in one more statement. To divide the batch instead takes up to 14
    statements for each taken key, each with a commit, during which all requests wait.

    Args:
        name: of the statements.
        row: the Struct of a row.
        table: where the rows go.
        new: the Struct of what a client sends.
        key: the unique field of `new`.
        taken: finds the places of taken keys, see conflicts.taken_values.
        folded: whether the key is unique without regard to case.
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        table: Table,
        new: type[Struct],
        key: str,
        taken: Statement[int],
        *,
        folded: bool = False,
    ) -> None:
        super().__init__(name, row, table, new, key, folded=folded)
        self.field = key
        self.taken = taken
        self.prepared = (*self.prepared, taken)  # type: ignore[assignment]  # the base has two

    async def _run_many(self, db: WritableDatabase, batch: list[Waiter]) -> None:
        try:
            await super()._run_many(db, batch)
            return
        except Taken as problem:
            refused = problem
        if [error.field for error in refused.errors] != [self.field]:
            raise refused
        keys = [waiter.args[self.key] for waiter in batch]
        found = await db.fetch(self.taken, array_arguments(self.taken, [keys]))
        places = {record[0] for record in found}
        # Of requests with one new key the first in the batch gets it, and the others run after it.
        alike = [key.lower() if self.folded and key is not None else key for key in keys]
        first: dict[object, int] = {}
        for place, key in enumerate(alike):
            if key is not None and place not in places:
                first.setdefault(key, place)
        now, later = [], []
        for place, (waiter, key) in enumerate(zip(batch, alike, strict=True)):
            if place in places:
                waiter.refuse(Taken(refused.detail, *refused.errors))
            elif key is None or first[key] == place:
                now.append(waiter)
            else:
                later.append(waiter)
        if len(now) == len(batch):  # they were free again, or are equal only for the database
            raise refused
        for part in (now, later):
            if part:
                await bisect_on_error(db, part, self._run_one, self._run_many)
