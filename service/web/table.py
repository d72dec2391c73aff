"""CSV (RFC 4180): a header line with the names of the columns, then a row per record."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from service.errors import Invalid, Problem
from service.web.codec import Query
from service.web.row_readers import BOM, TOLD, Reader, Row, too_long

# Columns with names, and fields of a record: as many as spreadsheets have columns.
COLUMNS, FIELDS = 100, 16_384
# Bytes that are split into lines at once.
STEP = 8192
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
        self._text = b""  # from the record on that is not whole
        self._at = 0  # in the text: where the next line begins
        self._open = 0  # lines of the record so far, which has a quote open
        self._first = 0  # bytes of the first of them
        self._seen = self._again = 0  # bytes that came, and bytes that are read again

    def feed(self, data: bytes) -> Iterator[Row | None]:
        """The rows of the records that end in it, and None for each line that makes none.

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
        """The row of the last record, where nothing ends it.

        Raises:
            Invalid: there is no header.
        """
        self._text += b"\n"
        yield from self._records()
        while self._open:
            self._go_back(UNCLOSED)
            yield from self._records()
        if self._names is None:
            raise Invalid("the file is empty: its first line must name the columns")

    def _records(self) -> Iterator[Row | None]:
        begin = 0 if self._open else self._at  # of the record
        while (end := self._end_of_lines()) > self._at:
            for line in self._text[self._at : end].splitlines(keepends=True):
                self.line += 1
                self._at += len(line)
                if self.line == 1:
                    line = line.removeprefix(BOM)  # noqa: PLW2901 - no other line has one
                quoted = b'"' in line
                within = self._open > 0
                if quoted or within:
                    self._open += 1
                    if not within:
                        self._first = len(line)
                    too_much = self._at - begin > self.limit
                    ends = (b'"' + line if within else line).rstrip(b"\r\n")
                    if not (quoted and _CLOSED.fullmatch(ends)):
                        if too_much or (quoted and not _OPEN.fullmatch(ends)):
                            end = self._at
                            begin = self._go_back(UNCLOSED if within else BEHIND, begin)
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
        """Where in the text the next lines end: as many as STEP bytes hold, or a long one."""
        text, at = self._text, self._at
        # A line may end with CR, LF or both: behind a CR, the next byte tells.
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
        """The first line of the open record is wrong: go on with the one behind it."""
        wrong = self.line - self._open + 1
        if self._first > self.limit:
            raise too_long(wrong, self.limit)
        if self._names is None:
            raise Invalid(f"the header is {what}")
        again = self._at - begin - self._first
        self._again += again
        if self._again > self._seen + self.limit:
            raise Invalid(f"line {wrong} is {what}; so are too many lines before it")
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
            raise Invalid(f"the header names no column {', '.join(missing)}")
        self._width = len(names)
        while names and not names[-1]:  # spreadsheets write more commas than there are columns
            names.pop()
        return names

    def _row(self, record: bytes) -> Struct | None:
        """The row; None if it is wrong, and enough lines were told of."""
        assert self._names is not None  # noqa: S101 - the header came first
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
        return (self._query.quick if len(self.errors) >= TOLD else self._query.convert)(values)


def _fields(record: bytes) -> list[tuple[str, str]]:
    """Of each field whether it is in quotes, and its text."""
    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"not UTF-8 at byte {error.start}") from None
    if '"' not in text:
        fields = [("", field) for field in text.split(",", FIELDS)]
    elif text.count(",") <= FIELDS:
        fields = [_unquoted(*found) for found in _FIELDS.findall(text)]
    else:  # some of the commas may be within quotes
        some = islice(_FIELDS.finditer(text), FIELDS + 1)
        fields = [_unquoted(*found.groups("")) for found in some]
    if len(fields) > FIELDS:
        raise Invalid(f"has more than {FIELDS} fields")
    return fields


def _unquoted(quote: str, quoted: str, plain: str) -> tuple[str, str]:
    # To look for one quote first takes a tenth of the time, in a long text without any.
    return quote, quoted.replace('""', '"') if '"' in quoted else quoted or plain


def _may_be_empty(kind: Any) -> bool:
    try:
        msgspec.convert("", kind)
    except (msgspec.ValidationError, TypeError):
        return False
    return True
