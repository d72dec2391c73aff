"""Numbers of this process in memory that other processes can read while it counts.

Each worker has a file of its own, a slot. Its counts stay when it ends, however it ends, and the
next worker that takes the slot goes on with them. A lock shows whether a slot is in use: the system
releases it when the process ends.

A file has a header, a directory and values. The header is the number of values in use and the
length of the directory. A line of the directory is JSON: the position of a series, the name of its
family, and the values of its labels. All values are doubles, so a count is exact up to 2^53.
"""

import json
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from service.metrics.families import FAMILIES, Family

if os.name == "posix":
    import fcntl

HEADER = 16  # bytes: two integers of 8 bytes
DIRECTORY = 256 * 1024  # bytes: about 3,000 series
VALUES = 65_536  # 512 KiB; a histogram of seconds has 19 values
SIZE = HEADER + DIRECTORY + 8 * VALUES


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
        folder: where the workers of one server have their slots, and nothing else is; None to keep
            the numbers in this process alone.

    Attributes:
        values: all values, by position.

    Raises:
        OSError: no slot can be made in the folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._file = -1 if folder is None or os.name != "posix" else _take(folder)
        self._memory = mmap.mmap(self._file, SIZE)
        self._header = memoryview(self._memory)[:HEADER].cast("Q")
        self.values = memoryview(self._memory)[HEADER + DIRECTORY :].cast("d")
        self._places: dict[tuple[str, tuple[str, ...]], int] = {}
        for place, family, labels in _directory(self._memory):
            self._places[family.name, labels] = place
            if family.kind == "gauge":  # of the process before us
                self.values[place] = 0.0

    def place(self, family: Family, labels: tuple[str, ...] = ()) -> int:
        """Return the position of the first value of a series; a new series begins with zeros.

        When the memory is full, the position is that of spare values, which are never read.
        """
        found = self._places.get((family.name, labels))
        if found is not None:
            return found
        place, length = self._header[0], self._header[1]
        line = json.dumps([place, family.name, *labels]).encode() + b"\n"
        # The last values are the spare ones.
        full = place + 2 * family.width > VALUES or length + len(line) > DIRECTORY
        if full:
            return VALUES - family.width
        start = HEADER + length
        self._memory[start : start + len(line)] = line
        # A reader sees the line only when it is complete.
        self._header[0], self._header[1] = place + family.width, length + len(line)
        self._places[family.name, labels] = place
        return place

    def slots(self) -> list[Slot]:
        """Return what all processes of the folder have counted, this one first."""
        slots = [Slot(_series(self._memory), live=True)]
        if self._file == -1 or self.folder is None:
            return slots
        own = os.fstat(self._file).st_ino
        for path in sorted(self.folder.iterdir()):
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino == own or path.stat().st_size < SIZE:
                    continue
                live = not _unlocked(file.fileno())
                with mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ) as memory:
                    slots.append(Slot(_series(memory), live=live))
        return slots

    def close(self) -> None:
        """Release the slot."""
        self._header.release()
        self.values.release()
        self._memory.close()
        if self._file != -1:
            os.close(self._file)


def _take(folder: Path) -> int:
    """Return the file descriptor of the first slot that no process has; it is locked."""
    number = 0
    while True:
        file = os.open(folder / f"worker-{number}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            number += 1
            continue
        except BaseException:
            os.close(file)
            raise
        try:
            _reserve(file)
        except OSError:
            os.close(file)
            raise
        return file


def _reserve(file: int) -> None:
    """Give a slot its size, on the disk too: else a write on a full disk would end the process."""
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, SIZE)
    else:
        os.ftruncate(file, SIZE)


def _unlocked(file: int) -> bool:
    """Return whether no process holds the lock of a slot."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _directory(memory: mmap.mmap) -> list[tuple[int, Family, tuple[str, ...]]]:
    length = int.from_bytes(memory[8:16], "little")
    found = []
    for line in memory[HEADER : HEADER + length].splitlines():
        place, name, *labels = json.loads(line)
        if name in FAMILIES:  # else it is of another version of this service
            found.append((place, FAMILIES[name], tuple(labels)))
    return found


def _series(memory: mmap.mmap) -> list[Series]:
    found = []
    for place, family, labels in _directory(memory):
        start = HEADER + DIRECTORY + 8 * place
        with memoryview(memory)[start : start + 8 * family.width] as part, part.cast("d") as values:
            found.append(Series(family, labels, values.tolist()))
    return found
