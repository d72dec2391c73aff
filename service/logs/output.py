"""Where log lines go: stderr, without Python's buffer."""

import contextlib
import logging
import os
from typing import TextIO


class Output(logging.Handler):
    """Writes each line to the file descriptor of a stream; a line that can't be written is lost.

    The buffer of sys.stderr has a lock. If a thread is blocked with it, because the reader of a
    pipe hangs, the process could not end. For the same reason this handler has no lock: the system
    writes a line of up to 4,096 bytes as a whole.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def createLock(self) -> None:  # noqa: N802 - logging's own name
        """Have no lock, see above."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            data = (self.format(record) + "\n").encode(errors="backslashreplace")
            try:
                number = self.stream.fileno()
            except (OSError, ValueError):  # no file, or closed
                self.stream.write(data.decode())
                return
            while data:
                data = data[os.write(number, data) :]
        except Exception:  # noqa: BLE001 - nothing can be reported without a log
            with contextlib.suppress(Exception):
                self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Lose the line: stderr is closed, or its disk is full."""
