"""The headers of a request (RFC 9112, sections 5 and 6), and what they say of its framing."""

import re
from collections.abc import Iterable

from msgspec import Struct

from service.errors import BadExpectation, HeadersTooLarge, Malformed, TooLarge
from service.http1.framing import check_authority, check_codings

# The number of headers of one request.
FIELD_LIMIT = 256
# A client sends the same headers again and again. A connection remembers a few blocks of up to so
# many bytes, and all connections share single lines. It saves half of what a head costs.
REMEMBERED_BYTES, REMEMBERED_BLOCKS, REMEMBERED_LINES = 2_048, 4, 1_024
# These are not shared: no copy of a secret outlives its connection.
SECRETS = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"x-api-key"})

# RFC 9110, 5.6.2
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# The value may hold tabs, but no other control character. White space behind it is stripped later:
# an expression for both ends would try every place in a long row of spaces.
_FIELD = re.compile(b"(" + TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)")


class Fields(Struct, frozen=True, gc=False):
    """The headers of a request, and what they say of its framing.

    `length` is the body's in bytes, None when it comes in chunks; `coded` says that there is a
    Transfer-Encoding, `hosted` that there is a Host, `expects` what the client expects.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    hosted: bool
    coded: bool
    length: int | None
    keep: bool
    expects: bytes | None


class HeaderReader:
    """Reads the headers of one connection, and remembers those of its last requests."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, Fields] = {}

    def read(self, block: bytes) -> Fields:
        """Read the lines of all headers.

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
    """The name of a header in lower case, and its value without white space around it.

    Raises:
        Malformed: it is no `Name: value`.
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
    return Fields(headers, host is not None, coded, length, keep, named.get(b"expect"))


def _check_repeated(headers: Iterable[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    for name in (b"host", b"content-length"):
        if names.count(name) > 1:
            raise Malformed(f"there is more than one {name.decode().title()} header")
    if names.count(b"expect") > 1:
        raise BadExpectation("the only expectation that is met here is one 100-continue")


def _length(value: bytes) -> int:
    if not value.isdigit():
        raise Malformed("Content-Length is not one number of bytes")
    if len(value) > 18:
        raise TooLarge("the body is larger than any that is taken here")
    return int(value)


def _keeps(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    values = (value for name, value in headers if name == b"connection")
    options = (option for value in values for option in value.lower().split(b","))
    return all(option.strip(b" \t") != b"close" for option in options)
