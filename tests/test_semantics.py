"""HTTP semantics (RFC 9110) of every route: preconditions, Cache-Control, parameters."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from conftest import Query, Service, statements_run

from service.asgi import app
from service.web.conditional import parse
from service.web.endpoint import Operation
from service.web.media import is_json, utf_8_media_type

JSON = "application/json"
EVERY = app.operations
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/items"): {"name": "Torch"},
    ("PUT", "/items/{id}"): {"name": "Torch"},
    ("PATCH", "/items/{id}"): {"price": 5},
    ("POST", "/users/{id}/items"): {"name": "Torch"},
    ("POST", "/users/{id}/keys"): {"name": "laptop"},
    ("POST", "/users/{id}/notifications/read"): {"up_to": 1},
    ("POST", "/users"): {"email": "bob@example.com", "username": "bob"},
    ("PUT", "/users/{id}"): {"email": "bob@example.com", "username": "bob"},
    ("PATCH", "/users/{id}"): {"full_name": "Bob"},
    ("POST", "/items/bulk"): {"items": [{"name": "Torch"}]},
    ("PUT", "/items/bulk"): {"items": [{"sku": "T-1", "name": "Torch"}]},
    ("PATCH", "/items/bulk"): {"ids": [1], "set": {"price": 5}},
    ("POST", "/items/bulk/delete"): {"ids": [1]},
    ("PUT", "/users/bulk"): {"items": [{"email": "bob@example.com", "username": "bob"}]},
}


def named(one: Operation) -> str:
    return f"{one.method} {one.path}"


def path_of(one: Operation) -> str:
    path = one.path.replace("{id}", "1").replace("{notification_id}", "1")
    return path.replace("{statement}", "items.by_id")


def send(
    client: httpx.Client, one: Operation, query: str = "", headers: dict[str, str] | None = None
) -> httpx.Response:
    """Send a request that succeeds if item 1 and its owner, user 1, exist."""
    path = path_of(one) + query
    if "{key_id}" in path:
        made = client.post("/users/1/keys", json=BODIES["POST", "/users/{id}/keys"])
        path = path.replace("{key_id}", str(made.json()["id"]))
    if one.method == "POST" and one.files:
        typed = {"content-type": one.files[0], **(headers or {})}
        return client.post(path, content=b'{"name":"Torch"}\n', headers=typed)
    return client.request(
        one.method, path, json=BODIES.get((one.method, one.path)), headers=headers
    )


@pytest.fixture
def lamp(client: httpx.Client, sql: Query) -> dict[str, Any]:
    """An item of version 1, its owner, whose job has failed, and a notification of the owner."""
    client.post("/users", json={"email": "ada@example.com", "username": "ada"})
    sql("UPDATE jobs SET state = 'failed', finished_at = now()")
    sql("INSERT INTO notifications (user_id, kind, message) VALUES (1, 'test', 'Told')")
    item: dict[str, Any] = client.post("/items", json={"name": "Lamp", "owner_id": 1}).json()
    return item


def everything(sql: Query) -> list[str]:
    rows = "SELECT users::text FROM users UNION ALL SELECT items::text FROM items ORDER BY 1"
    return [text for (text,) in sql(rows)]


# Entity tags.


@pytest.mark.parametrize(
    ("header", "strong", "weak"),
    (
        (b'"1"', [1], [1]),
        (b', "1"', [1], [1]),
        (b'"1",,', [1], [1]),
        (b',,\t"1" ,\t, W/"2"\t', [1], [1, 2]),
        (b'"1","2"', [1, 2], [1, 2]),
        (b'W/"1", "x,y", "\xe4", "2"', [2], [1, 2]),
        (b'"01", "+1", "1 "', None, None),
        (b'"01", "+1", "99999999999999999999", "9223372036854775808"', [], []),
        (b"", [], []),
        (b" , ,", [], []),
        (b'*, "1"', None, None),
        (b'"1", *', None, None),
        (b'w/"1"', None, None),
        (b'W/ "1"', None, None),
        (b'"1" "2"', None, None),
        (b'"1', None, None),
        (b"1", None, None),
    ),
    ids=ascii,
)
def test_entity_tags_are_parsed_as_in_rfc_9110(
    header: bytes, strong: list[int] | None, weak: list[int] | None
) -> None:
    found = parse(header)
    if strong is None:
        assert found is None
    else:
        assert found is not None
        assert (found.any, found.strong, found.weak) == (False, strong, weak)


@pytest.mark.parametrize("header", (b" " * 60_000 + b"x", b"," * 60_000 + b"x", b'"' * 60_000))
def test_a_hostile_list_of_tags_is_read_in_linear_time(header: bytes) -> None:
    """With backtracking over 60 kB of white space this takes minutes."""
    assert parse(header) is None


@pytest.mark.parametrize(
    "tags", ((b', "1"',), (b'"1",,',), (b'"9"\t,\t"1"',), (b'"9"', b'"1"'), (b'W/"1"',), (b"*",))
)
def test_a_list_of_tags_with_the_current_version_gives_304(
    client: httpx.Client, lamp: dict[str, Any], tags: tuple[bytes, ...]
) -> None:
    client.get("/items/1")
    cached = [(b"if-none-match", tag) for tag in tags]
    for headers in (cached, [*cached, (b"cache-control", b"no-cache")]):
        for method in ("GET", "HEAD"):
            response = client.request(method, "/items/1", headers=headers)
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["etag"] == '"1"'
            assert response.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("tag", ('*, "1"', '"1" "2"', "1", '"2"', ",", ""))
def test_an_invalid_or_other_if_none_match_gives_the_full_response(
    client: httpx.Client, lamp: dict[str, Any], tag: str
) -> None:
    assert client.get("/items/1", headers={"if-none-match": tag}).json() == lamp


@pytest.mark.parametrize(
    ("headers", "status"),
    (
        ({"if-match": '"7"'}, 412),
        ({"if-match": ""}, 412),
        ({"if-match": 'W/"1"'}, 412),
        ({"if-match": '"7", "1"'}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": "1"}, 400),
        # If-Match is evaluated first (13.2.2).
        ({"if-match": '"7"', "if-none-match": '"1"'}, 412),
        ({"if-match": '"1"', "if-none-match": '"1"'}, 304),
        # Without Last-Modified, dates are ignored.
        ({"if-unmodified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        ({"if-modified-since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 200),
    ),
    ids=str,
)
def test_preconditions_of_a_read_hold_for_cached_responses_too(
    client: httpx.Client, lamp: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    for path in ("/items/1", "/users/1"):
        for _ in range(2):
            client.get(path)
        for method in ("GET", "HEAD"):
            hit = client.request(method, path, headers=headers)
            read = client.request(method, path, headers={**headers, "cache-control": "no-cache"})
            assert (hit.status_code, read.status_code) == (status, status)
            assert (hit.headers["x-cache"], read.headers["x-cache"]) == ("HIT", "BYPASS")


@pytest.mark.parametrize(
    ("headers", "status"),
    (
        ({"if-none-match": "*"}, 412),
        ({"if-none-match": '"1"'}, 412),
        ({"if-none-match": 'W/"1"'}, 412),
        ({"if-none-match": ', "7", "1"'}, 412),
        ({"if-match": '"1"', "if-none-match": '"1"'}, 412),
        ({"if-match": "*", "if-none-match": "*"}, 412),
        ({"if-match": '"7"', "if-none-match": '"8"'}, 412),
        ({"if-match": ","}, 412),
        ({"if-none-match": '*, "1"'}, 400),
        ({"if-none-match": "1"}, 400),
        ({"if-none-match": '"7"'}, 200),
        ({"if-none-match": ","}, 200),
        ({"if-match": '"1"', "if-none-match": '"7"'}, 200),
        ({"if-match": "*", "if-none-match": '"7"'}, 200),
    ),
    ids=str,
)
def test_preconditions_of_a_write_hold(
    client: httpx.Client, sql: Query, headers: dict[str, str], status: int
) -> None:
    refusal = status if status != 200 else None
    star = headers.get("if-match") == "*"
    for method, query, body in (
        ("PUT", "", {"name": "Torch"}),
        ("PATCH", "", {"price": 5}),
        ("PATCH", "", {}),
        ("DELETE", "", None),
        ("DELETE", "?permanent=true", None),
    ):
        where = client.post("/items", json={"name": "Lamp"}).headers["location"]
        before = everything(sql)
        response = client.request(method, where + query, json=body, headers=headers)
        assert response.status_code == (refusal or (204 if query else 200)), response.text
        assert statements_run(response) == (0 if status == 400 else 1)
        if refusal:
            assert everything(sql) == before
        missing = client.request(method, f"/items/99{query}", json=body, headers=headers)
        assert missing.status_code == (400 if status == 400 else 412 if star else 404)


def test_if_none_match_of_all_other_versions_prevents_lost_updates(
    client: httpx.Client, lamp: dict[str, Any]
) -> None:
    """Each writer excludes all versions except the one it has read."""

    def increment(_: int) -> int:
        won = 0
        for _ in range(5):
            item = client.get("/items/1").json()
            others = ", ".join(f'"{n}"' for n in range(1, 100) if n != item["version"])
            answer = client.patch(
                "/items/1",
                json={"price": (item["price"] or 0) + 1},
                headers={"if-none-match": others},
            )
            won += answer.status_code == 200
        return won

    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(increment, range(8)))
    item = client.get("/items/1").json()
    assert (item["price"], item["version"]) == (won, 1 + won)


def test_lists_and_bulk_operations_ignore_preconditions(
    client: httpx.Client, lamp: dict[str, Any]
) -> None:
    """They have no ETag."""
    for one in EVERY:
        if not one.has_etag and one.path not in {"/docs", "/openapi.json"}:  # the same for all
            for headers in ({"if-match": '"7"'}, {"if-none-match": "*"}, {"if-match": "x"}):
                status = send(client, one, headers=headers).status_code
                assert status in (200, 201, 204, 409), named(one)


# Cache-Control.


@pytest.mark.parametrize("one", EVERY, ids=named)
def test_responses_with_data_are_private(
    client: httpx.Client, lamp: dict[str, Any], one: Operation
) -> None:
    """New routes too: a route returns data unless this test lists it as an exception."""
    without = {
        **dict.fromkeys(("/health", "/metrics"), "no-store"),
        **dict.fromkeys(("/openapi.json", "/docs", "/console"), "no-cache"),
    }
    expected = without.get("/" + one.path.split("/")[1], "private, no-cache")
    if named(one) == "POST /users/{id}/keys":  # the only response with a secret
        expected = "no-store"
    answers = [send(client, one)]
    if one.method == "GET":
        head = client.head(path_of(one))
        answers += [head, send(client, one)]  # the second may be a cache hit
    for answer in answers:
        assert answer.is_success, answer.text
        assert answer.headers.get_list("cache-control") == [expected]
    refused = send(client, one, query="?x=1")
    assert refused.headers.get_list("cache-control") == ["private, no-cache"]


# Parameters.


@pytest.mark.parametrize("one", EVERY, ids=named)
def test_an_unknown_parameter_is_named(
    client: httpx.Client, lamp: dict[str, Any], sql: Query, one: Operation
) -> None:
    for _ in range(2):  # the second may be a cache hit
        if one.method == "GET":
            send(client, one)
    before = everything(sql)
    answers = [send(client, one, query=f"{text}") for text in ("?nope=1", "?nope", "?nope=")]
    if one.method == "GET":
        answers.append(client.head(path_of(one) + "?nope=1"))
    for answer in answers:
        assert answer.status_code == 422
        assert statements_run(answer) == 0
    for answer in answers[:3]:
        assert [error["field"] for error in answer.json()["errors"]] == ["nope"]
        assert "nope" in answer.json()["detail"]
    assert everything(sql) == before
    assert send(client, one, query="?&").is_success  # without a parameter


def test_a_404_comes_before_errors_of_parameters(client: httpx.Client) -> None:
    assert client.get("/nothing?x=1").status_code == 404
    assert client.put("/items?x=1").status_code == 405
    assert client.get("/users/1?include=notes").status_code == 422


@pytest.mark.parametrize(
    ("request_", "fields"),
    (
        ("GET /items?page=0&per_page=x&sort=up&nope=1", ["nope", "per_page", "page", "sort"]),
        ("GET /items?min_price=a&max_price=-1&q=%00", ["q", "min_price", "max_price"]),
        ("GET /users?page=1&page=2&role=boss&cursor=&x", ["page", "x", "role"]),
        ("DELETE /items/1?permanent=maybe&force", ["force", "permanent"]),
        ("GET /items/1?a=1&b=2&a=3", ["a", "b"]),
        ("GET /items?q=%ff&page=x&sort=%ED%A0%80&%C3=1", ["q", "sort", "\ufffd", "page"]),
        ("POST /items/import?on_error=stop&x=", ["x", "on_error"]),
    ),
)
def test_every_wrong_parameter_is_reported(
    client: httpx.Client, request_: str, fields: list[str]
) -> None:
    method, _, path = request_.partition(" ")
    files = {"content-type": "text/csv"} if method == "POST" else {}
    response = client.request(method, path, headers=files)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == fields
    assert response.json()["detail"].endswith(f"(and {len(fields) - 1} more)")


# Bodies.


WRONG_ITEM = {"sku": "", "price": "free", "is_active": 1.5, "owner_id": 1.5, "description": []}
ITEM_FIELDS = ["sku", "name", "description", "price", "is_active", "owner_id"]


@pytest.mark.parametrize(
    ("request_", "body", "fields"),
    (
        ("POST /items", WRONG_ITEM, ITEM_FIELDS),
        ("PUT /items/1", WRONG_ITEM, ITEM_FIELDS),
        ("POST /users/1/items", WRONG_ITEM, ITEM_FIELDS),
        ("PATCH /items/1", {**WRONG_ITEM, "name": None}, ITEM_FIELDS),
        ("PATCH /items/1", {"name": "a\0", "price": -1}, ["name", "price"]),
        ("POST /users", {"role": "boss", "email": "x"}, ["email", "username", "role"]),
        ("PATCH /users/1", {"username": "a b", "full_name": ""}, ["username", "full_name"]),
        (
            "POST /items/bulk",
            {"items": [{"name": "a", "price": -1}, {}, {"name": "b"}, 5, {"name": 5, "sku": 5}]},
            ["items[0].price", "items[1].name", "items[3]", "items[4].sku", "items[4].name"],
        ),
        (
            "PUT /items/bulk",
            {"items": [{"name": "a"}, {"sku": "S"}]},
            ["items[0].sku", "items[1].name"],
        ),
        (
            "PUT /users/bulk",
            {"items": [{"email": 1, "username": "ada"}, {"email": "a@b.co"}]},
            ["items[0].email", "items[1].username"],
        ),
        (
            "PATCH /items/bulk",
            {"ids": ["1", 2, 2.5], "set": {"price": -1, "name": None}},
            ["ids[0]", "ids[2]", "set.name", "set.price"],
        ),
        ("PATCH /items/bulk", {"ids": 5}, ["ids", "set"]),
        ("POST /items/bulk/delete", {"permanent": "yes"}, ["ids", "permanent"]),
    ),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_wrong_field_is_reported_with_its_path(
    client: httpx.Client, request_: str, body: Any, fields: list[str]
) -> None:
    method, _, path = request_.partition(" ")
    response = client.request(method, path, json=body)
    assert response.status_code == 422
    problem = response.json()
    assert [error["field"] for error in problem["errors"]] == fields
    first = problem["errors"][0]
    more = f" (and {len(fields) - 1} more)"
    assert problem["detail"] == f"{first['field']}: {first['message']}{more}"
    assert "decimal`" not in response.text


@pytest.mark.parametrize("more", (0, 20_000), ids=("short", "long"))
def test_a_lone_surrogate_is_reported_with_all_other_errors(
    client: httpx.Client, more: int
) -> None:
    """Also in the last bytes, where msgspec reports a truncated body."""
    ignored = rb'"x":"\ud800%b"' % (b"y" * more)
    rows = (
        rb'{"name":"a","description":"\udfff","price":-1}',
        b'{"name":"a",%b}' % ignored,
        rb'{"name":"\\ud800 \ud83d\ude00"}',  # the string \ud800, and a surrogate pair
        rb'{"name":"\ud83d"}',
    )
    body = b'{"items":[%b]}' % b",".join(rows)
    response = client.post("/items/bulk", content=body, headers={"content-type": JSON})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [
        "items[0].description",
        "items[0].price",
        "items[3].name",
    ]
    body = b'{"items":[%b]}' % b",".join(rows[1:3])
    response = client.post("/items/bulk", content=body, headers={"content-type": JSON})
    assert response.status_code == 201
    assert [item["name"] for item in response.json()["items"]] == ["a", "\\ud800 \U0001f600"]
    broken = client.post("/items", content=body[:-1], headers={"content-type": JSON})
    assert broken.status_code == 400
    escape = client.post("/items", content=rb'{"name":"\ud8zz"}', headers={"content-type": JSON})
    assert escape.status_code == 400


@pytest.mark.parametrize("more", (0, 20_000), ids=("short", "long"))
def test_ignored_parts_of_a_body_must_be_utf_8_too(client: httpx.Client, more: int) -> None:
    body = b'{"x":"%b\xff","name":"a"}' % (b"y" * more)
    response = client.post("/items", content=body, headers={"content-type": JSON})
    assert response.status_code == 400
    assert response.json()["detail"] == f"the body is not UTF-8 at byte {more + 6}"


def test_the_error_of_a_wrong_price_uses_json_type_names(client: httpx.Client) -> None:
    response = client.post("/items", json={"name": "a", "price": {}})
    assert response.json()["errors"][0]["message"] == "expected `number`, got `object`"


def test_at_most_a_hundred_errors_are_reported(client: httpx.Client) -> None:
    response = client.post("/items/bulk", json={"items": [{"price": -1}] * 1000})
    assert response.status_code == 422
    assert len(response.json()["errors"]) == 100


@pytest.mark.parametrize(
    ("number", "value"),
    (
        ("1", 1),
        ("1.0", 1),
        ("1.000", 1),
        ("0.1e1", 1),
        ("1E0", 1),
        ("100e-2", 1),
        ("9007199254740993.0", 9007199254740993),  # not representable as a double
        ("9223372036854775807.0", 2**63 - 1),
        ("1.5", None),
        ("1e-400", None),
        ("-0.0", None),
        ("0.0", None),
        ("1e19", None),
        ("1e400", None),
        ("1e9999999999999999999999", None),
        ("-1e9999999999999999999999", None),
        ("1.0000000000000000000000000000000001", None),
        ("true", None),
        ('"1.0"', None),
    ),
)
def test_a_number_without_a_fraction_is_an_integer(
    client: httpx.Client, lamp: dict[str, Any], number: str, value: int | None
) -> None:
    """As in JSON Schema: 1.0 is an integer."""
    status = {None: 422, 1: 201}.get(value, 409)  # 409: the owner does not exist
    new = f'{{"name":"Torch","owner_id":{number}}}'
    typed = {"content-type": "application/json"}
    for method, path, body in (
        ("POST", "/items", new),
        ("PUT", "/items/1", new),
        ("PATCH", "/items/1", new),
        ("POST", "/items/bulk", f'{{"items":[{new}]}}'),
        ("PATCH", "/items/bulk", f'{{"ids":[1],"set":{new}}}'),
    ):
        response = client.request(method, path, content=body, headers=typed)
        made = {"PUT": 200, "PATCH": 200}.get(method, 201) if status == 201 else status
        assert response.status_code == made, response.text
        assert "decimal`" not in response.text
        if value == 1 and "bulk" not in path:
            assert response.json()["owner_id"] == 1
    lines = {"content-type": "application/x-ndjson"}
    done = client.post("/items/import?on_error=skip", content=new + "\n", headers=lines).json()
    assert (done["created"], done["failed"]) == ((1, 0) if value == 1 else (0, 1))


def test_ids_of_bulk_operations_accept_every_integer_notation(
    client: httpx.Client, lamp: dict[str, Any]
) -> None:
    typed = {"content-type": "application/json"}
    body = b'{"ids":[1.0,1e2,-0.0,1e19,1]}'
    done = client.post("/items/bulk/delete", content=body, headers=typed)
    assert done.json() == {"deleted": 1, "missing": [100, 0, 10**19]}


# Content-Type, and white space around values.


@pytest.mark.parametrize(
    "content_type",
    (
        "application/json; charset=utf8",
        "application/json;charset=UTF-8",
        'Application/JSON ; Charset="utf-8"',
        'application/json; charset="ut\\f-8"',
        "application/json; v=1; charset=utf-8",
        'application/json; title="a;b, charset=latin-1"',
        "application/json; odata.metadata=minimal",
        "application/json;",
        "application/json; charset=us-ascii",
        "application/merge-patch+json",
        "application/vnd.example.v1+json; charset=utf8",
    ),
)
def test_json_is_known_by_its_media_type(client: httpx.Client, content_type: str) -> None:
    headers = {"content-type": content_type}
    response = client.post("/items", content=b'{"name":"L\xc3\xa4mpchen"}', headers=headers)
    assert (response.status_code, response.json().get("name")) == (201, "Lämpchen")


@pytest.mark.parametrize(
    "content_type",
    (
        b"",
        b"json",
        b"application/json, application/json",
        b"application/json charset=utf-8",
        b"application/json; charset=latin-1",
        b"application/json; charset=utf-8; charset=utf-16",
        b'application/json; charset=""',
        b"application/json; charset",
        b"text/json",
        b"application/jsonp",
        b"+json",
        b'application/json; title="' + b"\\" * 60_000,
    ),
    ids=lambda value: ascii(value[:40]),
)
def test_another_media_type_or_charset_is_rejected(content_type: bytes) -> None:
    assert not is_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    ("application/x-ndjson; charset=utf8", 'TEXT/CSV ;header=present;charset="UTF-8"'),
)
def test_files_are_known_by_the_same_rules(client: httpx.Client, content_type: str) -> None:
    body = b"name\nTorch\n" if "CSV" in content_type else b'{"name":"Torch"}\n'
    headers = {"content-type": content_type, "content-encoding": "identity"}
    response = client.post("/items/import", content=body, headers=headers)
    assert (response.status_code, response.json().get("created")) == (200, 1)
    assert utf_8_media_type(b"text/csv; charset=latin-1") is None


def talk(service: Service, *headers: bytes, body: bytes = b"", start: bytes) -> str:
    """Send raw header lines that an HTTP client would not; return the response."""
    length = b"Content-Length: %d" % len(body)
    lines = [start + b" HTTP/1.1", b"Host: x", b"Connection: close", length, *headers, b"", body]
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as one:
        one.sendall(b"\r\n".join(lines))
        answer = b""
        while part := one.recv(65_536):
            answer += part
    return answer.decode().lower()


def test_white_space_around_header_values_is_ignored(
    client: httpx.Client, service: Service, lamp: dict[str, Any]
) -> None:
    made = talk(
        service,
        b"X-Request-ID: mine \t",
        b"Content-Type:\tapplication/json ",
        b"Content-Encoding: identity ",
        body=b'{"name":"Lamp"}',
        start=b"POST /items",
    )
    assert " 201 " in made
    assert "x-request-id: mine\r\n" in made
    for _ in range(3):  # a read, then hits
        read = talk(service, b"X-Request-ID:   mine  ", start=b"GET /items/1")
        assert "x-request-id: mine\r\n" in read
    assert " 304 " in talk(service, b'If-None-Match: \t"9"\t, "1"\t', start=b"GET /items/1")
    assert " 412 " in talk(service, b'If-Match: "7"\t', start=b"GET /items/1")
    assert " 422 " in talk(service, start=b"DELETE /items/1?permanent=true&x")


def test_two_request_id_headers_are_ignored(client: httpx.Client, lamp: dict[str, Any]) -> None:
    for _ in range(3):  # a read, then hits
        two = client.get("/items/1", headers=[("x-request-id", "a"), ("x-request-id", "b")])
        assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", two.headers["x-request-id"])
