"""Deliver the changes of one webhook: several at a time, those of a row one after the other.

A receiver that is away loses nothing: while nothing gets through, one change is tried now and then.
A change that fails while others are delivered is given up in the end, so that it does not hold up
the later ones of its row.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import NamedTuple, Protocol

from service.errors import Problem
from service.logs import logger
from service.outgoing import DeliveryError
from service.webhooks.delivery_window import Pending, Window

# Changes that are posted at the same time.
AT_ONCE = 8
# Changes of one read.
READ = 200
# Attempts of a change that the receiver refuses for good; and of one that fails in another way
# while others are delivered, about three minutes.
REFUSED, ALONE = 3, 8
# Answers that are about the change: it is malformed, too large, of a wrong type or invalid. All
# others, such as 404, are about the receiver.
REFUSALS = frozenset({400, 413, 415, 422})
# The longest Retry-After that is honoured.
LONGEST_WAIT = 300.0


class Times(NamedTuple):
    """Seconds; tests have shorter ones.

    Args:
        first: the pause after the first failure; it doubles with each further one.
        longest: the longest pause.
        save: between two saves of the position. For twice as long, the worker relies on one.
        check: between two saves of a webhook that has nothing to post.
        ending: for posts that are on their way when the work ends, and for the last save.
    """

    first: float = 1.0
    longest: float = 60.0
    save: float = 1.0
    check: float = 30.0
    ending: float = 1.0


TIMES = Times()


class EndedError(Exception):
    """The webhook was removed, or another worker posts for it."""


class Edges(Protocol):
    """What the sender does to the outside."""

    async def read(self, after: int, limit: int) -> tuple[list[Pending], int]:
        """The next changes, and up to where they were read. It raises EndedError and Problem."""
        ...

    async def wait(self, after: int, seconds: float) -> None:
        """Wait until there may be changes after this position, at most so long."""
        ...

    async def post(self, pending: Pending) -> None:
        """Deliver a change. It raises DeliveryError."""
        ...

    async def save(self, position: int, error: str | None) -> None:
        """Store the position and the last failure, if there was no delivery since.

        It raises EndedError if this worker may not post any more, and Problem.
        """
        ...

    def tell(self, error: str | None) -> None:
        """Log that the webhook is paused, and why, or with None that it gets through."""
        ...

    async def give_up(self, pending: Pending, error: str) -> None:
        """Store a change that can't be delivered. It raises EndedError and Problem."""
        ...


