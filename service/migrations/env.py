"""The environment file of Alembic: one connection, one transaction, one lock."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service.db.access import connect

# Key of an advisory lock: concurrent starts migrate one after the other.
LOCK = 7_305_718_812_964_034


def migrate(connection: Connection) -> None:
    context.configure(connection=connection)
    with context.begin_transaction():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        # Read the revision only now, after the lock.
        context.run_migrations()


async def main() -> None:
    url: str = context.config.attributes["url"]
    # READ COMMITTED, also if the database's default differs: a count after a lock must see commits.
    # No statement timeout: building an index may take long.
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
