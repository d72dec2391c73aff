"""The OpenAPI document matches the service: every response is checked against it.

Two validators of JSON Schema check each response: jsonschema (Python) and jsonschema-rs (Rust).
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import httpx
import jsonschema_rs
import pytest
from conftest import Query
from msgspec import Meta, Struct
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from shapes_app import app as shapes

from service.asgi import app, built_in
from service.settings import Settings
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.openapi import document
from service.web.openapi_texts import About, Checks
from service.web.request import Request

Document = dict[str, Any]

# Headers of the connection or of the body's framing: the document does not have them.
TRANSPORT = {"connection", "content-length", "content-type", "date", "server", "transfer-encoding"}
# Statuses that need broken stores or much time: tests/test_faults.py has them.
NOT_SHOWN = {"408", "503", "504"}
# Statuses that need two requests at once (tests/test_idempotency.py), the key of an admin
# (tests/test_admin.py), or other settings.
NEED_MORE = {
    ("post", "/items/bulk/delete", "409"),
    ("post", "/items/import", "409"),
    ("post", "/users/{id}/notifications/{notification_id}/read", "409"),
    ("post", "/users/{id}/notifications/read", "409"),
    ("get", "/admin/explain/{statement}", "409"),
    ("get", "/admin/slow", "404"),
    # With SERVICE_METRICS=off.
    ("get", "/metrics", "404"),
}
# Responses that are the same for every client: they have an ETag.
FIXED = ("/docs", "/openapi.json", "/console")
PAGES = (*FIXED, "/metrics")
LARGE = b" " * 1_048_577

PARSED = {"application/json", "application/problem+json"}
JSON = {"content-type": "application/json"}
NEW_ITEM, NEW_USER = {"name": "Torch"}, {"email": "bob@example.com", "username": "bob"}
TAKEN_ITEM, TAKEN_USER = {**NEW_ITEM, "sku": "L-1"}, {**NEW_USER, "email": "ADA@example.com"}
IDS = {"ids": [1, 2, 99]}


class Asked(NamedTuple):
    """A request: operation, expected status, actual path, body and headers."""

    method: str
    path: str
    status: int
    actual: str = ""
    json: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    content: bytes | None = None


def requests() -> Iterator[Asked]:
    """Yield a request for every documented status of each operation; remove rows at the end."""
    for path, new, taken in (("/items", NEW_ITEM, TAKEN_ITEM), ("/users", NEW_USER, TAKEN_USER)):
        yield from single_rows(path, path + "/{id}", new, taken)
    yield from owned_items()
    yield from keys()
    yield from notifications()
    yield from jobs()
    yield from bulk()
    yield from files()
    for _ in range(2):
        yield Asked("post", "/items", 201, "/items", NEW_ITEM, {"idempotency-key": "a"})
    for path in FIXED:
        yield Asked("get", path, 304, path, headers={"if-none-match": "*"})
        yield Asked("get", path, 400, path, headers={"if-match": "7"})
        yield Asked("get", path, 412, path, headers={"if-match": '"7"'})
    for path in ("/health", "/health/live", "/health/ready", *PAGES):
        yield Asked("get", path, 200, path)
        yield Asked("get", path, 422, path + "?x=1")
    yield from for_operators()
    yield Asked("delete", "/users/{id}", 409, "/users/1?permanent=true")
    for path in ("/items", "/users"):
        yield Asked("delete", path + "/{id}", 200, path + "/2")
        yield Asked("delete", path + "/{id}", 204, path + "/2?permanent=true")


def for_operators() -> Iterator[Asked]:
    yield Asked("get", "/admin/slow", 200, "/admin/slow")
    yield Asked("get", "/admin/slow", 422, "/admin/slow?limit=0")
    path, actual = "/admin/explain/{statement}", "/admin/explain/items.by_id"
    yield Asked("get", path, 200, actual)
    yield Asked("get", path, 200, f"{actual}?format=json&analyze=true")
    yield Asked("get", path, 403, "/admin/explain/items.add?analyze=true")
    yield Asked("get", path, 404, "/admin/explain/items.nothing")
    yield Asked("get", path, 422, f"{actual}?arguments=1")


def single_rows(path: str, this: str, new: Document, taken: Document) -> Iterator[Asked]:
    one, two = path + "/1", path + "/2"
    for query in ("", "?cursor=&total=exact", "?page=9&per_page=2", "?total=none"):
        yield Asked("get", path, 200, path + query)
    yield Asked("get", path, 422, path + "?x=1&page=0")
    yield Asked("get", this, 200, one)
    yield Asked("get", this, 304, one, headers={"if-none-match": '"1"'})
    for method in ("get", "put", "patch", "delete"):
        body = {"put": new, "patch": {"is_active": True}}.get(method)
        yield from refused(method, this, one, body)
        yield Asked(method, this, 404, path + "/99", body)
        yield Asked(method, this, 422, path + "/x", body)
    for method, where, actual in (("put", this, two), ("patch", this, two), ("post", path, path)):
        yield Asked(method, where, 409, actual, taken)
        yield Asked(method, where, 201 if method == "post" else 200, actual, new)
        yield from bodies(method, where, actual)
        new = {**new, **{name: f"other-{text}" for name, text in new.items()}}
    yield Asked("post", path, 422, path, {"name": "", "email": 5})


def owned_items() -> Iterator[Asked]:
    path, actual = "/users/{id}/items", "/users/1/items"
    yield Asked("get", "/items", 200, "/items?include=owner")
    yield Asked("get", "/users/{id}", 200, "/users/1?include=items,keys")
    yield Asked("get", "/users", 200, "/users?include=items")
    yield Asked("get", "/users", 200, "/users?include=items&cursor=")
    yield Asked("get", path, 200, actual + "?cursor=")
    yield Asked("get", path, 200, actual)
    yield Asked("get", path, 404, "/users/99/items")
    yield Asked("get", path, 422, actual + "?x=1")
    yield Asked("post", path, 201, actual, NEW_ITEM)
    yield Asked("post", path, 404, "/users/99/items", NEW_ITEM)
    yield Asked("post", path, 409, actual, TAKEN_ITEM)
    yield Asked("post", path, 422, actual, {})
    yield from bodies("post", path, actual)


def keys() -> Iterator[Asked]:
    path, actual = "/users/{id}/keys", "/users/1/keys"
    yield Asked("post", path, 201, actual, {"name": "laptop"})
    yield Asked("post", path, 404, "/users/99/keys", {"name": "laptop"})
    yield Asked("delete", "/users/{id}", 200, "/users/2")
    yield Asked("post", path, 409, "/users/2/keys", {"name": "laptop"})
    yield Asked("post", path, 422, actual, {})
    yield from bodies("post", path, actual)
    yield Asked("get", path, 200, actual)
    yield Asked("get", path, 404, "/users/99/keys")
    yield Asked("get", path, 422, actual + "?x=1")
    path = f"{path}/{{key_id}}"
    yield Asked("delete", path, 404, f"{actual}/99")
    yield Asked("delete", path, 422, f"{actual}/x")
    yield Asked("delete", path, 204, f"{actual}/1")


def notifications() -> Iterator[Asked]:
    path, actual = "/users/{id}/notifications", "/users/1/notifications"
    yield Asked("get", path, 200, f"{actual}?unread=true")
    yield Asked("get", path, 200, f"{actual}?cursor=")
    yield Asked("get", path, 404, "/users/99/notifications")
    yield Asked("get", path, 422, f"{actual}?unread=x")
    path = f"{path}/{{notification_id}}/read"
    yield Asked("post", path, 204, f"{actual}/1/read")
    yield Asked("post", path, 400, f"{actual}/1/read", headers={"idempotency-key": "a" * 256})
    yield Asked("post", path, 404, f"{actual}/99/read")
    yield Asked("post", path, 422, f"{actual}/x/read")
    path, actual = "/users/{id}/notifications/read", "/users/1/notifications/read"
    yield Asked("post", path, 200, actual, {"up_to": 9})
    yield Asked("post", path, 404, "/users/99/notifications/read", {"up_to": 9})
    yield Asked("post", path, 422, actual, {"up_to": 0})
    yield from bodies("post", path, actual)
    path = "/users/{id}/dashboard"
    yield Asked("get", path, 200, "/users/1/dashboard")
    yield Asked("get", path, 404, "/users/99/dashboard")
    yield Asked("get", path, 422, "/users/x/dashboard")


def jobs() -> Iterator[Asked]:
    yield Asked("get", "/jobs", 200, "/jobs?per_page=1")
    yield Asked("get", "/jobs", 200, "/jobs?state=done")
    yield Asked("get", "/jobs", 422, "/jobs?state=none")
    yield Asked("get", "/jobs/{id}", 200, "/jobs/1")
    yield Asked("get", "/jobs/{id}", 404, "/jobs/99")
    yield Asked("get", "/jobs/{id}", 422, "/jobs/x")
    path, actual = "/jobs/{id}/retry", "/jobs/1/retry"
    yield Asked("post", path, 400, actual, headers={"idempotency-key": ""})
    yield Asked("post", path, 200, actual)
    yield Asked("post", path, 409, actual)
    yield Asked("post", path, 404, "/jobs/99/retry")
    yield Asked("post", path, 422, "/jobs/x/retry")


def bulk() -> Iterator[Asked]:
    no_owner = {**TAKEN_ITEM, "owner_id": 99}
    bob = {"email": "third@example.com", "username": "ADA"}
    for method, path, body, wrong in (
        ("post", "/items/bulk", {"items": [NEW_ITEM]}, {"items": [TAKEN_ITEM]}),
        ("put", "/items/bulk", {"items": [TAKEN_ITEM]}, {"items": [no_owner]}),
        ("patch", "/items/bulk", {**IDS, "set": {"price": 5}}, {**IDS, "set": {"owner_id": 99}}),
        ("post", "/items/bulk/delete", IDS, None),
        ("put", "/users/bulk", {"items": [NEW_USER]}, {"items": [bob]}),
    ):
        created = (method, path) == ("post", "/items/bulk")
        yield Asked(method, path, 201 if created else 200, path, body)
        yield Asked(method, path, 422, path, {"items": 5, "ids": "x"})
        if wrong is not None:
            yield Asked(method, path, 409, path, wrong)
        yield from bodies(method, path, path)


def files() -> Iterator[Asked]:
    path, lines = "/items/import", {"content-type": "application/x-ndjson"}
    csv = {"content-type": "text/csv"}
    yield Asked("post", path, 200, path, None, lines, b'{"name":"Torch"}\n')
    yield Asked("post", path, 200, f"{path}?on_error=skip", None, csv, b"name\n\xff\n")
    yield Asked("post", path, 202, f"{path}?background=true", None, lines, b'{"name":"Torch"}\n')
    yield Asked("post", path, 422, path, None, lines, b"{}\n[]\n")
    yield Asked("post", path, 422, f"{path}?x=1", None, lines, b"{}\n")
    yield Asked("post", path, 413, path, None, lines, LARGE)
    yield Asked("post", path, 415, path, None, {"content-type": "text/plain"}, b"{}")
    yield Asked("post", path, 400, path, None, {**lines, "content-encoding": "gzip"}, b"{}\n")
    for format_ in ("ndjson", "csv"):
        yield Asked("get", "/items/export", 200, f"/items/export?format={format_}")
    yield Asked("get", "/items/export", 422, "/items/export?format=xlsx")
    yield Asked("get", "/items/changes", 200, "/items/changes?after=0")
    yield Asked("get", "/items/changes", 422, "/items/changes?x=1")
    yield Asked("get", "/items/changes", 410, "/items/changes?after=9007199254740991")


def refused(method: str, path: str, actual: str, body: Any = None) -> Iterator[Asked]:
    """Yield requests with preconditions that fail."""
    yield Asked(method, path, 412, actual, body, {"if-match": '"7"'})
    yield Asked(method, path, 400, actual, body, {"if-match": "7"})


def bodies(method: str, path: str, actual: str) -> Iterator[Asked]:
    yield Asked(method, path, 413, actual, headers=JSON, content=LARGE)
    yield Asked(method, path, 400, actual, headers=JSON, content=b"{")
    yield Asked(method, path, 415, actual, headers={"content-type": "text/plain"}, content=b"{}")


class Checker:
    """Checks responses against a document."""

    def __init__(self, told: Document) -> None:
        self.told = told
        self.shown: set[tuple[str, str, str]] = set()

    def resolved(self, one: Document) -> Document:
        """Return the target of a reference, or the object itself."""
        while "$ref" in one:
            found: Any = self.told
            for step in one["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            one = found
        return one

    def fits(self, value: object, schema: Document) -> None:
        """Check a value with both validators."""
        whole = {**schema, "components": self.told["components"]}
        OAS31Validator(whole, format_checker=OAS31Validator.FORMAT_CHECKER).validate(value)
        jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)

    def check(self, asked: Asked, answer: httpx.Response) -> None:
        status = str(answer.status_code)
        assert answer.status_code == asked.status, f"{asked}: {answer.text[:300]}"
        operation = self.told["paths"][asked.path][asked.method]
        assert status in operation["responses"], f"{asked} is not documented"
        self.shown.add((asked.method, asked.path, status))
        response = self.resolved(operation["responses"][status])
        names = {name.lower(): name for name in response.get("headers", {})}
        assert answer.headers.keys() - TRANSPORT <= names.keys(), f"{asked}: a header too many"
        for name in answer.headers.keys() & names.keys():
            header = self.resolved(response["headers"][names[name]])
            value: object = answer.headers[name]
            if header["schema"]["type"] in {"integer", "number"}:
                value = float(answer.headers[name])
            self.fits(value, header["schema"])
        if not answer.content:
            assert "content" not in response, f"{asked} has no body"
            return
        media = answer.headers["content-type"].partition(";")[0]
        schema = response["content"][media]["schema"]
        self.fits(answer.json() if media in PARSED else answer.text, schema)


@pytest.fixture(scope="module")
def told() -> Document:
    return document(app.operations, app.about)


def test_every_response_is_documented_and_every_documented_response_occurs(
    client: httpx.Client, told: Document, sql: Query
) -> None:
    checker = Checker(client.get("/openapi.json").json())
    assert checker.told == told
    client.post("/users", json={"email": "ada@example.com", "username": "ada"})
    client.post("/users", json={"email": "eve@example.com", "username": "eve", "role": "admin"})
    client.post("/items", json={"name": "Lamp", "sku": "L-1", "price": 29.99, "owner_id": 1})
    client.post("/items", json={"name": "Chair"})
    sql(
        "INSERT INTO notifications (user_id, kind, message, data)"
        " VALUES (1, 'test', 'Told', '{\"a\": [1]}')"
    )
    sql("UPDATE jobs SET state = 'failed', result = '{\"a\": [1]}', finished_at = now()")
    for asked in requests():
        answer = client.request(
            asked.method,
            asked.actual,
            json=asked.json,
            headers=asked.headers,
            content=asked.content,
        )
        checker.check(asked, answer)
    documented = {
        (method, path, status)
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
        if status not in NOT_SHOWN
    }
    assert documented - checker.shown == NEED_MORE


def parts(one: Any, place: str = "") -> Iterator[tuple[str, Document]]:
    """Yield every object of a document with its path."""
    if isinstance(one, dict):
        yield place, one
        for name, part in one.items():
            yield from parts(part, f"{place}/{name}")
    elif isinstance(one, list):
        for n, part in enumerate(one):
            yield from parts(part, f"{place}/{n}")


@pytest.fixture(scope="module", params=("built-in", "own"))
def any_document(request: pytest.FixtureRequest) -> Document:
    """The complete documents of the built-in application, and of one with fields of every type."""
    one = shapes if request.param == "own" else app
    return document(one.operations, one.about, checks=Checks(keys=True, limits=True))


def test_every_document_is_valid(any_document: Document) -> None:
    validate(any_document)


def test_every_example_and_default_fits_its_schema(any_document: Document) -> None:
    told = any_document
    checker = Checker(told)
    seen = 0
    for place, one in parts(told):
        if place.endswith("/properties"):
            continue
        if "schema" in one:  # a body, a parameter or a header
            shown = [part["value"] for part in one.get("examples", {}).values()]
            shown += [one["example"]] if "example" in one else []
            for value in shown:
                checker.fits(value, one["schema"])
                assert value is not None, place
        else:
            shown = one.get("examples", []) if "/example" not in place else []
            shown = [*shown, one["default"]] if "default" in one else shown
            for value in shown:
                checker.fits(value, one)
        seen += len(shown)
    assert seen > 100


def test_every_operation_tells_its_parameters_and_shows_an_answer(any_document: Document) -> None:
    told = any_document
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            place = f"{method} {path}"
            for one in operation["parameters"]:
                assert one.get("description"), f"{place}: {one['name']}"
            for status, response in operation["responses"].items():
                for content in Checker(told).resolved(response).get("content", {}).values():
                    shown = {"example", "examples"} & content.keys()
                    assert shown or "type" in content["schema"], f"{place}: {status}"


def test_the_document_has_what_a_client_needs(told: Document) -> None:
    schemas = told["components"]["schemas"]
    checker = Checker(told)
    price = schemas["NewItem"]["properties"]["price"]
    for number in (29.99, 0.1, 0.0001, 9999999999.9999, None):
        checker.fits(number, price)
    for kind in ("Item", "User"):
        assert schemas[kind]["properties"]["created_at"] == {
            "type": "string",
            "format": "date-time",
        }
    assert "owner" not in schemas["ListedItem"]["required"]
    for kind in ("DetailedUser", "ListedUser"):
        assert {"items", "items_total"}.isdisjoint(schemas[kind]["required"])
        assert schemas[kind]["properties"]["items"]["items"] == {
            "$ref": "#/components/schemas/Item"
        }
    for path, names in (("/users", ["items"]), ("/users/{id}", ["items", "keys"])):
        parameters = told["paths"][path]["get"]["parameters"]
        (include,) = (one for one in parameters if one["name"] == "include")
        assert (include["style"], include["explode"]) == ("form", False)
        assert checker.resolved(include["schema"]["items"])["enum"] == names
    assert {"ItemPage", "ItemCursorPage", "UserPage", "ItemSort", "Role"} <= schemas.keys()
    assert [name for name in schemas if not re.fullmatch("[A-Z][A-Za-z]+", name)] == []
    sort = schemas["ItemSort"]
    assert dict(zip(sort["enum"], sort["x-enum-varnames"], strict=True))["-price"] == "PRICE_DESC"
    ids = [
        operation["operationId"]
        for methods in told["paths"].values()
        for operation in methods.values()
    ]
    assert len(set(ids)) == len(ids)
    assert [one for one in ids if not re.fullmatch("[a-z]+([A-Z][a-z]+)+", one)] == []
    assert told["paths"]["/users/{id}/items"]["get"]["responses"].keys().isdisjoint({"304"})


class Tree(Struct):
    """A schema that refers to itself."""

    name: str
    children: list["Tree"]
    parent: "Tree | None" = None


class Strict(Struct):
    """A schema with rules that an example must obey, and one that only a person can."""

    level: Annotated[int, Meta(ge=5, le=7, multiple_of=3)]
    code: Annotated[str, Meta(pattern="^[A-Z]{3}$")]


async def stats(_: Request) -> Reply:
    """Return nothing; the document describes it."""
    raise NotImplementedError


def test_operations_of_any_shape_have_a_name_and_an_example_if_one_can_be_made() -> None:
    told = document(
        [
            Operation("POST", "/trees", stats, "Plant", request=Tree, response=Tree),
            Operation("POST", "/strict", stats, "Obey", request=Strict, response=Strict),
            Operation("GET", "/a/stats", stats, "Read"),
            Operation("GET", "/hidden", stats, "Read a script", documented=False),
        ],
        About("Shapes", "1"),
    )
    validate(told)
    made = {path: next(iter(methods.values())) for path, methods in told["paths"].items()}
    names = [one["operationId"] for one in made.values()]
    assert names == ["stats", "statsStrict", "readStats"]
    tree = made["/trees"]["requestBody"]["content"]["application/json"]
    assert tree["example"] == {"name": "text", "children": []}
    assert "example" not in made["/strict"]["requestBody"]["content"]["application/json"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize(("root", "shown"), (("", ""), ("/api", "/api"), ("/v1/a b", "/v1/a%20b")))
async def test_links_have_the_prefix_of_the_request(
    database_url: str, client: httpx.Client, root: str, shown: str
) -> None:
    """A prefix is the root_path of ASGI: `uvicorn --root-path`, `granian --url-path-prefix`."""
    app = built_in(
        Settings.load(
            {
                "DATABASE_URL": database_url,
                "REDIS_URL": "off",
                "SERVICE_SECRET": "x" * 32,
                "SERVICE_AUTH": "off",
            }
        )
    )
    async with app.lifespan_context(None) as state:

        async def stateful(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": state}, receive, send)

        transport = httpx.ASGITransport(stateful, root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as one:
            for path, new in (("/users", NEW_USER), ("/items", NEW_ITEM)):
                made = await one.post(shown + path, json=new)
                assert made.headers["location"] == f"{shown}{path}/1"
                assert (await one.get(made.headers["location"])).status_code == 200
            owned = await one.post(f"{shown}/users/1/items", json=NEW_ITEM)
            assert owned.headers["location"] == f"{shown}/items/2"
            page = await one.get(f"{shown}/items?per_page=1")
            assert f'<{shown}/items?per_page=1&page=2>; rel="next"' in page.headers["link"]
            told = (await one.get(f"{shown}/openapi.json")).json()
            assert told["servers"] == [{"url": shown or "/"}]
            docs = (await one.get(f"{shown}/docs")).text
            assert f'href="{shown}/openapi.json"' in docs
            assert f'data-root="{shown}"' in docs
            console = (await one.get(f"{shown}/console")).text
            assert f'src="{shown}/docs/console/console.js"' in console
            assert "$ROOT" not in console
