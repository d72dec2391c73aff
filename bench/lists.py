"""Filtered lists of large tables: our statement against both possible plans.

Each plan is forced: walk the index of the sort order and filter, or gather all matches and sort
them; in addition the count, if it is requested. Statements are planned for their values at each use
and run in turn. The figure is the CPU of the backend from /proc, with parsing and planning; other
programs have little effect on it. Parallel workers would not be counted, and are off.
"""

import asyncio
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from msgspec import UNSET
from sqlalchemy import BigInteger, bindparam, select

from service.db.keyset import Listing
from service.db.statement import Statement
from service.items import items
from service.users import users

SETTINGS = {
    "jit": "off",
    "datestyle": "ISO",
    "timezone": "UTC",
    "max_parallel_workers_per_gather": "0",
}
# Settings that leave a walk as the only plan.
WALKING = dict.fromkeys(("enable_bitmapscan", "enable_seqscan", "enable_sort"), "off")
SLOW_MS = 250  # measured once
FAST_MS, MORE = 20, 6  # faster statements are measured MORE times as often
# A walk that takes so many times as long as gathering is cancelled: it is not the better plan. The
# limit is wall-clock time.
WALK = 20

# One owner has 37 % of the items, one 7 %, one 0.7 %; `late`, `recent` and `modern` are at the end
# of the ids, by 1, 5 and 98 %. A trigram index is made last: row by row it takes a minute.
FILL = """
TRUNCATE items, users RESTART IDENTITY CASCADE;
ALTER TABLE items DISABLE TRIGGER USER;
ALTER TABLE users DISABLE TRIGGER USER;
DROP INDEX IF EXISTS items_search_idx, users_search_idx;
INSERT INTO users (email, username, full_name, role, is_active, created_at)
SELECT 'user' || n || '@example.com', 'user' || n,
    CASE WHEN n % 10 > 0 THEN
        (ARRAY['Ada', 'Grace', 'Edsger', 'Barbara', 'Alan', 'Margaret', 'Donald', 'Radia'])
            [1 + (h >> 3) % 8] || ' ' ||
        (ARRAY['Lovelace', 'Hopper', 'Dijkstra', 'Liskov', 'Turing', 'Hamilton', 'Knuth',
            'Perlman'])[1 + h % 8]
    END,
    CASE WHEN n % 100 = 1 THEN 'admin' ELSE 'user' END, n % 20 <> 0,
    timestamptz '2026-01-01Z' + n * interval '1 minute'
FROM (SELECT n, abs(hashint8(n)) AS h FROM generate_series(1, {rows}) AS n) AS numbers;
INSERT INTO items (sku, name, price, is_active, owner_id, created_at)
SELECT 'SAMPLE-' || n,
    (ARRAY['Brass', 'Quiet', 'Folding', 'Spare', 'Walnut', 'Tiny', 'Striped', 'Heavy'])
        [1 + (h >> 3) % 8] || ' ' ||
    (ARRAY['Widget', 'Lamp', 'Hinge', 'Notebook', 'Kettle', 'Bracket', 'Whistle', 'Compass'])
        [1 + h % 8] || ' ' || n
    || CASE WHEN (h >> 6) % 2 = 0 THEN ' plain' ELSE '' END
    || CASE WHEN n > {rows} * 0.99 THEN ' late' ELSE '' END
    || CASE WHEN n > {rows} * 0.95 THEN ' recent' ELSE '' END
    || CASE WHEN n > {rows} * 0.02 THEN ' modern' ELSE '' END,
    CASE WHEN n % ({rows} / 2) = 777 THEN 5000 WHEN n % 50 > 0 THEN (1 + (h >> 7) % 99999) / 100.0
    END,
    n % 20 <> 0,
    CASE WHEN n % 4 > 0 THEN
        CASE WHEN (h >> 10) % 10 < 5 THEN 1 WHEN (h >> 10) % 100 < 60 THEN 2
            WHEN (h >> 10) % 1000 < 610 THEN 3 ELSE 4 + (h >> 5) % ({rows} - 10) END
    END,
    timestamptz '2026-01-01Z' + n * interval '1 second'
FROM (SELECT n, abs(hashint8(n)) AS h FROM generate_series(1, {rows}) AS n) AS numbers;
ALTER TABLE items ENABLE TRIGGER USER;
ALTER TABLE users ENABLE TRIGGER USER;
SELECT recount_totals()
"""
TRIGRAMS = """
CREATE INDEX items_search_idx ON items USING gin (lower(name) gin_trgm_ops);
CREATE INDEX users_search_idx ON users USING gin
    (lower(username) gin_trgm_ops, lower(email) gin_trgm_ops, lower(full_name) gin_trgm_ops)
"""


