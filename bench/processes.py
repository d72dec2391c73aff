"""CPU time, waits for a CPU, and memory of processes and their children, from /proc."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process and all descendants, also of ended ones."""
    total = 0.0
    for process in tree(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / TICKS
    return total


def waited(pid: int) -> float:
    """Return the seconds in which a process and its descendants were ready, and had no CPU.

    Those that have ended do not count.
    """
    total = 0
    for process in tree(pid):
        try:
            tasks = list(Path(f"/proc/{process}/task").iterdir())
            total += sum(int((task / "schedstat").read_text().split()[1]) for task in tasks)
        except OSError:
            continue
    return total / 1e9


def tree(pid: int) -> list[int]:
    """Return the process and all descendants, without those that end during the call."""
    found = [pid]
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return found
    for task in tasks:
        try:
            below = (task / "children").read_text().split()
        except OSError:
            continue
        for child in map(int, below):
            found += tree(child)
    return found


def forget_peak(pid: int) -> None:
    """Reset the peak of memory."""
    for process in tree(pid):
        try:
            Path(f"/proc/{process}/clear_refs").write_text("5")
        except OSError:  # ended, or a hardened kernel refuses; then the old peak stays
            continue


def peak(pid: int) -> float:
    """Return the peak of resident MiB, summed over the processes; shared memory counts in each."""
    total = 0
    for process in tree(pid):
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return total / 1024
