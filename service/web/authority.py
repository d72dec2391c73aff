"""The host that a request is for: `name` or `name:port` (RFC 3986, 3.2; RFC 9112, 3.2)."""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from service.errors import Malformed

# No comma, though a name may hold one: two Host headers that a proxy has made one look like that.
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::([0-9]{0,5}))?"
)


def check_host(headers: Iterable[tuple[bytes, bytes]], version: str) -> None:
    """Refuse a request that has no Host, more than one, or one that is none.

    Our own HTTP/1.1 has done so before; other servers leave it to the application.

    Raises:
        Malformed: why.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        raise Malformed("there is more than one Host header")
    if hosts:
        check_authority(hosts[0])
    elif version == "1.1":
        raise Malformed("an HTTP/1.1 request needs a Host header")


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
