"""Responses that the application does not make: to what is no request, and after its failure."""

from typing import TYPE_CHECKING

from service.errors import JSON, Problem
from service.http1.standard_headers import PRIVATE, request_id, standard_headers
from service.http1.status_lines import beginning

if TYPE_CHECKING:
    from service.http1.request_cycle import Wire


def answer(problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of a problem outside of the application."""
    new_id = request_id(None)
    body = problem.body(new_id)
    return [
        *standard_headers(new_id, 0.0),
        (b"cache-control", PRIVATE),
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
    ], body


def refusal(connection: "Wire", problem: Problem, method: str) -> bytes:
    """Return the response to a request that can't be parsed, and count it."""
    metrics = connection.app_state.get("metrics")
    if metrics is not None:
        metrics.refused(problem.status)
    headers, body = answer(problem)
    start = beginning(problem.status, connection.server_state.default_headers)
    lines = [start, *(b": ".join(pair) for pair in headers)]
    return b"\r\n".join([*lines, b"connection: close", b"", b"" if method == "HEAD" else body])
