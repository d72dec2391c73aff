"""The spool: files of requests that jobs work on later, in a folder of the data directory."""

import asyncio
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, ParamSpec, TypeVar

from service.errors import Unavailable
from service.logs import logger
from service.settings import Settings

if sys.platform != "win32":
    import fcntl

Done = TypeVar("Done")
P = ParamSpec("P")

# All files together have at most so many times SERVICE_IMPORT_LIMIT, and there are at most FILES.
LIMITS, FILES = 4, 1000
# Bytes of the disk that stay free: other programs need it too.
KEPT_FREE = 64 * 1_048_576
# The bounds are checked again after so many bytes of a file, and at its end: all may come at once.
CHECKED = 1_048_576
# Bytes to read of a file at once.
CHUNK = 262_144
# Seconds after which a refused client may try again: a job frees the space when it is done.
AGAIN_SECONDS = 30
# In the name of a file that is not complete.
PART = ".part"
_IDENTITY = re.compile("[0-9a-f]{32}")


class Spooled(NamedTuple):
    """A complete file in the spool.

    Args:
        place: the identity of its folder.
        name: of the file.
        size: in bytes.
    """

    place: str
    name: str
    size: int


class Found(NamedTuple):
    """A file in the folder; `age` is the seconds since its last change."""

    name: str
    size: int
    age: float

    @property
    def complete(self) -> bool:
        """Whether all of it was received."""
        return not self.name.endswith(PART)


class NoRoom(Unavailable):
    """The spool is full."""

    def __init__(self) -> None:
        super().__init__(
            "too many files wait for their import, or the disk is almost full: try again later,"
            " or import without background=true",
            retry_after=AGAIN_SECONDS,
        )


class Spool:
    """The folder `spool` in SERVICE_DATA; it is made for the first file.

    It has an identity, a random name in its file `id`. That is the place of a job, so only workers
    that share the folder run the job. Files survive a crash of the machine: `store` returns when
    the file and its name are on disk.

    Args:
        settings: of the application.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = Path(settings.data).absolute() / "spool"
        self._most = settings.import_limit * LIMITS

    def places(self) -> tuple[str, ...]:
        """Return the identity of the folder, for the loop of jobs; empty without a folder."""
        try:
            found = (self.folder / "id").read_text("ascii")
        except (OSError, UnicodeDecodeError):
            return ()
        return (found,) if _IDENTITY.fullmatch(found) else ()

    def files(self) -> list[Found]:
        """Return the files, the oldest first; none without a folder."""
        found = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another worker has removed it
                    if _IDENTITY.fullmatch(entry.name.removesuffix(PART)):
                        status = entry.stat(follow_symlinks=False)
                        age = time.time() - status.st_mtime
                        found.append(Found(entry.name, status.st_size, age))
        return sorted(found, key=lambda file: -file.age)

    def has_room(self, size: int) -> bool:
        """Return whether a file of this size fits; 0 if the size is not known."""
        files = self.files()
        within = len(files) < FILES and sum(file.size for file in files) + size <= self._most
        above = next(one for one in (self.folder, *self.folder.parents) if one.exists())
        return within and shutil.disk_usage(above).free >= size + KEPT_FREE

    async def store(self, parts: AsyncIterable[bytes]) -> Spooled:
        """Store a file; if that fails or is cancelled, nothing is left.

        Raises:
            Unavailable: there is no room, or the folder can't be written.
            Problem: what `parts` raises.
        """
        try:
            return await self._store(parts)
        except OSError as error:
            logger.error(
                "a file can't be stored in the spool", extra={"fields": {"why": str(error)}}
            )
            raise Unavailable(
                "the file can't be stored: the log says why", retry_after=AGAIN_SECONDS
            ) from error

    async def _store(self, parts: AsyncIterable[bytes]) -> Spooled:
        place = await _in_thread(self._made)
        name = secrets.token_hex(16)
        part = self.folder / f"{name}{PART}"
        file = _new(part)  # not in a thread: a cancelled task would leave the file
        size = unchecked = 0
        try:
            async for data in parts:
                await _in_thread(_write, file, data)
                size += len(data)
                unchecked += len(data)
                if unchecked >= CHECKED:
                    unchecked = 0
                    if not await _in_thread(self.has_room, 0):
                        raise NoRoom
            if not await _in_thread(self.has_room, 0):
                raise NoRoom
            await _in_thread(self._keep, file, part, name)
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            (self.folder / name).unlink(missing_ok=True)
            raise
        return Spooled(place, name, size)

    async def read(self, name: str) -> AsyncGenerator[bytes]:
        """Yield a file in chunks.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        with await _in_thread(_opened, self._path(name)) as file:
            while data := await _in_thread(file.read, CHUNK):
                yield data

    def size(self, name: str) -> int:
        """Return the size of a file; raises as `read`."""
        return self._path(name).stat().st_size

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:  # it is tried again, see spool_cleaning
            logger.warning("a file of the spool stays", extra={"fields": {"why": str(error)}})

    def _path(self, name: str) -> Path:
        if not _IDENTITY.fullmatch(name):  # no job makes it read another file
            raise FileNotFoundError(name)
        return self.folder / name

    def _made(self) -> str:
        """Return the identity of the folder; make both if they are missing."""
        if places := self.places():
            return places[0]
        self.folder.parent.mkdir(0o711, parents=True, exist_ok=True)
        self.folder.mkdir(0o700, exist_ok=True)
        with _new(self.folder / "id", os.O_CREAT) as file:
            if sys.platform != "win32":  # two workers at once make one identity
                fcntl.flock(file, fcntl.LOCK_EX)
            if not file.read(1):
                file.write(secrets.token_hex(16).encode())
                os.fsync(file.fileno())
        for folder in (self.folder, self.folder.parent):
            _sync(folder)
        if places := self.places():
            return places[0]
        raise OSError(f"{self.folder / 'id'} must have 32 hex characters: correct or remove it")

    def _keep(self, file: BinaryIO, part: Path, name: str) -> None:
        os.fsync(file.fileno())
        file.close()
        part.rename(self.folder / name)
        _sync(self.folder)


def _new(path: Path, flags: int = os.O_CREAT | os.O_EXCL) -> BinaryIO:
    """Open a file that only its owner may read, to read and write."""
    handle = os.open(path, flags | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(handle, "r+b", buffering=0)


def _write(file: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _sync(folder: Path) -> None:
    """Write the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _opened(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


async def _in_thread(work: Callable[P, Done], *args: P.args, **named: P.kwargs) -> Done:
    """Run it in a thread, to its end also if the task is cancelled: it uses an open file."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
