"""The wire: bytes of a body, a query and a path into Structs, and a Reply back into bytes."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct, structs

from service.errors import FieldError, Invalid, NotFound
from service.web.stream import Chunks

Value_co = TypeVar("Value_co", bound=Struct, covariant=True)

JSON = b"application/json"
# A client may keep an answer, and asks each time whether it still holds; a shared cache may not.
PRIVATE = b"private, no-cache"
Header = tuple[bytes, bytes]
ID_MAX = 2**63 - 1
# Fields that a problem names at most.
MAX_ERRORS = 100

# How Python's "surrogateescape" shows such bytes.
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
# msgspec names the place at the end of its message: pinned by tests/test_bad_input.py.
_PLACE = re.compile(r"(?P<what>.*?) - at `\$\.?(?P<field>.*)`", re.DOTALL)
_NOT_WHOLE = re.compile(r"Expected `int( \| null)?`, got `number`")

encode = msgspec.json.Encoder(decimal_format="number").encode


class EncodedBodies(Protocol):
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
    kept: EncodedBodies | None = None
    chunks: Chunks | None = None
    cache_control: bytes = PRIVATE


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
                elif name in values:
                    errors[name] = "given twice"
                values[name] = value
        return self.convert(values, errors)

    def convert(self, values: dict[str, str], errors: Mapping[str, str] | None = None) -> Value_co:
        """The Struct, from fields that are text; raises as `decode`.

        `errors` are what is wrong already, by field.
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
                    msgspec.convert(values[name], kind, strict=False, dec_hook=_parse_text)
                except msgspec.ValidationError as error:
                    wrong[name] = blamed(error, words_of(kind))
            elif name not in values and required:
                wrong[name] = "required, but missing"
        raise invalid([FieldError(*one) for one in wrong.items()])

    def quick(self, values: dict[str, str]) -> Value_co | None:
        """As `convert`, but None if something is wrong, whatever it is."""
        for name, value in values.items():
            if "\0" in value or (name in self._whole and not _WHOLE.fullmatch(value)):
                return None
        try:
            return msgspec.convert(values, self.struct, strict=False, dec_hook=_parse_text)
        except msgspec.ValidationError:
            return None

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
        raise NotFound("id out of range")
    return value


def parse_number(kind: Any, value: object) -> Any:
    """Types that know how to read themselves (`parse`) do so; a body's numbers are exact."""
    return kind.parse(value)


def _parse_text(kind: Any, value: object) -> Any:
    if not (isinstance(value, str) and len(value) <= 64 and _NUMBER.fullmatch(value)):
        raise ValueError("must be a number in digits, as 29.99")
    return kind.parse(Decimal(value))


def decimal(text: str) -> Decimal:
    """Exact; beyond what a Decimal can hold it is infinite, and out of any range."""
    try:
        return Decimal(text)
    except ArithmeticError:
        return Decimal("Infinity")


def words_of(kind: Any) -> str:
    """What a value of this kind may be; empty where msgspec's own words are good."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is Annotated:
        inner, *metas = get_args(kind)
        words = next((meta.description for meta in metas if meta.description), "")
        return words or words_of(inner)
    return next((words for part in get_args(kind) if (words := words_of(part))), "")


def blamed(error: msgspec.ValidationError, words: str = "") -> str:
    """What is wrong with the one value that was checked; `words` are what it may be."""
    what = _PLACE.sub(r"\g<what>", str(error)).replace("`decimal`", "`number`")
    if found := _NOT_WHOLE.fullmatch(what):
        return f"must be a whole number{' or null' if found[1] else ''}"
    if words and ("invalid enum value" in what.lower() or "matching regex" in what):
        return f"must be {words}"
    return what[:1].lower() + what[1:]
