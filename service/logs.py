"""Log lines: JSON by default, plain text on a terminal.

A line may quote what a client sent, such as a path. So whatever could begin a line of its own or
control a terminal is escaped, in both formats.
"""

import json
import logging
import logging.handlers
import queue
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

logger = logging.getLogger("service")

# Lines of this process that were dropped because the queue was full, for metrics.
dropped = [0]

# Callers add fields with `extra={"fields": {...}}`: never a body, a query value or a key.
Form = Literal["json", "text", "off"]

_UNUSUAL = re.compile(r"[^\x20-\x7e]")
_UNUSUAL_IN_TRACEBACK = re.compile(r"[^\x20-\x7e\n]")


def _escaped(found: re.Match[str]) -> str:
    """Return a character escaped as in JSON, unless it is printable."""
    if found[0].isprintable():
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


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
        try:
            text = msgspec.json.encode(line, enc_hook=repr).decode()
        except UnicodeEncodeError:  # a lone surrogate, which UTF-8 does not have
            text = json.dumps(line, default=str)
        return _UNUSUAL.sub(_escaped, text)


class TextFormatter(logging.Formatter):
    """`12:00:00 WARNING message  field=value`; the lines of a traceback are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        fields = getattr(record, "fields", {})
        shown = "".join(f"  {name}={value!r}" for name, value in fields.items())
        return _UNUSUAL.sub(_escaped, super().formatMessage(record) + shown)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """Return the traceback; its last line may quote what a client sent."""
        text = _UNUSUAL_IN_TRACEBACK.sub(_escaped, super().formatException(ei))
        return "    " + text.replace("\n", "\n    ")


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
        del record
        dropped[0] += 1
