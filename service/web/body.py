"""A JSON body into a Struct: in one piece where it is short and right, else field by field.

Only msgspec reads the whole of a body, and it builds nothing of what the Struct does not know. So
the work is bounded by the size of the body, whatever is in it: see docs/decisions/bounds.md.
"""

import asyncio
import json
import re
from typing import Generic, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from service.errors import FieldError, Invalid, Malformed
from service.web.body_fields import AT_ONCE, Direct, Fields, Steps
from service.web.wire import blamed, invalid

Value_co = TypeVar("Value_co", bound=Struct, covariant=True)

_BYTE = re.compile(r"\(byte ([0-9]+)\)")
_CONSTANT = re.compile(rb"NaN|Infinity")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# An escape: a pair of surrogates, a lone one, or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<lone>u[dD][89a-fA-F]..)|.)", re.DOTALL
)


class Body(Direct, Generic[Value_co]):
    """Decodes a request's body into a Struct; strings are stripped before they are checked.

    The bytes of a short body go straight into the Struct. When that fails, when a string has white
    space around it, and when the body is long, it is read field by field.
    """

    def __init__(self, struct: type[Value_co]) -> None:
        super().__init__(struct)
        self._fields = Fields(struct)

    def decode(self, data: bytes) -> Value_co:
        """The Struct.

        Raises:
            Malformed: not JSON.
            Invalid: JSON that breaks a rule; names the fields.
        """
        value: Value_co | None = self.quick(data)
        if value is not None:
            return value
        steps = self.slow(data)
        try:
            while True:
                next(steps)
        except StopIteration as done:
            return cast("Value_co", done.value)

    async def decode_long(self, data: bytes) -> Value_co:
        """As `decode`, with turns for others in between; for more than AT_ONCE bytes."""
        steps = self.slow(data)
        try:
            while True:
                next(steps)
                await asyncio.sleep(0)
        except StopIteration as done:
            return cast("Value_co", done.value)

    def is_wrong(self, data: bytes) -> bool:
        """Whether this is known at once, without saying what is wrong: a fifth of the time."""
        try:
            return self._fields.is_wrong(data)
        except (UnicodeDecodeError, RecursionError, msgspec.ValidationError):
            return True
        except msgspec.DecodeError:
            return not _SURROGATE.search(data)

    def slow(self, data: bytes) -> Steps:
        """The Struct, field by field; raises as `decode`, and names all fields that are wrong."""
        errors: list[FieldError] = []
        try:
            value = yield from self._fields.read(data, "", errors)
        except UnicodeDecodeError as error:
            raise _not_utf8(data, error) from None
        except RecursionError:
            raise Malformed("the body is nested too deep") from None
        except msgspec.ValidationError as error:  # it is no object
            _check_json(data)
            raise Invalid(blamed(error)) from None
        except msgspec.DecodeError as error:
            if not _SURROGATE.search(data):
                raise _malformed(data, error) from None
            ignored = self._without_surrogates(data, error)
            if ignored == data:
                raise _malformed(data, error) from None
            return (yield from self.slow(ignored))
        if errors:
            raise invalid(errors)
        return value

    def _without_surrogates(self, data: bytes, error: msgspec.DecodeError) -> bytes:
        """The body without lone surrogates, which are JSON, in fields that are ignored.

        Raises:
            Malformed: it is wrong in another way.
            Invalid: one is in a field that counts, or anywhere in a long body.
        """
        if len(data) > AT_ONCE:
            place = _BYTE.search(str(error))
            if place is None or "surrogate" not in str(error):
                raise _malformed(data, error) from None
            raise Invalid(f"the body holds a lone surrogate at byte {place[1]}")
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError):
            raise _malformed(data, error) from None
        self._texts.strip(parsed)
        return _ESCAPE.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], data)


def _check_json(data: bytes) -> None:
    try:
        msgspec.json.decode(data, type=Raw)
    except RecursionError:
        raise Malformed("the body is nested too deep") from None
    except msgspec.DecodeError as error:
        raise _malformed(data, error) from None


def _malformed(data: bytes, error: msgspec.DecodeError) -> Malformed:
    try:
        data.decode()
    except UnicodeDecodeError as wrong:
        return Malformed(f"the body is not UTF-8 at byte {wrong.start}")
    what = str(error).removeprefix("JSON is malformed: ")
    if what == "Input data was truncated":
        what = "it ends too early" if data.strip() else "it is empty"
    elif (place := _BYTE.search(what)) and (found := _CONSTANT.match(data, int(place[1]))):
        what = f"{found[0].decode()} is not a number"
    return Malformed(f"the body is not JSON: {what}")


def _not_utf8(data: bytes, error: UnicodeDecodeError) -> Malformed:
    try:
        data.decode()
    except UnicodeDecodeError as whole:
        error = whole  # of the body, not of the field
    return Malformed(f"the body is not UTF-8 at byte {error.start}")
