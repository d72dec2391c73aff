"""Where log lines go: stderr, without Python's buffer."""

import contextlib
import logging
import os
import select
from typing import TextIO

# Without a queue: how long a line waits for a reader that hangs. Later lines don't wait.
PATIENCE_SECONDS = 1.0
# Bytes that a pipe takes without waiting, if it takes any (PIPE_BUF; POSIX: at least 512).
PART = getattr(select, "PIPE_BUF", 512)


class Output(logging.Handler):
    """Writes each line to the file descriptor of a stream; a line that can't be written is lost.

    The buffer of sys.stderr has a lock. If a thread is blocked with it, because the reader of a
    pipe hangs, the process could not end. For the same reason this handler has no lock: the system
    writes a line of up to 4,096 bytes as a whole.

    Args:
        stream: where lines go.

    Attributes:
        waits: whether it waits for a reader as long as that takes: in a thread of its own.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.waits = False
        self._patience = PATIENCE_SECONDS

    def createLock(self) -> None:  # noqa: N802 - logging's own name
        """Have no lock, see above."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a line without a lock: from Python 3.13 on, that of the base class needs one."""
        if not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            data = (self.format(record) + "\n").encode(errors="backslashreplace")
            try:
                number = self.stream.fileno()
            except (OSError, ValueError):  # no file, or closed
                self.stream.write(data.decode())
                return
            while data and (self.waits or self._can_write(number)):
                data = data[os.write(number, data if self.waits else data[:PART]) :]
        except Exception:  # noqa: BLE001 - nothing can be reported without a log
            with contextlib.suppress(Exception):
                self.handleError(record)

    def _can_write(self, number: int) -> bool:
        """Return whether PART bytes can be written without waiting, after some patience."""
        if os.name != "posix":  # it can ask only for sockets
            return True
        _, ready, _ = select.select([], [number], [], self._patience)
        self._patience = PATIENCE_SECONDS if ready else 0.0
        return bool(ready)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Lose the line: stderr is closed, or its disk is full."""
