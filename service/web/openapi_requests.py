"""Parameters and bodies of requests in the OpenAPI document."""

import re
from contextlib import suppress
from typing import Any

from msgspec import structs

from service.web.endpoint import Operation
from service.web.openapi_examples import Examples, NoExampleError
from service.web.openapi_schemas import Schemas
from service.web.openapi_texts import (
    ENTITY_TAGS,
    IDEMPOTENCY_KEY,
    NO_CACHE,
    PARAMETERS,
    PATH,
    REQUEST_ID,
    ROW_ID,
)

Document = dict[str, Any]
EVENTS = "text/event-stream"
# The parameter of a feed of changes.
LAST_EVENT_ID: dict[str, Any] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id` of the last event, after which to go on; it wins over `after`",
    "schema": {
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "maximum": 2**63 - 1,
        "examples": [1024],
    },
}


def parameters(operation: Operation, schemas: Schemas) -> list[Document]:
    """Return the parameters of an operation: of its path, of its query, and headers."""
    found = [_in_path(name) for name in re.findall(r"\{(\w+)\}", operation.path)]
    if operation.query is not None:
        properties = schemas.properties(operation.query)
        found += [
            _in_query(field.encode_name, properties[field.encode_name], required=field.required)
            for field in structs.fields(operation.query)
        ]
    if operation.takes_key:
        found.append(IDEMPOTENCY_KEY)
    if operation.has_etag:
        reads = operation.method == "GET"
        otherwise = "304" if reads else "412"
        found += [
            _condition("If-Match", "412 unless the version is one of these ETags"),
            _condition(
                "If-None-Match",
                f"{otherwise} if the version is one of these ETags",
                strict=not reads,
            ),
        ]
    if EVENTS in operation.media:
        found.append(LAST_EVENT_ID)
    if operation.cache_tags is not None:
        found.append(NO_CACHE)
    return [*found, REQUEST_ID]


def body(operation: Operation, schemas: Schemas, examples: Examples) -> Document:
    """Return the body of a request by media type; empty without one."""
    if operation.request is not None:
        content: Document = {"schema": schemas.of(operation.request)}
        with suppress(NoExampleError):
            content["example"] = examples.request(content["schema"])
        return {"application/json": content}
    return files(operation) if operation.method == "POST" else {}


def files(operation: Operation) -> Document:
    """Return the files of an operation by media type. `binary` means bytes of any length."""
    # CSV has a line with the names of the columns.
    return {
        media: {
            "schema": {
                "type": "string",
                "format": "binary",
                **({"minLength": 1} if "csv" in media else {}),
            }
        }
        for media in operation.files
    }


def _in_path(name: str) -> Document:
    described = {"name": name, "in": "path", "required": True}
    if name in PATH:
        return described | PATH[name]
    what = name.removesuffix("id").rstrip("_") or "row"
    return described | {**ROW_ID, "description": f"The id of the {what}"}


def _in_query(name: str, schema: Document, *, required: bool) -> Document:
    described: Document = {"name": name, "in": "query", "required": required}
    told = schema.get("description", "")
    if text := told or PARAMETERS.get(name):
        described["description"] = text
    if schema.get("type") == "array":  # `include=a,b`
        described |= {"style": "form", "explode": False}
    described["schema"] = {key: part for key, part in schema.items() if key != "description"}
    return described


def _condition(name: str, description: str, *, strict: bool = True) -> Document:
    """Return a precondition; if it is not strict, a malformed value is ignored."""
    schema: Document = {"type": "string", "examples": ['"3"']}
    if strict:
        schema["pattern"] = ENTITY_TAGS
    return {"name": name, "in": "header", "description": description, "schema": schema}
