"""Build the OpenAPI 3.1 document from the route table and the Structs."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from service.errors import ProblemDocument
from service.web.endpoint import Operation, Tag
from service.web.openapi_examples import Examples
from service.web.openapi_requests import body, parameters
from service.web.openapi_responses import Responses, shapes
from service.web.openapi_schemas import Schemas
from service.web.openapi_texts import (
    HEADERS,
    NO_CHECKS,
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
        root: the prefix of every path, such as `/api` (root_path of ASGI), or the URL of the
            service. A prefix is relative, so the Host header has no effect on it.
        checks: what is checked before an operation runs.
    """
    operations = [one for one in operations if one.documented]
    schemas = Schemas([kind for operation in operations for kind in _kinds(operation)])
    tags = [_tag(operation) for operation in operations]
    examples = Examples(schemas.components)
    for operation, tag in zip(operations, tags, strict=True):
        if operation.request is not None:
            examples.learn(tag.name, schemas.of(operation.request))
    responses = Responses(schemas, examples, checks)
    paths: dict[str, Document] = {}
    for operation, tag, name in zip(operations, tags, operation_ids(operations), strict=True):
        described: Document = {
            "operationId": name,
            "summary": operation.summary,
            "description": _description(operation, checks),
            "tags": [tag.name],
            "parameters": parameters(operation, schemas),
        }
        if content := body(operation, schemas, examples):
            described["requestBody"] = {"required": True, "content": content}
        if checks.keys and operation.needs == "open":
            described["security"] = []
        elif checks.keys and operation.local:  # {}: a request without a key is possible
            described["security"] = [*({name: []} for name in SECURITY_SCHEMES), {}]
        described["responses"] = responses.of(operation, tag.name)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": about.info(),
        "servers": [{"url": root or "/"}],
        "security": [{name: []} for name in SECURITY_SCHEMES] if checks.keys else [],
        "tags": [_described(tag) for tag in {tag.name: tag for tag in tags}.values()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": dict(sorted(responses.shared.items())),
            "headers": {name: HEADERS[name].component() for name in sorted(responses.headers)},
            **({"securitySchemes": SECURITY_SCHEMES} if checks.keys else {}),
        },
    }


def operation_ids(operations: Sequence[Operation]) -> Iterator[str]:
    """Yield the unique name of each operation: that of its handler, as `list_items` `listItems`.

    A GET with a name of one word gets a verb: `health` `readHealth`. A name that an earlier
    operation has gets the words of the path: `readStats` `readStatsUsersIdStats`.
    """
    taken: set[str] = set()
    for operation in operations:
        name = operation.handler.__name__.strip("_")
        if operation.method == "GET" and "_" not in name:
            name = f"read_{name}"
        if _camel(name) in taken:
            path = "".join(char if char.isalnum() else "_" for char in operation.path)
            name = f"{name}_{path}"
        taken.add(_camel(name))
        yield _camel(name)


def _description(operation: Operation, checks: Checks) -> str:
    told = inspect.getdoc(operation.handler) or f"{operation.summary}."
    if checks.keys and operation.needs != "open":
        here = " A program on the machine of the server needs none." if operation.local else ""
        told += f"\n\nThe API key needs the scope `{operation.needs}`.{here}"
    return told


def _tag(operation: Operation) -> Tag:
    if operation.tag is not None:
        return operation.tag
    if operation.media:
        return Tag("service", TAGS["service"])
    name = operation.path.split("/")[1]
    return Tag(name, TAGS.get(name, ""))


def _described(tag: Tag) -> Document:
    return {"name": tag.name, "description": tag.description or f"Operations on {tag.name}"}


def _kinds(operation: Operation) -> list[Any]:
    problems = [problem.document for problem in operation.errors]
    given = (operation.request, *shapes(operation), operation.accepted, *problems, ProblemDocument)
    return [kind for kind in given if kind is not None]


def _camel(name: str) -> str:
    first, *others = (word for word in name.split("_") if word)
    return first + "".join(word.capitalize() for word in others)
