"""Rate limits of several workers over a real Redis."""

import asyncio
import random
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest
import test_cache_redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_cache_redis import Server, cluster_url, full, hung, killed, read_only
from test_limits import Time, most_in_a_window

from service.cache.client import client as redis_client
from service.embedded.programs import wheel_redis
from service.limits import leases as leases_module
from service.limits import limiter as limiter_module
from service.limits.lease_book import PART, LeaseBook
from service.limits.lease_script import SCRIPT
from service.limits.leases import Lease, Leases
from service.limits.limiter import Limiter
from service.limits.policy import Policies, Policy, Verdict
from service.limits.window import EXACT, SECOND

cluster = test_cache_redis.cluster  # a fixture

# The script with a clock that the test moves.
SIMULATED = SCRIPT.replace("redis.call('TIME')", "{ARGV[10], ARGV[11]}")
assert SIMULATED != SCRIPT


@pytest.fixture(scope="module", params=("valkey", "redis"))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of each kind, in memory."""
    program = wheel_redis() if request.param == "valkey" else shutil.which("redis-server")
    if program is None:
        pytest.skip(f"there is no {request.param} here")
    made = Server(tmp_path_factory.mktemp("limits") / "r")
    made.command[0] = str(program)
    try:
        yield made.start()
    finally:
        made.kill()


class SimulatedLeases(Leases):
    """Leases on the clock of the test; their answers may be held back."""

    def __init__(self, url: str, time: Time) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        super().__init__(redis_client(url, 30), "sim:", spawn=self._start_task, clock=time)
        self.time = time
        self.up = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.exchanges = 0

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _within(self, work: Coroutine[None, None, list[Any]], _: object) -> list[Any]:
        return await work

    async def _execute(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        self.exchanges += 1
        pipeline: Any = self.client.pipeline(transaction=False)
        now = self.time.now // 1000
        for command in commands:
            pipeline.execute_command("EVAL", SIMULATED, *command, 0, now)
        replies: list[Any] = await pipeline.execute()
        await self.answers.wait()
        return replies


class SimulatedBook(LeaseBook):
    """Reports are due by the clock of the test."""

    due: int | None = None

    def _report_later(self, lease: Lease) -> None:
        if self.due is None:
            self.due = self.clock() + int(self.flush_seconds * SECOND)
        self._unreported.append(lease)


class Workers:
    """Several workers with one policy and one Redis."""

    def __init__(self, server: Server, policy: Policy, count: int = 2) -> None:
        self.time = Time()
        self.refused: list[Verdict] = []
        self.policy = policy
        self.leases = [SimulatedLeases(server.url, self.time) for _ in range(count)]
        self.books = [
            SimulatedBook(policy, policy.limit // count, self.time, one) for one in self.leases
        ]
        self.admitted: list[int] = []
        self.at_once = 0
        self.asking: set[asyncio.Task[None]] = set()
        # How late a request may be forgotten: a slice, and the time until it is reported.
        self.late = self.books[0].width + self.books[0].life // 4

    async def close(self) -> None:
        for one in self.leases:
            await one.client.aclose()

    def request(self, worker: int) -> None:
        book = self.books[worker]
        verdict = book.take("a")
        if verdict is not None:
            self.at_once += 1
            self.count(verdict)
            return

        async def ask() -> None:
            self.count(await book.ask("a"))

        task = asyncio.create_task(ask())
        self.asking.add(task)
        task.add_done_callback(self.asking.discard)

    def count(self, verdict: Verdict) -> None:
        if verdict.allowed:
            self.admitted.append(self.time.now)
        else:
            self.refused.append(verdict)
            since = self.time.now - self.policy.window * SECOND - self.late
            # Redis may have counted requests whose answers are held back.
            counted = sum(one > since for one in self.admitted) + len(self.asking)
            assert counted >= self.policy.limit, "it is refused only if the limit is used"
            assert verdict.remaining == 0

    async def settle(self) -> None:
        """Wait for everything that is under way, but not for answers that are held back."""
        while True:
            await asyncio.sleep(0)
            busy = {task for one in self.leases if one.answers.is_set() for task in one.tasks}
            if not busy:
                break
            await asyncio.wait(busy)
        for _ in range(3):
            await asyncio.sleep(0)

    async def release(self) -> None:
        for one in self.leases:
            one.answers.set()
        await self.settle()
        assert not self.asking

    async def advance(self, nanoseconds: int) -> None:
        """Move the clock, and report what becomes due on the way."""
        await self.release()
        until = self.time.now + nanoseconds
        while True:
            due = min((one.due for one in self.books if one.due is not None), default=until + 1)
            if due > until:
                break
            self.time.now = max(self.time.now, due)
            for book in self.books:
                if book.due is not None and book.due <= self.time.now:
                    book.due = None
                    book.flush()
            await self.settle()
        self.time.now = until


STEP = st.one_of(
    st.tuples(st.just("requests"), st.integers(0, 2), st.integers(1, 70)),
    st.tuples(st.just("hold"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("release"), st.just(0), st.just(0)),
    st.tuples(
        st.just("advance"),
        st.just(0),
        st.sampled_from([1, 3, 10, 20, 25, 100, 300, 500, 980, 1000, 1020]),
    ),
)


@given(
    st.sampled_from([1, 19, 20, 60, EXACT, EXACT + 1, 200]),
    st.sampled_from([1, 60]),
    st.lists(STEP, max_size=40),
)
@example(
    200,
    60,
    [
        ("requests", 0, 1),  # each gets a lease
        ("requests", 1, 1),
        ("requests", 2, 300),  # it uses up the limit
        ("requests", 0, 20),  # the leases are used
        ("requests", 1, 20),
    ],
)
@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_three_workers_admit_at_most_a_twentieth_more_than_the_limit(
    server: Server, limit: int, window: int, steps: list[tuple[str, int, int]]
) -> None:
    async def run() -> None:
        server.say("FLUSHALL")
        workers = Workers(server, Policy("default", limit, window), 3)
        try:
            for step, worker, amount in steps:
                if step == "requests":
                    for _ in range(amount):
                        workers.request(worker)
                    await workers.settle()
                elif step == "hold":
                    workers.leases[worker].answers.clear()
                elif step == "release":
                    await workers.release()
                else:
                    await workers.advance(window * SECOND * amount // 1000)
            await workers.release()
        finally:
            await workers.close()
        most = most_in_a_window(workers.admitted, window * SECOND)
        assert most <= limit + limit // PART

    asyncio.run(run())


@pytest.mark.parametrize("count", (1, 2))
@pytest.mark.parametrize(("limit", "window"), ((10, 60), (100, 60), (1000, 60), (1000, 1)))
def test_after_the_reset_the_first_request_passes(
    server: Server, limit: int, window: int, count: int
) -> None:
    """With one worker it is exact; another one may have a lease, which it does not use."""

    async def run() -> None:
        server.say("FLUSHALL")
        workers = Workers(server, Policy("default", limit, window), count)
        chance = random.Random(limit)
        refused = workers.refused
        checked = 0
        try:
            for _ in range(limit * 3):
                await workers.advance(chance.randrange(2 * window * SECOND // limit // 2))
                workers.request(chance.randrange(count))
                await workers.settle()
                if not refused:
                    continue
                checked += 1
                reset = refused.pop().reset
                if reset > 1:
                    await workers.advance((reset - 1) * SECOND)
                    workers.request(chance.randrange(count))
                    await workers.settle()
                    assert refused or count > 1, "the reset is not longer than necessary"
                    refused.clear()
                await workers.advance(SECOND)
                workers.request(chance.randrange(count))
                await workers.settle()
                assert not refused, "the reset is long enough"
                if checked == 30:
                    break
        finally:
            await workers.close()
        assert checked > 0

    asyncio.run(run())


def test_a_request_is_counted_for_exactly_one_window(server: Server) -> None:
    async def run() -> None:
        server.say("FLUSHALL")
        workers = Workers(server, Policy("default", 7, 60), 1)
        try:
            for _ in range(8):
                workers.request(0)
            await workers.settle()
            assert [verdict.reset for verdict in workers.refused] == [60]
            await workers.advance(60 * SECOND - 1000)
            workers.request(0)
            await workers.settle()
            assert [verdict.reset for verdict in workers.refused] == [60, 1]
            await workers.advance(1000)
            for _ in range(7):
                workers.request(0)
            await workers.settle()
            assert len(workers.refused) == 2
        finally:
            await workers.close()

    asyncio.run(run())


def test_a_busy_worker_asks_redis_for_few_requests(server: Server) -> None:
    async def run() -> None:
        server.say("FLUSHALL")
        workers = Workers(server, Policy("default", 1000, 60))
        try:
            for place in range(900):
                await workers.advance(SECOND // 100)
                workers.request(place % 2)
                await workers.settle()
        finally:
            await workers.close()
        assert len(workers.admitted) == 900
        assert workers.at_once > 850
        assert sum(one.exchanges for one in workers.leases) < 150

    asyncio.run(run())


# Faults of Redis, in real time.


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than 50 ms for an answer of Redis."""
    monkeypatch.setattr(leases_module, "SECONDS", 30.0)
    monkeypatch.setattr(limiter_module, "CLIENT_SECONDS", 60.0)


