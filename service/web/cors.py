"""CORS: pages of the origins in SERVICE_CORS_ORIGINS may read responses (fetch.spec.whatwg.org).

A page sends its key in a header, and the browser adds nothing by itself. So credentials (cookies)
are never allowed, and a page of another origin can do no more than anybody without a key.
"""

from collections.abc import Iterable

from starlette.types import Scope

from service.errors import Forbidden, NotFound
from service.http1.standard_headers import HSTS
from service.settings import Settings
from service.web.added_headers import AddedHeaders
from service.web.codec import Header, Reply
from service.web.endpoint import Endpoint, Handler
from service.web.request import Request

ORIGIN, METHOD = b"origin", b"access-control-request-method"
# Headers of a request that a page may set, beside those that CORS always allows.
REQUEST_HEADERS = (
    b"authorization, x-api-key, content-type, content-encoding, if-match, if-none-match,"
    b" idempotency-key, x-request-id, cache-control, last-event-id,"
    b" traceparent, tracestate"
)
# Headers of a response that a page may read.
RESPONSE_HEADERS = (
    b"etag, location, link, allow, retry-after, ratelimit, ratelimit-policy, idempotency-replayed,"
    b" www-authenticate, content-disposition, x-request-id, x-process-time, x-cache, server-timing,"
    b" traceresponse"
)
# Seconds for which a browser keeps the answer to a preflight request.
MAX_AGE = b"600"
# Also without an Origin: a cache of the browser must not give that response to a page.
VARY: Header = (b"vary", b"origin")
PREFLIGHT_VARY: Header = (
    b"vary",
    b"access-control-request-method, access-control-request-headers",
)


class Cors(AddedHeaders):
    """Adds the headers for pages of some origins, and answers preflight requests.

    Args:
        origins: as browsers send them.
        others: headers for every response.
    """

    def __init__(self, origins: Iterable[str], *others: Header) -> None:
        super().__init__(VARY, *others)
        self.allowed = {
            origin.encode(): AddedHeaders(
                VARY,
                (b"access-control-allow-origin", origin.encode()),
                (b"access-control-expose-headers", RESPONSE_HEADERS),
                *others,
            ).always
            for origin in origins
        }

    def of(self, scope: Scope) -> tuple[tuple[Header, ...], bytes]:
        """Return the headers for a request; a page of another origin may read nothing."""
        return self.allowed.get(_first(scope, ORIGIN), self.always)

    def preflight(self, scope: Scope, methods: Iterable[str], route: str) -> "Preflight":
        """Return the answer to a preflight request for a path with these methods."""
        return Preflight(methods if _first(scope, ORIGIN) in self.allowed else None, route)


class Preflight(Endpoint):
    """Tells a browser what a page may send to a path. It needs no key: browsers send none."""

    def __init__(self, methods: Iterable[str] | None, route: str) -> None:
        super().__init__()
        self.route = route
        self.methods = methods  # None: the origin is not allowed

    def _handler(self, request: Request) -> Handler:
        del request
        return self._answer

    async def _answer(self, request: Request) -> Reply:
        del request
        if self.methods is None:
            raise Forbidden("pages of this origin may not use the API: see SERVICE_CORS_ORIGINS")
        if not self.methods:
            raise NotFound("there is nothing at this path; /docs lists what there is")
        return Reply(
            status=204,
            headers=(
                (b"access-control-allow-methods", ", ".join(sorted(self.methods)).encode()),
                (b"access-control-allow-headers", REQUEST_HEADERS),
                (b"access-control-max-age", MAX_AGE),
                PREFLIGHT_VARY,
            ),
        )


def is_preflight(scope: Scope) -> bool:
    """Return whether a browser asks what a page may send."""
    return scope["method"] == "OPTIONS" and bool(_first(scope, ORIGIN) and _first(scope, METHOD))


def _first(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def added_headers(settings: Settings) -> AddedHeaders | None:
    """Return the headers that the settings add to every response; None for none."""
    # Our own HTTP/1.1 has HSTS in the headers of every response, see server/uvicorn.py.
    hsts = (HSTS,) if settings.certfile is not None and settings.server == "granian" else ()
    if settings.origins:
        return Cors(settings.origins, *hsts)
    return AddedHeaders(*hsts) if hsts else None
