"""Headers that the settings add to every response, in whatever way it is sent."""

from starlette.types import Message, Scope, Send

from service.http1.extensions import SEND_PREBUILT
from service.http1.standard_headers import NOSNIFF
from service.web.codec import Header

# In a scope: the added headers.
ADDED = "swiftlet.added_headers"


class AddedHeaders:
    """Adds the same headers to every response; a subclass may choose them per request."""

    def __init__(self, *headers: Header) -> None:
        self.always = _with_lines(headers)

    def of(self, scope: Scope) -> tuple[tuple[Header, ...], bytes]:
        """Return the headers for a request, also as lines without the last CR LF."""
        del scope
        return self.always

    def prepare(self, scope: Scope) -> None:
        """Add the headers to what SEND_PREBUILT sends. A second call changes nothing."""
        if ADDED in scope:
            return
        scope[ADDED], lines = self.of(scope)
        extensions = scope.get("extensions") or {}
        ready = extensions.get(SEND_PREBUILT)
        if ready is None:
            return

        def send(others: bytes, body: bytes, status: int = 200) -> bool:
            sent: bool = ready(b"%b\r\n%b" % (others, lines), body, status)
            return sent

        scope["extensions"] = {**extensions, SEND_PREBUILT: send}

    def wrap(self, scope: Scope, send: Send) -> Send:
        """Prepare a request, and return a `send` that adds the headers to the messages."""
        self.prepare(scope)
        return with_added(scope, send)


def with_added(scope: Scope, send: Send) -> Send:
    """Return a `send` that adds the headers with which the scope was prepared, if it was."""
    added = scope.get(ADDED)
    if added is None:
        return send

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)

    return adding


def with_nosniff(send: Send) -> Send:
    """Return a `send` that adds NOSNIFF to a response without it, as from a Starlette route."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if all(name.lower() != NOSNIFF[0] for name, _ in headers):
                message["headers"] = [*headers, NOSNIFF]
        await send(message)

    return adding


def _with_lines(headers: tuple[Header, ...]) -> tuple[tuple[Header, ...], bytes]:
    return headers, b"\r\n".join(b": ".join(pair) for pair in headers)
