"""Processes as /proc shows them: their CPU time and memory, children included."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds of CPU of a process and all below it, those that have ended included."""
    total = 0.0
    for process in tree(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / TICKS
    return total


def tree(pid: int) -> list[int]:
    """The process and all below it; whatever ends meanwhile is left out."""
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
    """Let the peak of memory begin anew."""
    for process in tree(pid):
        try:
            Path(f"/proc/{process}/clear_refs").write_text("5")
        except OSError:  # it has ended, or a hardened kernel says no: then it is the peak so far
            continue


def peak(pid: int) -> float:
    """MiB at most resident at once, summed over the processes: what they share counts in each."""
    total = 0
    for process in tree(pid):
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return total / 1024
