"""granian as we run it: one listening socket for all workers, and our signals."""

import multiprocessing
import sys
import time
from types import FrameType
from typing import Any, cast

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LOGGING_CONFIG, LogLevels
from granian.server import MPServer

from service.server.listener import BACKLOG, Listener
from service.server.processes import DRAIN_SECONDS, StopSignals
from service.settings import Settings

# A whole request head must come within this time.
HEAD_SECONDS = 75

# Its own lines go to stderr, as ours do; by itself it writes them to stdout.
LOGGING = {
    "handlers": {
        name: handler | {"stream": "ext://sys.stderr"}
        for name, handler in cast("dict[str, dict[str, str]]", LOGGING_CONFIG["handlers"]).items()
    }
}


def serve(settings: Settings, app: str, listener: Listener, stop: StopSignals) -> None:
    """Serve until the stop; `app` names what makes the application of a worker."""
    if sys.platform == "linux":  # from Python 3.14 on the default is another
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
        # Counts connections, idle ones too: above it a worker accepts nobody.
        backpressure=BACKLOG,
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_SECONDS * 1000),
        log_level=LogLevels.warning,
        log_dictconfig=LOGGING,
        # Without it one dead worker ends them all.
        respawn_failed_workers=True,
        respawn_interval=0.5,
        workers_kill_timeout=DRAIN_SECONDS,
    ).serve()


class Granian(MPServer):
    """granian's server on our socket, stopped by our signals; SIGHUP is one of them, no reload."""

    def __init__(self, listener: Listener, stop: StopSignals, target: str, **options: Any) -> None:
        super().__init__(target, **options)
        self.listener = listener
        self.stop = stop

    def _init_shared_socket(self) -> None:
        if sys.platform != "linux":
            self.listener.close()
            super()._init_shared_socket()
            return
        # Its own way on Linux is a socket for each worker: whoever waits in the queue of one that
        # ends is reset, and new connections can't be turned away before.
        shared: Any = self  # granian's attributes have the types of its own way
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
        if self.stop.received:  # a worker that was told by others to stop has not failed
            self.interrupt_children.clear()
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]  # granian leaves it so
