"""What the usual ways of SQLAlchemy cost a read, and ours: CPU of both sides, as one of the trials.

Everything runs on one connection, one call after the other, so nothing is shared between requests.
"""

import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import process_time
from typing import Any

import asyncpg
import uvloop
from sqlalchemy import BigInteger, DateTime, ForeignKey, Numeric, Text, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    load_only,
    mapped_column,
    relationship,
    selectinload,
)

from bench.processes import cpu, tree
from bench.stage import StagingTable
from service.db.database import Database
from service.items import items
from service.users import users

ROUNDS, SECONDS = 15, 0.02
# Rows of a page, and pages that are read in turn.
ROWS, PAGES = 10, 20

# Its processes end, so they are counted in ticks.
NEW = "a new connection"

Once = Callable[[int], Awaitable[object]]


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    username: Mapped[str] = mapped_column(Text)


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sku: Mapped[str | None] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    price: Mapped[Any] = mapped_column(Numeric)
    is_active: Mapped[bool]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    version: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[Any] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[Any] = mapped_column(DateTime(timezone=True))
    owner: Mapped[User | None] = relationship()


def table(on: StagingTable) -> str:
    """A table in Markdown: a row, a page with its owners, a projection, a page with its total."""
    found = uvloop.run(_measured(on))
    lines = [
        "**What do the usual ways of SQLAlchemy cost?** (`orm`)",
        "",
        "| | CPU us: Python | PostgreSQL | both |",
        "|---|---|---|---|",
    ]
    for name, (python, store) in found.items():
        lines.append(f"| {name} | {python:,.0f} | {store:,.0f} | {python + store:,.0f} |")
    return "\n".join([*lines, ""])


async def _measured(on: StagingTable) -> dict[str, tuple[float, float]]:
    found = {}
    async with _ours(on) as ours, _theirs(on) as theirs:
        ways = {**ours, **theirs}
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, once in ways.items():
                clock = cpu if NEW in name else _fine
                rounds[name].append(await _used(once, on.postmaster, clock))
    for name, used in rounds.items():
        found[name] = (
            statistics.median(ours for ours, _ in used),
            statistics.median(theirs for _, theirs in used),
        )
    return dict(sorted(found.items()))


@asynccontextmanager
async def _ours(on: StagingTable) -> AsyncIterator[dict[str, Once]]:
    db = Database(on.database_url, size=1, statements=(*items.prepared, *users.prepared))
    new = Database(on.database_url, size=None)
    await db.open()
    await new.open()
    query = items.query()
    chosen, values = items.listing.choose(query)
    page = items.listing.page(query.sort, chosen, "none")
    total = items.listing.page(query.sort, chosen, "exact")

    async def listed(n: int, statement: Any = page) -> list[Any]:
        given = {**values, "limit": ROWS, "offset": n % PAGES * ROWS}
        records = await db.fetch(statement, [given[name] for name in statement.names])
        return [statement.row(*record[: statement.width]) for record in records]

    async def with_owners(n: int) -> object:
        rows = await listed(n)
        wanted = {row.owner_id for row in rows if row.owner_id is not None}
        return rows, await users.by_id.several(db, wanted)

    yield {
        "1. a row: this service": lambda n: items.by_id.get(db, 1 + n % 1000),
        f"1. a row: this service, {NEW}": lambda n: items.by_id.get(new, 1 + n % 1000),
        "2. ten rows and owners: this service": with_owners,
        "3. ten rows: this service": listed,
        "4. ten rows and the total: this service": lambda n: listed(n, total),
    }
    await db.close()
    await new.close()


@asynccontextmanager
async def _theirs(on: StagingTable) -> AsyncIterator[dict[str, Once]]:
    pool = await asyncpg.create_pool(on.database_url, min_size=1, max_size=1)
    plain, checked = _engine(on), _engine(on, pool_pre_ping=True)
    committed = _engine(on, isolation_level="AUTOCOMMIT")
    text = "SELECT * FROM items WHERE id = $1"
    whole = select(Item).order_by(Item.id).limit(ROWS)
    few = (Item.id, Item.name, Item.price)

    async def by_core(engine: AsyncEngine, n: int) -> object:
        async with engine.connect() as connection:
            found = await connection.execute(select(Item.__table__).where(Item.id == 1 + n % 1000))
            return found.one()

    async def by_orm(engine: AsyncEngine, n: int) -> object:
        async with AsyncSession(engine) as session:
            return await session.get(Item, 1 + n % 1000)

    async def rows(statement: Any, n: int) -> list[Any]:
        async with AsyncSession(plain) as session:
            return list((await session.execute(statement.offset(n % PAGES * ROWS))).all())

    async def one_by_one(n: int) -> object:
        async with AsyncSession(plain) as session:
            found = (await session.scalars(whole.offset(n % PAGES * ROWS))).all()
            return [await session.get(User, one.owner_id) for one in found if one.owner_id]

    async def and_count(n: int) -> object:
        async with AsyncSession(plain) as session:
            found = (await session.scalars(whole.offset(n % PAGES * ROWS))).all()
            return found, await session.scalar(select(func.count()).select_from(Item))

    window = select(Item, func.count().over()).order_by(Item.id).limit(ROWS)
    yield {
        "1. a row: asyncpg's pool": lambda n: pool.fetchrow(text, 1 + n % 1000),
        "1. a row: AsyncEngine, AUTOCOMMIT": lambda n: by_core(committed, n),
        "1. a row: AsyncEngine": lambda n: by_core(plain, n),
        "1. a row: AsyncSession": lambda n: by_orm(plain, n),
        "1. a row: AsyncSession, pool_pre_ping": lambda n: by_orm(checked, n),
        "2. ten rows and owners: one by one (N+1)": one_by_one,
        "2. ten rows and owners: selectinload": lambda n: rows(
            whole.options(selectinload(Item.owner)), n
        ),
        "2. ten rows and owners: joinedload": lambda n: rows(
            whole.options(joinedload(Item.owner)), n
        ),
        "3. ten rows: entities": lambda n: rows(whole, n),
        "3. ten rows: load_only, 3 columns": lambda n: rows(whole.options(load_only(*few)), n),
        "3. ten rows: select of 3 columns": lambda n: rows(
            select(*few).order_by(Item.id).limit(ROWS), n
        ),
        "4. ten rows and the total: count(*) OVER ()": lambda n: rows(window, n),
        "4. ten rows and the total: a second SELECT count(*)": and_count,
    }
    await pool.close()
    for engine in (plain, checked, committed):
        await engine.dispose()


def _engine(on: StagingTable, **options: Any) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(on.database_url, server_settings={"jit": "off"}),
        pool_size=1,
        **options,
    )


async def _used(once: Once, store: int, clock: Callable[[int], float]) -> tuple[float, float]:
    """Microseconds of CPU per call, of this process and of PostgreSQL."""
    await once(0)
    ours, theirs, calls = process_time(), clock(store), 0
    while process_time() - ours < SECONDS:
        await once(calls)
        calls += 1
    spent = process_time() - ours, clock(store) - theirs
    return spent[0] / calls * 1e6, spent[1] / calls * 1e6


def _fine(pid: int) -> float:
    """As `cpu`, in nanoseconds instead of ticks, without processes that have ended."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):  # it has ended
            total += int(Path(f"/proc/{one}/schedstat").read_text().split()[0])
    return total / 1e9
