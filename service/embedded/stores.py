"""The supervisor of the embedded PostgreSQL and Redis: makes them, starts them, leaves none behind.

Read from `stores` down. All that lasts is in one directory, DIR:

    lock         held while we run; our process id, our run directory
    postgres/    the cluster; postgres.new/ while the first start makes it
    stores.json  the addresses, for `join`; there only while the stores are ready
    secret       64 hex characters
    postgres.log, redis.log

The sockets are in a private run directory outside DIR, since a socket's path may have only 107
bytes. There is no TCP port. The programs are our own children, not daemons, and die with us,
even when we are killed with -9: see `children`.
"""

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from service.embedded import postgres
from service.embedded import redis as redis_server
from service.embedded.data_directory import DataDirectory, Stores, holder, open_private
from service.embedded.programs import EmbeddedError

# A lock lasts while anybody has its file open: the workers, which are forks, must not have it.
_locks: set[BinaryIO] = set()

if sys.platform != "win32":  # where neither exists: `_plainly` says so
    import fcntl

    os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
JOINING = 60.0  # seconds for who has the directory to get ready


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
) -> Iterator[Stores]:
    """Run the stores of `data`, or with `join` use those that a living service runs there.

    `settings` are PostgreSQL's own, over ours: the benchmark needs room for everyone's pools.

    Enter it from the main thread: on Linux our children live as long as the thread that made them.

    Raises:
        EmbeddedError: they can't be had; whatever was started is stopped again.
    """
    with ExitStack() as held:
        with _plainly(data):
            data = _directory(data)
            if database:
                _hide_libpq(held)
            claim = _claim(data, held, join=join)
            if isinstance(claim, Stores):
                running = _wanted(claim, database=database, redis=redis)
            else:
                directory = DataDirectory(data, claim, held)
                database_url = (
                    postgres.start(directory, postgres_bin, settings) if database else None
                )
                redis_url = redis_server.start(directory, redis_binary) if redis else None
                running = Stores(
                    database_url, redis_url, data, tuple(directory.notes), joined=False
                )
                directory.publish(running)
        yield running


def secret(data: Path) -> str:
    """The 64 hex characters kept in `data`, made by the first who asks."""
    with _plainly(data), open_private(_directory(data) / "secret") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two first callers, one secret
        kept = file.read(1000).decode("ascii", "replace").strip()
        if not kept:
            kept = secrets.token_hex(32)
            file.write(kept.encode())
            os.fsync(file.fileno())
        if not re.fullmatch("[0-9a-f]{64}", kept):
            raise EmbeddedError(f"{file.name} must hold 64 hex characters: mend or remove it")
        return kept


@contextmanager
def _plainly(data: Path) -> Iterator[None]:
    """Says what the operating system refused in one line."""
    if sys.platform == "win32":
        raise EmbeddedError("no embedded stores on Windows: set DATABASE_URL (and REDIS_URL)")
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            f"can't use {error.filename or data}: {error.strerror or error}:"
            " see to it, or give another --data"
        ) from error


def _hide_libpq(held: ExitStack) -> None:
    """Take PGSSLMODE, PGOPTIONS and their like out of the environment: they mean other servers."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        held.callback(os.environ.__setitem__, name, os.environ.pop(name))


def _directory(data: Path) -> Path:
    """DIR, made if need be. Nothing above it, and no DIR that was there, is ever loosened."""
    data = data.resolve()
    if data.exists() and not data.is_dir():
        raise EmbeddedError(f"{data} is a file: give a directory with --data")
    if not data.exists():
        data.mkdir(parents=True, exist_ok=True)
        # 0711 for root: PostgreSQL, as whom it then runs, must pass through to its cluster.
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return data


def _claim(data: Path, held: ExitStack, *, join: bool) -> BinaryIO | Stores:
    """The lock of DIR, or the stores of who has it."""
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
            raise EmbeddedError(f"process {pid} has {data} but does not get ready: stop it")
        time.sleep(0.05)


def _published(data: Path, holder: int) -> Stores | None:
    try:
        told = json.loads((data / "stores.json").read_bytes())
        os.kill(holder, 0)  # a page left by one killed with -9 is not believed
    except (FileNotFoundError, ProcessLookupError):
        return None
    if told["pid"] != holder:
        return None
    notes = (f"using the stores of process {holder}", *told["notes"])
    return Stores(told["database_url"], told["redis_url"], data, notes, joined=True)


def _wanted(running: Stores, *, database: bool, redis: bool) -> Stores:
    if database and not running.database_url:
        raise EmbeddedError(
            f"the service on {running.data} has its database elsewhere: set the same DATABASE_URL"
        )
    return running._replace(
        database_url=running.database_url if database else None,
        redis_url=running.redis_url if redis else None,
    )
