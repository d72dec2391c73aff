"""The folder in which the workers of one server have their slots."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from service.logs import logger
from service.metrics.slots import SIZE

if os.name == "posix":
    import fcntl

PREFIX = "swiftlet-metrics-"
# Memory: on a disk, a count may wait until the page that it changes is written.
MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it


@contextlib.contextmanager
def shared_folder(workers: int) -> Iterator[Path | None]:
    """Make a folder, and remove it at the end; None if none can be made, which is logged.

    Folders of servers that were killed are removed too. A server holds a lock on its folder, which
    the system releases when it ends.

    Args:
        workers: how many slots it must have room for.
    """
    if os.name != "posix":
        yield None
        return
    found = _made(2 * workers * SIZE)  # a new worker may start before the old one has ended
    if found is None:
        yield None
        return
    folder, lock = found
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(room: int) -> tuple[Path, int] | None:
    """Return a new folder and the file descriptor with its lock."""
    why = ""
    for place in (MEMORY, None):
        try:
            parent = place or Path(tempfile.gettempdir())
            for path in parent.glob(f"{PREFIX}*"):
                _remove_if_left(path)
            if shutil.disk_usage(parent).free < room:
                why = f"no space in {parent}"
                continue
            while True:
                folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
                lock = _locked(folder)
                # Another server may have taken it for one that was left, before it had its lock.
                if lock is not None and folder.exists():
                    return folder, lock
                if lock is not None:
                    os.close(lock)
        except OSError as error:
            why = f"{type(error).__name__}: {error.strerror}"
    logger.error(
        "each worker shows its own metrics alone: no folder for them can be made",
        extra={"fields": {"error": why}},
    )
    return None


def _locked(folder: Path) -> int | None:
    """Lock a folder; None if another process has the lock, or the folder is gone."""
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def _remove_if_left(folder: Path) -> None:
    """Remove a folder whose server has ended, if it is ours."""
    lock = _locked(folder)
    if lock is None:
        return
    try:
        if os.fstat(lock).st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
