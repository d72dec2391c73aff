"""The data directory: its lock, the user of its programs, the directory of its sockets."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from service.embedded.programs import EmbeddedError

if sys.platform != "win32":  # pwd does not exist there, and embedded stores are not supported
    import pwd

SOCKET = ".s.PGSQL.5432"  # the name that PostgreSQL gives it
PATIENCE = 30.0  # seconds: to stop PostgreSQL, and for a predecessor to finish stopping


class Stores(NamedTuple):
    """The running stores. An address is None when it was not requested or is not available."""

    database_url: str | None
    redis_url: str | None
    data: Path
    notes: tuple[str, ...]  # lines for the start banner
    joined: bool  # another process runs them


class DataDirectory:
    """A locked data directory.

    Args:
        data: its path.
        lock: the locked file; process id and run directory are written into it.
        held: callbacks that undo everything at the end.
    """

    def __init__(self, data: Path, lock: BinaryIO, held: ExitStack) -> None:
        self.data = data
        self.cluster = (data / "postgres").resolve()  # may be a symbolic link to another disk
        self.held = held
        self.notes: list[str] = []
        self.account = _account(data)
        _, left = holder(lock)
        self._sign(lock, left)
        (data / "stores.json").unlink(missing_ok=True)
        self.stale = _wait_for_predecessor(self.cluster)
        if left:
            with suppress(OSError):  # may belong to another user
                _sweep(left)
        self.run = _run_directory()
        held.callback(_sweep, self.run)
        self._sign(lock, self.run)
        if self.account:
            os.chown(self.run, self.account.pw_uid, self.account.pw_gid)

    def _sign(self, lock: BinaryIO, run: Path | None) -> None:
        lock.seek(0)
        lock.write(f"{os.getpid()}\n{run or ''}\n".encode())
        lock.truncate()

    def publish(self, running: Stores) -> None:
        page = self.data / "stores.json"
        draft = self.data / "stores.json.new"
        draft.unlink(missing_ok=True)
        with open_private(draft) as file:
            told = running._asdict() | {"pid": os.getpid(), "data": str(self.data)}
            file.write(json.dumps(told).encode())
        draft.replace(page)
        self.held.callback(page.unlink, missing_ok=True)


def open_private(path: Path) -> BinaryIO:
    # No symbolic links: root may write here while another user owns the directory.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(handle, "r+b", buffering=0)


def holder(lock: BinaryIO) -> tuple[int, Path | None]:
    """Return process id and run directory of the current or last lock holder; else 0 and None."""
    lock.seek(0)
    pid, run, *_ = [*lock.read(1000).decode("utf-8", "replace").split("\n"), "", ""]
    return int(pid) if pid.isdecimal() else 0, Path(run) if run else None


def _account(data: Path) -> "pwd.struct_passwd | None":
    """Return the user for the programs when this process is root; else None."""
    if os.geteuid() != 0:
        return None
    for place in (data / "postgres", data):
        if place.exists() and (owner := place.stat().st_uid):
            return find_user(owner)
    # Not `postgres`: a system cluster may run as that user, and the two must stay separate.
    return find_user("nobody")


def find_user(known: int | str) -> "pwd.struct_passwd":
    try:
        return pwd.getpwuid(known) if isinstance(known, int) else pwd.getpwnam(known)
    except KeyError:
        raise EmbeddedError(
            f"/etc/passwd has no user {known}, which PostgreSQL needs here: add it, start as"
            " another user, or set DATABASE_URL"
        ) from None


def _run_directory() -> Path:
    """Make a private directory with a short name: a socket path has 107 bytes (macOS 103)."""
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    # Plain characters only: the path becomes part of a list setting and of a URL.
    plain = re.fullmatch(r"/[\w./-]{1,70}", session, re.ASCII)
    ours = plain and os.geteuid() != 0 and os.access(session, os.W_OK | os.X_OK)
    return Path(tempfile.mkdtemp(prefix="service-", dir=session if ours else "/tmp"))  # noqa: S108


def _sweep(run: Path) -> None:
    """Remove a run directory and the files that this program creates in it, by name.

    Never a whole tree: mount points in it lead to the data, and its name may come from a file.
    """
    if not run.name.startswith("service-") or run.is_symlink():
        return
    for name in (SOCKET, f"{SOCKET}.lock", "redis.sock", "pg_hba.conf", "pg_ident.conf"):
        (run / name).unlink(missing_ok=True)
    for place in (run / "data", run / "pg", run / "redis", run):
        with suppress(OSError):
            place.rmdir()


def _wait_for_predecessor(cluster: Path) -> int:
    """Wait until the PostgreSQL of a dead predecessor has stopped.

    Return the process id in postmaster.pid, 0 without one. The file is never removed: it prevents
    two postmasters on one cluster.
    """
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            first, place, *_ = (cluster / "postmaster.pid").read_text().split("\n")
        except (FileNotFoundError, ValueError):
            return 0
        if not _serves(first, place):
            return int(first) if first.isdecimal() else 0
        if time.monotonic() > give_up:
            raise EmbeddedError(f"process {first} still runs PostgreSQL on {cluster}: stop it")
        time.sleep(0.05)


def _serves(pid: str, place: str) -> bool:
    """Return whether the process is a postmaster on `place`, not another one with the same id."""
    if Path("/proc/self").exists():  # Linux, where `ps` may be missing
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape")
        except OSError:
            return False
        return place in command.split("\0")
    command = subprocess.run(  # noqa: S603 - a number
        ["/bin/ps", "-o", "command=", "-p", pid], capture_output=True, check=False, text=True
    ).stdout
    return place in command
