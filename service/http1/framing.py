"""Check the end of a request and its host, with the same rules on every server."""

import asyncio
import ipaddress
import re
from functools import lru_cache

from starlette.types import Receive, Scope

from service.errors import Malformed, NotImplementedHere, Problem, TooLarge, TooSlow

# Seconds for a whole body; a slower client is rejected.
BODY_SECONDS = 10.0
# Methods whose handler reads the body to its end. For other methods a body has no meaning (RFC
# 9110, 9.3): such a request is executed only after its whole body arrived with correct framing.
READS_BODY = frozenset({"POST", "PUT", "PATCH"})
# Maximum bytes of a body without a meaning. On other servers each part counts for at least so many
# bytes: a part may have one byte, and takes 110 us.
UNUSED_BODY, PART_COST = 65_536, 16
# No comma, although a name may have one: a proxy may join two Host headers with a comma.
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::([0-9]{0,5}))?"
)


async def framing_problem(scope: Scope, receive: Receive) -> Problem | None:
    """Return what is wrong with a request of another server than ours; None if nothing.

    Our own HTTP/1.1 server checks requests itself. granian does not distinguish a missing Host from
    an empty one, so both are rejected. It also drops a Content-Length beside Transfer-Encoding.
    """
    try:
        _check_headers(scope["headers"], scope["http_version"])
        if scope["method"] not in READS_BODY:
            await _check_unused_body(receive)
    except Problem as problem:
        problem.headers = (*problem.headers, (b"connection", b"close"))
        return problem
    return None


def _check_headers(headers: list[tuple[bytes, bytes]], version: str) -> None:
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        raise Malformed("there is more than one Host header")
    if version == "1.1" and not (hosts and hosts[0]):
        raise Malformed("an HTTP/1.1 request needs a Host header")
    for host in hosts:
        check_authority(host)
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        check_codings(codings)


async def _check_unused_body(receive: Receive) -> None:
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Malformed("the body ended early")
                size += len(message.get("body", b"")) + PART_COST
                if size > UNUSED_BODY:
                    raise unused_body_too_large()
                more = message.get("more_body", False)
    except TimeoutError:
        raise body_too_slow() from None


def unused_body_too_large() -> TooLarge:
    """Return the error of a body without a meaning above UNUSED_BODY bytes."""
    return TooLarge(f"an unused body may have at most {UNUSED_BODY} bytes")


def body_too_slow() -> TooSlow:
    """Return the error of a body that takes longer than BODY_SECONDS."""
    return TooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} s")


@lru_cache(256)
def check_authority(authority: bytes) -> None:
    """Check a host with an optional port (RFC 3986, 3.2), without a user (RFC 9110, 4.2.4).

    Raises:
        Malformed: it is not `name` or `name:port`.
    """
    found = _AUTHORITY.fullmatch(authority) if len(authority) <= 1_024 else None
    if found is None or int(found[2] or 0) > 65_535:
        raise Malformed("the host is not `name` or `name:port`")
    if found[1] is not None:
        try:
            ipaddress.IPv6Address(found[1].decode("ascii"))
        except ValueError:
            raise Malformed("the host in brackets is not an IPv6 address") from None


def check_codings(values: list[bytes]) -> None:
    """Check that Transfer-Encoding is a single `chunked`: no other coding delimits the body.

    Raises:
        Problem: 400; 501 for other codings before `chunked` (RFC 9112, 6.1 and 6.3).
    """
    if len(values) == 1 and values[0].lower() == b"chunked":
        return
    codings = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
    *others, last = codings
    if last != b"chunked" or b"chunked" in others or b"" in others:
        raise Malformed(
            "the last transfer coding of a request must be `chunked`, and only the last"
        )
    raise NotImplementedHere("the only transfer coding supported is `chunked`")
