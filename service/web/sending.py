"""The parts of a response that every operation has: messages of ASGI, errors, the trace."""

from starlette.types import Send

from service.errors import JSON as PROBLEM
from service.errors import Failed, Problem
from service.logs import logger
from service.timing import Timing
from service.traceparent import TRACEPARENT, TRACERESPONSE, trace_response
from service.web.codec import Header, Reply
from service.web.request import Request


def trace_headers(spent: Timing) -> tuple[Header, ...]:
    """Return the header that says which trace a request belongs to; none if it belongs to none."""
    if spent.span is not None:
        return ((TRACERESPONSE, spent.span.header.encode()),)
    said = trace_response(spent.request.header(TRACEPARENT))
    return () if said is None else ((TRACERESPONSE, said),)


async def send_messages(
    send: Send, method: str, reply: Reply, body: bytes, headers: list[Header]
) -> None:
    """Send a response in the messages of ASGI."""
    if reply.status in (204, 304):
        body = b""
    else:
        headers.append((b"content-type", reply.content_type))
        if reply.chunks is None:
            headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if reply.chunks is not None and method != "HEAD":
        await reply.chunks.send(send)
    else:
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


def failure(error: BaseException, request: Request) -> Reply:
    """Return the problem document for an error.

    The only place that catches bugs: log the traceback, show the client nothing of it.
    """
    if isinstance(error, Problem):
        problem = error
    else:
        fields = {"method": request.scope["method"], "path": request.path}
        logger.error("request failed", exc_info=error, extra={"fields": fields})
        problem = Failed("something went wrong on our side")
    return Reply(problem.body(request.id), problem.status, problem.headers, PROBLEM)
