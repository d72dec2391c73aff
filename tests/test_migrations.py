"""Alembic on PostgreSQL 15 and 18: up, down, check, and concurrent starts."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from conftest import HEAD, ROOT, query

from service.asgi import MIGRATIONS, app
from service.embedded.programs import wheel_postgres
from service.embedded.stores import stores
from service.migrations import migrate

DEBIAN = Path("/usr/lib/postgresql/15/bin")


def binaries() -> Iterator[object]:
    yield pytest.param(wheel_postgres(), id="embedded-18")
    missing = pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's PostgreSQL 15 is not here")
    yield pytest.param(DEBIAN, id="debian-15", marks=(missing, pytest.mark.slow))


@pytest.fixture(scope="module", params=tuple(binaries()))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    data = tmp_path_factory.mktemp("migrations") / "data"
    with stores(data, redis=False, postgres_bin=request.param) as running:
        assert running.database_url is not None
        yield running.database_url


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    name = f"test_{abs(hash(request.node.name)) % 10**8}"
    query(server, f"CREATE DATABASE {name}")
    return server.replace("///service?", f"///{name}?")


def check(url: str) -> list[str]:
    return asyncio.run(migrate.check(url, app.tables, MIGRATIONS))


def status(url: str) -> str | None:
    return asyncio.run(migrate.status(url))


def relations(url: str) -> set[str]:
    found = query(url, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    return {record[0] for record in found}


def test_up_down_and_up_again(url: str) -> None:
    assert status(url) is None
    migrate.up(url, MIGRATIONS)
    assert status(url) == HEAD
    after = relations(url)
    assert {"items", "users", "items_name_idx"} <= after
    migrate.down(url, MIGRATIONS, "base")
    assert not relations(url) - {"alembic_version", "alembic_version_pkc"}
    migrate.up(url, MIGRATIONS)
    assert relations(url) == after


def test_a_migrated_database_matches_the_tables(url: str) -> None:
    assert check(url) == [f"the database is at revision none, the newest is {HEAD}"]
    migrate.up(url, MIGRATIONS)
    assert check(url) == []


@pytest.mark.parametrize(
    ("change", "named"),
    (
        ("ALTER TABLE items ADD colour text", "column items.colour"),
        ("ALTER TABLE items ALTER name DROP NOT NULL", "column items.name"),
        ("ALTER TABLE items ALTER version SET DEFAULT 0", "column items.version"),
        ("ALTER TABLE items ALTER sku TYPE varchar(64)", "column items.sku"),
        ("DROP INDEX items_price_idx", "index items_price_idx"),
        (
            (
                "DROP INDEX items_inactive_idx;"
                " CREATE INDEX items_inactive_idx ON items (id) WHERE is_active"
            ),
            "index items_inactive_idx",
        ),
        ("ALTER TABLE items DROP CONSTRAINT items_price_check", "constraint items_price_check"),
        ("ALTER TABLE items SET (fillfactor = 100)", "table items"),
    ),
)
def test_any_drift_is_found(url: str, change: str, named: str) -> None:
    migrate.up(url, MIGRATIONS)
    for statement in change.split(";"):
        query(url, statement)
    differences = check(url)
    assert any(named in line for line in differences), differences


def test_checking_leaves_nothing_behind(url: str) -> None:
    migrate.up(url, MIGRATIONS)
    before = relations(url)
    check(url)
    assert relations(url) == before
    assert not query(url, "SELECT 1 FROM pg_namespace WHERE nspname = 'as_in_code'")


def test_several_starts_at_once_migrate_once(url: str) -> None:
    code = (
        "import sys; from service.asgi import MIGRATIONS; from service.migrations import migrate;"
        " migrate.up(sys.argv[1], MIGRATIONS)"
    )
    starts = [
        subprocess.Popen([sys.executable, "-c", code, url], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for start in starts:
        _, errors = start.communicate(timeout=60)
        assert start.returncode == 0, errors.decode()
    assert status(url) == HEAD
    assert query(url, "SELECT count(*) FROM alembic_version")[0][0] == 1
    assert check(url) == []


SEARCH_INDEXES = {"items_search_idx", "users_search_idx"}


@pytest.fixture
def without_trigrams(url: str) -> str:
    """Reject every CREATE EXTENSION, like a PostgreSQL without contrib."""
    for statement in (
        "CREATE SCHEMA refusal",
        """
        CREATE FUNCTION refusal.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE feature_not_supported USING MESSAGE = 'extension "pg_trgm" is not available';
        END $$
        """,
        """
        CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION')
        EXECUTE FUNCTION refusal.refuse()
        """,
    ):
        query(url, statement)
    return url


def allow_extensions(url: str) -> None:
    query(url, "DROP EVENT TRIGGER refuse")


def plan(url: str, sql: str) -> str:
    return "\n".join(record[0] for record in query(url, f"EXPLAIN {sql}"))


def test_a_search_has_its_indexes_if_the_extension_is_available(url: str) -> None:
    migrate.up(url, MIGRATIONS)
    available = query(url, "SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'")
    assert (relations(url) >= SEARCH_INDEXES) == bool(available)


def test_a_database_created_without_the_extension_gets_the_index_with_a_later_migration(
    without_trigrams: str,
) -> None:
    url = without_trigrams
    migrate.up(url, MIGRATIONS, "0005")
    assert not SEARCH_INDEXES & relations(url)
    query(url, "INSERT INTO items (name) SELECT 'Item ' || n FROM generate_series(1, 20000) n")
    allow_extensions(url)
    migrate.up(url, MIGRATIONS)
    assert relations(url) >= SEARCH_INDEXES
    assert check(url) == []
    assert query(url, "SELECT count(*) FROM items WHERE name = 'Item 77'")[0][0] == 1
    # Also analyzed: without statistics the planner would guess 1 row in 200, not all rows.
    assert "Seq Scan" in plan(url, "SELECT * FROM items WHERE lower(name) LIKE '%item%'")
    assert "items_search_idx" in plan(url, "SELECT * FROM items WHERE lower(name) LIKE '%19876%'")


def test_a_database_without_the_extension_is_migrated_completely(without_trigrams: str) -> None:
    url = without_trigrams
    migrate.up(url, MIGRATIONS)
    assert status(url) == HEAD
    assert not SEARCH_INDEXES & relations(url)
    assert check(url) == []
    migrate.down(url, MIGRATIONS, "base")
    assert not relations(url) - {"alembic_version", "alembic_version_pkc"}


def test_a_role_that_may_not_create_extensions_migrates_too(url: str) -> None:
    # pg_trgm is trusted, but needs CREATE on the database, which a role may lack.
    name = query(url, "SELECT current_database()")[0][0]
    query(url, f"CREATE ROLE {name}_plain")
    query(url, f"GRANT CREATE ON SCHEMA public TO {name}_plain")
    as_plain = f"{url}&role={name}_plain"
    assert not query(as_plain, f"SELECT 1 WHERE has_database_privilege('{name}', 'CREATE')")
    migrate.up(as_plain, MIGRATIONS)
    assert status(as_plain) == HEAD
    assert not SEARCH_INDEXES & relations(url)
    # An extension that another role created is found; the role owns the tables, so it has the rest.
    migrate.down(as_plain, MIGRATIONS, "0005")
    query(url, "CREATE EXTENSION pg_trgm")
    migrate.up(as_plain, MIGRATIONS)
    assert relations(url) >= SEARCH_INDEXES
    assert check(url) == []


def test_a_downgrade_restores_the_index_of_the_earlier_revision(url: str) -> None:
    migrate.up(url, MIGRATIONS, "0006")
    before = relations(url)
    migrate.up(url, MIGRATIONS)
    migrate.down(url, MIGRATIONS, "0005")
    assert relations(url) == before
    migrate.down(url, MIGRATIONS, "0002")  # which searches by ILIKE
    assert "lower" not in query(url, "SELECT pg_get_indexdef('items_search_idx'::regclass)")[0][0]
    migrate.up(url, MIGRATIONS)
    assert relations(url) > before
    assert check(url) == []


def test_the_printed_advice_creates_the_missing_indexes(without_trigrams: str) -> None:
    url = without_trigrams
    migrate.up(url, MIGRATIONS)
    allow_extensions(url)
    statements = asyncio.run(migrate.advice(url, app.tables))
    assert statements == [
        "CREATE EXTENSION IF NOT EXISTS pg_trgm",
        (
            "CREATE INDEX CONCURRENTLY items_search_idx ON items USING gin"
            " (lower(name) gin_trgm_ops)"
        ),
        (
            "CREATE INDEX CONCURRENTLY users_search_idx ON users USING gin"
            " (lower(username) gin_trgm_ops, lower(email) gin_trgm_ops,"
            " lower(full_name) gin_trgm_ops)"
        ),
        "ANALYZE items",
        "ANALYZE users",
    ]
    for statement in statements:
        query(url, statement)
    assert relations(url) >= SEARCH_INDEXES
    assert check(url) == []
    assert asyncio.run(migrate.advice(url, app.tables)) == []


def test_a_migration_keeps_an_index_that_was_created_by_hand(
    without_trigrams: str,
) -> None:
    url = without_trigrams
    migrate.up(url, MIGRATIONS, "0005")
    allow_extensions(url)
    for statement in asyncio.run(migrate.advice(url, app.tables)):
        query(url, statement)
    made = query(url, "SELECT 'items_search_idx'::regclass::oid")
    migrate.up(url, MIGRATIONS)
    assert query(url, "SELECT 'items_search_idx'::regclass::oid") == made
    assert check(url) == []


def test_an_extension_in_another_schema_on_the_search_path_is_used(url: str) -> None:
    name = query(url, "SELECT current_database()")[0][0]
    query(url, "CREATE SCHEMA extensions")
    query(url, "CREATE EXTENSION pg_trgm SCHEMA extensions")
    query(url, f"ALTER DATABASE {name} SET search_path = public, extensions")
    migrate.up(url, MIGRATIONS)
    assert relations(url) >= SEARCH_INDEXES
    assert check(url) == []


def test_an_invalid_index_is_drift(url: str) -> None:
    migrate.up(url, MIGRATIONS)
    # An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index.
    query(
        url,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'items_search_idx'::regclass",
    )
    assert any("index items_search_idx" in line for line in check(url))


def test_a_statement_timeout_does_not_apply_to_migrations(url: str) -> None:
    name = query(url, "SELECT current_database()")[0][0]
    migrate.up(url, MIGRATIONS, "0005")
    query(url, f"ALTER DATABASE {name} SET statement_timeout = 1")
    migrate.up(url, MIGRATIONS)
    found = asyncio.run(_without_limit(url, "SELECT version_num FROM alembic_version"))
    assert found == HEAD


async def _without_limit(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url, server_settings={"statement_timeout": "0"})
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def test_there_is_one_head_and_the_file_names_have_the_revisions(
    new_database: Callable[[], str],
) -> None:
    config = migrate.config("", MIGRATIONS)
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
