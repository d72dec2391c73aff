"""The composition root: what the lifespan opens, the route lists, the application."""

import asyncio
import gc
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
from starlette.applications import Starlette
from starlette.types import ASGIApp

from service import health, logs
from service.cache.off import NoCache
from service.cache.store import Cache
from service.cache.writer import Writer
from service.db import rights
from service.db.database import Database
from service.db.pooled_connection import unhandled
from service.items import items
from service.settings import Settings
from service.users import users
from service.web import docs
from service.web.cursor import Cursors
from service.web.endpoint import Operation
from service.web.request import State
from service.web.routing import Paths

# Objects made before the youngest are looked at; Python's own 700 costs a read 5 % of its CPU.
GC_THRESHOLD = 10_000

# Hot routes first: the router tries them in this order.
RESOURCES = (items, users)
ROUTES: list[Operation] = [*items.operations, *users.operations, *health.routes]


def create_app(settings: Settings, *, alone: bool = False) -> ASGIApp:
    """The service as an ASGI application: a Router without Starlette's middleware around it.

    Errors, ids and times of requests are the endpoints' work, so that no coroutine is between the
    server and a handler.

    `alone` says that no other worker serves the same database, as far as is known: without Redis
    only such a one may keep answers in its process.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        listener = logs.setup(settings.log, access=settings.access_log == "on")
        asyncio.get_running_loop().set_exception_handler(unhandled)
        db = Database(
            settings.required_database_url,
            size=None if settings.pool == "none" else settings.pool,
            statements=(*items.prepared, *users.prepared),
            statement_timeout=settings.statement_timeout_ms / 1000,
            queue_limit=settings.queue_limit,
            slow_query=settings.slow_query_ms / 1000,
            batching=settings.batching == "on",
        )
        await db.open()
        db.spawn(rights.log_lacking(db))
        cache = _cache(settings, db, alone=alone)
        if isinstance(cache, Cache):
            await cache.open()
        # What the imports made lives for ever: no collection need look at it again. And requests
        # leave no cycles behind (tests/test_http1.py), so looking for some may be rare.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        try:
            cursors = Cursors(settings.signing_secret)
            yield {
                "db": db,
                "settings": settings,
                "cursors": cursors,
                "cache": cache,
                "writer": Writer(db, cache),
            }
        finally:
            await db.close()
            if isinstance(cache, Cache):
                await cache.close()
            if listener is not None:
                listener.stop()

    return Paths([*ROUTES, *docs.routes(ROUTES)], lifespan=lifespan)


def _cache(settings: Settings, db: Database, *, alone: bool) -> Cache | NoCache:
    redis_url = settings.shared_redis_url
    if settings.cache == "off" or (redis_url is None and settings.cache == "on" and not alone):
        return NoCache()
    return Cache(
        settings.required_database_url,
        redis_url,
        limit=settings.cache_bytes,
        ttl=settings.cache_ttl,
        fingerprint=_fingerprint(settings.signing_secret),
        own=db.pids,
    )


def _fingerprint(secret: str) -> str:
    """Of what makes the answers: the code, the libraries, the secret that signs their cursors.

    So a deploy finds no answers that it would have made otherwise.
    """
    versions = (sys.version, msgspec.__version__, asyncpg.__version__)
    found = hashlib.sha256("\0".join((secret, *versions)).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]
