"""The two formats of log lines: nothing that is quoted begins a line or controls a terminal."""

import json
import logging
import sys
from collections.abc import Mapping

import pytest

from service.logs import JSONFormatter, TextFormatter

QUOTED = "a\n12:00:00 forged\r\x1b[31m\x00\x7f\x9b\u2028\u2029\u202e\ufeff\ud800\U000e0001é"


def record(message: str, fields: Mapping[str, object]) -> logging.LogRecord:
    made = logging.LogRecord("service", logging.ERROR, "x", 1, message, ("args",), None)
    made.fields = fields
    return made


@pytest.mark.parametrize("form", (TextFormatter, JSONFormatter))
def test_a_line_shows_only_printable_characters(form: type[logging.Formatter]) -> None:
    line = form().format(record(f"%s {QUOTED}", {"path": QUOTED, "error": ValueError(QUOTED)}))
    assert line.isprintable()
    assert "é" in line or "\\u00e9" in line
    line.encode()


def test_a_json_line_holds_the_exact_value() -> None:
    line = JSONFormatter().format(record("%s", {"path": QUOTED.replace("\ud800", "")}))
    assert json.loads(line)["path"] == QUOTED.replace("\ud800", "")
    assert json.loads(line)["time"].endswith("Z")


def test_no_line_of_a_traceback_looks_like_a_log_line() -> None:
    made = record("%s", {})
    try:
        raise ValueError(QUOTED)
    except ValueError:
        made.exc_info = sys.exc_info()
    first, *others = TextFormatter().format(made).split("\n")
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert "ValueError: a" in others[-2]
    assert JSONFormatter().format(made).isprintable()
    assert first.isprintable()
