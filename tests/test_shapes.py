"""Statements of tables of any shape: with unusual field names, without optional columns."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from msgspec import UNSET, UnsetType, defstruct, structs
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.schema import CreateTable

from service.db.batch import BatchLoader, GroupCommit
from service.db.bulk import Adds, Bulk
from service.db.conflicts import conflicting_rows, taken_values
from service.db.copy import dedicated
from service.db.database import Database
from service.db.filters import Bound
from service.db.guarded import Guard
from service.db.keyset import Listing
from service.db.list_names import samples
from service.db.row_changes import change_values
from service.db.schema import totals
from service.db.shape import shape_of
from service.db.staging import StagingTable
from service.db.statement import DIALECT, RefusedError
from service.db.upsert import Upsert
from service.db.writable import WritableDatabase
from service.db.writes import Writes

pytestmark = pytest.mark.anyio

# Names that our statements use for their own columns and arguments, and plurals.
ODD: tuple[str, ...] = ("n", "key", "ids", "soft", "status", "address", "versions", "excluded")
ODD += ("found", "differs", "place", "version_s", "set_n", "new_n", "db", "guard", "sku", "skus")
ODD += ("self", "first")
SHAPES: dict[str, dict[str, str | None]] = {
    "by convention": {},
    "renamed": {"version": "revision", "updated": "touched", "active": "enabled"},
    "bare": {"version": None, "updated": None, "active": None},
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def row_of(table: Table) -> Any:
    return defstruct("Row", [(str(column.name), Any) for column in table.c])


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    return new_database()


class Things:
    """A table of a shape in its own schema, and all its statements."""

    def __init__(self, shape: dict[str, str | None], *, key: str | None = "key") -> None:
        names = {"version": "version", "updated": "updated_at", "active": "is_active"} | shape
        self.version, updated, self.active = names.values()
        self.table = Table(
            "a thing's",
            MetaData(),
            Column("id", BigInteger, Identity(always=True), primary_key=True),
            *(Column(field, Text) for field in ODD),
            UniqueConstraint("key"),
            schema="Other",
            info={"shape": shape},
        )
        one, true = text("1"), text("true")
        if self.version:
            column = Column(self.version, BigInteger, nullable=False, server_default=one)
            self.table.append_column(column)
        if updated:
            self.table.append_column(Column(updated, DateTime(timezone=True)))
        if self.active:
            self.table.append_column(
                Column(self.active, Boolean, nullable=False, server_default=true)
            )
        fields: list[tuple[str, Any]] = [(field, str | None) for field in ODD]
        fields += [(self.active, bool)] if self.active else []
        table = self.table
        new: Any = defstruct("New", [(field, kind, None) for field, kind in fields])
        optional = [(field, kind | UnsetType, UNSET) for field, kind in fields]
        change: Any = defstruct("Change", optional)
        row: Any = row_of(table)
        self.new, self.change = new, change
        self.add: GroupCommit[Any] = GroupCommit("t.add", row, table, new, key)
        self.adds: Adds[Any] = Adds("t.add_all", row, table, new, key)
        self.by_id: BatchLoader[Any] = BatchLoader("t.by_id", row, table)
        self.writes: Writes[Any] = Writes("t", row, table, new, change)
        self.bulk = Bulk("t", table, change)
        self.stage = StagingTable("t.import", table, new, key)
        self.upsert = Upsert("t.upsert", table, new, "key")
        self.taken = taken_values("t.taken", table, "n", key="key")

    def given(self, key: str | None, text: str = "") -> Any:
        """Return a row as a client sends it: each value is the field's name and the text."""
        values: dict[str, Any] = {field: field + text for field in ODD} | {"key": key}
        return self.new(**values, **({self.active: True} if self.active else {}))


@asynccontextmanager
async def opened(url: str, things: Things, *, batching: bool = True) -> AsyncIterator[Database]:
    async with asyncio.timeout(100):
        other = await asyncpg.connect(url)
        await other.execute('DROP SCHEMA IF EXISTS "Other" CASCADE; CREATE SCHEMA "Other"')
        await other.execute(str(CreateTable(things.table).compile(dialect=DIALECT)))
        # The sequence gets another name and schema than by default.
        await other.execute('ALTER SEQUENCE "Other"."a thing\'s_id_seq" RENAME TO drawn')
        await other.close()
        db = Database(url, batching=batching, statement_timeout=20)
        await db.open()
        try:
            yield db
        finally:
            await db.close()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("batching", (True, False), ids=("together", "each alone"))
