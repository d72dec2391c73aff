"""Decoders for the parts of a body: objects, lists and scalars, each in short steps."""

from collections.abc import Callable, Generator
from contextlib import suppress
from decimal import Decimal
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, structs

from service.errors import FieldError
from service.web.codec import MAX_ERRORS, blamed, decimal, parse_number, words_of
from service.web.normalization import Normalized, check, structs_of

# Bytes of a body that is decoded in one call: at worst 4 ms, for a repeated price.
AT_ONCE = 16_384
# Bytes and values to decode before the event loop may run other tasks.
STEP_BYTES, STEP_VALUES = 16_384, 50
# Digits of a number: a million take 14 ms, and no field allows so many.
DIGITS = 10_000
# Largest power of ten of a number that is converted to an integer.
LARGEST = 400

ABSENT = Raw(b"")
# At each `yield` the caller may let the event loop run other tasks.
Steps = Generator[None, None, Any]

_text = msgspec.json.Decoder(str).decode
_OTHERS: dict[bytes, object] = {b"[": [], b"{": {}, b"t": True, b"f": False, b"n": None}


class Direct:
    """Decodes a short body into a Struct in one call."""

    def __init__(self, struct: type[Struct]) -> None:
        self.struct = struct
        self._decode = msgspec.json.Decoder(
            struct, dec_hook=parse_number, float_hook=decimal
        ).decode
        self._normalized = Normalized(struct)

    def quick(self, data: bytes) -> Any:
        """Return the Struct if the body is short and valid, else None."""
        if len(data) > AT_ONCE:
            return None
        try:
            if not data.isascii():
                data.decode()  # msgspec does not check UTF-8 in fields that it skips
            value = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return value if self._normalized.are_normal(value) else self._stripped(value)

    def _stripped(self, value: Any) -> Any:
        """Return the Struct with stripped strings; None if it is invalid then."""
        values = {}
        for name in self.struct.__struct_fields__:
            one = getattr(value, name)
            if isinstance(one, str):
                if "\0" in one:
                    return None
                values[name] = one.strip()
            elif one is not UNSET:
                if isinstance(one, list | Struct):
                    return None
                values[name] = one
        try:
            stripped = msgspec.convert(values, self.struct, dec_hook=parse_number)
        except msgspec.ValidationError:
            return None
        return stripped if self._normalized.are_normal(stripped) else None


class Fields:
    """Decodes an object: split it into raw fields, then decode each field."""

    def __init__(self, struct: type[Struct]) -> None:
        self.struct = struct
        hints = get_type_hints(struct, include_extras=True)
        self._readers = {name: _reader(kind) for name, kind in hints.items()}
        self._flat = all(isinstance(reader, Scalar) for reader in self._readers.values())
        self._normalized = Normalized(struct)
        self._required = {one.name for one in structs.fields(struct) if one.required}
        split = msgspec.defstruct(struct.__name__, [(name, Raw, ABSENT) for name in hints])
        self._split = msgspec.json.Decoder(split).decode

    def is_wrong(self, data: bytes) -> bool:
        """Return whether a quick check finds an error; see Body.is_wrong."""
        raws = self._raws(data)
        return not self._required <= raws.keys() or (self._flat and self._together(raws) is None)

    def _raws(self, data: bytes) -> dict[str, bytes]:
        parts = self._split(data)
        return {
            name: bytes(raw)
            for name in self._readers
            if (raw := getattr(parts, name)) is not ABSENT
        }

    def _together(self, raws: dict[str, bytes]) -> Struct | None:
        """Return the Struct if all fields are valid, else None; faster than field by field."""
        try:
            values = {name: _value(raw) for name, raw in raws.items()}
            value = msgspec.convert(values, self.struct, dec_hook=parse_number)
        except (msgspec.ValidationError, ValueError):
            return None
        return value if self._normalized.are_normal(value) else None

    def read(self, data: bytes, path: str, errors: list[FieldError]) -> Steps:
        """Return the Struct; append at most MAX_ERRORS errors."""
        raws = self._raws(data)
        if len(data) > STEP_BYTES:
            yield
        if self._flat and (value := self._together(raws)) is not None:
            return value
        before = len(errors)
        values = {}
        for name, reader in self._readers.items():
            place = f"{path}{name}"
            if name not in raws:
                if name in self._required:
                    errors.append(FieldError(place, "required, but missing"))
            elif isinstance(reader, Scalar):
                values[name] = reader.value(raws[name], place, errors)
            else:
                values[name] = yield from reader.read(raws[name], place, errors)
        return self.struct(**values) if len(errors) == before else None


