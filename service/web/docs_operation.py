"""The operations of the OpenAPI document as HTML, with the form of a request."""

from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

from service.web import docs_form
from service.web.docs_schemas import field_names, kind, phrase, prose, words_of

Document = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete", "head", "options")


class Described(NamedTuple):
    """An operation in the document, without references to shared parts."""

    method: str
    path: str
    operation: Document
    parameters: list[Document]
    responses: dict[str, Document]

    @property
    def identity(self) -> str:
        """Its operationId, which is also its place in the page."""
        return escape(self.operation["operationId"])

    @property
    def tag(self) -> str:
        """Its group."""
        return str(self.operation["tags"][0])

    @property
    def name(self) -> str:
        """Method and path as HTML."""
        method = f"<b class={self.method}>{self.method.upper()}</b>"
        return f"{method} <code>{escape(self.path)}</code>"

    @property
    def breakable(self) -> str:
        """The same; a narrow column may break the path behind a slash."""
        return self.name.replace("/", "/<wbr>").replace("</<wbr>", "</")

    @property
    def order(self) -> tuple[str, int]:
        """Its place in its group: by path, a parameter before words, then by method."""
        return self.path.replace("{", " "), METHODS.index(self.method)


def operations(document: Document) -> Iterator[Described]:
    """Yield the operations of a document."""
    for path, methods in document["paths"].items():
        common = methods.get("parameters", [])
        for method, operation in methods.items():
            if method in METHODS:
                listed = [*common, *operation.get("parameters", ())]
                yield Described(
                    method,
                    path,
                    operation,
                    [resolved(one, document) for one in listed],
                    {
                        status: resolved(one, document)
                        for status, one in operation["responses"].items()
                    },
                )


def resolved(part: Document, document: Document) -> Document:
    """Return a part of a document, or the part that it refers to."""
    if "$ref" not in part:
        return part
    found: Any = document
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return {**found, **{name: value for name, value in part.items() if name != "$ref"}}


def section(one: Described, document: Document, root: str, shared: list[str]) -> str:
    """Return an operation as HTML.

    Args:
        one: the operation.
        document: the document with the shared parts.
        root: the URL prefix of the application.
        shared: names of headers that every response has.
    """
    operation = one.operation
    schemas = document["components"]["schemas"]
    content = resolved(operation.get("requestBody", {}), document).get("content", {})
    # Not the fields of problems, which every operation has.
    bodies = [response for status, response in one.responses.items() if status[0] == "2"]
    words = {
        *(one.method, one.path, operation["operationId"], operation["summary"], one.tag),
        *(parameter["name"] for parameter in one.parameters),
        *field_names([operation.get("requestBody"), *bodies], schemas),
    }
    return (
        f'<details class=operation id="{one.identity}" data-words="{words_of(words)}">'
        f"<summary>{one.name} <span>{phrase(operation['summary'])}</span></summary>"
        f'<form novalidate data-method="{one.method.upper()}" data-path="{escape(one.path)}"'
        f' data-type="{escape(next(iter(content), ""))}"><div class=told>'
        + prose(operation.get("description", ""))
        + docs_form.parameters(one.identity, one.parameters, schemas)
        + docs_form.body(one.identity, content)
        + _responses(one, shared)
        + "</div><div class=tried><div class=request><h3>Request</h3>"
        "<button type=button class='quiet needs-script' data-copy>Copy</button>"
        f"<pre tabindex=0 role=group aria-label='The request as a command'>"
        f"<code>{docs_form.curl(one.method, one.path, root, one.parameters, content)}</code></pre>"
        "<p class=needs-script><button class=primary>Send</button>"
        " <button type=button data-stop hidden>Stop</button></p></div>"
        "<div class='answer needs-script' hidden></div>"
        f"{_example(one)}</div></form></details>"
    )


def _example(one: Described) -> str:
    """Return the example of a successful answer as HTML, which a real answer replaces."""
    for status, response in one.responses.items():
        for content in response.get("content", {}).values():
            if status[0] == "2" and (text := docs_form.shown_example(content)):
                label = "Example of an answer"
                return (
                    f"<div class=example><h3>{label}</h3><pre tabindex=0 role=group"
                    f" aria-label='{label}'><code>{escape(text, quote=False)}</code></pre></div>"
                )
    return ""


def _responses(one: Described, shared: list[str]) -> str:
    """Return tables of the answers; those of errors are folded, since they are many."""
    good = {status: told for status, told in one.responses.items() if status < "400"}
    errors = {status: told for status, told in one.responses.items() if status >= "400"}
    listed = ", ".join(errors)
    return (
        f"<h3>Answers</h3>{_table(good, shared)}<details class=plain><summary>Errors: {listed}"
        f"</summary>{_table(errors, shared)}</details>"
    )


def _table(responses: dict[str, Document], shared: list[str]) -> str:
    rows = "".join(
        f"<tr><th scope=row><code class=s{status[0]}>{status}</code>"
        f"<td>{phrase(response['description'])}{_headers(response, shared)}<td>{_body(response)}"
        for status, response in responses.items()
    )
    return (
        "<table class=answers><thead><tr><th scope=col>Status<th scope=col>Meaning"
        f"<th scope=col>Body</thead><tbody>{rows}</tbody></table>"
    )


def _headers(response: Document, shared: list[str]) -> str:
    names = [name for name in response.get("headers", ()) if name not in shared]
    listed = ", ".join(f"<code>{escape(name)}</code>" for name in names)
    return f" <small class=muted>with {listed}</small>" if names else ""


def _body(response: Document) -> str:
    return " or ".join(
        dict.fromkeys(
            escape(media)
            if content["schema"].get("type") == "string"  # a file
            else kind(content["schema"])
            for media, content in response.get("content", {}).items()
        )
    )
