"""Our service with `SLOW_MS` of additional CPU per request, to test the check."""

import os
from time import perf_counter

from starlette.types import Receive, Scope, Send

from service.asgi import app as service

SECONDS = float(os.environ["SLOW_MS"]) / 1000


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        until = perf_counter() + SECONDS
        while perf_counter() < until:
            pass
    await service(scope, receive, send)
