"""The wire: bytes of a body, a query and a path into Structs, and a Reply back into bytes."""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NoReturn,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct, structs

from service.errors import FieldError, Invalid, Malformed, NotFound
from service.web.stream import Chunks
from service.web.texts import Texts, structs_of

Value_co = TypeVar("Value_co", bound=Struct, covariant=True)

JSON = b"application/json"
# A client may keep an answer, and asks each time whether it still holds; a shared cache may not.
PRIVATE = b"private, no-cache"
Header = tuple[bytes, bytes]
ID_MAX = 2**63 - 1
# Fields that a problem names at most.
MAX_ERRORS = 100

_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
# msgspec names the place at the end of its message: pinned by tests/test_bad_input.py.
_PLACE = re.compile(r"(?P<what>.*?) - at `\$\.?(?P<field>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>\w+)`")
_PLACES = re.compile(r"\[\d+\]")

encode = msgspec.json.Encoder(decimal_format="number").encode


class Kept(Protocol):
    """Where the compressed bodies of an answer are kept, by their encoding; a dict will do."""

    def get(self, encoding: bytes, /) -> bytes | None: ...
    def __setitem__(self, encoding: bytes, body: bytes, /) -> None: ...


class Reply(Struct, frozen=True):
    """What a handler answers: `body` as it is, `headers` beside those of every answer.

    Every answer has a Cache-Control: one with data, or that tells of data, keeps the default.

    With `version`, that of the row shown, a GET is answered 304 to who has it already; the body of
    a 304 is what is not sent. An answer that is given more than once has a place in `kept`. In the
    place of a body that is made while it is sent stand its `chunks`.
    """

    body: bytes = b""
    status: int = 200
    headers: tuple[Header, ...] = ()
    content_type: bytes = JSON
    version: int | None = None
    kept: Kept | None = None
    chunks: Chunks | None = None
    cache_control: bytes = PRIVATE


class Body(Generic[Value_co]):
    """Decodes a request's body into a Struct; strings are stripped before they are checked.

    The bytes go straight into the Struct. Only when that fails, or when a string has white space
    around it, is the body read a second time by the careful way: parsed, stripped, checked.
    """

    def __init__(self, struct: type[Value_co]) -> None:
        self.struct = struct
        self._decode = msgspec.json.Decoder(
            struct, dec_hook=_parse_number, float_hook=_decimal
        ).decode
        self._texts = Texts(struct)
        self._allowed = _allowed(struct)

    def decode(self, data: bytes) -> Value_co:
        """The Struct.

        Raises:
            Malformed: not JSON.
            Invalid: JSON that breaks a rule; names the field.
        """
        try:
            value = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._carefully(data)
        return value if self._texts.plain(value) else self._carefully(data)

    def _carefully(self, data: bytes) -> Value_co:
        # The standard parser: unlike msgspec's it takes lone surrogates, which are JSON, so that
        # the field can be named; and it says where a body stops being JSON.
        try:
            parsed = json.loads(
                data.decode(),
                parse_int=_whole,
                parse_float=_decimal,
                parse_constant=_no_constant,
            )
        except UnicodeDecodeError as error:
            raise Malformed(f"the body is not UTF-8 at byte {error.start}") from None
        except RecursionError:
            raise Malformed("the body is nested too deep") from None
        except ValueError as error:
            raise Malformed(f"the body is not JSON: {error}") from None
        self._texts.strip(parsed)
        try:
            return msgspec.convert(parsed, self.struct, dec_hook=_parse_number)
        except msgspec.ValidationError as error:
            _refuse(error, self._allowed)


