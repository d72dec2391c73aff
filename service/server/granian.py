"""Run granian with one listening socket for all workers, and with our signal handling."""

import multiprocessing
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import MPServer

from service.server.processes import DRAIN_SECONDS, StopSignals
from service.server.sockets import BACKLOG, Listener
from service.settings import Settings

# Seconds for a complete request head.
HEAD_SECONDS = 75

# granian's loggers without handlers of their own: their lines go to our log, see logs.FOREIGN. It
# replaces whole tables of its configuration by these.
LOGGING: dict[str, dict[str, Any]] = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {}, "granian.access": {}},
}


def serve(settings: Settings, app: str, listener: Listener, stop: StopSignals) -> None:
    """Serve until the stop; `app` is the import path of the application factory."""
    if sys.platform == "linux":  # Python 3.14 has another default
        multiprocessing.set_start_method("fork", force=True)
    Granian(
        listener,
        stop,
        app,
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        # Limit of connections, idle ones included; above it a worker accepts no more.
        backpressure=BACKLOG,
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_SECONDS * 1000),
        log_level=LogLevels.warning,
        log_dictconfig=LOGGING,
        ssl_cert=None if settings.certfile is None else Path(settings.certfile),
        ssl_key=None if settings.keyfile is None else Path(settings.keyfile),
        ssl_protocol_min=SSLProtocols.tls12,  # as Python's default; granian's is 1.3
        # Without this, one dead worker ends all workers.
        respawn_failed_workers=True,
        respawn_interval=0.5,
        workers_kill_timeout=DRAIN_SECONDS,
    ).serve()


class Granian(MPServer):
    """granian's server on our socket, with our stop signals; SIGHUP stops, it does not reload."""

    def __init__(self, listener: Listener, stop: StopSignals, target: str, **options: Any) -> None:
        super().__init__(target, **options)
        self.listener = listener
        self.stop = stop

    def _init_shared_socket(self) -> None:
        if sys.platform != "linux":
            self.listener.close()
            super()._init_shared_socket()
            return
        # granian on Linux opens a socket for each worker. When a worker ends, connections in its
        # queue are reset, and new connections can't be refused before.
        shared: Any = self  # the types of granian's attributes are for its own sockets
        shared._sso = self.listener.sockets[0]  # noqa: SLF001 - it is a subclass
        shared._sfd = shared._sso.fileno()  # noqa: SLF001
        shared._shd = SocketHolder(shared._sfd, False, BACKLOG)  # type: ignore[call-arg]  # noqa: SLF001 - no UNIX socket

    def signal_handler_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.stop.action = super().signal_handler_interrupt
        self.stop(number, frame)

    signal_handler_reload = signal_handler_interrupt

    def shutdown(self, exit_code: int = 0) -> None:
        self.listener.turn_away()
        for pause in self.listener.until_empty():
            time.sleep(pause)
        if self.stop.received:  # a worker that was stopped by another signal has not failed
            self.interrupt_children.clear()
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]  # granian has no types here
