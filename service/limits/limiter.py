"""Decides whether a request is within its limit."""

import asyncio
import hashlib
from collections.abc import Coroutine
from contextlib import suppress
from time import monotonic_ns

from service.cache.client import client, redis_errors
from service.limits.lease_book import LeaseBook
from service.limits.leases import CLIENT_SECONDS, Leases
from service.limits.policy import Policies, Policy, Verdict
from service.limits.window import Clock, LocalBook
from service.settings import Settings


class Limiter:
    """The limits of one worker.

    `take` first; if that returns None, await `ask`:

    ```python
    verdict = limiter.take(policy, identity) or await limiter.ask(policy, identity)
    ```

    Args:
        policies: which policy counts which request: `limiter.policies.of(method, path)`.
        redis_url: of the Redis that the workers share; None without one.
        place: a name of this service in Redis.
        workers: of this service. Without Redis each one allows its share of a limit, at least one
            request.
        clock: nanoseconds.
    """

    def __init__(
        self,
        policies: Policies,
        *,
        redis_url: str | None = None,
        place: str = "",
        workers: int = 1,
        clock: Clock = monotonic_ns,
    ) -> None:
        self.policies = policies
        self.leases: Leases | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.books: dict[str, LocalBook | LeaseBook] = {}
        if redis_url is not None:
            self.leases = Leases(
                client(redis_url, CLIENT_SECONDS),
                f"swiftlet:limit:{place}:",
                spawn=self._spawn,
                clock=clock,
            )
        for one in policies.all:
            share = max(one.limit // workers, 1)
            self.books[one.name] = (
                LocalBook(one, share, clock)
                if self.leases is None
                else LeaseBook(one, share, clock, self.leases)
            )

    @property
    def local_decisions(self) -> int:
        """How many requests this worker has decided alone because Redis was away."""
        return 0 if self.leases is None else self.leases.local_decisions

    async def open(self) -> None:
        """Connect to Redis. While it is away, this worker decides alone."""
        if self.leases is not None:
            await self.leases.open()

    async def close(self) -> None:
        """Report what is not reported, and disconnect."""
        if self.leases is None:
            return
        for book in self.books.values():
            if isinstance(book, LeaseBook):
                book.flush()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLIENT_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLIENT_SECONDS)
        with suppress(*redis_errors()):
            await self.leases.client.aclose()

    def take(self, policy: Policy, identity: str) -> Verdict | None:
        """The verdict on a request, if that is possible at once; else None.

        Args:
            policy: one of `policies`.
            identity: who sent the request: `user:5`, or an address from address.Addresses.
        """
        return self.books[policy.name].take(identity)

    async def ask(self, policy: Policy, identity: str) -> Verdict:
        """The verdict on a request that `take` can't decide.

        It takes 50 ms at most, and raises nothing: if Redis does not answer, this worker decides.
        """
        book = self.books[policy.name]
        return book.take(identity) if isinstance(book, LocalBook) else await book.ask(identity)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def limiter_of(settings: Settings, policies: Policies) -> Limiter | None:
    """Return the limiter of a worker, not open yet; None without limits."""
    if not policies.all:
        return None
    # Services with other secrets have their own limits in the same Redis.
    secret = settings.signing_secret.encode()
    place = hashlib.blake2b(secret, digest_size=6, person=b"rate limits").hexdigest()
    redis_url = None if settings.redis_url == "off" else settings.redis_url
    return Limiter(policies, redis_url=redis_url, place=place, workers=settings.workers)
