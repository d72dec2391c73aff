"""The plan of each prepared statement on a seeded database: PostgreSQL's generic plan.

A prepared statement is planned without its values after its fifth use: that plan is held here.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from conftest import query
from test_migrations import binaries

from service.admin import catalogue
from service.asgi import MIGRATIONS, app
from service.dashboard import statements as dashboard
from service.db.batcher import AwaitedAnswer
from service.db.database import Database
from service.db.filters import FilterIndex, containing
from service.db.pooled_connection import SESSION
from service.db.statement import DIALECT
from service.db.writable import WritableDatabase
from service.db.writes import Call
from service.embedded.stores import stores
from service.items import items
from service.items.seed import samples
from service.migrations import migrate

EXAMPLES: dict[str, str] = {
    "bigint": "5000",
    "boolean": "true",
    "numeric": "10",
    "text": "'Lamp'",
    "character varying": "'%lamp 77%'",
    "timestamp with time zone": f"'{datetime(2026, 1, 1, 1, tzinfo=UTC)}'",
    "bytea": r"'\\x00'",
    "bigint[]": "'{1}'",
    "integer": "1",
    "double precision": "1",
    "json": "'{}'",
    "jsonb": "'{}'",
    "boolean[]": "'{true}'",
    "numeric[]": "'{10}'",
    "text[]": "'{Lamp}'",
}

SORTED = {
    "items": {
        "id": "items_pkey",
        "created_at": "items_created_at_idx",
        "name": "items_name_idx",
        "price": "items_price_idx",
    },
    "users": {
        "id": "users_pkey",
        "created_at": "users_created_at_idx",
        "username": "users_username_idx",
    },
    "keys": {"id": "keys_pkey", "created_at": "keys_created_at_idx"},
    "notifications": {"id": "notifications_pkey", "created_at": "notifications_created_at_idx"},
}


def lists() -> Iterator[tuple[str, str]]:
    """Every sort, each way, as first page, by page number and by cursor."""
    for table, sorts in SORTED.items():
        for sort, index in sorts.items():
            for sign in ("", "-"):
                query = "" if sign + sort == "id" else f"sort={sign}{sort}"
                yield f"{table}.start" + (f"?{query}" if query else ""), index
                yield f"{table}.after" + (f"?{query}" if query else ""), index
                for number in ("", "&page"):
                    yield f"{table}.page?{query + '&' if query else ''}total=none{number}", index


ONE_INDEX: tuple[tuple[str, str], ...] = (
    *(
        (f"{table}.{write}{guard}", f"{table}_pkey")
        for table in ("items", "users")
        for write in ("replace", "change", "deactivate", "remove")
        for guard in ("", "_if", "_own", "_if_own")
    ),
    *(
        (f"{table}.{many}", f"{table}_pkey")
        for table in ("items", "users")
        for many in ("by_id", "by_id_many", "change_many", "change_many_own")
    ),
    ("items.owner_exists", "users_pkey"),
    ("keys.by_prefix", "keys_prefix_key"),
    ("keys.by_prefix_many", "keys_prefix_key"),
    ("keys.revoke", "keys_user_id_idx"),
    ("keys.issue", "keys_user_id_idx"),
    ("keys.user_by_email", "users_email_key"),
    ("items.owners_many", "users_pkey"),
    ("items.newest_by_owner", "items_owner_id_idx"),
    ("jobs.claim", "jobs_queued_idx"),
    ("jobs.claim", "jobs_running_idx"),
    *((f"jobs.{write}", "jobs_pkey") for write in ("progress", "finish", "fail", "release")),
    ("jobs.by_id", "jobs_pkey"),
    ("jobs.spooled", "jobs_place_idx"),
    ("jobs.trim", "jobs_finished_idx"),
    ("idempotency.find", "idempotency_keys_pkey"),
    ("idempotency.remove", "idempotency_keys_created_at_idx"),
    *lists(),
    # Filters that have an index of their own.
    ("items.page?is_active=false", "items_inactive_idx"),
    ("items.after?is_active=false", "items_inactive_idx"),
    ("items.start?owner_id", "items_owner_id_idx"),
    ("items.after?sort=-id&owner_id", "items_owner_id_idx"),
    ("items.page?owner_id", "items_owner_id_idx"),
    ("keys.start?user_id", "keys_user_id_idx"),
    ("notifications.page?user_id", "notifications_user_id_idx"),
    ("notifications.after?sort=-id&user_id", "notifications_user_id_idx"),
    # Both filters at once, and the total from the index alone.
    ("notifications.page?user_id&unread=true", "notifications_unread_idx"),
    ("notifications.after?sort=-id&user_id&unread=true", "notifications_unread_idx"),
    ("notifications.mark_read", "notifications_user_id_idx"),
    ("notifications.mark_all_read", "notifications_unread_idx"),
    ("items.start?sort=price&min_price&max_price", "items_price_idx"),
    ("items.after?sort=-price&min_price", "items_price_idx"),
    ("items.page?sort=-price&max_price", "items_price_idx"),
    ("users.page?is_active=false", "users_inactive_idx"),
    ("users.page?role=admin", "users_admin_idx"),
    ("users.after?sort=-id&role=admin", "users_admin_idx"),
    # A user owns one user, so what it may see is found by its id whatever the list is.
    ("users.page_own", "users_pkey"),
    ("users.page_own?is_active=true", "users_pkey"),
    ("users.after_own", "users_pkey"),
    # In the order of the ids the common side of a filter is read like the whole table.
    ("items.start?is_active=true", "items_pkey"),
)
SEARCHES = (("items.page?q", "items_search_idx"), ("users.page?q", "users_search_idx"))

# An index that a constraint reads at every write needs no list.
CONSTRAINTS = {"users_email_key", "users_username_key", "webhook_failures_webhook_id_idx"}


class Seeded:
    """A migrated database with samples in it, and the plans of its statements."""

    def __init__(self, url: str) -> None:
        self.url = url

    def plan(self, name: str) -> list[dict[str, Any]]:
        """Every node of the plan, for the values of EXAMPLES where it is planned by values."""
        found = asyncio.run(self._plan(name))
        nodes, queue = [], [found]
        while queue:
            node = queue.pop()
            nodes.append(node)
            queue += node.get("Plans", [])
        return nodes

    async def _plan(self, name: str) -> dict[str, Any]:
        connection = await asyncpg.connect(self.url)
        try:
            _, statement = catalogue.find(app.sources, name)
            mode = "force_custom_plan" if statement.by_values else "force_generic_plan"
            await connection.execute(f"SET plan_cache_mode = {mode}; SET jit = off")
            await connection.execute(f"PREPARE one AS {statement.sql}")
            types: list[str] = await connection.fetchval(
                "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'one'"
            )
            values = ", ".join(EXAMPLES[kind] for kind in types)
            text = f"EXPLAIN (FORMAT JSON) EXECUTE one{f'({values})' if values else ''}"
            plan: dict[str, Any] = json.loads(await connection.fetchval(text))[0]["Plan"]
        finally:
            await connection.close()
        return plan


@pytest.fixture(scope="module", params=tuple(binaries()))
def seeded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seeded]:
    data: Path = tmp_path_factory.mktemp("plans") / "data"
    with stores(data, redis=False, postgres_bin=request.param) as running:
        assert running.database_url is not None
        migrate.up(running.database_url, MIGRATIONS)
        asyncio.run(
            samples.write(running.database_url, {"users": 2000, "items": 20_000}, lambda *_: None)
        )
        query(
            running.database_url,
            "INSERT INTO idempotency_keys SELECT '', n, '', 201, '', ''"
            " FROM generate_series(1, 5000) n",
        )
        query(
            running.database_url,
            "INSERT INTO jobs (kind, argument, state, run_at, leased_until, finished_at)"
            " SELECT 'Lamp', '{}', CASE WHEN n % 3 = 0 THEN 'done' WHEN n < 2000 THEN 'running'"
            " ELSE 'queued' END, now(), CASE WHEN n < 2000 THEN now() END,"
            " CASE n % 3 WHEN 0 THEN now() - n * interval '1 minute' END"
            " FROM generate_series(1, 150000) n",
        )
        query(running.database_url, "ANALYZE idempotency_keys, jobs")
        query(
            running.database_url,
            "INSERT INTO notifications (user_id, kind, message, unread)"
            " SELECT 1 + n % 2000, 'test', 'Told', n % 50 = 0 FROM generate_series(1, 20000) n",
        )
        query(running.database_url, "VACUUM (ANALYZE) notifications")
        yield Seeded(running.database_url)


@pytest.mark.parametrize(("name", "index"), ONE_INDEX, ids=[name for name, _ in ONE_INDEX])
def test_a_prepared_statement_uses_its_index_and_sorts_nothing(
    seeded: Seeded, name: str, index: str
) -> None:
    nodes = seeded.plan(name)
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    kinds = {node["Node Type"] for node in nodes}
    assert index in indexes, nodes
    assert not kinds & {"Sort", "Incremental Sort", "Seq Scan", "Hash Join", "Materialize"}, kinds


@pytest.mark.parametrize(
    ("name", "key"),
    (
        ("items.upsert", "items_sku_key"),
        ("items.upsert_own", "items_sku_key"),
        ("users.upsert", "users_email_key"),
    ),
)
def test_an_upsert_locks_existing_rows_in_order_before_it_inserts(
    seeded: Seeded, name: str, key: str
) -> None:
    plan, table = seeded.plan(name)[0], name.partition(".")[0]
    parts = {node.get("Subplan Name"): node for node in plan["Plans"]}
    locking = parts["CTE existing"]
    assert locking["Node Type"] == "LockRows"
    (sort,) = locking["Plans"]
    assert (sort["Node Type"], sort["Sort Key"]) == ("Sort", [f"{table}.id"])
    found = {node.get("Index Name") for node in below(sort)} - {None}
    assert found == {key}
    assert {node.get("Index Name") for node in below(parts["CTE updated"])} - {None} == {
        f"{table}_pkey"
    }
    # All is locked before the first row of the sort comes out; who is there is looked up in a hash.
    # The ids are drawn before that, in the order given.
    (sort,) = (node for node in below(parts["CTE inserted"]) if node["Node Type"] == "Sort")
    assert {node.get("CTE Name") for node in below(sort)} == {None, "numbered"}
    numbered = below(parts["CTE numbered"])
    assert "existing" in {node.get("CTE Name") for node in numbered}
    assert any("hashed" in node.get("Filter", "") for node in numbered)
    assert [node["Sort Key"] for node in numbered if node["Node Type"] == "Sort"] == [["rows_1.n"]]
    # Nothing compares each row with each.
    kinds = [node["Node Type"] for node in below(plan)]
    assert "Seq Scan" not in kinds
    assert kinds.count("Nested Loop") == 2


@pytest.mark.parametrize("own", ("", "_own"))
@pytest.mark.parametrize("what", ("change", "deactivate", "remove"))
def test_writes_of_many_rows_lock_in_the_order_of_their_ids(
    seeded: Seeded, what: str, own: str
) -> None:
    plan = seeded.plan(f"items.{what}_all{own}")[0]
    (locking,) = (node for node in below(plan) if node["Node Type"] == "LockRows")
    (first,) = locking["Plans"]
    assert first["Node Type"] in {"Sort", "Index Scan", "Index Only Scan"}
    assert {node.get("Index Name") for node in below(plan)} - {None} == {"items_pkey"}
    assert "Seq Scan" not in {node["Node Type"] for node in below(plan)}


@pytest.mark.parametrize(
    ("name", "indexes"),
    (
        ("items.sku_taken", {"items_sku_key"}),
        ("items.upsert_taken_own", {"items_sku_key"}),
        ("items.owner_absent", {"users_pkey"}),
        ("users.username_taken", {"users_username_key"}),
    ),
)
def test_conflicting_rows_are_found_by_an_index(
    seeded: Seeded, name: str, indexes: set[str]
) -> None:
    nodes = seeded.plan(name)
    assert {node.get("Index Name") for node in nodes} - {None} == indexes
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}


def below(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The node and all nodes below it."""
    return [node, *(one for part in node.get("Plans", []) for one in below(part))]


