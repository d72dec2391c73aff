"""The headers of every response: nosniff, request id, times and Cache-Control."""

import itertools
import os
import re
import secrets

# A client may store a response and must revalidate it; a shared cache must not store it.
PRIVATE = b"private, no-cache"

_VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
# Unique without a system call per request: a random prefix per process, then a counter.
_numbers = itertools.count(1)
_process = [secrets.token_hex(6)]
# granian's workers are forks of one process.
os.register_at_fork(after_in_child=lambda: _process.__setitem__(0, secrets.token_hex(6)))

# A browser must not guess another Content-Type, such as HTML in the description of an item.
NOSNIFF = (b"x-content-type-options", b"nosniff")
# For a browser that has used HTTPS once: a year without HTTP. Sent only with TLS of our own.
HSTS = (b"strict-transport-security", b"max-age=31536000")

# The header lines of every response. The placeholders are the request id, the time in seconds, the
# time in the database in milliseconds, the number of statements, and the time in milliseconds.
LINES = (
    b"x-content-type-options: nosniff\r\nx-request-id: %b\r\nx-process-time: %.6f\r\n"
    b'server-timing: db;dur=%.3f;desc="%d statements", total;dur=%.3f'
)
# The same without the database: the request id, and the time in seconds and in milliseconds.
LINES_OF_HIT = LINES.replace(b"dur=%.3f;", b"dur=0.000;").replace(b"%d", b"0")


def request_id(given: bytes | None) -> str:
    """Return the client's id if it has 1 to 128 visible ASCII characters, else a new one."""
    if given is not None and _VISIBLE.fullmatch(given):
        return given.decode("ascii")
    return f"{_process[0]}-{next(_numbers):x}"


def standard_headers(
    request_id: str, seconds: float, statements: int = 0, database_seconds: float = 0.0
) -> list[tuple[bytes, bytes]]:
    """Return the header lines of every response, like LINES.

    Args:
        request_id: see `request_id`.
        seconds: time from the request to the response.
        statements: number of statements that it ran.
        database_seconds: time that it waited for them.
    """
    return [
        NOSNIFF,
        (b"x-request-id", request_id.encode()),
        (b"x-process-time", b"%.6f" % seconds),
        (
            b"server-timing",
            b'db;dur=%.3f;desc="%d statements", total;dur=%.3f'
            % (database_seconds * 1000, statements, seconds * 1000),
        ),
    ]
