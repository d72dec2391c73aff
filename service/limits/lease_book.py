"""The leases of a policy: what a worker may allow by itself, and what it must ask Redis for."""

import asyncio

from service.limits.leases import Lease, Leases, Waiting
from service.limits.policy import Policy, Verdict
from service.limits.window import SECOND, Book, Clock, seconds

# All leases together are at most this part of a limit; a lease lives this part of a window, but not
# shorter than LIFE, so that a report that waits for a slow Redis still comes in time.
PART = 20
LIFE = SECOND // 5
# A refusal is repeated without Redis for so long: the window may be emptied there.
REFUSED = SECOND


class LeaseBook(Book[Lease]):
    """The leases of a policy.

    Args:
        policy: the limit and the window.
        share: of the limit that this worker allows while Redis is away.
        clock: nanoseconds.
        leases: the connection to Redis.
    """

    def __init__(self, policy: Policy, share: int, clock: Clock, leases: Leases) -> None:
        super().__init__(policy, Lease, share, clock)
        self.leases = leases
        self.life = max(self.length // PART, LIFE)
        # The worker stops half a life before Redis does, and reports within a quarter of one. So
        # nothing is unreported when Redis gives the lease to another worker.
        self.usable, self.flush_seconds = self.life // 2, self.life / 4 / SECOND
        self.arguments = (
            policy.limit,
            self.length // 1000,
            self.width // 1000,
            self.life // 1000,
            policy.limit // PART,
            leases.worker,
        )
        self._unreported: list[Lease] = []

    def take(self, identity: str) -> Verdict | None:
        """Count a request if it has a lease; None if Redis must be asked."""
        lease = self.windows.get(identity) or self.find(identity)
        now = self.clock()
        if not self.leases.up:
            return self.decide_locally(lease, now)
        if lease.credit > 0 and now < lease.until:
            lease.credit -= 1
            lease.free -= 1
            if lease.count and now - lease.first <= self.width:  # the same as `add`, without calls
                lease.last = now
                lease.count += 1
                lease.used += 1
            else:
                lease.expire(now, self.length)
                lease.add(now, self.width)
            self._count(lease)
            if lease.credit <= lease.low and not lease.queued:
                self.leases.queue(self, lease)
            return Verdict(
                True, max(lease.free, 0), seconds(lease.reset_at - now), self.policy, self.prefix
            )
        if now < lease.refused_until:
            return Verdict(False, 0, seconds(lease.reset_at - now), self.policy, self.prefix)
        return None

    def decide_locally(self, lease: Lease, now: int, *, asked: bool = False) -> Verdict:
        """Count a request in this worker's own window, because Redis is away.

        `asked` says whether Redis may still count it.
        """
        self.leases.local_decisions += 1
        verdict = self.decide(lease, now)
        if verdict.allowed and self.leases.slow:
            if asked:
                lease.counted += 1
            else:
                self._count(lease)
        return verdict

    async def ask(self, identity: str) -> Verdict:
        """The verdict of Redis; that of this worker's own window if none comes within 50 ms."""
        lease = self.find(identity)
        asked = False
        if self.leases.up:
            future: asyncio.Future[Verdict | bool] = asyncio.get_running_loop().create_future()
            lease.waiting.append(future)
            self.leases.queue(self, lease)
            verdict = await future
            if not isinstance(verdict, bool):
                return verdict
            asked = verdict
        return self.decide_locally(lease, self.clock(), asked=asked)

    def answer(self, lease: Lease, waiting: Waiting, reply: list[int], sent: int) -> None:
        """Take over what Redis has answered to a report that was sent at `sent`."""
        granted, free, credit, wait = reply
        now = self.clock()
        lease.reset_at = now + wait * 1000
        lease.unreported = max(lease.unreported, 0)
        # While the report was sent, further requests may have used the lease.
        lease.free = free - lease.unreported
        lease.credit = max(min(credit, free) - lease.unreported, 0)
        lease.low = lease.credit // 2
        lease.until = sent + self.usable
        lease.refused_until = 0 if free else min(lease.reset_at, now + REFUSED)
        granted -= lease.counted
        for future in waiting:
            if future.done():  # it was decided locally, or its client has left
                continue
            allowed = granted > 0
            if allowed:
                granted -= 1
                lease.expire(now, self.length)
                lease.add(now, self.width)
            left = max(lease.free + granted, 0)
            wait = seconds(lease.reset_at - now)
            future.set_result(Verdict(allowed, left, wait, self.policy, self.prefix))
        if granted > 0:  # for requests that were refused locally, or whose clients have left
            lease.credit += granted
            lease.unreported -= granted

    def idle(self, window: Lease, now: int) -> bool:
        """Whether a lease can be forgotten."""
        unused = window.unreported <= 0 and not window.waiting and now >= window.until
        return unused and super().idle(window, now)

    def flush(self) -> None:
        """Report everything that is not reported."""
        unreported, self._unreported = self._unreported, []
        for lease in unreported:
            if lease.unreported > 0 and not lease.queued:
                self.leases.queue(self, lease)

    def _count(self, lease: Lease) -> None:
        """Report a request that was allowed, with others."""
        if not lease.unreported:
            self._report_later(lease)
        lease.unreported += 1

    def _report_later(self, lease: Lease) -> None:
        if not self._unreported:
            asyncio.get_running_loop().call_later(self.flush_seconds, self.flush)
        self._unreported.append(lease)
