"""Log lines: JSON by default, plain text on a terminal."""

import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import msgspec

logger = logging.getLogger("service")

# Callers add fields with `extra={"fields": {...}}`: never a body, a query value or a key.
Form = Literal["json", "text", "off"]


class JSONFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, extra fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """`12:00:00 WARNING message  field=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        fields = getattr(record, "fields", {})
        shown = "".join(f"  {name}={value!r}" for name, value in fields.items())
        return super().formatMessage(record) + shown


@contextmanager
def queued(form: Form | None, *, access: bool = False) -> Iterator[None]:
    """Log to stderr through a queue while requests are served: a slow target delays none of them.

    Before and after, a line is written at once, so that the lines keep their order.
    """
    handler = plain(form, access=access)
    if handler is None:
        yield
        return
    # Bounded: when the target hangs, lines are dropped instead of filling memory.
    lines: queue.Queue[logging.LogRecord] = queue.Queue(10_000)
    listener = logging.handlers.QueueListener(lines, handler)
    logger.handlers[:] = [_Dropping(lines)]
    listener.start()
    try:
        yield
    finally:
        logger.handlers[:] = [handler]
        listener.stop()


def plain(form: Form | None, *, access: bool = False) -> logging.Handler | None:
    """Log to stderr directly, for a process that serves no requests.

    Returns:
        The handler; None when logging is off.
    """
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    logging.getLogger("service.access").setLevel(logging.INFO if access else logging.CRITICAL)
    if form == "off":
        logger.addHandler(logging.NullHandler())
        return None
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form is None and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JSONFormatter())
    logger.addHandler(handler)
    return handler


def adopt(*names: str) -> None:
    """Write the lines of other loggers in the same format."""
    for name in names:
        other = logging.getLogger(name)
        other.handlers.clear()
        other.parent = logger


class _Dropping(logging.handlers.QueueHandler):
    """Puts the record into the queue unchanged: it stays in this process."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Drop the line when the queue is full."""
