"""Settings that do not fit together, or are a risk."""

import importlib.metadata
import platform
import socket
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from service.doctor.certificate import validity
from service.doctor.check import Check, Finding, fail, ok, skip, warn
from service.doctor.subject import Subject
from service.outgoing import allowed_of, check_notify_url
from service.server.preflight import refused_cache
from service.server.tls import check_files
from service.settings import SettingsError
from service.settings.targets import parse_targets
from service.threads import in_thread

SOON = timedelta(days=14)


async def version(subject: Subject) -> Finding:
    """Name the versions of Swiftlet and Python, and the application, for a report of an error."""
    own = importlib.metadata.version("swiftlet")
    return ok(f"Swiftlet {own}, Python {platform.python_version()}, {subject.settings.app}")


async def auth(subject: Subject) -> Finding:
    """Warn if everyone who reaches the address may do everything; fail if no key can be made."""
    settings = subject.settings
    try:
        subject.app.check_auth()
    except SettingsError as error:
        return fail(
            "requests need an API key, and the application has none",
            f"{error}" if not settings.public else "give create_app(auth=...), or SERVICE_AUTH=off",
        )
    if settings.authenticated:
        return ok("requests need an API key")
    if settings.public:
        return warn(
            f"requests need no API key, and other machines can reach {settings.host}",
            "set SERVICE_AUTH=on, or SERVICE_HOST=127.0.0.1",
        )
    return ok(f"requests need no API key; only this machine can reach {settings.host}")


async def secret(subject: Subject) -> Finding:
    """Warn if cursors are signed with DATABASE_URL, which several nodes may write differently."""
    if subject.settings.secret is not None:
        return ok("SERVICE_SECRET is set")
    if subject.embedded:
        return ok("made and kept in the data directory")
    return warn(
        "SERVICE_SECRET is not set, so DATABASE_URL signs cursors: a new password ends them all",
        "set SERVICE_SECRET, the same on every node",
    )


async def receiver(subject: Subject) -> Finding:
    """Fail if notifications can't be posted: nothing signs, or the address is not allowed.

    Warn if the receiver's name has no address now. Nothing is posted.
    """
    settings = subject.settings
    url = settings.notify_url
    if url is None:
        return ok("SERVICE_NOTIFY_URL is not set")
    try:
        # Without the URL of an embedded database, which has a secret.
        check_notify_url(subject.app.settings)
    except SettingsError as error:
        return fail(str(error).partition(":")[0], "set what it needs, see docs/receivers.md")
    host = urlsplit(url).hostname or ""
    try:
        found = await in_thread(partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM))
    except OSError:
        return warn("the name in SERVICE_NOTIFY_URL has no address", "correct the name, or the DNS")
    if not allowed_of(host, (one[4][0] for one in found), parse_targets(settings.private_targets)):
        return fail(
            "the name in SERVICE_NOTIFY_URL has a private address",
            "if that is meant, add its network to SERVICE_PRIVATE_TARGETS",
        )
    return ok("the address of SERVICE_NOTIFY_URL is allowed")


async def stores(subject: Subject) -> Finding:
    """Warn if an embedded database serves other machines: it is made for one machine and tests."""
    settings = subject.settings
    if not subject.embedded:
        return ok("DATABASE_URL is set")
    if settings.public:
        return warn(
            f"an embedded database in {settings.data} serves other machines",
            "set DATABASE_URL for production, or back up the data directory",
        )
    return ok(f"an embedded database in {settings.data}")


