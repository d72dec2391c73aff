"""The trace that a request belongs to: for calls to other services, and its spans.

Spans need OpenTelemetry, which only `tracer` and `spans` import: `swiftlet[otel]`.
"""

from typing import TYPE_CHECKING

from service.settings import SettingsError
from service.timing import timing
from service.traceparent import parse_state

if TYPE_CHECKING:
    from service.tracing.tracer import Tracer

__all__ = ["check", "opened", "outgoing_headers"]


def check(setting: str) -> None:
    """Check that spans can be recorded, if SERVICE_TRACES says so.

    Raises:
        SettingsError: OpenTelemetry is not installed, or a variable OTEL_* has a wrong value.
    """
    if setting == "off":
        return
    try:
        from service.tracing.tracer import Tracer

        Tracer().provider.shutdown()
    except ValueError as error:
        raise SettingsError(f"SERVICE_TRACES=on, and a variable OTEL_… is wrong: {error}") from None
    except ImportError as error:
        raise SettingsError(
            f"SERVICE_TRACES=on needs OpenTelemetry ({error}): install swiftlet[otel]"
        ) from None


def opened(setting: str) -> "Tracer | None":
    """Return the tracer of this process, as SERVICE_TRACES says; None if traces are off."""
    if setting == "off":
        return None
    from service.tracing.tracer import Tracer

    return Tracer()


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
