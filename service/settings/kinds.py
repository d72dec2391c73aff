"""The types of settings, with the allowed values."""

from typing import Annotated, Any, Literal, get_args, get_origin

from msgspec import Meta

# The allowed values of each type: msgspec checks them, errors and the reference quote them.
Port = Annotated[int, Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Count = Annotated[int, Meta(ge=1, le=1024, description="a whole number from 1 to 1024")]
Bytes = Annotated[int, Meta(ge=1, le=2**40, description="a whole number of bytes, at least 1")]
Queue = Annotated[int, Meta(ge=0, le=10**6, description="a whole number from 0 to 1000000")]
Milliseconds = Annotated[
    int, Meta(ge=1, le=3_600_000, description="a whole number of milliseconds, 1 to 3600000")
]
SwitchOrFolder = Annotated[
    str, Meta(pattern=r"^(on|off|/.+)\Z", description="on, off or the absolute path of a folder")
]
Statements = Annotated[
    str,
    Meta(
        pattern=r"^(on|off|([^,*+\s]+\+values|[^,+\s]+)(,([^,*+\s]+\+values|[^,+\s]+))*)\Z",
        description="on, off, or names of statements with commas between them",
    ),
]
Text = Annotated[str, Meta(min_length=1, description="text, not empty")]
# Marks the type of a secret value, in its Meta.
HIDDEN = {"hidden": True}
Secret = Annotated[str, Meta(min_length=16, description="at least 16 characters", extra=HIDDEN)]
DatabaseURL = Annotated[
    str,
    Meta(
        pattern=r"^postgres(ql)?://",
        description="postgresql://user:pass@host:port/db",
        extra=HIDDEN,
    ),
]
Seconds = Annotated[int, Meta(ge=1, le=86_400, description="a whole number of seconds, 1 to 86400")]
# As limits.policy parses it; [0-9], since \d would also match other digits.
Rate = Annotated[
    str,
    Meta(
        pattern=r"^(off|[1-9][0-9]{0,8}/([1-9][0-9]{0,4}s|[1-9][0-9]{0,3}m|[1-9][0-9]{0,2}h"
        r"|[1-9][0-9]?d|[smhd]))\Z",
        description="100/60s, 10/s, 5/m, 1000/h or off",
    ),
]
Age = Annotated[
    str,
    Meta(
        pattern=r"^([1-9][0-9]{1,6}s|[1-9][0-9]{0,5}m|[1-9][0-9]{0,3}h|[1-9][0-9]{0,2}d)\Z",
        description="10s, 30m, 24h or 7d",
    ),
]
Networks = Annotated[
    str, Meta(min_length=1, description="networks and addresses with commas between them, or unix")
]
AppName = Annotated[
    str, Meta(pattern=r"^[^:]+:[^:]+$", description="MODULE:NAME, such as service.asgi:app")
]
RedisURL = Annotated[
    str,
    Meta(
        pattern=r"^((redis|rediss|unix|redis\+cluster|redis\+sentinel)://.+|off)$",
        description="redis://, rediss://, unix://, redis+cluster://, redis+sentinel:// or off",
        extra=HIDDEN,
    ),
]

# Hidden: it may have a password, or a token in its path.
TargetURL = Annotated[
    str,
    Meta(pattern=r"^https?://", description="http://host/path or https://host/path", extra=HIDDEN),
]

# Seconds of a unit.
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def describe(kind: Any) -> str:
    """Return the allowed values of a type: the description of its Meta, or the literals."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        told = (str(meta.description) for meta in arguments[1:] if meta.description)
        return next(told, None) or describe(arguments[0])
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if not arguments:
        return KINDS.get(kind, str(kind))
    return " or ".join(describe(part) for part in arguments if part is not type(None))


def is_hidden(kind: Any) -> bool:
    """Return whether values of a type are secret: a secret, or a URL with a password."""
    if get_origin(kind) is Annotated:
        return any((meta.extra or {}).get("hidden") for meta in get_args(kind)[1:])
    return any(is_hidden(part) for part in get_args(kind))
