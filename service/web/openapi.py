"""The OpenAPI 3.1 document, from the route table and the Structs."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from service.errors import InvalidLines, LinesDocument, Problem, ProblemDocument
from service.web.endpoint import Operation

INFO = {
    "title": "Swiftlet",
    "version": "0.1.0",
    "description": "Items and Users over HTTP. Every error is a problem document (RFC 9457).",
    "license": {"name": "MIT", "identifier": "MIT"},
}
# Before any handler, or in its place; every operation may answer so.
ALWAYS: tuple[tuple[int, str], ...] = (
    (503, "Overloaded, or the database is away: see Retry-After"),
    (504, "The database took too long"),
)


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document, as plain data."""
    operations = list(operations)
    kinds = [kind for operation in operations for kind in _kinds(operation)]
    schemas, components = msgspec.json.schema_components(
        [*kinds, ProblemDocument, LinesDocument],
        ref_template="#/components/schemas/{name}",
        schema_hook=_schema,
    )
    schema_of = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=False)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, schema_of
        )
    used = _reachable(paths, components)
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {name: _exact(components[name]) for name in sorted(used)}},
    }


def _operation(operation: Operation, schema_of: Mapping[int, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, title in ALWAYS:
        answers[str(status)] = _problem(title)
    fails: list[type[Problem]] = list(operation.fails)
    for problem in fails:
        answers[str(problem.status)] = _problem(
            problem.title, *(("LinesDocument",) if problem is InvalidLines else ())
        )
    in_path = re.findall(r"\{(\w+)\}", operation.path)
    if in_path or operation.query:
        answers.setdefault("422", _problem("Unprocessable Content"))
    answers[str(operation.status)] = _success(operation, schema_of)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer"}}
        for name in in_path
    ]
    if operation.query is not None:
        parameters += _parameters(operation.query)
    if operation.method in {"PUT", "PATCH", "DELETE"} and in_path:
        parameters.append(_header("If-Match", "Only if the version is one of these ETags"))
    elif operation.method == "GET" and in_path and 404 in {one.status for one in fails}:
        parameters.append(_header("If-None-Match", "304 if the version is one of these ETags"))
        answers["304"] = {"description": "Not modified"}
    told: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1]],
        "responses": dict(sorted(answers.items())),
    }
    if operation.method == "DELETE":
        told["responses"]["204"] = {"description": "Removed"}
    if parameters:
        told["parameters"] = parameters
    if operation.files and operation.method == "POST":
        told["requestBody"] = {"required": True, "content": _files(operation)}
    if operation.takes is not None:
        told["requestBody"] = {
            "required": True,
            "content": _content(schema_of[id(operation.takes)]),
        }
    return told


def _success(operation: Operation, schema_of: Mapping[int, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": operation.summary}
    if operation.gives is not None:
        shapes = [schema_of[id(kind)] for kind in _shapes(operation)]
        success["content"] = _content(shapes[0] if len(shapes) == 1 else {"anyOf": shapes})
    elif operation.files:
        success["content"] = _files(operation)
    return success


def _files(operation: Operation) -> dict[str, Any]:
    return {media: {"schema": {"type": "string"}} for media in operation.files}


def _kinds(operation: Operation) -> list[Any]:
    given = (operation.takes, *_shapes(operation))
    return [kind for kind in given if kind is not None]


def _shapes(operation: Operation) -> tuple[Any, ...]:
    return operation.gives if isinstance(operation.gives, tuple) else (operation.gives,)


def _parameters(query: type[Struct]) -> list[dict[str, Any]]:
    _, described = msgspec.json.schema_components([query], schema_hook=_schema)
    properties = described[query.__name__]["properties"]
    return [
        {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": properties[field.encode_name],
        }
        for field in structs.fields(query)
    ]


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _problem(title: str, *others: str) -> dict[str, Any]:
    refs = [{"$ref": f"#/components/schemas/{name}"} for name in ("ProblemDocument", *others)]
    schema: dict[str, Any] = {"anyOf": refs} if others else refs[0]
    return {"description": title, "content": {"application/problem+json": {"schema": schema}}}


def _schema(kind: type) -> dict[str, Any]:
    """Types that read themselves also say what they look like."""
    schema: dict[str, Any] = kind.SCHEMA  # type: ignore[attr-defined]  # the convention of wire.py
    return {"description": inspect.getdoc(kind), **schema}


def _exact(schema: Any) -> Any:
    """A Decimal is a number on our wire, where msgspec by itself would write a string."""
    if schema == {"type": "string", "format": "decimal"}:
        return {"type": "number"}
    if isinstance(schema, dict):
        return {name: _exact(part) for name, part in schema.items()}
    return [_exact(part) for part in schema] if isinstance(schema, list) else schema


def _reachable(paths: Any, components: Mapping[str, Any]) -> set[str]:
    """The components that the paths refer to; a query's Struct is told as parameters instead."""
    found: set[str] = set()
    queue = [str(paths)]
    while queue:
        for name in re.findall(r"#/components/schemas/([^'\"]+)", queue.pop()):
            if name not in found:
                found.add(name)
                queue.append(str(components[name]))
    return found
