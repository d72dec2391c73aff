"""What the OpenAPI document says in words: of the service, of headers, of what may go wrong."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from service.errors import Invalid, Malformed, Problem, Stale, TimedOut, Unavailable

RULES = (
    "Every error is a problem document (RFC 9457).\n\n"
    "A row's version is its strong ETag. Lists and bulk operations have none: there If-Match"
    " and If-None-Match are ignored. There is no Last-Modified, so If-Modified-Since and"
    " If-Unmodified-Since are ignored too. A number such as 1.0 is an integer."
)
# Of operations that name no tag of their own.
TAGS = {"health": "Whether the service is up, and can serve"}


class About(NamedTuple):
    """What the document says of an application.

    Args:
        title: its name.
        version: its own, not that of this library.
        description: its first sentences.
        more: further members of `info`, as `contact` and `license`.
    """

    title: str
    version: str
    description: str = ""
    more: Mapping[str, Any] = {}

    def info(self) -> dict[str, Any]:
        """The member `info`."""
        description = f"{self.description} {RULES}".lstrip()
        about = {"title": self.title, "version": self.version, "description": description}
        return {**about, **self.more}


# Name, meaning and JSON type of each header of an answer.
HEADERS: dict[str, tuple[str, str]] = {
    "Accept-Encoding": ("The content codings that this operation takes", "string"),
    "Accept-Patch": ("The media types that this operation takes", "string"),
    "Accept-Post": ("The media types that this operation takes", "string"),
    "Cache-Control": ("Who may keep the answer; data is for the client alone", "string"),
    "Content-Disposition": ("The file's name", "string"),
    "Content-Encoding": ("gzip or zstd, where the client takes it", "string"),
    "ETag": ("The row's version, as If-Match takes it; weak where it is compressed", "string"),
    "Link": ("The first, previous, next and last page (RFC 8288)", "string"),
    "Location": ("The path of the new row", "string"),
    "Retry-After": ("Seconds until it is worth another try", "integer"),
    "Server-Timing": ("Time in the database, and in all", "string"),
    "Vary": ("The request headers that the form of the answer depends on", "string"),
    "X-Cache": ("HIT, MISS or BYPASS", "string"),
    "X-Process-Time": ("Seconds that the service took", "number"),
    "X-Request-ID": ("The client's own id of the request, else one of ours", "string"),
}
ANSWERED_BY_ALL = ("X-Request-ID", "X-Process-Time", "Server-Timing", "Cache-Control")


class Problems(NamedTuple):
    """Which problems an operation may answer, beside those in its line of the route table."""

    by_all: tuple[type[Problem], ...]
    with_etag: tuple[type[Problem], ...]  # by those whose preconditions count
    stored: tuple[type[Problem], ...]  # by those that ask the database
    meanings: dict[int, str]
    headers: dict[int, tuple[str, ...]]
    with_x_cache: frozenset[int]


PROBLEMS = Problems(
    by_all=(Invalid,),
    with_etag=(Malformed, Stale),
    stored=(Unavailable, TimedOut),
    meanings={
        400: "The body, If-Match or If-None-Match is malformed",
        404: "There is no such row",
        408: "The body came too slowly",
        409: "Another row is in the way: `errors` names the field",
        412: "If-Match or If-None-Match does not allow it",
        413: "The body is too large",
        415: "The body is of another media type, or in a content coding",
        422: "A parameter or the body breaks a rule: `errors` names every field",
        503: "Overloaded, or something that the service needs is away: see Retry-After",
        504: "The database took too long",
    },
    headers={
        415: ("Accept-Post", "Accept-Patch", "Accept-Encoding"),
        503: ("Retry-After",),
    },
    with_x_cache=frozenset({400, 404, 412}),
)
