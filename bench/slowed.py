"""Our service made slow on purpose, to see that the check notices: `SLOW_MS` of CPU a request."""

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
