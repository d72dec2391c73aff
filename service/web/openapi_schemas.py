"""JSON Schemas of the Structs, with readable names for generated clients."""

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

Schema = dict[str, Any]
PLACE = "#/components/schemas/"


class Schemas:
    """The schemas of some types; `components` has those with a name.

    An enumeration with a title (Meta) is a component too, so a client generator makes one type for
    it, not one for each parameter.
    """

    def __init__(self, kinds: Iterable[Any]) -> None:
        self.components: dict[str, Any] = {}
        self._of: dict[int, Schema] = {}
        kinds = list(kinds)
        schemas, components = msgspec.json.schema_components(
            kinds, schema_hook=_own, ref_template=PLACE + "{name}"
        )
        found = {name: self._exact(schema) for name, schema in components.items()}
        self._of = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
        self.components |= found
        self.components = dict(sorted(self.components.items()))

    def of(self, kind: Any) -> Schema:
        """Return the schema of one of the types: a reference."""
        return self._of[id(kind)]

    def properties(self, struct: type[Struct]) -> dict[str, Schema]:
        """Return the property schemas of a Struct that is not a component, such as a query."""
        _, described = msgspec.json.schema_components(
            [struct], schema_hook=_own, ref_template=PLACE + "{name}"
        )
        found = {
            name: self._exact(schema)
            for name, schema in described[struct.__name__]["properties"].items()
        }
        self.components = dict(sorted(self.components.items()))
        return found

    def _exact(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self._exact(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        if schema == {"type": "string", "format": "decimal"}:
            return {"type": "number"}  # msgspec would say string
        values = schema.get("enum")
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            if "title" in schema:
                return self._named_enum(schema)
            return {"type": "string", **schema}
        exact = {name: self._exact(part) for name, part in schema.items()}
        if schema.get("type") == "integer":
            exact.setdefault("format", "int64")  # else Java and C# generate 32 bits
        if isinstance(schema.get("description"), str):
            exact["description"] = inspect.cleandoc(schema["description"])
        return exact

    def _named_enum(self, schema: Schema) -> Schema:
        name = schema["title"]
        values = sorted(schema["enum"], key=lambda value: (value.strip("-"), value[0] == "-"))
        named: Schema = {"title": name, "type": "string", "enum": values}
        if not all(value.isidentifier() for value in values):
            # For openapi-generator and openapi-python-client, which else number the values.
            named["x-enum-varnames"] = [
                f"{value[1:]}_desc".upper() if value[0] == "-" else value.upper()
                for value in values
            ]
        if "examples" in schema:
            named["examples"] = schema["examples"]
        self.components[name] = named
        reference: Schema = {"$ref": PLACE + name}
        kept: Schema = {key: schema[key] for key in ("default", "description") if key in schema}
        return {**reference, **kept}


def _own(kind: type) -> Schema:
    """Return the schema that a type with its own decoder declares."""
    schema: Schema = kind.SCHEMA  # type: ignore[attr-defined]  # the convention of codec.py
    return {"description": inspect.getdoc(kind), **schema}
