"""A failure that repeats is one line at once, and then a count."""

import logging
from typing import Any

# The count comes after FIRST_SECONDS, and as long as the failure goes on, after LATER_SECONDS.
FIRST_SECONDS, LATER_SECONDS = 10.0, 60.0
# Failures to count at the same time; further ones are not counted, each of them is a line.
FAILURES = 100
# Fields that say what failed. Others, such as a path, differ between requests.
TELLING = ("statement", "error", "address", "problem")

Key = tuple[object, ...]


class _Count:
    """A failure: its line, how often it came since, and when the count is written."""

    __slots__ = ("due", "line", "number", "seconds")

    def __init__(self, line: dict[str, Any], due: float) -> None:
        self.line = line
        self.number = 0
        self.seconds = FIRST_SECONDS
        self.due = due


class Repeats:
    """Counts warnings and errors that are the same.

    Two lines are the same if they have the same logger, level and message, before its arguments are
    filled in, the same place and type of an exception, and the same telling fields. A line with
    `extra={"each": True}` is about one event, such as a slow request, and never counted.
    """

    def __init__(self) -> None:
        self._counts: dict[Key, _Count] = {}

    @property
    def open(self) -> bool:
        """Whether a failure is being counted."""
        return bool(self._counts)

    def is_new(self, record: logging.LogRecord, now: float) -> bool:
        """Return whether a line must be written; if not, it is counted."""
        if hasattr(record, "each"):
            return True
        fields = getattr(record, "fields", {})
        telling = {name: str(fields[name]) for name in TELLING if name in fields}
        key = (record.name, record.levelno, str(record.msg), *_place(record), *telling.items())
        count = self._counts.get(key)
        if count is not None:
            count.number += 1
            return False
        if len(self._counts) < FAILURES:
            line = {
                "name": record.name,
                "levelno": record.levelno,
                "levelname": record.levelname,
                "msg": "%s",
                "args": (record.getMessage(),),
                "fields": telling,
            }
            self._counts[key] = _Count(line, now + FIRST_SECONDS)
        return True

    def over(self, now: float) -> list[logging.LogRecord]:
        """Return the lines with the counts whose time is over at `now`, or infinity for all."""
        records = []
        for key, count in [*self._counts.items()]:
            if count.due > now:
                continue
            if not count.number:
                del self._counts[key]
                continue
            repeated = {"repeated": count.number, "within_seconds": count.seconds}
            fields = {**count.line["fields"], **repeated}
            records.append(logging.makeLogRecord({**count.line, "fields": fields}))
            count.number, count.seconds = 0, LATER_SECONDS
            count.due = now + LATER_SECONDS
        return records

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds until the next time is over; None if nothing is counted."""
        return min((one.due - now for one in self._counts.values()), default=None)


def _place(record: logging.LogRecord) -> Key:
    """Return the type of the exception of a line, and the line of code that raised it."""
    if record.exc_info is None or record.exc_info[0] is None:
        return ()
    frame = record.exc_info[2]
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = () if frame is None else (frame.tb_frame.f_code.co_filename, frame.tb_lineno)
    return (record.exc_info[0].__qualname__, *where)
