"""The address of a client, also behind proxies.

Any client can send X-Forwarded-For and Forwarded, so only what trusted proxies have written in them
counts. A proxy adds its peer at the right. So the addresses are read from the right, and the first
one that is no trusted proxy is the client. What is on its left, the client may have written.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from service.settings.proxies import UNIX, Address, Proxies

# How many peers are remembered; then all are forgotten, which costs each one some microseconds.
REMEMBERED = 10_000
# An element of Forwarded (RFC 7239, 4): pairs of a name and a token or a quoted string. A quoted
# comma ends the element here too: then it is malformed, which is safe.
_VALUE = rb'(?:[!#$%&\'*+.^_`|~\w-]+|"(?:[^"\\]|\\.)*")'
_PAIR = re.compile(rb"[ \t]*([!#$%&'*+.^_`|~\w-]+)=(" + _VALUE + rb")[ \t]*")
# An address, maybe with a port, in both headers; an IPv6 address with a port is in brackets.
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")


class Addresses:
    """Finds the address that a request is counted under.

    Args:
        proxies: whose headers are believed.
    """

    def __init__(self, proxies: Proxies) -> None:
        self.proxies = proxies
        self._peers: dict[str, str] = {}

    def identity(self, scope: Any) -> str:
        """The client as an identity: an IPv4 address, the /64 of an IPv6 address, or `unix`.

        A host or a site usually has a /64, and can use any address in it. `unix` is every client
        on a unix socket, which has no addresses.
        """
        client = scope.get("client")
        host = client[0] if client else ""
        if not self.proxies:
            found = self._peers.get(host)
            if found is None:
                if len(self._peers) >= REMEMBERED:
                    self._peers.clear()
                found = self._peers[host] = _name(_address(host))
            return found
        return _name(self._client(host, scope["headers"]))

    def _client(self, host: str, headers: list[tuple[bytes, bytes]]) -> Address | None:
        """The address of the client; None on a unix socket."""
        peer = _address(host)
        if not (self.proxies.unix if peer is None else self.proxies.trust(peer)):
            return peer
        by_x = self._walk(peer, headers, b"x-forwarded-for")
        by_rfc = self._walk(peer, headers, b"forwarded")
        # If a proxy writes one of the headers and passes on the other, the client has written that
        # one. We can't know which, so they must agree.
        if by_x is None or by_rfc is None:
            found = by_x or by_rfc
            return peer if found is None else found[0]
        return by_x[0] if by_x == by_rfc else peer

    def _walk(
        self, peer: Address | None, headers: list[tuple[bytes, bytes]], name: bytes
    ) -> tuple[Address | None] | None:
        """The first address from the right that is no proxy; None without the header.

        A malformed entry ends the list: the address on its right is the last one that is known.
        """
        values = [value for one, value in headers if one == name]
        if not values:
            return None
        found = peer
        read = _forwarded if name == b"forwarded" else _node
        for entry in _from_right(values):
            address = read(entry)
            if address is None:
                break
            found = address
            if not self.proxies.trust(address):
                break
        return (found,)


def _from_right(values: list[bytes]) -> Iterator[bytes]:
    for value in reversed(values):
        rest = value
        while True:
            rest, comma, entry = rest.rpartition(b",")
            yield entry.strip(b" \t")
            if not comma:
                break


def _forwarded(element: bytes) -> Address | None:
    """The address after `for=` in an element of Forwarded."""
    found = None
    for pair in element.split(b";"):
        match = _PAIR.fullmatch(pair)
        if match is None:
            return None
        if match[1].lower() == b"for":
            if found is not None:
                return None
            found = match[2].strip(b'"')
    return None if found is None else _node(found)


def _node(text: bytes) -> Address | None:
    """An address from a header, without its port; None if it is none, as `unknown`."""
    found = _NODE.fullmatch(text.decode("latin-1"))
    return None if found is None else _address(found[1] or found[2] or found[3])


def _address(host: str) -> Address | None:
    """An address; IPv4 in an IPv6 address is IPv4, and a zone (`%eth0`) is left out."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _name(address: Address | None) -> str:
    if address is None:
        return UNIX
    if isinstance(address, ipaddress.IPv6Address):
        return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
