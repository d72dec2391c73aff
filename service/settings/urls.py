"""Check DATABASE_URL and REDIS_URL before anything connects.

The drivers find most errors too, but later, and some of their messages show a part of the password:
they parse the `se` of `postgresql://app:se/cret@host/db` as a port. No message of this module shows
a part of a URL.
"""

import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, parse_qs, parse_qsl, unquote, urlsplit

ENCODE = "in a name or password, write / ? # @ : % as %2F %3F %23 %40 %3A %25"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
TARGETS = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")

# The parameters of a REDIS_URL, with patterns of their values.
NUMBER, SECONDS, TEXT = r"\d{1,9}", r"\d{1,6}(\.\d+)?", r".+"
REDIS_PARAMETERS = {
    "client_name": TEXT,
    "db": NUMBER,
    "health_check_interval": NUMBER,
    "max_connections": NUMBER,
    "password": TEXT,
    "protocol": "[23]",
    "socket_connect_timeout": SECONDS,
    "socket_timeout": SECONDS,
    "username": TEXT,
}
REDIS_TLS_PARAMETERS = {
    "ssl_ca_certs": TEXT,
    "ssl_ca_path": TEXT,
    "ssl_cert_reqs": "none|optional|required",
    "ssl_certfile": TEXT,
    "ssl_check_hostname": "(?i:true|false|yes|no|on|off|0|1)",
    "ssl_keyfile": TEXT,
    "ssl_password": TEXT,
}


# Parameters whose values are paths.
DATABASE_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
REDIS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


class URLError(Exception):
    """A URL is wrong; the message says how to write it and has no part of the URL."""


def check_database_url(url: str) -> None:
    """Accept a URL that libpq and asyncpg parse in the same way.

    Unknown parameters are settings of the server, which checks them when we connect.

    Raises:
        URLError: the URL is wrong.
    """
    parts = split_url(url)
    login, hosts = _authority(parts)
    if "@" in parts.path or (hosts and not login and "@" in parts.query):
        # The authority ended early, at a / or ? that is probably part of the password.
        raise URLError(f"there is an @ after the host; {ENCODE}")
    if "/" in parts.path[1:]:
        raise URLError(f"there is a / in the database's name; {ENCODE}")
    given = _parameters(parts)
    _check_hosts(hosts)
    socket = given.get("host")
    if not hosts and socket is None and (":" in login or not (parts.path[1:] or given)):
        raise URLError("there is no host: postgresql://user:pass@host:port/db")
    for port in filter(None, given.get("port", "").split(",")):
        check_port(port)
    _check_files(given, DATABASE_FILES)
    for name, allowed in (("sslmode", SSL_MODES), ("target_session_attrs", TARGETS)):
        if name in given and given[name] not in allowed:
            raise URLError(f"{name} must be one of {', '.join(allowed)}")


def check_redis_url(url: str) -> None:
    """Accept a URL that `cache/client.py` supports.

    Raises:
        URLError: the URL is wrong.
    """
    if url == "off":
        return
    parts = split_url(url)
    login, hosts = _authority(parts)
    if "@" in parts.path or (hosts and not login and "@" in parts.query):
        raise URLError(f"there is an @ after the host; {ENCODE}")
    if parts.scheme == "unix":
        if hosts or len(parts.path) < 2:
            raise URLError("the path of the socket is missing: unix:///run/redis.sock")
        _check_parameters(parts, REDIS_PARAMETERS)
        return
    if parts.netloc and not hosts:
        raise URLError("there is no host after the @")
    _check_hosts(hosts, several=parts.scheme in {"redis+cluster", "redis+sentinel"})
    if parts.scheme in {"redis", "rediss"}:
        if not re.fullmatch(rf"/?|/{NUMBER}/?", parts.path):
            raise URLError("the database must be a number: redis://host:6379/0")
        tls = REDIS_TLS_PARAMETERS if parts.scheme == "rediss" else {}
        _check_parameters(parts, REDIS_PARAMETERS | tls)
        _check_files(_parameters(parts), REDIS_FILES)
        return
    if not hosts:
        raise URLError(f"there is no host: {parts.scheme}://host:port,host:port")
    if parts.scheme == "redis+cluster" and parts.path not in {"", "/"}:
        raise URLError("a cluster has no database numbers: redis+cluster://host:port,host:port")
    if parts.scheme == "redis+sentinel" and not re.fullmatch(
        rf"/?|/[^/]+(/|/{NUMBER})?", parts.path
    ):
        raise URLError("after the hosts write /name or /name/db, where db is a number")
    _check_parameters(parts, {})


