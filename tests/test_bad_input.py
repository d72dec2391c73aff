"""Requests that must be rejected, and unusual requests that must be accepted.

The table has every rejection that the API documents. The tests with raw sockets below send
what an HTTP client would not.
"""

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from conftest import SERVER, Query, Service, statements_run
from msgspec import Struct

JSON = {"content-type": "application/json"}
BODY_LIMIT = 1_048_576
TITLES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
}
GOOD_ITEM = b'{"name":"a"}'
GOOD_USER = b'{"email":"grace@example.com","username":"grace"}'


class Bad(NamedTuple):
    """A request, the expected status, and the field that `errors` names, if any."""

    what: str
    request: str
    status: int
    field: str | None = None
    body: bytes | None = None
    headers: dict[str, str] = JSON
    # Only the database can find the error.
    asks: bool = False


def not_json(what: str, body: bytes, request: str = "POST /items") -> Bad:
    return Bad(what, request, 400, body=body)


def item(what: str, body: bytes, field: str | None, request: str = "POST /items") -> Bad:
    return Bad(what, request, 422, field, body)


def price(what: str, number: bytes) -> Bad:
    return item(f"a price {what}", b'{"name":"a","price":%s}' % number, "price")


def owner(what: str, number: bytes) -> Bad:
    return item(f"an owner_id {what}", b'{"name":"a","owner_id":%s}' % number, "owner_id")


def email(what: str, address: bytes) -> Bad:
    body = b'{"email":"%s","username":"grace"}' % address
    return item(f"an email {what}", body, "email", "POST /users")


def username(what: str, name: bytes) -> Bad:
    body = b'{"email":"grace@example.com","username":"%s"}' % name
    return item(f"a username {what}", body, "username", "POST /users")


def user(what: str, rest: bytes, field: str) -> Bad:
    return item(what, GOOD_USER[:-1] + b"," + rest + b"}", field, "POST /users")


def path(what: str, request: str, status: int) -> Bad:
    body = None if request.startswith(("GET", "DELETE")) else GOOD_ITEM
    return Bad(what, request, status, "id" if status == 422 else None, body)


def query(what: str, text: str, field: str | None, request: str = "GET /items") -> Bad:
    return Bad(what, f"{request}?{text}", 422, field)


def media(what: str, headers: dict[str, str], request: str = "POST /items") -> Bad:
    return Bad(what, request, 415, body=GOOD_ITEM, headers=headers)


def method(what: str, request: str) -> Bad:
    return Bad(what, request, 405, body=GOOD_ITEM)


def missing(request: str, body: bytes | None = None) -> Bad:
    what = f"a missing row: {request} {(body or b'').decode()}".rstrip()
    return Bad(what, request, 404, body=body, asks=True)


def taken(what: str, request: str, field: str, body: bytes | None = None) -> Bad:
    return Bad(what, request, 409, field, body, asks=True)


def stale(what: str, request: str, tag: str, body: bytes | None = GOOD_ITEM) -> Bad:
    return Bad(what, request, 412, body=body, headers={**JSON, "if-match": tag}, asks=True)