async def test_writes_work_with_any_field_names(
    url: str, shape: dict[str, str | None], *, batching: bool
) -> None:
    things = Things(shape)
    async with opened(url, things, batching=batching) as db:
        keys = [f"k{n}" for n in range(20)]
        given = [things.given(key, key) for key in keys]
        rows = await asyncio.gather(
            *(things.add.run(WritableDatabase(db), structs.astuple(one)) for one in given)
        )
        for one, row in zip(given, rows, strict=True):
            sent = structs.asdict(one)
            assert {name: getattr(row, name) for name in sent} == sent
        first = [row.id for row in rows]

        new = things.given("k0", "!")
        change = things.change(status="s", n=None)
        done: list[Any] = await asyncio.gather(
            things.writes.replace.run(WritableDatabase(db), None, id=first[0], given=new),
            *(
                things.writes.change.run(WritableDatabase(db), None, id=one, given=change)
                for one in first[1:]
            ),
        )
        assert done[0][0].address == "address!"
        assert {(row.n, row.status) for row, _ in done[1:]} == {(None, "s")}
        if things.version:
            assert {getattr(row, things.version) for row, _ in done} == {2}
            change = things.change(sku="guarded")
            refused, version = await things.writes.change.run(
                WritableDatabase(db), Guard([1]), id=first[1], given=change
            )
            assert (refused, version) == (None, 2)
            allowed: Any
            allowed, _ = await things.writes.replace.run(
                WritableDatabase(db),
                Guard([2, 3]),
                id=first[1],
                given=things.given("k1", "?"),
            )
            assert (allowed.versions, getattr(allowed, things.version)) == ("versions?", 3)
        if things.active:
            soft = await asyncio.gather(
                *(
                    things.writes.deactivate.run(WritableDatabase(db), None, id=one)
                    for one in first[2:5]
                )
            )
            assert {getattr(row, things.active) for row, _ in soft} == {False}
        gone: Any
        gone, _ = await things.writes.remove.run(WritableDatabase(db), None, id=first[5])
        assert gone.key == "k5"
        assert await things.by_id.get(db, first[5]) is None


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_bulk_writes_work_with_any_field_names(
    url: str, shape: dict[str, str | None]
) -> None:
    things = Things(shape)
    async with opened(url, things) as db:
        made = await things.adds.run(
            WritableDatabase(db), [things.given(key) for key in ("b", None, "a")]
        )
        assert [row.key for row in made] == ["b", None, "a"]
        assert [row.id for row in made] == [1, 2, 3]

        given = [things.given("c"), things.given("a"), things.given("b", "!")]
        upserted = await things.upsert.run(WritableDatabase(db), given)
        assert [one.status for one in upserted] == ["created", "unchanged", "updated"]
        assert [one.id for one in upserted] == [4, 3, 1]
        assert [one.version for one in upserted] == ([1, 1, 2] if things.version else [None] * 3)
        assert await conflicting_rows(db, things.taken, [things.given("x"), things.given("y")]) == [
            0,
            1,
        ]

        values = change_values(things.change(address="elsewhere"))
        changed = await things.bulk.change.records(WritableDatabase(db), ids=[1, 2, 99], **values)
        assert [record[0] for record in changed] == [1, 2]
        row: Any = await things.by_id.get(db, 1)
        assert (row.address, row.n) == ("elsewhere", "n!")
        if things.active:
            await things.bulk.deactivate.records(WritableDatabase(db), ids=[1])
            row = await things.by_id.get(db, 1)
            assert not getattr(row, things.active)
        assert len(await things.bulk.remove.records(WritableDatabase(db), ids=[1, 2])) == 2


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("key", ("key", None))
async def test_files_can_be_imported_into_any_table(
    url: str, shape: dict[str, str | None], key: str | None
) -> None:
    """Also with an empty string as the key, and without a key, when every row is new."""
    things = Things(shape, key=key)
    async with opened(url, things) as db:
        await things.adds.run(WritableDatabase(db), [things.given("a"), things.given("b", "!")])
        keys = ["c", "a", "", None, "b"] if key else ["c", "d", "", None, None]
        lines = [things.given(one) for one in keys]
        lines += [things.given("c")] if key else []
        async with dedicated(WritableDatabase(db)) as one:
            await things.stage.open(one)
            rows = [(n, *structs.astuple(line)) for n, line in enumerate(lines, 1)]
            await things.stage.add(one, rows)
            await one.execute("BEGIN")
            rejected = await things.stage.validate(one)
            done = [merged async for merged in things.stage.upsert(one)]
            await one.execute("COMMIT")
        assert [(one.line, one.message) for one in rejected] == (
            [(6, "key: the same as in line 1")] if key else []
        )
        assert sum(merged.given for merged in done) == 5
        assert sum(merged.created for merged in done) == (3 if key else 5)
        assert sum(merged.written for merged in done) == (4 if key else 5)
        rows_ = [await things.by_id.get(db, n) for n in range(3, 8)]
        assert [row and row.key for row in rows_] == (
            ["c", None, "", None, None] if key else ["c", "d", "", None, None]
        )


