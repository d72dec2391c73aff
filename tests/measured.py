"""A server that counts the CPU time of its event loop; run as `python measured.py PORT`.

GET /measured returns two numbers since the last call: the CPU seconds of the longest iteration of
the loop, and those of the process. CPU time, not the clock, so a busy machine makes no difference.
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from service.asgi import built_in
from service.http1.connection import Connection
from service.settings import Settings


class Loop(asyncio.SelectorEventLoop):
    """The loop of asyncio: iterations of uvloop can't be measured from outside."""

    longest = 0.0

    def _run_once(self) -> None:
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc]  # asyncio does not document it
        self.longest = max(self.longest, time.thread_time() - began)


def measured(app: ASGIApp) -> ASGIApp:
    spent = time.process_time()

    async def with_figures(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal spent
        if scope.get("path") != "/measured":
            await app(scope, receive, send)
            return
        loop: Any = asyncio.get_running_loop()
        before, spent = spent, time.process_time()
        figures = {"longest": loop.longest, "cpu": spent - before}
        loop.longest = 0.0
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(figures).encode()})

    return with_figures


def main(port: int) -> None:
    app = built_in(Settings.load())
    app.alone = True
    config = uvicorn.Config(
        measured(app),
        port=port,
        http=Connection,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
