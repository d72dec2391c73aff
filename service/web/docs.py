"""`/openapi.json`, and `/docs`: the API on one page that needs no network and no script."""

import json
from html import escape
from typing import Any

import msgspec

from service.web.endpoint import Operation
from service.web.openapi import document
from service.web.request import Request
from service.web.wire import Header, Reply

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
POLICY: tuple[Header, ...] = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
)


def routes(operations: list[Operation]) -> list[Operation]:
    """The two operations, told of all `operations`; both answers are made once."""
    told = document(operations)
    as_json = Reply(msgspec.json.encode(told), kept={})
    page = Reply(_page(told).encode(), 200, POLICY, b"text/html; charset=utf-8", kept={})

    async def openapi(request: Request) -> Reply:  # noqa: ARG001 - a handler's signature
        return as_json

    async def docs(request: Request) -> Reply:  # noqa: ARG001 - a handler's signature
        return page

    return [
        Operation("GET", "/openapi.json", openapi, "The OpenAPI document"),
        Operation("GET", "/docs", docs, "The API on one page"),
    ]


def _page(told: dict[str, Any]) -> str:
    info = told["info"]
    schemas = told["components"]["schemas"]
    operations = "".join(
        _operation(path, method, operation, schemas)
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
    )
    shapes = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<div><p>{escape(schema.get('description', ''))}</p>"
        f"<pre>{escape(json.dumps(schema, indent=2))}</pre></div></details>"
        for name, schema in schemas.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{info['title']} API</title><style>{STYLE}</style>"
        f"<h1>{info['title']} <small>{info['version']}</small></h1>"
        f"<p>{escape(info['description'])} The document behind this page: "
        '<a href="/openapi.json">/openapi.json</a>.</p>'
        f"<h2>Operations</h2>{operations}<h2>Shapes</h2>{shapes}</html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}"
        f"<td>{escape(_words(one['schema']))} {escape(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td><code>{status}</code><td>{escape(answer['description'])}<td>{_shape(answer)}"
        for status, answer in operation["responses"].items()
    )
    body = operation.get("requestBody")
    example = f"curl -X {method.upper()} http://127.0.0.1:8000{path.replace('{id}', '1')}"
    if body:
        media, content = next(iter(body["content"].items()))
        example += f" \\\n  -H 'Content-Type: {media}' "
        if "$ref" in content["schema"]:
            name = content["schema"]["$ref"].rpartition("/")[2]
            example += f"-d '{json.dumps(_example(schemas[name]))}'"
        else:
            example += "--data-binary @file"
    return (
        f'<details id="{operation["operationId"]}"><summary><b>{method.upper()}</b> '
        f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary><div>"
        f"<pre>{escape(example)}</pre>"
        + (f"<table><tr><th>Parameter<th>In<th>Value{parameters}</table>" if parameters else "")
        + (f"<p>Body: {_shape(body)}</p>" if body else "")
        + f"<table><tr><th>Status<th>Meaning<th>Body{answers}</table></div></details>"
    )


def _shape(answer: dict[str, Any]) -> str:
    links = []
    for media, content in answer.get("content", {}).items():
        schema = content["schema"]
        if schema == {"type": "string"}:
            links.append(escape(media))
            continue
        for one in schema.get("anyOf", [schema]):
            name = one["$ref"].rpartition("/")[2]
            links.append(f'<a href="#{escape(name)}">{escape(name)}</a>')
    return " or ".join(links)


def _words(schema: dict[str, Any]) -> str:
    """`integer, minimum 1, maximum 100, default 10`."""
    parts = [str(schema.get("type", ""))]
    parts += [
        f"{name} {json.dumps(value)}"
        for name, value in schema.items()
        if name not in {"type", "description", "examples"}
    ]
    return ", ".join(part for part in parts if part)


def _example(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields whose type gives an example, and those that must be there."""
    shown: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        options = [field, *field.get("anyOf", ())]
        examples = [one["examples"][0] for one in options if "examples" in one]
        if examples:
            shown[name] = examples[0]
    return shown
