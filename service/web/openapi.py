"""Build the OpenAPI 3.1 document from the route table and the Structs."""

import inspect
import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct, structs

from service.errors import ProblemDocument, TooMany
from service.web.endpoint import Operation, Tag
from service.web.openapi_schemas import Schemas, example
from service.web.openapi_texts import (
    COMMON_HEADERS,
    ENTITY_TAGS,
    HEADERS,
    IDEMPOTENCY_KEY,
    LIMIT_HEADERS,
    NO_CHECKS,
    PATH,
    PROBLEMS,
    ROW_ID,
    SECURITY_SCHEMES,
    TAGS,
    About,
    Checks,
)

Document = dict[str, Any]


def document(
    operations: Iterable[Operation], about: About, root: str = "", checks: Checks = NO_CHECKS
) -> Document:
    """Return the document as plain data.

    Args:
        operations: the route table.
        about: the application.
        root: the prefix of every path, such as `/api` (root_path of ASGI). The server URL is
            relative, so the Host header has no effect on it.
        checks: what is checked before an operation runs.
    """
    operations = list(operations)
    schemas = Schemas([kind for operation in operations for kind in _kinds(operation)])
    shared: Document = {}
    paths: dict[str, Document] = {}
    for operation in operations:
        described = _operation(operation, schemas, shared, checks)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    tags = {(tag := _tag(operation)).name: tag for operation in operations}
    return {
        "openapi": "3.1.0",
        "info": about.info(),
        "servers": [{"url": root or "/"}],
        "security": [{name: []} for name in SECURITY_SCHEMES] if checks.keys else [],
        "tags": [_described(tag) for tag in tags.values()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": dict(sorted(shared.items())),
            "headers": {name: _header_component(name) for name in sorted(HEADERS)},
            **({"securitySchemes": SECURITY_SCHEMES} if checks.keys else {}),
        },
    }


def _operation(
    operation: Operation, schemas: Schemas, shared: Document, checks: Checks
) -> Document:
    described: Document = {
        "operationId": _camel(operation.handler.__name__),
        "summary": operation.summary,
        "description": inspect.getdoc(operation.handler) or f"{operation.summary}.",
        "tags": [_tag(operation).name],
    }
    if parameters := _parameters(operation, schemas):
        described["parameters"] = parameters
    if body := _body(operation, schemas):
        described["requestBody"] = {"required": True, "content": body}
    if checks.keys and operation.needs == "open":
        described["security"] = []
    responses = _problems(operation, schemas, shared, checks)
    responses |= _successes(operation, schemas, checks)
    described["responses"] = {str(status): responses[status] for status in sorted(responses)}
    return described


def _tag(operation: Operation) -> Tag:
    if operation.tag is not None:
        return operation.tag
    name = operation.path.split("/")[1]
    return Tag(name, TAGS.get(name, ""))


def _described(tag: Tag) -> Document:
    described = {"name": tag.name}
    return {**described, "description": tag.description} if tag.description else described


def _successes(operation: Operation, schemas: Schemas, checks: Checks) -> dict[int, Document]:
    common = (*COMMON_HEADERS, *(LIMIT_HEADERS if checks.limits else ()))
    headers = [*common]
    content: Document = {}
    if operation.response is not None:
        shapes = [schemas.of(kind) for kind in _shapes(operation)]
        schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
        content = {"application/json": {"schema": schema}}
        fields = getattr(operation.response, "__struct_fields__", ())
        if {"id", "version"} <= {*fields}:
            headers.append("ETag")
        if operation.status == 201 and "id" in fields:
            headers.append("Location")
        if len(shapes) > 1:  # by page or by cursor
            headers.append("Link")
    elif operation.files:
        content = _files(operation)
        headers.append("Content-Disposition")
    if operation.cache_tags is not None:
        headers.append("X-Cache")
    if operation.takes_key and operation.replay:
        headers.append("Idempotency-Replayed")
    if operation.status == 204:
        return {204: _response(operation.summary, headers)}
    whole = _response(operation.summary, [*headers, "Content-Encoding", "Vary"], content)
    responses = {operation.status: whole}
    if operation.has_etag and operation.method == "GET":
        responses[304] = _response("If-None-Match names the version; there is no body", headers)
    if operation.has_etag and operation.method == "DELETE":
        responses[204] = _response("Removed for good (permanent=true)", common)
    return responses