POLICY = Policies("100/60s")
DEFAULT = Policy("default", 100, 60)


@asynccontextmanager
async def limiter(url: str, *, workers: int = 2, place: str = "") -> AsyncIterator[Limiter]:
    one = Limiter(POLICY, redis_url=url, place=place or secrets.token_hex(4), workers=workers)
    await one.open()
    try:
        yield one
    finally:
        await one.close()


async def decide(one: Limiter, identity: str = "a") -> Verdict:
    return one.take(DEFAULT, identity) or await one.ask(DEFAULT, identity)


async def allowed(one: Limiter, requests: int, identity: str = "a") -> int:
    """How many of these requests are allowed, five at a time."""
    found = 0
    for _ in range(requests // 5):
        verdicts = await asyncio.gather(*(decide(one, identity) for _ in range(5)))
        found += sum(verdict.allowed for verdict in verdicts)
    return found


async def until_up(*limiters: Limiter, up: bool = True) -> None:
    """Within the 2 s that docs/rate-limits.md promises, more on a busy machine."""
    for _ in range(1000):
        states = [(one.leases.up, one.leases.slow) for one in limiters if one.leases is not None]
        if states == [(up, False)] * len(limiters):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(states)


@pytest.mark.usefixtures("patient")
def test_workers_admit_the_limit_together(server: Server) -> None:
    async def run() -> None:
        place = secrets.token_hex(4)
        async with limiter(server.url, place=place) as one, limiter(server.url, place=place) as two:
            counts = await asyncio.gather(allowed(one, 150), allowed(two, 150))
            assert 100 <= sum(counts) <= 105
            assert (one.local_decisions, two.local_decisions) == (0, 0)
            assert await allowed(one, 10, "b") == 10, "another identity has its own window"
            verdicts = [await decide(one), await decide(two)]
            assert [(v.allowed, v.remaining) for v in verdicts] == [(False, 0)] * 2
            assert all(55 <= verdict.reset <= 60 for verdict in verdicts)

    asyncio.run(run())


@pytest.mark.usefixtures("patient")
def test_sequential_requests_see_their_remaining_count_down(server: Server) -> None:
    async def run() -> None:
        async with limiter(server.url) as one:
            left = [(await decide(one)).remaining for _ in range(101)]
            assert left == [*range(99, -1, -1), 0]

    asyncio.run(run())


@pytest.mark.usefixtures("patient")
def test_an_empty_redis_admits_at_most_the_limit_again(server: Server) -> None:
    async def run() -> None:
        place = secrets.token_hex(4)
        async with limiter(server.url, place=place) as one, limiter(server.url, place=place) as two:
            before = await asyncio.gather(allowed(one, 150), allowed(two, 150))
            server.say("FLUSHALL")
            server.say("SCRIPT", "FLUSH")
            await asyncio.sleep(1.05)  # a refusal is repeated for a second
            after = await asyncio.gather(allowed(one, 150), allowed(two, 150))
            assert 200 <= sum(before + after) <= 210
            assert (one.local_decisions, two.local_decisions) == (0, 0)

    asyncio.run(run())


@contextmanager
def wrong_type(server: Server) -> Iterator[None]:
    """The window's key has a value of another type."""
    for key in server.say("KEYS", "swiftlet:limit:*"):
        server.say("DEL", key)
        server.say("LPUSH", key, "x")
    yield


@pytest.mark.parametrize("trouble", (killed, hung, full, read_only, wrong_type))
def test_while_redis_is_away_each_worker_admits_its_share(
    server: Server, trouble: Callable[[Server], AbstractContextManager[None]]
) -> None:
    async def run() -> None:
        place = secrets.token_hex(4)
        async with limiter(server.url, place=place) as one, limiter(server.url, place=place) as two:
            assert await allowed(one, 10) == 10
            with trouble(server):
                counts = [*await asyncio.gather(allowed(one, 150), allowed(two, 150))]
                # What a worker has admitted before counts in its share.
                assert counts == [40, 50]
                assert one.local_decisions > 0
                assert two.local_decisions > 0
                verdict = await decide(one)
                assert not verdict.allowed
                assert 50 <= verdict.reset <= 60
                assert await allowed(one, 10, "b") == 10
                await until_up(one, two, up=False)
            await until_up(one, two)
            local = one.local_decisions + two.local_decisions
            again = await asyncio.gather(allowed(one, 150, "c"), allowed(two, 150, "c"))
            assert 100 <= sum(again) <= 105
            assert one.local_decisions + two.local_decisions == local

    asyncio.run(run())


def test_a_worker_starts_without_its_redis_and_uses_it_later(server: Server) -> None:
    async def run() -> None:
        with killed(server):
            async with asyncio.timeout(20):
                one = Limiter(POLICY, redis_url=server.url)
                await one.open()
            assert one.take(DEFAULT, "a") is not None
        await until_up(one)
        assert one.take(DEFAULT, "a") is None
        assert (await one.ask(DEFAULT, "a")).allowed
        await one.close()

    asyncio.run(run())


def test_a_worker_that_is_gone_leaves_no_lock(server: Server) -> None:
    """Whatever a worker has left in Redis expires with the window."""

    async def run() -> None:
        place = secrets.token_hex(4)
        policies = Policies("40/s")
        policy = Policy("default", 40, 1)
        gone = Limiter(policies, redis_url=server.url, place=place)
        await gone.open()
        for _ in range(60):
            _ = gone.take(policy, "a") or await gone.ask(policy, "a")
            for key in server.say("KEYS", f"swiftlet:limit:{place}:*"):
                left = server.say("PTTL", key)
                assert 0 < left <= 1001 or left == -2, "-1: it would stay; -2: it is gone"
        # It is killed: it reports nothing, and gives no lease back.
        assert gone.leases is not None
        await gone.leases.client.aclose()
        await asyncio.sleep(1.05)
        assert server.say("KEYS", f"swiftlet:limit:{place}:*") == []

    asyncio.run(run())


def test_what_is_decided_while_redis_is_slow_is_reported_to_it(server: Server) -> None:
    async def run() -> None:
        place = secrets.token_hex(4)
        async with limiter(server.url, place=place) as one, limiter(server.url, place=place) as two:
            leases = [one.leases, two.leases]
            for attempt in range(20):
                identity = str(attempt)
                with hung(server):
                    counts = (allowed(one, 30, identity), allowed(two, 30, identity))
                    before = [*await asyncio.gather(*counts)]
                    slow = all(each is not None and each.slow for each in leases)
                await until_up(one, two)
                if slow:  # not so slow that Redis counts as away
                    break
            assert slow
            assert before == [30, 30]
            again = await asyncio.gather(allowed(one, 150, identity), allowed(two, 150, identity))
            assert 40 <= sum(again) <= 45

    asyncio.run(run())


@pytest.mark.slow
def test_a_cluster_counts_for_both_workers_and_may_lose_a_node(cluster: list[Server]) -> None:
    async def run() -> None:
        place, url = secrets.token_hex(4), cluster_url(cluster)
        identities = [f"198.51.100.{number}" for number in range(12)]
        async with limiter(url, place=place) as one, limiter(url, place=place) as two:
            await until_up(one, two)
            for identity in identities:
                counts = await asyncio.gather(
                    allowed(one, 75, identity), allowed(two, 75, identity)
                )
                assert 100 <= sum(counts) <= 105
            assert (one.local_decisions, two.local_decisions) == (0, 0)
            kept = [len(node.say("KEYS", f"swiftlet:limit:{place}:*")) for node in cluster]
            assert sum(kept) == len(identities)
            assert all(kept), "the identities are spread over the nodes"
            with killed(cluster[0]):
                for identity in identities:
                    assert await allowed(one, 5, f"{identity}x") == 5
            await until_up(one, two)

    asyncio.run(run())
