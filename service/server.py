"""The two servers, with flags that are safe for production (research/reliability.md, G)."""

import http.client
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

from starlette.types import ASGIApp

from service.app import create_app
from service.settings import Settings

APP = "service.server:worker"
BACKLOG = 4096
# An idle connection is closed after this long; a proxy in front must give up on it earlier.
KEEP_ALIVE_SECONDS = 75
# What is under way at SIGTERM may finish.
DRAIN_SECONDS = 20


class ServerError(Exception):
    """The server can't run; the message says what to do."""


def worker() -> ASGIApp:
    """The application of one worker, which ends when the process that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()
    settings = Settings.load()
    return create_app(settings, alone=settings.workers == 1)


def run(settings: Settings, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; `ready` is called once the address answers.

    Raises:
        ServerError: the port is taken, or the workers don't come up.
    """
    _check_port(settings)
    # Workers are new processes: what was read, joined and started reaches them as variables.
    os.environ.update(settings.environ())
    stopped = threading.Event()
    waiting = threading.Thread(target=_announce, args=(settings, ready, stopped), daemon=True)
    waiting.start()
    try:
        if settings.server == "granian":
            _granian(settings)
        else:
            _uvicorn(settings)
    except SystemExit as exit_:
        if exit_.code not in (None, 0):
            raise ServerError("the server stopped; the lines above say why") from None
    finally:
        stopped.set()


def free_port(host: str) -> int:
    """A port that is free at the moment, for `--port 0`."""
    with socket.create_server((host, 0), family=_family(host)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _granian(settings: Settings) -> None:
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server import Server

    Server(
        APP,
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
        http1_settings=HTTP1Settings(header_read_timeout=KEEP_ALIVE_SECONDS * 1000),
        log_level=LogLevels.warning,
        # Without it one dead worker ends them all.
        respawn_failed_workers=True,
        respawn_interval=0.5,
        workers_kill_timeout=DRAIN_SECONDS,
    ).serve()


def _uvicorn(settings: Settings) -> None:
    import uvicorn

    from service.http1.connection import Connection

    # uvicorn raises the signal that stopped it once more when it is done; by then it has been
    # obeyed, and what this process started has yet to be stopped.
    before = [
        (number, signal.signal(number, _obeyed)) for number in (signal.SIGTERM, signal.SIGINT)
    ]
    try:
        uvicorn.run(
            APP,
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            loop="uvloop",
            http=Connection,
            ws="none",
            lifespan="on",
            backlog=BACKLOG,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _obeyed(number: int, frame: FrameType | None) -> None:
    """A signal that has had its effect."""


def _follow(wait: Callable[[], None]) -> None:
    wait()
    os._exit(1)


def _check_port(settings: Settings) -> None:
    """Both servers share a port with whoever has it (SO_REUSEPORT), so ask without sharing."""
    try:
        with socket.create_server(
            (settings.host, settings.port), family=_family(settings.host), backlog=1
        ):
            return
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise ServerError(f"can't listen on {where} ({error.strerror}); try --port") from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _announce(settings: Settings, ready: Callable[[], None], stopped: threading.Event) -> None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - only named here
    while not stopped.is_set():
        connection = http.client.HTTPConnection(host, settings.port, timeout=1)
        try:
            connection.request("GET", "/health/live")
            if connection.getresponse().status == 200:
                ready()
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        finally:
            connection.close()
