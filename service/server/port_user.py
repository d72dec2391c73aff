"""Which program listens on a port, as far as this user may see it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"


def program_of(port: int) -> str | None:
    """Return name and id of a process that listens on a TCP port; None if that is not visible."""
    wanted = {f"socket:[{inode}]" for inode in _sockets(port)}
    if not wanted:
        return None
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):  # of another user, or ended
            for file in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(file.readlink()) in wanted:
                        name = (process / "comm").read_text().strip()
                        return f"{name}, process {process.name}"
    return None


def _sockets(port: int) -> Iterator[str]:
    """Yield the inodes of listening sockets."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                _, address, _, state, *rest = line.split()
                if state == LISTENING and int(address.rpartition(":")[2], 16) == port:
                    yield rest[5]
