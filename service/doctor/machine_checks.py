"""This machine: port, open files, disk, memory, processors, the embedded programs."""

import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from service import server
from service.doctor.check import Check, Finding, fail, ok, skip, warn
from service.doctor.subject import Subject
from service.embedded.programs import EmbeddedError, find_postgres, find_redis, version
from service.server.processes import ServerError
from service.server.sockets import BACKLOG
from service.threads import in_thread

MEBIBYTE = 2**20
# With less the next write-ahead segments (16 MiB each) may not fit; with LOW an import may not.
FULL, LOW = 100 * MEBIBYTE, 1024 * MEBIBYTE
FEW_FILES = 4096
KERNEL = Path("/proc/sys/net")
MEMORY = Path("/proc/meminfo")


async def port(subject: Subject) -> Finding:
    """Fail if the address can't be bound; fine if this service answers there already."""
    settings = subject.settings
    where = f"{settings.host}:{settings.port}"

    def bind() -> None:
        server.bind(settings).close()

    try:
        await in_thread(bind)
    except ServerError as error:
        if await in_thread(lambda: server.answers(settings)):
            return ok(f"a running service answers at {where}")
        why, _, option = str(error).partition("; try --")
        stop = "stop that program, or " if " by " in why else ""
        return fail(why, f"{stop}set SERVICE_{option.upper()} (--{option}) to another")
    return ok(f"{where} is free")


async def open_files(subject: Subject) -> Finding:
    """Warn if a worker may have less than 4,096 open files, each of which is a connection."""
    if sys.platform == "win32":
        return skip("there is no such limit")
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FEW_FILES:
        return warn(
            f"each of {subject.settings.workers} workers may have {hard} open files, so fewer"
            " connections",
            "raise the hard limit: LimitNOFILE=65536 in a unit of systemd, or ulimit -Hn",
        )
    most = server.OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, server.OPEN_FILES)
    return ok(f"up to {most:,} per worker")


async def kernel(_: Subject) -> Finding:
    """Warn if the kernel shortens the queue of new connections below 4,096.

    `tcp_migrate_req` is not needed: the workers share one queue, which a dying worker leaves to
    the others.
    """
    queue = _number(KERNEL / "core" / "somaxconn")
    if queue is None:
        return skip("the limits of this kernel can't be read")
    if queue < BACKLOG:
        return warn(
            f"net.core.somaxconn is {queue}: after a burst, clients wait a second or more",
            f"sysctl net.core.somaxconn={BACKLOG}",
        )
    migrate = _number(KERNEL / "ipv4" / "tcp_migrate_req")
    also = "" if migrate is None else f", net.ipv4.tcp_migrate_req {migrate} (not needed)"
    return ok(f"net.core.somaxconn {queue}{also}")


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


async def disk(subject: Subject) -> Finding:
    """Fail if the disk of the data or temporary directory has less than 100 MiB, warn below 1 GiB.

    The disk of a database on another machine is not visible here.
    """
    told = []
    for name, place in _places(subject):
        free = (await in_thread(partial(shutil.disk_usage, place))).free
        told.append(f"{free / MEBIBYTE:,.0f} MiB free in {place}")
        if free < FULL:
            return fail(f"{name} is nearly full: {told[-1]}", "free some space, or choose another")
        if free < LOW:
            return warn(f"{name} has little space: {told[-1]}", "free some space")
    return ok(", ".join(told))


def _places(subject: Subject) -> list[tuple[str, Path]]:
    """Return names and directories of what the service writes on this machine."""
    places = [("TMPDIR", Path(tempfile.gettempdir()))]
    if subject.embedded:
        cluster = Path(subject.settings.data).absolute() / "postgres"
        # A missing directory will be made on the disk of its parent.
        place = next(one for one in (cluster, *cluster.parents) if one.exists())
        places.insert(0, ("the data directory", place))
    return places


async def memory(subject: Subject) -> Finding:
    """Warn if the caches of all workers may take more than half of the free memory."""
    free = _available()
    if free is None:
        return skip("the memory of this machine can't be read")
    settings = subject.settings
    most = 0 if settings.cache == "off" else settings.workers * settings.cache_bytes
    told = f"{free / MEBIBYTE:,.0f} MiB available, the caches take up to {most / MEBIBYTE:,.0f}"
    if most > free / 2:
        return warn(told, "lower SERVICE_CACHE_BYTES or SERVICE_WORKERS")
    return ok(told)


def _available() -> int | None:
    """Return the bytes of memory that programs may still take."""
    try:
        lines = MEMORY.read_text().splitlines()
    except OSError:
        return None
    kilobytes = dict(line.split(":", 1) for line in lines).get("MemAvailable", "").split()
    return int(kilobytes[0]) * 1024 if kilobytes else None


async def processors(subject: Subject) -> Finding:
    """Warn if there are more workers than processors that this process may use."""
    own = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    workers = subject.settings.workers
    if workers > own:
        return warn(f"{workers} workers on {own} processors", f"set SERVICE_WORKERS to {own}")
    return ok(f"workers: {workers}, processors: {own}")


async def embedded(subject: Subject) -> Finding:
    """Fail if an embedded store is needed, and there are no programs for it on this machine."""
    settings = subject.app.settings
    if settings.database_url is not None and settings.redis_url is not None:
        return ok("not needed")
    if subject.stores is not None:
        return ok(f"running in {subject.stores.data}")
    told = []
    if settings.database_url is None:
        cluster = Path(settings.data) / "postgres"
        try:
            major = int((cluster / "PG_VERSION").read_text()) if cluster.exists() else None
            programs = find_postgres(major)
        except (EmbeddedError, OSError, ValueError) as error:
            return fail(f"{error}".partition(": ")[0], "set DATABASE_URL, or install PostgreSQL")
        state = "has a database" if cluster.exists() else "has no database yet"
        told.append(f"not running, {settings.data} {state}")
        told.append(f"PostgreSQL {version(programs / 'postgres')} can be started")
    if settings.redis_url is None:
        redis = find_redis()
        told.append("no Redis is installed" if redis is None else f"{redis.name} can be started")
    return ok("; ".join(told))


CHECKS = (
    Check("embedded-stores", embedded),
    Check("port", port),
    Check("open-files", open_files),
    Check("kernel", kernel),
    Check("disk", disk),
    Check("memory", memory),
    Check("processors", processors),
)
