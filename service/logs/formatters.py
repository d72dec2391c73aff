"""The formats of log lines: JSON, and plain text for a terminal.

A line may quote what a client sent, such as a path. So whatever could begin a line of its own or
control a terminal is escaped, in both formats.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

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
