"""One way to write: it invalidates after the commit, and a write by any other way is refused."""

import ast
import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from conftest import ROOT, Query

from service.cache.generations import EVERYTHING, Tags
from service.cache.off import NoCache
from service.cache.store import Cache
from service.cache.writer import Writer
from service.db.copy import dedicated
from service.db.database import Database
from service.db.statement import Statement, UnannouncedWriteError
from service.db.writable import WritableDatabase
from service.errors import Conflict, OutcomeUnknown, Problem
from service.items import items
from service.users import users

pytestmark = pytest.mark.anyio

PREPARED: tuple[Statement[Any], ...] = (*items.prepared, *users.prepared)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Log:
    """A cache that notes what a Writer tells it."""

    on = True

    def __init__(self) -> None:
        self.said: list[object] = []

    async def invalidate(self, tags: Tags) -> None:
        self.said.append(tags)

    def outcome_unknown(self) -> None:
        self.said.append("unknown")


def writer(log: Log | NoCache) -> Writer:
    return Writer(Database("postgresql://localhost/none"), log)  # type: ignore[arg-type]  # a model


@pytest.fixture
def url(sql: Query, database_url: str) -> Iterator[str]:
    yield database_url
    sql("DELETE FROM items")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    db = Database(url, size=1)
    await db.open()
    try:
        yield db
    finally:
        await db.close()


async def test_a_statement_that_writes_is_refused_outside_a_writer() -> None:
    db = Database("postgresql://localhost/none")
    writes = [statement for statement in PREPARED if statement.writes]
    assert len(writes) > 20
    for statement in writes:
        with pytest.raises(UnannouncedWriteError, match=r"request\.write"):
            await db.fetch(statement, [None] * len(statement.names))
    item = msgspec.convert({"sku": "A", "name": "B"}, items.keyed)
    # mypy refuses these two as well.
    with pytest.raises(UnannouncedWriteError, match=r"items\.add writes"):
        await items.add.run(db, (None, "Lamp", None, None, True, None))  # type: ignore[arg-type]
    with pytest.raises(UnannouncedWriteError, match=r"items\.upsert writes"):
        await items.upsert.run(db, [item])  # type: ignore[arg-type]


async def test_a_connection_beside_the_pool_is_for_writes_only_within_a_writer(
    url: str,
) -> None:
    async with opened(url) as db:
        async with dedicated(db) as one:
            with pytest.raises(UnannouncedWriteError):
                await items.bulk.remove.records(one, ids=[1])
        async with dedicated(WritableDatabase(db)) as one:
            assert await items.bulk.remove.records(one, ids=[2**40]) == []


async def test_a_write_is_invalidated_once_it_is_committed(url: str) -> None:
    log = Log()
    async with opened(url) as db:

        def tags(row: Any) -> Tags:
            assert not log.said
            return items.tags.written(row)

        row = await Writer(db, log).run(  # type: ignore[arg-type]  # a model of a cache
            lambda to: items.add.run(to, (None, "Lamp", None, None, True, None)), tags
        )
        assert log.said == [items.tags.written(row)]
        assert await items.by_id.get(db, row.id) == row


async def test_a_write_that_changed_no_row_invalidates_nothing() -> None:
    log = Log()

    async def write(_: WritableDatabase) -> int:
        return 0

    assert await writer(log).run(write, lambda changed: (7,) if changed else ()) == 0
    assert log.said == []


@pytest.mark.parametrize(
    ("error", "said"),
    (
        (OutcomeUnknown("the connection was lost"), ["unknown"]),
        (asyncio.CancelledError(), ["unknown"]),
        (KeyError("a bug after the commit"), ["unknown"]),
        (Conflict("taken"), []),
    ),
    ids=lambda value: type(value).__name__,
)
async def test_an_unknown_outcome_invalidates_everything(
    error: BaseException, said: list[object]
) -> None:
    log = Log()

    async def write(_: WritableDatabase) -> None:
        raise error

    with pytest.raises(type(error)):
        await writer(log).run(write, lambda _: (7,))
    assert log.said == said


async def test_tags_that_fail_invalidate_everything() -> None:
    log = Log()

    async def write(_: WritableDatabase) -> None:
        return

    def tags(_: None) -> Tags:
        raise AttributeError("a bug")

    with pytest.raises(AttributeError):
        await writer(log).run(write, tags)
    assert log.said == ["unknown"]


async def test_a_write_that_is_cancelled_leaves_nothing_cached(url: str) -> None:
    """As when a client leaves: PostgreSQL may go on, and commit."""
    async with opened(url) as db:
        cache = Cache("", None, limit=1000, ttl=10, fingerprint="x")
        before = cache.generations.last[EVERYTHING]
        slow = items.bulk.remove.every
        task = asyncio.create_task(
            Writer(db, cache).run(lambda to: slow.records(to, ids=[1]), lambda _: ())
        )
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cache.generations.last[EVERYTHING] > before
        await cache.close()


def test_nothing_else_invalidates() -> None:
    """A handler that did it by hand could forget it, or do it before the commit."""
    allowed = {"service/cache/store.py", "service/cache/writer.py"}
    for path in sorted((ROOT / "service").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr == "outcome_unknown":
                assert name in allowed, f"{name}:{node.lineno}: use Writer.run"
            if isinstance(called, ast.Name) and called.id == "WritableDatabase":
                assert name in allowed, f"{name}:{node.lineno}: use Writer.run"


def test_a_problem_is_no_unknown_outcome() -> None:
    """Writer relies on it: every other Problem says that nothing was written."""
    assert issubclass(OutcomeUnknown, Problem)
    assert not issubclass(Conflict, OutcomeUnknown)
