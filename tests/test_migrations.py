"""Alembic on PostgreSQL 15 and 18: up, down, check, and several starts at once."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from conftest import ROOT, query

from service import migrate
from service.embedded.programs import wheel_postgres
from service.embedded.stores import stores

DEBIAN = Path("/usr/lib/postgresql/15/bin")


def binaries() -> Iterator[object]:
    yield pytest.param(wheel_postgres(), id="embedded-18")
    missing = pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's PostgreSQL 15 is not here")
    yield pytest.param(DEBIAN, id="debian-15", marks=missing)


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
    return asyncio.run(migrate.check(url))


def status(url: str) -> str | None:
    return asyncio.run(migrate.status(url))


def relations(url: str) -> set[str]:
    found = query(url, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    return {record[0] for record in found}


def test_up_down_and_up_again(url: str) -> None:
    assert status(url) is None
    migrate.up(url)
    assert status(url) == migrate.head()
    after = relations(url)
    assert {"items", "users", "items_name_idx"} <= after
    migrate.down(url, "base")
    assert not relations(url) - {"alembic_version", "alembic_version_pkc"}
    migrate.up(url)
    assert relations(url) == after


def test_a_migrated_database_is_what_the_tables_say(url: str) -> None:
    assert check(url) == [f"the database is at revision None, the newest is {migrate.head()}"]
    migrate.up(url)
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
    migrate.up(url)
    for statement in change.split(";"):
        query(url, statement)
    differences = check(url)
    assert any(named in line for line in differences), differences


def test_checking_leaves_nothing_behind(url: str) -> None:
    migrate.up(url)
    before = relations(url)
    check(url)
    assert relations(url) == before
    assert not query(url, "SELECT 1 FROM pg_namespace WHERE nspname = 'as_in_code'")


def test_several_starts_at_once_migrate_once(url: str) -> None:
    code = "import sys; from service import migrate; migrate.up(sys.argv[1])"
    starts = [
        subprocess.Popen([sys.executable, "-c", code, url], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for start in starts:
        _, errors = start.communicate(timeout=60)
        assert start.returncode == 0, errors.decode()
    assert status(url) == migrate.head()
    assert query(url, "SELECT count(*) FROM alembic_version")[0][0] == 1
    assert check(url) == []


def test_a_search_has_its_index_where_the_extension_is_to_be_had(url: str) -> None:
    migrate.up(url)
    to_be_had = query(url, "SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'")
    assert bool(to_be_had) == ("items_search_idx" in relations(url))


def test_there_is_one_head_and_the_file_names_tell_it(new_database: Callable[[], str]) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.head()]
