"""Hits of the cache by the bytes of a request: what is sent again is not parsed again.

Clients send the same bytes for the same resource. So the hits that are asked for most are found by
them: this saves 3 us of a hit's 7 (`python -m bench trials path`).
"""

from collections.abc import Hashable
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

from service.http1.standard_headers import LINES_OF_HIT, PRIVATE, new_request_id
from service.web import compress
from service.web.codec import JSON, Header
from service.web.prebuilt import header_lines

# A longer body is not copied into one write with its head.
LONGEST_BODY = 4_096
# The part of the bytes of the cache that is for them; and what each takes beside its own bytes.
SHARE, EACH = 1 / 8, 200
# The header lines of a hit: the values of LINES_OF_HIT, its own lines, the length of its body.
HEAD_OF_HIT = (
    b"%b\r\nx-cache: HIT\r\ncache-control: %b\r\ncontent-type: %b\r\n%%bcontent-length: %%d"
    % (LINES_OF_HIT, PRIVATE, JSON)
)


class Hit(NamedTuple):
    """A request that was a hit.

    Args:
        key: of its response in the cache.
        plain: whether the client accepts no content coding.
        route: the path template of the request.
    """

    key: Hashable
    plain: bool
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
            hit: what it asks for.
            limit: bytes of the cache.
        """
        if request.find(b"\r\n\r\n") != len(request) - 4 or not request.startswith(b"GET "):
            return  # something precedes or follows the request
        if request not in self._known:
            self._size += len(request) + EACH
        if self._size > limit * SHARE:
            self._known.clear()
            self._size = len(request) + EACH
        self._known[request] = hit

    def find(self, request: bytes, state: dict[str, Any]) -> tuple[bytes, bytes] | None:
        """Return header lines and body for the bytes of a request, if the cache has them."""
        hit = self._known.get(request)
        if hit is None:
            return None
        started = perf_counter()
        cache = state["cache"]
        response = cache.find(hit.key, refreshes=False)
        if response is None or response.missing is not None:
            return None
        body = response.body
        compressible = len(body) >= compress.LEAST
        if compressible and (not hit.plain or len(body) > LONGEST_BODY):
            return None
        lines = fixed_lines(response.headers, None, compressible=compressible)
        if lines is None:
            return None
        took = perf_counter() - started
        metrics = state["metrics"]
        if metrics is not None:
            metrics.hit(hit.route, took)
            cache.local.hits += 1
        milliseconds = took * 1000
        head = HEAD_OF_HIT % (new_request_id(), took, milliseconds, milliseconds, lines, len(body))
        return head, body


@lru_cache(maxsize=1024)
def fixed_lines(
    headers: tuple[Header, ...], encoding: bytes | None, *, compressible: bool
) -> bytes | None:
    """Return a cached response's own header lines; None if only the messages of ASGI handle them.

    Rows of the same version share them: they take no memory beside each response.
    """
    if compressible and compress.is_compressible(JSON, headers):
        headers = compress.add_vary(headers, encoding)
    if encoding is not None:
        headers = (*headers, (b"content-encoding", encoding))
    return header_lines(headers)
