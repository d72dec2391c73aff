"""The two formats of log lines: nothing that is quoted begins a line or controls a terminal."""

import json
import logging
import sys
from collections.abc import Mapping

import pytest

from service.logs import JSONFormatter, TextFormatter
from service.logs.line_queue import LineQueue
from service.logs.repeats import FAILURES, Repeats
from service.timing import BatchTiming, timing

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


class Written(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def failure(message: str = "failed", **more: object) -> logging.LogRecord:
    made = logging.LogRecord("service", logging.ERROR, "x", 1, message, (), None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def raised(message: str) -> logging.LogRecord:
    made = failure()
    try:
        raise ValueError(message)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_failure_that_lasts_is_one_line_and_then_a_count() -> None:
    repeats = Repeats()
    new = [repeats.is_new(failure(fields={"error": "E", "path": f"/{n}"}), n) for n in range(9)]
    assert new == [True] + [False] * 8
    assert repeats.over(9.9) == []
    assert repeats.seconds_left(9.0) == 1.0
    (line,) = repeats.over(10.0)
    assert line.getMessage() == "failed"
    assert vars(line)["fields"] == {"error": "E", "repeated": 8, "within_seconds": 10.0}
    assert not repeats.is_new(failure(fields={"error": "E"}), 30.0)
    assert repeats.over(69.0) == []
    (line,) = repeats.over(70.0)
    assert vars(line)["fields"] == {"error": "E", "repeated": 1, "within_seconds": 60.0}
    assert repeats.over(130.0) == []  # it has ended
    assert not repeats.open
    assert repeats.is_new(failure(fields={"error": "E"}), 131.0)


def test_only_equal_failures_are_counted_together() -> None:
    repeats = Repeats()
    different = (
        failure(),
        failure("another"),
        failure(name="another"),
        failure(fields={"error": "E"}),
        failure(fields={"statement": "items.add"}),
        raised("here"),
    )
    assert all(repeats.is_new(one, 0) for one in different)
    assert not any(repeats.is_new(one, 0) for one in different)
    assert not repeats.is_new(raised("with another text"), 0)
    assert repeats.is_new(failure(each=True), 0)


def test_so_many_different_failures_take_no_more_memory() -> None:
    repeats = Repeats()
    for number in range(3 * FAILURES):
        assert repeats.is_new(failure(str(number)), 0)
    assert repeats.is_new(failure(str(2 * FAILURES)), 0)
    assert not repeats.is_new(failure("0"), 0)
    assert len(repeats.over(float("inf"))) == 1


def test_the_last_counts_are_written_at_the_end() -> None:
    written = Written()
    lines = LineQueue(written)
    lines.start()
    for _ in range(3):
        lines.handle(failure())
    lines.handle(failure("%d", args=("no number",)))  # a bug in a line, which stops no request
    assert lines.stop()
    assert [getattr(one, "fields", {}).get("repeated") for one in written.records] == [None, 2]
    assert lines.dropped == 0


def test_lines_of_a_batch_have_the_name_of_its_statement() -> None:
    written = Written()
    lines = LineQueue(written)
    lines.start()
    token = timing.set(BatchTiming("items.add", 0.0))
    try:
        lines.handle(failure(fields={"error": "E"}))
        lines.handle(failure("another", fields={"statement": "items.add_many"}))
    finally:
        timing.reset(token)
    assert lines.stop()
    fields = [vars(one)["fields"] for one in written.records]
    assert fields == [{"statement": "items.add", "error": "E"}, {"statement": "items.add_many"}]
