"""What a statement for many rows costs PostgreSQL when two of ours become one: a trial.

CPU of the backend per row, without parsing and planning, in transactions that are rolled back.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from bench.stage import StagingTable as Stage
from service.db import staging_statements
from service.db.arrays import arrays
from service.db.copy import DedicatedConnection
from service.db.row_changes import change_values
from service.db.staging import StagingTable
from service.db.staging_statements import BATCH
from service.db.statement import Statement
from service.items import items
from service.items.structs import NewItem

ROUNDS = 5
# A column of the table: what is run, and how many rows that is.
Variant = tuple[str, Callable[[], Awaitable[Any]], int]


def table(on: Stage) -> str:
    """Return a table in Markdown: the current statements, and variants with one statement less."""
    found = asyncio.run(_measured(on))
    lines = [
        "**What would one statement in the place of two cost?** (`multi-row`)",
        "",
        "| | rows | CPU us of PostgreSQL per row | least | of the first |",
        "|---|---|---|---|---|",
    ]
    for group in found:
        base = group[0][2]
        lines += [
            f"| {name} | {rows:,} | {middle:.2f} | {least:.2f} | {middle / base:.2f} |"
            for name, rows, middle, least in group
        ]
    return "\n".join([*lines, ""])


async def _measured(on: Stage) -> list[list[tuple[str, int, float, float]]]:
    one = await asyncpg.connect(on.database_url, statement_cache_size=0)
    await one.execute("SET jit = off; SET application_name = 'swiftlet'")
    try:
        groups = [await _inserts(one, rows) for rows in (4, 16, 64, 1000)]
        groups += [await _changes(one, rows) for rows in (16, 64, 1000)]
        groups.append(await _upserts(one, 1000))
        groups.append(await _upserts(one, BATCH))
        groups.append(_batches(one, 3 * BATCH))
        return [await _spent(one, group) for group in groups]
    finally:
        await one.close()


async def _spent(
    one: asyncpg.Connection, group: Sequence[Variant]
) -> list[tuple[str, int, float, float]]:
    pid = one.get_server_pid()
    used: dict[str, list[float]] = {name: [] for name, _, _ in group}
    for number in range(ROUNDS + 1):
        for name, once, rows in group:
            spent, times = 0.0, max(1, 2000 // rows)
            for _ in range(times):
                transaction = one.transaction()
                await transaction.start()
                before = _on_cpu(pid)
                await once()
                spent += _on_cpu(pid) - before
                await transaction.rollback()
            if number:
                used[name].append(spent / times / rows / 1000)
        await one.execute("VACUUM items")
    return [(name, rows, statistics.median(used[name]), min(used[name])) for name, _, rows in group]


def _on_cpu(pid: int) -> int:
    """Nanoseconds that a process was on a CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


async def _prepared(
    one: asyncpg.Connection, statement: Statement[Any], args: Sequence[object]
) -> Callable[[], Awaitable[Any]]:
    prepared = await one.prepare(statement.sql)
    return lambda: prepared.fetch(*args)


def _new(n: int, text: str = "") -> NewItem:
    # In no order, as keys come.
    return NewItem(sku=f"N-{n * 7919 % 1009:05}-{n}", name=f"Widget {n}{text}", owner_id=1 + n % 50)


async def _inserts(one: asyncpg.Connection, rows: int) -> list[Variant]:
    many = items.add.many
    given = [_new(n) for n in range(rows)]
    ordered = sorted(given, key=lambda item: item.sku or "")
    return [
        ("add_many: sorted by us", await _prepared(one, many, arrays(many, ordered)), rows),
        (
            "add_all: ids as given, sorted by PostgreSQL",
            await _prepared(one, items.adds.statement, arrays(items.adds.statement, given)),
            rows,
        ),
    ]


