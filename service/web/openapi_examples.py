"""Example values in the OpenAPI document, made from the schemas."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from service.web.openapi_schemas import PLACE, Schema
from service.web.openapi_texts import PROBLEMS

# Examples of strings whose schema has none, by format.
BY_FORMAT = {
    "date-time": "2026-11-26T09:00:00.000000Z",
    "date": "2026-11-26",
    "time": "09:00:00",
    "duration": "PT1H",
    "uuid": "3f0f9c1e-5a4e-4d0c-9d1b-2f6f1b7c8a90",
    "byte": "AAEC",
}
# Python's types of JSON's.
JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
}


class NoExampleError(ValueError):
    """A schema has no example, and none can be made."""


class Examples:
    """Makes example values.

    A schema in a response that has no example takes that of a property of the same name in a
    request: of the same tag, else of any tag. So a response shows the values of the request.
    """

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components
        self._by_tag: dict[str, dict[str, Any]] = {}
        self._by_name: dict[str, Any] = {}
        self._open: list[str] = []  # components whose example is being made

    def learn(self, tag: str, schema: Schema) -> None:
        """Take the examples in the body of a request."""
        by_name = self._by_tag.setdefault(tag, {})
        for name, value in self._named(schema):
            by_name.setdefault(name, value)
            self._by_name.setdefault(name, value)

    def request(self, schema: Schema) -> Any:
        """Return an example of a body: an object has what is required or has an example.

        Raises:
            NoExampleError: a required part has a rule that only a person can follow.
        """
        found = self._given(schema)
        if found is not None:
            return found
        with self._opened(schema) as resolved:
            return self._made(resolved)

    def response(self, schema: Schema, tag: str, name: str = "") -> Any:
        """Return an example of a response; an object has the required properties.

        Args:
            schema: of the value.
            tag: of the operation.
            name: of the property that has the value.

        Raises:
            NoExampleError: a required part has a rule that only a person can follow.
        """
        with self._opened(schema) as resolved:
            return self._shown(resolved, tag, name)

    def _shown(self, schema: Schema, tag: str, name: str) -> Any:
        if "examples" in schema:
            return schema["examples"][0]
        if "properties" in schema:
            properties = schema["properties"]
            return {
                name: self.response(properties[name], tag, name)
                for name in properties
                if name in schema.get("required", ())
            }
        options = schema.get("anyOf", [schema])
        for one in options:
            if "examples" in one:
                return one["examples"][0]
            known = self._known(tag, name, one)
            if known is not None:
                return known
        if {"type": "null"} in options:
            return None
        if "anyOf" in schema:
            return self.response(options[0], tag, name)
        if schema.get("type") == "array" and "items" in schema:
            return _list(schema, lambda: self.response(schema["items"], tag))
        return self._made(schema)

    def problem(self, schema: Schema, status: int, title: str) -> Any:
        """Return an example of a problem document."""
        shown = {"type": "about:blank", **self.response(schema, "")}
        shown |= {"title": title, "status": status}
        detail, errors = PROBLEMS.details.get(status, (title, []))
        if "errors" not in shown:  # else the document has lines, and a detail of its own
            shown["detail"] = detail
            shown |= {"errors": errors} if errors else {}
        return shown

    def _given(self, schema: Schema) -> Any:
        """Return the example that a schema or its parts have; None without any."""
        with self._opened(schema) as resolved:
            if "examples" in resolved:
                return resolved["examples"][0]
            if "properties" in resolved:
                return self._object(resolved)
            if resolved.get("type") == "array" and "items" in resolved:
                with suppress(NoExampleError):
                    found = self._given(resolved["items"])
                    return None if found is None else [found]
            for option in resolved.get("anyOf", ()):
                with suppress(NoExampleError):
                    found = self._given(option)
                    if found is not None:
                        return found
        return None

    def _object(self, schema: Schema) -> dict[str, Any]:
        shown = {}
        for name, part in schema["properties"].items():
            if name in schema.get("required", ()):
                shown[name] = self.request(part)
                continue
            with suppress(NoExampleError):
                found = self._given(part)
                if found is not None:
                    shown[name] = found
        return shown

    def _made(self, schema: Schema) -> Any:
        """Return a value of a type that obeys the limits of the schema."""
        if "anyOf" in schema:
            nothing = {"type": "null"} in schema["anyOf"]
            return None if nothing else self.request(schema["anyOf"][0])
        if "default" in schema:
            return schema["default"]
        if "enum" in schema:
            return schema["enum"][0]
        match schema.get("type"):
            case "string":
                return _text(schema)
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return True
            case "array" if "items" in schema:
                return _list(schema, lambda: self.request(schema["items"]))
            case "array":
                return []
        return {}

    def _known(self, tag: str, name: str, schema: Schema) -> Any:
        """Return the example of a property with this name and type; None without any."""
        kind = JSON_TYPES.get(schema.get("type", ""))
        if kind is None or "enum" in schema:
            return None
        for names in (self._by_tag.get(tag, {}), self._by_name):
            value = names.get(name)
            # A bool is an int in Python.
            if isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
                return value
        return None

    def _resolved(self, schema: Schema) -> Schema:
        if "$ref" not in schema:
            return schema
        return self._components[schema["$ref"].removeprefix(PLACE)]

    @contextmanager
    def _opened(self, schema: Schema) -> Iterator[Schema]:
        """Yield the schema behind a reference; a value can't be within itself.

        Raises:
            NoExampleError: an example of this component is being made already.
        """
        place = schema.get("$ref")
        if place is None:
            yield schema
            return
        if place in self._open:
            raise NoExampleError(place)
        self._open.append(place)
        try:
            yield self._resolved(schema)
        finally:
            self._open.pop()

    def _named(self, schema: Schema, seen: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
        """Yield each property that has an example of its own, also those of nested objects."""
        place = schema.get("$ref", "")
        if place in seen:
            return
        seen = (*seen, place) if place else seen
        schema = self._resolved(schema)
        for name, part in schema.get("properties", {}).items():
            options = (part, *part.get("anyOf", ()))
            found = [one["examples"][0] for one in options if "examples" in one]
            if found:
                yield name, found[0]
            yield from self._named(part, seen)
        if "items" in schema:
            yield from self._named(schema["items"], seen)


def _list(schema: Schema, make: Callable[[], Any]) -> list[Any]:
    """Return a list of as few values as there may be, but one if that is possible."""
    least: int = schema.get("minItems", 0)
    try:
        return [make()] * max(1, least)
    except NoExampleError:
        if least:
            raise
        return []


def _text(schema: Schema) -> str:
    if "pattern" in schema:
        raise NoExampleError(schema["pattern"])
    text = BY_FORMAT.get(schema.get("format", ""), "text")
    return text.ljust(schema.get("minLength", 0), "t")[: schema.get("maxLength")]


def _number(schema: Schema) -> float:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    most = schema.get("maximum", schema.get("exclusiveMaximum", least + 2) - 1)
    number: float = max(least, 1) if most >= 1 else most
    step = schema.get("multipleOf")
    return -(-number // step) * step if step else number