class Query(Generic[Value_co]):
    """Decodes a query string into a Struct; its fields are the parameters that exist."""

    def __init__(self, struct: type[Value_co]) -> None:
        self.struct = struct
        hints = get_type_hints(struct, include_extras=True)
        plain = get_type_hints(struct)
        self._kinds = {one.name: (hints[one.name], one.required) for one in structs.fields(struct)}
        self._whole = {name for name, kind in plain.items() if int in (kind, *get_args(kind))}

    def decode(self, query: bytes) -> Value_co:
        """The Struct.

        Raises:
            Invalid: a parameter is unknown, given twice, or of the wrong kind; names all of them.
        """
        values: dict[str, str] = {}
        errors: dict[str, str] = {}
        if query:
            try:
                pairs = parse_qsl(
                    query.decode(),
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=64,
                )
            except UnicodeDecodeError:
                raise Invalid("the query is not UTF-8") from None
            except ValueError:
                raise Invalid("the query has too many parameters") from None
            for name, value in pairs:
                if name not in self._kinds:
                    errors[name[:64]] = self._unknown()
                elif name in values:
                    errors[name] = "given twice"
                values[name] = value
        return self.convert(values, errors)

    def convert(
        self, values: dict[str, str], errors: Mapping[str, str] = MappingProxyType({})
    ) -> Value_co:
        """The Struct, from fields that are text; raises as `decode`.

        `errors` are what is wrong already, by field.
        """
        wrong = dict(errors)
        for name, value in values.items():
            if "\0" in value:
                wrong.setdefault(name[:64], "holds a NUL character")
            elif name in self._whole and not _WHOLE.fullmatch(value):
                wrong.setdefault(name, "must be a whole number")
        if not wrong:
            try:
                return msgspec.convert(values, self.struct, strict=False, dec_hook=_parse_text)
            except msgspec.ValidationError:
                pass  # it names the first field alone
        for name, (kind, required) in self._kinds.items():
            if name in values and name not in wrong:
                try:
                    msgspec.convert(values[name], kind, strict=False, dec_hook=_parse_text)
                except msgspec.ValidationError as error:
                    wrong[name] = _reworded(str(error), _words(kind))
            elif name not in values and required:
                wrong[name] = "required, but missing"
        raise invalid([FieldError(*one) for one in wrong.items()])

    def _unknown(self) -> str:
        if not self._kinds:
            return "is not a parameter; this operation has none"
        return f"is not a parameter; allowed: {', '.join(self._kinds)}"


def invalid(errors: Sequence[FieldError]) -> Invalid:
    """422 that names every field that is wrong, MAX_ERRORS at most; the detail tells the first."""
    first, others = errors[0], len(errors) - 1
    more = f" (and {others} more)" if others else ""
    return Invalid(f"{first.field}: {first.message}{more}", *errors[:MAX_ERRORS])


def row_id(text: str) -> int:
    """The id in a path.

    Raises:
        Invalid: not an integer.
        NotFound: an integer that no row can have.
    """
    if not _WHOLE.fullmatch(text):
        raise Invalid("the id must be a whole number", FieldError("id", "not a whole number"))
    # 19 digits hold every bigint; more would make int() slow, then refuse.
    value = int(text) if len(text) <= 19 else 0
    if not 0 < value <= ID_MAX:
        raise NotFound(f"there is no {text[:20]}")
    return value


def _parse_number(kind: Any, value: object) -> Any:
    """Types that know how to read themselves (`parse`) do so; a body's numbers are exact."""
    return kind.parse(value)


def _parse_text(kind: Any, value: object) -> Any:
    if not (isinstance(value, str) and len(value) <= 64 and _NUMBER.fullmatch(value)):
        raise ValueError("must be a number in digits, as 29.99")
    return kind.parse(Decimal(value))


def _decimal(text: str) -> Decimal:
    """Exact; beyond what a Decimal can hold it is infinite, and out of any range."""
    try:
        return Decimal(text)
    except ArithmeticError:
        return Decimal("Infinity")


def _whole(text: str) -> int:
    """Exact up to 100 digits, beyond every range with more: int() is slow, then refuses."""
    return int(text[:100])


def _allowed(struct: type[Struct]) -> dict[str, str]:
    """What a field may be, in words, where msgspec's own would be a regex or nothing."""
    allowed = {}
    for name, kind in get_type_hints(struct, include_extras=True).items():
        if words := _words(kind):
            allowed[name] = words
        for part in structs_of(kind):
            allowed |= {f"{name}.{field}": words for field, words in _allowed(part).items()}
    return allowed


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is Annotated:
        inner, *metas = get_args(kind)
        words = next((meta.description for meta in metas if meta.description), "")
        return words or _words(inner)
    return next((words for part in get_args(kind) if (words := _words(part))), "")


def _refuse(error: msgspec.ValidationError, allowed: dict[str, str]) -> NoReturn:
    """422 with the field that msgspec names in its message."""
    message = str(error)
    place = _PLACE.fullmatch(message)
    what, field = (place["what"], place["field"]) if place else (message, "")
    if missing := _MISSING.fullmatch(what):
        field = f"{field}.{missing['field']}" if field else missing["field"]
        what = "required, but missing"
    what = _reworded(what, allowed.get(_PLACES.sub("", field), ""))
    detail = f"{field}: {what}" if field else what
    raise Invalid(detail, *([FieldError(field, what)] if field else [])) from None


def _reworded(what: str, words: str) -> str:
    """The message of msgspec, or what the value may be where that says more."""
    if words and ("invalid enum value" in what.lower() or "matching regex" in what):
        what = f"must be {words}"
    return what[:1].lower() + what[1:]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