async def _changes(one: asyncpg.Connection, rows: int) -> list[Variant]:
    ids = [n * 7919 % 9973 + 1 for n in range(rows)]
    change = change_values(items.change(name="Changed", price=None))
    many, alike = items.writes.many, items.bulk.change.every
    values: dict[str, object] = {"soft": False, "version": None, **change}
    each = [
        sorted(ids) if many.arrays[name] == "id" else [values[many.arrays[name]]] * rows
        for name in many.names
    ]
    args = [ids if name == "ids" else change[name] for name in alike.names]
    return [
        (
            "change_all: one change for all, locked in order",
            await _prepared(one, alike, args),
            rows,
        ),
        ("change_many: a change for each", await _prepared(one, many, each), rows),
    ]


async def _upserts(one: asyncpg.Connection, rows: int) -> list[Variant]:
    """Half of the rows exist, and half of these differ."""
    records = await one.fetch(
        "SELECT sku, name, description, price, is_active, owner_id FROM items ORDER BY id LIMIT $1",
        rows // 2,
    )
    given = [NewItem(**dict(record)) for record in records]
    for item in given[::2]:
        item.name += "!"
    given = [*given, *(_new(n) for n in range(rows - len(given)))]
    given.sort(key=lambda item: hash(item.name))
    found: list[Variant] = []
    if rows <= 1000:
        statement = items.upsert.statement
        found.append(
            (
                "upsert: lock, then insert",
                await _prepared(one, statement, arrays(statement, given)),
                rows,
            )
        )
    dedicated: Any = DedicatedConnection(None, one, writing=True)  # type: ignore[arg-type]  # no error comes

    async def staged(then: Callable[[], Awaitable[object]]) -> None:
        await items.stage.open(dedicated)
        await items.stage.add(dedicated, [(n, *_values(item)) for n, item in enumerate(given, 1)])
        await items.stage.validate(dedicated)
        await then()

    async def on_conflict() -> None:
        async for _ in items.stage.upsert(dedicated):
            pass

    found.append(("staged: ON CONFLICT", lambda: staged(on_conflict), rows))
    found.append(("staged: update, then insert", lambda: staged(lambda: one.execute(APART)), rows))
    return found


def _batches(one: asyncpg.Connection, rows: int) -> list[Variant]:
    """New rows alone, in batches of other sizes."""
    dedicated: Any = DedicatedConnection(None, one, writing=True)  # type: ignore[arg-type]  # no error comes
    lines = [(n, *_values(_new(n))) for n in range(1, rows + 1)]

    def variant(size: int) -> Variant:
        staging_statements.BATCH = size
        stage = StagingTable("bench.import", items.table, NewItem, "sku")
        staging_statements.BATCH = BATCH

        async def once() -> None:
            await stage.open(dedicated)
            await stage.add(dedicated, lines)
            await stage.validate(dedicated)
            async for _ in stage.upsert(dedicated):
                pass

        return f"staged, {size:,} rows in a batch", once, rows

    return [variant(size) for size in (BATCH, BATCH // 20, 10 * BATCH)]


def _values(item: NewItem) -> tuple[object, ...]:
    return tuple(getattr(item, field) for field in item.__struct_fields__)


# What the upsert of a request would do with a staging table, without its triggers' batches.
APART = """
WITH existing AS (
    SELECT s.*, i.id AS old FROM items_stage s JOIN items i ON i.sku = s.sku
    WHERE (i.name, i.description, i.price, i.is_active, i.owner_id)
        IS DISTINCT FROM (s.name, s.description, s.price, s.is_active, s.owner_id)
), updated AS (
    UPDATE items SET name = e.name, description = e.description, price = e.price,
        is_active = e.is_active, owner_id = e.owner_id, version = items.version + 1,
        updated_at = now()
    FROM existing e WHERE items.id = e.old
)
INSERT INTO items (id, sku, name, description, price, is_active, owner_id)
OVERRIDING SYSTEM VALUE
SELECT s.id, s.sku, s.name, s.description, s.price, s.is_active, s.owner_id
FROM items_stage s WHERE NOT EXISTS (SELECT FROM items i WHERE i.sku = s.sku)
ORDER BY s.sku COLLATE "C"
"""
