"""Values of the right type that must be changed, or that PostgreSQL can't hold."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, get_args, get_type_hints

from msgspec import Struct

# Of a plain Decimal, before and behind the point: what PostgreSQL's numeric(p, s) can declare.
# Beyond 131,072 asyncpg writes another number.
DECIMAL_DIGITS = 1000


class Normalized:
    """The fields of a Struct, and of the Structs within it, whose values need a look.

    Strings, also those in a list, must be stripped and without NUL; see also `check`.
    """

    def __init__(self, struct: type[Struct]) -> None:
        hints = get_type_hints(struct)
        self._names = tuple(name for name, kind in hints.items() if str in (kind, *get_args(kind)))
        self._checked = checked_fields(hints)
        self._lists = tuple(
            name for name, kind in hints.items() if list[str] in (kind, *get_args(kind))
        )
        self._nested = tuple(
            (name, Normalized(part)) for name, kind in hints.items() for part in structs_of(kind)
        )

    def are_normal(self, value: Struct) -> bool:
        """Return whether every string is stripped and has no NUL."""
        for name in self._names:
            text = getattr(value, name)
            if isinstance(text, str) and (text.strip() != text or "\0" in text):
                return False
        for name in self._checked:
            try:
                check(getattr(value, name))
            except ValueError:
                return False
        for name in self._lists:
            texts = getattr(value, name)
            if isinstance(texts, list) and any(
                text.strip() != text or "\0" in text for text in texts
            ):
                return False
        for name, normalized in self._nested:
            part = getattr(value, name)
            for one in part if isinstance(part, list) else (part,):
                if not normalized.are_normal(one):
                    return False
        return True


def structs_of(kind: Any) -> list[type[Struct]]:
    """Return the Struct of a field, or of the elements of its list; else an empty list."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return [kind]
    return [struct for part in get_args(kind) for struct in structs_of(part)]


def checked_fields(hints: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields whose values need a `check`, from the type of each."""
    checked = {Decimal, datetime}
    return tuple(name for name, kind in hints.items() if checked & {kind, *get_args(kind)})


def check(value: object) -> None:
    """Refuse a value that PostgreSQL can't hold, or that JSON can't show.

    Raises:
        ValueError: says what is wrong.
    """
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("must be a finite number")
        exponent = value.as_tuple().exponent
        if value.adjusted() >= DECIMAL_DIGITS or int(exponent) < -DECIMAL_DIGITS:
            raise ValueError(f"has more than {DECIMAL_DIGITS} digits before or behind the point")
    elif isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("has no time zone: end it with Z, or an offset as +02:00")
        try:
            value.astimezone(UTC)
        except OverflowError:
            raise ValueError("is out of range in UTC") from None
