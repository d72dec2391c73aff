"""Conditional requests (RFC 9110, 13): the row's version is its strong ETag.

Lists and bulk operations have no ETag and ignore these headers. There is no Last-Modified, so
If-Modified-Since and If-Unmodified-Since are ignored too.
"""

import re
from functools import lru_cache

from service.db.guarded import Guard
from service.errors import FieldError, Malformed, Problem, Stale
from service.web.codec import Header
from service.web.request import Request

# A list of entity tags. A member may be empty (RFC 9110, 5.6.1), and a tag may hold a comma and
# obs-text. Possessive, so that no header takes long to match.
_MEMBER = rb'[ \t]*+(?:(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"[ \t]*+)?'
_LIST = re.compile(rb"%b(?:,%b)*+" % (_MEMBER, _MEMBER))
_VERSION = re.compile(rb'(W/)?"([1-9][0-9]{0,18})"')
VERSION_MAX = 2**63 - 1


class Tags:
    """A list of entity tags, or `*`, as it is in If-Match and If-None-Match.

    `strong` holds the versions that a strong tag names, `weak` those that any tag names. A tag that
    is not a version of ours is in neither.
    """

    __slots__ = ("any", "strong", "weak")

    def __init__(self, *, any_tag: bool) -> None:
        self.any = any_tag
        self.strong: list[int] = []
        self.weak: list[int] = []


class Preconditions:
    """If-Match and If-None-Match of one request; None for a header that was not sent."""

    __slots__ = ("match", "none_match")

    def __init__(self, match: Tags | None, none_match: Tags | None) -> None:
        self.match = match
        self.none_match = none_match

    @property
    def guard(self) -> Guard | None:
        """The versions that a write may change; None for any."""
        match, none_match = self.match, self.none_match
        versions = None if match is None or match.any else match.strong
        if none_match is None:
            return None if versions is None else Guard(versions)
        if none_match.any:
            return Guard([])
        if versions is None:
            return Guard(None, none_match.weak) if none_match.weak else None
        return Guard([one for one in versions if one not in none_match.weak])

    def refuse(self, version: int) -> Problem:
        """Why a write of a row at this version did not happen."""
        match = self.match
        if match is None or match.any or version in match.strong:
            return Stale(f"If-None-Match excludes the row: it is at version {version}")
        return Stale(f"it has changed: it was at version {version}")


def etag(version: int) -> bytes:
    """The header's value, quotes included."""
    return b'"%d"' % version


@lru_cache(maxsize=1024)
def etag_headers(version: int) -> tuple[Header, ...]:
    """The headers of a row of this version; the same object for all rows that have it."""
    return ((b"etag", etag(version)),)


def preconditions(request: Request) -> Preconditions | None:
    """Those of a request; None without any.

    Raises:
        Malformed: If-Match, or If-None-Match of a write, is not a list of entity tags; such a
            write must not happen. A malformed If-None-Match of a read is ignored.
    """
    match = request.header(b"if-match")
    none_match = request.header(b"if-none-match")
    if match is None and none_match is None:
        return None
    return Preconditions(
        None if match is None else _parsed("If-Match", match),
        None if none_match is None else _parsed("If-None-Match", none_match, _reads(request)),
    )


def not_modified(request: Request, version: int) -> bool:
    """Whether a read of a row is answered 304: If-None-Match names its version.

    If-Match comes first (RFC 9110, 13.2.2).

    Raises:
        Stale: If-Match does not name it.
        Malformed: see `preconditions`.
    """
    conditions = preconditions(request)
    if conditions is None:
        return False
    match, none_match = conditions.match, conditions.none_match
    if match is not None and not match.any and version not in match.strong:
        raise Stale(f"If-Match names another version: the row is at version {version}")
    return none_match is not None and (none_match.any or version in none_match.weak)


def parse(header: bytes) -> Tags | None:
    """The header's tags; None where it is neither `*` nor a list of entity tags."""
    if header == b"*":
        return Tags(any_tag=True)
    if not _LIST.fullmatch(header):
        return None
    tags = Tags(any_tag=False)
    # In a valid list, nothing else looks like a tag of ours. A header of 64 KB may have the same
    # tag 16,000 times.
    for weak, version in dict.fromkeys(_VERSION.findall(header)):
        if (number := int(version)) <= VERSION_MAX:
            tags.weak.append(number)
            if not weak:
                tags.strong.append(number)
    return tags


def _parsed(name: str, header: bytes, ignored: bool = False) -> Tags | None:
    tags = parse(header)
    if tags is None and not ignored:
        shown = f'{name} must be * or entity tags in quotes, as in "3"'
        raise Malformed(shown, FieldError(name, "not an entity tag"))
    return tags


def _reads(request: Request) -> bool:
    return request.scope["method"] in {"GET", "HEAD"}
