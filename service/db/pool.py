"""Our own pool: few raw connections, last in first out, each keeping its statements prepared.

asyncpg's pool would drop every prepared statement at release, run a reset query and start a task.
Parsing a statement at each use costs a request 1.65 to 1.83 times the CPU at one connection (`bench
trials prepared`). No statement of ours alters the session (tests/test_statements.py): no reset.
"""

import asyncio
import itertools
import math
import random
from collections import deque
from collections.abc import Coroutine, Sequence
from contextvars import Context
from time import perf_counter
from typing import Any

from service.db.condition import Condition
from service.db.fitness import Fitness, FitnessWatch
from service.db.names import AUDIBLE, SILENT
from service.db.pooled_connection import NoneFree, PooledConnection, refusal
from service.db.statement import Statement
from service.errors import Problem, Unavailable
from service.logs import logger

BACKOFF_SECONDS = 0.5  # at most between two tries, so that the database's return is soon noticed
# PostgreSQL itself cancels a statement at its timeout. If it does not answer at all (stopped,
# unplugged), its connection is closed so many seconds later.
GRACE_SECONDS = 0.5


class Pool:
    """Few connections, opened in the background, closed when their server does not answer.

    Args:
        url: as `DATABASE_URL`.
        size: connections held, or None to connect for each use.
        prepared: the statements that the first connection prepares, which checks the schema.
        statement_timeout: seconds a statement may take, and a request may wait for a connection.
        queue_limit: requests that may wait for a connection; one more is refused at once.
        audible: whether triggers report what is written, see names.SILENT.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int | None,
        prepared: Sequence[Statement[Any]],
        statement_timeout: float,
        queue_limit: int,
        audible: bool = False,
    ) -> None:
        self.url = url
        self.size = size
        # Other workers don't see a connection that is opened for one use, so triggers report it.
        self.name = AUDIBLE if audible or size is None else SILENT
        self.statement_timeout = statement_timeout
        self.queue_limit = queue_limit
        self._idle: list[PooledConnection] = []
        self._busy: set[PooledConnection] = set()
        self._preparing: set[PooledConnection] = set()
        self._waiting: deque[asyncio.Future[PooledConnection]] = deque()
        self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self.away = Condition("the database is away", "the database is back")
        # Why no connection can be opened: the detail of the answer to requests that need one.
        self._reason = "the database is away"
        self.fitness = FitnessWatch(
            prepared, look=self._look, retire=self._retire, spawn=self.spawn
        )

    async def open(self) -> None:
        """Begin to connect. If the database is away, connect in the background when it returns."""
        if self.size is not None:
            self._opening = self.size
            # The first prepares all statements; while it fails the others would fail too.
            if await self._try_open():
                await asyncio.gather(*(self._try_open() for _ in range(self.size - 1)))
            self._idle.reverse()  # so that it is used first
            self._opening = 0
            self._fill()
        self._spawn(self._watchdog(), self._tasks)

    async def close(self) -> None:
        """Close every connection: gently, and after 5 s by force."""
        self._closed = True
        self.fitness.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._waiting:
            _refuse(self._waiting.popleft(), Unavailable("shutting down"))
        for pooled in (*self._idle, *self._busy):
            self._spawn(pooled.close(), self._leaving)
        self._idle.clear()
        self._busy.clear()
        while self._leaving:  # a busy one may have been released since
            await asyncio.gather(*self._leaving)

    def take(self) -> PooledConnection | None:
        """A connection, if one is idle."""
        while self._idle:
            pooled = self._idle.pop()
            if not pooled.connection.is_closed():
                return self._lend(pooled)
            self._fill()
        return None

    async def acquire(self) -> PooledConnection:
        """A connection; waits for one no longer than a statement may take.

        Raises:
            Unavailable: the queue is full, the wait was too long, or the database is away.
        """
        if self._closed:
            raise Unavailable("shutting down")
        if self.size is None:
            return self._lend(await self._connect_once())
        if self.away.active and not self._busy:
            raise Unavailable(self._reason)
        if len(self._waiting) >= self.queue_limit:
            raise Unavailable("too many requests are waiting")
        future: asyncio.Future[PooledConnection] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        timer = asyncio.get_running_loop().call_later(
            self.statement_timeout,
            _refuse,
            future,
            NoneFree("no database connection came free in time"),
        )
        try:
            return self._lend(await future)
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())  # cancelled when it had a connection already
            elif future in self._waiting:  # it must not take a place in the queue any more
                self._waiting.remove(future)
            raise
        finally:
            timer.cancel()

    @property
    def use(self) -> tuple[int, int, int]:
        """Connections that are open, connections in use, and requests that wait for one."""
        return len(self._idle) + len(self._busy), len(self._busy), len(self._waiting)

    @property
    def serving(self) -> bool:
        """Whether a connection is in use, and its server not overdue."""
        return any(perf_counter() < pooled.deadline for pooled in self._busy)

    async def _connect_once(self) -> PooledConnection:
        try:
            pooled = await self.connect(self.name)
        except Exception as error:
            raise self._refused(error) from error
        self.away.end()
        return pooled

    async def connect(self, name: str) -> PooledConnection:
        """A new connection with our settings; raises as `PooledConnection.open`."""
        return await PooledConnection.open(
            self.url, statement_timeout=self.statement_timeout, name=name
        )

    def _refused(self, error: BaseException) -> Unavailable:
        """The Problem for requests that need a connection while none can be opened; logged once."""
        self.away.begin(error)
        problem = refusal(error)
        self._reason = problem.detail
        return problem

    def pids(self) -> set[int]:
        """The process ids of the server's backends behind our connections."""
        held = (pooled.connection for pooled in (*self._idle, *self._busy, *self._preparing))
        # One that was terminated a moment ago has none.
        return {one.get_server_pid() for one in held if not one.is_closed()}

    def _lend(self, pooled: PooledConnection) -> PooledConnection:
        self._busy.add(pooled)
        pooled.deadline = perf_counter() + self.statement_timeout + GRACE_SECONDS
        return pooled

    def release(self, pooled: PooledConnection) -> None:
        """Return a connection to the pool; one that is closed is replaced."""
        pooled.deadline = math.inf
        if self._closed and pooled not in self._busy:
            return  # close() closes it
        self._busy.discard(pooled)
        connection = pooled.connection
        if self.size is None or self._closed:
            self._spawn(pooled.close(), self._leaving)
        elif pooled.retired:
            self._spawn(pooled.close(), self._leaving)
            self._fill()
        elif connection.is_closed():
            self._fill()
        elif connection.is_in_transaction():
            # Only a bug leaves one open; the next request must not continue it.
            logger.error("a transaction was left open")
            connection.terminate()
            self._fill()
        else:
            self._give(pooled)

    def _give(self, pooled: PooledConnection) -> None:
        if pooled.connection.is_closed():
            self._fill()
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                self._busy.add(pooled)  # at once: the waiting request runs at the loop's next turn
                future.set_result(pooled)
                return
        self._idle.append(pooled)

    def _fill(self) -> None:
        """Open missing connections in the background."""
        if self._closed or self.size is None:
            return
        for _ in range(self.size - len(self._idle) - len(self._busy) - self._opening):
            self._opening += 1
            self._spawn(self._open_again(), self._tasks)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run it in the background, outside any request; `close` cancels it."""
        self._spawn(work, self._tasks)

    def _spawn(self, work: Coroutine[None, None, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work, context=Context())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _open_again(self) -> None:
        for tries in itertools.count():
            if await self._try_open():
                self._opening -= 1
                self._fill()
                return
            pause = min(BACKOFF_SECONDS, 0.05 * 2**tries)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads retries

    async def _try_open(self) -> bool:
        try:
            pooled = await self.connect(self.name)
            self._preparing.add(pooled)
            try:
                fitness = await pooled.prepare(self.fitness.unproven)
            finally:
                self._preparing.discard(pooled)
        except Exception as error:  # noqa: BLE001 - for any error the next try may succeed
            problem = self._refused(error)
            while self._waiting and not self._busy:
                _refuse(self._waiting.popleft(), problem)
            return False
        self.away.end()
        self.fitness.note(fitness)
        # When the server closes it, its place is filled at once and not at its next use.
        pooled.connection.add_termination_listener(self._lost)
        self._give(pooled)
        return True

    async def _look(self) -> Fitness:
        pooled = await self.connect(AUDIBLE)
        try:
            return await pooled.prepare(self.fitness.statements)
        finally:
            pooled.connection.terminate()

    def _retire(self) -> None:
        """Replace every connection; those in use when they are released."""
        for pooled in self._idle:
            self._spawn(pooled.close(), self._leaving)
        self._idle.clear()
        for pooled in self._busy:
            pooled.retired = True
        self._fill()

    def _lost(self, connection: object) -> None:
        self._idle = [pooled for pooled in self._idle if pooled.connection is not connection]
        self._fill()

    async def _watchdog(self) -> None:
        """Close connections whose server does not answer: one timer for all statements."""
        while True:
            await asyncio.sleep(GRACE_SECONDS / 2)
            now = perf_counter()
            for pooled in list(self._busy):
                if now > pooled.deadline:
                    logger.error("the database does not answer")
                    pooled.connection.terminate()


def _refuse(future: asyncio.Future[PooledConnection], problem: Problem) -> None:
    if not future.done():
        future.set_exception(problem)
