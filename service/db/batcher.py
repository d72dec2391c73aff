"""A lane: what waits for statements of one kind, and goes together when one returns.

While few statements of a kind run and nobody waits, a request runs its own at once: at rest
nothing is added. What comes meanwhile waits, and goes in one statement as soon as fewer than
`IN_FLIGHT` run. So batches grow with the load by themselves, and no clock is involved.
(As a database groups commits; DataLoader does it for reads, by the turn of the loop.)

What waits belongs to nobody: a batch is a task of its own, and who leaves takes only himself away.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

from service.db.database import Database, timing
from service.db.writable import WritableDatabase
from service.errors import Locked, OutcomeUnknown, Problem, Unavailable

# Statements of one kind at once, when requests wait. Two keep both us and PostgreSQL at work; more
# make the batches smaller (`bench trials in-flight`).
IN_FLIGHT = 2
# As long as nobody waits, and no more than this waited last: few requests are served sooner each by
# itself than together, but where many come, each that goes alone makes the next batch smaller.
SINGLES = 4
# What waits longer than this for a statement gets another one beside it: a lock that somebody else
# holds, or a slow disk, is no reason to hold up all others.
PATIENCE = 0.05
# Whose members did not fail by a fault of theirs: each gets the answer, and none is tried again.
COMMON = frozenset({500, 503, 504})


class Waiter:
    """One request that waits: what it asks, and where its answer goes."""

    __slots__ = ("arrived", "asked", "future", "key")

    def __init__(self, key: Any, asked: Any) -> None:
        self.key = key
        self.asked = asked
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.arrived = perf_counter()

    def answer(self, value: object) -> None:
        if not self.future.done():
            self.future.set_result(value)

    def refuse(self, problem: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(problem)


class Batcher:
    """What waits for statements of one kind on one database, and how many of them run.

    Args:
        alone: runs one request by its own statement.
        together: runs several and answers each; it must not raise Problems.
        ordered: whether requests of one key run one after another, as they came, and so never
            share a statement; else those of one key are answered as one.
        most: requests to a statement.
        in_flight: statements at once, while requests wait.
        singles: the same as long as none waits, after a batch of no more than this.
        when_idle: called when nothing runs or waits any more.
    """

    def __init__(
        self,
        db: Database | WritableDatabase,
        run_one: Callable[[Any], Awaitable[Any]],
        run_batch: Callable[[list[Waiter]], Awaitable[None]],
        *,
        ordered: bool,
        most: int,
        in_flight: int = IN_FLIGHT,
        singles: int = SINGLES,
        when_idle: Callable[[], object] | None = None,
    ) -> None:
        self.db = db
        self.run_one = run_one
        self.run_batch = run_batch
        self.ordered = ordered
        self.most = most
        self.in_flight = in_flight
        self.singles = singles
        self.limit = singles
        self.when_idle = when_idle
        self.running = 0
        self.began = 0.0
        self.watch: asyncio.TimerHandle | None = None
        self.busy: set[Any] = set()
        self.waiting: deque[Waiter] = deque()

    async def run(self, key: Any, asked: Any) -> Any:
        """The answer to one request, by a statement of its own or a shared one.

        Raises:
            Problem: what the statement raised; or 503, too many wait or it took too long.
        """
        if self.running < self.limit and not self.waiting and key not in self.busy:
            self._begin((key,))
            try:
                return await self.run_one(asked)
            finally:
                self._end((key,))
        if len(self.waiting) >= self.db.queue_limit:
            raise Unavailable("too many requests are waiting")
        waiter = Waiter(key, asked)
        self.waiting.append(waiter)
        self._flush(self.in_flight)
        if self.watch is None and self.waiting:
            self.watch = asyncio.get_running_loop().call_later(PATIENCE, self._look)
        try:
            return await waiter.future
        finally:
            spent = timing.get()
            if spent is not None:
                spent.statements += 1
                spent.seconds += perf_counter() - waiter.arrived

    def _begin(self, keys: Sequence[Any]) -> None:
        self.running += 1
        if self.ordered:
            self.busy.update(keys)

    def _end(self, keys: Sequence[Any]) -> None:
        self.running -= 1
        if self.ordered:
            self.busy.difference_update(keys)
        self._flush(self.in_flight)
        if self.when_idle is not None and not self.running and not self.waiting:
            self.when_idle()

    def _look(self) -> None:
        self.watch = None
        if not self.waiting:
            return
        if perf_counter() - self.began >= PATIENCE:
            self._flush(min(self.running + 1, self.singles))
        self.watch = asyncio.get_running_loop().call_later(PATIENCE, self._look)

    def _flush(self, at_once: int) -> None:
        while self.waiting and self.running < at_once:
            batch = self._take()
            if not batch:
                return
            self.began = perf_counter()
            self.limit = self.in_flight if len(batch) > self.singles else self.singles
            self._begin([waiter.key for waiter in batch])
            self.db.spawn(self._run(batch))

    def _take(self) -> list[Waiter]:
        """The next to go together: as they came, but none whose turn has not come yet."""
        batch: list[Waiter] = []
        kept: deque[Waiter] = deque()
        passed = set(self.busy)
        too_old = perf_counter() - self.db.statement_timeout
        while self.waiting and len(batch) < self.most:
            waiter = self.waiting.popleft()
            if waiter.future.done():  # it has left
                continue
            if waiter.arrived < too_old:
                waiter.refuse(Unavailable("the database is behind"))
            elif self.ordered and waiter.key in passed:
                kept.append(waiter)
            else:
                batch.append(waiter)
                if self.ordered:
                    passed.add(waiter.key)
        kept.extend(self.waiting)
        self.waiting = kept
        return batch

    async def _run(self, batch: list[Waiter]) -> None:
        try:
            await self.run_batch(batch)
        except asyncio.CancelledError:
            for waiter in batch:
                waiter.refuse(OutcomeUnknown("shutting down: outcome unknown"))
            raise
        except Exception as error:  # noqa: BLE001 - a bug is told to all who wait, not to nobody
            for waiter in batch:
                waiter.refuse(error)
        finally:
            self._end([waiter.key for waiter in batch])


async def bisect_on_error(
    batch: list[Waiter],
    run_one: Callable[[Any], Awaitable[Any]],
    several: Callable[[list[Waiter]], Awaitable[None]],
) -> None:
    """Run a batch; when a row of it is refused nothing was written, so each half goes by itself.

    In the end only the guilty are refused, in two statements per level: 14 for one in 128. A lock
    held by somebody else has taken long already: then each goes by itself at once.
    """
    try:
        if len(batch) == 1:
            batch[0].answer(await run_one(batch[0].asked))
        else:
            await several(batch)
    except Locked as problem:
        if len(batch) == 1:
            batch[0].refuse(problem)
        else:  # which of them it is about shows when each waits for itself
            await asyncio.gather(*(bisect_on_error([waiter], run_one, several) for waiter in batch))
    except Problem as problem:
        if len(batch) == 1 or problem.status in COMMON:
            for waiter in batch:
                waiter.refuse(problem)
            return
        middle = len(batch) // 2
        await bisect_on_error(batch[:middle], run_one, several)
        await bisect_on_error(batch[middle:], run_one, several)
