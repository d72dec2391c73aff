"""`migrate new`: the migration leads to the tables in code and back, with notes for the author."""

import ast
import asyncio
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, query

from service.asgi import MIGRATIONS
from service.db.schema import Tables, with_internal
from service.migrations import migrate, revision
from service.migrations.migrate import MigrationError

# tables_by_hand.py describes this revision; later migrations are none of these tests' business.
LAST = "0006"
TABLES = (ROOT / "tests" / "tables_by_hand.py").read_text()
NOTES = """
notes = Table(
    "notes",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("slug", Text),
    Column("body", Text, nullable=False, server_default="it's % {here}: a\\n  new \\\\ line"),
    Column("order", BigInteger, nullable=False, server_default=text("0")),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("owner_id", BigInteger),
    Column("parent_id", BigInteger),
    PrimaryKeyConstraint("id", name="notes_pkey"),
    UniqueConstraint("slug", name="notes_slug_key"),
    ForeignKeyConstraint(["owner_id"], ["users.id"], name="notes_owner_id_fkey"),
    ForeignKeyConstraint(["parent_id"], ["notes.id"], name="notes_parent_id_fkey"),
    CheckConstraint("length(body) BETWEEN 1 AND 1000", name="notes_body_check"),
    postgresql_with={"fillfactor": "80"},
    info=COUNTED,
)
Index("notes_slug_idx", collate(notes.c.slug, "C"), notes.c.id)
Index("notes_body_idx", func.lower(notes.c.body), postgresql_where=text("body <> 'a ;  b'"))
"""
PLAIN = """
plain = Table(
    "order",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("item_id", BigInteger, ForeignKey("items.id"), index=True),
    Column("note", Text, unique=True),
)
"""
# A change of tables.py, and parts of the expected migration; "" replaces the end of the file.
CHANGES: dict[str, tuple[tuple[tuple[str, str], ...], tuple[str, ...]]] = {
    "a column that may be null": (
        (
            (
                '    Column("price", Numeric),\n',
                '    Column("price", Numeric),\n    Column("colour", Text),\n',
            ),
        ),
        ('"ALTER TABLE items ADD COLUMN colour text"', "The values of items.colour are lost."),
    ),
    "a column with a default": (
        (
            (
                '    Column("price", Numeric),\n',
                (
                    '    Column("price", Numeric),\n    Column("kind", Text, nullable=False,'
                    ' server_default="o\'ne: %s"),\n'
                ),
            ),
        ),
        ("ADD COLUMN kind text DEFAULT 'o''ne: %s'::text NOT NULL",),
    ),
    "a column without a default": (
        (
            (
                '    Column("price", Numeric),\n',
                '    Column("price", Numeric),\n    Column("kind", Text, nullable=False),\n',
            ),
        ),
        ("ADD COLUMN kind text NOT NULL", "It fails where the table has rows"),
    ),
    "no column any more": (
        (
            ('    Column("full_name", Text),\n', ""),
            (
                (
                    '    CheckConstraint("length(full_name) BETWEEN 1 AND 200",'
                    ' name="users_full_name_check"),\n'
                ),
                "",
            ),
            ('("username", "email", "full_name")', '("username", "email")'),
        ),
        ("DROP COLUMN full_name", "The values of users.full_name are lost."),
    ),
    "a CHECK more": (
        (
            (
                '    CheckConstraint("length(sku)',
                (
                    '    CheckConstraint("name <> \'a:b\'", name="items_name2_check"),\n'
                    '    CheckConstraint("length(sku)'
                ),
            ),
        ),
        ("ADD CONSTRAINT items_name2_check CHECK", "It fails where a row breaks it."),
    ),
    "another CHECK": (
        (("BETWEEN 1 AND 64", "BETWEEN 1 AND 65"),),
        ("DROP CONSTRAINT items_sku_check", "ADD CONSTRAINT items_sku_check CHECK"),
    ),
    "a unique constraint": (
        (
            (
                '    UniqueConstraint("sku"',
                (
                    '    UniqueConstraint("owner_id", "name", name="items_name_key"),\n'
                    '    UniqueConstraint("sku"'
                ),
            ),
        ),
        ("ADD CONSTRAINT items_name_key UNIQUE (owner_id, name)",),
    ),
    "another foreign key": (
        (
            (
                '["users.id"], name="items_owner_id_fkey"',
                '["users.id"], name="items_owner_id_fkey", ondelete="SET NULL"',
            ),
        ),
        ("DROP CONSTRAINT items_owner_id_fkey", "ON DELETE SET NULL"),
    ),
    "a partial index": (
        (("", "Index('items_dear_idx', items.c.price, postgresql_where=text('price > 5'))\n"),),
        (
            "CREATE INDEX items_dear_idx ON items USING btree (price) WHERE",
            "DROP INDEX items_dear_idx",
        ),
    ),
    "an index on an expression": (
        (
            (
                "",
                (
                    "Index('items_upper_idx', func.upper(items.c.name), items.c.id.desc(),"
                    " unique=True)\n"
                ),
            ),
        ),
        ("CREATE UNIQUE INDEX items_upper_idx", "It fails where two rows have the same values."),
    ),
    "an index less": (
        (
            (
                'Index("users_admin_idx", users.c.id, postgresql_where=text("role = \'admin\'"))\n',
                "",
            ),
        ),
        ("DROP INDEX users_admin_idx", "CREATE INDEX users_admin_idx ON users USING btree (id)"),
    ),
    "another index": (
        (
            (
                'Index("items_created_at_idx", items.c.created_at,',
                'Index("items_created_at_idx", items.c.created_at, items.c.price,',
            ),
        ),
        ("DROP INDEX items_created_at_idx",),
    ),
    "an index for searches": (
        (
            (
                "",
                (
                    "Index('items_text_idx', func.lower(items.c.description).label('d'),"
                    " **trigrams('d'))\n"
                ),
            ),
        ),
        ("CREATE INDEX items_text_idx ON items USING gin", "DROP INDEX IF EXISTS items_text_idx"),
    ),
    "a table that is counted without soft delete": (
        (("", PLAIN.replace("unique=True),", "unique=True),\n    info=COUNTED,")),),
        (
            "FUNCTION {schema}.keep_row_totals()",
            "EXECUTE FUNCTION keep_row_totals()",
            "SELECT 'order', 0, count(*), 0",
            "DROP FUNCTION keep_row_totals()",
        ),
    ),
    "a table": (
        (("", NOTES),),
        (
            "CREATE TABLE notes (",
            "CONSTRAINT notes_pkey PRIMARY KEY (id)",
            "ADD CONSTRAINT notes_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES notes(id)",
            "CREATE TRIGGER notes_inserted",
            "CREATE TRIGGER notes_told",
            "CREATE OR REPLACE FUNCTION {schema}.recount_totals()",
            "DROP TABLE notes",
            "DELETE FROM totals WHERE name = 'notes'",
        ),
    ),
    "a table without names": (
        (("", PLAIN), ("    DateTime,\n", "    DateTime,\n    ForeignKey,\n")),
        ("bigserial", "CREATE TRIGGER order_told", 'CREATE TABLE "order"'),
    ),
    "null where there was none": (
        (('Column("name", Text, nullable=False)', 'Column("name", Text)'),),
        ("ALTER COLUMN name DROP NOT NULL", "It fails where a row has no value"),
    ),
    "no null any more": (
        (('Column("description", Text)', 'Column("description", Text, nullable=False)'),),
        ("ALTER COLUMN description SET NOT NULL", "It fails where a row has no value"),
    ),
    "another default": (
        (('server_default="user"', 'server_default="guest"'),),
        (
            "ALTER COLUMN role SET DEFAULT 'guest'::text",
            "ALTER COLUMN role SET DEFAULT 'user'::text",
        ),
    ),
    "a table with a log of its changes": (
        (("", NOTES.replace("info=COUNTED", 'info={**COUNTED, "logged": True}')),),
        (
            "SET COMPRESSION lz4",
            "REVOKE EXECUTE ON FUNCTION log_changes() FROM PUBLIC",
            "REVOKE EXECUTE ON FUNCTION order_changes() FROM PUBLIC",
            "CREATE CONSTRAINT TRIGGER change_log_order",
            "CREATE TRIGGER notes_log_truncated",
            "DROP FUNCTION settled_changes()",
        ),
    ),
    "no default any more": (
        (
            (
                'Column("role", Text, nullable=False, server_default="user")',
                'Column("role", Text, nullable=False)',
            ),
        ),
        ("ALTER COLUMN role DROP DEFAULT",),
    ),
    "another type": (
        (('Column("description", Text)', 'Column("description", Numeric)'),),
        (
            "ALTER COLUMN description TYPE numeric USING description::numeric",
            "Is the cast from text right",
        ),
    ),
    "another identity": (
        (("Identity(always=True)", "Identity(always=False)"),),
        ("ALTER COLUMN id SET GENERATED BY DEFAULT",),
    ),
    "another fillfactor": (
        (('"fillfactor": "90"', '"fillfactor": "70"'),),
        ("ALTER TABLE items SET (fillfactor = '70')",),
    ),
    "no fillfactor": (
        (('    postgresql_with={"fillfactor": "90"},\n', ""),),
        ("ALTER TABLE items RESET (fillfactor)", "SET (fillfactor = '90')"),
    ),
}


