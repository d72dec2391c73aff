"""Content-Type: one parser for JSON bodies and for files (RFC 9110, 8.3)."""

import re
from functools import lru_cache

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rb"(%b/%b)[ \t]*+(?=;|\Z)" % (_TOKEN, _TOKEN))
# Empty parameters are allowed, as in `text/csv;`.
_PARAMETER = re.compile(
    rb';[ \t]*+(?:(?P<name>%b)=(?:(?P<token>%b)|"(?P<quoted>(?:[^"\\]|\\.)*+)"))?[ \t]*+(?=;|\Z)'
    % (_TOKEN, _TOKEN),
    re.DOTALL,
)
# A longer header is refused: each parameter takes half a microsecond, even an empty one.
LONGEST = 1000
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
# Bodies are read as UTF-8, which includes ASCII.
_UTF_8 = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})


@lru_cache(maxsize=64)
def utf_8_media_type(content_type: bytes) -> bytes | None:
    """The media type in lower case, as `text/csv`, of a body that is in UTF-8.

    Parameters other than `charset` are ignored. None if the header is malformed or has another
    charset.
    """
    found = _TYPE.match(content_type)
    if found is None or len(content_type) > LONGEST:
        return None
    position = found.end()
    while position < len(content_type):
        parameter = _PARAMETER.match(content_type, position)
        if parameter is None:
            return None
        position = parameter.end()
        if (parameter["name"] or b"").lower() == b"charset":
            charset = parameter["token"] or _ESCAPE.sub(rb"\1", parameter["quoted"] or b"")
            if charset.lower() not in _UTF_8:
                return None
    return found[1].lower()


def is_json(content_type: bytes) -> bool:
    """Whether a body of this type is JSON in UTF-8: `application/json`, or any `+json`."""
    media = utf_8_media_type(content_type)
    return media is not None and (
        media == b"application/json"
        or (media.startswith(b"application/") and media.endswith(b"+json"))
    )
