"""Arguments of a statement from text or JSON, by PostgreSQL's names of their types."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

# Types that asyncpg binds from a Python value. The text of any other type is cast by PostgreSQL.
KINDS: dict[str, Any] = {
    "smallint": int,
    "integer": int,
    "bigint": int,
    "boolean": bool,
    "numeric": Decimal,
    "real": float,
    "double precision": float,
    "timestamp with time zone": datetime,
    "date": date,
    "uuid": UUID,
    "bytea": bytes,
    "text": str,
    "character varying": str,
}
DOCUMENTS = ("json", "jsonb")
EXAMPLES: dict[str, object] = {
    "smallint": 1,
    "integer": 1,
    "bigint": 1,
    "boolean": True,
    "numeric": Decimal(10),
    "real": 1.0,
    "double precision": 1.0,
    "timestamp with time zone": datetime(2026, 1, 1, tzinfo=UTC),
    "date": date(2026, 1, 1),
    "uuid": UUID(int=1),
    "bytea": bytes(32),
    "interval": "1 day",
    "json": "{}",
    "jsonb": "{}",
}
TEXTS = frozenset({"text", "character varying"})
# PostgreSQL's numeric has up to 131,072 digits; a Decimal may stand for billions of them.
DIGITS = 1000
NO_NUL = "PostgreSQL stores no NUL character"


def from_text(name: str, kind: str, text: str) -> object:
    """Return the value of `name=text`.

    The text of an array or a document is JSON. `null` is null, except for a text.

    Raises:
        ValueError: it is not a value of this type.
    """
    if kind in TEXTS:
        return from_json(name, kind, text)
    if text == "null":
        return None
    if kind.endswith("[]") or kind in DOCUMENTS:
        return from_json(name, kind, decoded(name, text))
    return _converted(name, kind, text, strict=False)


def from_json(name: str, kind: str, value: object) -> object:
    """Return an argument from a value of JSON.

    Raises:
        ValueError: it is not a value of this type.
    """
    return None if value is None else _converted(name, kind, value, strict=True)


def decoded(name: str, text: str) -> object:
    """Decode JSON.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return msgspec.json.decode(text.encode())
    except (ValueError, RecursionError):
        raise ValueError(f"{name} must be JSON, such as [1, 2], true or null") from None


def members(name: str, text: str) -> dict[str, object]:
    """Decode a JSON object.

    Raises:
        ValueError: it is not a JSON object.
    """
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, object])
    except (ValueError, RecursionError):
        raise ValueError(f'{name} must be a JSON object, such as {{"id": 7}}') from None


def example(kind: str, sample: object) -> object:
    """Return an argument of this type for a parameter that is not given.

    Args:
        kind: its type.
        sample: a typical value, for an array of it or of one element; it may be of another type.
    """
    inner = kind.removesuffix("[]")
    found = EXAMPLES.get(inner, "sample")
    for value in () if sample is None else (sample, [sample]):
        try:
            return msgspec.convert(value, _type(kind))
        except ValueError:
            continue
    return found if kind == inner else [found]


def shown(kind: str, value: object) -> Any:
    """Return an argument as JSON has it, such that `from_json` returns the argument."""
    if kind in DOCUMENTS and isinstance(value, str):
        return msgspec.json.decode(value)
    return msgspec.to_builtins(value)


def _type(kind: str) -> Any:
    if kind.endswith("[]"):
        inner = KINDS.get(kind[:-2], str)
        return list[inner | None]  # type: ignore[valid-type]  # a type at run time
    return KINDS.get(kind, str)


def _converted(name: str, kind: str, value: object, *, strict: bool) -> object:
    try:
        if kind in DOCUMENTS:
            found: object = msgspec.json.encode(value).decode()
            if "\\u0000" in str(found):
                raise ValueError(NO_NUL)
        elif kind in KINDS or kind.endswith("[]"):
            found = msgspec.convert(value, _type(kind), strict=strict)
        else:
            found = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for one in found if isinstance(found, list) else [found]:
            _check(one)
    except ValueError as error:
        reason = str(error).partition(" - at ")[0]
        raise ValueError(f"{name} must be {kind}: {reason}") from None
    return found


def _check(value: object) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError(NO_NUL)
        value.encode()
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > DIGITS:
        raise ValueError(f"it has more than {DIGITS} digits")
