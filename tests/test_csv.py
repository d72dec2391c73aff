"""CSV (RFC 4180): the same rows as other readers, and an error loses only its own line."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from service.errors import Invalid, LineError, Problem
from service.items.structs import NewItem
from service.web.table import BEHIND, UNCLOSED, CsvReader

Fields = list[str]


class Three(Struct):
    """A record of any strings."""

    a: str | None = None
    b: str | None = None
    c: str | None = None


def read(
    data: bytes, sizes: list[int] | None = None, limit: int = 10_000
) -> tuple[list[tuple[int, Fields]], list[LineError]]:
    """Return rows with their line numbers, and errors; the data arrives in parts of `sizes`."""
    table = CsvReader(Three, limit)
    rows = []
    start = 0
    for size in [*(sizes or []), len(data) + 1]:
        rows += [row for row in table.feed(data[start : start + size]) if row]
        start += size
    rows += [row for row in table.end() if row]
    assert table.read == len(rows) + table.failed
    fields = [
        (line, [(getattr(row, name) or "").strip() for name in ("a", "b", "c")])
        for line, row in rows
    ]
    return fields, table.errors


# Difficult characters, some in quotes without need.
texts = st.text(st.sampled_from('ab", \n\r\u00e9'), max_size=8)
records = st.lists(st.tuples(texts, texts, texts), max_size=6)
cuts = st.lists(st.integers(1, 9), max_size=12)


def written(record: tuple[str, ...], always: bool) -> str:
    fields = []
    for field in record:
        needed = any(one in field for one in ",\r\n") or field.startswith('"')
        fields.append('"' + field.replace('"', '""') + '"' if needed or always else field)
    return ",".join(fields)


@given(records, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), cuts)
@settings(max_examples=300, deadline=None)
def test_other_readers_give_the_same_rows(
    rows: list[tuple[str, ...]], always: bool, newline: str, last: bool, sizes: list[int]
) -> None:
    text = newline.join(["a,b,c", *(written(row, always) for row in rows)]) + newline * last
    others = list(csv.reader(io.StringIO(text, newline="")))[1:]
    stripped = [[field.strip() for field in row] for row in others if len(row) == 3]
    found, errors = read(text.encode(), sizes)
    assert [fields for _, fields in found] == stripped
    assert not errors


@given(st.text(st.sampled_from('ab,"\n\r'), max_size=40), cuts)
@settings(max_examples=500, deadline=None)
def test_chunk_boundaries_make_no_difference(text: str, sizes: list[int]) -> None:
    data = b"a,b,c\n" + text.encode()
    assert read(data, sizes) == read(data)


def test_a_quote_inside_a_field_is_text() -> None:
    good = [b"%d,x,y" % n for n in range(1000)]
    rows, errors = read(b"\n".join([b"a,b,c", b'U6,5" pipe,', *good]))
    assert len(rows) == 1001
    assert rows[0] == (2, ["U6", '5" pipe', ""])
    assert not errors


@pytest.mark.parametrize(
    ("body", "lines", "wrong"),
    (
        (b'1,"open,x\n2,,\n3,,\n', [3, 4], {2: UNCLOSED}),
        (b'1,"open,x\n2,"b",\n3,,\n', [3, 4], {2: UNCLOSED}),
        (b'1,"open,x\n2,"open,y\n3,,\n4,"open', [4], {2: UNCLOSED, 3: UNCLOSED, 5: UNCLOSED}),
        (b'1,"a"b,\n2,,\n', [3], {2: BEHIND}),
        (b'1,"a" ,\n2,,\n', [3], {2: BEHIND}),
        (b'1,"two\nlines",\n2,,\n', [2, 4], {}),
        (b"1,,\n\n \n2,,\r\n3,,\r4,,", [2, 5, 6, 7], {}),
        (b'"1","5"" pipe",""\n', [2], {}),
    ),
    ids=("to the end", "to a quote", "three", "text", "space", "two lines", "line ends", "doubled"),
)
def test_a_wrong_quote_makes_only_its_own_line_wrong(
    body: bytes, lines: list[int], wrong: dict[int, str]
) -> None:
    rows, errors = read(b"a,b,c\n" + body)
    assert [line for line, _ in rows] == lines
    assert {error.line: error.message for error in errors} == wrong


def test_the_search_for_a_closing_quote_stops_at_the_line_limit() -> None:
    body = b'a,b,c\n1,"open,\n' + b"2,x,\n" * 1000
    rows, errors = read(body, [7] * 100, limit=100)
    assert len(rows) == 1000
    assert [error.line for error in errors] == [2]
    with pytest.raises(Problem, match="line 3 is longer than 100 bytes"):
        read(b"a,b,c\n1,,\n" + b"x" * 101, limit=100)
    with pytest.raises(Problem, match="line 2 is longer than 100 bytes"):
        read(b'a,b,c\n"' + b"x" * 101 + b'",,\n1,,\n', limit=100)


def test_a_file_of_open_quotes_is_not_parsed_again_without_limit() -> None:
    with pytest.raises(Invalid, match="too many lines before it"):
        read(b"a,b,c\n" + b'a","b\n' * 1000, limit=500)


@pytest.mark.parametrize(
    ("header", "record", "message"),
    (
        (b"a,b,,", b"1,2,,", None),
        (b"a,b,,", b"1,2,note,", None),
        (b"a,b,,", b"1,2", None),
        (b"a,b", b"1,2,,", None),
        (b"a,,b", b"1,x,2", None),
        (b"a,b,,", b"1,2,,,more", "has 5 fields, the header names 2"),
        (b"a,b", b"1", "has 1 fields, the header names 2"),
        (b"a,b,,", b"1", "has 1 fields, the header names 2"),
        (b"a,b", b"1,2,3", "has 3 fields, the header names 2"),
    ),
)
def test_columns_without_a_name_are_ignored(
    header: bytes, record: bytes, message: str | None
) -> None:
    rows, errors = read(header + b"\n" + record + b"\n")
    assert [error.message for error in errors] == ([] if message is None else [message])
    assert rows == ([(2, ["1", "2", ""])] if message is None else [])


def test_a_repeated_column_is_named() -> None:
    with pytest.raises(Invalid, match=r"the header names a column twice: a$"):
        read(b"a,,b,,a\n")
    with pytest.raises(Invalid, match="header is not CSV"):
        read(b'a,"b\n1,2\n')
    table = CsvReader(NewItem, 100)
    with pytest.raises(Invalid, match="lacks a required column: name"):
        list(table.feed(b"sku,,\n"))


def test_a_byte_order_mark_is_not_part_of_the_header() -> None:
    for header in (b"a,b,c", b'"a","b","c"'):
        rows, _ = read(b"\xef\xbb\xbf" + header + b"\r\n1,2,3", [1, 1, 1, 1])
        assert rows == [(2, ["1", "2", "3"])]


def test_errors_of_csv_have_our_own_messages() -> None:
    rows, errors = read(b"a,b,c\n\xff,,\n1,\0,\n")
    assert not rows
    assert [error.message for error in errors] == [
        "not UTF-8 at byte 0",
        "b: holds a NUL character",
    ]