REFUSED = [
    # Not JSON: 400.
    not_json("no body", b""),
    not_json("a body of white space", b" \r\n\t"),
    not_json("a body cut short", b'{"name":"a"'),
    not_json("a trailing comma", b'{"name":"a",}'),
    not_json("single quotes", b"{'name':'a'}"),
    not_json("a name without quotes", b'{name:"a"}'),
    not_json("a comment", b'{"name":"a"} // really'),
    not_json("two documents", b'{"name":"a"}{"name":"b"}'),
    not_json("a form", b"name=a"),
    not_json("a leading zero", b'{"name":"a","price":01}'),
    not_json("a leading plus", b'{"name":"a","price":+1}'),
    not_json("a hexadecimal number", b'{"name":"a","price":0x1}'),
    not_json("a number without an integer part", b'{"name":"a","price":.5}'),
    not_json("a number without decimals after its point", b'{"name":"a","price":1.}'),
    not_json("NaN", b'{"name":"a","price":NaN}'),
    not_json("Infinity", b'{"name":"a","price":Infinity}'),
    not_json("minus Infinity", b'{"name":"a","price":-Infinity}'),
    not_json("NaN in a field that is ignored", b'{"name":"a","colour":NaN}'),
    not_json("Python's True", b'{"name":"a","is_active":True}'),
    not_json("the byte FF", b'{"name":"\xff"}'),
    not_json("an overlong NUL", b'{"name":"\xc0\x80"}'),
    not_json("a surrogate in UTF-8", b'{"name":"\xed\xa0\x80"}'),
    not_json("a character cut short", b'{"name":"a\xc3"}'),
    not_json("Latin-1", '{"name":"Käse"}'.encode("latin-1")),
    not_json("UTF-16", '{"name":"a"}'.encode("utf-16")),
    not_json("a byte order mark", b"\xef\xbb\xbf" + GOOD_ITEM),
    not_json("a raw newline in a string", b'{"name":"a\nb"}'),
    not_json("a raw NUL in a string", b'{"name":"a\0b"}'),
    not_json("an unknown escape", rb'{"name":"\x41"}'),
    not_json("an escape cut short", rb'{"name":"\u00"}'),
    not_json("100 000 levels", b'{"name":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    not_json("no body to replace with", b"", "PUT /items/1"),
    not_json("no JSON to change with", b"{", "PATCH /items/1"),
    not_json("no JSON for a user", b"{]", "POST /users"),
    not_json("no JSON to replace a user with", b"nul", "PUT /users/1"),
    not_json("no JSON to change a user with", b"", "PATCH /users/1"),
    # JSON, but not an object.
    item("null as the body", b"null", None),
    item("a list as the body", b"[]", None),
    item("a string as the body", b'"a"', None),
    item("a number as the body", b"1", None),
    item("a list as the change", b"[]", None, "PATCH /items/1"),
    item("null as a user", b"null", None, "POST /users"),
    # Items: strings.
    item("no name", b"{}", "name"),
    item("null as the name", b'{"name":null}', "name"),
    item("a number as the name", b'{"name":1}', "name"),
    item("an object as the name", b'{"name":{"en":"a"}}', "name"),
    item("an empty name", b'{"name":""}', "name"),
    item("a blank name", b'{"name":" \\t\\n "}', "name"),
    item("a name of 256 characters", b'{"name":"%s"}' % (b"n" * 256), "name"),
    item("NUL in the name", rb'{"name":"a\u0000b"}', "name"),
    item("NUL alone as the name", rb'{"name":"\u0000"}', "name"),
    item("a lone high surrogate", rb'{"name":"\ud800"}', "name"),
    item("surrogates the wrong way round", rb'{"name":"\udc00\ud800"}', "name"),
    item("a number as the description", b'{"name":"a","description":1}', "description"),
    item("NUL in the description", rb'{"name":"a","description":"\u0000"}', "description"),
    item("a surrogate in the description", rb'{"name":"a","description":"\udfff"}', "description"),
    item("an empty sku", b'{"name":"a","sku":""}', "sku"),
    item("a blank sku", b'{"name":"a","sku":"  "}', "sku"),
    item("a sku of 65 characters", b'{"name":"a","sku":"%s"}' % (b"s" * 65), "sku"),
    item("a number as the sku", b'{"name":"a","sku":5}', "sku"),
    item("NUL in the sku", rb'{"name":"a","sku":"s\u0000"}', "sku"),
    # Items: numbers and booleans.
    price("below zero", b"-1"),
    price("a little below zero", b"-0.0001"),
    price("with 5 decimals", b"1.23456"),
    price("of 10 ** 10", b"10000000000"),
    price("of 1e10", b"1e10"),
    price("that a double can't hold", b"1e400"),
    price("that a Decimal can't hold", b"1e9999999999999999999999"),
    price("as small as nothing", b"1e-400"),
    price("of 5000 digits", b"9" * 5000),
    price("of 5000 decimals", b"0." + b"3" * 5000),
    price("as a string", b'"1"'),
    price("of a string NaN", b'"NaN"'),
    price("true", b"true"),
    price("in a list", b"[1]"),
    item("a string as is_active", b'{"name":"a","is_active":"true"}', "is_active"),
    item("1 as is_active", b'{"name":"a","is_active":1}', "is_active"),
    item("null as is_active", b'{"name":"a","is_active":null}', "is_active"),
    owner("of 0", b"0"),
    owner("below zero", b"-1"),
    owner("beyond int8", b"9223372036854775808"),
    owner("of 400 digits", b"4" * 400),
    owner("of 5000 digits", b"4" * 5000),
    owner("with decimals", b"1.5"),
    owner("as a string", b'"1"'),
    owner("true", b"true"),
    # Items: the same rules wherever an item is written.
    item("a replacement without a name", b'{"price":1}', "name", "PUT /items/1"),
    item(
        "a replacement with a price as a string",
        b'{"name":"a","price":"1"}',
        "price",
        "PUT /items/1",
    ),
    item("a change of the name to null", b'{"name":null}', "name", "PATCH /items/1"),
    item("a change of the name to nothing", b'{"name":"  "}', "name", "PATCH /items/1"),
    item("a change of is_active to null", b'{"is_active":null}', "is_active", "PATCH /items/1"),
    item("a change of the price to a string", b'{"price":"1"}', "price", "PATCH /items/1"),
    item("a change of the price below zero", b'{"price":-1}', "price", "PATCH /items/1"),
    item("a change of the sku to NUL", rb'{"sku":"\u0000"}', "sku", "PATCH /items/1"),
    item("a user's item without a name", b"{}", "name", "POST /users/1/items"),
    # Users.
    item("no email", b"{}", "email", "POST /users"),
    item("no username", b'{"email":"grace@example.com"}', "username", "POST /users"),
    item("null as the email", b'{"email":null,"username":"grace"}', "email", "POST /users"),
    email("that is empty", b""),
    email("without @", b"grace.example.com"),
    email("with two @", b"grace@home@example.com"),
    email("without a local part", b"@example.com"),
    email("without a domain", b"grace@"),
    email("without a dot in its domain", b"grace@localhost"),
    email("with two dots in a row", b"grace@example..com"),
    email("with a space", b"gra ce@example.com"),
    email("with a header behind it", rb"grace@example.com\r\nBcc: all@example.com"),
    email("with a name around it", b"Grace <grace@example.com>"),
    email("that is two", b"grace@example.com,ada@example.com"),
    email("of 255 characters", b"g" * 243 + b"@example.com"),
    email("with NUL", rb"grace\u0000@example.com"),
    email("with a lone surrogate", rb"\ud83d@example.com"),
    username("of 2 characters", b"gr"),
    username("of 51 characters", b"g" * 51),
    username("with a space", b"gra ce"),
    username("with an umlaut", "gräce".encode()),
    username("with a newline inside", rb"gra\nce"),
    username("of Arabic digits", "١٢٣".encode()),
    user("an empty full_name", b'"full_name":""', "full_name"),
    user("a full_name of 201 characters", b'"full_name":"%s"' % (b"f" * 201), "full_name"),
    user("a number as the full_name", b'"full_name":1', "full_name"),
    user("a lone surrogate in the full_name", rb'"full_name":"\udbff"', "full_name"),
    user("an unknown role", b'"role":"root"', "role"),
    user("a role in capitals", b'"role":"ADMIN"', "role"),
    user("null as the role", b'"role":null', "role"),
    user("a string as a user's is_active", b'"is_active":"yes"', "is_active"),
    item("a change of the email to null", b'{"email":null}', "email", "PATCH /users/1"),
    item("a change to an unknown role", b'{"role":"root"}', "role", "PATCH /users/1"),
    item(
        "a replacement without a username", b'{"email":"a@example.com"}', "username", "PUT /users/1"
    ),
    # Paths: 422 for an id that is not an integer, 404 for an impossible id.
    path("a word as the id", "GET /items/abc", 422),
    path("a decimal as the id", "GET /items/1.5", 422),
    path("an underscore in the id", "GET /items/1_0", 422),
    path("a space before the id", "GET /items/%201", 422),
    path("an Arabic digit as the id", "GET /items/%D9%A1", 422),
    path("a hexadecimal id", "GET /items/0x1", 422),
    path("NUL behind the id", "GET /items/1%00", 422),
    path("a newline behind the id", "GET /items/1%0A", 422),
    path("no UTF-8 as the id", "GET /items/%FF", 422),
    path("a word as the id to replace", "PUT /items/abc", 422),
    path("a word as the id to change", "PATCH /items/abc", 422),
    path("a word as the id to delete", "DELETE /items/abc", 422),
    path("a word as a user's id", "GET /users/abc", 422),
    path("a word as the id of an owner", "GET /users/abc/items", 422),
    path("id 0", "GET /items/0", 404),
    path("id -1", "GET /items/-1", 404),
    path("an id beyond int8", "GET /items/9223372036854775808", 404),
    path("an id of 20 digits", "GET /items/99999999999999999999", 404),
    path("an id of 5000 digits", f"GET /items/{'9' * 5000}", 404),
    path("id 0 to change", "PATCH /items/0", 404),
    path("id 0 to delete", "DELETE /items/0", 404),
    path("a user's id beyond int8", "GET /users/9223372036854775808", 404),
    path("an owner of id 0", "POST /users/0/items", 404),
    path("no such path", "GET /nothing", 404),
    path("no such path below an item", "GET /items/1/nothing", 404),
    path("a path in capitals", "GET /ITEMS", 404),
    path("an escaped slash in the id", "GET /items/1%2F2", 404),
    path("two slashes", "GET /items//1", 404),
    # Queries.
    query("page 0", "page=0", "page"),
    query("page -1", "page=-1", "page"),
    query("a word as the page", "page=ten", "page"),
    query("a decimal as the page", "page=1.5", "page"),
    query("no page", "page=", "page"),
    query("a page beyond int8", "page=99999999999999999999", "page"),
    query("an Arabic digit as the page", "page=%D9%A1", "page"),
    query("per_page 0", "per_page=0", "per_page"),
    query("per_page 101", "per_page=101", "per_page"),
    query("a word as per_page", "per_page=all", "per_page"),
    query("is_active maybe", "is_active=maybe", "is_active"),
    query("no is_active", "is_active=", "is_active"),
    query("an empty search", "q=", "q"),
    query("a search of 256 characters", "q=" + "a" * 256, "q"),
    query("NUL in the search", "q=a%00", "q"),
    query("no UTF-8 in the query", "q=%ff", "q"),
    query("a surrogate in the query", "q=%ed%a0%80", "q"),
    query("owner_id 0", "owner_id=0", "owner_id"),
    query("a word as owner_id", "owner_id=ada", "owner_id"),
    query("an owner_id to filter by beyond int8", "owner_id=9223372036854775808", "owner_id"),
    query("a min_price below zero", "min_price=-1", "min_price"),
    query("a word as min_price", "min_price=cheap", "min_price"),
    query("NaN as min_price", "min_price=NaN", "min_price"),
    query("a max_price with 5 decimals", "max_price=0.00001", "max_price"),
    query("a max_price of 10 ** 10", "max_price=10000000000", "max_price"),
    query("a sort by no column", "sort=price%3Bdrop%20table%20items", "sort"),
    query("a sort that is not offered", "sort=description", "sort"),
    query("a sort by nothing", "sort=-", "sort"),
    query("an empty sort", "sort=", "sort"),
    query("an unknown kind of total", "total=maybe", "total"),
    query("a misspelt parameter", "lmit=10", "lmit"),
    query("a parameter in capitals", "Page=1", "Page"),
    query("an unknown include", "include=password", "include"),
    query("a parameter twice", "page=1&page=2", "page"),
    query("65 parameters", "&".join(f"a{n}=1" for n in range(65)), None),
    query("a cursor made up", "cursor=x", "cursor"),
    query("a cursor that is not base64", "cursor=%21%21%21%21", "cursor"),
    query("a cursor of another alphabet", "cursor=%D9%A1%D9%A1", "cursor"),
    query("a cursor with padding", "cursor=YQ%3D%3D%3D", "cursor"),
    query("a cursor of 10 kB", "cursor=" + "A" * 10_000, "cursor"),
    query("a page and a cursor", "page=1&cursor=", "cursor"),
    query("permanent maybe", "permanent=maybe", "permanent", "DELETE /items/1"),
    query("a misspelt permanent", "permanant=true", "permanant", "DELETE /items/1"),
    query("permanent twice", "permanent=true&permanent=no", "permanent", "DELETE /items/1"),
    query("a misspelt permanent for a user", "permanet=true", "permanet", "DELETE /users/1"),
    query("a role that is none", "role=root", "role", "GET /users"),
    query("a filter of items for users", "min_price=1", "min_price", "GET /users"),
    query("a sort of users not offered", "sort=email", "sort", "GET /users"),
    query("an empty search for users", "q=", "q", "GET /users"),
    query("another owner for a user's items", "owner_id=2", "owner_id", "GET /users/1/items"),
    # Content-Type and Content-Encoding.
    media("no Content-Type", {}),
    media("an empty Content-Type", {"content-type": ""}),
    media("text/plain", {"content-type": "text/plain"}),
    media("a form's type", {"content-type": "application/x-www-form-urlencoded"}),
    media("a multipart form", {"content-type": "multipart/form-data; boundary=x"}),
    media("jsonp", {"content-type": "application/jsonp"}),
    media("UTF-16 said", {"content-type": "application/json; charset=utf-16"}),
    media("Latin-1 said", {"content-type": 'application/json;charset="iso-8859-1"'}),
    media("UTF-16 said second", {"content-type": "application/json; v=1; charset=utf-16"}),
    media("no Content-Type to replace", {}, "PUT /items/1"),
    media("XML to change", {"content-type": "application/xml"}, "PATCH /items/1"),
    media("no Content-Type for a user", {}, "POST /users"),
    media("no Content-Type for a user's item", {}, "POST /users/1/items"),
    Bad(
        "gzip",
        "POST /items",
        415,
        body=gzip.compress(GOOD_ITEM),
        headers={**JSON, "content-encoding": "gzip"},
    ),
    media("br", {**JSON, "content-encoding": "br"}),
    media("gzip twice", {**JSON, "content-encoding": "gzip, gzip"}),
    # Size.
    Bad("a byte too many", "POST /items", 413, body=b" " * (BODY_LIMIT - 11) + GOOD_ITEM),
    Bad("twice the limit", "PATCH /items/1", 413, body=b" " * 2 * BODY_LIMIT),
    Bad("a user too large", "POST /users", 413, body=b"{" + b" " * BODY_LIMIT),
    # Methods.
    method("PUT on the list", "PUT /items"),
    method("DELETE on the list", "DELETE /items"),
    method("PATCH on the list of users", "PATCH /users"),
    method("POST on an item", "POST /items/1"),
    method("POST on an item that can't be", "POST /items/abc"),
    method("PUT on a user's items", "PUT /users/1/items"),
    method("TRACE", "TRACE /items"),
    method("an unknown method", "BREW /items"),
    method("POST on the health", "POST /health"),
    method("DELETE on the document", "DELETE /openapi.json"),
    # Missing rows.
    missing("GET /items/3"),
    missing("PUT /items/3", GOOD_ITEM),
    missing("PATCH /items/3", b'{"price":1}'),
    missing("PATCH /items/3", b"{}"),
    missing("DELETE /items/3"),
    missing("DELETE /items/3?permanent=true"),
    missing("GET /items/9223372036854775807"),
    missing("GET /users/3"),
    missing("PUT /users/3", GOOD_USER),
    missing("PATCH /users/3", b"{}"),
    missing("DELETE /users/3?permanent=true"),
    missing("GET /users/3/items"),
    missing("POST /users/3/items", GOOD_ITEM),
    # Conflicts.
    taken("a sku taken", "POST /items", "sku", b'{"name":"a","sku":"lamp"}'),
    taken("a sku taken, with spaces", "POST /items", "sku", b'{"name":"a","sku":" lamp "}'),
    taken("a sku taken by another", "PUT /items/2", "sku", b'{"name":"a","sku":"lamp"}'),
    taken("a change to a sku taken", "PATCH /items/2", "sku", b'{"sku":"lamp"}'),
    taken("a sku taken by anyone", "POST /users/1/items", "sku", b'{"name":"a","sku":"lamp"}'),
    taken("a missing owner", "POST /items", "owner_id", b'{"name":"a","owner_id":3}'),
    taken("a change to nobody", "PATCH /items/1", "owner_id", b'{"owner_id":3}'),
    taken(
        "an email taken in other letters",
        "POST /users",
        "email",
        b'{"email":"ADA@Example.com","username":"grace"}',
    ),
    taken(
        "a username taken in other letters",
        "POST /users",
        "username",
        b'{"email":"grace@example.com","username":"ADA"}',
    ),
    taken("a change to an email taken", "PATCH /users/2", "email", b'{"email":"ada@example.com"}'),
    taken("a user who has items", "DELETE /users/1?permanent=true", "items"),
    # If-Match.
    Bad(
        "an If-Match without quotes",
        "PATCH /items/1",
        400,
        "If-Match",
        b'{"price":1}',
        {**JSON, "if-match": "1"},
    ),
    Bad("an If-Match cut short", "DELETE /items/1", 400, "If-Match", headers={"if-match": '"1'}),
    stale("another version", "PUT /items/1", '"2"'),
    stale("another version to change", "PATCH /items/1", '"2"', b'{"price":1}'),
    stale("another version to change nothing", "PATCH /items/1", '"2"', b"{}"),
    stale("another version to delete", "DELETE /items/1", '"2"', None),
    stale("another version to delete for good", "DELETE /items/1?permanent=true", '"2"', None),
    stale("a weak tag", "PUT /items/1", 'W/"1"'),
    stale("a tag of another kind", "PUT /items/1", '"abc"'),
    stale("a tag beyond int8", "PUT /items/1", '"9999999999999999999"'),
    stale("any version of a missing row", "PUT /items/3", "*"),
    stale("another version of a user", "PATCH /users/1", '"2"', b'{"role":"admin"}'),
]


@pytest.fixture
def rows(client: httpx.Client, sql: Query) -> None:
    """Two users and two items; the first user owns the first item."""
    sql(
        "WITH people AS (INSERT INTO users (email, username)"
        " VALUES ('ada@example.com', 'ada'), ('bob@example.com', 'bob'))"
        " INSERT INTO items (name, sku, owner_id)"
        r" VALUES ('Lamp 100% _\ oak', 'lamp', 1), ('Chair', NULL, NULL)"
    )


def stored(sql: Query) -> list[str]:
    """Return all rows of the database."""
    everything = "SELECT users::text FROM users UNION ALL SELECT items::text FROM items ORDER BY 1"
    return [text for (text,) in sql(everything)]


@pytest.mark.parametrize("bad", REFUSED, ids=[f"{bad.what} -> {bad.status}" for bad in REFUSED])
def test_bad_input_is_rejected_and_changes_nothing(
    client: httpx.Client, rows: None, sql: Query, bad: Bad
) -> None:
    before = stored(sql)
    verb, _, where = bad.request.partition(" ")
    answer = client.request(verb, where, content=bad.body, headers=bad.headers)
    assert answer.status_code == bad.status, answer.text
    problem = answer.json()
    assert problem["title"] == TITLES[bad.status]
    blamed = [error["field"] for error in problem.get("errors", [])]
    assert blamed[:1] == ([] if bad.field is None else [bad.field])
    assert (statements_run(answer) > 0) == bad.asks
    assert stored(sql) == before


class Good(NamedTuple):
    """An unusual valid request, and a part of its expected response."""

    what: str
    request: str
    status: int
    answer: dict[str, Any]
    body: bytes | None = None
    headers: dict[str, str] = JSON


def new(what: str, body: bytes, **answer: object) -> Good:
    return Good(what, "POST /items", 201, answer, body)


def named(what: str, name: str, shown: str | None = None) -> Good:
    body = json.dumps({"name": name}, ensure_ascii=False).encode()
    return new(what, body, name=name if shown is None else shown)


def priced(number: bytes, exact: str) -> Good:
    return new(
        f"a price of {number.decode()}", b'{"name":"a","price":%s}' % number, price=Decimal(exact)
    )


def found(what: str, text: str, total: int) -> Good:
    return Good(what, f"GET /items?{text}", 200, {"total": total})


def sent(what: str, headers: dict[str, str]) -> Good:
    return Good(what, "POST /items", 201, {"name": "a"}, GOOD_ITEM, {**JSON, **headers})


def signed_up(what: str, body: bytes, **answer: object) -> Good:
    return Good(what, "POST /users", 201, answer, body)


ACCEPTED = [
    new("a name given twice: the last counts", b'{"name":"a","name":"b"}', name="b"),
    new("unknown fields", b'{"name":"a","colour":"red","deep":[{"er":1}]}', name="a"),
    new(
        "fields that only the service writes",
        b'{"name":"a","id":99,"version":7,"created_at":"x","updated_at":1}',
        id=3,
        version=1,
        updated_at=None,
    ),
    new("JSON with white space around it", b'\r\n\t {"name" : "a"} \n', name="a"),
    new("an unknown field 100 levels deep", b'{"name":"a","x":%s}' % (b"[" * 100 + b"]" * 100)),
    new("NUL in an unknown field", rb'{"name":"a","x":"\u0000"}', name="a"),
    new("NUL in an unknown field, spaces in the name", rb'{"name":" a ","x":"\u0000"}', name="a"),
    new("a vast number in an unknown field", b'{"name":" a ","x":1e9999999999999999999999}'),
    new("5000 digits in an unknown field", b'{"name":" a ","x":%s}' % (b"9" * 5000)),
    new("null for what may be null", b'{"name":"a","sku":null,"price":null,"owner_id":null}'),
    new("an empty description", b'{"name":"a","description":""}', description=""),
    new("a blank description", b'{"name":"a","description":" \\n "}', description=""),
    new("a sku of 64 characters", b'{"name":"a","sku":"%s"}' % (b"s" * 64), sku="s" * 64),
    new("a sku in other letters", b'{"name":"a","sku":"LAMP"}', sku="LAMP"),
    new("an escaped surrogate pair", rb'{"name":"\ud83d\ude00"}', name="😀"),
    new("an escaped field name", rb'{"n\u0061me":"a"}', name="a"),
    Good("a body as large as may be", "POST /items", 201, {}, b" " * (BODY_LIMIT - 12) + GOOD_ITEM),
    named("white space around the name", " \t\n a b \r", "a b"),
    named("wide white space around the name", "\u3000\u2003a\u00a0", "a"),
    named("255 characters with spaces around them", "  " + "n" * 255 + "  ", "n" * 255),
    named("255 characters beyond the BMP", "😀" * 255),
    named("a lone combining mark", "\u0301"),
    named("a bidi override", "a\u202eb"),
    named("a name of zero width", "\u200b"),
    named("a name decomposed", "e\u0301"),
    named("a name composed", "\u00e9"),
    named("a ligature", "\ufb01"),
    named("SQL", "'; DROP TABLE items; --"),
    named("a control character", "a\u0001b"),
    priced(b"0", "0"),
    priced(b"-0.0", "0"),
    priced(b"1e2", "100"),
    priced(b"1E-4", "0.0001"),
    priced(b"29.99", "29.99"),
    priced(b"1.10", "1.1"),
    priced(b"0.1", "0.1"),
    priced(b"9999999999.9999", "9999999999.9999"),
    priced(b"9007199254.7409", "9007199254.7409"),
    sent("a charset in capitals", {"content-type": "application/json; charset=UTF-8"}),
    sent("a charset in quotes", {"content-type": 'application/json;charset="utf-8"'}),
    sent("a type in capitals", {"content-type": "APPLICATION/JSON"}),
    sent("the identity encoding", {"content-encoding": "identity"}),
    sent("a wish for XML", {"accept": "application/xml"}),
    found("% in the search", "q=%25", 1),
    found("_ in the search", "q=_", 1),
    found("a backslash in the search", "q=%5C", 1),
    found("% as if it stood for anything", "q=Lamp%25oak", 0),
    found("_ as if it stood for anything", "q=Ch_ir", 0),
    found("a regular expression", "q=(a%2B)%2B%24", 0),
    found("SQL in the search", "q='%20OR%201=1%20--", 0),
    found("a space in the search", "q=+", 1),
    found("a search of 255 characters", "q=" + "a" * 255, 0),
    found("a search beyond the BMP", "q=%F0%9F%98%80", 0),
    found("a search in other letters", "q=cHAIR", 1),
    found("a page past the end", "page=1000000", 2),
    found("bounds the wrong way round", "min_price=2&max_price=1", 0),
    found("a min_price of 0: no price is not cheap", "min_price=0", 0),
    found("the highest max_price: no price is not dear", "max_price=9999999999.9999", 0),
    found("a missing owner", "owner_id=9223372036854775807", 0),
    Good("nothing to change", "PATCH /items/1", 200, {"version": 1, "updated_at": None}, b"{}"),
    Good("nothing known to change", "PATCH /items/1", 200, {"version": 1}, b'{"colour":1}'),
    Good("the own sku again", "PATCH /items/1", 200, {"sku": "lamp"}, b'{"sku":"lamp"}'),
    Good("any version", "PUT /items/1", 200, {"version": 2}, GOOD_ITEM, {**JSON, "if-match": "*"}),
    Good(
        "one of several versions",
        "PUT /items/1",
        200,
        {"version": 2},
        GOOD_ITEM,
        {**JSON, "if-match": '"x,y", W/"7", "1"'},
    ),
    Good(
        "an If-None-Match that is no tag",
        "GET /items/1",
        200,
        {"id": 1},
        headers={"if-none-match": "1"},
    ),
    signed_up(
        "an email in mixed letters",
        b'{"email":" Ada.Lovelace+x@Example.COM ","username":"grace"}',
        email="Ada.Lovelace+x@Example.COM",
    ),
    signed_up(
        "an email of 254 characters",
        b'{"email":"%s@example.com","username":"grace"}' % (b"g" * 242),
        email="g" * 242 + "@example.com",
    ),
    signed_up(
        "a ligature in the email: kept as it is",
        '{"email":"\ufb01@example.com","username":"grace"}'.encode(),
        email="\ufb01@example.com",
    ),
    signed_up(
        "a username of every kind of character",
        b'{"email":"grace@example.com","username":"_.-Az09"}',
        username="_.-Az09",
    ),
    signed_up(
        "a full_name of 200 characters with spaces around them",
        GOOD_USER[:-1] + b',"full_name":" %s "}' % (b"f" * 200),
        full_name="f" * 200,
    ),
    signed_up("a field of items for a user", GOOD_USER[:-1] + b',"sku":5}', username="grace"),
]


@pytest.mark.parametrize("good", ACCEPTED, ids=[good.what for good in ACCEPTED])
def test_strange_input_is_accepted(client: httpx.Client, rows: None, good: Good) -> None:
    verb, _, where = good.request.partition(" ")
    answer = client.request(verb, where, content=good.body, headers=good.headers)
    assert answer.status_code == good.status, answer.text
    shown = json.loads(answer.text, parse_float=Decimal)
    assert {name: shown[name] for name in good.answer} == good.answer


@pytest.mark.parametrize(
    "other",
    (
        "cursor={altered}",
        "cursor={cut}",
        "cursor={cursor}%3D",
        "cursor={cursor}&sort=-id",
        "cursor={cursor}&sort=name",
        "cursor={cursor}&is_active=true",
        "cursor={cursor}&q=a",
    ),
)
def test_a_cursor_works_only_for_the_list_it_was_made_for(
    client: httpx.Client, rows: None, other: str
) -> None:
    cursor = client.get("/items?per_page=1&cursor=").json()["next_cursor"]
    assert client.get("/items", params={"cursor": cursor}).status_code == 200
    altered = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    text = other.format(cursor=cursor, altered=altered, cut=cursor[:-4])
    answer = client.get(f"/items?{text}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "cursor"
    assert statements_run(answer) == 0


def test_a_cursor_of_items_is_rejected_by_users(client: httpx.Client, rows: None) -> None:
    cursor = client.get("/items?per_page=1&cursor=").json()["next_cursor"]
    assert client.get("/users", params={"cursor": cursor}).status_code == 422


@pytest.mark.parametrize(
    ("path", "allowed"),
    (
        ("/items", {"GET", "HEAD", "POST"}),
        ("/items/", {"GET", "HEAD", "POST"}),
        ("/items/1", {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("/users", {"GET", "HEAD", "POST"}),
        ("/users/1", {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("/users/1/items", {"GET", "HEAD", "POST"}),
        ("/items/bulk", {"POST", "PUT", "PATCH"}),
        ("/items/bulk/delete", {"POST"}),
        ("/users/bulk", {"PUT"}),
        ("/health", {"GET", "HEAD"}),
        ("/openapi.json", {"GET", "HEAD"}),
    ),
)
def test_a_405_lists_the_allowed_methods(
    client: httpx.Client, path: str, allowed: set[str]
) -> None:
    answer = client.request("TRACE", path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("request_line", ("POST /items", "PUT /items/1", "PATCH /users/1"))
def test_a_415_lists_the_accepted_media_types(client: httpx.Client, request_line: str) -> None:
    verb, _, where = request_line.partition(" ")
    answer = client.request(verb, where, content=GOOD_ITEM, headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert answer.headers["accept-post"] == "application/json"


GETS = (
    "/items",
    "/items/1",
    "/items?q=lamp&per_page=1",
    "/users",
    "/users/1",
    "/users/1/items",
    "/health",
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/docs",
)


@pytest.mark.parametrize("path", GETS)
def test_head_has_the_headers_of_get_and_no_body(
    client: httpx.Client, rows: None, path: str
) -> None:
    got, told = client.get(path), client.head(path)
    assert (told.status_code, told.content) == (200, b"")
    for header in ("content-type", "content-length", "etag", "link", "cache-control"):
        assert told.headers.get(header) == got.headers.get(header)
    assert int(told.headers["content-length"]) == got.num_bytes_downloaded


@pytest.mark.parametrize("path", ("/items/3", "/items/abc", "/nothing", "/items?page=0"))
def test_head_fails_as_get_does(client: httpx.Client, path: str) -> None:
    got, told = client.get(path), client.head(path)
    assert (told.status_code, told.content) == (got.status_code, b"")
    assert told.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ("/items", "/items/1", "/users", "/users/1", "/users/1/items"))
def test_a_slash_at_the_end_changes_nothing(client: httpx.Client, rows: None, path: str) -> None:
    answer = client.get(path + "/")
    assert answer.status_code == 200
    assert answer.content == client.get(path).content


def test_a_slash_at_the_end_changes_nothing_for_writes(client: httpx.Client, rows: None) -> None:
    made = client.post("/items/", json={"name": "a"})
    assert (made.status_code, made.headers["location"]) == (201, "/items/3")
    assert client.patch("/items/3/", json={"name": "b"}).json()["name"] == "b"
    assert client.delete("/items/3/?permanent=true").status_code == 204


@pytest.mark.parametrize("given", ("a", "!~", "4bf92f35-77b3.x/_", "x" * 128))
@pytest.mark.parametrize("path", ("/items", "/nothing"))
def test_a_request_id_of_visible_characters_is_kept(
    client: httpx.Client, given: str, path: str
) -> None:
    assert client.get(path, headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", (b"", b"x" * 129, b"a b", b"a\tb", "ä".encode(), b"\xff"))
def test_any_other_request_id_is_replaced(service: Service, given: bytes) -> None:
    head = (
        b"GET /items HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-ID: %s\r\n\r\n" % given
    )
    answer = talk(service, head)
    assert status(answer) == 200
    shown = re.search(rb"(?i)\r\nx-request-id: ([^\r]*)\r\n", answer)
    assert shown is not None
    assert re.fullmatch(rb"[\x21-\x7e]{1,128}", shown[1])
    assert shown[1] != given


def test_no_two_requests_share_an_id(client: httpx.Client) -> None:
    ids = [client.get("/health/live").headers["x-request-id"] for _ in range(20)]
    assert len(set(ids)) == 20


# Requests that an HTTP client would not send.

HEAD = b"POST /items HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

RAW = {
    "a body that ends early": HEAD + b"Content-Length: 10\r\n\r\n{}}",
    "a large body that ends early": HEAD + b"Content-Length: 2000000\r\n\r\n{",
    "two documents": HEAD + b"Content-Length: 24\r\n\r\n" + GOOD_ITEM * 2,
    "two documents in chunks": CHUNKED
    + b"\r\nc\r\n%s\r\nc\r\n%s\r\n0\r\n\r\n" % ((GOOD_ITEM,) * 2),
    "chunks that end early": CHUNKED + b"\r\nc\r\n" + GOOD_ITEM + b"\r\n",
    "a chunk without a size": CHUNKED + b"\r\nzz\r\n" + GOOD_ITEM + b"\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"\r\n2\r\n" + GOOD_ITEM + b"\r\n0\r\n\r\n",
    "NUL in a header": HEAD + b"X-A: a\0b\r\nContent-Length: 12\r\n\r\n" + GOOD_ITEM,
    "NUL in a header's name": HEAD + b"X\0A: a\r\nContent-Length: 12\r\n\r\n" + GOOD_ITEM,
    "a space before a colon": HEAD + b"Content-Length : 12\r\n\r\n" + GOOD_ITEM,
    "two lengths": HEAD + b"Content-Length: 12\r\nContent-Length: 2\r\n\r\n" + GOOD_ITEM,
    "a length below zero": HEAD + b"Content-Length: -1\r\n\r\n" + GOOD_ITEM,
    "a length that is none": HEAD + b"Content-Length: 0xc\r\n\r\n" + GOOD_ITEM,
    "an unknown transfer": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + GOOD_ITEM,
    "an unknown version": b"POST /items HTTP/9.9\r\nHost: a\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32 + b"\r\n\r\n",
    "a line of noise": b"hello\r\n\r\n",
}


def talk(service: Service, data: bytes, *, end: bool = False, seconds: float = 15) -> bytes:
    """Send and return all data until the server closes; with `end` half-close after `data`."""
    received = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=seconds) as connection:
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except ConnectionError:  # closed before everything was sent
            pass
    return received


def status(answer: bytes) -> int:
    """Return the status, or 0 without an answer."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


@pytest.fixture
def unharmed(client: httpx.Client, service: Service) -> Iterator[None]:
    """After the test: the server still serves, stored nothing and logged no error."""
    logged = service.log.stat().st_size
    yield
    assert client.get("/items").json()["total"] == 0
    log = service.log.read_bytes()[logged:]
    assert b"Traceback" not in log, log
    assert b'"ERROR"' not in log, log


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
def test_a_broken_request_is_rejected_and_the_next_one_is_served(
    service: Service, unharmed: None, data: bytes
) -> None:
    answer = talk(service, data, end=True)
    # 501 and 505: an unsupported transfer coding or version.
    assert status(answer) in {0, *range(400, 500), 501, 505}, answer


@pytest.mark.parametrize("sent", (b"", b"{", b'{"name":"a"'))
def test_a_client_that_disconnects_does_no_harm(
    service: Service, unharmed: None, sent: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n" + sent)
        time.sleep(0.05)
    time.sleep(0.05)


def test_chunks_above_the_limit_get_a_413(service: Service, unharmed: None) -> None:
    data = CHUNKED + b"Connection: close\r\n\r\n" + CHUNK * 17 + b"0\r\n\r\n"
    assert status(talk(service, data)) == 413


def test_chunks_below_the_limit_are_one_body(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    body = b'\r\n5\r\n{"nam\r\n7\r\ne":"a"}\r\n0\r\n\r\n'
    assert status(talk(service, CHUNKED + b"Connection: close\r\n" + body)) == 201
    assert sql("SELECT name FROM items")[0][0] == "a"


@pytest.mark.slow
def test_a_body_that_arrives_too_slowly_is_aborted_after_ten_seconds(
    service: Service, unharmed: None
) -> None:
    """The answer closes the connection, so the rest of the body is not parsed as a request."""
    started = time.monotonic()
    close = b"" if SERVER == "uvicorn" else b"Connection: close\r\n"  # granian reads on
    with socket.create_connection(("127.0.0.1", service.port), timeout=0.5) as connection:
        connection.sendall(HEAD + close + b"Content-Length: 100\r\n\r\n")
        answer = b""
        while not answer and time.monotonic() - started < 60:
            connection.sendall(b" ")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
        assert time.monotonic() - started > 9
        with suppress(ConnectionError):
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD_ITEM) + GOOD_ITEM)
            while part := connection.recv(65536):
                answer += part
    assert status(answer) == 408
    assert b"application/problem+json" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer.lower()


class Part(Struct):
    price: int


class Whole(Struct):
    part: Part
    parts: list[Part] = []
    named: dict[str, Part] = {}


@pytest.mark.parametrize(
    ("body", "message"),
    (
        (b'{"part":{"price":"1"}}', "Expected `int`, got `str` - at `$.part.price`"),
        (b'{"part":{"price":1.5}}', "Expected `int`, got `float` - at `$.part.price`"),
        (b"{}", "Object missing required field `part`"),
        (b'{"part":{}}', "Object missing required field `price` - at `$.part`"),
        (
            b'{"part":{"price":1},"parts":[{"price":1},{}]}',
            "Object missing required field `price` - at `$.parts[1]`",
        ),
        (
            b'{"part":{"price":1},"named":{"a":{"price":null}}}',
            "Expected `int`, got `null` - at `$.named[...].price`",
        ),
        (b"[]", "Expected `object`, got `array`"),
    ),
)
def test_msgspec_messages_have_the_form_that_codec_parses(body: bytes, message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as decoded:
        msgspec.json.decode(body, type=Whole)
    assert str(decoded.value) == message
    with pytest.raises(msgspec.ValidationError) as converted:
        msgspec.convert(msgspec.json.decode(body), Whole)
    assert str(converted.value) == message
