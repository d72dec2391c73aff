"""Liveness and readiness."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import asyncpg
from msgspec import UNSET, Meta, Struct, UnsetType

from service.cache import client as redis
from service.db import rights
from service.db.database import Database
from service.db.pooled_connection import LOST
from service.errors import NOT_MIGRATED, READ_ONLY, ProblemDocument, Unavailable
from service.migrations.migrate import head
from service.web.codec import Reply, encode
from service.web.endpoint import Handler, Operation
from service.web.request import Request

# Timeout per dependency: the response comes within a second even when one hangs.
CHECK_SECONDS = 0.8
# Cache-Control of these responses: they are true only now.
NOW_ONLY = b"no-store"


class Health(Struct, frozen=True):
    """The response of the FastAPI reference program."""

    timestamp: Annotated[datetime, Meta(tz=True)]
    message: Annotated[str, Meta(examples=["api reporting for duty!"])]


class Liveness(Struct, frozen=True):
    """The process responds."""

    status: Literal["ok"]


class Dependency(Struct, frozen=True):
    """State of one dependency; `detail` says what is wrong."""

    state: Annotated[
        Literal["ok", "degraded", "away", "off"], Meta(title="DependencyState", examples=["ok"])
    ]
    detail: str | UnsetType = UNSET


class Readiness(Struct, frozen=True):
    """`degraded` while some requests fail, or while the service runs slower without Redis.

    Without the database the response is NotReady.
    """

    status: Annotated[Literal["ok", "degraded"], Meta(title="ReadinessStatus", examples=["ok"])]
    database: Dependency
    migrations: Dependency
    redis: Dependency


class NotReadyDocument(ProblemDocument, frozen=True, kw_only=True):
    """A problem document with the state of each dependency."""

    database: Dependency
    migrations: Dependency
    redis: Dependency


class NotReady(Unavailable):
    """A required dependency is unavailable."""

    document = NotReadyDocument

    def __init__(self, database: Dependency, migrations: Dependency, redis: Dependency) -> None:
        self.database, self.migrations, self.redis = database, migrations, redis
        why = database.detail if database.state == "away" else migrations.detail
        super().__init__(f"not ready: {why}")

    def body(self, request_id: str) -> bytes:
        """The problem document with the state of each dependency."""
        return encode(
            NotReadyDocument(
                title=self.title,
                status=self.status,
                detail=self.detail,
                request_id=request_id,
                database=self.database,
                migrations=self.migrations,
                redis=self.redis,
            )
        )


async def health(request: Request) -> Reply:  # noqa: ARG001 - a handler's signature
    """Return the time and a message, without using the database."""
    return Reply(
        encode(Health(datetime.now(UTC), "api reporting for duty!")), cache_control=NOW_ONLY
    )


async def live(request: Request) -> Reply:  # noqa: ARG001 - a handler's signature
    """Return 200 while the process runs."""
    return Reply(b'{"status":"ok"}', cache_control=NOW_ONLY)


def readiness(needs: rights.Needs, migrations: Path) -> Handler:
    """The handler of `/health/ready` for an application.

    Args:
        needs: the rights on its tables.
        migrations: the folder of its migrations.
    """

    async def ready(request: Request) -> Reply:
        """Check the database and Redis. Without Redis the service is `degraded`, but it serves.

        The response comes within a second, also when one of them hangs.
        """
        (database, migrated), redis = await asyncio.gather(
            _database(request.db, needs, head(migrations)),
            _redis(request.state["settings"].redis_url),
        )
        if "away" in (database.state, migrated.state):
            raise NotReady(database, migrated, redis)
        well = all(one.state in ("ok", "off") for one in (database, migrated, redis))
        status: Literal["ok", "degraded"] = "ok" if well else "degraded"
        return Reply(encode(Readiness(status, database, migrated, redis)), cache_control=NOW_ONLY)

    return ready


async def _database(
    db: Database, needs: rights.Needs, newest: str | None
) -> tuple[Dependency, Dependency]:
    """Check on a connection with the same settings as requests, outside their queue."""
    unknown = Dependency("away", "not known while the database is away")
    try:
        async with asyncio.timeout(CHECK_SECONDS), rights.spare(db.pool) as connection:
            found = await rights.find(connection, needs)
    except TimeoutError:
        return Dependency("away", f"no answer within {CHECK_SECONDS} s"), unknown
    except Unavailable as problem:
        if db.pool.serving:  # all connections are busy, and the server refuses another one
            busy = Dependency("ok", f"busy, and no other connection: {problem.detail}")
            return busy, Dependency("ok", "not asked while the database is busy")
        return Dependency("away", problem.detail), unknown
    except (asyncpg.PostgresError, *LOST):
        return Dependency("away", "the connection was lost"), unknown
    return _state(db, found), _migrations(db, found, newest)


def _state(db: Database, found: rights.Found) -> Dependency:
    lacking = [one for one in found.lacking if one != rights.UNREADABLE]
    if lacking:
        detail = f"the role lacks rights: {', '.join(lacking)}"
        return Dependency("away" if found.unreadable else "degraded", detail)
    if db.pool.fitness.read_only.active:
        return Dependency("degraded", READ_ONLY)
    return Dependency("ok")


def _migrations(db: Database, found: rights.Found, newest: str | None) -> Dependency:
    outdated = db.pool.fitness.outdated.active
    if rights.UNREADABLE in found.lacking:
        detail = f"the role lacks a right, so the revision is not known: {rights.UNREADABLE}"
        return Dependency("away" if outdated else "degraded", detail)
    if newest is None:
        return Dependency("off", "this application has no migrations")
    if found.revision is not None and found.revision > newest:
        return Dependency("ok", f"at {found.revision}, newer than this version's {newest}")
    if found.revision != newest:
        return Dependency("away", NOT_MIGRATED)
    if outdated:
        return Dependency("away", "the tables are not those of the migrations; the log has more")
    return Dependency("ok")


async def _redis(url: str | None) -> Dependency:
    if url is None or url == "off":
        return Dependency("off")
    await redis.loaded()
    client = redis.client(url, CHECK_SECONDS)
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await client.ping()
    except redis.redis_errors():
        return Dependency("away", f"no answer within {CHECK_SECONDS} s")
    finally:
        await client.aclose()
    return Dependency("ok")


def routes(needs: rights.Needs, migrations: Path) -> list[Operation]:
    """The operations of health, of an application with these needs and this folder."""
    return [
        Operation(
            "GET",
            "/health",
            health,
            "Report that the service is up",
            response=Health,
            stored=False,
            access="open",
            limit="off",
        ),
        Operation(
            "GET",
            "/health/live",
            live,
            "Liveness: uses no database",
            response=Liveness,
            stored=False,
            access="open",
            limit="off",
        ),
        Operation(
            "GET",
            "/health/ready",
            readiness(needs, migrations),
            "Readiness: the state of each dependency (503 if the service can't serve)",
            response=Readiness,
            errors=(NotReady,),
            stored=False,
            access="open",
            limit="off",
        ),
    ]
