"""What an application opens before its first request, and closes after its last."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

from service import tracing
from service.cache import client as redis
from service.cache.fingerprint import fingerprint
from service.cache.generations import EVERYTHING
from service.cache.off import NoCache
from service.cache.store import Cache
from service.cache.writer import Telling, Writer
from service.changes import log as change_log
from service.changes.feed import Feed
from service.changes.stop_signal import at_stop
from service.db import idempotency, rights
from service.db.database import Database
from service.db.listener import Listener
from service.db.names import CHANGES_CHANNEL, JOBS_CHANNEL
from service.db.observer import observer_of
from service.db.pooled_connection import unhandled
from service.db.statement import Statement
from service.jobs import figures
from service.jobs.loop import JobLoop
from service.jobs.spool import Spool
from service.jobs.spool_cleaning import keep_clean
from service.jobs.trimming import trim_always
from service.limits.limiter import limiter_of
from service.metrics import opened
from service.outgoing import Outgoing
from service.resource import Resource
from service.resource.change_feed import form_of
from service.sampling import Sampler
from service.web.cors import added_headers
from service.web.cursor import Cursors
from service.web.guard import guard_of
from service.web.idempotent import remove_expired_keys
from service.web.request import State
from service.webhooks import sampled

if TYPE_CHECKING:
    from service.app import Application

# New objects before a garbage collection; with Python's default, 700, a read takes 5 % more CPU.
GC_THRESHOLD = 10_000


@asynccontextmanager
async def opened_state(app: "Application") -> AsyncIterator[State]:
    """Open what requests share; close all of it at the end."""
    settings = app.settings
    app.added = added_headers(settings)
    asyncio.get_running_loop().set_exception_handler(unhandled)
    async with AsyncExitStack() as stack:
        metrics, tracer = opened(settings.metrics), tracing.opened(settings.traces)
        if metrics is not None:
            stack.callback(metrics.store.close)
        if tracer is not None:
            stack.push_async_callback(tracer.close)
        db = Database(
            settings.required_database_url,
            size=None if settings.pool == "none" else settings.pool,
            statements=_statements(app),
            statement_timeout=settings.statement_timeout_ms / 1000,
            queue_limit=settings.queue_limit,
            batching=settings.batching == "on",
            observer=observer_of(settings, metrics, tracer),
            audible=not app.serves,
        )
        await db.open()
        cache = cache_of(app, db)
        if isinstance(cache, Cache):
            await cache.open()
            stack.push_async_callback(cache.close)
        listener = Listener(settings.required_database_url)
        stack.push_async_callback(listener.close)
        writer = Writer(db, cache, telling=_telling(app, listener))
        limiter = limiter_of(settings, app.policies)
        if limiter is not None:
            await limiter.open()
            stack.push_async_callback(limiter.close)
        outgoing = Outgoing(settings, metrics)
        stack.push_async_callback(outgoing.close)
        feed = Feed(db, listener, map(form_of, _changing(app)), metrics)
        stack.enter_context(at_stop(feed.stop))
        # The database is closed first: what runs in the background uses the others.
        stack.push_async_callback(db.close)
        # Objects of imports live until the end, so exclude them from collections. Requests create
        # no reference cycles (tests/test_http1.py), so collections may be rare.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        if metrics is not None:
            db.spawn(Sampler(metrics, app.about.version, db, cache, limiter).run())
        state: State = {
            "db": db,
            "settings": settings,
            "cursors": Cursors(settings.signing_secret),
            "cache": cache,
            "writer": writer,
            "running_keys": set(),
            "guard": guard_of(settings, app.auth, db, writer, limiter, metrics),
            "metrics": metrics,
            "tracer": tracer,
            "listener": listener,
            "jobs": app.jobs,
            "outgoing": outgoing,
            "feed": feed,
        }
        if app.jobs and settings.jobs == "on":
            spool = Spool(settings)
            loop = JobLoop(state, app.jobs, spool.places)
            # Before the database is closed, so that jobs that are cancelled are queued again.
            stack.push_async_callback(loop.close)
            await loop.start()
            db.spawn(trim_always(writer))
            db.spawn(keep_clean(spool, db))
        _begin(app, state)
        yield state


def _begin(app: "Application", state: State) -> None:
    """Begin what runs in the background until the database is closed."""
    db, writer, metrics = state["db"], state["writer"], state["metrics"]
    db.spawn(rights.log_lacking(db, app.needs))
    if app.takes_keys:
        db.spawn(remove_expired_keys(writer))
    if _changing(app):
        db.spawn(change_log.trim_always(writer, app.settings.changes_age))
    if metrics is not None and app.jobs:
        db.spawn(figures.sample_always(db, metrics, app.jobs))
    if metrics is not None and _changing(app):
        db.spawn(sampled.sample_always(db, metrics))


def _changing(app: "Application") -> list[Resource[Any]]:
    """Return the resources with a feed of changes."""
    return [one for one in app.resources if one.changes]


def _telling(app: "Application", listener: Listener) -> list[Telling]:
    """Return what tells all workers of writes: the feeds of changes, and the loops of jobs."""
    logged = {one.name for one in app.resources if one.changes}
    queueing = {job.new_rows_of for job in app.jobs.values()}
    found = []
    for names, channel in ((logged, CHANGES_CHANNEL), (queueing, JOBS_CHANNEL)):
        tags = {tag for one in app.resources if one.name in names for tag in one.tags.lists}
        if tags:
            found.append(Telling(frozenset({EVERYTHING, *tags}), partial(listener.tell, channel)))
    return found


def _statements(app: "Application") -> list[Statement[Any]]:
    """Return the statements that are prepared when the pool opens."""
    prepared = [one for resource in app.resources for one in resource.prepared]
    prepared += [one for operation in app.operations for one in operation.statements]
    return [*prepared, *idempotency.STATEMENTS] if app.takes_keys else prepared


def before_fork(app: "Application") -> None:
    """Do what each worker would do, so that they share its memory."""
    if app.settings.redis_url not in (None, "off"):
        redis.load()
    _fingerprint(app)
    for one in app.resources:
        one.listing.page("id", (), "exact", first=True)  # the page that a list shows by default


def _fingerprint(app: "Application") -> str:
    """Return the hash of the code; it is only needed for keys in Redis."""
    if app.settings.shared_redis_url is None:
        return ""
    return _fingerprint_of(app.settings.signing_secret, app.migrations.parent)


# Once for all workers, before they are forked.
_fingerprint_of = cache(fingerprint)


def _declared(app: "Application") -> str:
    """Return a digest of the tables and of the fields in their cache tags."""
    tags = sorted((one.tags.table, one.tags.fields) for one in app.resources)
    return f"-{crc32(repr(tags).encode()):08x}"


def cache_of(app: "Application", db: Database) -> Cache | NoCache:
    """Return the cache that the settings ask for."""
    settings = app.settings
    redis_url = settings.shared_redis_url
    if settings.cache == "off" or (redis_url is None and settings.cache == "on" and not app.alone):
        return NoCache()
    return Cache(
        settings.required_database_url,
        redis_url,
        limit=settings.cache_bytes,
        ttl=settings.cache_ttl,
        fingerprint=_fingerprint(app),
        declared=_declared(app),
        own=db.pids,
    )
