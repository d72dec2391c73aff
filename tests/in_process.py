"""The built-in application in the process of the test, which can look inside it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from service.asgi import built_in
from service.settings import Settings

# For so many seconds a lock is held after a request waits for it.
HELD = 0.05


@asynccontextmanager
async def worker(url: str, **options: str) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """A client of an application in this process, and what its lifespan has opened."""
    given = {"DATABASE_URL": url, "REDIS_URL": "off", "SERVICE_AUTH": "off", "SERVICE_CACHE": "off"}
    given["SERVICE_STATEMENT_TIMEOUT_MS"] = "60000"
    main = built_in(Settings.load({**given, **options}))
    main.alone = True
    async with main.lifespan_context(Starlette()) as state:

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            await main({**scope, "state": state}, receive, send)

        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client, state


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def held(url: str, lock: str) -> AsyncIterator[None]:
    """Hold a lock, and release it when something has waited for it long enough."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(lock)
            yield
            await asyncio.sleep(HELD)
    finally:
        await connection.close()