class Case(NamedTuple):
    """The filters of a list."""

    listing: Listing[Any]
    filters: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.listing.name}?" + "&".join(f"{k}={v}" for k, v in self.filters.items())


def _cases() -> Iterator[Case]:
    terms = (
        *("zzzzzz", "lamp 12345", "lamp 1234", "lamp 123", "lamp 12", "late", "recent"),
        *("lamp", "plain", "modern", "x", "qx", "---", "%", "a b"),
    )
    for q in terms:
        yield Case(items.listing, {"q": q})
    of_items: tuple[dict[str, Any], ...] = (
        {"min_price": Decimal(5000)},
        {"min_price": Decimal("999.98")},
        {"min_price": Decimal(500), "max_price": Decimal("500.02")},
        {"max_price": Decimal(500)},
        *({"owner_id": owner} for owner in (1, 2, 3, 4321)),
        {"is_active": False},
        {"is_active": True},
        {"q": "zzzzzz", "owner_id": 1},
        {"q": "lamp", "owner_id": 3},
        {"q": "plain", "owner_id": 1, "min_price": Decimal(500), "is_active": True},
        {"q": "zzzzzz", "min_price": Decimal(1)},
        {"q": "plain", "min_price": Decimal("999.98")},
        {"q": "qx", "owner_id": 1},
        {"q": "lamp", "is_active": False},
    )
    of_users: tuple[dict[str, Any], ...] = (
        *({"q": q} for q in ("zzzzzz", "user12345", "user123", "turing", "example", "qx")),
        {"role": "admin"},
        {"role": "user"},
        {"role": "admin", "is_active": False},
        {"q": "turing", "role": "admin"},
    )
    yield from (Case(items.listing, filters) for filters in of_items)
    yield from (Case(users.listing, filters) for filters in of_users)


CASES = tuple(_cases())
SORTS = {"items": ("id", "name", "-price"), "users": ("id", "-username")}


class View(NamedTuple):
    """A variant of a list: kind of statement, kind of total, offset."""

    what: str
    total: str
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.what} {self.total}" + (f" +{self.offset:,}" if self.offset else "")


VIEWS = (
    View("page", "exact"),
    View("page", "estimated"),
    View("page", "none"),
    View("page", "none", 2000),
)


class Question(NamedTuple):
    """A list in one order: our statement, both forced plans, an optional count, the values."""

    ours: Statement[Any]
    gather: Statement[Any]
    walk: Statement[Any]
    counting: Statement[Any] | None
    values: dict[str, Any]


def question(case: Case, sort: str, view: View) -> Question:
    """Return the statements of a case."""
    listing = case.listing
    query = dict.fromkeys(listing.filters, UNSET) | dict(case.filters)
    chosen, values = listing.choose(type("Query", (), query))
    total: Any = view.total
    if view.what == "page":
        ours = listing.page(sort, chosen, total, first=not view.offset)
    else:
        ours = listing.after(sort, chosen, total, start=True)
    order, table = listing.orders[sort], listing.table
    limit, offset = (bindparam(name, type_=BigInteger) for name in ("limit", "offset"))
    found = select(table.c.id, order.key.label("sort_key")).where(*listing.clauses(chosen))
    step = found.cte("found").prefix_with("MATERIALIZED")
    page = select(step).order_by(*order.by(step.c.sort_key, step.c.id)).limit(limit).offset(offset)
    sorted_ = page.subquery("page")
    gather = select(table).join(sorted_, sorted_.c.id == table.c.id)
    gather = gather.order_by(*order.by(sorted_.c.sort_key, sorted_.c.id))
    walk = select(table).where(*listing.clauses(chosen)).limit(limit).offset(offset)
    walk = walk.order_by(*order.by(order.key, table.c.id))
    count = None if total == "none" else Statement("count", int, listing.count(chosen, total))
    return Question(
        ours,
        Statement("gather", tuple, gather),
        Statement("walk", tuple, walk),
        count,
        values | {"limit": 11, "offset": view.offset},
    )


def questions(only: str = "") -> Iterator[tuple[Case, str, View, Question]]:
    """Yield every case in each sort and view."""
    for case in CASES:
        if only in str(case):
            for sort, view in itertools.product(SORTS[case.listing.name], VIEWS):
                yield case, sort, view, question(case, sort, view)


async def fill(connection: asyncpg.Connection, rows: int, *, trigrams: bool) -> None:
    """Fill the tables again, with a number of rows each."""
    await connection.execute(FILL.format(rows=rows))
    if trigrams:
        await connection.execute(TRIGRAMS)
    await connection.execute("VACUUM (ANALYZE) items, users")


