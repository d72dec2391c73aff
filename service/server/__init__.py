"""Run the service with uvicorn or granian and a number of workers, until a stop signal."""

import contextlib
import errno
import http.client
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from service.server.loading import load
from service.server.port_user import program_of
from service.server.processes import (
    DRAIN_SECONDS,
    ServerError,
    StopSignals,
    follow_parent,
    supervise,
)
from service.server.sockets import Listener
from service.settings import Settings

if TYPE_CHECKING:
    from service.app import Application

__all__ = [
    "DRAIN_SECONDS",
    "ServerError",
    "StopSignals",
    "answers",
    "bind",
    "free_port",
    "run",
    "worker",
]


# Open files per process, if the system allows so many.
OPEN_FILES = 65_536
APP = "service.server:worker"  # for granian, whose workers load it by name


def bind(settings: Settings) -> Listener:
    """Bind the address, before anything is started.

    Raises:
        ServerError: the address can't be bound.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        return Listener(settings.host, settings.port)
    except UnicodeError:  # a name with an empty label, or a label of more than 63 characters
        raise ServerError(f"can't listen on {where} (not a host name); try --host") from None
    except OSError as error:
        host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        option = "--host" if host else "--port"
        user = program_of(settings.port) if error.errno == errno.EADDRINUSE else None
        why = f"{error.strerror} by {user}" if user else error.strerror
        raise ServerError(f"can't listen on {where} ({why}); try {option}") from None


def run(
    app: "Application", listener: Listener, ready: Callable[[], None], stop: StopSignals
) -> None:
    """Serve an application with its settings; call `ready` when the address answers.

    Raises:
        ServerError: no worker starts.
    """
    from service.app_state import before_fork

    _allow_connections()
    if app.settings.workers > 1:
        before_fork(app)
    if app.settings.server == "granian":
        _granian(app.settings, listener, ready, stop)
    else:
        _uvicorn(app, listener, ready, stop)


def _allow_connections() -> None:
    """Raise the limit of open files, each of which is a connection, as far as we may.

    Many systems begin with 1,024: so many idle clients would keep out all others.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port(host: str) -> int:
    """Return a port that is free at the moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as probe:
        port: int = probe.getsockname()[1]
    return port


def _uvicorn(
    app: "Application", listener: Listener, ready: Callable[[], None], stop: StopSignals
) -> None:
    from service.server.uvicorn import Server, config

    app.alone = alone = app.settings.workers == 1
    # The application is built before the fork, so imports and compilation run once.
    made = config(app, app.settings.certfile, app.settings.keyfile)

    def serve(up: Callable[[], None]) -> None:
        Server(made, listener, up, stop, alone=alone).run()

    if alone:
        with stop.bounded():
            serve(ready)
    else:
        supervise(app.settings.workers, serve, listener, ready, stop)


def worker() -> "Application":
    """Return the application of a granian worker, with settings from the environment."""
    follow_parent()
    app = load(Settings.load().app)
    # A fork has it imported already, with other settings.
    app.settings = type(app.settings).load()
    app.alone = app.settings.workers == 1
    return app


def _granian(
    settings: Settings, listener: Listener, ready: Callable[[], None], stop: StopSignals
) -> None:
    from service.server.granian import serve

    # granian's workers read all settings from environment variables.
    os.environ.update(settings.environ())
    stopped = threading.Event()
    waiting = threading.Thread(target=_announce, args=(settings, ready, stopped), daemon=True)
    waiting.start()
    try:
        serve(settings, APP, listener, stop)
    except SystemExit as exit_:
        if exit_.code not in (None, 0):
            raise ServerError("the server stopped; the lines above say why") from None
    finally:
        stopped.set()


def _announce(settings: Settings, ready: Callable[[], None], stopped: threading.Event) -> None:
    while not stopped.is_set():
        if answers(settings):
            ready()
            return
        time.sleep(0.02)


def answers(settings: Settings) -> bool:
    """Return whether a service answers at the address, within a second."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - only named here
    connection = _connection(host, settings)
    try:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        # Another program may answer too; the header is on each of our responses.
        return answer.status == 200 and answer.getheader("x-process-time") is not None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _connection(host: str, settings: Settings) -> http.client.HTTPConnection:
    if settings.certfile is None:
        return http.client.HTTPConnection(host, settings.port, timeout=1)
    # It asks only whether this process answers; the certificate is for other names than this.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, settings.port, timeout=1, context=context)
