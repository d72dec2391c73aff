"""The order of deliveries of a webhook, against a receiver that fails in every way."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress

import pytest

from service.errors import Unavailable
from service.outgoing import DeliveryError
from service.webhooks import delivery_window, sender
from service.webhooks.delivery_window import Pending
from service.webhooks.sender import EndedError, Sender, Times

Work = Callable[["World"], Coroutine[None, None, None]]
FAST = Times(first=0.001, longest=0.004, save=0.002, check=0.05, ending=0.05)


class World:
    """A log of changes, a receiver and a table; `fails` says whether a post fails, and how."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows  # the change at position n is of the row rows[n - 1]
        self.position = 0
        self.error: str | None = None
        self.told: list[str | None] = []
        self.removed = False
        self.away = False
        self.posts: list[int] = []
        self.accepted: list[int] = []
        self.given_up: list[int] = []
        self.in_flight: Counter[int] = Counter()
        self.most = 0
        self.fails: Callable[[int], DeliveryError | None] = lambda _: None
        self.seconds: Callable[[], float] = lambda: 0.0

    async def read(self, after: int, limit: int) -> tuple[list[Pending], int]:
        await self._database()
        found = range(after + 1, min(after + limit, len(self.rows)) + 1)
        return [Pending(n, self.rows[n - 1], b"x" * 100) for n in found], max(after, found.stop - 1)

    async def wait(self, after: int, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await until(lambda: after < len(self.rows))

    async def post(self, pending: Pending) -> None:
        row = self.rows[pending.position - 1]
        assert not self.removed or self.in_flight
        self.in_flight[row] += 1
        assert self.in_flight[row] == 1, "two changes of a row at the same time"
        self.most = max(self.most, sum(self.in_flight.values()))
        try:
            self.posts.append(pending.position)
            await asyncio.sleep(self.seconds())
            if error := self.fails(pending.position):
                raise error
            self.accepted.append(pending.position)
        finally:
            self.in_flight[row] -= 1

    async def save(self, position: int, error: str | None) -> None:
        await self._database()
        if self.removed:
            raise EndedError
        done = {*self.accepted, *self.given_up}
        assert done >= set(range(1, position + 1)), "a change before the position is not finished"
        self.position, self.error = max(self.position, position), error

    def tell(self, error: str | None) -> None:
        self.told.append(error)

    async def give_up(self, pending: Pending, error: str) -> None:
        await self._database()
        assert error
        self.given_up.append(pending.position)

    async def _database(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("the database is away")

    def check_order(self) -> None:
        """Check the first delivery of each change against that of the change before it."""
        by_row: dict[int, list[int]] = defaultdict(list)
        for position in dict.fromkeys(self.accepted):
            by_row[self.rows[position - 1]].append(position)
        assert all(positions == sorted(positions) for positions in by_row.values())

    def finished(self) -> bool:
        return self.position == len(self.rows)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - it is not known who makes it true
            await asyncio.sleep(0.001)


def run(world: World, work: Work | None = None, times: Times = FAST) -> None:
    """Deliver while `work` runs, by default until everything is finished; then stop."""

    async def both() -> None:
        running = asyncio.create_task(Sender(world, world.position, times).run())
        working = asyncio.create_task(until(world.finished) if work is None else work(world))
        done, _ = await asyncio.wait({running, working}, return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        await asyncio.wait({running})
        if running in done or not running.cancelled():
            working.cancel()
            running.result()
        await working

    asyncio.run(both())


def failure(status: int | None = 500) -> DeliveryError:
    return DeliveryError(f"answered {status}", status=status, permanent=status == 410)


@pytest.mark.parametrize("seed", range(6))
def test_each_change_is_delivered_and_those_of_a_row_in_order(seed: int) -> None:
    """Whatever fails, and wherever the worker dies or is stopped."""
    chance = random.Random(seed)
    rows = [chance.randrange(1, chance.choice((2, 20, 300))) for _ in range(600)]
    world = World(rows)
    poisoned = set(chance.sample(range(1, 601), 3)) if seed % 2 else set()
    rate = chance.choice((0.0, 0.02))

    def fails(position: int) -> DeliveryError | None:
        if position in poisoned:
            return failure(422)
        return failure(None) if chance.random() < rate else None

    world.fails = fails
    world.seconds = lambda: chance.random() * 0.002

    async def interrupted(world: World) -> None:
        await asyncio.sleep(chance.random() * 0.05)
        world.away = True
        await asyncio.sleep(0.01)
        world.away = False
        await asyncio.sleep(chance.random() * 0.02)

    for _ in range(3):
        run(world, interrupted)
    run(world)
    world.check_order()
    assert {*world.accepted} >= {*range(1, 601)} - poisoned
    assert {*world.given_up} == poisoned
    assert world.most <= sender.AT_ONCE


def test_a_receiver_that_is_away_loses_nothing_and_is_tried_seldom() -> None:
    world = World(list(range(2000)))
    away = True
    world.fails = lambda _: failure(None) if away else None

    async def outage(world: World) -> None:
        nonlocal away
        await until(lambda: world.error is not None)
        await asyncio.sleep(0.2)
        assert world.accepted == []
        # Eight at first, then one after each pause of at least 2 ms.
        assert len(world.posts) < 8 + 110
        assert max(world.posts) <= delivery_window.CHANGES
        away = False
        await until(world.finished)

    run(world, outage)
    assert world.given_up == []
    assert world.error is None
    assert world.told[0] == "answered None"
    assert world.told[-1] is None
    assert world.told.count(None) == 1
    assert world.accepted == sorted(world.accepted) or {*world.accepted} == {*range(1, 2001)}


def test_a_change_that_alone_fails_is_given_up_and_its_row_goes_on() -> None:
    world = World([1, 2, 1, *range(3, 200), 1])
    world.fails = lambda position: failure() if position == 1 else None

    async def with_others(world: World) -> None:
        for n in range(1000, 3000):
            world.rows.append(n)
            await asyncio.sleep(0.001)
            if world.given_up:
                break
        await until(world.finished)

    run(world, with_others)
    assert world.given_up == [1]
    assert world.posts.count(1) > sender.ALONE
    at = world.accepted.index
    assert at(2) < at(200) < at(3) < at(201), "only the row of the change waits for it"


def test_a_change_that_is_refused_for_good_is_tried_a_few_times() -> None:
    world = World([1, 1])
    world.fails = lambda position: failure(422) if position == 1 else None
    run(world)
    assert world.posts == [1, 1, 1, 2]
    assert world.given_up == [1]


@pytest.mark.parametrize("status", (404, 410, 429, 500, None))
def test_nothing_is_given_up_while_nothing_gets_through(status: int | None) -> None:
    world = World([1, 1, 2, 3])
    refusing = True

    def fails(_: int) -> DeliveryError | None:
        return failure(status) if refusing else None

    world.fails = fails

    async def mended(world: World) -> None:
        nonlocal refusing
        await until(lambda: len(world.posts) > 20)
        refusing = False
        await until(world.finished)

    run(world, mended)
    assert world.given_up == []
    world.check_order()


def test_a_removed_webhook_posts_no_more() -> None:
    world = World([1, 2, 3])

    async def removed(world: World) -> None:
        await until(world.finished)
        world.removed = True
        await asyncio.sleep(2 * FAST.save)
        world.rows.append(4)
        await asyncio.sleep(0.1)

    with pytest.raises(EndedError):
        run(world, removed)
    assert max(world.posts) == 3


def test_a_change_after_a_long_rest_is_posted_at_once() -> None:
    world = World([1])

    async def rest(world: World) -> None:
        await until(world.finished)
        await asyncio.sleep(5 * FAST.save)
        world.rows.append(2)
        await until(world.finished)

    run(world, rest, FAST._replace(check=60))


def test_nothing_is_posted_while_the_worker_does_not_know_that_it_may() -> None:
    world = World([1])

    async def cut_off(world: World) -> None:
        await until(world.finished)
        world.rows.append(2)
        world.away = True
        await asyncio.sleep(0.05)
        posted = len(world.posts)
        await asyncio.sleep(0.05)
        assert len(world.posts) == posted
        world.away = False
        await until(world.finished)

    run(world, cut_off)


def test_what_is_held_in_memory_is_bounded() -> None:
    world = World([1] * 3000)
    world.fails = lambda _: failure()

    async def look(world: World) -> None:
        one = Sender(world, 0, FAST)
        running = asyncio.create_task(one.run())
        await until(lambda: one.window.full)
        await asyncio.sleep(0.05)
        assert one.window.read_to <= delivery_window.CHANGES + sender.READ
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(look(world))
