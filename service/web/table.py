"""Read CSV (RFC 4180): a header line with the column names, then one record per row."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from service.errors import Invalid, Problem
from service.web.codec import Query
from service.web.row_readers import BOM, MAX_REPORTED, Reader, Row, too_long

# Named columns, and fields of a record (16,384 is the limit of spreadsheets).
COLUMNS, FIELDS = 100, 16_384
# Bytes to split into lines at once.
STEP = 8192
# PostgreSQL's COPY writes booleans as t and f.
_BOOLEANS = {"t": "true", "f": "false"}

# A field. A quoted field doubles its quotes; in others a quote after the first character is text.
_FIELD = rb'(?:"(?:[^"]++|"")*+"|(?!")[^,]*+)'
_CLOSED = re.compile(rb"%b(?:,%b)*+" % (_FIELD, _FIELD))
# Fields, the last with an open quote that a later line may close.
_OPEN = re.compile(rb'(?:%b,)*+"(?:[^"]++|"")*+' % _FIELD)
UNCLOSED = "not CSV: a quote that opens a field is not closed"
BEHIND = "not CSV: text after a closing quote; a quote inside quotes must be doubled"
_FIELDS = re.compile(r'(?:^|,)(?:(")((?:[^"]++|"")*+)"|([^,]*+))')


class CsvReader(Reader):
    """Reads CSV.

    Unknown columns are ignored. An empty field means the default; an empty string is written as
    `""`, as PostgreSQL does. A quote that is never closed makes only its own line wrong: the lines
    after it are parsed again.

    Args:
        struct: type of a record.
        limit: maximum bytes of a record.
    """

    def __init__(self, struct: type[Struct], limit: int) -> None:
        super().__init__(limit)
        self._query = Query(struct)
        self._names: list[str] | None = None
        self._width = 0  # columns of the header, with those that have no name
        self._known = frozenset(struct.__struct_fields__)
        self._required = [one.name for one in msgspec.structs.fields(struct) if one.required]
        hints = get_type_hints(struct, include_extras=True)
        self._empty = frozenset(name for name, kind in hints.items() if _may_be_empty(kind))
        self._booleans = frozenset(
            n for n, kind in hints.items() if bool in (kind, *get_args(kind))
        )
        self._text = b""  # from the start of the incomplete record
        self._at = 0  # offset in the text: the next line
        self._open = 0  # lines so far of a record with an open quote
        self._first = 0  # bytes of the first of these lines
        self._seen = self._again = 0  # bytes received, and bytes parsed again

    def feed(self, data: bytes) -> Iterator[Row | None]:
        """Yield the row of each record that ends in `data`, and None for other lines.

        Raises:
            TooLarge: a line is too long.
            Invalid: the header is wrong.
        """
        self._seen += len(data)
        self._text += data
        yield from self._records()
        if len(self._text) - self._at > self.limit:
            raise too_long(self.line + 1, self.limit)

    def end(self) -> Iterator[Row | None]:
        """Yield the row of a last record without a line end.

        Raises:
            Invalid: the file has no header.
        """
        self._text += b"\n"
        yield from self._records()
        while self._open:
            self._go_back(UNCLOSED)
            yield from self._records()
        if self._names is None:
            raise Invalid("the file is empty: its first line must name the columns")

    def _records(self) -> Iterator[Row | None]:
        begin = 0 if self._open else self._at  # offset of the record
        while (end := self._end_of_lines()) > self._at:
            for line in self._text[self._at : end].splitlines(keepends=True):
                self.line += 1
                self._at += len(line)
                if self.line == 1:
                    line = line.removeprefix(BOM)  # noqa: PLW2901 - no other line has one
                quoted = b'"' in line
                continued = self._open > 0
                if quoted or continued:
                    self._open += 1
                    if not continued:
                        self._first = len(line)
                    too_much = self._at - begin > self.limit
                    ends = (b'"' + line if continued else line).rstrip(b"\r\n")
                    if not (quoted and _CLOSED.fullmatch(ends)):
                        if too_much or (quoted and not _OPEN.fullmatch(ends)):
                            end = self._at
                            begin = self._go_back(UNCLOSED if continued else BEHIND, begin)
                            yield None
                            if begin < end:
                                break
                            continue
                        yield None
                        continue
                record = self._text[begin : self._at].rstrip(b"\r\n")
                first = self.line - max(self._open - 1, 0)
                if len(record) > self.limit:
                    raise too_long(first, self.limit)
                self._open = 0
                begin = self._at
                blank = not record or record.isspace()
                yield None if blank else self._record(record, first)
        self._text = self._text[begin:]
        self._at -= begin

    def _end_of_lines(self) -> int:
        """Return the end of the lines within the next STEP bytes, or of one longer line."""
        text, at = self._text, self._at
        # A line ends with CR, LF or both. After a CR at the end of the data, wait for more.
        length = len(text) - text.endswith(b"\r")
        stop = min(at + STEP, length)
        end = max(text.rfind(b"\n", at, stop), text.rfind(b"\r", at, stop))
        if end < 0:
            ends = [text.find(b"\n", stop, length), text.find(b"\r", stop, length)]
            end = min((one for one in ends if one >= 0), default=at - 1)
        if text[end : end + 2] == b"\r\n":
            end += 1
        return end + 1

    def _go_back(self, what: str, begin: int = 0) -> int:
        """Report the first line of the open record as wrong, and parse again from the next line."""
        wrong = self.line - self._open + 1
        if self._first > self.limit:
            raise too_long(wrong, self.limit)
        if self._names is None:
            raise Invalid(f"the header is {what}")
        again = self._at - begin - self._first
        self._again += again
        if self._again > self._seen + self.limit:
            raise Invalid(f"line {wrong} is {what}; too many lines before it have the same error")
        self._at -= again
        self._open = 0
        self.line = wrong
        self.read += 1
        self.fail(wrong, what)
        return self._at

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
            row = self._row(record)
            if row is None:
                self.fail(line, "", record)
            return None if row is None else (line, row)
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
            raise Invalid(f"the header lacks a required column: {', '.join(missing)}")
        self._width = len(names)
        while names and not names[-1]:  # spreadsheets add commas after the last column
            names.pop()
        return names

    def _row(self, record: bytes) -> Struct | None:
        """Return the row; None if it is wrong and enough errors were reported."""
        assert self._names is not None  # noqa: S101 - the header is read before rows
        fields = _fields(record)
        names = self._names
        extra = any(text for _, text in fields[self._width :])
        if len(fields) < len(names) or extra:
            raise Invalid(f"has {len(fields)} fields, the header names {len(names)}")
        values = {}
        for name, (quoted, field) in zip(names, fields, strict=False):
            if name in self._known:
                value = field.strip()
                if value or (quoted and not field and name in self._empty):
                    values[name] = value
        for name in self._booleans & values.keys():
            values[name] = _BOOLEANS.get(values[name].lower(), values[name])
        return (self._query.quick if len(self.errors) >= MAX_REPORTED else self._query.convert)(
            values
        )


def _fields(record: bytes) -> list[tuple[str, str]]:
    """Return for each field its opening quote, if any, and its text."""
    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"not UTF-8 at byte {error.start}") from None
    if '"' not in text:
        fields = [("", field) for field in text.split(",", FIELDS)]
    elif text.count(",") <= FIELDS:
        fields = [_unquoted(*found) for found in _FIELDS.findall(text)]
    else:  # some commas may be inside quotes
        some = islice(_FIELDS.finditer(text), FIELDS + 1)
        fields = [_unquoted(*found.groups("")) for found in some]
    if len(fields) > FIELDS:
        raise Invalid(f"has more than {FIELDS} fields")
    return fields


def _unquoted(quote: str, quoted: str, plain: str) -> tuple[str, str]:
    # `in` first: in a long text without quotes it takes a tenth of the time of `replace`.
    return quote, quoted.replace('""', '"') if '"' in quoted else quoted or plain


def _may_be_empty(kind: Any) -> bool:
    try:
        msgspec.convert("", kind)
    except (msgspec.ValidationError, TypeError):
        return False
    return True