def address(url: str) -> str:
    """Return hosts and path of a URL, without a password."""
    try:
        parts = urlsplit(url)
        directory = parse_qs(parts.query).get("host", [""])[0]
    except ValueError:
        return "a hidden address"
    hosts = parts.netloc.rpartition("@")[2]
    # Parts of a password without percent-encoding may be in any part.
    if "@" in parts.path + parts.query or not re.fullmatch(r"([\w.-]|\[[\w:.]+\]|:\d+|,)*", hosts):
        return "a hidden address"
    return parts.path if parts.scheme == "unix" else (hosts or directory) + parts.path


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        URLError: it has a character that URLs don't have, or that programs read differently.
    """
    if any(character.isspace() or not character.isprintable() for character in url):
        raise URLError("there is a space or a control character in it; a space is written %20")
    if re.search(r"%(?![0-9A-Fa-f]{2})", url):
        raise URLError("two hexadecimal digits must follow each %; the character % is written %25")
    try:
        decoded = unquote(url, errors="strict")
    except UnicodeDecodeError:
        raise URLError("the decoded bytes after % must be UTF-8") from None
    if "\0" in decoded:
        raise URLError("%00 is not allowed")
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may show the password
        raise URLError(f"the host can't be read; {ENCODE}") from None
    if "#" in url:
        raise URLError(f"there is a # in it; {ENCODE}")
    return parts


def _authority(parts: SplitResult) -> tuple[str, str]:
    """Return `user:password` and `host:port,host:port`."""
    login, at, hosts = parts.netloc.partition("@")
    if "@" in hosts:
        raise URLError(f"there are two @ before the database's name; {ENCODE}")
    return (login, hosts) if at else ("", login)


def _check_hosts(hosts: str, *, several: bool = True) -> None:
    if not hosts:
        return
    if not several and "," in hosts:
        raise URLError("there is more than one host; redis+cluster:// takes several")
    for place in hosts.split(","):
        found = re.fullmatch(r"(\[[^\[\]]+\]|[^\[\]:]*)(?::([^:]*))?", place)
        if found is None:
            raise URLError(
                f"the port must be a number, and an IPv6 address is written in [ ]; {ENCODE}"
            )
        host, port = found.groups()
        if not host:
            raise URLError("there is no host before a port or a comma")
        if port is not None:
            check_port(port)


def check_port(port: str) -> None:
    """Accept a port from 1 to 65535.

    Raises:
        URLError: it is another text.
    """
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) <= 65535:
        raise URLError(f"the port must be a number from 1 to 65535; {ENCODE}")


def _parameters(parts: SplitResult) -> dict[str, str]:
    if not parts.query:
        return {}
    try:
        return dict(parse_qsl(parts.query, strict_parsing=True))
    except ValueError:  # its message shows the value
        raise URLError("after ? write name=value pairs, with & between them") from None


def _check_files(given: Mapping[str, str], names: Iterable[str]) -> None:
    """Check that files exist: the drivers report a missing certificate like a missing server."""
    for name in names:
        if name in given and not os.access(given[name], os.R_OK):
            raise URLError(f"the file of {name} does not exist or can't be read")


def _check_parameters(parts: SplitResult, known: Mapping[str, str]) -> None:
    given = _parameters(parts)
    for name, value in given.items():
        if name not in known:
            allowed = f"known are {', '.join(known)}" if known else f"{parts.scheme}:// has none"
            raise URLError(f"there is an unknown parameter after ?: {allowed}")
        if not re.fullmatch(known[name], value):
            raise URLError(f"{name} has a wrong value")
