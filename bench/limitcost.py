"""Trial: ways to count a rate limit: how many they admit in a window, and what they cost.

The traffic wants three times the limit, without a pause. A window is any time of its length, so the
largest number that one has admitted is counted.
"""

import asyncio
import tracemalloc
from collections import deque
from collections.abc import Callable
from time import monotonic_ns, process_time
from typing import Any

from service.limits.lease_book import LeaseBook
from service.limits.leases import Leases
from service.limits.policy import Policy
from service.limits.window import SECOND, Book, LocalBook

POLICY = Policy("default", 1000, 60)
WINDOW = POLICY.window * SECOND
DECISIONS, IDENTITIES = 200_000, 20_000
Take = Callable[[int], bool]


def gcra(burst: int) -> Take:
    """The Generic Cell Rate Algorithm: one time per identity, and a burst at once."""
    interval = WINDOW // POLICY.limit
    due = 0

    def take(now: int) -> bool:
        nonlocal due
        expected = max(due, now)
        if expected + interval - now > burst * interval:
            return False
        due = expected + interval
        return True

    return take


def fixed_window() -> Take:
    """A counter that begins again with each window."""
    began = used = 0

    def take(now: int) -> bool:
        nonlocal began, used
        if now // WINDOW != began:
            began, used = now // WINDOW, 0
        used += 1
        return used <= POLICY.limit

    return take


def log() -> Take:
    """The time of every request."""
    times: deque[int] = deque()

    def take(now: int) -> bool:
        while times and times[0] + WINDOW <= now:
            times.popleft()
        if len(times) >= POLICY.limit:
            return False
        times.append(now)
        return True

    return take


def slices() -> Take:
    """Ours, in one process."""
    time = 0
    book = LocalBook(POLICY, clock=lambda: time)

    def take(now: int) -> bool:
        nonlocal time
        time = now
        return book.take("a").allowed

    return take


WAYS: dict[str, Callable[[], Take]] = {
    "GCRA, burst = limit": lambda: gcra(POLICY.limit),
    "GCRA, burst = 5 % of it": lambda: gcra(POLICY.limit // 20),
    "fixed window": fixed_window,
    "log of all requests": log,
    "moving window of slices": slices,
}


def admitted(take: Take, pause: int) -> tuple[int, int, int]:
    """Return the most in any window, the number in the first one, and at once after a rest.

    Args:
        take: decides about a request at a time.
        pause: nanoseconds before the traffic starts, in a window of the clock.
    """
    start = 1000 * WINDOW + pause
    rested = start + 5 * WINDOW
    step = WINDOW // POLICY.limit // 3
    times = [now for now in range(start, start + 3 * WINDOW, step) if take(now)]
    burst = [rested for _ in range(2 * POLICY.limit) if take(rested)]
    times += burst
    times += [now for now in range(rested, rested + 2 * WINDOW, step) if take(now)]
    most = first = 0
    for place, time in enumerate(times):
        while times[first] + WINDOW <= time:
            first += 1
        most = max(most, place - first + 1)
    return most, sum(time < start + WINDOW for time in times), len(burst)


def cost(take: Callable[[], object]) -> float:
    """Return the CPU time of a decision, in microseconds."""
    for _ in range(1000):
        take()
    began = process_time()
    for _ in range(DECISIONS):
        take()
    return (process_time() - began) / DECISIONS * 1e6


def lease_book() -> LeaseBook:
    """Return leases that need no Redis for this trial."""
    nothing: Any = None
    leases = Leases(nothing, "", spawn=lambda work: work.close(), clock=monotonic_ns)
    leases.up = True
    return LeaseBook(Policy("default", 999_999_999, 60), 1, monotonic_ns, leases)


async def leased() -> float:
    """Return the CPU time of a decision with a lease."""
    book = lease_book()
    lease = book.find("a")
    lease.credit, lease.until = 10**9, 2**62
    return cost(lambda: book.take("a"))


def memory(book: Book[Any], requests: int) -> float:
    """Return the bytes of an identity after so many requests in different slices."""
    tracemalloc.start()
    for number in range(IDENTITIES):
        window = book.find(f"198.51.{number // 256}.{number % 256}")
        for place in range(requests):
            window.add(book.clock() + place * (book.width + SECOND), book.width)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / IDENTITIES


def table() -> str:
    """Return two tables in Markdown."""
    lines = [
        f"**How many requests does a limit of {POLICY.limit} admit?** (`limits`)",
        "",
        "| | most in any window | in the first one | at once after a rest |",
        "|---|---|---|---|",
    ]
    for name, way in WAYS.items():
        found = [admitted(way(), pause) for pause in range(0, WINDOW, WINDOW // 5)]
        most, first, burst = zip(*found, strict=True)
        lines.append(f"| {name} | {max(most)} | {min(first)} | {min(burst)} |")
    local = LocalBook(Policy("default", 999_999_999, 60))
    lines += [
        "",
        "| | |",
        "|---|---|",
        f"| CPU of a decision in the process | {cost(lambda: local.take('a')):.2f} us |",
        f"| CPU of a decision with a lease | {asyncio.run(leased()):.2f} us |",
        f"| memory of an address, one request | {memory(LocalBook(POLICY), 1):.0f} bytes |",
        f"| the same, with a lease | {memory(lease_book(), 1):.0f} bytes |",
        f"| memory of an address, 50 slices | {memory(LocalBook(POLICY), 50):.0f} bytes |",
    ]
    return "\n".join(lines)
