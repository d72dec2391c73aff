"""Log lines on stderr: JSON by default, plain text on a terminal.

Callers add fields with `extra={"fields": {...}}`: never a body, a query value or a key. While a
request runs, its ids and its principal are added to each line, see timing.Timing.named.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from service.logs.formatters import JSONFormatter, TextFormatter
from service.logs.line_queue import LineQueue
from service.logs.output import Output

__all__ = ["FOREIGN", "Form", "JSONFormatter", "TextFormatter", "dropped", "logger", "plain"]
__all__ += ["queued"]

logger = logging.getLogger("service")

Form = Literal["json", "text", "off"]
# Loggers of servers and libraries whose lines have our format. Those that have no level show
# warnings and errors only.
FOREIGN = (
    *("uvicorn", "uvicorn.access", "_granian", "granian.access"),
    *("alembic", "asyncio", "asyncpg", "concurrent.futures", "opentelemetry"),
    # At INFO httpx logs URLs, which may have a password.
    *("httpcore", "httpx", "py.warnings", "redis", "sqlalchemy"),
)


@contextmanager
def queued(form: Form | None, *, access: bool = False) -> Iterator[None]:
    """Log to stderr through a queue while requests are served: a slow target delays none of them.

    Before and after, a line is written at once, so that the lines keep their order.
    """
    handler = plain(form, access=access)
    if handler is None:
        yield
        return
    lines = LineQueue(handler)
    logger.handlers[:] = [lines]
    handler.waits = True
    lines.start()
    try:
        yield
    finally:
        # A target that hangs would also delay the end of the process.
        written = lines.stop()
        handler.waits = False
        logger.handlers[:] = [handler if written else logging.NullHandler()]


def plain(form: Form | None, *, access: bool = False) -> Output | None:
    """Log to stderr directly, for a process that serves no requests.

    Returns:
        The handler; None when logging is off.
    """
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    logging.getLogger("service.access").setLevel(logging.INFO if access else logging.CRITICAL)
    logging.captureWarnings(capture=True)
    for name in FOREIGN:
        _adopt(logging.getLogger(name))
    # Its lines have the query string; those of service.access say the same without it.
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)
    if form == "off":
        logger.addHandler(logging.NullHandler())
        return None
    handler = Output(sys.stderr)
    text = form == "text" or (form is None and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JSONFormatter())
    logger.addHandler(handler)
    return handler


def dropped() -> int:
    """Return the number of lines that were dropped because the target of the log is too slow."""
    return sum(one.dropped for one in logger.handlers if isinstance(one, LineQueue))


def _adopt(other: logging.Logger) -> None:
    """Write the lines of another logger in our format."""
    other.handlers.clear()
    other.propagate = True
    other.parent = logger
    if other.level == logging.NOTSET:
        other.setLevel(logging.WARNING)
