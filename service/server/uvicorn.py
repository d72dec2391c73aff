"""Run uvicorn with our HTTP protocol, our listening sockets and our signal handling."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.lifespan.on import LifespanOn

from service.http1.connection import Connection
from service.http1.standard_headers import HSTS
from service.server.processes import DRAIN_SECONDS, ServerError, StopSignals
from service.server.sockets import BACKLOG, Listener

# Seconds until an idle connection is closed; a proxy in front must have a shorter timeout.
KEEP_ALIVE_SECONDS = 75


class Lifespan(LifespanOn):
    """uvicorn's lifespan; it also keeps the reason why the application does not start."""

    failure = ""

    async def send(self, message: Any) -> None:
        if message["type"] == "lifespan.startup.failed":
            *_, self.failure = message.get("message", "").strip().split("\n")
        await super().send(message)


def config(app: ASGIApp, certfile: str | None = None, keyfile: str | None = None) -> uvicorn.Config:
    """Return the configuration for any number of workers, with TLS if there is a certificate."""
    made = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
        headers=[] if certfile is None else [(HSTS[0].decode(), HSTS[1].decode())],
    )
    made.load()
    made.get_loop_factory()  # imports uvloop, so that workers share its memory
    made.lifespan_class = Lifespan
    return made


class Server(uvicorn.Server):
    """A server process on `listener`; it calls `ready` when it answers.

    `alone` says that no other process serves on the same sockets, so this one refuses new
    connections when it stops.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: Listener,
        ready: Callable[[], None],
        stop: StopSignals,
        *,
        alone: bool,
    ) -> None:
        super().__init__(config)
        self.listener = listener
        self.ready = ready
        self.stop = stop
        self.alone = alone

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the stop.

        Raises:
            ServerError: the application does not start, or the address can't be bound.
        """
        try:
            super().run(sockets or self.listener.sockets)
        except SystemExit:  # uvicorn exits when the application does not start
            raise ServerError(f"the application does not start: {self.lifespan.failure}") from None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:
            raise ServerError(f"can't listen on port {self.listener.port}: {error}") from None
        if not self.should_exit:
            self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer connections that the kernel has accepted, refuse later ones."""
        if self.alone:
            self.listener.turn_away()
        for pause in self.listener.until_empty():
            await asyncio.sleep(pause)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Replaces uvicorn's handlers, which raise each signal again at the end.
        self.stop.action = self._exit
        if self.stop.received:
            self._exit()
        yield

    def _exit(self) -> None:
        self.should_exit = True
