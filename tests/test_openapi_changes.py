"""The gate against changes that break clients, with planted changes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from service.asgi import app
from service.cli import main
from service.web.openapi import document
from service.web.openapi_changes import breaking_changes
from service.web.openapi_texts import Checks

Document = dict[str, Any]
Change = Callable[[Document], object]
RELEASED: Document = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text())
ACCEPT = (
    "clients of the released document docs/reference/openapi.json break. If that is meant, say it"
    " in CHANGELOG.md and accept it with `uv run just openapi-release`"
)
# The paths with planted changes; all of them take ten times as long to compare.
PLANTED = ("/items", "/items/{id}", "/items/export", "/users/{id}", "/health")
PART = {**RELEASED, "paths": {path: RELEASED["paths"][path] for path in PLANTED}}


def test_no_client_of_the_released_document_breaks() -> None:
    lines = breaking_changes(
        RELEASED, document(app.operations, app.about, checks=Checks(keys=True, limits=True))
    )
    assert not lines, "\n".join([ACCEPT, *lines])


def operation(path: str, method: str) -> Callable[[Document], Document]:
    return lambda told: told["paths"][path][method]


def schema(name: str) -> Callable[[Document], Document]:
    return lambda told: told["components"]["schemas"][name]


def field(name: str, part: str) -> Callable[[Document], Document]:
    return lambda told: schema(name)(told)["properties"][part]


def parameter(name: str) -> Callable[[Document], Document]:
    """Return a parameter of the list of items."""
    return lambda told: next(
        one for one in told["paths"]["/items"]["get"]["parameters"] if one["name"] == name
    )


items, item = operation("/items", "get"), operation("/items/{id}", "get")
new_item = operation("/items", "post")
DATE = {"type": "string", "format": "date-time"}
NEEDED = {"name": "tenant", "in": "query", "required": True, "schema": {"type": "string"}}

BREAKS: list[tuple[str, Change]] = [
    ("/items: the path is gone", lambda told: told["paths"].pop("/items")),
    ("DELETE /items/{id}: the op", lambda told: told["paths"]["/items/{id}"].pop("delete")),
    ("operationId listItems is now", lambda told: items(told).update(operationId="getItems")),
    ("GET /health: it needs a key", lambda told: operation("/health", "get")(told).pop("security")),
    ("the way apiKey to send a key", lambda told: told["security"].pop()),
    (
        "the way apiKey to send a key",
        lambda told: told["components"]["securitySchemes"]["apiKey"].update(name="X-Key"),
    ),
    ("include is written in another", lambda told: parameter("include")(told).pop("explode")),
    ("the response 304 is gone", lambda told: item(told)["responses"].pop("304")),
    (
        "the header ETag of 200 is gone",
        lambda told: item(told)["responses"]["200"]["headers"].pop("ETag"),
    ),
    (
        "response 200: text/csv is gone",
        lambda told: operation("/items/export", "get")(told)["responses"]["200"]["content"].pop(
            "text/csv"
        ),
    ),
    (
        "body: application/json is gone",
        lambda told: new_item(told)["requestBody"]["content"].pop("application/json"),
    ),
    (
        "query parameter q is gone",
        lambda told: items(told)["parameters"].remove(parameter("q")(told)),
    ),
    ("tenant is required now", lambda told: items(told)["parameters"].append(NEEDED)),
    ("owner_id is required now", lambda told: parameter("owner_id")(told).update(required=True)),
    (
        "per_page: maximum 100 is now 50",
        lambda told: parameter("per_page")(told)["schema"].update(maximum=50),
    ),
    (
        "per_page: default 10 is now 20",
        lambda told: parameter("per_page")(told)["schema"].update(default=20),
    ),
    ("sort: the values", lambda told: schema("ItemSort")(told)["enum"].remove("-price")),
    ("body.sku: it is gone", lambda told: schema("NewItem")(told)["properties"].pop("sku")),
    ("body.sku: it is required", lambda told: schema("NewItem")(told)["required"].append("sku")),
    ("body.name: maxLength 255", lambda told: field("NewItem", "name")(told).update(maxLength=9)),
    ("body.name: pattern not set", lambda told: field("NewItem", "name")(told).update(pattern="a")),
    (
        "body.price: the type null is now number",
        lambda told: field("NewItem", "price")(told)["anyOf"].pop(),
    ),
    (
        "body.is_active: the type boolean is now string",
        lambda told: field("NewItem", "is_active")(told).update(type="string"),
    ),
    ("200.version: it is gone", lambda told: schema("Item")(told)["properties"].pop("version")),
    (
        "200.version: it is not in every",
        lambda told: schema("Item")(told)["required"].remove("version"),
    ),
    (
        "200.name: the type string is now null",
        lambda told: schema("Item")(told)["properties"].update(
            name={"anyOf": [{"type": "string"}, {"type": "null"}]}
        ),
    ),
    ("200.role: the values", lambda told: schema("Role")(told)["enum"].append("guest")),
    (
        "200.items[].owner.email: it is gone",
        lambda told: schema("Owner")(told)["properties"].pop("email"),
    ),
    (
        "200.created_at: format date-time is now not set",
        lambda told: field("Item", "created_at")(told).pop("format"),
    ),
]
HARMLESS: list[Change] = [
    lambda told: told["paths"].update({"/new": told["paths"]["/health"]}),
    lambda told: items(told)["parameters"].append({**NEEDED, "required": False}),
    lambda told: parameter("per_page")(told)["schema"].update(maximum=200),
    lambda told: schema("ItemSort")(told)["enum"].append("sku"),
    lambda told: schema("NewItem")(told)["properties"].update(due=DATE),
    lambda told: field("NewItem", "name")(told).pop("maxLength"),
    lambda told: schema("NewItem")(told)["required"].clear(),
    lambda told: schema("Item")(told)["properties"].update(due=DATE),
    lambda told: field("Item", "created_at")(told).update(description="When it was made"),
    lambda told: field("Item", "price")(told)["anyOf"].pop(),
    lambda told: item(told)["responses"].update({"410": item(told)["responses"]["304"]}),
    lambda told: item(told).update(security=[]),
    lambda told: told["security"].reverse(),
    lambda told: told["components"]["securitySchemes"]["apiKey"].update(description="A key"),
    lambda told: parameter("q")(told).update(style="form", explode=True),
]


def changed(change: Change) -> list[str]:
    told = copy.deepcopy(PART)
    change(told)
    return breaking_changes(PART, told)


@pytest.mark.parametrize(("line", "change"), BREAKS, ids=[line for line, _ in BREAKS])
def test_a_breaking_change_is_found(line: str, change: Change) -> None:
    lines = changed(change)
    assert any(line in one for one in lines), lines


@pytest.mark.parametrize("change", HARMLESS, ids=range(len(HARMLESS)))
def test_a_harmless_change_is_not_reported(change: Change) -> None:
    assert changed(change) == []


def test_a_recursive_schema_is_compared_once() -> None:
    def with_tree(told: Document) -> None:
        tree = {"type": "array", "items": {"$ref": "#/components/schemas/Item"}}
        schema("Item")(told)["properties"]["children"] = tree

    told = copy.deepcopy(PART)
    with_tree(told)
    later = copy.deepcopy(told)
    schema("Item")(later)["properties"].pop("sku")
    assert breaking_changes(told, told) == []
    assert "GET /items/{id}: response 200.sku: it is gone" in breaking_changes(told, later)


@pytest.mark.parametrize(
    ("change", "code", "told"),
    (
        (lambda told: told, 0, ""),
        (lambda told: told["paths"].update({"/gone": {}}), 1, "/gone: the path is gone\n"),
        (lambda told: told.pop("paths"), 1, ""),
    ),
    ids=("same", "breaking", "no document"),
)
def test_the_command_compares_with_a_file(
    change: Change, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released = copy.deepcopy(RELEASED)
    change(released)
    path = tmp_path / "released.json"
    path.write_text(json.dumps(released))
    with pytest.raises(SystemExit) as ended:
        main.main(["openapi", "--complete", "--compare", str(path)], prog_name="swiftlet")
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (code, told)
    assert len(shown.err.splitlines()) == code


def test_the_command_takes_the_address_of_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["openapi", "--server", "https://api.example.com"], prog_name="swiftlet")
    assert json.loads(capsys.readouterr().out)["servers"] == [{"url": "https://api.example.com"}]
