"""The supervisor of the embedded PostgreSQL and Redis: it creates, starts and stops them.

All persistent files are in one data directory:

    lock         locked while the supervisor runs; its process id and run directory
    postgres/    the cluster; postgres.new/ during its creation
    stores.json  the addresses, for `join`; exists while the stores are ready
    secret       64 hex characters
    postgres.log, redis.log

The sockets are in a private run directory elsewhere, since a socket path has at most 107 bytes.
There is no TCP port. The programs are child processes, not daemons. They end with this process,
also after kill -9: see `children`.
"""

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from service.embedded import postgres
from service.embedded import redis as redis_server
from service.embedded.data_directory import DataDirectory, Stores, holder, open_private
from service.embedded.programs import EmbeddedError
from service.embedded.watch import Watch

# A lock lasts while any process has the file open, so forked workers close it.
_locks: set[BinaryIO] = set()

if sys.platform != "win32":  # `_one_line_errors` refuses Windows
    import fcntl

    os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
JOINING = 60.0  # seconds for the lock holder to become ready


@contextmanager
def stores(
    data: Path,
    *,
    database: bool = True,
    redis: bool = True,
    join: bool = False,
    postgres_bin: Path | None = None,
    redis_binary: Path | None = None,
    settings: Mapping[str, str] = NO_SETTINGS,
    watch: Watch | None = None,
) -> Iterator[Stores]:
    """Run the stores of a data directory.

    Enter it in the main thread: on Linux the children end with the thread that started them.

    Args:
        data: the data directory.
        database: whether PostgreSQL is needed.
        redis: whether Redis is needed.
        join: use the stores of a running service on this directory, if there is one.
        postgres_bin: directory of PostgreSQL's programs; found when absent.
        redis_binary: path of the Redis server; found when absent.
        settings: settings of PostgreSQL that override ours.
        watch: gets the processes, to start them again.

    Raises:
        EmbeddedError: the stores can't be started; those already started are stopped.
    """
    with ExitStack() as held:
        with _one_line_errors(data):
            data = _directory(data)
            if database:
                _hide_libpq(held)
            claim = _claim(data, held, join=join)
            if isinstance(claim, Stores):
                running = _wanted(claim, database=database, redis=redis)
            else:
                directory = DataDirectory(data, claim, held)
                database_url = (
                    postgres.start(directory, postgres_bin, settings, watch) if database else None
                )
                redis_url = redis_server.start(directory, redis_binary, watch) if redis else None
                running = Stores(
                    database_url, redis_url, data, tuple(directory.notes), joined=False
                )
                directory.publish(running)
        yield running


@contextmanager
def attached(data: Path) -> Iterator[Stores | None]:
    """Yield the stores of the service that runs on a data directory; None if none runs.

    Nothing is started, created or locked.

    Raises:
        EmbeddedError: the files of the directory can't be read.
    """
    with ExitStack() as held:
        with _one_line_errors(data):
            data = data.resolve()
            _hide_libpq(held)
            found = None
            with suppress(FileNotFoundError), (data / "lock").open("rb") as lock:
                found = _published(data, holder(lock)[0])
        yield found


def secret(data: Path) -> str:
    """Return the 64 hex characters kept in `data`; the first call creates them."""
    with _one_line_errors(data), open_private(_directory(data) / "secret") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two concurrent first calls make one secret
        kept = file.read(1000).decode("ascii", "replace").strip()
        if not kept:
            kept = secrets.token_hex(32)
            file.write(kept.encode())
            os.fsync(file.fileno())
        if not re.fullmatch("[0-9a-f]{64}", kept):
            raise EmbeddedError(f"{file.name} must hold 64 hex characters: correct or remove it")
        return kept


@contextmanager
def _one_line_errors(data: Path) -> Iterator[None]:
    """Turn errors of the operating system into one line."""
    if sys.platform == "win32":
        raise EmbeddedError("no embedded stores on Windows: set DATABASE_URL (and REDIS_URL)")
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            f"can't use {error.filename or data}: {error.strerror or error}:"
            " check it, or give another --data"
        ) from error


def _hide_libpq(held: ExitStack) -> None:
    """Remove PGSSLMODE, PGOPTIONS and the like from the environment: they are for other servers."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        held.callback(os.environ.__setitem__, name, os.environ.pop(name))


def _directory(data: Path) -> Path:
    """Create the data directory if it is missing; rights of existing directories stay."""
    data = data.resolve()
    if data.exists() and not data.is_dir():
        raise EmbeddedError(f"{data} is a file: give a directory with --data")
    if not data.exists():
        data.mkdir(parents=True, exist_ok=True)
        # 0711 for root: PostgreSQL runs as another user and must traverse it.
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return data


def _claim(data: Path, held: ExitStack, *, join: bool) -> BinaryIO | Stores:
    """Return the lock of the data directory, or with `join` the stores of its holder."""
    lock = held.enter_context(open_private(data / "lock"))
    give_up = time.monotonic() + JOINING
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, _ = holder(lock)
        else:
            _locks.add(lock)
            held.callback(_locks.discard, lock)
            return lock
        if not join:
            raise EmbeddedError(
                f"{data} is already in use by process {pid}: stop it, or give another --data"
            )
        if found := _published(data, pid):
            return found
        if time.monotonic() > give_up:
            raise EmbeddedError(f"process {pid} uses {data} but does not become ready: stop it")
        time.sleep(0.05)


def _published(data: Path, holder: int) -> Stores | None:
    try:
        told = json.loads((data / "stores.json").read_bytes())
        os.kill(holder, 0)  # a file left by kill -9 is ignored
    except (FileNotFoundError, ProcessLookupError):
        return None
    if told["pid"] != holder:
        return None
    notes = (f"using the stores of process {holder}", *told["notes"])
    return Stores(told["database_url"], told["redis_url"], data, notes, joined=True)


def _wanted(running: Stores, *, database: bool, redis: bool) -> Stores:
    if database and not running.database_url:
        raise EmbeddedError(
            f"the service on {running.data} uses another database: set the same DATABASE_URL"
        )
    return running._replace(
        database_url=running.database_url if database else None,
        redis_url=running.redis_url if redis else None,
    )
