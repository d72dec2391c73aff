"""What the eviction of the in-process tier is worth: hit rate and CPU, as one of the trials.

Every policy holds the same bytes and gets the same requests: ids by Zipf's law, alone, with scans
(a crawler or an export by pages, each row once), and with a popularity that drifts.
"""

import itertools
import random
import statistics
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from time import process_time
from typing import Protocol

from bench.stage import StagingTable
from service.cache import local
from service.cache.local import Local
from service.cache.response import CachedResponse

# A tenth of the keys fit.
KEYS, REQUESTS, BYTES = 60_000, 200_000, 8 * 2**20
BURST, SCANNED, DRIFT = 20_000, 10_000, 3_000
EXPONENTS = (0.7, 0.9, 1.1)
BODY = b"x" * 350
HITS = 20_000


class Policy(Protocol):
    """A tier: a hit is noted by `get`."""

    def get(self, key: Hashable) -> CachedResponse | None: ...
    def put(self, key: Hashable, response: CachedResponse) -> None: ...


class S3Fifo:
    """Ours. `share` is that of the small queue."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.tier = Local(BYTES)

    def get(self, key: Hashable) -> CachedResponse | None:
        found = self.tier.entries.get(key)
        if found is not None:
            found.used = True
        return found

    def put(self, key: Hashable, response: CachedResponse) -> None:
        local.SMALL = self.share
        self.tier.put(key, response)


class Lru:
    """The least recently used goes first; each hit moves its key."""

    def __init__(self) -> None:
        self.size = 0
        self.entries: OrderedDict[Hashable, CachedResponse] = OrderedDict()

    def get(self, key: Hashable) -> CachedResponse | None:
        found = self.entries.get(key)
        if found is not None:
            self.entries.move_to_end(key)
        return found

    def put(self, key: Hashable, response: CachedResponse) -> None:
        response.size = response.cost + len(response.body)
        self.entries[key] = response
        self.size += response.size
        while self.size > BYTES:
            self.evict()

    def evict(self) -> None:
        self.size -= self.entries.popitem(last=False)[1].size


class Clock(Lru):
    """The oldest goes first, but one that was used since gets another turn; a hit sets a flag."""

    def get(self, key: Hashable) -> CachedResponse | None:
        found = self.entries.get(key)
        if found is not None:
            found.used = True
        return found

    def evict(self) -> None:
        key, oldest = self.entries.popitem(last=False)
        if oldest.used:
            oldest.used = False
            self.entries[key] = oldest
        else:
            self.size -= oldest.size


POLICIES: dict[str, Callable[[], Policy]] = {
    "S3-FIFO, 10 % small": lambda: S3Fifo(0.1),
    "S3-FIFO, 5 % small": lambda: S3Fifo(0.05),
    "S3-FIFO, 20 % small": lambda: S3Fifo(0.2),
    "LRU": Lru,
    "clock": Clock,
}


def table(_: StagingTable) -> str:
    """A table in Markdown: each policy with each workload."""
    lines = [
        "**Which eviction keeps what is asked for again?** (`eviction`)",
        "",
        f"Hits; CPU us per request, and per hit alone. {KEYS:,} keys, of which a tenth fits.",
        "",
        f"| | {' | '.join(POLICIES)} |",
        f"|---|{'---|' * len(POLICIES)}",
    ]
    before = local.SMALL
    try:
        for name, asked in _workloads():
            cells = (_measured(make(), asked) for make in POLICIES.values())
            lines.append(f"| {name} | {' | '.join(cells)} |")
    finally:
        local.SMALL = before
    return "\n".join([*lines, ""])


def _workloads() -> Iterator[tuple[str, list[int]]]:
    chance = random.Random(1)
    for exponent in EXPONENTS:
        weights = list(itertools.accumulate((n + 1) ** -exponent for n in range(KEYS)))
        ids = chance.choices(range(KEYS), cum_weights=weights, k=REQUESTS)
        yield f"zipf {exponent}", ids
        scanned = itertools.count(KEYS)
        bursts = [ids[at : at + BURST] for at in range(0, REQUESTS, BURST)]
        scans = [[*burst, *itertools.islice(scanned, SCANNED)] for burst in bursts]
        yield f"zipf {exponent}, scans", [key for scan in scans for key in scan]
        drifting = [(key + place // BURST * DRIFT) % KEYS for place, key in enumerate(ids)]
        yield f"zipf {exponent}, drifting", drifting


def _measured(policy: Policy, asked: list[int]) -> str:
    hits = 0
    began = process_time()
    for key in asked:
        if policy.get(key) is None:
            policy.put(key, CachedResponse(BODY))
        else:
            hits += 1
    took = (process_time() - began) / len(asked)
    held = [key for key in asked[-HITS:] if policy.get(key) is not None]
    rounds = []
    for _ in range(5):
        began = process_time()
        for key in held:
            policy.get(key)
        rounds.append((process_time() - began) / len(held))
    hit = statistics.median(rounds)
    return f"{hits / len(asked):.1%}, {took * 1e6:.2f}, {hit * 1e6:.2f}"
