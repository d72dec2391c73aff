"""CPU time, waits for a CPU, and memory of processes and their children, from /proc."""

import os
from pathlib import Path
from typing import NamedTuple

MiB = float
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


class Memory(NamedTuple):
    """MiB of a process: what no other process has, and with its share of what others have too."""

    private: MiB
    proportional: MiB


def memory(pid: int) -> Memory:
    """Return the memory of a process, or zeros if it has ended."""
    found = dict.fromkeys(("Private_Clean", "Private_Dirty", "Pss"), 0.0)
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(0.0, 0.0)
    for line in lines:
        name, _, kilobytes = line.partition(":")
        if name in found:
            found[name] = int(kilobytes.split()[0]) / 1024
    return Memory(found["Private_Clean"] + found["Private_Dirty"], found["Pss"])


def command(pid: int) -> str:
    """Return the command line of a process; it is empty if that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


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


def tree(pid: int, *, deep: bool = True) -> list[int]:
    """Return the process and its descendants, without those that end during the call.

    Args:
        pid: the process.
        deep: whether children of children are wanted too.
    """
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
            found += tree(child) if deep else [child]
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
