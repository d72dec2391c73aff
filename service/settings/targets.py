"""What the service posts to: the URL of a receiver, and the networks of SERVICE_PRIVATE_TARGETS."""

import ipaddress
import re

from service.settings.proxies import Address, Network, ProxiesError, parse_proxies
from service.settings.urls import ENCODE, URLError, check_port, split_url

__all__ = ["Address", "Network", "TargetsError", "check_target_url", "parse_targets"]


class TargetsError(Exception):
    """The list is wrong; the message says how to write it."""


def parse_targets(text: str | None) -> tuple[Network, ...]:
    """Return the networks of a list like `10.0.0.0/8, fd00::/8`.

    Raises:
        TargetsError: an entry is not a network.
    """
    try:
        networks, unix = parse_proxies(text)
    except ProxiesError:
        unix = True
    if unix:
        raise TargetsError("write networks or addresses, such as 10.0.0.0/8,192.168.1.5")
    return networks


def check_target_url(url: str) -> None:
    """Accept a URL that every program reads in the same way.

    Raises:
        URLError: the URL is wrong.
    """
    parts = split_url(url)
    if parts.scheme not in {"http", "https"} or "\\" in url:
        raise URLError("write http://host/path or https://host/path")
    login, _, place = parts.netloc.rpartition("@")
    if "@" in login:
        raise URLError(f"there are two @; {ENCODE}")
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:,%]+)(?::([^:]*))?", place)
    if found is None:
        raise URLError(f"the host can't be read; {ENCODE}")
    host, port = found.groups()
    if port is not None:
        check_port(port)
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        # A browser reads 127.1, 0x7f.1 and 2130706433 as 127.0.0.1, others as a name.
        last = host.removesuffix(".").rpartition(".")[2].lower()
        if host.startswith("[") or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
            raise URLError("write the address as 192.0.2.1 or [2001:db8::1]") from None
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", host):
            raise URLError("write the host in ASCII, a name in other letters as xn--…") from None
