"""The embedded Redis or Valkey: not persistent, and optional."""

import signal
import socket
import time
from pathlib import Path

from service.embedded.children import Child, ChildEnvironment
from service.embedded.data_directory import DataDirectory
from service.embedded.programs import find_redis, version
from service.embedded.watch import Watch
from service.logs import logger

STARTING = 10.0  # seconds until the first answer; 0.04 is usual

REDIS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",  # a cache needs no persistence
    "appendonly": "no",
    "maxmemory": "64mb",
    "maxmemory-policy": "allkeys-lru",
    "logfile": "",  # stdout, which we open: the server may have no access to the data directory
    "daemonize": "no",
}


def start(directory: DataDirectory, server: Path | None, watch: Watch | None = None) -> str | None:
    """Start Redis or Valkey and return its URL; None, with a note, when it is not available.

    `watch` gets the process.
    """
    server = server or find_redis()
    if server is None:
        directory.notes.append("no Redis or Valkey found: the service runs without")
        return None
    logger.info("starting %s", title(server))
    environment = ChildEnvironment(directory.run, directory.account)
    address = directory.run / "redis.sock"
    settings = REDIS | {"unixsocket": str(address), "dir": str(directory.run)}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    log = directory.data / "redis.log"

    def launch() -> Child:
        program = str(environment.of(server, server.parent, "redis"))
        child = Child([program, *words], environment, log, dies_by=signal.SIGTERM)
        directory.held.callback(child.stop, (signal.SIGTERM, 5.0))
        return child

    try:
        child = launch()
    except OSError as error:
        reason = f"{server} does not start ({error.strerror})"
        directory.notes.append(f"{reason}: the service runs without")
        return None
    give_up = time.monotonic() + STARTING
    while child.process.poll() is None and time.monotonic() < give_up:
        if _pongs(address):
            if watch is not None:
                watch.add(_name(server), child, launch)
            return f"unix://{address}"
        time.sleep(0.005)
    child.stop()
    directory.notes.append(f"{server} does not start (see {log}): the service runs without")
    return None


def title(server: Path | None = None) -> str:
    """Return the name and version of a server's program, by default of the one that is found."""
    server = server or find_redis()
    return f"{_name(server)} {version(server) or ''}".rstrip() if server else ""


def _name(server: Path) -> str:
    return "Valkey" if "valkey" in server.name else "Redis"


def _pongs(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(address))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False
