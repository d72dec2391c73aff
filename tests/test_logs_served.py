"""What a real server writes to its log: lines of requests, statements, servers and libraries."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Service, query
from test_cache_redis import eventually

from service.logs import FOREIGN
from service.logs.line_queue import LINES

KEY = {"X-API-Key": "test_reader_secret-reader"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = "mm-never-shown"
BANNER = re.compile(r" *[A-Z]\w+  ")


class Observed:
    """A server with observed_app."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = httpx.Client(base_url=service.url, headers=KEY, timeout=30)

    def lines(self) -> list[dict[str, Any]]:
        """The complete lines of the log, without the banner, which is no log line."""
        *lines, _ = self.service.log.read_text().split("\n")
        return [json.loads(line) for line in lines if not BANNER.match(line)]

    def wait_for(self, message: str, number: int = 1, **fields: object) -> list[dict[str, Any]]:
        """Return the lines with a message and fields, when there are enough."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            wanted = {"message": message, **fields}.items()
            found[:] = [line for line in self.lines() if wanted <= line.items()]
            return len(found) >= number

        eventually(look, 10)
        return found


@pytest.fixture(scope="module", params=("uvicorn", pytest.param("granian", marks=pytest.mark.slow)))
def observed(
    request: pytest.FixtureRequest, own_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    query(
        own_database_url,
        "INSERT INTO items (name, price) SELECT $1 || n, 1 FROM generate_series(1, 4) AS n",
        SECRET,
    )
    running = Service(
        tmp_path_factory.mktemp("observed") / "service.log",
        *("--server", request.param, "--app", "observed_app:app"),
        DATABASE_URL=own_database_url,
        REDIS_URL="off",
        PYTHONPATH=str(Path(__file__).parent),
        SERVICE_AUTH="on",
        SERVICE_LOG="json",
        SERVICE_SLOW_REQUEST_MS="80",
        SERVICE_SLOW_QUERY_MS="80",
        SERVICE_LOG_STATEMENTS="items.add,items.by_id+values,items.page*,users.*",
    )
    try:
        running.wait_until_ready()
        found = Observed(running)
        with found.client:
            yield found
        assert running.stop() == 0
        found.lines()
    finally:
        running.process.kill()
        running.process.wait()


def test_a_failure_is_one_line_with_its_request_and_then_a_count(observed: Observed) -> None:
    trace = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-ID": "the-first"}
    assert observed.client.get("/fails/1", headers=trace).status_code == 500
    for number in range(5):
        assert observed.client.get(f"/fails/{number}").status_code == 500
    observed.client.get("/speaks")
    observed.wait_for("spoken by us")
    line, *others = observed.wait_for("request failed")
    assert len(others) < 5  # none, unless it took longer than the time of a count
    assert "ValueError: a bug" in line.pop("traceback")
    del line["time"]
    assert line == {
        "level": "ERROR",
        "logger": "service",
        "message": "request failed",
        "request_id": "the-first",
        "trace_id": TRACE,
        "principal": 7,
        "key": 1,
        "method": "GET",
        "path": "/fails/1",
    }


def test_lines_of_libraries_have_our_format_and_their_request(observed: Observed) -> None:
    observed.client.get("/speaks", headers={"X-Request-ID": "speaker"})
    (ours, *_) = observed.wait_for("spoken by us", request_id="speaker")
    assert ours["level"] == "INFO"
    lines = observed.lines()
    for name in FOREIGN:
        spoken = [line for line in lines if line["logger"] == name]
        if name == "uvicorn.access":  # its lines have the query string; ours say the rest
            assert not spoken
            continue
        assert spoken, name
        assert spoken[0]["level"] == "WARNING"
        assert "request_id" in spoken[0]
        if name != "py.warnings":
            assert spoken[0]["message"] == f"spoken by {name}"
    warned, *_ = [line["message"] for line in lines if line["logger"] == "py.warnings"]
    assert "UserWarning: spoken by a warning" in warned
    assert [line["logger"] for line in lines if line["message"] == "spoken by the loop"]
    assert not [line for line in lines if line["message"] == "whispered"]


def test_a_slow_statement_is_one_line_however_many_requests_it_serves(observed: Observed) -> None:
    def get(number: int) -> int:
        headers = {**KEY, "X-Request-ID": f"slow-{number}"}
        url = f"{observed.service.url}/sleeps/{number}?seconds=0.5"
        return httpx.get(url, headers=headers, timeout=30).status_code

    with ThreadPoolExecutor(6) as pool:
        assert [*pool.map(get, range(6))] == [200] * 6
    slow = observed.wait_for("slow request", 6, route="/sleeps/{id}")
    assert {line["request_id"] for line in slow} == {f"slow-{number}" for number in range(6)}
    for line in slow:
        assert (line["method"], line["status"], line["statements"]) == ("GET", 200, 1)
        assert line["seconds"] >= line["sql"] >= 0.5
        assert {"queue", "pool", "cache", "encode"} <= line.keys()
        assert "path" not in line
    statements = observed.wait_for("slow query", statement="test.sleep")
    assert len(statements) < 6
    assert all(line["seconds"] >= 0.5 and line["rows"] == 1 for line in statements)
    alone = [line for line in statements if "request_id" in line]
    shared = [line for line in statements if "request_id" not in line]
    assert alone
    assert alone[0]["waited_for_batch"] == 0
    assert shared
    assert shared[0]["waited_for_batch"] > 0
    assert "0.5" not in str({**shared[0], "seconds": 0, "time": 0, "waited_for_batch": 0})


def test_statements_are_shown_and_values_only_by_exact_name(observed: Observed) -> None:
    headers = {"Cache-Control": "no-cache"}
    assert observed.client.get("/items/3", headers=headers).status_code == 200
    (one,) = observed.wait_for("statement", statement="items.by_id")
    assert one["values"] == {"id": "3"}
    assert one["rows"] == 1
    assert one["seconds"] < 10
    assert one["request_id"]
    observed.client.get(f"/items?q={SECRET}", headers=headers)
    observed.client.get(f"/users?q={SECRET}", headers=headers)
    eventually(lambda: "users.page" in observed.service.log.read_text(), 10)
    shown = [line for line in observed.lines() if line["message"] == "statement"]
    assert any(line["statement"].startswith("items.page") for line in shown)
    assert all("values" not in line for line in shown if line["statement"] != "items.by_id")
    assert SECRET not in observed.service.log.read_text()


FULL = f"""
import sys
from service.logs import dropped, logger, queued
with queued("json"):
    for number in range({LINES} + 5000):
        logger.info("line %d of some length, so that the pipe is full soon", number)
    print("full" if dropped() else "all written", flush=True)
    sys.stdin.readline()
print("ended", flush=True)
"""


@pytest.mark.parametrize("reads", (False, True))
def test_a_reader_that_hangs_blocks_nothing(reads: bool) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FULL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stdout.readline() == "full\n"  # before anything was read
        lines: list[str] = []
        if reads:
            while "were dropped" not in (line := process.stderr.readline()):
                lines.append(line)
            number = json.loads(line)["dropped"]
            while len(lines) + number < LINES + 5000:
                lines.append(process.stderr.readline())
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ended\n"
        assert process.wait(30) == 0
        if reads:
            assert process.stderr.read() == ""


DIRECT = """
from service.logs import logger, plain
plain("json")
for number in range(5000):
    logger.info("line %d of some length, so that the pipe is full soon", number)
"""


def test_a_reader_that_hangs_does_not_hold_up_a_process_without_a_queue() -> None:
    """The process that starts workers again when they end."""
    process = subprocess.Popen([sys.executable, "-c", DIRECT], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process:
        assert process.wait(60) == 0
        *lines, last = process.stderr.read().split("\n")
    assert [json.loads(line)["message"].split()[1] for line in lines[:9]] == list("012345678")
    assert len(lines) < 5000
    assert not last