async def cache(subject: Subject) -> Finding:
    """Fail if the cache does not fit the workers; warn if nothing can be cached."""
    settings = subject.settings
    if why := refused_cache(settings):
        return fail(why.partition(":")[0], "set SERVICE_CACHE=on and REDIS_URL")
    own_redis = settings.redis_url is None and settings.database_url is None
    if settings.cache == "on" and settings.workers > 1 and settings.redis_url == "off":
        return warn(
            f"nothing is cached: {settings.workers} workers have no Redis",
            "set REDIS_URL, or SERVICE_WORKERS=1",
        )
    if settings.cache == "on" and not subject.embedded and settings.redis_url is None:
        return warn(
            "an embedded Redis is used with a database that other nodes may use: while more than"
            " one node is up, nothing is cached",
            "give every node the same REDIS_URL; with one node, SERVICE_CACHE=local is enough",
        )
    if settings.cache == "off":
        return ok("off")
    if own_redis or subject.embedded:
        return ok(f"{settings.cache}, {settings.cache_bytes:,} bytes per worker")
    shared = "shared in Redis" if settings.shared_redis_url else "in the process only"
    return ok(f"{settings.cache}, {settings.cache_bytes:,} bytes per worker, {shared}")


async def rate_limits(subject: Subject) -> Finding:
    """Warn if workers do not count together, or all clients of a proxy count as one."""
    settings = subject.settings
    policies = subject.app.policies.all
    if not policies:
        return ok("off")
    if settings.redis_url == "off" and settings.workers > 1:
        return warn(
            f"without Redis each of {settings.workers} workers allows its share of a limit",
            "set REDIS_URL, so that all workers and nodes count together",
        )
    if not settings.public and settings.trusted_proxies is None:
        return warn(
            f"{settings.host} is reached through a proxy or by this machine only, and"
            " SERVICE_TRUSTED_PROXIES is not set: clients without a key have one limit together",
            "set SERVICE_TRUSTED_PROXIES to the addresses of the proxy, such as 127.0.0.1/32",
        )
    return ok(", ".join(f"{one.name}: {one.limit} in {one.window} s" for one in policies))


async def time_limits(subject: Subject) -> Finding:
    """Warn if the slow log can't have a line, since statements are cancelled before."""
    settings = subject.settings
    limit, slow = settings.statement_timeout_ms, settings.slow_query_ms
    if slow >= limit:
        return warn(
            f"statements are slow from {slow} ms on, and are cancelled after {limit} ms",
            "set SERVICE_SLOW_QUERY_MS below SERVICE_STATEMENT_TIMEOUT_MS",
        )
    return ok(f"statements are cancelled after {limit} ms, and logged from {slow} ms on")


async def tls(subject: Subject) -> Finding:
    """Fail if the certificate can't be used or has expired; warn two weeks before.

    Warn also if keys travel without TLS and no proxy is named that could have it.
    """
    settings = subject.settings
    certfile, keyfile = settings.certfile, settings.keyfile
    try:
        check_files(certfile, keyfile)
    except SettingsError as error:
        return fail(str(error), "correct the files or the settings")
    if certfile is None:
        if settings.public and settings.trusted_proxies is None:
            return warn(
                f"{settings.host} answers HTTP, and API keys travel as plain text",
                "set SERVICE_CERTFILE and SERVICE_KEYFILE, or serve behind a proxy with TLS"
                " and name it in SERVICE_TRUSTED_PROXIES",
            )
        return ok("off: HTTP only")
    try:
        begins, ends = validity(Path(certfile))
    except ValueError as error:
        return skip(str(error))
    now = datetime.now(UTC)
    if now > ends:
        return fail(
            f"the certificate expired at {ends:%Y-%m-%d %H:%M} UTC",
            "renew SERVICE_CERTFILE and restart the service",
        )
    if now < begins:
        return fail(
            f"the certificate is valid only from {begins:%Y-%m-%d %H:%M} UTC on",
            "correct the clock of this machine, or the certificate",
        )
    if ends - now < SOON:
        return warn(
            f"the certificate expires at {ends:%Y-%m-%d %H:%M} UTC",
            "renew SERVICE_CERTFILE and restart the service",
        )
    return ok(f"the certificate is valid until {ends:%Y-%m-%d}")


CHECKS = (
    Check("version", version),
    Check("auth", auth),
    Check("secret", secret),
    Check("receiver", receiver),
    Check("stores", stores),
    Check("cache", cache),
    Check("rate-limits", rate_limits),
    Check("time-limits", time_limits),
    Check("tls", tls),
)
