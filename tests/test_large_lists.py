"""Filtered lists read little more than the better plan, for any number of matches.

A list can walk the index of its sort order, or gather all matches and sort them; bench/lists.py
forces each plan. The tests count blocks and rows that are read, not the time.
"""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from _pytest.mark import ParameterSet
from sqlalchemy import bindparam, select
from test_migrations import binaries

from bench.lists import CASES, SETTINGS, WALKING, Case, View, fill, question
from service.asgi import MIGRATIONS
from service.db.adaptive import ESTIMATE_LIMIT
from service.db.filters import Bound, containing
from service.db.keyset import Listing
from service.db.pooled_connection import PooledConnection
from service.db.schema import totals
from service.db.statement import RefusedError, Statement
from service.embedded.stores import stores
from service.items import items
from service.items.structs import Item
from service.migrations import migrate
from service.users import users as users_resource

ROWS = 40_000
# A row that a scan looks at, in blocks.
ROW = 1 / 5
# Blocks that the first steps may read without a use: some hundred rows, each in its own block, and
# the matches that an estimate counts. A walk by name is 48,000, a sequential scan 9,000.
SLACK = 3000
SORTS = {"items": ("id", "name", "-price"), "users": ("id", "-username")}
VIEWS = (View("page", "exact"), View("page", "none", 100), View("start", "estimated"))


class Large(NamedTuple):
    """A database with large tables; `trigrams` says whether it has pg_trgm."""

    url: str
    trigrams: bool


def servers() -> Iterator[object]:
    """One server with the trigram index, one without."""
    for one, trigrams in zip(binaries(), (True, False), strict=True):
        assert isinstance(one, ParameterSet)
        word = "with" if trigrams else "without"
        yield pytest.param((*one.values, trigrams), id=f"{one.id}-{word}", marks=one.marks)


@pytest.fixture(scope="module", params=tuple(servers()))
def large(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Large]:
    programs, trigrams = request.param
    data: Path = tmp_path_factory.mktemp("large") / "data"
    with stores(data, redis=False, postgres_bin=programs) as running:
        assert running.database_url is not None
        migrate.up(running.database_url, MIGRATIONS)
        asyncio.run(filled(running.database_url, trigrams=trigrams))
        yield Large(running.database_url, trigrams)


async def filled(url: str, *, trigrams: bool) -> None:
    connection = await asyncpg.connect(url)
    try:
        await fill(connection, ROWS, trigrams=trigrams)
    finally:
        await connection.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_list_reads_little_more_than_the_better_plan_needs(large: Large, case: Case) -> None:
    asyncio.run(compare(large.url, case))


async def compare(url: str, case: Case) -> None:
    connection = await asyncpg.connect(url, server_settings=SETTINGS)
    walking = await asyncpg.connect(url, server_settings={**SETTINGS, **WALKING})
    try:
        for sort in SORTS[case.listing.name]:
            for view in VIEWS:
                asked = question(case, sort, view)
                args = asked.values
                gather = await read(connection, asked.gather, args)
                walk = await read(walking, asked.walk, args)
                count = await read(connection, asked.counting, args) if asked.counting else 0
                ours = await read(connection, asked.ours, args)
                best = min(gather, walk) + count
                assert ours <= 3 * best + SLACK, (sort, str(view), ours, gather, walk, count)
    finally:
        await connection.close()
        await walking.close()


async def read(
    connection: asyncpg.Connection, statement: Statement[Any], values: dict[str, Any]
) -> float:
    """Return blocks read, plus rows that scans look at, converted to blocks."""
    args = [values[name] for name in statement.names]
    text = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement.sql}"
    plan = json.loads(await connection.fetchval(text, *args))[0]["Plan"]
    blocks: float = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return blocks + ROW * sum(looked_at(node) for node in below(plan) if "Relation Name" in node)


