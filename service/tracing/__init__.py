"""The trace that a request belongs to, for calls to other services, and its spans."""

from service.timing import timing
from service.traceparent import parse_state

__all__ = ["outgoing_headers"]


def outgoing_headers() -> dict[str, str]:
    """Return the headers that a call to another service has, so that it joins the trace.

    They are for the request that runs in this context; without one, or if it belongs to no trace,
    there are none. Without spans of our own the caller's headers are passed on unchanged.
    """
    spent = timing.get()
    if spent is None:
        return {}
    if spent.span is not None:
        return dict(spent.span.outgoing())
    caller = spent.caller
    if caller is None:
        return {}
    headers = {"traceparent": str(caller)}
    state = parse_state(spent.request.header(b"tracestate"))
    return {**headers, "tracestate": state} if state else headers
