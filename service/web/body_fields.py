"""What bodies are made of: objects, lists and single values, each read in short steps."""

from collections.abc import Generator
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, structs

from service.errors import FieldError
from service.web.codec import MAX_ERRORS, blamed, decimal, parse_number, words_of
from service.web.normalization import Normalized, check, structs_of

# A body up to this size is read in one piece: at worst, a price given again and again, 4 ms.
AT_ONCE = 16_384
# Bytes and values that are read before others have their turn.
STEP_BYTES, STEP_VALUES = 16_384, 50
# Digits of a number: a million of them take 14 ms, and no field takes so many.
DIGITS = 10_000
# The power of ten beyond which a number is no integer that we build.
LARGEST = 400

ABSENT = Raw(b"")
# Each `yield` is a place to let others have their turn.
Steps = Generator[None, None, Any]

_text = msgspec.json.Decoder(str).decode
_OTHERS: dict[bytes, object] = {b"[": [], b"{": {}, b"t": True, b"f": False, b"n": None}


class Direct:
    """Reads a short body into a Struct in one piece."""

    def __init__(self, struct: type[Struct]) -> None:
        self.struct = struct
        self._decode = msgspec.json.Decoder(
            struct, dec_hook=parse_number, float_hook=decimal
        ).decode
        self._normalized = Normalized(struct)

    def quick(self, data: bytes) -> Any:
        """The Struct if the body is short and everything is right, else None."""
        if len(data) > AT_ONCE:
            return None
        try:
            if not data.isascii():
                data.decode()  # msgspec does not look at what it passes over
            value = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return value if self._normalized.plain(value) else self._stripped(value)

    def _stripped(self, value: Any) -> Any:
        """The same without white space around its strings, None if something is wrong then."""
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
        return stripped if self._normalized.plain(stripped) else None


class Fields:
    """Reads an object: first it is split into its fields, then they are read one by one."""

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
        """Whether a field is; see Body.is_wrong."""
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
        """The Struct if nothing is wrong; faster than one field after the other."""
        try:
            values = {name: _value(raw) for name, raw in raws.items()}
            value = msgspec.convert(values, self.struct, dec_hook=parse_number)
        except (msgspec.ValidationError, ValueError):
            return None
        return value if self._normalized.plain(value) else None

    def read(self, data: bytes, path: str, errors: list[FieldError]) -> Steps:
        """The Struct; what is wrong is added to the errors, up to MAX_ERRORS of them."""
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
    """Reads a text, a number, a boolean or null, and types that are made of one."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.words = words_of(kind)
        self.whole = int in _plain(kind)

    def value(self, raw: bytes, path: str, errors: list[FieldError]) -> Any:
        """The value; what is wrong with it is added to the errors."""
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
    """Reads an object within another."""

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
    """Reads a list. Of one that is too long, the rest is passed over without building it."""

    def __init__(self, kind: Any) -> None:
        self.other = Scalar(kind)
        (item,) = get_args(_without_metas(kind))
        self.item = _reader(item)
        metas = [part for part in get_args(kind) if isinstance(part, Meta)]
        limits = [meta.max_length for meta in metas if meta.max_length is not None]
        if not limits:
            raise TypeError(f"a list in a body needs a max_length: {kind}")
        # Of an array, such a Struct takes as many elements as it has fields.
        some = [(f"n{n}", Raw, ABSENT) for n in range(min(limits) + 1)]
        first = msgspec.defstruct("First", some, array_like=True)
        self.split = msgspec.json.Decoder(first).decode
        self.length: Any = Annotated[(list[Any], *metas)]

    def read(self, raw: bytes, path: str, errors: list[FieldError]) -> Steps:
        if not raw.startswith(b"["):
            return self.other.value(raw, path, errors)
        parts = [bytes(part) for part in structs.astuple(self.split(raw)) if part is not ABSENT]
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


def _reader(kind: Any) -> Scalar | Object | Array:
    if get_origin(_without_metas(kind)) is list:
        return Array(kind)
    if within := structs_of(kind):
        return Object(kind, within[0])
    empty: tuple[object, ...] = ([], {})
    for nothing in empty:
        with suppress(msgspec.ValidationError):
            msgspec.convert(nothing, kind, dec_hook=parse_number)
            raise TypeError(f"a body can't be read into this in bounded time: {kind}")
    return Scalar(kind)


def _plain(kind: Any) -> list[Any]:
    """The types that a kind is, or that it is one of."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    return [plain for part in get_args(kind) for plain in _plain(part)] or [kind]


def _without_metas(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _value(raw: bytes) -> object:
    """A text, a number, a boolean or null; of a list and an object only what it is.

    Raises:
        ValueError: one that no field can hold.
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
        return int(raw[:100])  # beyond every range with more: int() is slow, then refuses
    if len(raw) > DIGITS:
        raise ValueError(f"a number of more than {DIGITS} digits")
    return decimal(raw.decode())


def _integer(value: Decimal) -> int | Decimal:
    """The integer that a number such as 1.0 or 1e2 is (as in JSON Schema), else the number.

    Raises:
        ValueError: it is beyond every range, and would be slow as an int.
    """
    if not value.is_finite() or value.adjusted() > LARGEST:
        raise ValueError("the number is out of range")
    whole = int(value)
    return whole if whole == value else value
