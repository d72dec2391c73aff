"""Files of rows, NDJSON and CSV: each line into a Struct as it comes, or what is wrong with it."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from service.errors import Invalid, InvalidLines, LineError, Problem, TooLarge, Unsupported
from service.web.media import utf_8_media_type
from service.web.wire import Body, Query

COLUMNS = 100
BOM = b"\xef\xbb\xbf"
# Of a CSV: a field and whether it is quoted; for records that csv.reader has accepted.
_FIELD = re.compile(r'(?:^|,)(?:(?P<quoted>"(?:[^"]++|"")*+")|[^,]*)', re.DOTALL)
# As PostgreSQL's COPY writes them.
_BOOLEANS = {"t": "true", "f": "false"}

csv.field_size_limit(2**31 - 1)  # lines are limited here, in bytes

# A line by its number, and what it holds.
Row = tuple[int, Struct]


class Trailer(Struct, frozen=True, forbid_unknown_fields=True):
    """The last line of a file that proves to be whole: how many rows, and what they add up to.

    `checksum` is the SHA-256 of every byte before the line, in hexadecimal digits.
    """

    count: int
    checksum: str


class Lines:
    """NDJSON: a JSON document per line; blank lines are passed over.

    Args:
        struct: what a line holds.
        limit: bytes of a line.
    """

    def __init__(self, struct: type[Struct], limit: int) -> None:
        self.limit = limit
        self.line = self.read = 0
        self._rest = b""
        self._decode: Callable[[bytes], Struct] = Body(struct).decode
        self._sum = hashlib.sha256()
        self._digest = ""
        self._ended: int | None = None

    def feed(self, data: bytes) -> Iterator[Row | LineError]:
        """The rows of the lines that end in it.

        Raises:
            TooLarge: a line is too long.
            InvalidLines: the file has a trailer, and is not what it says.
        """
        block, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest
        if newline:
            yield from self._rows(block + newline)
        if len(self._rest) > self.limit:
            raise _too_long(self.line + 1, self.limit)

    def end(self) -> Iterator[Row | LineError]:
        """The row of the last line, where nothing ends it."""
        block, self._rest = self._rest, b""
        if block:
            yield from self._rows(block)

    def _rows(self, block: bytes) -> Iterator[Row | LineError]:
        # Where a trailer may stand the sum is noted before it.
        start = 0 if block.startswith(b'{"count":') else block.rfind(b'\n{"count":') + 1
        self._sum.update(block[:start])
        self._digest = self._sum.hexdigest() if block.startswith(b'{"count":', start) else ""
        self._sum.update(block[start:])
        for line in block.removesuffix(b"\n").split(b"\n"):
            self.line += 1
            if self.line == 1:
                line = line.removeprefix(BOM)  # noqa: PLW2901 - no other line has one
            if len(line) > self.limit:
                raise _too_long(self.line, self.limit)
            if not line or line.isspace():
                continue
            found = self._row(line)
            if found is not None:
                yield found

    def _row(self, line: bytes) -> Row | LineError | None:
        if self._ended is not None:
            raise _not_whole(self.line, f"line {self._ended} was to be the last")
        try:
            value = self._decode(line)
        except Problem as problem:
            if line.startswith(b'{"count":') and (trailer := _trailer(line)):
                self._check(trailer)
                return None
            self.read += 1
            return LineError(self.line, _told(problem))
        self.read += 1
        return self.line, value

    def _check(self, trailer: Trailer) -> None:
        self._ended = self.line
        if (trailer.count, trailer.checksum) != (self.read, self._digest):
            raise _not_whole(self.line, "the lines before it are not those that were written")


class Table:
    """CSV: a header line with the names of the columns, then a row per record.

    Columns that the Struct does not know are passed over, fields that are empty take their
    default; an empty text that is no default stands in quotes, as PostgreSQL writes it.

    Args:
        struct: what a record holds.
        limit: bytes of a record.
    """

    def __init__(self, struct: type[Struct], limit: int) -> None:
        self.limit = limit
        self.line = self.read = 0
        self._query = Query(struct)
        self._names: list[str] | None = None
        self._known = frozenset(struct.__struct_fields__)
        self._required = [one.name for one in msgspec.structs.fields(struct) if one.required]
        hints = get_type_hints(struct, include_extras=True)
        self._empty = frozenset(name for name, kind in hints.items() if _may_be_empty(kind))
        self._booleans = frozenset(
            n for n, kind in hints.items() if bool in (kind, *get_args(kind))
        )
        self._rest = b""  # a line whose end has not come
        self._open: list[bytes] = []  # lines of a record that has a quote open
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Row | LineError]:
        """The rows of the records that end in it.

        Raises:
            TooLarge: a record is too long.
            Invalid: the header is wrong.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line or self._open:
                yield from self._line(line)
            else:
                self.line += 1
        if self._size + len(self._rest) > self.limit:
            raise _too_long(self.line + 1 - len(self._open), self.limit)

    def end(self) -> Iterator[Row | LineError]:
        """The row of the last record, where nothing ends it.

        Raises:
            Invalid: there is no header.
        """
        line, self._rest = self._rest, b""
        if line or self._open:
            yield from self._line(line, last=True)
        if self._names is None:
            raise Invalid("the file is empty: its first line must name the columns")

    def _line(self, line: bytes, *, last: bool = False) -> Iterator[Row | LineError]:
        self.line += 1
        self._size += len(line) + 1
        if self._size > self.limit + 1:
            raise _too_long(self.line - len(self._open), self.limit)
        odd = line.count(b'"') % 2 == 1
        if odd != bool(self._open) and not last:  # opens a quote, or is within one
            self._open.append(line)
            return
        first = self.line - len(self._open)
        record = b"\n".join((*self._open, line)).removesuffix(b"\r")
        self._open.clear()
        self._size = 0
        if first == 1:
            record = record.removeprefix(BOM)
        if not record or record.isspace():
            return
        if self._names is None:
            self._names = self._header(record)
            return
        self.read += 1
        try:
            yield first, self._row(record)
        except Problem as problem:
            yield LineError(first, _told(problem))

    def _header(self, record: bytes) -> list[str]:
        names = [name.strip() for name in _fields(record)]
        if len(names) > COLUMNS:
            raise Invalid(f"the header names more than {COLUMNS} columns")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Invalid(f"the header names a column twice: {', '.join(twice)[:200]}")
        missing = [name for name in self._required if name not in names]
        if missing:
            raise Invalid(f"the header names no column {', '.join(missing)}")
        return names

    def _row(self, record: bytes) -> Struct:
        assert self._names is not None  # noqa: S101 - the header came first
        fields = _fields(record)
        if len(fields) != len(self._names):
            raise Invalid(f"has {len(fields)} fields, the header names {len(self._names)}")
        values = {
            name: value
            for name, field in zip(self._names, fields, strict=True)
            if name in self._known and (value := field.strip())
        }
        for name in self._booleans & values.keys():
            values[name] = _BOOLEANS.get(values[name].lower(), values[name])
        if b'""' in record:
            for name, found in zip(self._names, _FIELD.finditer(record.decode()), strict=False):
                if found["quoted"] == '""' and name in self._empty:
                    values[name] = ""
        return self._query.convert(values)