def changed(*changes: tuple[str, str]) -> Tables:
    """Return the tables of an edited tables.py."""
    source = TABLES
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new) if old else source + new
    module = types.ModuleType("edited")
    exec(source, module.__dict__)
    return with_internal(module.metadata.tables.values())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The migrations up to LAST."""
    place = tmp_path_factory.mktemp("migrations")
    for path in MIGRATIONS.glob("*.py"):
        if path.name[:4] <= LAST:
            shutil.copy(path, place)
    return place


@pytest.fixture
def migrations(original: Path, tmp_path: Path) -> Path:
    """A copy of them, to write into."""
    place = tmp_path / "100% new"
    shutil.copytree(original, place, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    """A migrated database with rows; no test changes it permanently."""
    made = new_database()
    migrate.up(made, MIGRATIONS, LAST)
    query(made, "INSERT INTO users (email, username) VALUES ('a@b.co', 'ada')")
    query(
        made,
        "INSERT INTO items (sku, name, owner_id) SELECT 'A' || i, 'Lamp', 1"
        " FROM generate_series(1, 3) i",
    )
    query(made, "UPDATE items SET description = '7'")
    return made


def check(url: str, tables: Tables, migrations: Path) -> list[str]:
    return asyncio.run(migrate.check(url, tables, migrations))


@pytest.mark.slow  # the default run makes them all at once, see below
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_tables_becomes_a_migration_up_and_down(
    url: str, migrations: Path, original: Path, name: str
) -> None:
    changes, parts = CHANGES[name]
    tables, newest = changed(*changes), LAST
    # A missing optional index is not a difference.
    assert check(url, tables, migrations) or "for searches" in name
    written = asyncio.run(revision.new(url, name, tables, migrations))
    assert written.path.parent == migrations
    assert written.path.name == f"{int(newest) + 1:04}_{name.lower().replace(' ', '_')}.py"
    text = " ".join(written.path.read_text().split())
    for part in parts:
        assert part in text
    fails = any("ADD COLUMN kind text NOT NULL" in part for part in parts)
    if fails:
        query(url, "DELETE FROM items")
    try:
        migrate.up(url, migrations)
        assert check(url, tables, migrations) == []
        migrate.down(url, migrations, newest)
        assert check(url, changed(), original) == [], "as it was before"
        migrate.up(url, migrations)
        assert check(url, tables, migrations) == []
    finally:
        migrate.down(url, migrations, newest)
        if fails:
            query(url, "INSERT INTO items (sku, name, description) VALUES ('A1', 'Lamp', '7')")


def test_a_generated_migration_reads_like_one_by_hand(url: str, migrations: Path) -> None:
    """Each statement is complete, and the linters of the project report nothing."""
    for name in ("a table", "another CHECK", "a column with a default", "another type"):
        tables = changed(*CHANGES[name][0])
        written = asyncio.run(revision.new(url, name, tables, migrations))
        ruff = [sys.executable, "-m", "ruff"]
        config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
        for command in (["check", "--ignore", "INP001"], ["format", "--diff"]):
            told = subprocess.run(
                [*ruff, *command, *config, str(written.path)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert told.returncode == 0, told.stdout
        assert ast.parse(written.path.read_text()).body
        written.path.unlink()


def test_one_migration_has_all_changes(url: str, migrations: Path, original: Path) -> None:
    safe = [
        changes
        for name, (changes, _) in CHANGES.items()
        if name
        in {
            "a column that may be null",
            "another CHECK",
            "a partial index",
            "an index less",
            "a table",
            "another fillfactor",
            "another identity",
        }
    ]
    tables, newest = changed(*(one for changes in safe for one in changes)), LAST
    written = asyncio.run(revision.new(url, "all", tables, migrations))
    migrate.up(url, migrations)
    try:
        assert check(url, tables, migrations) == []
        query(url, "INSERT INTO notes (slug, body) VALUES ('a', 'b')")
        kept = query(url, "SELECT sum(total) FROM totals WHERE name = 'notes'")
        assert kept[0][0] == 1
        query(url, "SELECT recount_totals()")
        assert check(url, tables, migrations) == []
    finally:
        migrate.down(url, migrations, newest)
    assert check(url, changed(), original) == []
    assert not query(url, "SELECT FROM totals WHERE name = 'notes'")
    assert written.notes


def test_an_index_that_this_database_cannot_have_is_written_too(
    new_database: Callable[[], str], migrations: Path
) -> None:
    made = new_database()
    migrate.up(made, MIGRATIONS, LAST)
    query(made, "DROP EXTENSION IF EXISTS pg_trgm CASCADE")
    tables, newest = changed(*CHANGES["an index for searches"][0]), LAST
    written = asyncio.run(revision.new(made, "index", tables, migrations))
    text = written.path.read_text()
    assert text.count("CREATE INDEX items_text_idx") == 1
    assert "items_search_idx" not in text, "0001 makes it"
    assert "CREATE EXTENSION" not in text, "0001 makes it"
    migrate.up(made, migrations)
    assert not query(made, "SELECT FROM pg_class WHERE relname = 'items_text_idx'")
    migrate.down(made, migrations, newest)


def test_no_migration_is_written_without_a_difference(url: str, migrations: Path) -> None:
    before = sorted(migrations.rglob("*"))
    with pytest.raises(MigrationError, match="nothing to write"):
        asyncio.run(revision.new(url, "nothing", changed(), migrations))
    assert sorted(migrations.rglob("*")) == before


def test_a_database_below_the_newest_revision_is_an_error(
    new_database: Callable[[], str], migrations: Path
) -> None:
    made = new_database()
    with pytest.raises(MigrationError, match="not migrated"):
        asyncio.run(revision.new(made, "x", changed(), migrations))
    migrate.up(made, MIGRATIONS, "0004")
    with pytest.raises(MigrationError, match="at revision 0004"):
        asyncio.run(revision.new(made, "x", changed(), migrations))


@pytest.mark.parametrize("message", ("", " ", ".", "x" * 81))
def test_a_message_that_cannot_name_a_migration_is_an_error(
    url: str, migrations: Path, message: str
) -> None:
    with pytest.raises(ValueError, match="characters"):
        asyncio.run(revision.new(url, message, changed(), migrations))


@pytest.mark.parametrize(
    ("message", "name"),
    (
        ("Add a colour.", "add_a_colour"),
        ('a "quoted" \\ one\nand """', "a_quoted_one_and"),
        ("../../etc/passwd", "etc_passwd"),
        ("größer", "groer"),
        ("名前", "change"),
    ),
)
def test_any_message_gives_a_valid_python_file(
    url: str, migrations: Path, message: str, name: str
) -> None:
    tables = changed(*CHANGES["a partial index"][0])
    written = asyncio.run(revision.new(url, message, tables, migrations))
    assert written.path.name.endswith(f"_{name}.py")
    said = ast.get_docstring(ast.parse(written.path.read_text())) or ""
    assert said.lower() == f"{' '.join(message.split()).rstrip('.').lower()}."