async def test_a_list_without_a_trigger_counts_its_rows(url: str) -> None:
    things = Things(SHAPES["bare"])
    table = things.table
    row: Any = row_of(table)
    listing = Listing("t", row, table, {"id": table.c.id}, {})
    assert [one.name for one in samples(listing)]
    async with opened(url, things) as db:
        await things.adds.run(WritableDatabase(db), [things.given(key) for key in "abc"])
        page = await listing.page("id", (), "exact").records(db, limit=2, offset=1)
        assert [(record["key"], record["total"]) for record in page] == [("b", 3), ("c", 3)]
    with pytest.raises(RefusedError, match="no trigger keeps the totals"):
        Listing("t", row, table, {"id": table.c.id}, {}, totals=totals)


async def test_a_filtered_list_reads_a_table_of_any_schema_and_name(url: str) -> None:
    things = Things(SHAPES["by convention"])
    table = things.table
    filters = {"status": Bound(table.c.status == bindparam("status"))}
    keys = {"id": table.c.id, "n": func.coalesce(table.c.n, literal_column("''"))}
    listing = Listing("t", row_of(table), table, keys, filters)
    async with opened(url, things) as db:
        rows = [things.given(key, text) for key, text in zip("abcd", "!?!!", strict=True)]
        await things.adds.run(WritableDatabase(db), rows)
        for sort in ("id", "-n"):
            page = listing.page(sort, (("status", None),), "exact")
            found = await page.records(db, status="status!", limit=2, offset=0)
            assert [record["total"] for record in found] == [3, 3]
            assert {record["status"] for record in found} == {"status!"}


def test_statements_need_the_columns_that_they_use() -> None:
    things = Things(SHAPES["bare"])
    assert shape_of(things.table) == (None, None, None)
    for what in (things.writes, things.bulk):
        with pytest.raises(RefusedError, match="t: no column says whether a row is active"):
            what.deactivate  # noqa: B018 - it is a property
    names = {one.name for one in (*things.writes.prepared, *things.bulk.prepared)}
    assert not any(name.endswith("_if") or "deactivate" in name for name in names)


@pytest.mark.parametrize(
    ("info", "field", "said"),
    (
        ({}, "version", "t.version is set at each change"),
        ({}, "updated_at", "t.updated_at is set at each change"),
        ({}, "id", "t.id is given by the database"),
        ({"version": "word"}, "word", "says that version is 'word', which must be"),
        ({"colour": "word"}, "word", "roles are"),
    ),
)
def test_a_column_that_the_service_sets_cannot_be_a_field(
    info: dict[str, str | None], field: str, said: str
) -> None:
    columns: list[Column[Any]] = [Column("id", BigInteger), Column("version", BigInteger)]
    columns += [Column("word", Text), Column("updated_at", DateTime)]
    table = Table("t", MetaData(), *columns, info={"shape": info})
    new: Any = defstruct("New", [(field, Any)])
    row: Any = row_of(table)
    with pytest.raises(RefusedError, match=said):
        GroupCommit("t.add", row, table, new, None)
    if info == {} and field != "id":  # a normal field of the application
        table.info["shape"] = {"version": None, "updated": None}
        GroupCommit("t.add", row, table, new, None)


@pytest.mark.parametrize("name", ("rows", "existing", "updated", "numbered", "found", "batch"))
def test_a_table_may_be_called_like_a_part_of_a_statement(name: str) -> None:
    """PostgreSQL would read the WITH query in the place of the table; Statement refuses that."""
    columns: list[Column[Any]] = [Column("id", BigInteger), Column("key", Text)]
    table = Table(name, MetaData(), *columns, Column("version", BigInteger))
    new: Any = defstruct("New", [("key", str)])
    row = row_of(table)
    assert Adds("t.add_all", row, table, new, "key").prepared
    assert Upsert("t.upsert", table, new, "key").prepared
    assert Bulk("t", table, new).prepared
    assert StagingTable("t.import", table, new, "key").statements
    assert Writes("t", row, table, new, new).prepared


def test_a_filter_has_a_name_of_its_own() -> None:
    table = Things(SHAPES["bare"]).table
    row: Any = row_of(table)
    filters = {"limit": Bound(select(func.now()).exists())}
    with pytest.raises(RefusedError, match=r"can't be called 'limit'"):
        Listing("t", row, table, {"id": table.c.id}, filters)