def looked_at(node: dict[str, Any]) -> float:
    removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    rows = node["Actual Rows"] + sum(node.get(name, 0) for name in removed)
    return float(rows * node["Actual Loops"])


def below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for part in node.get("Plans", ()):
        yield from below(part)


def test_the_newest_rows_of_parents_are_read_and_the_others_counted_in_the_index(
    large: Large,
) -> None:
    """For each parent it reads as many rows as it shows, and counts without reading a row."""
    asyncio.run(check_newest(large.url))


async def check_newest(url: str) -> None:
    loader = items.newest_by["owner_id"]
    connection = await asyncpg.connect(url, server_settings=SETTINGS)
    try:
        counts = "SELECT owner_id, count(*) FROM items GROUP BY 1 ORDER BY 2 DESC LIMIT 10"
        owners = [row["owner_id"] for row in await connection.fetch(counts)]
        for parents in ([owners[0]], [*owners, 2**62]):
            text = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {loader.statement.sql}"
            plan = json.loads(await connection.fetchval(text, parents))[0]["Plan"]
            scans = {node["Node Type"]: node for node in below(plan) if node.get("Relation Name")}
            assert scans.keys() == {"Index Scan", "Index Only Scan"}
            assert {node["Index Name"] for node in scans.values()} == {"items_owner_id_idx"}
            assert scans["Index Only Scan"]["Heap Fetches"] == 0
            newest = scans["Index Scan"]
            assert newest["Scan Direction"] == "Backward"
            assert "Filter" not in newest
            assert looked_at(newest) <= 20 * len(parents)
            assert "Sort" not in {node["Node Type"] for node in below(plan)}
    finally:
        await connection.close()


# Deep pages of common matches, some clustered in the sort order, others evenly spread.
DEEP = (
    (Case(items.listing, {"q": "modern"}), "name", 8000),
    (Case(items.listing, {"q": "brass"}), "name", 1000),
    (Case(items.listing, {"owner_id": 1}), "-price", 1500),
    (Case(items.listing, {"q": "plain", "is_active": True}), "-created_at", 2000),
    (Case(items.listing, {"q": "a", "max_price": Decimal(900)}), "-name", 2000),
    (Case(users_resource.listing, {"q": "example", "role": "user"}), "-username", 4000),
)


@pytest.mark.parametrize("total", ("none", "exact"))
@pytest.mark.parametrize(
    ("case", "sort", "offset"), DEEP, ids=[f"{case}-{sort}" for case, sort, _ in DEEP]
)
def test_a_deep_page_of_common_matches_is_reached_by_a_walk_and_sorts_only_its_rows(
    large: Large, case: Case, sort: str, offset: int, total: str
) -> None:
    asked = question(case, sort, View("page", total, offset))
    plan = asyncio.run(analyzed(large.url, asked.ours, asked.values))
    sorts = [node for node in below(plan) if node["Node Type"] == "Sort"]
    parts = [part for node in sorts for part in node["Plans"]]
    sorted_ = [one["Actual Rows"] for one in parts if one["Parent Relationship"] == "Outer"]
    assert max(sorted_) <= asked.values["limit"], "it gathers and sorts the matches"


def test_without_an_index_a_walk_by_id_continues_to_a_rare_match(large: Large) -> None:
    if large.trigrams:
        pytest.skip("the index gathers it")
    asked = question(Case(items.listing, {"q": "lamp 12"}), "id", View("page", "none", 60))
    plan = asyncio.run(analyzed(large.url, asked.ours, asked.values))
    kinds = {node["Node Type"] for node in below(plan) if node["Actual Loops"]}
    assert "Seq Scan" not in kinds


@pytest.mark.parametrize(("case", "sort"), [(case, sort) for case, sort, _ in DEEP[:3]])
def test_a_page_after_the_last_match_is_not_reached_by_a_walk(
    large: Large, case: Case, sort: str
) -> None:
    asked = question(case, sort, View("page", "exact", ROWS))
    plan = asyncio.run(analyzed(large.url, asked.ours, asked.values))
    (far,) = (node for node in below(plan) if node.get("Subplan Name") == "CTE far")
    assert sum(looked_at(node) for node in below(far) if "Relation Name" in node) == 0


