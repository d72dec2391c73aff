"""The page of the API as HTML, from its OpenAPI document.

The page is complete without scripts. `pages/docs.js` adds the search and sends requests; it reads
what it needs from the page, so the two agree.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from service.web import docs_form
from service.web.docs_operation import Described, operations, section
from service.web.docs_schemas import name_of, phrase, prose, table, words_of

Document = dict[str, Any]
# A schema that more operations use, such as the one of problems, has their number instead of links.
LISTED = 6


def page(document: Document, root: str) -> str:
    """Return the page.

    Args:
        document: the OpenAPI document.
        root: the URL prefix of the application.
    """
    info, components = document["info"], document["components"]
    found = sorted(operations(document), key=lambda one: one.order)
    shared = _in_every_response(found)
    groups = {
        tag["name"]: (
            tag.get("description", ""),
            [one for one in found if one.tag == tag["name"]],
        )
        for tag in document["tags"]
    }
    used = _uses(found)
    keys = bool(components.get("securitySchemes"))
    place = escape(root)
    title, version = escape(info["title"]), escape(info["version"])
    return (
        f'<!doctype html><html lang=en data-root="{place}"><head><meta charset=utf-8>'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{title} API</title>"
        f'<link rel=icon href="{place}/docs/icon.svg">'
        f'<link rel=stylesheet href="{place}/docs/base.css">'
        f'<link rel=stylesheet href="{place}/docs/docs.css">'
        f'<script src="{place}/docs/theme.js"></script>'
        f'<script type=module src="{place}/docs/docs.js"></script></head><body>'
        '<a class=skip href="#the-operations">Skip to the operations</a>'
        f"<header class=bar><span class=name>{title} <small>{version}</small></span>"
        f'<a class=wide href="{place}/openapi.json">openapi.json</a>'
        f'<a class=wide href="{place}/console">Console</a>'
        f"{_KEY if keys else ''}"
        "<button type=button class=needs-script data-theme-toggle></button></header>"
        f"<div class=columns><nav aria-label=Operations>{_SEARCH}{_links(groups, components)}</nav>"
        f"<main id=the-operations tabindex=-1><div class=intro><h1>{title} API</h1>"
        f"{prose(info['description'])}<p>The document behind this page, for generators of clients:"
        f' <a href="{place}/openapi.json">{place}/openapi.json</a>. Figures and rows:'
        f' <a href="{place}/console">{place}/console</a>.</p>'
        f"{_ADDRESS}{_shared_headers(shared, components)}</div>"
        + "".join(
            f'<section class=group aria-labelledby="tag-{escape(tag)}"><header>'
            f'<h2 id="tag-{escape(tag)}">{escape(tag)}</h2> {phrase(about)}</header>'
            + "".join(section(one, document, root, shared) for one in members)
            + "</section>"
            for tag, (about, members) in groups.items()
        )
        + "<section class=group aria-labelledby=the-shapes><header><h2 id=the-shapes>Shapes</h2>"
        " The objects in bodies and answers.</header>"
        + "".join(
            _shape(name, schema, used.get(name, ()))
            for name, schema in components["schemas"].items()
        )
        + "</section></main></div></body></html>"
    )


_SEARCH = (
    '<div class="search needs-script"><label class=spoken for=the-search>Search the operations by'
    " path, summary, tag or field</label>"
    "<input type=search id=the-search placeholder='Search: path, field, …' autocomplete=off"
    " aria-describedby=the-count aria-keyshortcuts='/'><kbd aria-hidden=true>/</kbd></div>"
    '<p id=the-count class="muted needs-script" role=status></p>'
)
_KEY = (
    "<details class='key needs-script'><summary class=button><span class=wide>API key:</span>"
    "<span class=narrow>Key:</span> <span id=the-key-state>none"
    "</span></summary><form id=the-key><label for=the-key-value>API key</label>"
    "<input type=password id=the-key-value autocomplete=off spellcheck=false>"
    "<label class=check><input type=checkbox id=the-key-kept> Remember it in this tab</label>"
    "<p class=muted>It stays in this page and is sent with each request as"
    " <code>Authorization: Bearer</code>. Remembered, it survives a reload, until the tab is"
    " closed.</p><p><button class=primary>Use it</button>"
    " <button type=button id=the-key-forget>Forget it</button></p></form></details>"
)
_ADDRESS = (
    f"<p id=the-base><code>{docs_form.BASE}</code> stands for the address of this service.</p>"
)


def _in_every_response(found: list[Described]) -> list[str]:
    """Return the names of headers that every response has."""
    responses = [response for one in found for response in one.responses.values()]
    counts = Counter(name for response in responses for name in response.get("headers", ()))
    return [name for name, count in counts.items() if count == len(responses)]


def _shared_headers(names: list[str], components: Document) -> str:
    described = components.get("headers", {})
    meanings = {name: described.get(name, {}).get("description", "") for name in names}
    rows = "".join(
        f"<dt><code>{escape(name)}</code><dd>{phrase(meaning)}"
        for name, meaning in meanings.items()
    )
    summary = "Headers of every answer"
    return (
        f"<details class=plain><summary>{summary}</summary><dl>{rows}</dl></details>"
        if rows
        else ""
    )


def _links(groups: Mapping[str, tuple[str, list[Described]]], components: Document) -> str:
    operations = "".join(
        f"<section><h2>{escape(tag)}</h2><ul>"
        + "".join(f'<li><a href="#{one.identity}">{one.breakable}</a>' for one in members)
        + "</ul></section>"
        for tag, (_, members) in groups.items()
    )
    shapes = "".join(
        f'<li><a href="#{escape(name)}">{escape(name)}</a>' for name in components["schemas"]
    )
    return f"{operations}<section><h2>Shapes</h2><ul>{shapes}</ul></section>"


def _shape(name: str, schema: Document, used: Sequence[str]) -> str:
    """Return a named schema, with links to the operations that use it."""
    links = ", ".join(f'<a href="#{one}">{one}</a>' for one in used)
    listed = links if len(used) <= LISTED else f"{len(used)} operations"
    words = {name, *schema.get("properties", ()), *map(str, schema.get("enum", ()))}
    return (
        f'<details class=shape id="{escape(name)}" data-words="{words_of(words)}">'
        f"<summary><code>{escape(name)}</code></summary><div class=told>{table(name, schema)}"
        + (f"<p class=muted>Used by {listed}.</p>" if used else "")
        + "</div></details>"
    )


def _uses(found: list[Described]) -> dict[str, list[str]]:
    """Return the operations that have a schema in a parameter or body, by its name."""
    uses: dict[str, list[str]] = {}
    for one in found:
        contents = [response.get("content") for response in one.responses.values()]
        for name in sorted(_direct([one.operation, one.parameters, contents])):
            uses.setdefault(name, []).append(one.identity)
    return uses


def _direct(part: Any) -> set[str]:
    """Return the names of the schemas that a part of the document refers to by itself."""
    if isinstance(part, list):
        return {name for one in part for name in _direct(one)}
    if not isinstance(part, dict):
        return set()
    found = {name for one in part.values() for name in _direct(one)}
    return found | {name_of(part)} if "/schemas/" in str(part.get("$ref")) else found
