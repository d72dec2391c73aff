"""Check SERVICE_CORS_ORIGINS: the origins whose pages may read responses."""

import re

# An origin as browsers write it (RFC 6454, 6.2): no path, no user, nothing in capitals.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class OriginError(ValueError):
    """A value is not an origin; the message says what to change."""


def parse_origins(value: str) -> tuple[str, ...]:
    """Return the origins of a comma-separated list.

    Raises:
        OriginError: an origin is not as a browser writes it; the message says what to change.
    """
    found = [one.strip() for one in value.split(",")]
    for origin in found:
        _check(origin)
    return tuple(dict.fromkeys(found))


def _check(origin: str) -> None:
    if origin == "*":
        raise OriginError("* would let every page read responses: list the origins")
    if origin == "null":
        raise OriginError("any page can send the origin null: list the origins")
    matched = _ORIGIN.fullmatch(origin)
    if matched is None:
        raise OriginError(
            f"{origin!r} is not an origin: write scheme://host or scheme://host:port,"
            " without a path and in small letters, such as https://app.example.com"
        )
    port = matched[1]
    if port is not None and int(port) > 65_535:
        raise OriginError(f"{origin!r} has no valid port")
    if port is not None and port == _DEFAULT_PORTS.get(origin.partition(":")[0]):
        raise OriginError(f"{origin!r}: leave out the default port {port}, as browsers do")