async def analyzed(url: str, statement: Statement[Any], values: dict[str, Any]) -> dict[str, Any]:
    connection = await asyncpg.connect(url, server_settings=SETTINGS)
    try:
        args = [values[name] for name in statement.names]
        text = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement.sql}"
        plan: dict[str, Any] = json.loads(await connection.fetchval(text, *args))[0]["Plan"]
    finally:
        await connection.close()
    return plan


@pytest.mark.parametrize("q", ("---", "x", "жы", "% _", "lamp 12345"))
@pytest.mark.parametrize("listing", (items.listing, users_resource.listing), ids=["items", "users"])
def test_the_trigram_index_is_read_only_for_a_term_that_has_a_trigram(
    large: Large, listing: Listing[Any], q: str
) -> None:
    if not large.trigrams:
        pytest.skip("there is no index")
    statement = listing.page("id", (("q", None),), "exact")
    values = {"q": containing(q), "limit": 11, "offset": 0}
    plan = asyncio.run(plan_of(large.url, statement, values))
    assert (f"{listing.name}_search_idx" in plan) == (q == "lamp 12345")


async def plan_of(url: str, statement: Statement[Any], values: dict[str, Any]) -> str:
    # Use a bitmap if it is possible: the test is not about the planner's estimates.
    others = ("enable_seqscan", "enable_indexscan", "enable_indexonlyscan")
    bitmaps = {**SETTINGS, **dict.fromkeys(others, "off")}
    connection = await asyncpg.connect(url, server_settings=bitmaps)
    try:
        args = [values[name] for name in statement.names]
        return str(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement.sql}", *args))
    finally:
        await connection.close()


def test_an_export_gathers_a_rare_term(large: Large) -> None:
    if not large.trigrams:
        pytest.skip("without the index each search reads the table")
    statement = items.exported.statement("ndjson", (("q", None),))
    read_in_blocks = asyncio.run(read_once(large.url, statement, {"q": "%lamp 1234%"}))
    assert read_in_blocks < 500


async def read_once(url: str, statement: Statement[Any], values: dict[str, Any]) -> float:
    connection = await asyncpg.connect(url, server_settings=SETTINGS)
    try:
        return await read(connection, statement, values)
    finally:
        await connection.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_list_finds_the_same_rows_as_a_plain_query(large: Large, case: Case) -> None:
    sorts = SORTS[case.listing.name]
    asyncio.run(check_rows(large.url, case, sorts[-2:] if large.trigrams else sorts[:1]))


