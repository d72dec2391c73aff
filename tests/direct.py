"""Ask an application for an answer without a task, as our own HTTP server does."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from service.http1.extensions import SEND_PREBUILT
from service.http1.head import Head


class Cycle:
    """A request on its connection, made of a scope of ASGI; it is its own connection."""

    more = lost = False
    blocked = None

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = tuple(scope["headers"])
        names = frozenset(name for name, _ in headers)
        self.method: str = scope["method"]
        self.head = Head(
            self.method,
            "1.1",
            scope["raw_path"],
            scope["query_string"],
            headers,
            names,
            length=0,
            keep=True,
            expects=False,
        )
        self.connection = self
        self.root_path: str = scope["root_path"]
        self.app_state: Any = scope["state"]
        self.receive = receive
        self.send = send
        self.finished = False
        self.answered = asyncio.Event()
        self._scope = scope
        self._ready = scope["extensions"][SEND_PREBUILT]
        scope["extensions"] = {**scope["extensions"], SEND_PREBUILT: self.ready}

    def scope(self) -> Any:
        """Return the scope that this was made of."""
        return self._scope

    def ready(self, lines: bytes, body: bytes, status: int = 200) -> bool:
        """Send a whole response."""
        self.finished = bool(self._ready(lines, body, status))
        if self.finished:
            self.answered.set()
        return self.finished

    def complete(self, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Return it: the test sees its error."""
        return work

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what the application can't do at once."""
        self.task = asyncio.create_task(work)
        self.task.add_done_callback(lambda _: self.answered.set())


async def answered_directly(app: Any, scope: Any, receive: Any = None, send: Any = None) -> bool:
    """Return whether the application answered without a task; wait for its answer."""
    cycle = Cycle(scope, receive, send)
    if not app.direct(cycle):
        return False
    async with asyncio.timeout(10):
        await cycle.answered.wait()
    return True
