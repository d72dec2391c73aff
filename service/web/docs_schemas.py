"""JSON Schemas as HTML: words for a type, its limits, and tables of fields with links."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Schema = dict[str, Any]

_CODE = re.compile(r"`([^`]+)`")
# Limits that are shown as they are, with the words for them.
_LIMITS = {
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "pattern": "matches <code>{}</code>",
    "minProperties": "at least {} fields",
    "maxProperties": "at most {} fields",
}  # The largest number of PostgreSQL's bigint, which tells a reader nothing.
_INT8_MAX = 2**63 - 1
# A longer pattern tells a reader nothing.
_READABLE = 40
# Two limits of one thing, in front of its unit.
_RANGES = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " character"),
    ("minItems", "maxItems", " element"),
)


def prose(text: str) -> str:
    """Return a description as HTML: paragraphs, lists of lines with `- `, and code in backticks."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        marked = _CODE.sub(r"<code>\1</code>", escape(paragraph, quote=False))
        if marked.startswith("- "):
            items = "".join(f"<li>{one}" for one in marked[2:].split("\n- "))
            parts.append(f"<ul>{items}</ul>")
        elif marked:
            parts.append(f"<p>{marked}</p>")
    return "".join(parts)


def phrase(text: str) -> str:
    """Return a description as HTML that fits into a line."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def name_of(reference: Mapping[str, Any]) -> str:
    """Return the last part of a reference."""
    return str(reference["$ref"]).rpartition("/")[2]


def kind(schema: Schema) -> str:
    """Return the type as HTML, such as `array of <a>Item</a>` or `string or null`."""
    if "$ref" in schema:
        name = escape(name_of(schema))
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return (" and " if several == "allOf" else " or ").join(
                dict.fromkeys(kind(one) for one in schema[several])
            )
    if "enum" in schema or "const" in schema:
        return " or ".join(_value(one) for one in schema.get("enum", [schema.get("const")]))
    types = schema.get("type", "any")
    if types == "array":
        return f"array of {kind(schema.get('items', {}))}"
    if types == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {kind(schema['additionalProperties'])}"
    words = escape(" or ".join(types) if isinstance(types, list) else str(types))
    format_ = schema.get("format") if types == "string" else None  # int64 tells a reader nothing
    return f"{words} ({escape(format_)})" if format_ else words


def limits(schema: Schema) -> str:
    """Return limits, default and an example as HTML, such as `1 to 100, none twice`."""
    plain = _whole(schema)
    parts = []
    for least, most, unit in _RANGES:
        low, high = plain.get(least), plain.get(most)
        if high == _INT8_MAX:
            high = None
        if low is not None and high is not None:
            parts.append(f"{low} to {high}{unit}s" if unit else f"{low} to {high}")
        elif low is not None or high is not None:
            one = high if low is None else low
            plural = "s" if unit and one != 1 else ""
            parts.append(f"at {'most' if low is None else 'least'} {one}{unit}{plural}")
    parts += [
        words.format(escape(str(plain[name])))
        for name, words in _LIMITS.items()
        if name in plain and len(str(plain[name])) <= _READABLE
    ]
    if plain.get("uniqueItems"):
        parts.append("none twice")
    if "default" in plain:
        parts.append(f"default {_value(plain['default'])}")
    if plain.get("examples"):
        parts.append(f"for example {_value(plain['examples'][0])}")
    return ", ".join(parts)


def table(name: str, schema: Schema) -> str:
    """Return the description of a named schema as HTML: a table, if it has fields."""
    about = prose(schema.get("description", ""))
    properties = schema.get("properties")
    if not properties:
        more = limits(schema)
        return f"{about}<p>{kind({**schema, 'title': name})}{', ' if more else ''}{more}</p>"
    required = set(schema.get("required", ()))
    # A mark at each field would be noise, as in most answers.
    marked, each = (set(), ", all required") if required >= set(properties) else (required, "")
    rows = "".join(
        f"<tr><th scope=row><code>{escape(field)}</code>{_mark(field in marked)}"
        f"<td>{_described(part)}"
        for field, part in properties.items()
    )
    return (
        f"{about}<div class=scroll><table class=fields><thead><tr><th scope=col>Field{each}"
        f"<th scope=col>Type and meaning</thead><tbody>{rows}</tbody></table></div>"
    )


def field_names(schema: Any, components: Mapping[str, Schema]) -> set[str]:
    """Return the names of all fields of a schema, and of the schemas that it refers to."""
    found: set[str] = set()
    seen: set[str] = set()

    def walk(part: Any) -> None:
        if isinstance(part, list):
            for one in part:
                walk(one)
        elif isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str):
                name = name_of(part)
                if name not in seen:
                    seen.add(name)
                    found.add(name)
                    walk(components.get(name, {}))
            properties = part.get("properties")
            if isinstance(properties, dict):
                found.update(properties)
            for one in part.values():
                walk(one)

    walk(schema)
    return found


def options(schema: Schema, components: Mapping[str, Schema]) -> list[str]:
    """Return the values that a field can have, if they are few and known; else nothing."""
    for one in _options(schema, components):
        if one.get("type") == "boolean":
            return ["true", "false"]
        if "enum" in one:
            return [str(value) for value in one["enum"]]
    return []


def words_of(names: set[str]) -> str:
    """Return names as the value of an attribute that the search reads."""
    return escape(" ".join(sorted(name.lower() for name in names)))


def _options(schema: Schema, components: Mapping[str, Schema]) -> Iterator[Schema]:
    if "$ref" in schema:
        yield from _options(components.get(name_of(schema), {}), components)
    yield schema
    for one in schema.get("anyOf", ()):
        yield from _options(one, components)


def _described(schema: Schema) -> str:
    more = limits(schema)
    about = _whole(schema).get("description", "")
    return (
        f"<span class=type>{kind(schema)}</span>"
        + (f" <span class=muted>{more}</span>" if more else "")
        + (f"<br>{phrase(about)}" if about else "")
    )


def _whole(schema: Schema) -> Schema:
    """Return a schema with the members of its only option that is not null."""
    several = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return {**several[0], **schema} if len(several) == 1 else schema


def _mark(required: bool) -> str:
    return " <small class=required>required</small>" if required else ""


def _value(value: Any) -> str:
    shown = value if isinstance(value, str) and value else json.dumps(value)
    return f"<code>{escape(shown)}</code>"
