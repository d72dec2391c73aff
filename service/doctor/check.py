"""A check of `swiftlet doctor`, and what it finds."""

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

from service.doctor.subject import Subject

State = Literal["ok", "warn", "fail", "skip"]
# Seconds for one check, so that a store that hangs is a line and not a command that hangs.
SECONDS = 5.0


class Finding(NamedTuple):
    """What a check found.

    Args:
        state: `ok`; `warn`, the service works, but not as well as it could; `fail`, it does not
            work, or may lose data; `skip`, it could not be checked.
        found: what was found, in one line.
        advice: what to do about it; only for `warn` and `fail`.
    """

    state: State
    found: str
    advice: str = ""


class Check(NamedTuple):
    """A check; the docstring of its function is its description in docs/reference/doctor.md.

    Args:
        name: one word, or several with hyphens.
        examine: finds out; it may raise Skipped.
        store: the store whose connection it uses. If the check does not end in time, this
            connection is closed, and later checks of the store are skipped.
        seconds: the time after which it is given up.
    """

    name: str
    examine: Callable[[Subject], Awaitable[Finding]]
    store: Literal["database", "redis"] | None = None
    seconds: float = SECONDS

    @property
    def description(self) -> str:
        """What it checks, and when it warns or fails."""
        return " ".join((self.examine.__doc__ or "").split())


def ok(found: str) -> Finding:
    return Finding("ok", found)


def warn(found: str, advice: str) -> Finding:
    return Finding("warn", found, advice)


def fail(found: str, advice: str) -> Finding:
    return Finding("fail", found, advice)


def skip(why: str) -> Finding:
    return Finding("skip", why)
