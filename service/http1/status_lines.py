"""The first lines of a response: its status, and what the server adds to every response."""

from http import HTTPStatus

# Cache by status, for the headers that uvicorn renews every second (with the date).
_beginnings: dict[int, bytes] = {}
_made_for: list[object] = [None]


def beginning(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the first lines of a response, without the last CR LF.

    `headers` are those that uvicorn adds to every response.
    """
    if headers is not _made_for[0]:
        _made_for[0] = headers
        _beginnings.clear()
    found = _beginnings.get(status)
    if found is None:
        lines = [status_line(status), *(b": ".join(pair) for pair in headers)]
        found = _beginnings[status] = b"\r\n".join(lines)
    return found


def status_line(status: int) -> bytes:
    """Return the status line, without CR LF."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    return b"HTTP/1.1 %d %b" % (status, phrase.encode())
