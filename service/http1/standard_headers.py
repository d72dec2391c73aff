"""The headers of every response: its request's id, what it took, and who may store it."""

import itertools
import os
import re
import secrets

# A client may keep a response and asks each time whether it is still valid; a shared cache may not.
PRIVATE = b"private, no-cache"

_VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
# Unique without a system call per request: random per process, counted within it.
_numbers = itertools.count(1)
_process = [secrets.token_hex(6)]
# granian's workers are forks of one process.
os.register_at_fork(after_in_child=lambda: _process.__setitem__(0, secrets.token_hex(6)))

# The same as lines. Fill in the request's id, its time in s, the time in the database in ms, the
# statements, and the time of the request in ms.
LINES = (
    b"x-request-id: %b\r\nx-process-time: %.6f\r\n"
    b'server-timing: db;dur=%.3f;desc="%d statements", total;dur=%.3f'
)
# For a response that needed no database: the request's id, its time in s and in ms.
LINES_OF_HIT = LINES.replace(b"dur=%.3f;", b"dur=0.000;").replace(b"%d", b"0")


def request_id(given: bytes | None) -> str:
    """The client's own id, if it is 1 to 128 visible ASCII characters; else a new one."""
    if given is not None and _VISIBLE.fullmatch(given):
        return given.decode("ascii")
    return f"{_process[0]}-{next(_numbers):x}"


def standard_headers(
    request_id: str, seconds: float, statements: int = 0, database_seconds: float = 0.0
) -> list[tuple[bytes, bytes]]:
    """The request's id and the times, as LINES has them.

    Args:
        request_id: see `request_id`.
        seconds: from the request to the response.
        statements: of the database that it ran.
        database_seconds: that it waited for them.
    """
    return [
        (b"x-request-id", request_id.encode()),
        (b"x-process-time", b"%.6f" % seconds),
        (
            b"server-timing",
            b'db;dur=%.3f;desc="%d statements", total;dur=%.3f'
            % (database_seconds * 1000, statements, seconds * 1000),
        ),
    ]