class Measured(NamedTuple):
    """The minimum of the rounds in milliseconds of CPU, because noise only adds.

    `best` is the time of the better plan with the count.
    """

    case: Case
    sort: str
    view: View
    ours: float
    gather: float
    walk: float
    counting: float

    @property
    def best(self) -> float:
        return min(self.gather, self.walk) + self.counting

    @property
    def ratio(self) -> float:
        return self.ours / self.best


async def measure(
    url: str, rounds: int, only: str, say: Callable[[Measured], None]
) -> list[Measured]:
    """Measure the statements in turn, `rounds` times; a slow one once."""
    plain = await asyncpg.connect(url, statement_cache_size=0, server_settings=SETTINGS)
    walking = await asyncpg.connect(
        url,
        statement_cache_size=0,
        server_settings={**SETTINGS, **WALKING},
    )
    found = []
    try:
        for case, sort, view, asked in questions(only):
            parts = {
                "ours": (plain, asked.ours),
                "gather": (plain, asked.gather),
                "walk": (walking, asked.walk),
                **({"counting": (plain, asked.counting)} if asked.counting else {}),
            }
            (gathering,) = (await _taken({"gather": parts["gather"]}, asked.values, 1)).values()
            await walking.execute(f"SET statement_timeout = {100 + round(WALK * gathering)}")
            taken = await _taken(parts, asked.values, rounds)
            one = Measured(
                case, sort, view, *(taken.get(name, 0.0) for name in Measured._fields[3:])
            )
            say(one)
            found.append(one)
    finally:
        await plain.close()
        await walking.close()
    return found


async def _taken(
    parts: Mapping[str, tuple[asyncpg.Connection, Statement[Any]]],
    values: Mapping[str, Any],
    rounds: int,
) -> dict[str, float]:
    pids = {name: connection.get_server_pid() for name, (connection, _) in parts.items()}
    prepared = {}
    for name, (connection, one) in parts.items():
        statement = await connection.prepare(one.sql, name="")
        prepared[name] = statement, [values[bind] for bind in one.names]
        with suppress(asyncpg.QueryCanceledError):
            await connection.execute("SELECT 1")  # ends the transaction of a Parse, and its timeout
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds * MORE):
        for name, (statement, args) in prepared.items():
            least = min(taken[name], default=0.0)
            if (least > SLOW_MS and name != "ours") or (number >= rounds and least > FAST_MS):
                continue
            began = _cpu(pids[name])
            try:
                await statement.fetch(*args)
                taken[name].append(_cpu(pids[name]) - began)
            except asyncpg.QueryCanceledError:
                taken[name].append(inf)
    return {name: min(times) for name, times in taken.items()}


def _cpu(pid: int) -> float:
    """Return the CPU milliseconds of a process, from /proc."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def shown(found: list[Measured], title: str) -> str:
    """Return a table in Markdown: one line per case with its worst sort and view."""
    lines = [
        f"**{title}**: ratio to the better plan, {len(found)} lists",
        "",
        "| list | worst sort and view | ours, ms of CPU | gather | walk | count | ratio | median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        ours = [one for one in found if one.case is case]
        if ours:
            worst = max(ours, key=lambda one: one.ratio)
            middle = statistics.median(one.ratio for one in ours)
            times = (worst.ours, worst.gather, worst.walk, worst.counting)
            cells = " | ".join(f"{ms:,.1f}" if ms < inf else "longer" for ms in times)
            lines.append(
                f"| `{case}` | {worst.sort}, {worst.view} | {cells} | {worst.ratio:.1f}"
                f" | {middle:.1f} |"
            )
    slow = [one for one in found if one.ratio > 3 and one.ours > one.best + 2]
    lines += ["", f"More than three times and 2 ms over the better plan: {len(slow)}."]
    lines += [
        f"- `{one.case}` {one.sort}, {one.view}: {one.ours:,.1f} ms, {one.ratio:.1f}"
        for one in slow
    ]
    slowest = max(found, key=lambda one: one.ours)
    lines.append(
        f"Slowest: `{slowest.case}` {slowest.sort}, {slowest.view}: {slowest.ours:,.0f} ms."
    )
    return "\n".join([*lines, ""])


def run(
    url: str,
    rows: int,
    rounds: int,
    only: str,
    say: Callable[[Measured], None],
    *,
    trigrams: bool,
    filled: bool,
) -> str:
    """Fill the tables if needed, measure, and return the table."""

    async def steps() -> list[Measured]:
        connection = await asyncpg.connect(url, server_settings=SETTINGS)
        try:
            if not filled:
                await fill(connection, rows, trigrams=trigrams)
        finally:
            await connection.close()
        return await measure(url, rounds, only, say)

    with_ = "with" if trigrams else "without"
    return shown(asyncio.run(steps()), f"{rows:,} rows, {with_} pg_trgm")
