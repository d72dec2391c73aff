"""Make valid values for the fields of a Struct, from their types and rules."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from service.resource import Resource
from service.resource.fields import Field

LETTERS = "abcdefghijklmnopqrstuvwxyz"
START = datetime(2026, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)


def row(of: Resource[Any], n: int, parents: dict[str, int]) -> dict[str, Any]:
    """Return the n-th row as in JSON; its fields differ from other rows if their types allow it.

    Args:
        of: the resource.
        n: the number of the row, from 0.
        parents: the id for each reference.
    """
    return {
        name: parents[name] if name in of.references else value(field, n)
        for name, field in of.fields.items()
        if name not in of.references or name in parents
    }


def value(field: Field, n: int) -> Any:
    """Return the n-th value of a field; values of bool and Literal fields repeat."""
    if field.choices:
        return field.choices[n % len(field.choices)]
    made = _MAKERS[field.kind](field, n)
    msgspec.convert(
        Decimal(str(made)) if issubclass(field.kind, Decimal) else made,
        field.hint,
        dec_hook=lambda kind, given: kind.parse(given),
    )
    return made


def least(of: Resource[Any], n: int) -> dict[str, Any]:
    """Return the n-th row with its required fields only."""
    return {
        name: value(field, n)
        for name, field in of.fields.items()
        if field.required and name not in of.references
    }


def defaults(of: Resource[Any]) -> dict[str, Any]:
    """Return the defaults of the fields that `least` leaves out."""
    return {name: field.default for name, field in of.fields.items() if not field.required}


def upper(text: str) -> str:
    """Return the text in other case; a unique field that ignores case must refuse it."""
    return text.swapcase()


def _text(field: Field, n: int) -> str:
    """Return the example with the number in it; without an example, the field's name."""
    examples = [one for one in field.meta.examples or () if isinstance(one, str)]
    word = examples[0] if examples else field.name
    before, at, behind = word.partition("@")
    number = f"{n:04}"
    low, high = field.meta.min_length or 1, field.meta.max_length or 100
    room = high - len(number) - len(at) - len(behind)
    made = f"{before[: max(room, 0)]}{number}{at}{behind}"
    return made + "x" * (low - len(made))


def _number(field: Field, n: int) -> int:
    low = field.meta.ge if field.meta.ge is not None else (field.meta.gt or 0) + 1
    high = field.meta.le if field.meta.le is not None else field.meta.lt
    made = int(low) + n
    return made if high is None else int(low) + n % max(int(high - low), 1)


def _decimal(field: Field, n: int) -> float:
    return _number(field, n) + 0.25


def _time(_: Field, n: int) -> str:
    # Some are whole seconds: the response must have six decimals for these too.
    moment = START + timedelta(days=n, microseconds=750_000 if n % 3 == 0 else 0)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _day(_: Field, n: int) -> str:
    return (date(2026, 1, 1) + timedelta(days=n)).isoformat()


_MAKERS: dict[type, Any] = {
    str: _text,
    bool: lambda _, n: n % 3 != 0,
    int: _number,
    float: _decimal,
    Decimal: _decimal,
    datetime: _time,
    date: _day,
    UUID: lambda _, n: str(UUID(int=0x1234_5678 + n)),
}