async def check_rows(url: str, case: Case, sorts: tuple[str, ...]) -> None:
    listing = case.listing
    connection = await asyncpg.connect(url, server_settings=SETTINGS)
    try:
        for sort in sorts:
            asked = question(case, sort, VIEWS[0])
            values = asked.values
            expected = await fetch(connection, asked.gather, {**values, "limit": ROWS})
            ids = [row["id"] for row in expected]
            for view in VIEWS:
                offset = view.offset
                ours = question(case, sort, view).ours
                found = await fetch(connection, ours, {**values, "offset": offset})
                assert [row["id"] for row in found if row["id"]] == ids[offset : offset + 11]
                if view.total == "exact":
                    assert found[0]["total"] == len(ids)
                if view.total == "estimated":
                    kept = case.filters.keys() == {"is_active"}
                    assert found[0]["total"] == (
                        len(ids) if kept else min(len(ids), ESTIMATE_LIMIT)
                    )
            # By cursor from the middle of the matches, and after the last match.
            chosen = tuple(
                (name, None if isinstance(one, Bound) else case.filters[name])
                for name, one in listing.filters.items()
                if name in case.filters
            )
            for total in ("none", "exact", "estimated"):
                after = listing.after(sort, chosen, total, start=False)
                for place in {len(ids) // 2, len(ids) - 1} if ids else ():
                    last = {
                        "last_id": ids[place],
                        "last_key": await key_of(connection, listing, sort, ids[place]),
                    }
                    found = await fetch(connection, after, {**values, **last})
                    shown = [row["id"] for row in found if row["id"]]
                    assert shown == ids[place + 1 : place + 12], (sort, total, place)
                    if total == "exact":
                        assert found[0]["total"] == len(ids)
    finally:
        await connection.close()


async def key_of(
    connection: asyncpg.Connection, listing: Listing[Any], sort: str, row: int
) -> object:
    key = select(listing.orders[sort].key).where(listing.table.c.id == bindparam("id"))
    one = Statement("key", tuple, key)
    return (await connection.fetch(one.sql, row))[0][0]


async def fetch(
    connection: asyncpg.Connection, statement: Statement[Any], values: dict[str, Any]
) -> list[asyncpg.Record]:
    records: list[asyncpg.Record] = await connection.fetch(
        statement.sql, *(values[name] for name in statement.names)
    )
    return records


TERMS = ("lamp", "zzzzzz", "plain", "lamp 1234", "late", "qx", "modern", "---")


@pytest.mark.parametrize("sort", ("id", "name", "-price"))
@pytest.mark.parametrize("first", (0, 3), ids=("begins-common", "begins-rare"))
def test_a_search_is_always_planned_for_its_term(large: Large, sort: str, first: int) -> None:
    if not large.trigrams:
        pytest.skip("without the index each search reads the table")
    asyncio.run(repeat(large.url, sort, TERMS[first:] + TERMS[:first]))


async def repeat(url: str, sort: str, terms: tuple[str, ...]) -> None:
    link = await PooledConnection.open(url, statement_timeout=10)
    try:
        statement = items.listing.page(sort, (("q", None),), "none")
        rare = {"q": containing("zzzzzz"), "limit": 11, "offset": 0}
        for _ in range(3):
            for term in terms:
                await run_on(link, statement, {**rare, "q": containing(term)})
            assert await rows_read(link, statement, rare) < 2000
        named = await link.connection.fetchval(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement = $1", statement.sql
        )
        assert named == 0, "a named statement may get one plan for all terms"
    finally:
        await link.close()


async def run_on(
    link: PooledConnection, statement: Statement[Any], values: dict[str, Any]
) -> list[Any]:
    prepared = await link.statement(statement)
    return await prepared.fetch(*(values[name] for name in statement.names))


async def rows_read(
    link: PooledConnection, statement: Statement[Any], values: dict[str, Any]
) -> int:
    count = (
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
        " WHERE relname = 'items'"
    )
    async with link.connection.transaction():
        before = await link.connection.fetchval(count)
        await run_on(link, statement, values)
        return int(await link.connection.fetchval(count) - before)


def test_every_filter_by_value_is_planned_for_it() -> None:
    for listing in (items.listing, users_resource.listing):
        for name, one in listing.filters.items():
            if isinstance(one, Bound):
                for sort in listing.orders:
                    alone = one.one_plan and sort in {"id", "-id"}
                    assert listing.page(sort, ((name, None),), "exact").by_values != alone
        assert not listing.page("id", (), "exact").by_values


def test_totals_are_read_only_if_a_trigger_keeps_them() -> None:
    other = items.table.to_metadata(type(items.table.metadata)(), name="other_items")
    other.info.clear()
    with pytest.raises(RefusedError, match="no trigger keeps the totals of other_items"):
        Listing("other", Item, other, {"id": other.c.id}, {}, totals)
    counting = Listing("other", Item, other, {"id": other.c.id}, {})
    assert "totals" not in counting.page("id", (), "exact").sql
    assert "count(*)" in counting.page("id", (), "exact").sql
    assert "totals" in items.listing.page("id", (), "exact").sql
