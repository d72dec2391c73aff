"""Hits of the cache by the bytes of a request: what is sent again is not parsed again.

Clients send the same bytes for the same resource. So the hits that are asked for most are found by
them: this saves 3 us of a hit's 7 (`python -m bench trials path`).
"""

from time import perf_counter
from typing import Any, NamedTuple

from service.cache.response import CachedResponse
from service.http1.standard_headers import LINES_OF_HIT, PRIVATE, new_request_id
from service.web.codec import JSON

# Longer bodies are not remembered.
LONGEST_BODY = 4_096
# The part of the bytes of the cache that is for them; and what each takes beside its own bytes.
SHARE, EACH = 1 / 8, 200
# The header lines of a hit: the values of LINES_OF_HIT, its own lines, the length of its body.
HEAD_OF_HIT = (
    b"%b\r\nx-cache: HIT\r\ncache-control: %b\r\ncontent-type: %b\r\n%%bcontent-length: %%d"
    % (LINES_OF_HIT, PRIVATE, JSON)
)


class Hit(NamedTuple):
    """A response that was sent without a content coding: valid while the cache has it.

    Args:
        response: as the cache keeps it.
        lines: its own header lines.
        route: the path template of the request.
    """

    response: CachedResponse
    lines: bytes
    route: str


class Repeats:
    """The hits of one process by the bytes of their requests.

    A request is remembered only if its response depends on nothing but its bytes and the cache: no
    key, no trace, no id of the client. One with a cookie is not: no secret stays after its
    connection.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Hit] = {}
        self._size = 0

    def remember(self, request: bytes, hit: Hit, limit: int) -> None:
        """Remember a request that was a hit.

        Args:
            request: all bytes that have arrived with it; empty if they are too many.
            hit: its response.
            limit: bytes of the cache.
        """
        if len(hit.response.body) > LONGEST_BODY:
            return
        if request.find(b"\r\n\r\n") != len(request) - 4 or not request.startswith(b"GET "):
            return  # something precedes or follows the request
        if request not in self._known:
            self._size += len(request) + EACH
        if self._size > limit * SHARE:
            self._known.clear()
            self._size = len(request) + EACH
        self._known[request] = hit

    def find(self, request: bytes, state: dict[str, Any]) -> tuple[bytes, bytes] | None:
        """Return header lines and body for the bytes of a request, if its response is valid."""
        hit = self._known.get(request)
        if hit is None:
            return None
        started = perf_counter()
        response, lines, route = hit
        cache = state["cache"]
        if cache.find(response.key, refreshes=False) is not response:
            del self._known[request]
            self._size -= len(request) + EACH
            return None
        took = perf_counter() - started
        metrics = state["metrics"]
        if metrics is not None:
            metrics.hit(route, took)
            cache.local.hits += 1
        milliseconds, body = took * 1000, response.body
        head = HEAD_OF_HIT % (new_request_id(), took, milliseconds, milliseconds, lines, len(body))
        return head, body
