"""Trial: the dashboard by one statement, or by one for each part at the same time.

Both run in turn for a fraction of a second each, without HTTP.
"""

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time
from typing import Any, NamedTuple

import uvloop

from bench.processes import cpu
from bench.stage import StagingTable, sql
from service.dashboard import routes, statements
from service.dashboard.statements import Dashboard
from service.dashboard.structs import DashboardStats
from service.db.database import Database
from service.db.statement import Statement
from service.errors import TimedOut
from service.items.structs import Item
from service.notifications.structs import Notification
from service.users import users

ROUNDS, SECONDS = 24, 0.15
# The samples: USERS users with 75 items each. The user with the id HEAVY has MANY more.
USERS, HEAVY, MANY = 1000, 1, 100_000
FILL = (
    (
        "INSERT INTO notifications (user_id, kind, message, unread) SELECT users.id, 'test',"
        " 'Told ' || n, n % 4 = 0 FROM users, generate_series(1, 40) n"
    ),
    (
        f"INSERT INTO items (name, price, owner_id) SELECT 'Lamp ' || n, n % 100, {HEAVY}"
        f" FROM generate_series(1, {MANY}) n"
    ),
    "VACUUM (ANALYZE) items, notifications",
)

STATS = Statement("dashboard.stats", DashboardStats, statements.stats(), order=("id",))
RECENT = Statement("dashboard.recent", Item, statements.recent(), order=("id",))
UNREAD = Statement("dashboard.unread", Notification, statements.unread(), order=("id",))

Find = Callable[[Database, int], Awaitable[Dashboard | None]]


async def parts(db: Database, user_id: int) -> Dashboard | None:
    """Return the dashboard of a user, each part by a connection of its own, within one deadline.

    Raises:
        Problem: a part failed; the others are cancelled.
    """
    try:
        async with asyncio.timeout(db.statement_timeout), asyncio.TaskGroup() as tasks:
            user = tasks.create_task(users.by_id.get(db, user_id))
            stats = tasks.create_task(STATS.only(db, user_id))
            recent = tasks.create_task(db.fetch(RECENT, (user_id,)))
            unread = tasks.create_task(db.fetch(UNREAD, (user_id,)))
    except TimeoutError:
        raise TimedOut("the database took too long; nothing was changed") from None
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    found = user.result()
    if found is None:
        return None
    items = [Item(*record) for record in recent.result()]
    told = [Notification(*record) for record in unread.result()]
    return Dashboard(found, stats.result(), items, told)


WAYS: dict[str, Find] = {"one statement": routes.find, "a statement for each part": parts}


class Load(NamedTuple):
    """Dashboards that are asked for at the same time; of users up to `last` from `first`."""

    name: str
    at_once: int
    first: int = HEAVY + 1
    last: int = USERS


LOADS = (
    *(Load(f"75 items, {n} at once", n) for n in (1, 16, 64)),
    Load(f"{MANY:,} items, 1 at once", 1, HEAVY, HEAVY),
)


class Figures(NamedTuple):
    """Of one turn: a second's dashboards, milliseconds, microseconds of CPU per dashboard."""

    rate: float
    p50: float
    p99: float
    python: float
    database: float


def table(on: StagingTable) -> str:
    """Return a table in Markdown: medians over the rounds."""
    sql(on, *FILL)
    found = uvloop.run(_measured(on))
    lines = [
        "**One statement for a dashboard, or one for each part at the same time?** (`dashboard`)",
        "",
        "| | | dashboards/s | p50 ms | p99 ms | CPU us: Python | database |",
        "|---|---|---|---|---|---|---|",
    ]
    for (load, way), turns in found.items():
        rate, p50, p99, python, database = (
            statistics.median(part) for part in zip(*turns, strict=True)
        )
        lines.append(
            f"| {load} | {way} | {rate:,.0f} | {p50:.2f} | {p99:.2f} | {python:,.0f}"
            f" | {database:,.0f} |"
        )
    return "\n".join([*lines, ""])


async def _measured(on: StagingTable) -> dict[tuple[str, str], list[Figures]]:
    prepared: list[Statement[Any]] = [statements.find, STATS, RECENT, UNREAD, *users.by_id.prepared]
    db = Database(on.database_url, statements=prepared)
    await db.open()
    found: dict[tuple[str, str], list[Figures]] = {}
    for number in range(ROUNDS + 1):
        for load in LOADS:
            for way in (*WAYS,) if number % 2 else (*reversed(WAYS),):
                turn = await _turn(db, WAYS[way], load, on.postmaster, number)
                if number:  # the first is a warm-up
                    found.setdefault((load.name, way), []).append(turn)
    await db.close()
    return found


async def _turn(db: Database, find: Find, load: Load, postmaster: int, seed: int) -> Figures:
    chance = random.Random(seed)
    took: list[float] = []
    began, ours, theirs = perf_counter(), process_time(), cpu(postmaster)

    async def client() -> None:
        while (asked := perf_counter()) < began + SECONDS:
            await find(db, chance.randint(load.first, load.last))
            took.append(perf_counter() - asked)

    await asyncio.gather(*(client() for _ in range(load.at_once)))
    seconds = perf_counter() - began
    await asyncio.sleep(0.02)  # so that the last tick is counted
    spent = process_time() - ours, cpu(postmaster) - theirs
    took.sort()
    python, database = (part / len(took) * 1e6 for part in spent)
    p50, p99 = (took[int(len(took) * part)] * 1000 for part in (0.5, 0.99))
    return Figures(len(took) / seconds, p50, p99, python, database)
