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
    "Every error is a problem document (RFC 9457).\n\n"
    "A row's version is its strong ETag. Lists and bulk operations have none: there If-Match"
    " and If-None-Match are ignored. There is no Last-Modified, so If-Modified-Since and"
    " If-Unmodified-Since are ignored too. A number such as 1.0 is an integer."
)
# Tags of operations that do not name one.
TAGS = {"health": "Whether the service is up, and can serve"}


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


# Description and JSON type of each response header.
HEADERS: dict[str, tuple[str, str]] = {
    "Accept-Encoding": ("Content codings that this operation accepts", "string"),
    "Accept-Patch": ("Media types that this operation accepts", "string"),
    "Accept-Post": ("Media types that this operation accepts", "string"),
    "Cache-Control": ("Who may cache the response; data is private to the client", "string"),
    "Content-Disposition": ("The file's name", "string"),
    "Content-Encoding": ("gzip or zstd, if the client accepts it", "string"),
    "ETag": ("The row's version, for If-Match; weak if the response is compressed", "string"),
    "Idempotency-Replayed": ("true if this is the stored answer to an earlier request", "string"),
    "Link": ("The first, previous, next and last page (RFC 8288)", "string"),
    "Location": ("The path of the new row", "string"),
    "RateLimit": ("Requests that remain now, and seconds until there are more", "string"),
    "RateLimit-Policy": ("The requests that are allowed in a number of seconds", "string"),
    "Retry-After": ("Seconds to wait before the next try", "integer"),
    "Server-Timing": ("Time in the database, and total time", "string"),
    "Vary": ("The request headers that select the form of the response", "string"),
    "WWW-Authenticate": ("How to authenticate, and what was wrong (RFC 6750)", "string"),
    "X-Cache": ("HIT, MISS or BYPASS", "string"),
    "X-Content-Type-Options": ("`nosniff`: a browser must not guess another type", "string"),
    "X-Process-Time": ("Seconds that the service needed", "number"),
    "X-Request-ID": ("The id that the client sent, else a generated one", "string"),
}
LIMIT_HEADERS = ("RateLimit-Policy", "RateLimit")
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


# The parameter of a POST.
# Parameters in a path: a row's id, or what is in PATH.
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
        412: "A precondition (If-Match or If-None-Match) failed",
        413: "The body is too large",
        415: "The media type or content coding of the body is not supported",
        422: "A parameter or the body breaks a rule: `errors` names every field; or the"
        " Idempotency-Key was used for another request",
        429: "Too many requests, or too many API keys that are not valid: see Retry-After",
        503: "Overloaded, or the database is not available: see Retry-After",
        504: "The database took too long",
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
