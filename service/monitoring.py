"""`GET /metrics`: what all workers have counted."""

import re

from starlette.types import Scope

from service.errors import Forbidden, NotFound, Unauthorized
from service.metrics.exposition import open_metrics, prometheus
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.guard import is_on_loopback
from service.web.request import Request

TEXT = b"text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

# A media range of Accept, with its parameters.
_RANGE = re.compile(rb"\s*([^;,\s]+)((?:\s*;[^;,]*)*)")
# Headers of proxies: the client may be anywhere.
_FORWARDED = frozenset({b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip"})
_LOCAL_HOST = re.compile(
    rb"(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[(?:::1|::ffff:127\.[0-9.]+)\])\.?"
    rb"(?::[0-9]{0,5})?",
    re.IGNORECASE,
)


async def metrics(request: Request) -> Reply:
    """Return the metrics of all workers, as text of Prometheus or, by Accept, of OpenMetrics.

    From a loopback address it needs no key, else the key of an admin.
    """
    found, guard = request.state["metrics"], request.state["guard"]
    if guard is not None and guard.exempt != "all" and not is_local(request.scope):
        await guard.require(request.scope, "admin")
    if found is None:
        raise NotFound("metrics are off: SERVICE_METRICS=off")
    found.publish()
    slots = found.store.slots()
    if wants_open_metrics(request.header(b"accept") or b""):
        return Reply(open_metrics(slots), content_type=OPEN_METRICS, cache_control=b"no-store")
    return Reply(prometheus(slots), content_type=TEXT, cache_control=b"no-store")


def is_local(scope: Scope) -> bool:
    """Return whether a request is of a program on this machine, as far as can be seen.

    It is not if a proxy has passed it on, or if it names another host: then a browser may have been
    led here by a page of that host.
    """
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    proxied = any(
        name in _FORWARDED or name.startswith(b"x-forwarded-") for name, _ in scope["headers"]
    )
    named = all(_LOCAL_HOST.fullmatch(host.strip()) for host in hosts)
    return is_on_loopback(scope) and named and not proxied


def wants_open_metrics(accept: bytes) -> bool:
    """Return whether Accept prefers OpenMetrics 1.0 to the text of Prometheus."""
    best = {b"application/openmetrics-text": 0.0, b"text/plain": 0.0}
    for part in accept[:1000].split(b","):
        match = _RANGE.match(part)
        if match is None or (media := match[1].lower()) not in best:
            continue
        given = dict(
            pair.strip().lower().split(b"=", 1) for pair in match[2].split(b";") if b"=" in pair
        )
        version = given.get(b"version", b"").strip(b'"')
        if media == b"application/openmetrics-text" and version not in (b"", b"1.0.0"):
            continue
        try:
            weight = float(given.get(b"q", b"1"))
        except ValueError:
            continue
        best[media] = max(best[media], weight)
    return best[b"application/openmetrics-text"] > best[b"text/plain"]


def routes() -> list[Operation]:
    """Return the operation."""
    return [
        Operation(
            "GET",
            "/metrics",
            metrics,
            "The metrics of all workers",
            errors=(Unauthorized, Forbidden, NotFound),
            stored=False,
            access="open",
            limit="off",
        )
    ]
