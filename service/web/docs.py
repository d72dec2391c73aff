"""`/openapi.json` and `/docs`: the API on one page, which loads nothing from other hosts."""

import base64
import hashlib
import json
from functools import lru_cache
from html import escape
from typing import Any

import msgspec

from service.web.codec import JSON, Header, Reply
from service.web.endpoint import Operation
from service.web.openapi import document
from service.web.openapi_texts import NO_CHECKS, About, Checks
from service.web.request import Request

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0a7cff; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 small { font-weight: normal; opacity: .6; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; }
summary { cursor: pointer; padding: .5rem .75rem; }
summary b { display: inline-block; min-width: 4.5rem; color: var(--accent); }
summary code { font-weight: 600; }
details > div { padding: 0 .75rem .75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid var(--line); padding: .25rem .5rem; text-align: left;
         vertical-align: top; }
pre { background: var(--soft); padding: .5rem .75rem; border-radius: .5rem; overflow-x: auto; }
"""
# A script replaces this word in the examples by the address of the page. The server would have to
# trust the Host header. Without scripts, the page explains the word.
BASE = "$API"
SCRIPT = (
    'for (const one of document.querySelectorAll(".base")) '
    "one.textContent = location.origin + one.dataset.root;"
    'document.getElementById("base").remove();'
)
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest())
# No other page may show this one in a frame; X-Frame-Options says so to old browsers.
POLICY: tuple[Header, ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-%b'; base-uri 'none';"
        b" form-action 'none'; frame-ancestors 'none'" % _SCRIPT_HASH,
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
# The same for every client; a browser revalidates it, so it is current after a deploy.
CACHE_CONTROL = b"no-cache"
# URL prefixes whose responses are kept: more than one only if the application is mounted twice.
ROOTS = 8


def routes(
    operations: list[Operation], about: About, checks: Checks = NO_CHECKS
) -> list[Operation]:
    """Return both operations. Their responses are built once per URL prefix.

    Args:
        operations: the operations to describe.
        about: the application.
        checks: what its settings say that is checked; the responses are about what is checked.
    """

    @lru_cache(ROOTS)
    def replies(root: str, checks: Checks) -> tuple[Reply, Reply]:
        described = document(everything, about, root, checks)
        as_json, page = msgspec.json.encode(described), _page(described, root).encode()
        return (
            _reply(as_json, (), JSON),
            _reply(page, POLICY, b"text/html; charset=utf-8"),
        )

    async def openapi(request: Request) -> Reply:
        """The OpenAPI 3.1 document of this service: operations, schemas, errors."""
        return replies(request.root, checks_of(request))[0]

    async def docs(request: Request) -> Reply:
        """The documentation as HTML; it loads nothing from other hosts."""
        return replies(request.root, checks_of(request))[1]

    pages = [
        Operation(
            "GET", path, handler, summary, media=(media,), stored=False, access="open", limit="off"
        )
        for path, handler, summary, media in (
            ("/openapi.json", openapi, "Read the OpenAPI document", "application/json"),
            ("/docs", docs, "Read about the API on one page", "text/html"),
        )
    ]
    everything = [*operations, *pages]
    replies("", checks)  # build at the start, not in the first request
    return pages


def checks_of(request: Request) -> Checks:
    """Return what is checked before the operations of this process run."""
    guard = request.state["guard"]
    if guard is None:
        return NO_CHECKS
    return Checks(guard.principals is not None, guard.limiter is not None)


def _reply(body: bytes, headers: tuple[Header, ...], content_type: bytes) -> Reply:
    encoded: dict[bytes, bytes] = {}
    return Reply(
        body,
        200,
        headers,
        content_type,
        encoded=encoded,
        keep=encoded.__setitem__,
        cache_control=CACHE_CONTROL,
    )


def _page(described: dict[str, Any], root: str) -> str:
    info = described["info"]
    components = described["components"]
    operations = "".join(
        _operation(path, method, operation, components["responses"], root)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    )
    shapes = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<div><p>{escape(schema.get('description', ''))}</p>"
        f"<pre>{escape(json.dumps(schema, indent=2))}</pre></div></details>"
        for name, schema in components["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"<p>{_paragraphs(info['description'])}</p><p>The document behind this page: "
        f'<a href="{escape(root)}/openapi.json">{escape(root)}/openapi.json</a>.</p>'
        f'<p id="base"><code>{BASE}</code> stands for the address of this service.</p>'
        f"<h2>Operations</h2>{operations}<h2>Shapes</h2>{shapes}"
        f"<script>{SCRIPT}</script></html>"
    )


def _operation(
    path: str, method: str, operation: dict[str, Any], responses: dict[str, Any], root: str
) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}"
        f"<td>{_words(one['schema'])} {escape(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    )
    statuses = "".join(
        f"<tr><td><code>{status}</code><td>{escape(response['description'])}<td>{_shape(response)}"
        for status, response in (
            (status, responses[_name(one)] if "$ref" in one else one)
            for status, one in operation["responses"].items()
        )
    )
    body = operation.get("requestBody")
    example = ""
    if body:
        media, content = next(iter(body["content"].items()))
        data = f"-d '{json.dumps(content['example'])}'" if "example" in content else ""
        example = f" \\\n  -H 'Content-Type: {media}' {data or '--data-binary @file'}"
    base = f'<span class="base" data-root="{escape(root)}">{BASE}</span>'
    return (
        f'<details id="{operation["operationId"]}"><summary><b>{method.upper()}</b> '
        f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary><div>"
        f"<p>{_paragraphs(operation['description'])}</p>"
        f"<pre>curl -X {method.upper()} {base}{path.replace('{id}', '1')}{escape(example)}</pre>"
        + (f"<table><tr><th>Parameter<th>In<th>Value{parameters}</table>" if parameters else "")
        + (f"<p>Body: {_shape(body)}</p>" if body else "")
        + f"<table><tr><th>Status<th>Meaning<th>Body{statuses}</table></div></details>"
    )


def _paragraphs(text: str) -> str:
    return escape(text).replace("\n\n", "</p><p>")


def _name(reference: dict[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _shape(described: dict[str, Any]) -> str:
    links = []
    for media, content in described.get("content", {}).items():
        schema = content["schema"]
        if "type" in schema:  # a file or a page
            links.append(escape(media))
            continue
        links += [_link(one) for one in schema.get("anyOf", [schema])]
    return " or ".join(links)


def _link(reference: dict[str, str]) -> str:
    name = escape(_name(reference))
    return f'<a href="#{name}">{name}</a>'


def _words(schema: dict[str, Any]) -> str:
    """Describe a schema as HTML, such as `integer, minimum 1, maximum 100, default 10`."""
    parts = [_link(schema)] if "$ref" in schema else [escape(str(schema.get("type", "")))]
    parts += [
        escape(f"{name} {json.dumps(value)}")
        for name, value in schema.items()
        if name not in {"$ref", "type", "description", "examples", "title"}
    ]
    return ", ".join(part for part in parts if part)
