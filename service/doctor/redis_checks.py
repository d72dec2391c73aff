"""Redis: whether it can be reached, and whether its settings fit a cache and rate limits."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from redis.exceptions import ResponseError

from service.cache import client as redis
from service.db.access import first_line
from service.doctor.check import Check, Finding, fail, ok, skip, warn
from service.doctor.clocks import skewed
from service.doctor.subject import REDIS_OFF, Skipped, Subject
from service.settings.urls import address

SECONDS = 2.0
OLDEST, TESTED = 6, 7  # RESP3 began with Redis 6; the tests use 7 and Valkey 9
PINGS = 5
# A request waits 50 ms for Redis at most: from half of it on, some wait without success.
SLOW_SECONDS = redis.SECONDS / 2
# Connections of a worker: a client and a subscription of the cache, a client of the rate limits.
PER_WORKER = 2 * redis.CONNECTIONS + 1


async def reachable(subject: Subject) -> Finding:
    """Connect to Redis; fail if it does not answer. The service works without, but slower."""
    url = subject.settings.redis_url
    if url == "off":
        return skip("REDIS_URL=off")
    if url is None:
        return skip(REDIS_OFF)
    place = "embedded" if subject.app.settings.redis_url is None else address(url)
    client = redis.client(url, SECONDS)
    subject.redis = client
    try:
        async with asyncio.timeout(SECONDS):
            await client.ping()
    except redis.redis_errors() as error:
        subject.redis = None
        why = first_line(error) or f"no answer within {SECONDS:g} s"
        if isinstance(error, ResponseError):
            return fail(f"it refuses us ({place}): {why}", "correct the login in REDIS_URL")
        return fail(f"it is away ({place}): {why}", "start it, or correct REDIS_URL")
    return ok(f"it answers: {place}")


async def _info(subject: Subject) -> Mapping[str, Any]:
    client = subject.client()
    if not subject.redis_info:
        try:
            subject.redis_info = dict(await client.info())
        except ResponseError as error:
            raise Skipped(f"the login may not ask for INFO: {first_line(error)}") from None
    return subject.redis_info


async def redis_version(subject: Subject) -> Finding:
    """Fail below Redis 6; warn below 7, which the tests use. Valkey is Redis 7.2 or newer."""
    info = await _info(subject)
    own = f"Valkey {info['valkey_version']}" if "valkey_version" in info else ""
    text = str(info.get("redis_version", ""))
    name = own or f"Redis {text}"
    major = int(text.partition(".")[0] or 0)
    if major < OLDEST:
        return fail(f"{name} is too old", f"use Redis {TESTED} or newer, or Valkey")
    if major < TESTED:
        return warn(f"{name} is not tested", f"use Redis {TESTED} or newer, or Valkey")
    return ok(name)


async def memory(subject: Subject) -> Finding:
    """Warn if Redis has no memory limit, or refuses writes when it is full.

    Every key has an end of its own, so any other policy evicts. With `allkeys-*` a window of a
    rate limit may be evicted; it then begins again.
    """
    info = await _info(subject)
    limit, policy = int(info.get("maxmemory", 0)), str(info.get("maxmemory_policy", ""))
    if not limit:
        return warn(
            "maxmemory is not set: Redis may take all memory of its machine",
            "CONFIG SET maxmemory 256mb, and maxmemory-policy allkeys-lru",
        )
    used = f"{int(info.get('used_memory', 0)) / 2**20:,.0f} of {limit / 2**20:,.0f} MiB, {policy}"
    if policy == "noeviction":
        return warn(
            f"{used}: when it is full, no list is cached and each worker counts rate limits alone",
            "CONFIG SET maxmemory-policy allkeys-lru, or volatile-ttl if other programs use it",
        )
    return ok(used)


async def writes(subject: Subject) -> Finding:
    """Fail if Redis refuses writes: it is a replica, it is loading, or its last snapshot failed."""
    info = await _info(subject)
    if info.get("role") in {"slave", "replica"}:
        return fail("it is a replica, which takes no writes", "give REDIS_URL the primary")
    if int(info.get("loading", 0)):
        return fail("it is loading its data", "wait; see its log")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return fail(
            "its last snapshot failed, and then Redis refuses writes",
            "free its disk; or CONFIG SET save '', since nothing of ours has to be kept",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        return fail("it can't write its append-only file", "free its disk, or switch it off")
    kept = "kept on disk, which is not needed" if int(info.get("aof_enabled", 0)) else "not needed"
    return ok(f"it takes writes; persistence: {kept}")


async def clients(subject: Subject) -> Finding:
    """Warn if Redis may not have enough connections for the workers of this node."""
    info = await _info(subject)
    limit = int(info.get("maxclients", 0))
    if not limit:
        return skip("Redis does not say how many clients it accepts")
    needed = subject.settings.workers * PER_WORKER
    others = int(info.get("connected_clients", 0))
    told = f"at most {needed} are needed, {others} are in use, maxclients is {limit}"
    if needed + others > limit:
        return warn(told, "raise maxclients, or lower SERVICE_WORKERS")
    return ok(told)


async def latency(subject: Subject) -> Finding:
    """Warn if an answer takes more than 25 ms: a request waits for Redis 50 ms at most."""
    client, times = subject.client(), []
    for _ in range(PINGS):
        began = perf_counter()
        await client.ping()
        times.append(perf_counter() - began)
    best = min(times)
    told = f"an answer takes {best * 1000:.1f} ms"
    if best > SLOW_SECONDS:
        return warn(told, "use a Redis near the service: a request waits 50 ms at most")
    return ok(told)


async def redis_clock(subject: Subject) -> Finding:
    """Warn if the clock of Redis differs by more than 1 s, fail from 60 s on."""
    client: Any = subject.client()
    before = datetime.now(UTC)
    seconds, microseconds = await client.time()
    after = datetime.now(UTC)
    there = datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)
    return skewed(max(there - after, before - there).total_seconds(), "Redis")


CHECKS = (
    Check("redis", reachable, "redis"),
    Check("redis-version", redis_version, "redis"),
    Check("redis-memory", memory, "redis"),
    Check("redis-writes", writes, "redis"),
    Check("redis-connections", clients, "redis"),
    Check("redis-latency", latency, "redis"),
    Check("redis-clock", redis_clock, "redis"),
)