def _problems(
    operation: Operation, schemas: Schemas, shared: Document, checks: Checks
) -> dict[int, Document]:
    """Return the error responses by status; those of several operations go into `shared`."""
    titles: dict[int, str] = {}
    shapes: dict[int, list[type[Struct]]] = {}
    with_key = checks.keys and operation.needs != "open"
    always = [
        *PROBLEMS.by_all,
        *(PROBLEMS.repeatable if operation.takes_key else ()),
        *(PROBLEMS.with_etag if operation.has_etag else ()),
        *(PROBLEMS.stored if operation.stored or with_key else ()),
        *(PROBLEMS.with_key if with_key else ()),
        *((TooMany,) if checks.limits and operation.limit != "off" else ()),
    ]
    for problem in (*always, *operation.errors):
        titles.setdefault(problem.status, problem.title)
        found = shapes.setdefault(problem.status, [ProblemDocument])
        if problem.document not in found:
            found.append(problem.document)
    responses = {}
    for status, title in titles.items():
        headers = [*COMMON_HEADERS, *PROBLEMS.headers.get(status, ())]
        headers += LIMIT_HEADERS if checks.limits else ()
        cached = operation.cache_tags is not None and status in PROBLEMS.with_x_cache
        if cached:
            headers.append("X-Cache")
        refs = [schemas.of(shape) for shape in shapes[status]]
        schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
        content = {"application/problem+json": {"schema": schema}}
        response = _response(PROBLEMS.meanings[status], headers, content)
        if cached or len(refs) > 1:
            responses[status] = response
        else:
            name = title.replace(" ", "")
            shared[name] = response
            responses[status] = {"$ref": f"#/components/responses/{name}"}
    return responses


def _response(
    description: str, headers: Iterable[str], content: Document | None = None
) -> Document:
    described: Document = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
    }
    return {**described, "content": content} if content else described


def _parameters(operation: Operation, schemas: Schemas) -> list[Document]:
    found: list[Document] = [
        {"name": name, "in": "path", "required": True, **PATH.get(name, ROW_ID)}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    if operation.query is not None:
        properties = schemas.properties(operation.query)
        found += [
            {
                "name": field.encode_name,
                "in": "query",
                "required": field.required,
                **_separated(properties[field.encode_name]),
                "schema": properties[field.encode_name],
            }
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
    return found


def _separated(schema: Document) -> Document:
    """Return how the values of a list are written: `include=a,b`."""
    return {"style": "form", "explode": False} if schema.get("type") == "array" else {}


def _condition(name: str, description: str, *, strict: bool = True) -> Document:
    """Return a precondition; if it is not strict, a malformed value is ignored."""
    schema: Document = {"type": "string", "examples": ['"3"']}
    if strict:
        schema["pattern"] = ENTITY_TAGS
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _body(operation: Operation, schemas: Schemas) -> Document:
    if operation.request is not None:
        schema = schemas.of(operation.request)
        shown = example(schema, schemas.components)
        return {"application/json": {"schema": schema, "example": shown}}
    return _files(operation) if operation.method == "POST" else {}


def _files(operation: Operation) -> Document:
    # CSV has a line with the names of the columns.
    return {
        media: {"schema": {"type": "string", **({"minLength": 1} if "csv" in media else {})}}
        for media in operation.files
    }


def _header_component(name: str) -> Document:
    description, kind = HEADERS[name]
    return {"description": description, "schema": {"type": kind}}


def _kinds(operation: Operation) -> list[Any]:
    problems = [problem.document for problem in operation.errors]
    given = (operation.request, *_shapes(operation), *problems, ProblemDocument)
    return [kind for kind in given if kind is not None]


def _shapes(operation: Operation) -> tuple[Any, ...]:
    return operation.response if isinstance(operation.response, tuple) else (operation.response,)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
