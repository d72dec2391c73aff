"""Conditional requests (RFC 9110, 13): the row's version is its strong ETag."""

import re
from collections.abc import Sequence

from service.errors import FieldError, Malformed

# Obs-text included; a comma may stand inside a tag, so the list can't be split at commas.
_TAG = re.compile(rb'[ \t]*(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)')
_VERSION = re.compile(rb"[1-9][0-9]{0,18}")
VERSION_MAX = 2**63 - 1


class Match:
    """An If-Match header: the versions it allows, or with `*` any that exists."""

    __slots__ = ("any", "versions")

    def __init__(self, *, versions: Sequence[int] = (), any_version: bool = False) -> None:
        self.versions = list(versions)
        self.any = any_version

    def allows(self, version: int) -> bool:
        """Whether a row of this version may be changed."""
        return self.any or version in self.versions


def etag(version: int) -> bytes:
    """The header's value, quotes included."""
    return b'"%d"' % version


def if_match(header: bytes | None) -> Match | None:
    """The guard of a write; None without the header. Weak tags never match (RFC 9110, 13.1.1).

    Raises:
        Malformed: not a list of entity tags.
    """
    if header is None:
        return None
    if header.strip() == b"*":
        return Match(any_version=True)
    tags = _tags(header)
    if not tags:
        shown = 'If-Match must be * or entity tags in quotes, as in "3"'
        raise Malformed(shown, FieldError("If-Match", "not an entity tag"))
    strong = (int(tag) for weak, tag in tags if not weak and _VERSION.fullmatch(tag))
    return Match(versions=[version for version in strong if version <= VERSION_MAX])


def not_modified(header: bytes | None, version: int) -> bool:
    """Whether If-None-Match already has this version; weak tags count, what is no tag does not."""
    if header is None:
        return False
    if header.strip() == b"*":
        return True
    current = b"%d" % version
    return any(tag == current for _, tag in _tags(header) or ())


def _tags(header: bytes) -> list[tuple[bool, bytes]] | None:
    """Each tag with whether it is weak; None when the header is anything else."""
    tags, position = [], 0
    while position < len(header):
        found = _TAG.match(header, position)
        if found is None:
            return None
        tags.append((found["weak"] is not None, found["tag"]))
        position = found.end()
    return tags
