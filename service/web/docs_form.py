"""The fields of a request on the page of the API: parameters and body, filled with examples."""

import json
import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

from service.web.docs_schemas import Schema, kind, limits, options, phrase

# A script replaces this word by the address of the page. The server would have to trust the Host
# header. Without scripts, the page explains the word.
BASE = "$API"


def parameters(
    operation: str, listed: list[dict[str, Any]], components: Mapping[str, Schema]
) -> str:
    """Return a table of parameters as HTML: what each means, and a field for its value.

    Args:
        operation: its operationId.
        listed: the parameters, without references.
        components: the schemas by name.
    """
    if not listed:
        return ""
    rows = "".join(_row(operation, one, components) for one in listed)
    return (
        "<h3>Parameters</h3><table class=parameters><thead><tr><th scope=col>Parameter"
        f"<th scope=col class=needs-script>Value</thead><tbody>{rows}</tbody></table>"
    )


def _row(operation: str, one: dict[str, Any], components: Mapping[str, Schema]) -> str:
    schema = one.get("schema", {})
    identity = escape(f"{operation}-{one['in']}-{one['name']}")
    more = limits({name: part for name, part in schema.items() if name != "examples"})
    about = one.get("description") or schema.get("description", "")
    return (
        f'<tr><th scope=row><label for="{identity}"><code>{escape(one["name"])}</code></label>'
        f" <small class=muted>{one['in']}</small>"
        + (" <small class=required>required</small>" if one.get("required") else "")
        + f"<div><span class=type>{kind(schema)}</span>"
        + (f" <span class=muted>{more}</span>" if more else "")
        + "</div>"
        + (f"<div>{phrase(about)}</div>" if about else "")
        + f"<td class=needs-script>{_field(identity, one, components)}"
    )


def _field(identity: str, parameter: dict[str, Any], components: Mapping[str, Schema]) -> str:
    name, place, schema = parameter["name"], parameter["in"], parameter.get("schema", {})
    common = f'id="{identity}" name="{escape(name)}" data-in="{place}"'
    if "array" not in str(schema.get("type")) and (known := options(schema, components)):
        default = schema.get("default")
        empty = "" if default is None else f" ({json.dumps(default).strip(chr(34))})"
        values = "".join(f"<option>{escape(value)}" for value in known)
        return f'<select {common}><option value="">not sent{escape(empty)}{values}</select>'
    shown = _shown_value(parameter)
    if parameter.get("required"):
        return f'<input {common} value="{escape(shown)}" required autocomplete=off>'
    hint = schema.get("default", f"such as {shown}" if shown else "")
    field = (
        f'<input {common} placeholder="{escape(str(hint))}" autocomplete=off autocapitalize=off'
        " spellcheck=false>"
    )
    if (
        place == "query"
        and schema.get("type") == "string"
        and not schema.keys() & {"minLength", "default"}
    ):
        # An empty value is another request than no value: `cursor=` starts a list.
        field += f'<label class=empty><input type=checkbox data-empty="{identity}"> empty</label>'
    return field


def _shown_value(parameter: dict[str, Any]) -> str:
    examples = [parameter.get("example"), *parameter.get("schema", {}).get("examples", ())]
    return next((str(one) for one in examples if one is not None), "")


def body(operation: str, content: Mapping[str, Any]) -> str:
    """Return the fields of a request body as HTML.

    Args:
        operation: its operationId.
        content: of the body, by media type.
    """
    if not content:
        return ""
    identity = escape(f"{operation}-body")
    shapes = dict.fromkeys(
        kind(one["schema"]) for one in content.values() if one["schema"].get("type") != "string"
    )
    files = any(one["schema"].get("type") == "string" for one in content.values())
    types = "".join(f"<option>{escape(media)}" for media in content)
    example = shown_example(next(iter(content.values())))
    rows = min(14, max(3, example.count("\n") + 1))
    return (
        f'<h3><label for="{identity}">Body</label> <small>{" or ".join(shapes)}</small></h3>'
        + (
            f'<p class=needs-script><label for="{identity}-type">Media type</label>'
            f' <select id="{identity}-type" data-in=type>{types}</select></p>'
            if len(content) > 1
            else f"<p class=muted>{escape(next(iter(content)))}</p>"
        )
        + (
            f'<p class=needs-script><label for="{identity}-file">File</label>'
            f' <input type=file id="{identity}-file" data-in=file>'
            " <span class=muted>or rows as text:</span></p>"
            if files
            else ""
        )
        + f'<textarea class=needs-script id="{identity}" data-in=body rows={rows}'
        f" spellcheck=false autocapitalize=off>\n{escape(example)}</textarea>"
        "<p class=problem role=alert hidden></p>"
    )


def shown_example(content: Mapping[str, Any]) -> str:
    """Return the example of a media type as text; empty without one."""
    example = content.get("example")
    if example is None and content.get("examples"):
        example = next(iter(content["examples"].values())).get("value")
    if example is None or isinstance(example, str):
        return example or ""
    return json.dumps(example, indent=2, ensure_ascii=False)


def curl(
    method: str,
    path: str,
    root: str,
    parameters: list[dict[str, Any]],
    content: Mapping[str, Any],
) -> str:
    """Return the request as a command, for a page without scripts; a script writes its own."""
    words = []
    if content:
        media, first = next(iter(content.items()))
        words.append(f"-H {shlex.quote(f'Content-Type: {media}')}")
        example = first.get("example")
        data = "@file" if example is None else shlex.quote(json.dumps(example))
        words.append(f"{'--data-binary' if example is None else '-d'} {data}")
    for parameter in parameters:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", _shown_value(parameter) or "1")
    address = f'<span class=base data-root="{escape(root)}">{BASE}</span>{escape(path)}'
    verb = "" if method == "get" else f"-X {method.upper()} "
    return f"curl {verb}" + " \\\n  ".join([address, *map(escape, words)])
