"""Decode a JSON body into a Struct: short valid bodies in one call, others field by field.

Only msgspec parses whole bodies, and it builds no objects for fields that the Struct does not have.
So the size of a body bounds the work, whatever it contains: see docs/decisions/bounds.md.
"""

import re
from collections.abc import Generator
from typing import Generic, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from service.errors import FieldError, Invalid, Malformed
from service.slices import next_slice
from service.web.body_fields import Direct, Fields, Steps
from service.web.codec import blamed, invalid

Value_co = TypeVar("Value_co", bound=Struct, covariant=True)

_BYTE = re.compile(r"\(byte ([0-9]+)\)")
_CONSTANT = re.compile(rb"NaN|Infinity")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# One escape sequence: a surrogate pair, a lone surrogate, or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]HH\\u[dD][c-fC-F]HH|(?P<lone>u[dD][89a-fA-F]HH)|.)".replace(
        b"H", b"[0-9a-fA-F]"
    ),
    re.DOTALL,
)
# Escapes to process before the event loop may run other tasks: 1 ms.
STEP_ESCAPES = 2_000


class Body(Direct, Generic[Value_co]):
    """Decodes a request body into a Struct. Strings are stripped before they are validated.

    A short body is decoded by msgspec in one call. If that fails, or the body is long, it is
    decoded field by field.
    """

    def __init__(self, struct: type[Value_co]) -> None:
        super().__init__(struct)
        self._fields = Fields(struct)

    def decode(self, data: bytes) -> Value_co:
        """Return the Struct.

        Raises:
            Malformed: the body is not JSON.
            Invalid: the JSON breaks a rule; the error names the fields.
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
        """Decode a body of more than AT_ONCE bytes; each step is a slice."""
        steps = self.slow(data)
        try:
            while True:
                await next_slice()
                next(steps)
        except StopIteration as done:
            return cast("Value_co", done.value)

    def is_wrong(self, data: bytes) -> bool:
        """Return whether a quick check finds an error: a fifth of the time of `decode`."""
        try:
            return self._fields.is_wrong(data)
        except (UnicodeDecodeError, RecursionError, msgspec.ValidationError):
            return True
        except msgspec.DecodeError:
            return not _SURROGATE.search(data)

    def slow(self, data: bytes) -> Steps:
        """Decode field by field; raise the errors of `decode`, with every wrong field."""
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"the body is not UTF-8 at byte {error.start}") from None
        errors: list[FieldError] = []
        try:
            value = yield from self._fields.read(data, "", errors)
        except RecursionError:
            raise Malformed("the body is nested too deep") from None
        except msgspec.ValidationError as error:  # not an object
            _check_json(data)
            raise Invalid(blamed(error)) from None
        except msgspec.DecodeError as error:
            replaced = yield from _without_surrogates(data)
            if replaced == data:
                raise _malformed(data, error) from None
            return (yield from self.slow(replaced))
        if errors:
            raise invalid(errors)
        return value


def _without_surrogates(data: bytes) -> Generator[None, None, bytes]:
    """Replace each lone surrogate by NUL: msgspec would reject the whole body as invalid JSON.

    Neither can be stored. So known fields are rejected by name, and unknown fields are ignored.
    The length stays, so byte positions in other error messages are still right.
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
