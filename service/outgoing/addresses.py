"""The addresses to which the service may connect.

An operator writes the URL, so an address in it is meant. A name may belong to others, whose DNS
could lead the service to a machine that only this network reaches, or to the metadata of a cloud.
So the addresses of a name must be public, unless SERVICE_PRIVATE_TARGETS has them.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from service.settings.targets import Address, Network

# What an operator may mean by an address: this machine, a private network, a carrier's network.
PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "::1/128",
            "fc00::/7",
        ),
    )
)
# The metadata of a cloud's machine, with its credentials, where it is not link-local as most are.
# Some of these addresses count as public, or as private.
METADATA = tuple(
    map(
        ipaddress.ip_network,
        ("fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
    )
)
# Addresses with an IPv4 address in their last 32 bits: of NAT64 (RFC 6052), and of an old form.
IPV4_INSIDE = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
# All public addresses of IPv6 are in it.
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def literal(host: str) -> Address | None:
    """Return the address that a host is; None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_explicit(host: str) -> bool:
    """Whether a host says where it is: an address, or `localhost`."""
    return literal(host) is not None or host.lower().removesuffix(".") == "localhost"


def allowed_of(host: str, addresses: Iterable[object], allowed: Sequence[Network]) -> list[Address]:
    """Return the addresses of a host to which the service may connect, see `is_allowed`."""
    found = [one for text in addresses if (one := literal(str(text))) is not None]
    return [one for one in found if is_allowed(one, allowed, explicit=is_explicit(host))]


def is_allowed(address: Address, allowed: Sequence[Network], *, explicit: bool) -> bool:
    """Whether the service may connect to an address.

    Args:
        address: of the target.
        allowed: the networks of SERVICE_PRIVATE_TARGETS.
        explicit: whether the URL has the address itself, see `is_explicit`.
    """
    if _is_in(address, allowed):
        return True
    inner = _unwrapped(address)
    if _is_in(inner, allowed):
        return True
    if _is_in(inner, METADATA):
        return False
    return _is_public(inner) or (explicit and _is_in(inner, PRIVATE))


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast:
        return False
    return address.version == 4 or address in GLOBAL_UNICAST


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address to which a network may translate an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if _is_in(address, IPV4_INSIDE):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)
