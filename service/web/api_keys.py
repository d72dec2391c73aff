"""What an application's API keys are to the kernel, and the key in a request's headers."""

import hmac
import re
from typing import NamedTuple, Protocol

from msgspec import Struct

from service.cache.writer import Writer
from service.db.database import Database
from service.errors import Malformed, Unauthorized
from service.web.codec import Header
from service.web.principal import Principal

# Bytes of a key; a longer value is not looked at.
LONGEST_KEY = 256
_PLAUSIBLE = re.compile(rb"[\x21-\x7e]{1,%d}" % LONGEST_KEY)
SCHEME = b"bearer"
# The headers that may have a key.
KEY_HEADERS = frozenset({b"authorization", b"x-api-key"})
NO_KEY = "this needs an API key: send the header `Authorization: Bearer KEY` or `X-API-Key: KEY`"
# The same for each reason, so the response says nothing about the keys that exist.
BAD_KEY = "this API key is not valid: it is unknown, revoked or expired"
CHALLENGE: Header = (b"www-authenticate", b"Bearer")
CHALLENGE_BAD_KEY: Header = (b"www-authenticate", b'Bearer error="invalid_token"')


class ParsedKey(NamedTuple):
    """A key that has the right form.

    Args:
        public_id: finds its row.
        secret_hash: SHA-256 of its secret.
    """

    public_id: str
    secret_hash: bytes


class KeyRecord(Struct, frozen=True):
    """A key as it is stored.

    Args:
        secret_hash: SHA-256 of its secret.
        principal: who sends it.
        seconds_left: until it expires, by the clock of the database at the look-up; None if it does
            not expire. At 0 or less it has expired.
    """

    secret_hash: bytes
    principal: Principal
    seconds_left: float | None = None


class ApiKeys(Protocol):
    """The API keys of an application; `create_app(auth=...)`.

    The kernel compares the hashes, keeps principals for less than a second (PrincipalCache) and
    answers 401. So an implementation only knows the form of a key and its table.
    """

    def parse(self, key: bytes) -> ParsedKey | None:
        """Return the parts of a key, without I/O; None if it has another form or a wrong checksum.

        Args:
            key: 1 to LONGEST_KEY bytes of visible ASCII.
        """

    async def look_up(self, db: Database, public_id: str) -> KeyRecord | None:
        """Return a stored key; None if there is none, or its user is not active.

        It reads from the database each time and shares statements with other look-ups. It does not
        compare the secret.

        Raises:
            Problem: 503 or 504, the database is not available.
        """

    async def is_user_active(self, db: Database, user_id: int) -> bool:
        """Return whether a user exists and is active, for work that outlives their request.

        Raises:
            Problem: as `look_up`.
        """

    def used(self, db: Database, writer: Writer, principal: Principal) -> None:
        """Note that a key is in use. Called after each successful look-up, so not per request.

        It does not wait, and never fails. What it writes later goes through the writer, so that
        the caches are invalidated.
        """


def key_in(headers: list[Header]) -> bytes | None:
    """Return the API key in the headers of a request; None without one.

    Raises:
        Malformed: there are two Authorization headers, two X-API-Key headers, or two keys.
        Unauthorized: the key has a form that no key has.
    """
    given = [value for name, value in headers if name == b"authorization"]
    others = [value for name, value in headers if name == b"x-api-key"]
    if len(given) > 1 or len(others) > 1:
        raise Malformed("there is more than one Authorization or X-API-Key header: send one key")
    key = _bearer(given[0].strip(b" \t")) if given else None
    if others:
        other = others[0].strip(b" \t")
        if key is not None and key != other:
            raise Malformed("Authorization and X-API-Key differ: send one key")
        key = other
    if key is not None and not _PLAUSIBLE.fullmatch(key):
        raise bad_key()
    return key


def only_key(headers: list[Header]) -> Header | None:
    """Return the header with a key; None if there is none or more than one."""
    found = [pair for pair in headers if pair[0] in KEY_HEADERS]
    return found[0] if len(found) == 1 else None


def _bearer(value: bytes) -> bytes:
    """Return what is behind the scheme (RFC 6750); empty with another scheme."""
    scheme, _, key = value.partition(b" ")
    return key.strip(b" \t") if scheme.lower() == SCHEME else b""


def is_match(stored: bytes, given: bytes) -> bool:
    """Compare two hashes, in a time that does not depend on where they differ."""
    return hmac.compare_digest(stored, given)


def no_key() -> Unauthorized:
    """Return the error of a request without a key."""
    return Unauthorized(NO_KEY, headers=(CHALLENGE,))


def bad_key() -> Unauthorized:
    """Return the error of a request with a key that is not valid, for any reason."""
    return Unauthorized(BAD_KEY, headers=(CHALLENGE_BAD_KEY,))
