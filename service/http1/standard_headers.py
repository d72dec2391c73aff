"""The headers of every response: nosniff, request id, times and Cache-Control."""

import itertools
import os
import re
import secrets

from service.timing import Timing

# A client may store a response and must revalidate it; a shared cache must not store it.
PRIVATE = b"private, no-cache"

_VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
# Unique without a system call per request: a random prefix per process, then a counter.
_numbers = itertools.count(1)
_process = [secrets.token_hex(6).encode()]
# granian's workers are forks of one process.
os.register_at_fork(after_in_child=lambda: _process.__setitem__(0, secrets.token_hex(6).encode()))

# A browser must not guess another Content-Type, such as HTML in the description of an item.
NOSNIFF = (b"x-content-type-options", b"nosniff")
# For a browser that has used HTTPS once: a year without HTTP. Sent only with TLS of our own.
HSTS = (b"strict-transport-security", b"max-age=31536000")

# The header lines of every response. The placeholders are the request id, the time in seconds, and
# the times of SERVER_TIMING.
LINES = b"x-content-type-options: nosniff\r\nx-request-id: %b\r\nx-process-time: %.6f\r\n"
# In milliseconds: waits for a batch and for a connection, statements and their number, cache,
# encoding, and all together.
SERVER_TIMING = (
    b'queue;dur=%.3f, pool;dur=%.3f, sql;dur=%.3f;desc="%d statements", cache;dur=%.3f,'
    b" encode;dur=%.3f, total;dur=%.3f"
)
LINES += b"server-timing: " + SERVER_TIMING
# A hit of the cache has only these: the request id, the time in seconds, and twice in milliseconds.
LINES_OF_HIT = (
    b"x-content-type-options: nosniff\r\nx-request-id: %b\r\nx-process-time: %.6f\r\n"
    b'server-timing: queue;dur=0.000, pool;dur=0.000, sql;dur=0.000;desc="0 statements",'
    b" cache;dur=%.3f, encode;dur=0.000, total;dur=%.3f"
)
# The response of a row that a batch has read: the request id, the time in seconds; in milliseconds
# the wait for the batch, `shared` of its BatchTiming, the cache, encoding, and all together.
LINES_OF_ROW = (
    b"x-content-type-options: nosniff\r\nx-request-id: %b\r\nx-process-time: %.6f\r\n"
    b"server-timing: queue;dur=%.3f, %b, cache;dur=%.3f, encode;dur=%.3f, total;dur=%.3f"
)


def new_request_id() -> bytes:
    """Return an id for a request without one."""
    return b"%b-%x" % (_process[0], next(_numbers))


def request_id(given: bytes | None) -> str:
    """Return the client's id if it has 1 to 128 visible ASCII characters, else a new one."""
    if given is not None and _VISIBLE.fullmatch(given):
        return given.decode("ascii")
    return new_request_id().decode()


def server_timing(spent: Timing, seconds: float) -> tuple[float, ...]:
    """Return the values of SERVER_TIMING for a request that took so many seconds."""
    return (
        spent.queue * 1000,
        spent.pool * 1000,
        spent.sql * 1000,
        spent.statements,
        spent.cache * 1000,
        spent.encode * 1000,
        seconds * 1000,
    )


def standard_headers(
    request_id: str, seconds: float, spent: Timing | None = None
) -> list[tuple[bytes, bytes]]:
    """Return the header lines of every response, like LINES.

    Args:
        request_id: see `request_id`.
        seconds: time from the request to the response.
        spent: its parts; None if it was refused before it ran.
    """
    return [
        NOSNIFF,
        (b"x-request-id", request_id.encode()),
        (b"x-process-time", b"%.6f" % seconds),
        (b"server-timing", SERVER_TIMING % server_timing(spent or Timing(), seconds)),
    ]
