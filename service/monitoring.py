"""`GET /metrics`: what all workers have counted."""

import asyncio
import re
from collections.abc import Iterator
from time import perf_counter

from service.errors import NotFound
from service.metrics.exposition import open_metrics, prometheus
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.request import Request

TEXT = b"text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

# The text is made for so long before others run.
TURN_SECONDS = 0.001

# A media range of Accept, with its parameters.
_RANGE = re.compile(rb"\s*([^;,\s]+)((?:\s*;[^;,]*)*)")


async def metrics(request: Request) -> Reply:
    """Return the metrics of all workers, as text of Prometheus or, by Accept, of OpenMetrics.

    A program on this machine needs no key.
    """
    found = request.state["metrics"]
    if found is None:
        raise NotFound("metrics are off: SERVICE_METRICS=off")
    found.publish()
    slots = found.store.slots()
    if wants_open_metrics(request.header(b"accept") or b""):
        body, content_type = await _made(open_metrics(slots)), OPEN_METRICS
    else:
        body, content_type = await _made(prometheus(slots)), TEXT
    return Reply(body, content_type=content_type, cache_control=b"no-store")


async def _made(parts: Iterator[str]) -> bytes:
    """Return the whole text; other requests run while it is made, which may take 50 ms."""
    done: list[str] = []
    until = perf_counter() + TURN_SECONDS
    for part in parts:
        done.append(part)
        if perf_counter() > until:
            await asyncio.sleep(0)
            until = perf_counter() + TURN_SECONDS
    return "".join(done).encode()


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
            "The metrics of all workers; on the machine of the server without a key",
            media=("text/plain",),
            errors=(NotFound,),
            stored=False,
            access="admin",
            local=True,
            limit="off",
        )
    ]