# The second and third are what others call the first.
MEDIA: dict[bytes, type[Lines] | type[Table]] = {
    b"application/x-ndjson": Lines,
    b"application/ndjson": Lines,
    b"application/jsonl": Lines,
    b"text/csv": Table,
}


def reader(struct: type[Struct], content_type: bytes | None, limit: int) -> Lines | Table:
    """What reads a file of this type; `limit` is in bytes, of a line.

    Raises:
        Unsupported: it is neither NDJSON nor CSV, or not in UTF-8.
    """
    media = utf_8_media_type(content_type or b"")
    if media in MEDIA:
        return MEDIA[media](struct, limit)
    raise Unsupported(
        "send the file as application/x-ndjson or text/csv, in UTF-8",
        headers=((b"accept-post", b"application/x-ndjson, text/csv"),),
    )


def _fields(record: bytes) -> Sequence[str]:
    try:
        found: list[str] = next(csv.reader([record.decode()], strict=True))
    except UnicodeDecodeError as error:
        raise Invalid(f"not UTF-8 at byte {error.start}") from None
    except csv.Error as error:
        raise Invalid(f"not CSV: {error}") from None
    return found


def _may_be_empty(kind: Any) -> bool:
    try:
        msgspec.convert("", kind)
    except (msgspec.ValidationError, TypeError):
        return False
    return True


def _trailer(line: bytes) -> Trailer | None:
    try:
        return msgspec.json.decode(line, type=Trailer)
    except msgspec.DecodeError:
        return None


def _not_whole(line: int, message: str) -> InvalidLines:
    return InvalidLines("the file is not whole; nothing was written", [LineError(line, message)])


def _too_long(line: int, limit: int) -> TooLarge:
    return TooLarge(f"line {line} is longer than {limit} bytes")


def _told(problem: Problem) -> str:
    """As it is told of a line, not of a body."""
    return problem.detail.removeprefix("the body is ").removeprefix("the body ")
