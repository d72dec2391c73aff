"""Responses in the OpenAPI document: those of success, and problem documents."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct

from service.errors import Problem, ProblemDocument, TooMany
from service.web.endpoint import Operation
from service.web.openapi_examples import Examples, NoExampleError
from service.web.openapi_requests import files
from service.web.openapi_schemas import Schemas
from service.web.openapi_texts import (
    COMMON_HEADERS,
    LIMIT_HEADERS,
    PAGE_HEADERS,
    PROBLEMS,
    Checks,
)

Document = dict[str, Any]


def shapes(operation: Operation) -> tuple[Any, ...]:
    """Return the types of a successful response."""
    return operation.response if isinstance(operation.response, tuple) else (operation.response,)


class Responses:
    """The responses of some operations.

    Attributes:
        shared: problem documents that are the same for several operations, by their names.
        headers: the names of all headers.
    """

    def __init__(self, schemas: Schemas, examples: Examples, checks: Checks) -> None:
        self.shared: dict[str, Document] = {}
        self.headers: set[str] = set()
        self._schemas = schemas
        self._examples = examples
        self._checks = checks
        self._common = (*COMMON_HEADERS, *(LIMIT_HEADERS if checks.limits else ()))

    def of(self, operation: Operation, tag: str) -> Document:
        """Return the responses of an operation by status; `tag` is its group."""
        found = self._problems(operation) | self._successes(operation, tag)
        return {str(status): found[status] for status in sorted(found)}

    def _successes(self, operation: Operation, tag: str) -> dict[int, Document]:
        headers = [*self._common]
        content: Document = {}
        if operation.response is not None:
            kinds = shapes(operation)
            content = {"application/json": self._content(kinds, tag)}
            fields = getattr(operation.response, "__struct_fields__", ())
            if {"id", "version"} <= {*fields}:
                headers.append("ETag")
            if operation.status == 201 and "id" in fields:
                headers.append("Location")
            if len(kinds) > 1 or "next_cursor" in fields:  # by page or by cursor
                headers.append("Link")
            content |= {media: {"schema": {"type": "string"}} for media in operation.media}
        elif operation.media:
            content = {
                media: {"schema": {"type": "object" if media == "application/json" else "string"}}
                for media in operation.media
            }
            headers += PAGE_HEADERS if "text/html" in content else ()
        elif operation.files:
            content = files(operation)
            headers.append("Content-Disposition")
        headers += [name for name, sent in _sent(operation).items() if sent]
        if operation.status == 204:
            return {204: self._response(operation.summary, headers)}
        whole = self._response(operation.summary, [*headers, "Content-Encoding", "Vary"], content)
        responses = {operation.status: whole}
        if operation.accepted is not None:
            body = {"application/json": self._content((operation.accepted,), tag)}
            told = "A job does the work; Location is where its state is"
            responses[202] = self._response(told, [*headers, "Location"], body)
        if operation.has_etag and operation.method == "GET":
            told = "If-None-Match names the version; there is no body"
            more = ("Vary",) if operation.fixed else ()
            responses[304] = self._response(told, [*headers, *more])
        if operation.has_etag and operation.method == "DELETE":
            responses[204] = self._response("Removed for good (permanent=true)", self._common)
        return responses

    def _content(self, kinds: tuple[Any, ...], tag: str) -> Document:
        """Return the schema of a body that is one of these types, with an example of each."""
        schemas = [self._schemas.of(kind) for kind in kinds]
        with suppress(NoExampleError):
            return one_of(schemas, [self._examples.response(schema, tag) for schema in schemas])
        return one_of(schemas, [])

    def _problems(self, operation: Operation) -> dict[int, Document]:
        """Return the error responses by status; those of several operations go into `shared`."""
        titles: dict[int, str] = {}
        found: dict[int, list[type[Struct]]] = {}
        for problem in (*self._always(operation), *operation.errors):
            titles.setdefault(problem.status, problem.title)
            kinds = found.setdefault(problem.status, [ProblemDocument])
            if problem.document not in kinds:
                kinds.append(problem.document)
        responses = {}
        for status, title in titles.items():
            headers = [*self._common, *PROBLEMS.headers.get(status, ())]
            cached = operation.cache_tags is not None and status in PROBLEMS.with_x_cache
            if cached:
                headers.append("X-Cache")
            schemas = [self._schemas.of(kind) for kind in found[status]]
            values = []
            with suppress(NoExampleError):
                values = [self._examples.problem(schema, status, title) for schema in schemas]
            content = {"application/problem+json": one_of(schemas, values)}
            response = self._response(PROBLEMS.meanings[status], headers, content)
            if cached or len(schemas) > 1:
                responses[status] = response
            else:
                name = title.replace(" ", "")
                self.shared[name] = response
                responses[status] = {"$ref": f"#/components/responses/{name}"}
        return responses

    def _always(self, operation: Operation) -> Iterable[type[Problem]]:
        """Yield the errors beside those in its entry of the route table."""
        with_key = self._checks.keys and operation.needs != "open"
        yield from PROBLEMS.by_all
        if operation.takes_key:
            yield from PROBLEMS.repeatable
        if operation.has_etag:
            yield from PROBLEMS.with_etag
        if operation.stored or with_key:
            yield from PROBLEMS.stored
        if with_key:
            yield from PROBLEMS.with_key
        if self._checks.limits and operation.limit != "off":
            yield TooMany

    def _response(
        self, description: str, headers: Iterable[str], content: Document | None = None
    ) -> Document:
        described: Document = {"description": description, "headers": {}}
        for name in headers:
            self.headers.add(name)
            described["headers"][name] = {"$ref": f"#/components/headers/{name}"}
        return {**described, "content": content} if content else described


def one_of(schemas: list[Document], values: list[Any]) -> Document:
    """Return the content of a body that has one of these schemas, with an example of each."""
    if not values:
        return {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    if len(schemas) == 1:
        return {"schema": schemas[0], "example": values[0]}
    names = [schema["$ref"].rpartition("/")[2] for schema in schemas]
    examples = {name: {"value": value} for name, value in zip(names, values, strict=True)}
    return {"schema": {"anyOf": schemas}, "examples": examples}


def _sent(operation: Operation) -> Mapping[str, bool]:
    """Return which headers a successful response has, whatever its body."""
    return {
        "ETag": operation.fixed,
        "X-Cache": operation.cache_tags is not None,
        "Idempotency-Replayed": operation.takes_key and operation.replay,
    }
