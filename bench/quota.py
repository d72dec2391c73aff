"""Limit the CPU time of processes together, as `cpus` of a container does: by a cgroup."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

# Microseconds; the default of containers.
PERIOD = 100_000
# A cgroup counts as one process when others want the CPU too: ours has the weight of this many, so
# that the limit is what it has to live with. The system's own unit is 100 in v2, and 1024 in v1.
WEIGHT = 4
ROOT = Path("/sys/fs/cgroup")
# cgroup v2, and the places where systems mount the controller of v1.
PLACES = (ROOT, ROOT / "cpu", ROOT / "cpu,cpuacct")


class Quota(NamedTuple):
    """A cgroup with a limit; its processes and their children share it."""

    directory: Path

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return a command that runs `argv` in the cgroup from its start."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.directory / "cgroup.procs"), *argv]

    def throttled(self) -> tuple[int, int]:
        """Return in how many periods it had processes that ran, and in how many it was stopped."""
        told = dict(line.split() for line in (self.directory / "cpu.stat").read_text().splitlines())
        return int(told["nr_periods"]), int(told["nr_throttled"])


@contextmanager
def limited(cpus: float) -> Iterator[Quota | None]:
    """Make a cgroup for so many CPUs; None where the system does not let us.

    All its processes must end before the block does.
    """
    found = next(filter(None, (_made(place, cpus) for place in PLACES)), None)
    try:
        yield found
    finally:
        if found is not None:
            _remove(found.directory)


def _made(place: Path, cpus: float) -> Quota | None:
    directory, quota = place / f"swiftlet-bench-{os.getpid()}", int(cpus * PERIOD)
    try:
        directory.mkdir()
    except OSError:
        return None
    try:
        if (directory / "cpu.max").exists():
            (directory / "cpu.max").write_text(f"{quota} {PERIOD}")
            (directory / "cpu.weight").write_text(str(WEIGHT * 100))
            return Quota(directory)
        if (directory / "cpu.cfs_quota_us").exists():
            (directory / "cpu.cfs_period_us").write_text(str(PERIOD))
            (directory / "cpu.cfs_quota_us").write_text(str(quota))
            (directory / "cpu.shares").write_text(str(WEIGHT * 1024))
            return Quota(directory)
    except OSError:
        pass
    _remove(directory)
    return None


def _remove(directory: Path) -> None:
    """Remove it as soon as the system has noticed that its processes have ended."""
    give_up = time.monotonic() + 5
    while directory.exists() and time.monotonic() < give_up:
        with suppress(OSError):
            directory.rmdir()
            return
        time.sleep(0.05)
