"""Our own pool: few raw connections, last in first out, each holding its statements prepared.

asyncpg's pool would drop every prepared statement at release, run a reset query and start a task.
A statement that is parsed at each use costs a request 1.65 to 1.83 times the CPU at one connection
(`python -m bench trials prepared`). A reset query is not needed, because no statement of ours
alters the session, which tests/test_statements.py checks.
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
from service.db.pooled_connection import PooledConnection, refusal
from service.db.statement import Statement
from service.errors import Problem, Unavailable
from service.logs import logger

# The longest pause between two tries to reach a database that is away: it is used again within
# a second of its return.
BACKOFF_SECONDS = 0.5
# A server that runs cancels at its statement timeout by itself; one that does not answer at all
# (stopped, unplugged) is given this much longer before its connection is cut.
GRACE_SECONDS = 0.5


class Pool:
    """Few connections, opened in the background, cut when their server does not answer.

    Args:
        url: as `DATABASE_URL`.
        size: connections held, or None to connect for each use.
        hot: the statements to prepare when a connection opens.
        statement_timeout: seconds a statement may take, and a request may wait for a connection.
        queue_limit: requests that may wait for a connection; one more is refused at once.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int | None,
        hot: Sequence[Statement[Any]],
        statement_timeout: float,
        queue_limit: int,
    ) -> None:
        self.url = url
        self.size = size
        # A connection that is opened for one use is too short to be seen by others: its writes are
        # told by the trigger.
        self.name = AUDIBLE if size is None else SILENT
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
        # What those are told who need a connection while none can be had.
        self._reason = "the database is away"
        self.fitness = FitnessWatch(hot, look=self._look, retire=self._retire, spawn=self.spawn)

    async def open(self) -> None:
        """Start connecting. A database that is away is waited for in the background."""
        if self.size is not None:
            self._opening = self.size
            await asyncio.gather(*(self._try_open() for _ in range(self.size)))
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
            self._refuse_next(Unavailable("shutting down"))
        for link in (*self._idle, *self._busy):
            self._spawn(link.close(), self._leaving)
        self._idle.clear()
        self._busy.clear()
        while self._leaving:  # who was busy may have been given back meanwhile
            await asyncio.gather(*self._leaving)

    def take(self) -> PooledConnection | None:
        """A connection, if one is idle."""
        while self._idle:
            link = self._idle.pop()
            if not link.connection.is_closed():
                return self._lend(link)
            self._fill()
        return None

    async def acquire(self) -> PooledConnection:
        """A connection, waited for as long as a statement may take.

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
            Unavailable("no database connection came free in time"),
        )
        try:
            return self._lend(await future)
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())  # cancelled with a connection in hand
            elif future in self._waiting:  # it takes no place in the queue any more
                self._waiting.remove(future)
            raise
        finally:
            timer.cancel()

    @property
    def serving(self) -> bool:
        """Whether a connection is in use, and its server not overdue."""
        now = perf_counter()
        return any(now < link.deadline for link in self._busy)

    async def _connect_once(self) -> PooledConnection:
        try:
            link = await self.connect(self.name)
        except Exception as error:
            raise self._refused(error) from error
        self.away.end()
        return link

    async def connect(self, name: str) -> PooledConnection:
        """A new connection as all of ours are; raises as `Link.open`."""
        return await PooledConnection.open(
            self.url, statement_timeout=self.statement_timeout, name=name
        )

    def _refused(self, error: BaseException) -> Unavailable:
        """No connection can be had: said once, then told to all who ask."""
        self.away.begin(error)
        problem = refusal(error)
        self._reason = problem.detail
        return problem

    def pids(self) -> set[int]:
        """The server's processes behind the connections held."""
        links = (*self._idle, *self._busy, *self._preparing)
        return {link.connection.get_server_pid() for link in links}

    def _lend(self, link: PooledConnection) -> PooledConnection:
        self._busy.add(link)
        link.deadline = perf_counter() + self.statement_timeout + GRACE_SECONDS
        return link

    def release(self, link: PooledConnection) -> None:
        """Give it back; one that is closed is replaced."""
        link.deadline = math.inf
        if self._closed and link not in self._busy:
            return  # close() sees to it
        self._busy.discard(link)
        connection = link.connection
        if self.size is None or self._closed:
            self._spawn(link.close(), self._leaving)
        elif link.retired:
            self._spawn(link.close(), self._leaving)
            self._fill()
        elif connection.is_closed():
            self._fill()
        elif connection.is_in_transaction():
            # Only a bug leaves one open; the rows of a stranger must not join it.
            logger.error("a transaction was left open")
            connection.terminate()
            self._fill()
        else:
            self._give(link)

    def _give(self, link: PooledConnection) -> None:
        if link.connection.is_closed():
            self._fill()
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                self._busy.add(link)  # from now on: who waited runs only at the loop's next turn
                future.set_result(link)
                return
        self._idle.append(link)

    def _fill(self) -> None:
        """Open in the background what is missing."""
        if self._closed or self.size is None:
            return
        missing = self.size - len(self._idle) - len(self._busy) - self._opening
        for _ in range(missing):
            self._opening += 1
            self._spawn(self._open_again(), self._tasks)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run it in the background, for nobody's account, until we close."""
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
            link = await self.connect(self.name)
            self._preparing.add(link)
            try:
                fitness = await link.prepare(self.fitness.statements)
            finally:
                self._preparing.discard(link)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do better
            problem = self._refused(error)
            if not self._busy:
                while self._waiting:
                    self._refuse_next(problem)
            return False
        self.away.end()
        self.fitness.note(fitness)
        # Told of a server's goodbye: the place is free at once, not at the next use.
        link.connection.add_termination_listener(self._lost)
        self._give(link)
        return True

    async def _look(self) -> Fitness:
        link = await self.connect(AUDIBLE)
        try:
            return await link.prepare(self.fitness.statements)
        finally:
            link.connection.terminate()

    def _retire(self) -> None:
        """Replace every connection; those in use when they are given back."""
        for link in self._idle:
            self._spawn(link.close(), self._leaving)
        self._idle.clear()
        for link in self._busy:
            link.retired = True
        self._fill()

    def _lost(self, connection: object) -> None:
        self._idle = [link for link in self._idle if link.connection is not connection]
        self._fill()

    def _refuse_next(self, problem: Unavailable) -> None:
        _refuse(self._waiting.popleft(), problem)

    async def _watchdog(self) -> None:
        """Cut connections whose server does not answer: one timer, not one a statement."""
        while True:
            await asyncio.sleep(GRACE_SECONDS / 2)
            now = perf_counter()
            for link in list(self._busy):
                if now > link.deadline:
                    logger.error("the database does not answer")
                    link.connection.terminate()


def _refuse(future: asyncio.Future[PooledConnection], problem: Problem) -> None:
    if not future.done():
        future.set_exception(problem)
