"""The short way of most answers: sent in one call where our own server offers it (`READY`)."""

from service.db.database import Timing
from service.web.request import READY, Request
from service.web.wire import Header, Reply

# Headers that are about how an answer is sent: the long way reads them.
_FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})


def send_prebuilt(
    request: Request,
    reply: Reply,
    spent: Timing,
    took: float,
    body: bytes,
    headers: tuple[Header, ...],
) -> bool:
    """Send an answer with a body as one piece instead of two messages: 4 us less.

    Args:
        request: what is answered.
        reply: its status, content type and cache control are sent.
        spent: in the database.
        took: seconds, all in all.
        body: the reply's, compressed or not.
        headers: the others of the reply.

    Returns:
        Whether it was sent; else it must be sent by the messages of ASGI.
    """
    scope = request.scope
    if reply.status not in (200, 201) or reply.chunks is not None or scope["method"] == "HEAD":
        return False
    ready = scope["extensions"].get(READY) if "extensions" in scope else None
    if ready is None:
        return False
    for pair in headers:
        if pair[0] in _FRAMING:
            return False
    lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
    breaks = len(headers)
    if lines.count(b"\n") != breaks or lines.count(b"\r") != breaks or 0 in lines:
        return False  # the long way tells what is wrong
    sent: bool = ready(
        b"x-request-id: %b\r\nx-process-time: %.6f\r\n"
        b'server-timing: db;dur=%.3f;desc="%d statements", total;dur=%.3f\r\n'
        b"cache-control: %b\r\n%bcontent-type: %b\r\ncontent-length: %d"
        % (
            request.id.encode(),
            took,
            spent.seconds * 1000,
            spent.statements,
            took * 1000,
            reply.cache_control,
            lines,
            reply.content_type,
            len(body),
        ),
        body,
        reply.status,
    )
    return sent
