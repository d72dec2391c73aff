"""Our service with its statements run by SQLAlchemy's AsyncEngine.

Routing, decoding, statements and encoding are the same; only the database layer differs. With
`ENGINE_ISOLATION=AUTOCOMMIT` the engine needs no round trips for BEGIN and ROLLBACK.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette

from service.db.statement import Statement
from service.settings import Settings
from service.web.cursor import Cursors
from service.web.routing import Paths

# A Statement keeps the text only, so keep the Core statements before the application makes them.
CORES: dict[str, Any] = {}
_compile = Statement.__init__


def _keeping(self: Statement[Any], name: str, row: Any, core: Any, **options: Any) -> None:
    CORES[name] = core
    _compile(self, name, row, core, **options)


Statement.__init__ = _keeping  # type: ignore[method-assign]

from service.asgi import app as built_in  # noqa: E402 - see above

settings = Settings.load()


class EngineDatabase:
    """Runs a statement with SQLAlchemy: a pooled connection, the Core statement, its rows."""

    batching = False

    def __init__(self, url: str) -> None:
        isolation = os.environ.get("ENGINE_ISOLATION")
        options = {"isolation_level": isolation} if isolation else {}
        self.engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=lambda: asyncpg.connect(url, server_settings={"jit": "off"}),
            pool_size=20,
            max_overflow=10,
            **options,
        )

    async def fetch(self, statement: Statement[Any], args: Sequence[object]) -> list[Any]:
        values = dict(zip(statement.names, args, strict=True))
        async with self.engine.connect() as connection:
            return list((await connection.execute(CORES[statement.name], values)).all())


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
    db = EngineDatabase(settings.required_database_url)
    yield {"db": db, "settings": settings, "cursors": Cursors(settings.signing_secret)}
    await db.engine.dispose()


app = Paths(built_in.operations, lifespan=lifespan)
