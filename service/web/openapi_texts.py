"""Descriptions in the OpenAPI document: of the service, the headers and the errors."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from service.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    Problem,
    Stale,
    TimedOut,
    TooMany,
    Unauthorized,
    Unavailable,
)

# Characters of an Idempotency-Key.
LONGEST = 255
RULES = (
    "Every error is a problem document (RFC 9457), also those that any request may have: 405 with"
    " Allow for another method, 414, 417, 431, 500, 501. HEAD works wherever GET does."
    " traceparent (W3C Trace Context) is honoured.\n\n"
    "A row's version is its strong ETag. Lists and bulk operations have none: there If-Match"
    " and If-None-Match are ignored. There is no Last-Modified, so If-Modified-Since and"
    " If-Unmodified-Since are ignored too. A number such as 1.0 is an integer."
)
# Tags of operations that do not name one.
TAGS = {
    "health": "Whether the service is up, and can serve",
    "service": "The service itself: its documents and pages",
}


class About(NamedTuple):
    """Description of an application in the document.

    Args:
        title: its name.
        version: version of the application, not of this library.
        description: the first sentences of its description.
        more: further members of `info`, such as `contact` and `license`.
    """

    title: str
    version: str
    description: str = ""
    more: Mapping[str, Any] = {}

    def info(self) -> dict[str, Any]:
        """Return the member `info`."""
        description = f"{self.description} {RULES}".lstrip()
        about = {"title": self.title, "version": self.version, "description": description}
        return {**about, **self.more}


class Header(NamedTuple):
    """A response header: its description, an example, and its schema beside that."""

    description: str
    example: Any
    schema: Mapping[str, Any] = {"type": "string"}

    def component(self) -> dict[str, Any]:
        """Return the header as a component of the document."""
        schema = {**self.schema, "examples": [self.example]}
        return {"description": self.description, "schema": schema}


_JSON, _GZIP = "application/json", "gzip, zstd"
HEADERS = {
    "Accept-Encoding": Header("Content codings that this operation accepts", _GZIP),
    "Accept-Patch": Header("Media types that this operation accepts", _JSON),
    "Accept-Post": Header("Media types that this operation accepts", _JSON),
    "Cache-Control": Header(
        "Which cache may store the response; data is private to the client", "private, no-cache"
    ),
    "Content-Disposition": Header("The name of the file", 'attachment; filename="items.ndjson"'),
    "Content-Encoding": Header(
        "The content coding, if the client accepts it",
        "gzip",
        {"type": "string", "enum": ["gzip", "zstd"]},
    ),
    "Content-Security-Policy": Header("What the page may load", "default-src 'none'"),
    "ETag": Header("The row's version, for If-Match; weak if the response is compressed", '"3"'),
    "Idempotency-Replayed": Header(
        "true if this is the stored answer to an earlier request", "true"
    ),
    "Link": Header(
        "The first, previous, next and last page (RFC 8288)",
        '</items?page=1>; rel="first", </items?page=3>; rel="next"',
    ),
    "Location": Header("The path of the new row", "/items/1"),
    "RateLimit": Header(
        "Requests that remain now (r), and seconds until there are more (t)", '"default";r=98;t=1'
    ),
    "RateLimit-Policy": Header(
        "The requests that are allowed (q) in a number of seconds (w)", '"default";q=100;w=60'
    ),
    "Referrer-Policy": Header("The page tells no other site its address", "no-referrer"),
    "Retry-After": Header(
        "Seconds to wait before the next try", 1, {"type": "integer", "minimum": 0}
    ),
    "Server-Timing": Header(
        "Where the time went, in milliseconds (W3C Server Timing)",
        'queue;dur=0.013, pool;dur=0.000, sql;dur=0.412;desc="1 statements", cache;dur=0.021,'
        " encode;dur=0.035, total;dur=0.731",
    ),
    "Vary": Header("The request headers that select the form of the response", "accept-encoding"),
    "WWW-Authenticate": Header(
        "How to authenticate, and what was wrong (RFC 6750)", 'Bearer error="invalid_token"'
    ),
    "X-Cache": Header(
        "Whether the response was in the cache; BYPASS if the cache was not asked",
        "HIT",
        {"type": "string", "enum": ["HIT", "MISS", "BYPASS"]},
    ),
    "X-Content-Type-Options": Header("A browser must not guess another type", "nosniff"),
    "X-Frame-Options": Header("No other site may show the page in a frame", "DENY"),
    "X-Process-Time": Header(
        "Seconds that the service needed", 0.000731, {"type": "number", "minimum": 0}
    ),
    "X-Request-ID": Header(
        "The id that the client sent, else a generated one; it is in the log too", "4f1d9a-1c"
    ),
}
LIMIT_HEADERS = ("RateLimit-Policy", "RateLimit")
# Of a page for browsers.
PAGE_HEADERS = ("Content-Security-Policy", "Referrer-Policy", "X-Frame-Options")
# How a client sends its API key.
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key"},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same API key, for clients that can't set Authorization",
    },
}
# A list of entity tags, whose members may be empty, or `*`; as in conditional.py.
_TAG = r'[ \t]*((W/)?"[!#-~\u0080-\u00ff]*"[ \t]*)?'
ENTITY_TAGS = rf"^(\*|{_TAG}(,{_TAG})*)$"

COMMON_HEADERS = (
    "X-Content-Type-Options",
    "X-Request-ID",
    "X-Process-Time",
    "Server-Timing",
    "Cache-Control",
)


# What the parameters of the queries mean that the library defines.
PARAMETERS = {
    "page": "Number of the page, from 1. It excludes `cursor`",
    "per_page": "Rows of a page",
    "cursor": "Empty for the first page by cursor, then `next_cursor` of the last response",
    "sort": "The order of the rows; with `-` descending. Rows with equal values are in order of id",
    "total": (
        "How to count all rows: exactly, by an estimate, or not at all. By default `exact` by page,"
        " and `none` by cursor"
    ),
    "include": "What to add to each row, separated by commas",
    "q": "Only rows with this text in one of the fields that are searched, in any case",
    "format": "The form of the file",
    "trailer": "Whether a last line has the number of rows, so that a cut file is noticed",
    "permanent": "Whether to remove the row; else it becomes inactive",
    "background": "Whether a job imports the file later; the answer is the job",
    "on_error": "For a file with wrong lines: write nothing, or skip these lines",
}
# Parameters in a path: the id of a row, or what is in PATH.
ROW_ID: dict[str, Any] = {
    "description": "The row's id",
    "schema": {"type": "integer", "format": "int64", "examples": [1]},
}
PATH: dict[str, dict[str, Any]] = {
    "statement": {
        "description": "The name of a statement, as `swiftlet statements` lists it",
        "schema": {"type": "string", "minLength": 1, "examples": ["items.by_id"]},
    }
}
REQUEST_ID: dict[str, Any] = {
    "name": "X-Request-ID",
    "in": "header",
    "description": (
        "The id of the request, for the response and the log: 1 to 128 visible ASCII characters."
        " Without one, or with a wrong one, the service makes an id."
    ),
    "schema": {"type": "string", "examples": ["checkout-7f3a"]},
}
# The parameter of an operation whose responses are cached.
NO_CACHE: dict[str, Any] = {
    "name": "Cache-Control",
    "in": "header",
    "description": "`no-cache` bypasses every cache of the service",
    "schema": {"type": "string", "examples": ["no-cache"]},
}
# The parameter of a POST.
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "Makes a repeated request safe: one with the same key gets the first answer again for 24"
        " hours, if that was successful. 422 if it is another request, 409 while the first one"
        " runs. A key belongs to its user. A quoted string (RFC 8941) counts as its content."
    ),
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST,
        "pattern": "^[!#-~][!-~]*$",
        "examples": ["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    },
}


class Checks(NamedTuple):
    """What is checked before an operation runs: API keys, rate limits."""

    keys: bool = False
    limits: bool = False


NO_CHECKS = Checks()


class Problems(NamedTuple):
    """The errors of an operation besides those in its entry of the route table."""

    by_all: tuple[type[Problem], ...]
    with_etag: tuple[type[Problem], ...]  # by operations with preconditions
    repeatable: tuple[type[Problem], ...]  # by operations that take an Idempotency-Key
    stored: tuple[type[Problem], ...]  # by operations that use the database
    with_key: tuple[type[Problem], ...]  # by operations that need a key
    meanings: dict[int, str]
    details: dict[int, tuple[str, list[dict[str, str]]]]  # `detail` and `errors` of the example
    headers: dict[int, tuple[str, ...]]
    with_x_cache: frozenset[int]


PROBLEMS = Problems(
    by_all=(Invalid,),
    with_etag=(Malformed, Stale),
    repeatable=(Malformed, Conflict),
    stored=(Unavailable, TimedOut),
    # 429: also after too many keys that are not valid.
    with_key=(Malformed, Unauthorized, Forbidden, TooMany),
    meanings={
        400: "The body or a header is malformed",
        401: "There is no API key, or it is not valid",
        403: "The API key lacks a scope, or its user may not do this",
        404: "The row does not exist",
        408: "The client sent the body too slowly",
        409: "A conflict with another row: `errors` names the field; or a request with this"
        " Idempotency-Key still runs (see Retry-After), or its answer is not shown again",
        410: "The changes after this position are not kept any more",
        412: "A precondition (If-Match or If-None-Match) failed",
        413: "The body is too large",
        415: "The media type or content coding of the body is not supported",
        422: "A parameter or the body breaks a rule: `errors` names every field; or the"
        " Idempotency-Key was used for another request",
        429: "Too many requests, or too many API keys that are not valid: see Retry-After",
        503: "Overloaded, or the database is not available: see Retry-After",
        504: "The database took too long",
    },
    details={
        400: ("the body is not valid at byte 17", []),
        401: ("this needs an API key", []),
        403: ("this needs an API key with the scope write", []),
        404: ("there is no such row", []),
        408: ("the body was sent too slowly", []),
        409: ("name is already taken", [{"field": "name", "message": "already taken"}]),
        410: ("the changes after this position are not kept any more", []),
        412: ("the version is now 4", []),
        413: ("the body has more than 1048576 bytes", []),
        415: ("the body must be application/json", []),
        422: (
            "name: required, but missing",
            [{"field": "name", "message": "required, but missing"}],
        ),
        429: ("too many requests: wait 7 s", []),
        503: ("the database is away", []),
        504: ("the database took too long; nothing was changed", []),
    },
    headers={
        401: ("WWW-Authenticate",),
        403: ("WWW-Authenticate",),
        409: ("Location", "Retry-After"),
        429: ("Retry-After",),
        415: ("Accept-Post", "Accept-Patch", "Accept-Encoding"),
        503: ("Retry-After",),
    },
    with_x_cache=frozenset({400, 404, 412}),
)