@pytest.mark.parametrize("query", ("", "?is_active=true", "?is_active=false", "?total=estimated"))
@pytest.mark.parametrize("table", ("items", "users"))
def test_a_page_with_its_total_counts_no_row(seeded: Seeded, table: str, query: str) -> None:
    nodes = seeded.plan(f"{table}.page{query}")
    kinds = [node["Node Type"] for node in nodes]
    assert "Sort" not in kinds
    # The join on nothing keeps the order of the page.
    assert kinds.count("Nested Loop") == 1
    rows = [node for node in nodes if node.get("Relation Name") == table]
    assert [node["Node Type"] for node in rows] == ["Index Scan"]
    assert "totals" in {node.get("Relation Name") for node in nodes}


@pytest.mark.parametrize(
    "name", ("items.after?sort=-price", "items.after?sort=name", "users.after")
)
def test_a_cursor_is_found_in_the_index_not_filtered(seeded: Seeded, name: str) -> None:
    (scan,) = (node for node in seeded.plan(name) if "Index Name" in node)
    assert "Index Cond" in scan
    assert "Filter" not in scan


def test_a_dashboard_is_read_from_indexes_with_one_plan_for_all_users(seeded: Seeded) -> None:
    """One user has half of the items: a plan for another user is taken for a better one."""
    nodes = seeded.plan("dashboard.find")
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert indexes == {"users_pkey", "items_owner_id_idx", "notifications_unread_idx"}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    assert asyncio.run(_plans_for_all(seeded.url)) > 0


