"""A batcher: requests for statements of one kind wait here and share the next statement.

Requests of one turn of the event loop share a statement, as soon as fewer than `in_flight` run. So
batches grow with the load by themselves, and no clock is involved. A request in a task runs its own
statement at once while few run and none waits.

A batch is a task of its own: a request that is cancelled cancels neither it nor its neighbours.

A Database keeps its batchers, and gives itself to each call: so there is no cycle of references.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

from service.db.database import Database
from service.db.writable import WritableDatabase
from service.errors import OutcomeUnknown, Unavailable
from service.timing import BatchTiming, Timing, timing

# Statements of one kind at once while requests wait. Two keep both us and PostgreSQL at work; more
# make the batches smaller (`python -m bench trials in-flight`).
IN_FLIGHT = 2
# The same for requests in tasks while none waits, if the last batch was no larger. Few are served
# sooner each by itself; where many come, each that goes alone makes the next batch smaller
# (`python -m bench trials unqueued`).
UNQUEUED = 4
# Seconds after which waiting requests get another statement while one is held up, by a lock or a
# slow disk. Batches take 1 to 5 ms under load (`python -m bench trials patience`).
PATIENCE = 0.05

AnyDatabase = Database | WritableDatabase
RunOne = Callable[[Any, Any], Awaitable[Any]]  # of a AnyDatabase and the arguments of a request
RunBatch = Callable[[Any, "list[Waiter]"], Awaitable[None]]


class Waiter:
    """One request that waits: its arguments, and what happens with its answer.

    One of `answer` and `refuse` is called, once; they must not raise.

    Attributes:
        spent: times of the request, if it has them while it waits.
        batch: times of its batch, which began at `began`; None before it began.
        left: whether the request no longer waits, since it was cancelled.
        together: calls `answer` of several waiters of this class; None if that gains nothing.
    """

    __slots__ = ("args", "arrived", "batch", "began", "key", "spent")
    left: bool = False
    together: Callable[[Sequence[tuple[Any, Any]]], None] | None = None

    def __init__(self, key: Any, args: Any) -> None:
        self.key = key
        self.args = args
        self.spent: Timing | None = None
        self.batch: BatchTiming | None = None
        self.began = 0.0
        self.arrived = perf_counter()

    def answer(self, value: Any) -> None:
        """Take the answer."""
        raise NotImplementedError

    def refuse(self, problem: BaseException) -> None:
        """Take the error instead."""
        raise NotImplementedError


class AwaitedAnswer(Waiter):
    """A coroutine that waits."""

    __slots__ = ("future",)

    def __init__(self, key: Any, args: Any) -> None:
        super().__init__(key, args)
        self.spent = timing.get()
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def left(self) -> bool:  # type: ignore[override]  # it changes when the coroutine is cancelled
        """Whether the coroutine was cancelled."""
        return self.future.done()

    def answer(self, value: Any) -> None:
        """Return the answer to the coroutine."""
        if not self.future.done():
            self.future.set_result(value)

    def refuse(self, problem: BaseException) -> None:
        """Raise the error in the coroutine."""
        if not self.future.done():
            self.future.set_exception(problem)


class Batcher:
    """The requests that wait for statements of one kind, and how many of these run.

    Args:
        name: of its statements, for metrics.
        run_one: runs one request by its own statement.
        run_batch: runs several and answers each; it must not raise Problems.
        ordered: whether requests of one key run one after another, in the order of their arrival,
            and so never share a statement; else those of one key are answered as one.
        max_batch: requests in a statement.
        in_flight: statements at once while requests wait.
        unqueued: the same of `run` while none waits, if the last batch was no larger.
        when_idle: called when no statement runs and no request waits any more.
    """

    def __init__(
        self,
        name: str,
        run_one: RunOne,
        run_batch: RunBatch,
        *,
        ordered: bool,
        max_batch: int,
        in_flight: int = IN_FLIGHT,
        unqueued: int = UNQUEUED,
        when_idle: Callable[[AnyDatabase], object] | None = None,
    ) -> None:
        self.name = name
        self.run_one, self.run_batch = run_one, run_batch
        self.ordered, self.max_batch = ordered, max_batch
        self.in_flight, self.unqueued, self.limit = in_flight, unqueued, unqueued
        self.when_idle = when_idle
        self.running = 0
        self.begun: list[float] = []  # of those that run
        self.began, self.due = 0.0, False
        self.watch: asyncio.TimerHandle | None = None
        self.busy: set[Any] = set()
        self.waiting: deque[Waiter] = deque()

    async def run(self, db: AnyDatabase, key: Any, args: Any) -> Any:
        """The answer to one request, by a statement of its own or a shared one.

        Raises:
            Problem: what the statement raised; or 503, too many wait, or this one waits too long.
        """
        if self.running < self.limit and not self.waiting and key not in self.busy:
            began = self._begin((key,))
            db.observer.alone(self.name)
            try:
                return await self.run_one(db, args)
            finally:
                self._end(db, (key,), began)
        waiter = AwaitedAnswer(key, args)
        self.submit(db, waiter)
        try:
            return await waiter.future
        finally:
            if waiter.spent is not None:
                add_times(waiter, waiter.spent)

    def submit(self, db: AnyDatabase, waiter: Waiter) -> None:
        """Let a request wait for the next batch, which all requests of a turn of the loop share.

        Raises:
            Unavailable: too many requests wait.
        """
        if len(self.waiting) >= db.queue_limit:
            raise Unavailable("too many requests are waiting")
        self.waiting.append(waiter)
        if self.running < self._at_once():
            self._flush_soon(db)
        if self.watch is None:
            self.watch = asyncio.get_running_loop().call_later(PATIENCE, self._look, db)

    def _flush_soon(self, db: AnyDatabase) -> None:
        if not self.due:
            self.due = True
            asyncio.get_running_loop().call_soon(self._flush_due, db)

    def _flush_due(self, db: AnyDatabase) -> None:
        self.due = False
        self._flush(db, self._at_once())

    def _at_once(self) -> int:
        """Statements at once while requests wait; one that is held up does not count."""
        if self.running < self.in_flight:
            return self.in_flight
        late = perf_counter() - PATIENCE
        held = sum(began < late for began in self.begun)
        return max(self.in_flight, min(self.in_flight + held, self.unqueued))

    def _begin(self, keys: Sequence[Any]) -> float:
        self.running += 1
        began = perf_counter()
        self.begun.append(began)
        if self.ordered:
            self.busy.update(keys)
        return began

    def _keys(self, batch: Sequence[Waiter]) -> Sequence[Any]:
        return [waiter.key for waiter in batch] if self.ordered else ()

    def _end(self, db: AnyDatabase, keys: Sequence[Any], began: float) -> None:
        self.running -= 1
        self.begun.remove(began)
        if self.ordered:
            self.busy.difference_update(keys)
        # Not at once: requests that arrive as a batch ends share the next one.
        if self.waiting or self.when_idle is not None:
            self._flush_soon(db)

    def _look(self, db: AnyDatabase) -> None:
        """Begin one more statement if none has begun for PATIENCE while requests wait."""
        self.watch = None
        if not self.waiting:
            return
        if perf_counter() - self.began >= PATIENCE:
            self._flush(db, min(self.running + 1, self.unqueued))
        self.watch = asyncio.get_running_loop().call_later(PATIENCE, self._look, db)

    def _flush(self, db: AnyDatabase, at_once: int) -> None:
        """Begin batches until so many statements run."""
        while self.waiting and self.running < at_once:
            batch = self._next_batch(db)
            if not batch:
                break
            self.limit = self.in_flight if len(batch) > self.unqueued else self.unqueued
            self.began = self._begin(self._keys(batch))
            db.spawn(self._run(db, batch, self.began))
        if self.when_idle is not None and not self.running and not self.waiting:
            self.when_idle(db)

    def _next_batch(self, db: AnyDatabase) -> list[Waiter]:
        """Requests in the order of their arrival, without those that wait for one of their key."""
        batch: list[Waiter] = []
        kept: deque[Waiter] = deque()
        passed = set(self.busy)
        too_old = perf_counter() - db.statement_timeout
        while self.waiting and len(batch) < self.max_batch:
            waiter = self.waiting.popleft()
            if waiter.left:
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

    async def _run(self, db: AnyDatabase, batch: list[Waiter], begun: float) -> None:
        began = perf_counter()
        spent = BatchTiming(self.name, began - batch[0].arrived)
        timing.set(spent)
        db.observer.batch(self.name, batch, spent, began)
        try:
            await self.run_batch(db, batch)
        except asyncio.CancelledError:
            for waiter in batch:
                waiter.refuse(OutcomeUnknown("shutting down: outcome unknown"))
            raise
        except Exception as error:  # noqa: BLE001 - a bug is raised in each request of the batch
            for waiter in batch:
                waiter.refuse(error)
        finally:
            self._end(db, self._keys(batch), begun)


def add_times(waiter: Waiter, spent: Timing) -> None:
    """Add the wait of a request, and the times of its batch, to the times of the request."""
    now, batch = perf_counter(), waiter.batch
    if spent.span is not None:
        spent.span.answered_by(waiter)
    if batch is None:  # it left before a batch began
        spent.queue += now - waiter.arrived
        return
    spent.add(batch, waiter.began - waiter.arrived, now - waiter.began)
