"""Example values in the OpenAPI document, made from the schemas."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.web.openapi_schemas import PLACE, Schema
from service.web.openapi_texts import PROBLEMS

# Examples of values whose schema has none, by format and by type.
BY_FORMAT = {"date-time": "2026-11-26T09:00:00.000000Z"}
BY_TYPE = {"string": "text", "integer": 1, "number": 1, "boolean": True, "object": {}}
# Python's types of JSON's. A bool is an int in Python; names of flags are not those of numbers.
JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
}


class Examples:
    """Makes example values.

    A schema that has no example takes that of a property of the same name in a request: of the same
    tag, else of any tag. So a response shows the values that the request has.
    """

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components
        self._by_tag: dict[str, dict[str, Any]] = {}
        self._by_name: dict[str, Any] = {}

    def learn(self, tag: str, schema: Schema) -> None:
        """Take the examples in the body of a request."""
        by_name = self._by_tag.setdefault(tag, {})
        for name, value in self._named(schema):
            by_name.setdefault(name, value)
            self._by_name.setdefault(name, value)

    def request(self, schema: Schema) -> Any:
        """Return an example of a request; None without any.

        An object has the properties that have an example or are required.
        """
        schema = self._resolved(schema)
        if "examples" in schema:
            return schema["examples"][0]
        if "properties" in schema:
            required = schema.get("required", ())
            shown = {name: self.request(part) for name, part in schema["properties"].items()}
            return {name: one for name, one in shown.items() if one is not None or name in required}
        if schema.get("type") == "array":
            return [self.request(schema["items"])]
        options = (self.request(option) for option in schema.get("anyOf", ()))
        return next((one for one in options if one is not None), None)

    def response(self, schema: Schema, tag: str, name: str = "") -> Any:
        """Return an example of a response; an object has the required properties.

        Args:
            schema: of the value.
            tag: of the operation.
            name: of the property that has the value.
        """
        schema = self._resolved(schema)
        if "examples" in schema:
            return schema["examples"][0]
        if "properties" in schema:
            properties = schema["properties"]
            return {
                name: self.response(properties[name], tag, name)
                for name in properties
                if name in schema.get("required", ())
            }
        if "enum" in schema:
            return schema["enum"][0]
        options = schema.get("anyOf", [schema])
        for one in options:
            if "examples" in one:
                return one["examples"][0]
            known = self._known(tag, name, one.get("type", ""))
            if known is not None:
                return known
        if {"type": "null"} in options:
            return None
        if "anyOf" in schema:
            return self.response(options[0], tag, name)
        if schema.get("type") == "array":
            return [self.response(schema["items"], tag)]
        return BY_FORMAT.get(schema.get("format", ""), BY_TYPE.get(schema.get("type", "")))

    def problem(self, schema: Schema, status: int, title: str) -> Any:
        """Return an example of a problem document."""
        shown = {"type": "about:blank", **self.response(schema, "")}
        shown |= {"title": title, "status": status}
        detail, errors = PROBLEMS.details[status]
        if "errors" not in shown:  # else the document has lines, and a detail of its own
            shown["detail"] = detail
            shown |= {"errors": errors} if errors else {}
        return shown

    def _known(self, tag: str, name: str, kind: str) -> Any:
        """Return the example of a property with this name and JSON type; None without any."""
        for names in (self._by_tag.get(tag, {}), self._by_name):
            if name in names and isinstance(names[name], JSON_TYPES.get(kind, ())):
                return names[name]
        return None

    def _resolved(self, schema: Schema) -> Schema:
        if "$ref" not in schema:
            return schema
        return self._components[schema["$ref"].removeprefix(PLACE)]

    def _named(self, schema: Schema) -> Iterator[tuple[str, Any]]:
        """Yield each property that has an example of its own, also those of nested objects."""
        schema = self._resolved(schema)
        for name, part in schema.get("properties", {}).items():
            options = (part, *part.get("anyOf", ()))
            found = [one["examples"][0] for one in options if "examples" in one]
            if found:
                yield name, found[0]
            yield from self._named(part)
        if "items" in schema:
            yield from self._named(schema["items"])
