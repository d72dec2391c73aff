"""The OpenAPI document and the page of the API, as a client gets them. See test_docs_browser.py."""

import asyncio
import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from in_process import worker
from openapi_spec_validator import validate

from service.asgi import app
from service.web import pages
from service.web.docs_page import page
from service.web.docs_schemas import kind, limits, prose
from service.web.openapi import document
from service.web.openapi_texts import Checks


class Page(HTMLParser):
    """Elements of the page.

    Attributes:
        ids: of all elements.
        links: the addresses of links.
        loaded: the addresses of scripts, styles and the icon.
        labels: the ids of fields that have a label.
        fields: the ids of fields.
        inline: scripts, styles and handlers that are in the page itself.
        operations: the words that the search reads, by the id of an operation.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.labels: set[str] = set()
        self.fields: set[str] = set()
        self.inline: list[str] = []
        self.operations: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.add(given["href"])
        elif tag == "link" or "src" in given:
            self.loaded.add(given.get("src") or given["href"])
        elif tag == "label" and "for" in given:
            self.labels.add(given["for"])
        elif tag in {"input", "select", "textarea"} and given.get("type") != "checkbox":
            self.fields.add(given["id"])
        elif given.get("class") == "operation":
            self.operations[given["id"]] = given["data-words"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]


def test_the_document_is_valid_and_has_every_route(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    told = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert told == {
        (operation.method, operation.path) for operation in app.operations if operation.documented
    }


def test_a_document_that_was_not_made_is_made_by_the_next_request(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def fails_at_first(*args: Any) -> dict[str, Any]:
        made.append(args)
        if len(made) == 1:
            raise MemoryError
        return document(*args)

    async def check() -> None:
        async with worker(database_url) as (inside, _):
            found = await asyncio.gather(*(inside.get("/openapi.json") for _ in range(3)))
            assert [one.status_code for one in found] == [500] * 3
            paths = ("/openapi.json", "/docs", "/openapi.json")
            found = await asyncio.gather(*(inside.get(path) for path in paths))
            assert [one.status_code for one in found] == [200] * 3
            assert len(made) == 2, "once for all who wait"

    monkeypatch.setattr("service.web.openapi.document", fails_at_first)
    asyncio.run(check())


def test_the_page_loads_nothing_from_other_hosts(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text)


def test_the_page_has_no_script_or_style_in_it(client: httpx.Client) -> None:
    answer = client.get("/docs")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert Page(answer.text).inline == []


def test_the_page_ignores_the_host_header(client: httpx.Client) -> None:
    plain = client.get("/docs").text
    assert client.get("/docs", headers={"host": "evil.example:1"}).text == plain
    assert "127.0.0.1" not in plain
    assert "8000" not in plain


@pytest.mark.parametrize("path", ("/docs", "/openapi.json"))
def test_the_page_is_not_sent_again_if_it_is_the_same(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The document of a service with keys and limits."""
    return document(app.operations, app.about, "/api", Checks(keys=True, limits=True))


@pytest.fixture(scope="module")
def shown(described: dict[str, Any]) -> Page:
    return Page(page(described, "/api"))


def test_the_page_shows_every_operation_and_shape_without_scripts(
    described: dict[str, Any], shown: Page
) -> None:
    ids = {
        operation["operationId"]
        for methods in described["paths"].values()
        for operation in methods.values()
    }
    assert shown.operations.keys() == ids
    assert {*described["components"]["schemas"]} <= {*shown.ids}
    assert len(shown.ids) == len({*shown.ids})


def test_a_command_has_the_examples_of_its_parameters_and_body(described: dict[str, Any]) -> None:
    text = page(described, "/api")
    base = '<span class=base data-root="/api">$API</span>'
    assert f"curl {base}/admin/explain/items.by_id</code>" in text
    assert f"curl -X PATCH {base}/items/1 \\\n  -H &#x27;Content-Type: application/json" in text
    assert "&quot;name&quot;: &quot;Widget&quot;" in text


def test_every_link_leads_somewhere_and_every_field_has_a_label(shown: Page) -> None:
    here = {link[1:] for link in shown.links if link.startswith("#")}
    assert here <= {*shown.ids}
    assert {link for link in shown.links if not link.startswith("#")} == {
        "/api/openapi.json",
        "/api/console",
    }
    assert shown.fields <= shown.labels


def test_the_page_loads_its_files_from_below_the_prefix(shown: Page) -> None:
    names = {address.removeprefix("/api/docs/") for address in shown.loaded}
    assert names == {"base.css", "docs.css", "docs.js", "icon.svg", "theme.js"}
    assert all((pages.FOLDER / name).exists() for name in names)


def test_the_search_knows_paths_tags_parameters_and_fields(shown: Page) -> None:
    for word in ("/items/bulk", "patch", "items", "set", "price", "ids", "missing"):
        assert word in shown.operations["changeItems"].split(), word
    assert "next_cursor" in shown.operations["listUserItems"].split()
    assert "request_id" not in shown.operations["createItem"], "of problems, as everywhere"


@pytest.mark.parametrize(
    ("schema", "words"),
    (
        ({"type": "integer", "minimum": 1, "maximum": 9, "default": 3}, "1 to 9, default 3"),
        ({"type": "integer", "minimum": 1, "maximum": 2**63 - 1}, "at least 1"),
        ({"type": "array", "minItems": 1, "uniqueItems": True}, "at least 1 element, none twice"),
        ({"type": "string", "minLength": 1, "maxLength": 64}, "1 to 64 characters"),
        ({"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]}, "at most 2 characters"),
        ({"type": "string", "examples": ["<b>"]}, "for example &lt;b&gt;"),
        ({"type": "string", "default": ""}, 'default ""'),
        ({"pattern": "x" * 41}, ""),
        ({"exclusiveMinimum": 0, "pattern": "^<"}, "more than 0, matches ^&lt;"),
    ),
)
def test_limits_are_in_words(schema: dict[str, Any], words: str) -> None:
    assert re.sub("</?code>", "", limits(schema)).replace("&quot;", '"') == words


@pytest.mark.parametrize(
    ("schema", "words"),
    (
        ({"$ref": "#/components/schemas/Item"}, '<a href="#Item">Item</a>'),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        (
            {"type": "array", "items": {"type": "string", "format": "date"}},
            "array of string (date)",
        ),
        ({"type": ["string", "null"]}, "string or null"),
        ({"enum": ["a", 1]}, "<code>a</code> or <code>1</code>"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object of integer"),
        ({"type": "integer", "format": "int64"}, "integer"),
        ({}, "any"),
    ),
)
def test_types_are_in_words(schema: dict[str, Any], words: str) -> None:
    assert kind(schema) == words


def test_descriptions_are_text_with_few_marks() -> None:
    assert prose("A `b` <i>\n\n- one\n- two") == (
        "<p>A <code>b</code> &lt;i&gt;</p><ul><li>one<li>two</ul>"
    )
