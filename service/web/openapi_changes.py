"""Changes of an OpenAPI document that break the clients of an earlier one."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Document = Mapping[str, Any]
Schema = Mapping[str, Any]
# Bounds of a schema: the lower ones, then the upper ones.
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
# Rules that are compared as they are.
RULES = ("pattern", "format", "multipleOf", "uniqueItems", "const")
METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")
# Types of JSON that a schema without a type allows.
ANY = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def breaking_changes(old: Document, new: Document) -> list[str]:
    """Return a line for each change that breaks a client of the old document.

    A client breaks if something that it uses is gone; if the service refuses a request that it
    accepted, so a parameter, a body or a field of it has a new requirement or a tighter rule; or if
    a response has a value that it could not have.
    """
    found: list[str] = []
    for path, methods in old["paths"].items():
        if path not in new["paths"]:
            found.append(f"{path}: the path is gone")
            continue
        for method in METHODS:
            if method not in methods:
                continue
            place = f"{method.upper()} {path}"
            if method not in new["paths"][path]:
                found.append(f"{place}: the operation is gone")
                continue
            comparison = _Comparison(old, new)
            later = new["paths"][path][method]
            found += (f"{place}: {line}" for line in comparison.operation(methods[method], later))
    return list(dict.fromkeys(found))


class _Sides(NamedTuple):
    """Two schemas, of which every value of one must be valid in the other.

    In a request the old client sends and the new service accepts; in a response the new service
    sends and the old client accepts.
    """

    old: Schema
    new: Schema
    direction: Literal["request", "response"]

    @property
    def sent(self) -> Schema:
        return self.old if self.direction == "request" else self.new

    @property
    def accepted(self) -> Schema:
        return self.new if self.direction == "request" else self.old

    def part(self, old: Schema, new: Schema) -> "_Sides":
        return _Sides(old, new, self.direction)


class _Comparison:
    """Compares an operation of two documents."""

    def __init__(self, old: Document, new: Document) -> None:
        self._old, self._new = old, new
        self._compared: set[tuple[str, str, str]] = set()

    def operation(self, old: Document, new: Document) -> Iterator[str]:
        if old.get("operationId") != new.get("operationId"):
            yield f"operationId {old.get('operationId')} is now {new.get('operationId')}"
        yield from self._keys(old, new)
        yield from self._parameters(old, new)
        yield from self._request(old.get("requestBody", {}), new.get("requestBody", {}))
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                yield f"the response {status} is gone"
                continue
            before = _resolved(response, self._old)
            after = _resolved(new["responses"][status], self._new)
            for name in before.get("headers", {}).keys() - after.get("headers", {}).keys():
                yield f"the header {name} of {status} is gone"
            yield from self._contents(before, after, "response", f"response {status}")

    def _keys(self, old: Document, new: Document) -> Iterator[str]:
        if not _needs_key(new, self._new):
            return
        if not _needs_key(old, self._old):
            yield "it needs a key now"
        later = [*_ways(new, self._new).values()]
        for names, way in _ways(old, self._old).items():
            if way not in later:
                yield f"the way {names} to send a key is gone, or has changed"

    def _parameters(self, old: Document, new: Document) -> Iterator[str]:
        before = {(one["in"], one["name"]): one for one in self._listed(old, self._old)}
        after = {(one["in"], one["name"]): one for one in self._listed(new, self._new)}
        for (where, name), one in after.items():
            earlier = before.get((where, name))
            if one.get("required") and not (earlier or {}).get("required"):
                yield f"the {where} parameter {name} is required now"
        for (where, name), one in before.items():
            place = f"{where} parameter {name}"
            if (where, name) not in after:
                yield f"the {place} is gone"
                continue
            later = after[where, name]
            if _style(one) != _style(later):
                yield f"the {place} is written in another way: style or explode"
            sides = _Sides(one["schema"], later["schema"], "request")
            yield from (f"{place}{line}" for line in self._schemas(sides))

    def _listed(self, operation: Document, document: Document) -> list[Document]:
        return [_resolved(one, document) for one in operation.get("parameters", ())]

    def _request(self, old: Document, new: Document) -> Iterator[str]:
        old, new = _resolved(old, self._old), _resolved(new, self._new)
        if new.get("required") and not old.get("required"):
            yield "the body is required now"
        yield from self._contents(old, new, "request", "body")

    def _contents(
        self, old: Document, new: Document, direction: Literal["request", "response"], place: str
    ) -> Iterator[str]:
        for media, content in old.get("content", {}).items():
            if media not in new.get("content", {}):
                yield f"{place}: {media} is gone"
                continue
            later = new["content"][media]
            sides = _Sides(content.get("schema", {}), later.get("schema", {}), direction)
            yield from (f"{place}{line}" for line in self._schemas(sides))

    def _schemas(self, sides: _Sides, at: str = "") -> list[str]:
        """Return what breaks between two schemas; `at` is the place within the body."""
        key = (str(sides.old.get("$ref")), str(sides.new.get("$ref")), sides.direction)
        if key[:2] != ("None", "None"):
            if key in self._compared:  # recursive, or reported at another place
                return []
            self._compared.add(key)
        old, new = _resolved(sides.old, self._old), _resolved(sides.new, self._new)
        sides = sides.part(old, new)
        if "anyOf" not in old and "anyOf" not in new:
            return list(self._plain(sides, at))
        # Every alternative that is sent must fit into one that is accepted.
        request = sides.direction == "request"
        found: list[str] = []
        for sent in _alternatives(sides.sent):
            tries: list[list[str]] = []
            for accepted in _alternatives(sides.accepted):
                compared = {*self._compared}
                pair = (sent, accepted) if request else (accepted, sent)
                tries.append(self._schemas(sides.part(*pair), at))
                self._compared = compared if tries[-1] else self._compared
            closest: list[str] = min(tries, key=len)
            found += closest
        return found

    def _plain(self, sides: _Sides, at: str) -> Iterator[str]:
        old, new, sent, accepted = sides.old, sides.new, sides.sent, sides.accepted
        if _types(sent) - _types(accepted):
            yield f"{at}: the type {_shown(old, 'type')} is now {_shown(new, 'type')}"
            return
        values, allowed = sent.get("enum"), accepted.get("enum")
        if allowed is not None and (
            values is None or [one for one in values if one not in allowed]
        ):
            yield f"{at}: the values {_shown(old, 'enum')} are now {_shown(new, 'enum')}"
        for rule in (*LOWER, *UPPER):
            if rule in accepted:
                tighter = rule not in sent or (
                    sent[rule] < accepted[rule] if rule in LOWER else sent[rule] > accepted[rule]
                )
                if tighter:
                    yield f"{at}: {rule} {_shown(old, rule)} is now {_shown(new, rule)}"
        for rule in RULES:
            if rule in accepted and accepted[rule] != sent.get(rule):
                yield f"{at}: {rule} {_shown(old, rule)} is now {_shown(new, rule)}"
        if sides.direction == "request" and old.get("default") != new.get("default"):
            yield f"{at}: default {_shown(old, 'default')} is now {_shown(new, 'default')}"
        yield from self._parts(sides, at)

    def _parts(self, sides: _Sides, at: str) -> Iterator[str]:
        """Yield what breaks in the properties of an object and the items of an array."""
        before, after = sides.old.get("properties", {}), sides.new.get("properties", {})
        needed = {*sides.accepted.get("required", ())} - {*sides.sent.get("required", ())}
        for name in sorted(needed & after.keys()):
            told = "required" if sides.direction == "request" else "not in every response"
            yield f"{at}.{name}: it is {told} now"
        for name, schema in before.items():
            if name not in after:
                yield f"{at}.{name}: it is gone"
            else:
                yield from self._schemas(sides.part(schema, after[name]), f"{at}.{name}")
        if "items" in sides.old and "items" in sides.new:
            yield from self._schemas(sides.part(sides.old["items"], sides.new["items"]), f"{at}[]")


def _resolved(one: Document, document: Document) -> Document:
    """Return the target of a reference with what is beside the reference, or the object itself."""
    while "$ref" in one:
        beside = {key: value for key, value in one.items() if key != "$ref"}
        target: Any = document
        for step in one["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        one = {**target, **beside}
    return one


def _needs_key(operation: Document, document: Document) -> bool:
    ways = operation.get("security", document.get("security", ()))
    return bool(ways) and {} not in ways


def _ways(operation: Document, document: Document) -> dict[str, list[Document]]:
    """Return the ways to send a key by the names of their schemes, with what a client must know."""
    schemes = document.get("components", {}).get("securitySchemes", {})
    ways = operation.get("security", document.get("security", ()))
    return {
        " and ".join(sorted(way)): [
            {key: one for key, one in schemes.get(name, {}).items() if key != "description"}
            for name in sorted(way)
        ]
        for way in ways
        if way
    }


def _style(parameter: Document) -> tuple[str, bool]:
    """Return how the values of a parameter are written: its style, and whether it is repeated."""
    usual = "form" if parameter["in"] in {"query", "cookie"} else "simple"
    style: str = parameter.get("style", usual)
    return style, parameter.get("explode", style == "form")


def _alternatives(schema: Schema) -> list[Schema]:
    return list(schema.get("anyOf", [schema]))


def _types(schema: Schema) -> set[str]:
    kinds = schema.get("type", ANY)
    found = {kinds} if isinstance(kinds, str) else {*kinds}
    return found | {"integer"} if "number" in found else found


def _shown(schema: Schema, key: str) -> str:
    return str(schema.get(key, "not set"))
