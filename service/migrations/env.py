"""Alembic runs this file: one connection, one transaction, one lock."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service.db.access import connect

# Any number, the same for every start: several at once migrate one after the other.
LOCK = 7_305_718_812_964_034


def migrate(connection: Connection) -> None:
    context.configure(connection=connection)
    with context.begin_transaction():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        # Reads the revision only now, behind the lock.
        context.run_migrations()


async def main() -> None:
    url: str = context.config.attributes["url"]
    # A count under a lock must see what was committed before it, whatever the database's default.
    # And an index takes as long as it takes, whatever the limit of statements that serve.
    settings = {"default_transaction_isolation": "read committed", "statement_timeout": "0"}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(url, **settings),
        poolclass=NullPool,
    )
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
