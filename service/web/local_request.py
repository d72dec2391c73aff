"""Whether a request is of a program on this machine."""

import ipaddress
import re
from functools import lru_cache

from starlette.types import Scope

# Headers of proxies: the client may be anywhere.
_FORWARDED = frozenset({b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip"})
_LOCAL_HOST = re.compile(
    rb"(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[(?:::1|::ffff:127\.[0-9.]+)\])\.?"
    rb"(?::[0-9]{0,5})?",
    re.IGNORECASE,
)


def is_local(scope: Scope) -> bool:
    """Return whether a request is of a program on this machine, as far as can be seen.

    It is not if a proxy has passed it on, or if it names another host: then a browser may have been
    led here by a page of that host.
    """
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    proxied = any(
        name in _FORWARDED or name.startswith(b"x-forwarded-") for name, _ in scope["headers"]
    )
    named = all(_LOCAL_HOST.fullmatch(host.strip()) for host in hosts)
    return is_on_loopback(scope) and named and not proxied


def is_on_loopback(scope: Scope) -> bool:
    """Return whether a request has come to a loopback address, and from one."""
    return _is_loopback(scope.get("server")) and _is_loopback(scope.get("client"))


def _is_loopback(place: object) -> bool:
    """Return whether a `server` or `client` of ASGI is a loopback address; False if unknown."""
    return isinstance(place, tuple | list) and bool(place) and _is_loopback_host(place[0])


@lru_cache(1024)
def _is_loopback_host(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
