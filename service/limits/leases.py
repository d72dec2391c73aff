"""Limits that workers share through Redis, with leases: most requests need no round trip.

A worker holds leases, each for one user or address. A lease allows some requests, for a short time.
The worker reports in the background what it has allowed, and so renews the lease. Only a request
without a lease waits for Redis. Everything of one turn of the event loop goes in one pipeline, one
pipeline at a time.

lease_script.py explains why no window admits more than the limit and a twentieth of it.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from service.cache.client import SECONDS
from service.limits.lease_script import SCRIPT, SHA
from service.limits.policy import Policy, Verdict
from service.limits.window import SECOND, Clock, Window
from service.logs import logger

if TYPE_CHECKING:
    from service.cache.client import Client

# A request waits SECONDS for Redis. If the answer comes later, but within so many seconds, Redis
# was only slow: requests are decided locally until then, and are reported.
SLOW_SECONDS = 4 * SECONDS
CLIENT_SECONDS = 5 * SECONDS  # redis-py's own timeout
# Between two tries of a Redis that failed.
RETRY_SECONDS = 0.5


# The result for a request that waits for Redis: its verdict; else whether Redis may still count it.
Waiting = list[asyncio.Future[Verdict | bool]]


class Lease(Window):
    """What a worker knows of one user or address. The window has what it has allowed itself."""

    __slots__ = (
        "counted",
        "credit",
        "free",
        "low",
        "queued",
        "refused_until",
        "reset_at",
        "unreported",
        "until",
        "waiting",
    )

    def __init__(self, identity: str) -> None:
        super().__init__(identity)
        self.credit = 0  # requests that may be allowed, until `until`
        self.until = 0
        self.low = 0  # with so little credit, report and get more
        self.free = 0  # requests that the window in Redis would allow
        self.reset_at = 0  # when a further request becomes available
        self.refused_until = 0
        # Requests allowed since the last report; below 0, as many were reported before.
        self.unreported = 0
        # Requests allowed locally that Redis was asked about: its late answer allows them again.
        self.counted = 0
        self.queued = False
        self.waiting: Waiting = []


class Reporter(Protocol):
    """What the connection needs of the leases of a policy; see lease_book.LeaseBook."""

    policy: Policy
    arguments: tuple[Any, ...]

    def answer(self, lease: Lease, waiting: Waiting, reply: list[int], sent: int) -> None: ...


class Leases:
    """The connection of a worker's leases to Redis.

    Args:
        client: see cache.client.
        place: before every key, so that services on one Redis have their own limits.
        spawn: runs a coroutine in the background.
        clock: nanoseconds.
    """

    def __init__(
        self,
        client: "Client",
        place: str,
        *,
        spawn: Callable[[Coroutine[None, None, None]], object],
        clock: Clock,
    ) -> None:
        self.client = client
        self.place = place
        self.spawn = spawn
        self.clock = clock
        self.worker = secrets.token_hex(6)
        self.up = False  # Redis is used
        self.slow = False  # it is not used, but an answer may still come
        self._reconnecting = False
        self.local_decisions = 0
        self._failed = False  # and that was logged
        self._queue: list[tuple[Reporter, Lease]] = []
        self._running = False

    async def open(self) -> None:
        """Connect; if that fails, try again in the background."""
        try:
            await self.connect()
        except Exception as error:  # noqa: BLE001 - a cluster's errors are of any type
            self.fail(error)

    async def connect(self) -> None:
        """Use Redis from now on.

        Raises:
            RedisError, OSError, TimeoutError: it can't be used.
        """
        async with asyncio.timeout(CLIENT_SECONDS):
            await self.client.ping()
        self.up = True

    def fail(self, error: BaseException) -> None:
        """Decide locally until Redis answers again; logged once."""
        self.up = False
        if not self._failed:
            self._failed = True
            fields = {"error": f"{type(error).__name__}: {error}"[:200]}
            logger.warning("Redis is not used for rate limits", extra={"fields": fields})
        if not self._reconnecting:
            self._reconnecting = True
            self.spawn(self._reconnect())

    async def _reconnect(self) -> None:
        """Try until Redis answers."""
        try:
            while not self.up:
                await asyncio.sleep(RETRY_SECONDS)
                try:
                    await self.connect()
                except Exception as error:  # noqa: BLE001 - a cluster's errors are of any type
                    self.fail(error)
        finally:
            self._reconnecting = False

    def queue(self, book: Reporter, lease: Lease) -> None:
        """Report a lease with the others of this turn of the event loop."""
        if lease.queued:
            return
        lease.queued = True
        self._queue.append((book, lease))
        if not self._running:
            self._running = True
            self.spawn(self._run())

    async def _run(self) -> None:
        try:
            await asyncio.sleep(0)  # all of this turn share a pipeline
            while self._queue:
                batch, self._queue = self._queue, []
                await self.exchange(batch)
        finally:
            self._running = False

    async def exchange(self, batch: list[tuple[Reporter, Lease]]) -> None:
        """Send the reports of leases, and take over the answers."""
        sent = self.clock()
        commands: list[tuple[Any, ...]] = []
        reports: list[Report] = []
        for book, lease in batch:
            lease.queued = False
            waiting = [one for one in lease.waiting if not one.done()]
            lease.waiting = []
            held = lease.credit if sent < lease.until else 0
            spent = max(lease.unreported, 0)
            lease.unreported -= spent
            report = (spent, held, len(waiting))
            commands.append((1, self._key(book, lease), *book.arguments, *report))
            reports.append((book, lease, waiting))
        replies: list[Any] = []
        try:
            if self.up:
                replies = await self._within(self._execute(commands), reports)
                self._check(replies)
        except Exception as error:  # noqa: BLE001 - a cluster's errors are of any type
            self.fail(error)
        finally:
            replies += [None] * (len(reports) - len(replies))
            for (book, lease, waiting), reply in zip(reports, replies, strict=True):
                if isinstance(reply, list):
                    book.answer(lease, waiting, reply, sent)
                lease.counted = 0
            for _, _, waiting in reports:
                _release(waiting, asked=False)

    def _key(self, book: Reporter, lease: Lease) -> str:
        # The braces spread the users and addresses over a cluster.
        return f"{self.place}{{{lease.identity}}}:{book.policy.name}"

    def _check(self, replies: list[Any]) -> None:
        """Raise the error of the replies, if all are errors: Redis is full, or read-only."""
        if all(isinstance(reply, BaseException) for reply in replies):
            raise replies[0]
        if self._failed:
            self._failed = False
            logger.info("Redis is used for rate limits")

    async def _execute(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Run the script for each command; a Redis that does not have the script is sent it."""
        pipeline: Any = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command("EVALSHA", SHA, *command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        lacking = [place for place, reply in enumerate(replies) if _lacks_script(reply)]
        if lacking:
            pipeline = self.client.pipeline(transaction=False)
            for place in lacking:
                pipeline.execute_command("EVAL", SCRIPT, *commands[place])
            again = await pipeline.execute(raise_on_error=False)
            for place, reply in zip(lacking, again, strict=True):
                replies[place] = reply
        return replies

    async def _within(
        self, work: Coroutine[None, None, list[Any]], reports: list["Report"]
    ) -> list[Any]:
        """Wait for Redis; after 50 ms without the requests, which are then decided locally."""
        task = asyncio.ensure_future(work)
        try:
            began = self.clock()
            done, _ = await asyncio.wait([task], timeout=SECONDS)
            if not done and self.clock() - began > 1.5 * SECONDS * SECOND:
                # This process was too busy to see the answer.
                done, _ = await asyncio.wait([task], timeout=SECONDS)
            if not done:
                self.up, self.slow = False, True
                for _, _, waiting in reports:
                    _release(waiting, asked=True)
                for _, lease in self._queue:
                    _release(lease.waiting, asked=False)
                done, _ = await asyncio.wait([task], timeout=SLOW_SECONDS - SECONDS)
                if not done:
                    raise TimeoutError("Redis did not answer in time")
                replies = task.result()
                self.up = True
                return replies
            return task.result()
        finally:
            self.slow = False
            if not task.done():
                task.cancel()
                task.add_done_callback(_ignore)


Report = tuple[Reporter, Lease, Waiting]


def _release(waiting: Waiting, *, asked: bool) -> None:
    """Let requests be decided locally; `asked` says whether Redis may count them still."""
    for future in waiting:
        if not future.done():
            future.set_result(asked)


def _lacks_script(reply: object) -> bool:
    if not isinstance(reply, Exception):
        return False
    from redis.exceptions import NoScriptError

    return isinstance(reply, NoScriptError)


def _ignore(task: "asyncio.Task[list[Any]]") -> None:
    if not task.cancelled():
        task.exception()
