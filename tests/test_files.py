"""Import and export of files of items, by endpoint and by command, and their errors."""

import asyncio
import csv
import functools
import gzip
import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]  # it has no stubs
import pytest
from conftest import ROOT, SERVER, Query, Service

from service.embedded.data_directory import Stores
from service.errors import TooSlow
from service.web import request, upload

NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}
GZIP = {"Content-Encoding": "gzip"}
COUNTS = ("read", "created", "updated", "unchanged", "failed")
BOM = b"\xef\xbb\xbf"
# Without the time, which would be in the ids of the tests.
gzipped = functools.partial(gzip.compress, mtime=0)
DAMAGED = gzipped(b'{"name": "a"}')[:-8] + bytes(8)
AWAY = "application_name LIKE 'swiftlet%' AND query ~ 'COPY|stage|items'"


def lines(rows: Iterable[Mapping[str, object]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def give(
    client: httpx.Client, body: Any, headers: Mapping[str, str] = NDJSON, **query: str
) -> httpx.Response:
    return client.post("/items/import", content=body, headers=headers, params=query)


def counts(response: httpx.Response) -> tuple[int, ...]:
    assert response.status_code == 200, response.text
    told = response.json()
    return tuple(told[name] for name in COUNTS)


def errors(response: httpx.Response) -> list[tuple[int, str]]:
    return [(one["line"], one["message"]) for one in response.json()["errors"]]


def rows(client: httpx.Client, **query: str) -> list[dict[str, Any]]:
    response = client.get("/items/export", params=query)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def chunked(body: bytes, size: int, pause: float = 0.0) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
        time.sleep(pause)


def eventually(test: Callable[[], object], seconds: float = 5) -> None:
    started = time.monotonic()
    while not test():
        assert time.monotonic() - started < max(seconds, 30)
        time.sleep(0.02)


# Imports.


def test_new_rows_get_ids_in_the_order_of_the_file(client: httpx.Client) -> None:
    made = [{"name": f"{n}", **({"sku": f"S{n}"} if n % 3 else {})} for n in range(1000)]
    random.Random(1).shuffle(made)
    assert counts(give(client, lines(made)))[1] == 1000
    found = rows(client)
    assert [row["name"] for row in found] == [row["name"] for row in made]
    assert client.post("/items", json={"name": "next"}).json()["id"] > found[-1]["id"]


def test_every_way_to_send_a_file_has_the_same_result(client: httpx.Client) -> None:
    body = lines({"sku": f"B{n}", "name": f"Item {n} \u00e9\u20ac"} for n in range(3000))
    assert counts(give(client, body)) == (3000, 3000, 0, 0, 0)
    two = gzipped(body[:1000]) + gzipped(body[1000:])
    crlf = body.replace(b"\n", b"\r\n")
    for sent, headers in (
        (chunked(body, 997), NDJSON),
        (gzipped(body), {**NDJSON, **GZIP}),
        (chunked(gzipped(body), 100), {**NDJSON, **GZIP}),
        (two, {**NDJSON, **GZIP}),
        (BOM + body, NDJSON),
        (crlf, NDJSON),
        (body.replace(b"\n", b"\n\n \n"), NDJSON),
        (body.rstrip(), NDJSON),
        (body, {"Content-Type": "application/jsonl; charset=UTF-8"}),
    ):
        assert counts(give(client, sent, headers)) == (3000, 0, 0, 3000, 0)


def test_a_line_has_the_same_rules_as_a_body(client: httpx.Client) -> None:
    body = lines([{"name": "  Good  ", "price": 29.99, "unknown": 1}])
    assert counts(give(client, body)) == (1, 1, 0, 0, 0)
    assert rows(client)[0]["name"] == "Good"
    assert rows(client)[0]["price"] == 29.99
    bad = [
        (b"{", "not JSON"),
        (b'{"name": "a\xff"}', "not UTF-8 at byte 11"),
        (b'{"name": ""}', "name: "),
        (b'{"price": 1}', "name: required, but missing"),
        (b'{"name": "a", "price": -1}', "price: "),
        (b'{"name": "a", "price": 0.00001}', "price: "),
        (b'{"name": "a", "price": NaN}', "NaN is not a number"),
        (b'{"name": "a\\u0000"}', "name: holds a NUL"),
        (b'{"name": "a\\ud800"}', "name: holds a NUL character or a lone surrogate"),
        (b"[]", "xpected `object`"),
        (b"[" * 100_000, "nested too deep"),
    ]
    response = give(client, b"\n".join(line for line, _ in bad), on_error="skip")
    assert counts(response) == (len(bad), 0, 0, 0, len(bad))
    for number, ((line, said), (_, found)) in enumerate(zip(errors(response), bad, strict=True)):
        assert line == number + 1
        assert found in said


def test_wrong_lines_abort_the_import_or_are_skipped(client: httpx.Client, sql: Query) -> None:
    (owner,) = sql("INSERT INTO users (email, username) VALUES ('a@b.c', 'ada') RETURNING id")
    body = lines(
        [
            {"sku": "1", "name": "good", "owner_id": owner[0]},
            {"sku": "2"},
            {"sku": "3", "name": "no such owner", "owner_id": 10**9},
            {"sku": "4", "name": "first"},
            {"sku": "4", "name": "second"},
            {"sku": "3", "name": "again, and now right"},
            {"sku": "5", "name": "good"},
        ]
    )
    told = [
        (2, "name: required, but missing"),
        (3, "owner_id: 1000000000 does not exist"),
        (5, "sku: the same as in line 4"),
    ]
    response = give(client, body)
    assert response.status_code == 422
    assert errors(response) == told[:1], "errors of parsing come first"
    response = give(client, body.replace(b'{"sku": "2"}', b'{"name": "now good"}'))
    assert response.status_code == 422
    assert errors(response) == told[1:]
    assert "nothing was written" in response.json()["detail"]
    assert rows(client) == []
    response = give(client, body, on_error="skip")
    assert counts(response) == (7, 4, 0, 0, 3)
    assert errors(response) == told
    assert [row["name"] for row in rows(client)] == [
        *("good", "first", "again, and now right", "good")
    ]
    assert client.get("/items").json()["total"] == 4


def test_the_first_hundred_errors_are_reported(client: httpx.Client) -> None:
    body = lines([{"name": "good"}, *({"price": n} for n in range(5000))])
    response = give(client, body, on_error="skip")
    assert counts(response) == (5001, 1, 0, 0, 5000)
    assert [line for line, _ in errors(response)] == list(range(2, 102))
    response = give(client, body)
    assert response.status_code == 422
    assert len(errors(response)) == 100
    twice = lines([{"sku": "same", "name": "x"}] * 300)
    assert counts(give(client, twice, on_error="skip")) == (300, 1, 0, 0, 299)


# CSV.


def test_a_csv_has_a_header_and_nulls(client: httpx.Client) -> None:
    body = (
        "description,NOTHING,name ,price,is_active,sku\r\n"
        '"with ""quotes"", a comma\nand a line",x,First,1.50,false,S1\r\n'
        ',,"Second",,,\r\n'
        '"",,Third,,t,S3\r\n'
        '"","","Fourth","","",""\r\n'
        "\r\n"
        "a \U0001f426,,Fifth,2,FALSE,S5"
    ).encode()
    for sent in (body, BOM + body):
        client.request("GET", "/items")
        response = give(client, chunked(sent, 7), CSV, on_error="skip")
        assert errors(response) == []
    found = [
        (row["name"], row["description"], row["price"], row["is_active"], row["sku"])
        for row in rows(client)
    ]
    assert found[:5] == [
        ("First", 'with "quotes", a comma\nand a line', 1.5, False, "S1"),
        ("Second", None, None, True, None),
        ("Third", "", None, True, "S3"),
        ("Fourth", "", None, True, None),
        ("Fifth", "a \U0001f426", 2, False, "S5"),
    ]
    assert len(found) == 7, "rows without a sku were inserted twice"


def test_errors_of_a_csv_name_the_line(client: httpx.Client) -> None:
    body = (
        b"name,price,owner_id\n"
        b"good,1,\n"
        b"too,many,fields,here\n"
        b"few\n"
        b"a,one,\n"
        b"\xff,1,\n"
        b'"a\nb",-1,\n'
        b'"a"b,1,\n'
        b"a,1,1.5\n"
        b",1,\n"
        b'"open,1,\n'
        b"a,1,"
    )
    response = give(client, body, CSV, on_error="skip")
    assert counts(response) == (11, 2, 0, 0, 9)
    told = dict(errors(response))
    assert told[3] == "has 4 fields, the header names 3"
    assert told[4] == "has 1 fields, the header names 3"
    assert told[5].startswith("price: ")
    assert told[6] == "not UTF-8 at byte 0"
    assert told[7].startswith("price: "), "the first line of the record"
    assert told[9].startswith("not CSV: ")
    assert "whole number" in told[10]
    assert told[11] == "name: required, but missing"
    assert told[12].startswith("not CSV: ")


@pytest.mark.parametrize(
    ("body", "said"),
    (
        (b"", "empty"),
        (b"\n\n", "empty"),
        (BOM, "empty"),
        (b"price,sku\n1,a\n", "lacks a required column: name"),
        (b"name,sku,name\n", "twice: name"),
        (b"name," + b",".join(b"c%d" % n for n in range(100)), "more than 100 columns"),
        (b'name,"sku\n', "not CSV"),
        (b"name,\xff\n", "not UTF-8"),
    ),
)
def test_a_header_that_is_wrong_is_422(client: httpx.Client, body: bytes, said: str) -> None:
    response = give(client, body, CSV, on_error="skip")
    assert response.status_code == 422
    assert said in response.json()["detail"]


def test_a_file_without_rows_changes_nothing(client: httpx.Client) -> None:
    for body, headers in ((b"", NDJSON), (b"\n \n", NDJSON), (b"name,price\n", CSV)):
        assert counts(give(client, body, headers)) == (0, 0, 0, 0, 0)


# Limits, and hostile bodies.


@pytest.mark.parametrize(
    ("headers", "body", "status", "said"),
    (
        ({}, b"{}", 415, "application/x-ndjson"),
        ({"Content-Type": "application/json"}, b"{}", 415, "application/x-ndjson"),
        ({"Content-Type": "text/csv; charset=latin-1"}, b"name\n", 415, "UTF-8"),
        ({**NDJSON, "Content-Encoding": "br"}, b"{}", 415, "gzip"),
        ({**NDJSON, **GZIP}, b"{}", 400, "not gzip"),
        ({**NDJSON, **GZIP}, b"", 400, "incomplete"),
        ({**NDJSON, **GZIP}, gzipped(b'{"name": "a"}')[:-3], 400, "incomplete"),
        ({**NDJSON, **GZIP}, gzipped(b'{"name": "a"}') + b"x", 400, "bytes after the gzip"),
        ({**NDJSON, **GZIP}, gzipped(b"a") + b"\x1f\x8b", 400, "incomplete"),
        ({**NDJSON, **GZIP}, DAMAGED, 400, "checksum is wrong"),
        ({**NDJSON, **GZIP}, gzipped(b"a")[:10] + b"\xff" * 20, 400, "is damaged"),
        ({**NDJSON, **GZIP}, gzipped(b"\0" * 50_000_000), 413, "line 1 is longer"),
        ({**NDJSON, **GZIP}, gzipped(b"\n" * 50_000_000), 413, "200 times"),
        (NDJSON, b'{"name": "a"}\n' + b" " * 1_100_000, 413, "line 2 is longer than 1048576"),
        (NDJSON, b" " * 1_100_000 + b"\n", 413, "line 1 is longer"),
        (CSV, b"name\n" + b"x" * 1_100_000, 413, "line 2 is longer than 1048576"),
    ),
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_file_is_rejected(
    client: httpx.Client, headers: dict[str, str], body: bytes, status: int, said: str
) -> None:
    response = give(client, body, headers, on_error="skip")
    assert response.status_code == status
    assert said in response.json()["detail"]
    assert rows(client) == []


def test_a_query_that_is_wrong_is_422(client: httpx.Client) -> None:
    assert give(client, b"", on_error="ignore").status_code == 422
    assert give(client, b"", mode="skip").status_code == 422
    for query in ({"format": "xml"}, {"page": "1"}, {"format": "csv", "trailer": "true"}):
        assert client.get("/items/export", params=query).status_code == 422
    assert client.get("/items/import").status_code == 405
    assert client.post("/items/export").headers["allow"] == "GET, HEAD"


@pytest.fixture
def small(
    database_url: str, stores: Stores, tmp_path: Path, client: httpx.Client
) -> Iterator[tuple[Service, httpx.Client]]:
    """A separate service with small limits and empty tables.

    It shares the Redis of the other service; otherwise it would cache nothing.
    """
    service = Service(
        tmp_path / "log",
        DATABASE_URL=database_url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_IMPORT_LIMIT="100000",
    )
    try:
        service.wait_until_ready()
        with httpx.Client(base_url=service.url, timeout=30) as one:
            yield service, one
    finally:
        service.process.kill()
        service.process.wait()


def test_a_file_above_the_limit_is_rejected(small: tuple[Service, httpx.Client]) -> None:
    _, client = small
    body = lines({"name": "x" * 30} for _ in range(4000))
    for sent, headers in (
        (body, NDJSON),
        (chunked(body, 10_000), NDJSON),
        (gzipped(body), {**NDJSON, **GZIP}),
    ):
        response = give(client, sent, headers)
        assert response.status_code == 413
        assert "larger than 100000 bytes" in response.json()["detail"]
    assert counts(give(client, body[:99_000].rpartition(b"\n")[0]))[1] > 2000


# Exports.


def fill(client: httpx.Client, sql: Query) -> list[dict[str, Any]]:
    (owner,) = sql("INSERT INTO users (email, username) VALUES ('a@b.c', 'ada') RETURNING id")
    made = [
        {"sku": "E1", "name": "plain", "price": 29.99, "owner_id": owner[0]},
        {"sku": "E2", "name": 'quo"te, comma', "description": "lines\nand\r\n\ttabs \\ \\N"},
        {"sku": "E3", "name": "\u00e9\u20ac\U0001f426", "description": "", "is_active": False},
        {"sku": "E4", "name": "edge", "price": 9999999999.9999},
        {"sku": "E5", "name": "small", "price": 0.0001},
    ]
    assert counts(give(client, lines(made)))[1] == 5
    client.patch("/items/1", json={"description": "changed"})
    sql("UPDATE items SET created_at = '2026-01-02 03:04:05' WHERE sku = 'E2'")
    return made


def test_an_export_shows_what_the_list_shows(client: httpx.Client, sql: Query) -> None:
    fill(client, sql)
    for query in (
        {},
        {"is_active": "false"},
        {"q": "QUO"},
        {"q": "%_$1'\\"},
        {"owner_id": "1"},
        {"min_price": "1", "max_price": "30.5"},
    ):
        listed = client.get("/items", params={"per_page": 100, **query}).json()["items"]
        response = client.get("/items/export", params=query)
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.headers["content-disposition"] == 'attachment; filename="items.ndjson"'
        found = [json.loads(line) for line in response.text.splitlines()]
        assert found == listed
        assert all(list(row) == list(listed[0]) for row in found)


def test_a_value_has_the_same_form_in_every_response(client: httpx.Client, sql: Query) -> None:
    names = [
        "plain",
        "=1+1",
        'quo"te, comma',
        "\u00e9\u20ac\U0001f426",
        "2026-01-02T03:04:05Z",
        "1",
        '"price":1E+4',
        "E+",
    ]
    prices = [0.10, 1e2, 0.0001, 9999999999.9999, 0, 29.990, 1e4, 123_450_000]
    times = [
        "04:05",
        "04:05.5",
        "04:05.123450",
        "04:05.000001",
        "00:00",
        "59:59.9",
        "01:00",
        "02:00",
    ]
    texts = [None, "", "lines\nand\r\n\ttabs \\ \\N", '"', "1e5", "null", "E+4", "1E+4"]
    given: list[dict[str, object]] = [
        {"sku": f"F{n}", "name": name, "price": price, "description": text, "is_active": n != 3}
        for n, (name, price, text) in enumerate(zip(names, prices, texts, strict=True))
    ]
    assert client.post("/items/bulk", json={"items": given}).status_code == 201
    changed = (
        "UPDATE items SET created_at = $1::text::timestamptz, updated_at = $1::text::timestamptz"
    )
    for n, time_ in enumerate(times):
        sql(f"{changed} WHERE sku = $2", f"2026-01-02 03:{time_}Z", f"F{n}")
    sql("UPDATE items SET price = 0.10 WHERE sku = 'F0'")  # two decimals, by another writer

    fresh = {"cache-control": "no-cache"}
    ids = range(1, 9)
    listed, owned = (
        client.get(f"/items?sort=id{more}", headers=fresh).content.replace(b',"owner":null', b"")
        for more in ("", "&include=owner")
    )
    forms = {
        "read": b",".join(client.get(f"/items/{n}", headers=fresh).content for n in ids),
        "list": listed[listed.index(b"[") + 1 : listed.rindex(b"]")],
        "with owner": owned[owned.index(b"[") + 1 : owned.rindex(b"]")],
        "changed": b",".join(client.patch(f"/items/{n}", json={}).content for n in ids),
        "ndjson": client.get("/items/export").content.rstrip(b"\n").replace(b"\n", b","),
    }
    # Compare numbers as text.
    shown = {
        form: json.loads(b"[%b]" % text, parse_float=str, parse_int=str)
        for form, text in forms.items()
    }
    for form, found in shown.items():
        assert found == shown["read"], form
    assert [row["price"] for row in shown["read"][-2:]] == ["10000", "123450000"]
    for row, time_ in zip(shown["read"], times, strict=True):
        seconds, _, decimals = time_.partition(".")
        assert row["created_at"] == f"2026-01-02T03:{seconds}.{decimals.ljust(6, '0')}Z"
        assert row["updated_at"] == row["created_at"]
    exported = client.get("/items/export?format=csv").text
    for row, line in zip(
        shown["read"], csv.DictReader(io.StringIO(exported, newline="")), strict=True
    ):
        assert line == {
            name: str(value).lower() if isinstance(value, bool) else value or ""
            for name, value in row.items()
        }
    for kind, headers in (("ndjson", NDJSON), ("csv", CSV)):
        file = client.get("/items/export", params={"format": kind}).content
        assert counts(give(client, file, headers)) == (8, 0, 0, 8, 0), kind


def test_other_programs_read_our_csv(client: httpx.Client, sql: Query) -> None:
    made = fill(client, sql)
    response = client.get("/items/export", params={"format": "csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="items.csv"'
    found = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert list(found[0]) == list(client.get("/items/1").json())
    assert [row["name"] for row in found] == [row["name"] for row in made]
    assert [row["price"] for row in found] == ["29.99", "", "", "9999999999.9999", "0.0001"]
    assert [row["is_active"] for row in found] == ["true", "true", "false", "true", "true"]
    assert found[1]["created_at"] == "2026-01-02T03:04:05.000000Z"


@pytest.mark.parametrize("form", ("ndjson", "csv"))
def test_an_imported_export_gives_the_same_rows(
    client: httpx.Client, sql: Query, form: str
) -> None:
    fill(client, sql)
    file = client.get("/items/export", params={"format": form}).content
    headers = CSV if form == "csv" else NDJSON
    assert counts(give(client, file, headers)) == (5, 0, 0, 5, 0)
    before = rows(client)
    sql("TRUNCATE items RESTART IDENTITY")
    assert counts(give(client, file, headers)) == (5, 5, 0, 0, 0)
    for old, new in zip(before, rows(client), strict=True):
        for name in ("version", "created_at", "updated_at"):
            del old[name], new[name]
        assert old == new


def test_the_trailer_proves_that_a_file_is_complete(client: httpx.Client, sql: Query) -> None:
    fill(client, sql)
    file = client.get("/items/export", params={"trailer": "true"}).content
    *body, last = file.splitlines(keepends=True)
    told = json.loads(last)
    assert told == {"count": 5, "checksum": hashlib.sha256(b"".join(body)).hexdigest()}
    assert counts(give(client, chunked(file, 100))) == (5, 0, 0, 5, 0)
    for broken in (
        file.replace(b"small", b"other"),
        b"".join((*body[1:], last)),
        file + b'{"name": "more"}\n',
    ):
        response = give(client, broken)
        assert response.status_code == 422
        assert errors(response)[0][0] in (5, 6, 7)
        assert "incomplete" in response.json()["detail"]
        assert give(client, broken, on_error="skip").status_code == 422
    assert client.get("/items/export?trailer=true&owner_id=99").json()["count"] == 0


@pytest.mark.parametrize(("encoding", "magic"), (("gzip", b"\x1f\x8b"), ("zstd", b"\x28\xb5")))
def test_an_export_is_sent_in_the_requested_encoding(
    client: httpx.Client, service: Service, sql: Query, encoding: str, magic: bytes
) -> None:
    sql("INSERT INTO items (name) SELECT 'item ' || n FROM generate_series(1, 20000) AS n")
    plain = client.get("/items/export", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "accept-encoding"
    url = f"{service.url}/items/export"
    with httpx.stream("GET", url, headers={"Accept-Encoding": encoding}) as response:
        assert response.headers["content-encoding"] == encoding
        assert response.headers["vary"] == "accept-encoding"
        raw = b"".join(response.iter_raw())
    assert raw.startswith(magic)
    assert len(raw) * 5 < len(plain.content)
    if encoding == "gzip":
        assert gzip.decompress(raw) == plain.content
        assert counts(give(client, raw, {**NDJSON, **GZIP}))[1] == 20_000


def test_an_empty_export_and_a_head_are_answered(client: httpx.Client) -> None:
    assert client.get("/items/export").content == b""
    assert client.get("/items/export?format=csv").text.startswith("id,sku,name,")
    response = client.head("/items/export?format=csv")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/csv; charset=utf-8"


# Concurrency and disconnects.


def busy(sql: Query) -> int:
    """Return the number of connections outside of the pool."""
    found = sql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'swiftlet%'"
        " AND datname = current_database() AND query ~ 'items_stage|COPY'"
    )
    return int(found[0][0])


class ByHand:
    """A raw connection."""

    socket: socket.socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Upload(ByHand):
    """An import whose body the test sends in parts."""

    def __init__(self, service: Service, body: bytes = b"", query: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=30)
        self.socket.sendall(
            b"POST /items/import%b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/x-ndjson\r\nConnection: close\r\n\r\n" % query.encode()
        )
        if body:
            self.send(body)

    def send(self, part: bytes) -> None:
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(part), part))

    def end(self) -> tuple[int, bytes]:
        self.socket.sendall(b"0\r\n\r\n")
        return self.answer()

    def answer(self) -> tuple[int, bytes]:
        received = b""
        while part := self.socket.recv(65536):
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), body


def test_a_slow_upload_holds_no_transaction(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    body = lines({"sku": f"C{n}", "name": "slow"} for n in range(20_000))
    with Upload(service, body) as upload:
        eventually(lambda: busy(sql) == 1)
        state = (
            "SELECT state, xact_start FROM pg_stat_activity WHERE query ~ 'items_stage'"
            " AND application_name LIKE 'swiftlet%' AND datname = current_database()"
        )
        eventually(lambda: [tuple(row) for row in sql(state)] == [("idle", None)])
        assert client.post("/items", json={"sku": "C1", "name": "meanwhile"}).status_code == 201
        assert [row["name"] for row in rows(client)] == ["meanwhile"]
        status, answer = upload.end()
    assert status == 200, answer
    assert b'"created":19999,"updated":1' in answer
    eventually(lambda: busy(sql) == 0)


@pytest.mark.parametrize("query", ("", "?on_error=skip"))
def test_an_aborted_upload_writes_nothing(
    client: httpx.Client, service: Service, sql: Query, query: str
) -> None:
    with Upload(service, lines({"name": "left"} for _ in range(20_000)), query):
        eventually(lambda: busy(sql) == 1)
    eventually(lambda: busy(sql) == 0)
    assert rows(client) == []
    assert client.get("/items").json()["total"] == 0


def test_the_number_of_concurrent_imports_is_limited(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    body = b'{"name": "waits"}\n' * 20_000
    with Upload(service, body) as one, Upload(service, body) as other:
        eventually(lambda: busy(sql) == 2)
        for response in (give(client, b""), client.get("/items/export")):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "10"
        assert client.get("/items").status_code == 200
        assert [one.end()[0], other.end()[0]] == [200, 200]
    eventually(lambda: busy(sql) == 0)
    assert counts(give(client, b"")) == (0, 0, 0, 0, 0)


def test_an_import_invalidates_the_caches(small: tuple[Service, httpx.Client], sql: Query) -> None:
    _, client = small
    assert counts(give(client, lines([{"sku": "D", "name": "old"}])))[1] == 1
    eventually(lambda: client.get("/items/1").headers["x-cache"] == "HIT")
    eventually(lambda: client.get("/items").headers["x-cache"] == "HIT")
    assert client.get("/items/1").json()["name"] == "old"
    assert client.get("/items").json()["items"][0]["name"] == "old"
    assert counts(give(client, lines([{"sku": "D", "name": "new"}])))[2] == 1
    assert client.get("/items/1").json()["name"] == "new"
    assert client.get("/items").json()["items"][0]["name"] == "new"


def test_an_upload_that_is_too_slow_takes_no_slot_and_is_aborted(
    client: httpx.Client, service: Service, sql: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Upload(service, b'{"name": '), Upload(service, b'{"na'), Upload(service, b"{"):
        assert counts(give(client, lines([{"name": "meanwhile"}])))[1] == 1
        assert busy(sql) == 0

    # More than the least rate, so that a busy machine fails no part.
    sent = iter([b"x" * 1000, b"x" * 1000, b"x" * 1000])

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.4)
        return {"type": "http.request", "body": next(sent, b"x"), "more_body": True}

    monkeypatch.setattr(upload, "SLOW_SECONDS", 1.0)
    scope = {"type": "http", "headers": [], "state": {}}

    async def read() -> None:
        async with upload.Upload(request.Request(scope, receive), 10**9) as body:
            await body.run(asyncio.sleep(60))

    with pytest.raises(TooSlow, match="1000 bytes a second"):
        asyncio.run(read())
    assert next(sent, None) is None, "parts are accepted while the rate is high enough"


def test_imports_and_bulk_writes_of_the_same_rows_never_deadlock(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    made = [{"sku": f"K{n:05}", "name": "first"} for n in range(4000)]
    there = random.Random(1).sample(made[::2], 2000)  # the order of ids and skus differs
    give(client, lines(there))
    before = deadlocks(sql)
    stop = threading.Event()
    answers: list[int] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=service.url, timeout=60) as one:
            while not stop.is_set():
                some = chance.sample(made, 300)
                body = {"items": [{**row, "name": f"by {chance.random()}"} for row in some]}
                answers.append(one.put("/items/bulk", json=body).status_code)
                ids = {"ids": chance.sample(range(1, 2000), 100), "set": {"price": 1}}
                answers.append(one.patch("/items/bulk", json=ids).status_code)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(3):
        sql(
            "DO $$ BEGIN LOCK TABLE items IN EXCLUSIVE MODE;"
            " DELETE FROM items WHERE id > 2000; END $$"
        )
        mine = [{**row, "name": f"import {turn}"} for row in reversed(made)]
        assert counts(give(client, lines(mine)))[0] == 4000
    stop.set()
    for thread in threads:
        thread.join()
    assert deadlocks(sql) == before
    # A busy machine may make a write wait longer than its timeout.
    assert {200} <= set(answers) <= {200, 503, 504}


def deadlocks(sql: Query) -> int:
    return int(
        sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0]
    )


def test_imports_of_the_same_rows_take_turns(client: httpx.Client, service: Service) -> None:
    made = [{"sku": f"F{n}", "name": "first"} for n in range(20_000)]
    give(client, lines(made[:10_000]))
    found: list[tuple[int, ...]] = []

    def run(seed: int) -> None:
        mine = [{**row, "name": f"by {seed}"} for row in made]
        random.Random(seed).shuffle(mine)
        with httpx.Client(base_url=service.url, timeout=60) as one:
            found.append(counts(give(one, lines(mine))))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert client.patch("/items/1", json={"price": 1}).status_code in (200, 504)
    for thread in threads:
        thread.join()
    assert sorted(found) == [(20_000, 0, 20_000, 0, 0), (20_000, 10_000, 10_000, 0, 0)]
    assert len({row["name"] for row in rows(client)}) == 1


def test_an_import_whose_backend_is_killed_reports_it_and_writes_nothing(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    with Upload(service, lines({"name": "lost"} for _ in range(20_000))) as upload:
        eventually(lambda: busy(sql) == 1)
        sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'items_stage'"
            " AND application_name LIKE 'swiftlet%' AND datname = current_database()"
        )
        status, answer = upload.end()
    assert status == 503, answer
    assert b"the database is away" in answer
    assert rows(client) == []


def many(sql: Query, count: int) -> None:
    sql(
        "INSERT INTO items (name, description)"
        " SELECT 'many', repeat(md5(n::text), 10) FROM generate_series(1, $1) AS n",
        count,
    )


class Download(ByHand):
    """An export that the test reads in parts, with a small receive buffer."""

    def __init__(self, service: Service, query: str = "", version: str = "1.1") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", service.port))
        self.socket.sendall(f"GET /items/export{query} HTTP/{version}\r\nHost: a\r\n\r\n".encode())

    def read(self, size: int) -> bytes:
        return self.socket.recv(size)


def rss(service: Service) -> int:
    main = psutil.Process(service.process.pid)
    return sum(one.memory_info().rss for one in (main, *main.children()))


def test_a_slow_reader_fills_no_memory_and_sees_one_snapshot(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    many(sql, 100_000)  # 45 MB
    client.get("/items/export")
    before = rss(service)
    with Download(service) as download:
        got = bytearray(download.read(1))
        eventually(lambda: busy(sql) == 1)
        sql("UPDATE items SET name = 'changed' WHERE id % 2 = 0")
        sql("DELETE FROM items WHERE id % 3 = 0")
        for _ in range(20):
            got += download.read(1)
            time.sleep(0.1)
        assert rss(service) - before < 8_000_000
        while not got.endswith(b"\r\n0\r\n\r\n"):
            got += download.read(1_000_000)
    assert got.count(b'"name":"many"') == 100_000
    eventually(lambda: busy(sql) == 0)


def test_an_aborted_export_frees_its_connection(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    many(sql, 100_000)
    for _ in range(3):
        with Download(service) as one, Download(service) as other:
            assert one.read(100)
            assert other.read(100)
        eventually(lambda: busy(sql) == 0)
    assert len(client.get("/items/export").content) > 40_000_000


def test_an_export_aborted_before_the_first_row_frees_its_connection(
    client: httpx.Client, service: Service, sql: Query, database_url: str
) -> None:
    async def leave() -> None:
        holder = await asyncpg.connect(database_url)
        try:
            await holder.execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
            with Download(service), Download(service):
                await asyncio.to_thread(eventually, lambda: busy(sql) == 2)
            await asyncio.to_thread(eventually, lambda: busy(sql) == 0)
            with Download(service) as one, Download(service) as other:
                for waiting in (one, other):  # a slot that is still taken would give a 503
                    waiting.socket.settimeout(0.3)
                    with pytest.raises(TimeoutError):
                        await asyncio.to_thread(waiting.read, 1)
        finally:
            await holder.close()

    asyncio.run(leave())
    eventually(lambda: busy(sql) == 0)
    assert client.get("/items/export").status_code == 200


@pytest.mark.parametrize("version", ("1.1", "1.0"))
def test_an_interrupted_export_does_not_look_complete(
    client: httpx.Client, service: Service, sql: Query, version: str
) -> None:
    if version == "1.0" and SERVER == "granian":
        pytest.skip("granian ends an interrupted response like a complete one")
    many(sql, 100_000)
    with Download(service, version=version) as download:
        got = bytearray(download.read(100))
        eventually(lambda: busy(sql) == 1)
        sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'COPY'"
            " AND application_name LIKE 'swiftlet%' AND datname = current_database()"
        )
        cut = False
        try:
            while part := download.read(1_000_000):
                got += part
        except ConnectionError:
            cut = True
    assert cut or version == "1.1"
    assert not got.endswith(b"\r\n0\r\n\r\n")
    assert got.count(b"\n") < 100_000


def test_an_import_needs_no_more_memory_for_more_rows(
    client: httpx.Client, service: Service
) -> None:
    body = lines({"name": "x" * 100} for _ in range(2000))
    give(client, body)
    before = rss(service)
    top = before

    def parts() -> Iterator[bytes]:
        nonlocal top
        for _ in range(50):
            yield body
            top = max(top, rss(service))

    assert counts(give(client, parts()))[0] == 100_000
    assert max(top, rss(service)) - before < 16_000_000


def test_other_requests_are_served_during_an_import(client: httpx.Client, service: Service) -> None:
    client.post("/items", json={"name": "read"})
    stop = threading.Event()
    ended: list[httpx.Response] = []

    def load() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as one:
            while not stop.is_set():
                ended.append(give(one, lines({"name": "x"} for _ in range(20_000))))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        # If each read waited for the end of a file, a hundred would end.
        for _ in range(100):
            assert client.get("/items/1").status_code == 200
        assert len(ended) < 50
    finally:
        stop.set()
        thread.join()


# The commands.


class Ran(NamedTuple):
    code: int
    out: bytes
    err: str


@pytest.fixture
def command(database_url: str, client: httpx.Client, tmp_path: Path) -> Callable[..., Ran]:
    """Run `service` on the server's database, in an own directory."""
    environ = {**os.environ, "DATABASE_URL": database_url, "SERVICE_LOG": "off"}

    def run(*words: str, stdin: bytes = b"") -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "service", *words],
            env={**environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return Ran(done.returncode, done.stdout, done.stderr.decode())

    return run


def test_the_commands_give_the_same_result_as_the_endpoints(
    client: httpx.Client, sql: Query, command: Callable[..., Ran], tmp_path: Path
) -> None:
    fill(client, sql)
    for name, option in (("a.ndjson", ()), ("b.csv", ()), ("c", ("--format", "csv"))):
        done = command("export", name, *option)
        assert (done.code, done.out, done.err) == (0, b"", "5 items written\n")
        form = "ndjson" if name == "a.ndjson" else "csv"
        served = client.get("/items/export", params={"format": form}).content
        assert (tmp_path / name).read_bytes() == served
        done = command("import", name, *option)
        assert done.out == b"5 rows read: 0 created, 0 updated, 5 unchanged, 0 failed\n"
    assert command("export", "d.csv.gz").code == 0
    assert gzip.decompress((tmp_path / "d.csv.gz").read_bytes()) == served
    assert b"5 unchanged" in command("import", "d.csv.gz").out
    piped = command("export", "-", "--trailer")
    assert piped.out.count(b"\n") == 6
    sql("TRUNCATE items")
    assert b"5 created" in command("import", "-", stdin=gzipped(piped.out)).out
    assert sorted(one.name for one in tmp_path.iterdir() if one.name[0] in "abcd") == [
        *("a.ndjson", "b.csv", "c", "d.csv.gz")
    ]


def test_the_commands_report_errors(command: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("name,price\ngood,1\n,2\nbad,-1\n")
    done = command("import", "bad.csv")
    assert (done.code, done.out) == (1, b"")
    assert done.err.splitlines()[0] == "line 3: name: required, but missing"
    assert done.err.splitlines()[-1] == "service: 2 lines are wrong; nothing was written"
    done = command("import", "bad.csv", "--on-error", "skip")
    assert done.code == 0
    assert done.out == b"3 rows read: 1 created, 0 updated, 0 unchanged, 2 failed\n"
    assert command("import", "nothing.csv").code == 2
    assert command("import", "bad.csv", "--on-error", "ignore").code == 2
    assert command("export", "a.csv", "--trailer").code == 2
    done = command("export", "no/such/place.csv")
    assert done.code == 1
    assert "no/such/place.csv" in done.err
    assert command("import", "-", stdin=b"{").err.startswith("line 1: not JSON")


def test_an_export_is_written_to_files_links_and_pipes(
    client: httpx.Client, sql: Query, command: Callable[..., Ran], tmp_path: Path
) -> None:
    fill(client, sql)
    real, link, pipe = (tmp_path / name for name in ("real.csv", "link.csv", "pipe.csv"))
    real.write_text("older")
    real.chmod(0o600)
    link.symlink_to(real)
    assert command("export", "link.csv").code == 0
    assert link.is_symlink()
    assert real.read_text().startswith("id,sku")
    assert real.stat().st_mode & 0o777 == 0o600
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert command("export", "pipe.csv").code == 0
        assert reader.stdout is not None
        assert reader.stdout.read() == real.read_bytes()
    assert pipe.is_fifo()
    full = command("export", "/dev/full")
    assert full.code == 1
    assert "No space left" in full.err
    assert "DATABASE_URL" not in full.err
    assert {one.name for one in tmp_path.iterdir()} >= {"real.csv", "link.csv", "pipe.csv"}
    assert not list(tmp_path.glob("*.part"))


def test_an_import_by_command_invalidates_the_caches_of_a_running_service(
    small: tuple[Service, httpx.Client], command: Callable[..., Ran]
) -> None:
    _, client = small
    assert counts(give(client, lines([{"sku": "H", "name": "old"}])))[1] == 1
    for _ in range(2):
        assert client.get("/items/1").json()["name"] == "old"
    assert b"1 updated" in command("import", "-", stdin=b'{"sku": "H", "name": "new"}').out
    eventually(lambda: client.get("/items/1").json()["name"] == "new", 2)


def test_ctrl_c_ends_an_import_cleanly(
    database_url: str, client: httpx.Client, sql: Query, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "service", "import", "-"],
        env={**os.environ, "DATABASE_URL": database_url, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write(lines({"name": "left"} for _ in range(20_000)))
        running.stdin.flush()
        here = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'swiftlet-files'"
        eventually(lambda: sql(here), 20)
        time.sleep(0.2)  # it has read all input and waits for more
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        assert running.stderr.read().strip() == b"service: interrupted"
    eventually(lambda: not sql(here))
    assert rows(client) == []
