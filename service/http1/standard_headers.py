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

# The lines of a response that needed no database; to be filled in are the request's id, and the
# time it took in s and in ms.
TEMPLATE = (
    b"x-request-id: %b\r\nx-process-time: %.6f\r\n"
    b'server-timing: db;dur=0.000;desc="0 statements", total;dur=%.3f'
)


def request_id(given: bytes | None) -> bytes:
    """The client's own id, if it is 1 to 128 visible ASCII characters; else a new one."""
    if given is not None and _VISIBLE.fullmatch(given):
        return given
    return b"%b-%x" % (_process[0].encode(), next(_numbers))


def standard_headers(
    request_id: bytes, seconds: float, statements: int = 0, database_seconds: float = 0.0
) -> list[tuple[bytes, bytes]]:
    """The request's id and the times, as TEMPLATE has them.

    Args:
        request_id: see `request_id`.
        seconds: from the request to the response.
        statements: of the database that it ran.
        database_seconds: that it waited for them.
    """
    timing = b'db;dur=%.3f;desc="%d statements", total;dur=%.3f'
    return [
        (b"x-request-id", request_id),
        (b"x-process-time", b"%.6f" % seconds),
        (b"server-timing", timing % (database_seconds * 1000, statements, seconds * 1000)),
    ]
