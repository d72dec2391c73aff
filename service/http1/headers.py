"""Parse the headers of a request and its framing (RFC 9112, sections 5 and 6)."""

import re
from collections.abc import Iterable

from msgspec import Struct

from service.errors import BadExpectation, HeadersTooLarge, Malformed, TooLarge
from service.http1.framing import check_authority, check_codings

# Maximum number of headers of a request.
FIELD_LIMIT = 256
# A client repeats the same headers. A connection caches a few header blocks of at most so many
# bytes, and all connections share a cache of single lines. This saves half the cost of a head.
REMEMBERED_BYTES, REMEMBERED_BLOCKS, REMEMBERED_LINES = 2_048, 4, 1_024
# Headers with secrets are not in the shared cache, so no secret stays after its connection.
SECRETS = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"x-api-key"})

# RFC 9110, 5.6.2
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# The value may contain tabs, but no other control character. White space at its end is stripped
# later: an expression for it would take quadratic time for many spaces.
_FIELD = re.compile(b"(" + TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)")


class Fields(Struct, frozen=True, gc=False):
    """The headers of a request, and its framing.

    `names` are those of the headers. `length` is the length of the body in bytes, None for a
    chunked body. `coded` says that there is a Transfer-Encoding, `hosted` that there is a Host.
    `expects` is the value of Expect.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    names: frozenset[bytes]
    hosted: bool
    coded: bool
    length: int | None
    keep: bool
    expects: bytes | None


class HeaderReader:
    """Parses the headers of one connection, with a cache of its last header blocks."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, Fields] = {}

    def read(self, block: bytes) -> Fields:
        """Parse a block of header lines.

        Raises:
            Problem: 400, 413, 417, 431 or 501.
        """
        fields = self._blocks.get(block)
        if fields is None:
            fields = _fields_of(block)
            if len(block) <= REMEMBERED_BYTES:
                if len(self._blocks) >= REMEMBERED_BLOCKS:
                    self._blocks.clear()
                self._blocks[block] = fields
        return fields


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """Return the name of a header in lower case and its stripped value.

    Raises:
        Malformed: it is not `Name: value`.
    """
    found = _FIELD.fullmatch(line)
    if found is None:
        raise Malformed("a header is not `Name: value` on one line")
    return found[1].lower(), found[2].rstrip(b" \t")


_known: dict[bytes, tuple[bytes, bytes]] = {}


def _parse_new_field(line: bytes) -> tuple[bytes, bytes]:
    field = parse_field(line)
    if len(line) <= REMEMBERED_BYTES and field[0] not in SECRETS:
        if len(_known) >= REMEMBERED_LINES:
            _known.clear()
        _known[line] = field
    return field


def _fields_of(block: bytes) -> Fields:
    lines = block.split(b"\r\n") if block else []
    if len(lines) > FIELD_LIMIT:
        raise HeadersTooLarge(f"there are more than {FIELD_LIMIT} headers")
    known = _known.get
    headers = tuple([known(line) or _parse_new_field(line) for line in lines])
    named = dict(headers)
    if len(named) != len(headers):
        _check_repeated(headers)
    host = named.get(b"host")
    if host is not None:
        check_authority(host)
    length: int | None = 0
    if b"content-length" in named:
        length = _length(named[b"content-length"])
    coded = b"transfer-encoding" in named
    if coded:
        if b"content-length" in named:
            raise Malformed("a request has Content-Length or Transfer-Encoding, not both")
        check_codings([value for name, value in headers if name == b"transfer-encoding"])
        length = None
    keep = b"connection" not in named or _keeps(headers)
    names = frozenset(named)
    return Fields(headers, names, host is not None, coded, length, keep, named.get(b"expect"))


def _check_repeated(headers: Iterable[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    for name in (b"host", b"content-length"):
        if names.count(name) > 1:
            raise Malformed(f"there is more than one {name.decode().title()} header")
    if names.count(b"expect") > 1:
        raise BadExpectation("the only supported expectation is one 100-continue")


def _length(value: bytes) -> int:
    if not value.isdigit():
        raise Malformed("Content-Length is not one number of bytes")
    if len(value) > 18:
        raise TooLarge("Content-Length is above every limit of this service")
    return int(value)


def _keeps(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    values = (value for name, value in headers if name == b"connection")
    options = (option for value in values for option in value.lower().split(b","))
    return all(option.strip(b" \t") != b"close" for option in options)
