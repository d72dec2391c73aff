"""A JSON body into a Struct: in one piece where it is short and right, else field by field.

Only msgspec reads the whole of a body, and it builds nothing of what the Struct does not know. So
the work is bounded by the size of the body, whatever is in it: see docs/decisions/bounds.md.
"""

import asyncio
import re
from collections.abc import Generator
from typing import Generic, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from service.errors import FieldError, Invalid, Malformed
from service.web.body_fields import Direct, Fields, Steps
from service.web.codec import blamed, invalid

Value_co = TypeVar("Value_co", bound=Struct, covariant=True)

_BYTE = re.compile(r"\(byte ([0-9]+)\)")
_CONSTANT = re.compile(rb"NaN|Infinity")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# An escape: a pair of surrogates, a lone one, or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]HH\\u[dD][c-fC-F]HH|(?P<lone>u[dD][89a-fA-F]HH)|.)".replace(
        b"H", b"[0-9a-fA-F]"
    ),
    re.DOTALL,
)
# Escapes that are looked at before others have their turn: 1 ms.
STEP_ESCAPES = 2_000


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
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"the body is not UTF-8 at byte {error.start}") from None
        errors: list[FieldError] = []
        try:
            value = yield from self._fields.read(data, "", errors)
        except RecursionError:
            raise Malformed("the body is nested too deep") from None
        except msgspec.ValidationError as error:  # it is no object
            _check_json(data)
            raise Invalid(blamed(error)) from None
        except msgspec.DecodeError as error:
            other = yield from _without_surrogates(data)
            if other == data:
                raise _malformed(data, error) from None
            return (yield from self.slow(other))
        if errors:
            raise invalid(errors)
        return value


def _without_surrogates(data: bytes) -> Generator[None, None, bytes]:
    """The body with NUL in the place of each lone surrogate, which msgspec takes for no JSON.

    Neither can be stored. So the fields that count are refused and named, and those that are
    ignored do no harm. What is wrong elsewhere stays where it was, byte for byte.
    """
    if not _SURROGATE.search(data):
        return data
    changed = bytearray(data)
    for n, found in enumerate(_ESCAPE.finditer(data)):
        if found["lone"]:
            changed[slice(*found.span("lone"))] = b"u0000"
        if n % STEP_ESCAPES == 0:
            yield
    return bytes(changed)


def _check_json(data: bytes) -> None:
    try:
        msgspec.json.decode(data, type=Raw)
    except RecursionError:
        raise Malformed("the body is nested too deep") from None
    except msgspec.DecodeError as error:
        raise _malformed(data, error) from None


def _malformed(data: bytes, error: msgspec.DecodeError) -> Malformed:
    what = str(error).removeprefix("JSON is malformed: ")
    if what == "Input data was truncated":
        what = "it ends too early" if data.strip() else "it is empty"
    elif (place := _BYTE.search(what)) and (found := _CONSTANT.match(data, int(place[1]))):
        what = f"{found[0].decode()} is not a number"
    return Malformed(f"the body is not JSON: {what}")
