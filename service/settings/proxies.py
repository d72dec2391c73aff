"""The networks of SERVICE_TRUSTED_PROXIES."""

import ipaddress
from typing import NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# In the list: a proxy that connects over a unix socket, which has no address.
UNIX = "unix"


class ProxiesError(Exception):
    """The list is wrong; the message says how to write it."""


class Proxies(NamedTuple):
    """Whom to believe what they say about the client.

    Args:
        networks: of the proxies' addresses.
        unix: whether a peer on a unix socket is a proxy.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False

    def trust(self, address: Address) -> bool:
        """Whether an address belongs to a proxy."""
        return any(address in network for network in self.networks)

    def __bool__(self) -> bool:
        return self.unix or bool(self.networks)


def parse_proxies(text: str | None) -> Proxies:
    """Return the networks of a list like `10.0.0.0/8, 2001:db8::1, unix`.

    Raises:
        ProxiesError: an entry is not a network; `*` is none, since any client could then choose
            its address.
    """
    networks: list[Network] = []
    unix = False
    for entry in (part.strip() for part in (text or "").split(",")):
        if entry == UNIX:
            unix = True
        elif entry == "*":
            raise ProxiesError("* would let every client choose its address: name the networks")
        elif entry:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                raise ProxiesError(
                    f"{entry!r} is no network: write 10.0.0.0/8, an address, or unix"
                ) from None
    return Proxies(tuple(networks), unix)
