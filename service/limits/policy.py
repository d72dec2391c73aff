"""Policies: so many requests in so many seconds; and the verdict on one request."""

import re
from collections.abc import Iterable

from msgspec import Struct

# The names of the policies in the settings.
DEFAULT, WRITES = "default", "writes"
OFF = "off"
READS = frozenset({"GET", "HEAD", "OPTIONS"})
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# As settings.Rate, so a value of the settings never fails here.
_RATE = re.compile(
    r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4}(?=s)|[1-9][0-9]{0,3}(?=m)|[1-9][0-9]{0,2}(?=h)"
    r"|[1-9][0-9]?(?=d)|)([smhd])"
)
ALLOWED = "100/60s, 10/s, 5/m, 1000/h or off"


class Policy(Struct, frozen=True):
    """At most `limit` requests in any `window` seconds, for each user or address.

    Args:
        name: in the response headers and in Redis.
        limit: requests.
        window: seconds.
    """

    name: str
    limit: int
    window: int

    @property
    def quoted(self) -> bytes:
        """The name as a String of RFC 9651, which is ASCII."""
        return b'"%s"' % self.name.replace("\\", r"\\").replace('"', r"\"").encode(
            "ascii", "replace"
        )

    @property
    def header(self) -> bytes:
        """The value of RateLimit-Policy."""
        return b"%s;q=%d;w=%d" % (self.quoted, self.limit, self.window)


class Verdict(Struct, frozen=True, gc=False):
    """Whether a request is allowed; it has been counted if so.

    Args:
        allowed: whether it is.
        remaining: requests that are left now; with several workers an estimate.
        reset: whole seconds, rounded up, until a further request becomes available. If the request
            is refused: a request after so many seconds is allowed, unless others come first.
        policy: the policy that it was counted under.
        prefix: the response headers before the two numbers, see `lines`.
    """

    allowed: bool
    remaining: int
    reset: int
    policy: Policy
    prefix: bytes

    @property
    def limit(self) -> int:
        """The limit of the policy, in requests."""
        return self.policy.limit

    @property
    def window(self) -> int:
        """The window of the policy, in seconds."""
        return self.policy.window

    @property
    def lines(self) -> bytes:
        """Both headers as lines of HTTP/1.1, each with its line break."""
        return b"%s;r=%d;t=%d\r\n" % (self.prefix, self.remaining, self.reset)

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """Both headers, as in draft-ietf-httpapi-ratelimit-headers."""
        rate = b"%s;r=%d;t=%d" % (self.policy.quoted, self.remaining, self.reset)
        return (b"ratelimit-policy", self.policy.header), (b"ratelimit", rate)


def prefix(policy: Policy) -> bytes:
    """Return the lines of both headers, up to the numbers; see Verdict.lines."""
    return b"ratelimit-policy: %s\r\nratelimit: %s" % (policy.header, policy.quoted)


def parse(name: str, text: str) -> Policy | None:
    """Return the policy of a value like `100/60s`; None for `off`.

    The units are s, m, h and d. The limit is at most 999,999,999, the window at most 99,999 s,
    9,999 m, 999 h or 99 d.

    Raises:
        ValueError: the value has another form.
    """
    if text == OFF:
        return None
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no rate limit: write {ALLOWED}")
    limit, count, unit = found.groups()
    return Policy(name, int(limit), int(count or 1) * _UNITS[unit])


class Policies:
    """Which policy counts a request.

    An operation with a limit of its own is counted under that policy alone, whose name is its
    method and path. Of the others, writes are counted under `writes` if it is set, else under
    `default`.

    Args:
        default: as SERVICE_RATE_LIMIT.
        writes: as SERVICE_RATE_LIMIT_WRITES.
        declared: method, path and limit of operations; `off` exempts one, None means no own limit.

    Raises:
        ValueError: a limit has a wrong form.
    """

    def __init__(
        self,
        default: str = OFF,
        writes: str = OFF,
        declared: Iterable[tuple[str, str, str | None]] = (),
    ) -> None:
        self.default = parse(DEFAULT, default)
        self.writes = parse(WRITES, writes) or self.default
        self.declared = {
            (method, path): _parse_declared(f"{method} {path}", text)
            for method, path, text in declared
            if text is not None
        }

    @property
    def all(self) -> tuple[Policy, ...]:
        """Every policy, once."""
        each = (self.default, self.writes, *self.declared.values())
        return tuple(dict.fromkeys(one for one in each if one is not None))

    def of(self, method: str, path: str = "") -> Policy | None:
        """Return the policy of a method and the path of a route; None if it has no limit."""
        declared = ("GET" if method == "HEAD" else method, path)
        if declared in self.declared:
            return self.declared[declared]
        return self.default if method in READS else self.writes


def _parse_declared(name: str, text: str) -> Policy | None:
    try:
        return parse(name, text)
    except ValueError as error:
        raise ValueError(f"the limit of {name}: {error}") from None
