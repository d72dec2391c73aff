"""Import and export of a million rows against psql, and the effect on other requests.

In each round psql and the service export the same rows to /dev/null, then import the same new rows
into the same table, from the same state. During the turns of the service a probe reads single rows
at a fixed rate, as it did at rest.
"""

import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from bench import upsert
from bench.beside import SERVICE, WORK, Beside, Probe, give_skus, measured
from bench.beside import shown as shown_beside
from bench.limits import LINES, psql
from bench.processes import forget_peak, peak
from bench.stage import Server, StagingTable, fill, served, sql, stage

FIELDS = "sku, name, description, price, is_active, owner_id"
AT_REST, BESIDE_SECONDS = 10.0, 5.0
# For a client that reads one byte per second.
SLOW_SECONDS = 10
Say = Callable[[str], None]


class Turn(NamedTuple):
    """A measurement of one round: rows per second, additional MiB, p99 of reads in ms."""

    what: str
    who: str
    rate: float
    more: float
    p99: float


def run(items: int, rounds: int, say: Say, told: list[str]) -> Iterator[Turn]:
    """Yield each turn of each round; the first is the probe at rest.

    The tables of others beside heavy work, and of the upsert trial, are appended to `told`.
    """
    others: list[Beside] = []
    with tempfile.TemporaryDirectory(prefix="files-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL runs as another user under root
        with stage(directory) as on:
            say(f"{items:,} items")
            fill(on, items)
            new = new_rows(on, directory)
            with served(SERVICE, on, 1) as server:
                probe = Probe(server, items)
                say("at rest")
                with probe.during():
                    time.sleep(AT_REST)
                yield Turn("reads", "at rest", 0, 0, probe.p99)
                for number in range(rounds):
                    say(f"round {number + 1} of {rounds}: out")
                    yield _psql_out(on, items)
                    yield _export(server, probe, items)
                    say(f"round {number + 1} of {rounds}: in")
                    yield _psql_in(on, items, new[0])
                    settle_items(on, items)
                    yield _import(server, probe, items, new[1])
                    settle_items(on, items)
                say("a reader of one byte a second")
                yield _slow(server)
                give_skus(on, items)
                for number in range(rounds):
                    say(f"round {number + 1} of {rounds}: others beside heavy work")
                    others += measured(on, server, items, number, BESIDE_SECONDS, WORK)
            say("upserts of a thousand rows, against one by one")
            fill(on, upsert.ITEMS)
            told += ["\n".join(shown_beside(others)), upsert.table(on)]


def new_rows(on: StagingTable, directory: Path) -> tuple[Path, Path]:
    """Write the rows with other skus as CSV and as NDJSON."""
    rows = f"SELECT 'NEW' || sku AS sku, {FIELDS.removeprefix('sku, ')} FROM items ORDER BY id"
    as_csv, as_lines = directory / "new.csv", directory / "new.ndjson"
    as_csv.write_bytes(psql(on, f"COPY ({rows}) TO STDOUT (FORMAT csv)"))
    raw = "(FORMAT csv, DELIMITER e'\\x02', QUOTE e'\\x01')"
    as_lines.write_bytes(psql(on, f"COPY (SELECT row_to_json(t) FROM ({rows}) t) TO STDOUT {raw}"))
    return as_csv, as_lines


def settle_items(on: StagingTable, items: int) -> None:
    sql(on, f"DELETE FROM items WHERE id > {items}", "VACUUM items", "CHECKPOINT")


def _psql_out(on: StagingTable, items: int) -> Turn:
    began = perf_counter()
    _run([str(on.programs / "psql"), "-X", "-q", "-c", LINES, on.database_url])
    return Turn("out", "psql", items / (perf_counter() - began), 0, 0)


def _psql_in(on: StagingTable, items: int, file: Path) -> Turn:
    began = perf_counter()
    psql(on, f"COPY items ({FIELDS}) FROM STDIN (FORMAT csv)", file)
    return Turn("in", "psql", items / (perf_counter() - began), 0, 0)


def _export(server: Server, probe: Probe, items: int) -> Turn:
    url = f"{server.url}/items/export"
    return _ours("out", server, probe, items, ["curl", "-sSf", "-o", "/dev/null", url])


def _import(server: Server, probe: Probe, items: int, file: Path) -> Turn:
    words = ["curl", "-sSf", "-X", "POST", "-H", "Content-Type: application/x-ndjson"]
    words += ["-H", "Expect:", "-T", str(file), f"{server.url}/items/import"]
    return _ours("in", server, probe, items, words)


def _ours(what: str, server: Server, probe: Probe, items: int, words: list[str]) -> Turn:
    forget_peak(server.pid)
    before = peak(server.pid)
    with probe.during():
        began = perf_counter()
        _run(words)
        took = perf_counter() - began
    return Turn(what, "swiftlet", items / took, peak(server.pid) - before, probe.p99)


def _slow(server: Server) -> Turn:
    forget_peak(server.pid)
    before = peak(server.pid)
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", server.port))
        one.sendall(b"GET /items/export HTTP/1.1\r\nHost: bench\r\n\r\n")
        for _ in range(SLOW_SECONDS):
            one.recv(1)
            time.sleep(1)
        more = max(0.0, peak(server.pid) - before)
        return Turn("out, 1 B/s", "swiftlet", 0, more, 0)


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def shown(turns: list[Turn]) -> list[str]:
    """Return lines of a table: medians of the rounds, ratios of medians."""
    rest = next(turn.p99 for turn in turns if turn.who == "at rest")
    lines = [
        "| | psql, rows/s | swiftlet, rows/s | ratio | MiB more | p99 of reads, of that at rest |",
        "|---|---|---|---|---|---|",
    ]
    for what in ("out", "in"):
        theirs, ours = (
            [turn for turn in turns if (turn.what, turn.who) == (what, who)]
            for who in ("psql", "swiftlet")
        )
        slow, fast = (statistics.median(turn.rate for turn in some) for some in (theirs, ours))
        more = max(turn.more for turn in ours)
        p99 = statistics.median(turn.p99 for turn in ours)
        ratios = f"{fast / slow:.2f} | {more:.0f} | {p99 / rest:.1f} ({p99:.1f} ms)"
        lines.append(f"| {what} | {slow:,.0f} | {fast:,.0f} | {ratios} |")
    lines.append(f"| out, one byte a second | - | - | - | {turns[-1].more:.0f} | - |")
    return lines
