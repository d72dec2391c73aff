"""CSV (RFC 4180): a header line with the names of the columns, then a row per record."""

import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from service.errors import Invalid, Problem
from service.web.lines import BOM, Reader, Row, too_long
from service.web.wire import Query

COLUMNS = 100
# As PostgreSQL's COPY writes them.
_BOOLEANS = {"t": "true", "f": "false"}

# A field: in quotes, where a quote is doubled; else a quote is text, unless it is the first.
_FIELD = rb'(?:"(?:[^"]++|"")*+"|(?!")[^,]*+)'
_CLOSED = re.compile(rb"%b(?:,%b)*+" % (_FIELD, _FIELD))
# Fields, and a quote that the lines after it may close.
_OPEN = re.compile(rb'(?:%b,)*+"(?:[^"]++|"")*+' % _FIELD)
UNCLOSED = "not CSV: a quote that opens a field is not closed"
BEHIND = "not CSV: text behind a closing quote; a quote within quotes must be doubled"
_FIELDS = re.compile(r'(?:^|,)(?:(")((?:[^"]++|"")*+)"|([^,]*+))')


class Table(Reader):
    """Reads CSV.

    Columns that the Struct does not know are passed over, fields that are empty take their
    default; an empty text that is no default is in quotes, as PostgreSQL writes it. A quote that
    is never closed spoils its own line only: the lines after it are read again without it.

    Args:
        struct: what a record holds.
        limit: bytes of a record.
    """

    def __init__(self, struct: type[Struct], limit: int) -> None:
        super().__init__(limit)
        self._query = Query(struct)
        self._names: list[str] | None = None
        self._width = 0  # columns of the header, those without a name included
        self._known = frozenset(struct.__struct_fields__)
        self._required = [one.name for one in msgspec.structs.fields(struct) if one.required]
        hints = get_type_hints(struct, include_extras=True)
        self._empty = frozenset(name for name, kind in hints.items() if _may_be_empty(kind))
        self._booleans = frozenset(
            n for n, kind in hints.items() if bool in (kind, *get_args(kind))
        )
        self._rest = b""  # a line whose end has not come
        self._open: list[bytes] = []  # lines of a record that has a quote open
        self._size = 0  # bytes of these
        self._seen = self._again = 0  # bytes that came, and bytes that were read again

    def feed(self, data: bytes) -> Iterator[Row | None]:
        """The rows of the records that end in it, and None for each that is wrong.

        Raises:
            TooLarge: a line is too long.
            Invalid: the header is wrong.
        """
        self._seen += len(data)
        whole = self._rest + data
        # A line may end with CR, LF or both: whether CR is the whole of it, the next byte tells.
        if whole.endswith(b"\r"):
            end = len(whole) - 1
            end = max(whole.rfind(b"\n", 0, end), whole.rfind(b"\r", 0, end)) + 1
        else:
            end = max(whole.rfind(b"\n"), whole.rfind(b"\r")) + 1
        self._rest = whole[end:]
        if end:
            yield from self._lines(whole[:end].splitlines(keepends=True))
        if len(self._rest) > self.limit:
            raise too_long(self.line + 1, self.limit)

    def end(self) -> Iterator[Row | None]:
        """The row of the last record, where nothing ends it.

        Raises:
            Invalid: there is no header.
        """
        block, self._rest = self._rest, b""
        lines = block.splitlines(keepends=True)
        while lines or self._open:
            yield from self._lines(lines or self._unclosed())
            lines = []
        if self._names is None:
            raise Invalid("the file is empty: its first line must name the columns")

    def _lines(self, lines: list[bytes]) -> Iterator[Row | None]:
        lines.reverse()
        while lines:
            line = lines.pop()
            self.line += 1
            if not self._open and b'"' not in line:
                record = line.rstrip(b"\r\n")
                if len(record) > self.limit:
                    raise too_long(self.line, self.limit)
                if record and not record.isspace():
                    yield self._record(record, self.line)
                continue
            within = bool(self._open)
            self._open.append(line)
            self._size += len(line)
            ends = line.rstrip(b"\r\n")
            if within and self._size <= self.limit and b'"' not in line:
                continue
            if within:
                ends = b'"' + ends
            if _CLOSED.fullmatch(ends):
                record = b"".join(self._open).rstrip(b"\r\n")
                first = self.line - len(self._open) + 1
                self._close()
                if len(record) > self.limit:
                    raise too_long(first, self.limit)
                yield self._record(record, first)
            elif self._size > self.limit or not _OPEN.fullmatch(ends):
                lines += reversed(self._unclosed(UNCLOSED if within else BEHIND))
                yield None

    def _close(self) -> None:
        self._open.clear()
        self._size = 0

    def _unclosed(self, what: str = UNCLOSED) -> list[bytes]:
        """The first line of an open record is wrong; return those behind it, to be read again."""
        first = self.line - len(self._open) + 1
        wrong, *again = self._open
        if len(wrong) > self.limit:
            raise too_long(first, self.limit)
        if self._names is None:
            raise Invalid(f"the header is {what}")
        self._again += self._size - len(wrong)
        if self._again > self._seen + self.limit:
            raise Invalid(f"line {first} is {what}; so are too many lines before it")
        self._close()
        self.line = first
        self.read += 1
        self.fail(first, what)
        return again

    def _record(self, record: bytes, line: int) -> Row | None:
        if line == 1:
            record = record.removeprefix(BOM)
            if not record or record.isspace():
                return None
        if self._names is None:
            self._names = self._header(record)
            return None
        self.read += 1
        if self.known_wrong(record):
            return None
        try:
            return line, self._row(record)
        except Problem as problem:
            self.fail(line, problem.detail, record)
            return None

    def _header(self, record: bytes) -> list[str]:
        names = [name.strip() for _, name in _fields(record)]
        if len([name for name in names if name]) > COLUMNS:
            raise Invalid(f"the header names more than {COLUMNS} columns")
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise Invalid(f"the header names a column twice: {', '.join(twice)[:200]}")
        missing = [name for name in self._required if name not in names]
        if missing:
            raise Invalid(f"the header names no column {', '.join(missing)}")
        self._width = len(names)
        while names and not names[-1]:  # spreadsheets write more commas than there are columns
            names.pop()
        return names

    def _row(self, record: bytes) -> Struct:
        assert self._names is not None  # noqa: S101 - the header came first
        fields = _fields(record)
        names = self._names
        count = len(fields)
        if count != len(names):
            more = fields[len(names) :]
            if count < len(names) or (count > self._width and any(text for _, text in more)):
                raise Invalid(f"has {count} fields, the header names {len(names)}")
        values = {}
        for name, (quoted, field) in zip(names, fields, strict=False):
            if name in self._known:
                value = field.strip()
                if value or (quoted and not field and name in self._empty):
                    values[name] = value
        for name in self._booleans & values.keys():
            values[name] = _BOOLEANS.get(values[name].lower(), values[name])
        return self._query.convert(values)


def _fields(record: bytes) -> list[tuple[str, str]]:
    """Of each field whether it is in quotes, and its text."""
    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"not UTF-8 at byte {error.start}") from None
    if '"' not in text:
        return [("", field) for field in text.split(",")]
    return [
        (quote, quoted.replace('""', '"') if quote else plain)
        for quote, quoted, plain in _FIELDS.findall(text)
    ]


def _may_be_empty(kind: Any) -> bool:
    try:
        msgspec.convert("", kind)
    except (msgspec.ValidationError, TypeError):
        return False
    return True
