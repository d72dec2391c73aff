"""The text of an API key: `svc_live_`, a public id, `_`, a secret, and a checksum.

    svc_live_4fRb0QxT_9dKQ...Zs1aB2cD
             8        32 + 6 characters of base62

The start names the service, so that a leaked key is found by a search. The checksum tells a typo
from an unknown key without a look-up. Double click selects the whole key.
"""

import hashlib
import re
import secrets
from zlib import crc32

from service.web.api_keys import ParsedKey

START = "svc_live_"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH = 8, 32, 6
PREFIX_LENGTH = len(START) + ID_LENGTH
LENGTH = PREFIX_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

_KEY = re.compile(
    rb"%b[0-9A-Za-z]{%d}_[0-9A-Za-z]{%d}"
    % (START.encode(), ID_LENGTH, SECRET_LENGTH + CHECKSUM_LENGTH)
)


def new_key() -> str:
    """Return the text of a new key; its secret has 190 random bits."""
    public_id, secret = _random(ID_LENGTH), _random(SECRET_LENGTH)
    text = f"{START}{public_id}_{secret}"
    return text + _checksum(text.encode())


def parse(text: bytes) -> ParsedKey | None:
    """Return the prefix and the hash of the secret, without I/O; None if no key has this form."""
    if len(text) != LENGTH or not _KEY.fullmatch(text):
        return None
    checked, checksum = text[:-CHECKSUM_LENGTH], text[-CHECKSUM_LENGTH:]
    if _checksum(checked).encode() != checksum:
        return None
    # A slow hash would protect a guessable secret; this one can't be guessed.
    secret = checked[PREFIX_LENGTH + 1 :]
    return ParsedKey(text[:PREFIX_LENGTH].decode(), hashlib.sha256(secret).digest())


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(text: bytes) -> str:
    number, digits = crc32(text), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