class Scalar:
    """Decodes a string, number, boolean or null, and types that are encoded as one."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.words = words_of(kind)
        self.whole = int in _plain(kind)

    def value(self, raw: bytes, path: str, errors: list[FieldError]) -> Any:
        """Return the value; append its error, if it has one."""
        try:
            value = _value(raw)
            if self.whole and isinstance(value, Decimal):
                value = _integer(value)
            converted = msgspec.convert(value, self.kind, dec_hook=parse_number)
            check(converted)
            return converted
        except msgspec.ValidationError as error:
            errors.append(FieldError(path, blamed(error, self.words)))
        except ValueError as error:
            errors.append(FieldError(path, str(error)))


class Object:
    """Decodes a nested object."""

    def __init__(self, kind: Any, struct: type[Struct]) -> None:
        self.other = Scalar(kind)
        self.direct = Direct(struct)
        self.fields = Fields(struct)

    def read(self, raw: bytes, path: str, errors: list[FieldError]) -> Steps:
        if not raw.startswith(b"{"):
            return self.other.value(raw, path, errors)
        value = self.direct.quick(raw)
        if value is not None:
            return value
        return (yield from self.fields.read(raw, f"{path}.", errors))


class Array:
    """Decodes a list. Elements beyond `max_length` are skipped without building them."""

    def __init__(self, kind: Any) -> None:
        self.other = Scalar(kind)
        given = _list_in(kind)
        (item,) = get_args(_without_metas(given))
        self.item = _reader(item)
        metas = [part for part in get_args(given) if isinstance(part, Meta)]
        limits = [meta.max_length for meta in metas if meta.max_length is not None]
        if not limits:
            raise TypeError(f"a list in a body needs a max_length: {kind}")
        self.most = min(limits)
        self.length: Any = Annotated[(list[Any], *metas)]

    def read(self, raw: bytes, path: str, errors: list[FieldError]) -> Steps:
        if not raw.startswith(b"["):
            return self.other.value(raw, path, errors)
        found = structs.astuple(_first(self.most + 1)(raw))
        parts = [bytes(part) for part in found if part is not ABSENT]
        try:
            msgspec.convert([None] * len(parts), self.length)
        except msgspec.ValidationError as error:
            errors.append(FieldError(path, blamed(error)))
            return None
        values = []
        size = 0
        for n, part in enumerate(parts):
            place = f"{path}[{n}]"
            if isinstance(self.item, Scalar):
                values.append(self.item.value(part, place, errors))
            else:
                values.append((yield from self.item.read(part, place, errors)))
            size += len(part)
            if size >= STEP_BYTES or n % STEP_VALUES == 0:
                size = 0
                yield
            if len(errors) >= MAX_ERRORS:
                return None
        return values


@cache
def _first(count: int) -> Callable[[bytes], Struct]:
    """Return what splits an array into its first elements, and skips the others.

    It is made at its first use: for 1,001 elements that takes 10 ms and 0.3 MiB.
    """
    # An array-like Struct decodes as many elements as it has fields.
    some = [(f"n{n}", Raw, ABSENT) for n in range(count)]
    return msgspec.json.Decoder(msgspec.defstruct("First", some, array_like=True)).decode


def _reader(kind: Any) -> Scalar | Object | Array:
    if _list_in(kind) is not None:
        return Array(kind)
    if nested := structs_of(kind):
        return Object(kind, nested[0])
    empty_values: tuple[object, ...] = ([], {})
    for empty in empty_values:
        with suppress(msgspec.ValidationError):
            msgspec.convert(empty, kind, dec_hook=parse_number)
            raise TypeError(f"a body can't be read into this in bounded time: {kind}")
    return Scalar(kind)


def _plain(kind: Any) -> list[Any]:
    """Return the types of a union, or the type itself, without Annotated."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    return [plain for part in get_args(kind) for plain in _plain(part)] or [kind]


def _list_in(kind: Any) -> Any:
    """Return the list of a type that is one, or one or null; else None."""
    parts = get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)
    return next((part for part in parts if get_origin(_without_metas(part)) is list), None)


def _without_metas(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _value(raw: bytes) -> object:
    """Decode a string, number, boolean or null; a list or an object becomes an empty one.

    Raises:
        ValueError: no field can store the value.
    """
    first = raw[:1]
    if first == b'"':
        text = _text(raw)
        if "\0" in text:
            raise ValueError("holds a NUL character or a lone surrogate")
        return text.strip()
    if first in _OTHERS:
        return _OTHERS[first]
    if raw.lstrip(b"-").isdigit():
        return int(raw[:100])  # 100 digits are out of every range; int() of more is slow
    if len(raw) > DIGITS:
        raise ValueError(f"a number of more than {DIGITS} digits")
    return decimal(raw.decode())


def _integer(value: Decimal) -> int | Decimal:
    """Convert a number such as 1.0 or 1e2 to an integer (as JSON Schema); keep others.

    Raises:
        ValueError: the number is out of every range; conversion would be slow.
    """
    if not value.is_finite() or value.adjusted() > LARGEST:
        raise ValueError("the number is out of range")
    whole = int(value)
    return whole if whole == value else value