class Sender:
    """Delivers the changes after a position until the webhook is removed.

    Args:
        edges: reads, posts and saves.
        position: the changes up to it have been delivered.
        times: pauses; by default TIMES.
    """

    def __init__(self, edges: Edges, position: int, times: Times | None = None) -> None:
        self.window = Window(position)
        self._edges = edges
        self._times = times or TIMES
        self._clock = asyncio.get_running_loop().time
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = self._saving = False
        self._posting: set[asyncio.Task[None]] = set()
        # When the next read, save and post may begin.
        self._read_at = self._save_at = self._post_at = 0.0
        # Until when this worker knows that it may post: that the webhook is there, and its own.
        self._known_until = self._idle_until = 0.0
        self._delivered = self._finished = 0
        # How many changes were finished at the last save, and the error that was saved.
        self._saved: tuple[int, str | None] = (0, "")
        # The changes that have failed since the last delivery, the pauses since then, and why.
        self._failing: set[int] = set()
        self._pauses = 0
        self._error: str | None = None

    async def run(self) -> None:
        """Deliver; a cancellation waits for posts on their way, briefly, and saves the position.

        Raises:
            EndedError: the webhook was removed, or another worker posts for it.
        """
        try:
            while True:
                wake = self._begin()
                timeout = max(0.0, wake - self._clock())
                if not self._tasks:
                    await asyncio.sleep(timeout)
                    continue
                done, _ = await asyncio.wait(
                    self._tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    self._tasks.discard(task)
                    self._posting.discard(task)
                    task.result()
        finally:
            await self._end()

    def _begin(self) -> float:
        """Begin what may begin now; return when there is more to do."""
        now, window = self._clock(), self.window
        wake = [now + self._times.check]
        if not self._reading and not window.full:
            if now >= self._read_at:
                self._reading = True
                self._start(self._read())
            else:
                wake.append(self._read_at)
        if not self._saving and self._must_save(now):
            if now >= self._save_at:
                self._saving = True
                self._start(self._save())
            else:
                wake.append(self._save_at)
        if now < self._known_until:
            at_once = 1 if self._pauses else AT_ONCE
            while now >= self._post_at and len(self._posting) < at_once:
                pending = window.take(now)
                if pending is None:
                    break
                self._posting.add(self._start(self._post(pending)))
            due = window.due()
            if due is not None and len(self._posting) < at_once:
                wake.append(max(due, self._post_at))
        return min(wake)

    def _must_save(self, now: float) -> bool:
        # Changes of other resources move the position too: that is saved now and then.
        changed = (self._finished, self._error) != self._saved
        return changed or not self.window.empty or now >= self._idle_until

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    async def _read(self) -> None:
        window = self.window
        try:
            changes, position = await self._edges.read(window.read_to, READ)
            for pending in changes:
                window.add(pending)
            if not changes and position <= window.read_to:
                await self._edges.wait(position, self._times.check)
            window.reached(position)
        except Problem:  # the database is away
            self._read_at = self._clock() + self._times.first
        finally:
            self._reading = False

    async def _save(self) -> None:
        now, state = self._clock(), (self._finished, self._error)
        self._save_at = now + self._times.save
        try:
            await self._edges.save(self.window.position, self._error)
        except Problem:  # the database is away: nothing is posted until it is back
            return
        finally:
            self._saving = False
        self._saved = state
        self._known_until = now + 2 * self._times.save
        self._idle_until = now + self._times.check

    async def _post(self, pending: Pending) -> None:
        try:
            await self._edges.post(pending)
        except DeliveryError as error:
            if self._failed(pending, error):
                await self._give_up(pending, str(error))
        else:
            self._delivered += 1
            if self._pauses:
                self._edges.tell(None)
            self._pauses, self._error = 0, None
            self._failing.clear()
            self._finish(pending)

    def _failed(self, pending: Pending, error: DeliveryError) -> bool:
        """Let the change be tried again later, or return that it is to be given up."""
        now = self._clock()
        # 410 is final, but about the receiver: nothing is given up, and it is tried seldom.
        gone = error.permanent
        pending.failures += 1
        pending.refused += error.status in REFUSALS
        pending.alone += pending.seen is not None and self._delivered > pending.seen and not gone
        pending.seen = self._delivered
        if pending.refused >= REFUSED or pending.alone >= ALONE:
            return True
        self._error = str(error)
        self._failing.add(pending.position)
        asked = min(error.retry_after or 0.0, LONGEST_WAIT)
        least = self._times.longest if gone else asked
        self.window.again(pending, now + max(least, self._pause(pending.failures)))
        # One change that fails says little about the receiver; two without a delivery in between
        # say that nothing gets through. Posts that began before the pause don't make it longer.
        if now >= self._post_at and (len(self._failing) > 1 or least):
            self._pauses += 1
            self._edges.tell(self._error)
            self._post_at = now + max(least, self._pause(self._pauses))
        return False

    def _pause(self, failures: int) -> float:
        """A random pause that grows with the failures."""
        times = self._times
        most = min(times.longest, times.first * 2.0 ** min(failures - 1, 30))
        return random.uniform(most / 2, most)  # noqa: S311 - no secret

    def _finish(self, pending: Pending) -> None:
        self._finished += 1
        self.window.finish(pending)

    async def _give_up(self, pending: Pending, error: str) -> None:
        while True:
            try:
                await self._edges.give_up(pending, error)
                break
            except Problem:  # the database is away
                await asyncio.sleep(self._times.first)
        self._failing.discard(pending.position)
        self._finish(pending)

    async def _end(self) -> None:
        others = self._tasks - self._posting
        for task in others:
            task.cancel()
        if self._posting:
            await asyncio.wait(self._posting, timeout=self._times.ending)
        for task in self._posting:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if (self._finished, self._error) != self._saved:
            try:
                async with asyncio.timeout(self._times.ending):
                    await self._save()
            except (EndedError, TimeoutError):
                return
            except Exception:  # noqa: BLE001 - the error that ended the work is more important
                logger.exception("the position of a webhook was not stored")
