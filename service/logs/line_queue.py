"""The queue between requests and the log: a request never waits for the target of the log."""

import logging
import queue
import threading
from contextlib import suppress
from time import monotonic

from service.logs.repeats import Repeats
from service.timing import timing

# Bounded: when the target hangs, lines are dropped instead of filling memory.
LINES = 10_000
# How long the end of the process waits for the lines that are left.
STOP_SECONDS = 2.0


class LineQueue(logging.Handler):
    """Puts lines into a queue, from which a thread writes them.

    A line gets the fields of the request that runs. A failure that repeats is counted, see Repeats.

    Args:
        target: writes the lines.

    Attributes:
        dropped: lines that found the queue full.
    """

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self.target = target
        self.dropped = 0
        self._reported = 0
        self._repeats = Repeats()
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(LINES)
        self._stopping = False
        # A daemon: if the target hangs, the process still ends.
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)

    def start(self) -> None:
        """Begin to write lines."""
        self._thread.start()

    def stop(self) -> bool:
        """Write what is left, and return whether that was possible in time."""
        self._stopping = True
        with suppress(queue.Full):  # else the thread is awake, or the target hangs
            self._lines.put_nowait(None)
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it; `handle` has the lock."""
        try:
            if record.levelno >= logging.WARNING and not self._repeats.is_new(record, monotonic()):
                return
            spent = timing.get()
            if spent is not None:
                record.fields = {**spent.named(), **getattr(record, "fields", {})}
            self._lines.put_nowait(record)
        except queue.Full:
            self.dropped += 1
        except Exception:  # noqa: BLE001 - a line that can't be made must not stop its caller
            self.handleError(record)

    def _write(self) -> None:
        wait = None
        while not (self._stopping and self._lines.empty()):
            record = None
            with suppress(queue.Empty):
                record = self._lines.get(timeout=wait)
            if record is not None:
                self.target.handle(record)
            wait = self._write_repeats(monotonic())
            if self.dropped != self._reported and self._lines.qsize() <= LINES // 2:
                self._write_dropped()
        self._write_repeats(float("inf"))

    def _write_repeats(self, now: float) -> float | None:
        """Write the counts whose time is over; return the seconds until the next, None if none."""
        if not self._repeats.open:
            return None
        self.acquire()
        try:
            records = self._repeats.over(now)
            wait = self._repeats.seconds_left(now)
        finally:
            self.release()
        for record in records:
            self.target.handle(record)
        return wait

    def _write_dropped(self) -> None:
        number, self._reported = self.dropped - self._reported, self.dropped
        record = logging.makeLogRecord(
            {
                "name": "service.logs",
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "%d log lines were dropped: the target of the log is too slow",
                "args": (number,),
                "fields": {"dropped": number},
            }
        )
        self.target.handle(record)
