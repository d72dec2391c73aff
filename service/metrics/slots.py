"""Numbers of this process in memory that other processes can read while it counts.

Each worker has a file of its own, a slot. Its counts stay when it ends, however it ends, and the
next worker that takes the slot goes on with them. A lock shows whether a slot is in use: the system
releases it when the process ends.

A file has a header, a directory and values. The header is the stamp of the layout, the number of
values in use and the length of the directory. A line of the directory is JSON: the position of a
series, the name of its family, and the values of its labels. All values are doubles, so a count is
exact up to 2^53.
"""

import contextlib
import json
import math
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from service.logs import logger
from service.metrics.families import FAMILIES, Family

if os.name == "posix":
    import fcntl

HEADER = 24  # bytes: three integers of 8 bytes
DIRECTORY = 256 * 1024  # bytes: about 3,000 series
VALUES = 65_536  # 512 KiB; a histogram of seconds has 19 values
SIZE = HEADER + DIRECTORY + 8 * VALUES
# The last values belong to no series: they are written, and never read, when there is no more room.
SPARE = max(one.width for one in FAMILIES.values())
# A file with another stamp is of a version with other families: its values mean something else.
STAMP = int.from_bytes(
    blake2b(repr((SIZE, DIRECTORY, *FAMILIES.values())).encode(), digest_size=8).digest(), "little"
)
# Names of the files begin so.
SLOT = "worker-"

_Place = tuple[int, Family, tuple[str, ...]]


class Series(NamedTuple):
    """The values of one series in a slot."""

    family: Family
    labels: tuple[str, ...]
    values: Sequence[float]


class Slot:
    """What one process has counted, as another one reads it.

    `live` says whether the process still runs; if not, its gauges say nothing.
    """

    def __init__(self, series: list[Series], *, live: bool) -> None:
        self.series = series
        self.live = live


class Store:
    """The numbers of this process.

    Args:
        folder: where the workers of one server have their slots; it is made if it is missing. None
            to keep the numbers in this process alone.

    Attributes:
        values: all values, by position.

    Raises:
        OSError: no slot can be made in the folder, for example because the disk is full.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._file = -1 if folder is None or os.name != "posix" else _take(folder)
        self._memory = mmap.mmap(self._file, SIZE)
        self._header = memoryview(self._memory)[:HEADER].cast("Q")
        self.values = memoryview(self._memory)[HEADER + DIRECTORY :].cast("d")
        self._places: dict[tuple[str, tuple[str, ...]], int] = {}
        # Directories that were read, by inode: they only grow, and seldom.
        self._read: dict[int, tuple[bytes, list[_Place]]] = {}
        self._full = False
        if self._header[0] != STAMP:
            self._header[1] = self._header[2] = 0
            self._memory[HEADER:] = bytes(SIZE - HEADER)
            self._header[0] = STAMP
        for place, family, labels in _parsed(self._directory()):
            self._places[family.name, labels] = place
            if family.kind == "gauge":  # of the process before us
                self.values[place] = math.nan

    def place(self, family: Family, labels: tuple[str, ...] = ()) -> int:
        """Return the position of the first value of a series; a new series begins with zeros.

        When the memory is full, the position is that of spare values, which are never read.
        """
        found = self._places.get((family.name, labels))
        if found is not None:
            return found
        place, length = self._header[1], self._header[2]
        line = json.dumps([place, family.name, *labels]).encode() + b"\n"
        if place + family.width > VALUES - SPARE or length + len(line) > DIRECTORY:
            if not self._full:
                self._full = True
                logger.warning("metrics are full: further combinations of labels are not counted")
            return VALUES - SPARE
        start = HEADER + length
        self._memory[start : start + len(line)] = line
        # A reader sees the line only when it is complete.
        self._header[1], self._header[2] = place + family.width, length + len(line)
        self._places[family.name, labels] = place
        return place

    def slots(self) -> Iterator[Slot]:
        """Yield what all processes of the folder have counted, this one first.

        Files that are not slots of this version are left out.
        """
        own = [*map(self._series, self._places.items())]
        yield Slot([one for one in own if not _is_unset(one)], live=True)
        if self._file == -1 or self.folder is None:
            return
        own_inode = os.fstat(self._file).st_ino
        for path in sorted(self.folder.glob(f"{SLOT}*")):
            found = None
            # It may be removed at this moment, or be another's.
            with contextlib.suppress(OSError), _opened(path) as file:
                status = os.fstat(file)
                if status.st_ino != own_inode and stat.S_ISREG(status.st_mode):
                    found = self._slot(file, status.st_ino)
            if found is not None:
                yield found

    def close(self) -> None:
        """Release the slot. The values can still be written: a late task may count."""
        if self._file != -1:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = -1

    def _directory(self) -> bytes:
        return self._memory[HEADER : HEADER + self._header[2]]

    def _series(self, place: tuple[tuple[str, tuple[str, ...]], int]) -> Series:
        (name, labels), start = place
        family = FAMILIES[name]
        return Series(family, labels, self.values[start : start + family.width].tolist())

    def _slot(self, file: int, inode: int) -> Slot:
        """Return what another process has counted. It is read, not mapped: files may be cut off."""
        # Its lock is looked at first: if it ends after that, its gauges were right until then.
        live = not _is_unlocked(file)
        header = os.pread(file, HEADER, 0)
        if len(header) < HEADER or int.from_bytes(header[:8], "little") != STAMP:
            return Slot([], live=live)
        used, length = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16))
        directory = os.pread(file, min(length, DIRECTORY), HEADER)
        known = self._read.get(inode)
        if known is None or known[0] != directory:
            known = self._read[inode] = (directory, _parsed(directory))
        packed = os.pread(file, 8 * min(used, VALUES), HEADER + DIRECTORY)
        values = memoryview(packed[: len(packed) // 8 * 8]).cast("d")
        series = [
            Series(family, labels, values[start : start + family.width].tolist())
            for start, family, labels in known[1]
            if start + family.width <= len(values)
        ]
        return Slot([one for one in series if not _is_unset(one)], live=live)


def _take(folder: Path) -> int:
    """Return the file descriptor of the first slot that no process has; it is locked."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = 0
    while True:
        # Not the target of a link: another user may have made it, if all may write here.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        file = os.open(folder / f"{SLOT}{number}", flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _reserve(file)
        except BlockingIOError:
            os.close(file)
            number += 1
            continue
        except BaseException:
            os.close(file)
            raise
        return file


def _reserve(file: int) -> None:
    """Make the file as long as a slot, with disk space behind each byte.

    A write to mapped memory without disk space would end the process (SIGBUS).
    """
    length = os.fstat(file).st_size
    while length < SIZE:
        length += os.pwrite(file, bytes(SIZE - length), length)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not block
    try:
        yield file
    finally:
        os.close(file)


def _is_unlocked(file: int) -> bool:
    """Return whether no process holds the lock of a slot."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _is_unset(one: Series) -> bool:
    """Return whether it is a gauge that the present process has not set."""
    return one.family.kind == "gauge" and math.isnan(one.values[0])


def _parsed(directory: bytes) -> list[_Place]:
    """Return the series of a directory, without lines that can't be ours."""
    found = []
    for line in directory.splitlines():
        try:
            place, name, *labels = json.loads(line)
            family = FAMILIES[name]
        except (ValueError, TypeError, KeyError):
            continue
        if (
            isinstance(place, int)
            and place >= 0
            and len(labels) == len(family.labels)
            and all(isinstance(one, str) for one in labels)
        ):
            found.append((place, family, tuple(labels)))
    return found
