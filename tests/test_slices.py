"""Heavy work is divided: other tasks run between its slices, and one slice runs at a time.

The length of a slice is counted in function calls, so a busy machine makes no difference.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import pytest
from conftest import EMPTY_TABLES, query
from in_process import worker

from service.slices import FREE_ITERATIONS, MANY_ROWS, SLICE_ROWS, _Queue, next_slice, sliced

ROWS = 1000
NDJSON = {"content-type": "application/x-ndjson"}
# Function calls in an iteration: a slice has up to 1,900, and 1,000 ids are 2,400 for asyncpg. To
# decode 1,000 rows without slices takes 30,000.
CALLS = 3000


class Loop(asyncio.SelectorEventLoop):
    """Counts iterations, and the function calls in the one that has the most."""

    iterations = calls = most = 0

    def _run_once(self) -> None:
        self.iterations += 1
        self.calls = 0
        super()._run_once()  # type: ignore[misc]  # asyncio does not document it
        self.most = max(self.most, self.calls)

    @contextmanager
    def counted(self) -> Iterator[None]:
        def event(_: FrameType, what: str, __: object) -> None:
            if what in {"call", "c_call"}:
                self.calls += 1

        self.calls = self.most = 0
        sys.setprofile(event)
        try:
            yield
        finally:
            sys.setprofile(None)


def run(work: Callable[[Loop], Awaitable[None]]) -> None:
    loop = Loop()

    async def main() -> None:
        await work(loop)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


async def many(loop: Loop, tasks: int, slices: int) -> list[tuple[int, int]]:
    """Run tasks of several slices; return the iteration of each slice, and its task."""
    ran = []

    async def one(name: int) -> None:
        for _ in range(slices):
            await next_slice()
            ran.append((loop.iterations, name))

    await asyncio.gather(*(one(name) for name in range(tasks)))
    return ran


@pytest.mark.parametrize("tasks", (1, 2, 8))
def test_between_two_slices_the_loop_is_free(tasks: int) -> None:
    async def work(loop: Loop) -> None:
        iterations = [iteration for iteration, _ in await many(loop, tasks, 4)]
        apart = {after - before for before, after in itertools.pairwise(iterations)}
        assert min(apart) >= FREE_ITERATIONS

    run(work)


def test_heavy_requests_take_turns() -> None:
    async def work(loop: Loop) -> None:
        assert [name for _, name in await many(loop, 3, 3)] == [0, 1, 2] * 3

    run(work)


def test_a_cancelled_request_does_not_stop_the_others() -> None:
    async def work(loop: Loop) -> None:
        leaving = asyncio.create_task(many(loop, 2, 5))
        staying = asyncio.create_task(many(loop, 2, 5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
        assert len(await staying) == 10
        assert len(await many(loop, 1, 1)) == 1, "the queue is empty, and begins anew"

    run(work)


def test_rows_are_divided_into_slices() -> None:
    assert [len(some) for some in sliced(range(120), 50)] == [50, 50, 20]
    assert list(sliced([])) == []


# Operations of many rows.


def rows(prefix: str, **more: object) -> list[dict[str, Any]]:
    return [
        {"sku": f"{prefix}-{n}", "name": f"Widget {n}", "price": n / 4, **more} for n in range(ROWS)
    ]


def person(seed: str, n: int) -> dict[str, str]:
    return {"email": f"{n}@{seed}.example.org", "username": f"user-{seed}-{n}"}


def lines(prefix: str) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows(prefix))


def sent(**value: object) -> dict[str, Any]:
    return {
        "content": json.dumps(value).encode(),
        "headers": {"content-type": "application/json"},
    }


@pytest.fixture(scope="module")
def filled_url(own_database_url: str) -> str:
    query(own_database_url, EMPTY_TABLES)
    query(
        own_database_url,
        "INSERT INTO users (email, username) SELECT n || '@example.com', 'user' || n"
        " FROM generate_series(1, 100) n",
    )
    query(
        own_database_url,
        "INSERT INTO items (sku, name, price, owner_id) SELECT 'S-' || n, 'Item', n, owner.id"
        " FROM generate_series(1, 20) n, users owner"
        " WHERE n > 0 AND owner.id > 0".replace("'S-' || n", "'S-' || n || '-' || owner.id"),
    )
    return own_database_url


class Heavy(NamedTuple):
    """A kind of request, and the slices that it has at least; `options` makes another each time."""

    method: str
    path: str
    options: Callable[[str], dict[str, Any]]
    slices: int


# Slices that decode, and those that do little with each row.
DECODED, MANY = ROWS // SLICE_ROWS, ROWS // MANY_ROWS
HEAVY = {
    "creates": Heavy(
        "POST",
        "/items/bulk",
        lambda seed: sent(items=rows(f"C{seed}")),
        DECODED + 4 + 3 * MANY,
    ),
    "upserts of new rows": Heavy(
        "PUT",
        "/items/bulk",
        lambda seed: sent(items=rows(f"U{seed}")),
        DECODED + 4 + 3 * MANY,
    ),
    "upserts of rows that exist": Heavy(
        "PUT",
        "/items/bulk",
        lambda seed: sent(items=rows("E", description=seed)),
        DECODED + 4 + 3 * MANY,
    ),
    "upserts of users": Heavy(
        "PUT",
        "/users/bulk",
        lambda seed: sent(items=[person(seed, n) for n in range(ROWS)]),
        DECODED + 4 + 4 * MANY,
    ),
    "changes": Heavy(
        "PATCH",
        "/items/bulk",
        lambda seed: sent(ids=list(range(1, ROWS + 1)), set={"description": seed}),
        2,
    ),
    "deletes": Heavy("POST", "/items/bulk/delete", lambda _: sent(ids=list(range(1, ROWS + 1))), 2),
    "an import": Heavy(
        "POST",
        "/items/import",
        lambda seed: {"content": lines(f"I{seed}"), "headers": NDJSON},
        2 * DECODED,
    ),
    "an export": Heavy("GET", "/items/export", lambda _: {}, 0),
    "a list with parents": Heavy("GET", "/items?per_page=100&include=owner", lambda _: {}, 0),
    "a search": Heavy("GET", "/items?per_page=100&q=item", lambda _: {}, 0),
    "a list with children": Heavy(
        "GET", "/users?per_page=100&include=items", lambda _: {}, 2 * 2000 // MANY_ROWS
    ),
}


@pytest.mark.parametrize("heavy", HEAVY.values(), ids=HEAVY)
def test_a_heavy_request_runs_in_slices(
    filled_url: str, heavy: Heavy, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices, join = 0, _Queue.join

    def counted(*given: Any) -> asyncio.Future[None]:
        nonlocal slices
        slices += 1
        return join(*given)

    monkeypatch.setattr(_Queue, "join", counted)

    async def work(loop: Loop) -> None:
        nonlocal slices
        async with worker(filled_url, SERVICE_METRICS="off") as (client, _):
            for seed in ("a", "b"):  # the first compiles statements
                given, slices = heavy.options(seed), 0
                with loop.counted():
                    response = await client.request(heavy.method, heavy.path, **given)
                assert response.is_success, response.text[:500]
            assert slices >= heavy.slices
            assert loop.most < CALLS

    run(work)
