"""The composition root: what the lifespan opens, the route lists, the application."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp

import service.items.routes as items
import service.items.statements as item_statements
import service.users.routes as users
import service.users.statements as user_statements
from service import health, logs
from service.db.pool import Database
from service.settings import Settings
from service.web import docs
from service.web.cursor import Cursors
from service.web.endpoint import Operation, State
from service.web.routing import Paths

# Objects made before the youngest are looked at; Python's own 700 costs a read 5 % of its CPU.
GC_THRESHOLD = 10_000

# Hot routes first: the router tries them in this order.
ROUTES: list[Operation] = [*items.routes, *users.routes, *health.routes]


def create_app(settings: Settings) -> ASGIApp:
    """The service as an ASGI application; see design section 8 for why it is a bare Router."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        listener = logs.setup(settings.log, access=settings.access_log == "on")
        db = Database(
            settings.required_database_url,
            size=None if settings.pool == "none" else settings.pool,
            statements=(*item_statements.hot, *user_statements.hot),
            statement_timeout=settings.statement_timeout_ms / 1000,
            queue_limit=settings.queue_limit,
            slow_query=settings.slow_query_ms / 1000,
            batching=settings.batching == "on",
        )
        await db.open()
        # What the imports made lives for ever: no collection need look at it again. And requests
        # leave no cycles behind (tests/test_http1.py), so looking for some may be rare.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        try:
            yield {"db": db, "settings": settings, "cursors": Cursors(settings.signing_secret)}
        finally:
            await db.close()
            if listener is not None:
                listener.stop()

    return Paths([*ROUTES, *docs.routes(ROUTES)], lifespan=lifespan)
