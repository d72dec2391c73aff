"""Cursors of keyset pagination: opaque and signed."""

import base64
import binascii
import hashlib
import hmac
from typing import Any

import msgspec

from service.errors import FieldError, Invalid

CURSOR_LENGTH = 4096
MAC_BYTES = 16
NOT_OURS = "not from this service, or made for another sort or other filters"


class Cursors:
    """Writes and verifies cursors.

    A cursor is `base64url(values, MAC)`. The values are the sort key of the last row. The MAC is a
    keyed BLAKE2b of the values, the list, its sort and its filters. So a cursor that was changed,
    or is used with another list, sort or filter, does not verify.
    """

    def __init__(self, secret: str) -> None:
        self._key = hashlib.blake2b(secret.encode(), person=b"cursor").digest()

    def write(self, values: tuple[object, ...], binding: bytes) -> str:
        """Return the cursor that continues after a row with these values."""
        payload = msgspec.msgpack.encode(values)
        return base64.urlsafe_b64encode(payload + self._mac(payload, binding)).decode().rstrip("=")

    def read(self, cursor: str, kind: Any, binding: bytes) -> tuple[Any, ...]:
        """Return the values, as the tuple type `kind`.

        Raises:
            Invalid: the cursor is not of this service, was changed, or belongs to another list,
                sort or filter.
        """
        try:
            if len(cursor) > CURSOR_LENGTH:
                raise ValueError
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            # The decoder skips unknown characters, so accept only the canonical form.
            if base64.urlsafe_b64encode(raw).decode().rstrip("=") != cursor:
                raise ValueError
            payload, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(payload, binding)):
                raise ValueError
            values: tuple[Any, ...] = msgspec.msgpack.decode(payload, type=kind)
        except (ValueError, binascii.Error, msgspec.MsgspecError):
            raise Invalid(f"the cursor is {NOT_OURS}", FieldError("cursor", NOT_OURS)) from None
        return values

    def _mac(self, payload: bytes, binding: bytes) -> bytes:
        return hashlib.blake2b(payload + binding, key=self._key, digest_size=MAC_BYTES).digest()