async def _plans_for_all(url: str) -> int:
    """How often of ten runs PostgreSQL has taken the plan for all users."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("UPDATE items SET owner_id = 1 WHERE id % 2 = 0")
            await connection.execute("ANALYZE items")
            # So that few rows make as much of a difference as many.
            await connection.execute("SET LOCAL random_page_cost = 100")
            prepared = await connection.prepare(dashboard.find.sql, name="dashboard")
            for user in range(2, 12):
                await prepared.fetch(user)
            found: int = await connection.fetchval(
                "SELECT generic_plans FROM pg_prepared_statements WHERE name = 'dashboard'"
            )
            raise Undone
    except Undone:
        return found
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "name",
    (
        "items.page",
        "items.page?total=none",
        "items.page?sort=-price",
        "items.page?is_active=true",
        "items.page?sort=-price&is_active=true",
        "items.start?sort=name&is_active=false",
        "items.start?sort=-created_at",
        "items.after",
        "items.after?sort=-id&is_active=true",
    ),
)
def test_a_list_without_offset_has_one_plan_after_its_fifth_use(seeded: Seeded, name: str) -> None:
    """Else each use on a large table is planned again, which costs more than reading the page."""
    _, statement = catalogue.find(app.sources, name)
    values = {"limit": 11, "last_id": 10_000}

    async def plans() -> tuple[int, int]:
        connection = await asyncpg.connect(seeded.url, server_settings=SESSION)
        try:
            prepared = await connection.prepare(statement.sql, name="one")
            for _ in range(10):
                await prepared.fetch(*(values[one] for one in statement.names))
            counted = "SELECT custom_plans, generic_plans FROM pg_prepared_statements"
            ((custom, generic),) = await connection.fetch(f"{counted} WHERE name = 'one'")
            return custom, generic
        finally:
            await connection.close()

    assert asyncio.run(plans()) == (5, 5)


def test_a_batch_of_few_rows_has_one_plan_after_its_fifth_use(seeded: Seeded) -> None:
    """PostgreSQL expects ten keys; a batch of fewer is filled up, or each use would be planned."""

    async def plans() -> dict[str, tuple[int, int]]:
        db = Database(seeded.url, size=1, statement_timeout=60, statements=items.prepared)
        await db.open()
        try:
            ids = range(10**9, 10**9 + 4)  # no such rows, so nothing is changed
            call = Call(items.writes.change, None, None, 0, items.change(is_active=True))
            for _ in range(10):
                assert not await items.by_id.several(db, ids)
                changes = [AwaitedAnswer(id_, call._replace(id=id_)) for id_ in ids]
                for one in changes:
                    items.writes.submit(WritableDatabase(db), one)
                assert {await one.future for one in changes} == {(None, None)}
            pooled = db.pool.take()
            assert pooled is not None
            found = await pooled.connection.fetch(
                "SELECT statement, custom_plans, generic_plans FROM pg_prepared_statements"
            )
            db.pool.release(pooled)
            names = {one.sql: one.name for one in items.prepared}
            return {names[sql]: (one, every) for sql, one, every in found if sql in names}
        finally:
            await db.close()

    found = asyncio.run(plans())
    assert found["items.by_id_many"] == found["items.change_many"] == (5, 5)


class Undone(Exception):  # noqa: N818 - no error
    """Rolls a transaction back."""


def test_a_users_items_are_counted_in_the_index_alone(seeded: Seeded) -> None:
    scans = {
        node["Node Type"]
        for node in seeded.plan("items.page?owner_id")
        if node.get("Index Name") == "items_owner_id_idx"
    }
    assert "Index Only Scan" in scans


@pytest.mark.parametrize(("name", "index"), SEARCHES)
def test_the_page_of_a_search_is_gathered_by_the_trigram_index_where_there_is_one(
    seeded: Seeded, name: str, index: str
) -> None:
    (every,) = (node for node in seeded.plan(name) if node.get("Subplan Name") == "CTE every")
    indexes = {node["Index Name"] for node in below(every) if "Index Name" in node}
    trigram = asyncio.run(_has_trigram(seeded.url))
    assert (index in indexes) == trigram


@pytest.mark.parametrize(
    ("name", "walked"), (("items.page?q", 500), ("items.page?sort=name&q", 200))
)
def test_the_page_of_a_search_walks_few_rows_before_it_gathers(
    seeded: Seeded, name: str, walked: int
) -> None:
    (near,) = (node for node in seeded.plan(name) if node.get("Subplan Name") == "CTE near")
    kinds = [node["Node Type"] for node in below(near)]
    assert kinds[:4] == ["Limit", "Subquery Scan", "WindowAgg", "Limit"]
    assert kinds[4] in {"Index Scan", "Index Only Scan"}
    assert below(near)[3]["Plan Rows"] == walked


@pytest.mark.parametrize(
    "name", ("items.page?q", "items.page?sort=-price&q&owner_id", "users.start?q&role=admin")
)
def test_the_sample_of_a_filtered_list_reads_the_first_rows_of_pages(
    seeded: Seeded, name: str
) -> None:
    (sample,) = (node for node in seeded.plan(name) if node.get("Subplan Name") == "CTE sample")
    table = name.partition(".")[0]
    scans = [node for node in below(sample) if node.get("Relation Name") == table]
    assert [node["Node Type"] for node in scans] == ["Tid Range Scan"]


async def _has_trigram(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval("SELECT 1 FROM pg_extension WHERE extname='pg_trgm'"))
    finally:
        await connection.close()


def test_every_index_has_a_reader() -> None:
    made = {str(index.name) for table in app.tables for index in table.indexes}
    read = {index for _, index in (*ONE_INDEX, *SEARCHES)}
    assert made <= read | CONSTRAINTS, "an index that nothing reads only costs every write"


@pytest.mark.parametrize("ctype", ("C", "C.UTF-8"))
def test_an_index_is_used_where_the_term_has_trigrams(seeded: Seeded, ctype: str) -> None:
    name = f"letters_{ctype.lower()[:1]}{len(ctype)}"
    query(seeded.url, f"CREATE DATABASE {name} TEMPLATE template0 LC_CTYPE '{ctype}'")
    url = re.sub(r"///\w+", f"///{name}", seeded.url)
    migrate.up(url, MIGRATIONS)
    served_by = items.listing.filters["q"].served_by
    assert isinstance(served_by, FilterIndex)
    usable = str(served_by.usable.compile(dialect=DIALECT))
    indexed = bool(query(url, "SELECT to_regclass('items_search_idx') IS NOT NULL")[0][0])
    for term, letters in (
        ("lamp", True),
        ("42x", True),
        ("größe", True),  # its `gr` begins no word, but ends one where only ASCII counts
        ("привет", ctype != "C"),
        ("日本語", ctype != "C"),
        ("la", False),
        ("日本", False),
        ("---", False),
    ):
        found = query(url, f"SELECT {usable}", containing(term))[0][0]
        assert found == (indexed and letters), term
