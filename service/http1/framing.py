"""Where a request ends and which host it is for: checked alike on every server."""

import asyncio
import ipaddress
import re
from functools import lru_cache

from starlette.types import Receive, Scope

from service.errors import Malformed, NotImplementedHere, Problem, TooLarge, TooSlow

# A client that sends its body slower than this is not going to send it.
BODY_SECONDS = 10.0
# Other methods give a body no meaning (RFC 9110, 9.3). Such a request is not executed before its
# body has come and is known to be well framed; of these the handler reads the body, to its end.
READS_BODY = frozenset({"POST", "PUT", "PATCH"})
# The bytes of a body without a meaning at most; and for how many of them each part counts that
# another server passes on, because a part may be a single byte and takes 110 us.
UNUSED_BODY, PART_COST = 65_536, 16
# No comma, though a name may have one: a proxy may have joined two Host headers with it.
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::([0-9]{0,5}))?"
)


async def framing_problem(scope: Scope, receive: Receive) -> Problem | None:
    """What is wrong with a request that came through another server than ours, if anything.

    Our own HTTP/1.1 refuses such a request itself. granian does not distinguish a missing Host from
    an empty one, so both are refused; and it leaves out a Content-Length beside Transfer-Encoding.
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
    """The answer to a body without a meaning that is longer than UNUSED_BODY."""
    return TooLarge(f"a body that is not used may have {UNUSED_BODY} bytes at most")


def body_too_slow() -> TooSlow:
    """The answer to a body that takes longer than BODY_SECONDS."""
    return TooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} s")


@lru_cache(256)
def check_authority(authority: bytes) -> None:
    """Refuse what is not a host with or without a port (RFC 3986, 3.2; RFC 9110, 4.2.4: no user).

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
    """Refuse any Transfer-Encoding but a single `chunked`: no other says where the body ends.

    Raises:
        Problem: 400, or 501 where the end would be known (RFC 9112, 6.1 and 6.3).
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
