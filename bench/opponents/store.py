"""The items by asyncpg, the usual way: its pool, SQL text, records. The Python opponents share it.

Their frameworks differ, and nothing below. asyncpg keeps each statement prepared on its connection
by its text, so the texts are few.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

COLUMNS = "id, name, description, price, is_active, created_at, updated_at"
BY_ID = f"SELECT {COLUMNS} FROM items WHERE id = $1"
ADD = f"""
    INSERT INTO items (name, description, price, is_active) VALUES ($1, $2, $3, $4)
    RETURNING {COLUMNS}
"""
REPLACE = f"""
    UPDATE items SET name = $2, description = $3, price = $4, is_active = $5, updated_at = now()
    WHERE id = $1 RETURNING {COLUMNS}
"""
DEACTIVATE = f"""
    UPDATE items SET is_active = false, updated_at = now() WHERE id = $1 RETURNING {COLUMNS}
"""
REMOVE = "DELETE FROM items WHERE id = $1"


# What PostgreSQL says of a value that it does not take, and asyncpg of a number it cannot send.
REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)


class Items:
    """What the API asks of the table."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def get(self, item_id: int) -> asyncpg.Record | None:
        return await self.pool.fetchrow(BY_ID, item_id)

    async def find(
        self, *, page: int, per_page: int, is_active: bool | None, q: str | None
    ) -> tuple[list[asyncpg.Record], int]:
        """The page's items, and how many there are on all pages."""
        conditions, args = ["true"], list[object]()
        if is_active is not None:
            args.append(is_active)
            conditions.append(f"is_active = ${len(args)}")
        if q is not None:
            literal = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            args.append(f"%{literal}%")
            conditions.append(f"name ILIKE ${len(args)}")
        where = " AND ".join(conditions)
        rows = f"""
            SELECT {COLUMNS} FROM items WHERE {where}
            ORDER BY id LIMIT ${len(args) + 1} OFFSET ${len(args) + 2}
        """
        async with self.pool.acquire() as connection:
            total = await connection.fetchval(f"SELECT count(*) FROM items WHERE {where}", *args)
            found = await connection.fetch(rows, *args, per_page, (page - 1) * per_page)
        return found, total

    async def add(
        self, name: str, description: str | None, price: float | None, is_active: bool
    ) -> asyncpg.Record:
        added = await self.pool.fetchrow(ADD, name, description, price, is_active)
        assert added is not None
        return added

    async def replace(
        self,
        item_id: int,
        name: str,
        description: str | None,
        price: float | None,
        is_active: bool,
    ) -> asyncpg.Record | None:
        return await self.pool.fetchrow(REPLACE, item_id, name, description, price, is_active)

    async def change(self, item_id: int, values: Mapping[str, Any]) -> asyncpg.Record | None:
        """Set the named columns; the names are those of the caller's model."""
        if not values:
            return await self.get(item_id)
        changes = "".join(f"{name} = ${place}, " for place, name in enumerate(values, 2))
        change = f"""
            UPDATE items SET {changes} updated_at = now() WHERE id = $1 RETURNING {COLUMNS}
        """
        return await self.pool.fetchrow(change, item_id, *values.values())

    async def deactivate(self, item_id: int) -> asyncpg.Record | None:
        return await self.pool.fetchrow(DEACTIVATE, item_id)

    async def remove(self, item_id: int) -> bool:
        return await self.pool.execute(REMOVE, item_id) == "DELETE 1"


@asynccontextmanager
async def connected() -> AsyncIterator[Items]:
    """A pool of asyncpg's own size, ten connections."""
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], init=_prices_as_floats, reset=_keep
    ) as pool:
        yield Items(pool)


async def _prices_as_floats(connection: asyncpg.Connection) -> None:
    """As asyncpg's documentation shows it, so that a price is a number in JSON both ways."""
    await connection.set_type_codec(
        "numeric", schema="pg_catalog", encoder=str, decoder=float, format="text"
    )


async def _keep(_: asyncpg.Connection) -> None:
    """No query that resets the session: nothing here changes one, and it is a round trip each."""
