"""Between bytes and values: queries and ids in paths are decoded, replies encoded."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct, structs

from service.errors import FieldError, Invalid, NotFound
from service.http1.standard_headers import PRIVATE
from service.web.normalization import check, checked_fields
from service.web.stream import Sent

Value_co = TypeVar("Value_co", bound=Struct, covariant=True)

JSON = b"application/json"
Header = tuple[bytes, bytes]
ID_MAX = 2**63 - 1
# A problem names this many fields at most.
MAX_ERRORS = 100

# Such bytes, as "surrogateescape" decodes them.
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
# msgspec ends its messages with the place; tests/test_bad_input.py checks that.
_PLACE = re.compile(r"(?P<what>.*?) - at `\$\.?(?P<field>.*)`", re.DOTALL)
_NOT_WHOLE = re.compile(r"Expected `int( \| null)?`, got `number`")

encode = msgspec.json.Encoder(decimal_format="number").encode


class Reply(Struct, frozen=True):
    """What a handler returns.

    Args:
        body: without a content coding. That of a 304 is not sent.
        status: of the response.
        headers: beside those that every response has.
        content_type: of the body.
        version: of the row shown; a GET with this version in If-None-Match is answered 304.
        encoded: bodies in other content codings, by their names, of a reply that is sent often.
        keep: called with a coding and the body in it, when that was made.
        chunks: instead of a body, one that is made while it is sent.
        cache_control: keep the default for a response with data, or about data.
    """

    body: bytes = b""
    status: int = 200
    headers: tuple[Header, ...] = ()
    content_type: bytes = JSON
    version: int | None = None
    encoded: Mapping[bytes, bytes] | None = None
    keep: Callable[[bytes, bytes], object] | None = None
    chunks: Sent | None = None
    cache_control: bytes = PRIVATE


class Query(Generic[Value_co]):
    """Decodes a query string into a Struct, whose fields are the parameters."""

    def __init__(self, struct: type[Value_co]) -> None:
        self.struct = struct
        hints = get_type_hints(struct, include_extras=True)
        plain = get_type_hints(struct)
        self._kinds = {one.name: (hints[one.name], one.required) for one in structs.fields(struct)}
        self._checked = checked_fields(plain)
        # A list may be in one parameter, as `include=a,b`, or in several, as many clients send it.
        self._lists = {
            name
            for name, kind in plain.items()
            if any(issubclass(one, tuple) for one in get_args(kind) if isinstance(one, type))
        }
        self._whole = {name for name, kind in plain.items() if int in (kind, *get_args(kind))}

    def decode(self, query: bytes) -> Value_co:
        """The Struct.

        Raises:
            Invalid: parameters are unknown, given twice, or invalid; it names all of them.
        """
        values: dict[str, str] = {}
        errors: dict[str, str] = {}
        if query:
            try:
                pairs = parse_qsl(
                    query.decode("utf-8", "surrogateescape"),
                    keep_blank_values=True,
                    errors="surrogateescape",
                    max_num_fields=64,
                )
            except ValueError:
                raise Invalid("the query has too many parameters") from None
            for name, value in pairs:
                if _NOT_UTF_8.search(name + value):
                    errors[_NOT_UTF_8.sub("\ufffd", name)[:64]] = "is not UTF-8"
                elif name not in self._kinds:
                    errors[name[:64]] = self._unknown()
                elif name in self._lists and name in values:
                    values[name] += f",{value}"
                    continue
                elif name in values:
                    errors[name] = "given twice"
                values[name] = value
        return self.convert(values, errors)

    def convert(self, values: dict[str, str], errors: Mapping[str, str] | None = None) -> Value_co:
        """The Struct, from the text of each field; raises as `decode`.

        `errors` are the errors found so far, by field.
        """
        if not errors and (found := self.quick(values)) is not None:
            return found
        wrong = dict(errors) if errors else {}
        for name, value in values.items():
            if "\0" in value:
                wrong.setdefault(name[:64], "holds a NUL character")
            elif name in self._whole and not _WHOLE.fullmatch(value):
                wrong.setdefault(name, "must be a whole number")
        for name, (kind, required) in self._kinds.items():
            if name in values and name not in wrong:
                try:
                    check(msgspec.convert(values[name], kind, strict=False, dec_hook=_parse_text))
                except msgspec.ValidationError as error:
                    wrong[name] = blamed(error, words_of(kind))
                except ValueError as error:
                    wrong[name] = str(error)
            elif name not in values and required:
                wrong[name] = "required, but missing"
        raise invalid([FieldError(*one) for one in wrong.items()])

    def quick(self, values: dict[str, str]) -> Value_co | None:
        """As `convert`, but None if there is any error."""
        for name, value in values.items():
            if "\0" in value or (name in self._whole and not _WHOLE.fullmatch(value)):
                return None
        try:
            found = msgspec.convert(values, self.struct, strict=False, dec_hook=_parse_text)
            for name in self._checked:
                check(getattr(found, name))
        except ValueError:  # msgspec's are, too
            return None
        return found

    def _unknown(self) -> str:
        if not self._kinds:
            return "is not a parameter; this operation has none"
        return f"is not a parameter; allowed: {', '.join(self._kinds)}"


def invalid(errors: Sequence[FieldError]) -> Invalid:
    """422 that names every invalid field, MAX_ERRORS at most; the detail has the first."""
    first, others = errors[0], len(errors) - 1
    more = f" (and {others} more)" if others else ""
    return Invalid(f"{first.field}: {first.message}{more}", *errors[:MAX_ERRORS])


def row_id(text: str) -> int:
    """The id in a path.

    Raises:
        Invalid: not an integer.
        NotFound: an integer that is out of range for an id.
    """
    if not _WHOLE.fullmatch(text):
        raise Invalid("the id must be a whole number", FieldError("id", "not a whole number"))
    # 19 digits hold every bigint; more would make int() slow, then refuse.
    value = int(text) if len(text) <= 19 else 0
    if not 0 < value <= ID_MAX:
        raise NotFound("id out of range")
    return value


def parse_number(kind: Any, value: object) -> Any:
    """A value of a type with a `parse` function; the numbers of a body are exact."""
    return kind.parse(value)


def _parse_text(kind: Any, value: object) -> Any:
    if hasattr(kind, "parse_text"):
        return kind.parse_text(value)
    if not (isinstance(value, str) and len(value) <= 64 and _NUMBER.fullmatch(value)):
        raise ValueError("must be a number in digits, as 29.99")
    return kind.parse(Decimal(value))


def decimal(text: str) -> Decimal:
    """The exact number; infinite beyond the range of Decimal, and so out of any range."""
    try:
        return Decimal(text)
    except ArithmeticError:
        return Decimal("Infinity")


def words_of(kind: Any) -> str:
    """What a value of this type may be; empty where the message of msgspec is good enough."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is Annotated:
        inner, *metas = get_args(kind)
        words = next((meta.description for meta in metas if meta.description), "")
        return words_of(inner) or words
    return next((words for part in get_args(kind) if (words := words_of(part))), "")


def blamed(error: msgspec.ValidationError, words: str = "") -> str:
    """What is wrong with the value that was checked; `words` say what it may be."""
    what = _PLACE.sub(r"\g<what>", str(error)).replace("`decimal`", "`number`")
    if found := _NOT_WHOLE.fullmatch(what):
        return f"must be a whole number{' or null' if found[1] else ''}"
    if words and ("invalid enum value" in what.lower() or "matching regex" in what):
        return f"must be {words}"
    return what[:1].lower() + what[1:]
