"""What tells where a request ends and for which host it is, and must be right on every server."""

import asyncio
import ipaddress
import re
from functools import lru_cache

from starlette.types import Receive, Scope

from service.errors import Malformed, NotImplementedHere, Problem, TooLarge, TooSlow
from service.web.request import BODY_SECONDS

# Other methods give a body no meaning (RFC 9110, 9.3). Such a request is not executed before its
# body has come and is known to be well framed; of these the handler reads the body, to its end.
READS_BODY = frozenset({"POST", "PUT", "PATCH"})
# What a body without a meaning may have, in bytes; and how many of them each part counts for that
# another server hands over, which may be a single byte in 110 us.
UNUSED_BODY, PART_COST = 65_536, 16
# No comma, though a name may hold one: two Host headers that a proxy has made one look like that.
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::([0-9]{0,5}))?"
)


async def framing_problem(scope: Scope, receive: Receive) -> Problem | None:
    """What is wrong with a request that another server than ours has let pass, if anything.

    Our own HTTP/1.1 has refused it before. granian tells no Host and an empty one alike, so both
    are refused; it leaves out Content-Length where there is a Transfer-Encoding, too.
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
                    raise TooLarge(f"a body without a use is no longer than {UNUSED_BODY} bytes")
                more = message.get("more_body", False)
    except TimeoutError:
        raise TooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} s") from None


@lru_cache(256)
def check_authority(authority: bytes) -> None:
    """Refuse what is no host with or without a port (RFC 3986, 3.2; RFC 9110, 4.2.4: no user).

    Raises:
        Malformed: why.
    """
    found = _AUTHORITY.fullmatch(authority) if len(authority) <= 1_024 else None
    if found is None or int(found[2] or 0) > 65_535:
        raise Malformed("the host is not `name` or `name:port`")
    if found[1] is not None:
        try:
            ipaddress.IPv6Address(found[1].decode("ascii"))
        except ValueError:
            raise Malformed("the host in brackets is no IPv6 address") from None


def check_codings(values: list[bytes]) -> None:
    """Refuse any Transfer-Encoding but `chunked`, once: it alone tells where the body ends.

    Raises:
        Problem: 400, or 501 where the end could be told (RFC 9112, 6.1 and 6.3).
    """
    if len(values) == 1 and values[0].lower() == b"chunked":
        return
    codings = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
    *others, last = codings
    if last != b"chunked" or b"chunked" in others or b"" in others:
        raise Malformed(
            "the last transfer coding of a request must be `chunked`, and only the last"
        )
    raise NotImplementedHere("of the transfer codings only `chunked` is known here")
