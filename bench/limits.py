"""The limit of files: rows per second of COPY out of and into the table."""

import statistics
import subprocess
from pathlib import Path
from time import perf_counter

from bench.result import Figure, Table
from bench.stage import StagingTable, sql

REPEATS = 3
LINES = "COPY (SELECT row_to_json(t) FROM items t ORDER BY id) TO STDOUT"
COLUMNS = "name, description, price, is_active"


def copy(on: StagingTable, items: int) -> Table:
    """Measure `psql`: export all rows as lines of JSON, import them as CSV."""
    file = on.directory / "items.csv"
    rows = f"COPY (SELECT {COLUMNS} FROM items ORDER BY id) TO STDOUT (FORMAT csv)"
    file.write_bytes(psql(on, rows))
    out: list[float] = []
    into: list[float] = []
    for _ in range(REPEATS):
        start = perf_counter()
        psql(on, LINES)
        out.append(items / (perf_counter() - start) / 1000)
        start = perf_counter()
        psql(on, f"COPY items ({COLUMNS}) FROM STDIN (FORMAT csv)", file)
        into.append(items / (perf_counter() - start) / 1000)
        sql(on, f"DELETE FROM items WHERE id > {items}", "VACUUM items", "CHECKPOINT")
    return Table(
        "copy",
        "COPY by psql",
        "thousand rows/s",
        f"{items:,} rows; out as lines of JSON, in from CSV with all indexes.",
        [
            Figure(name, statistics.median(found), min(found), max(found))
            for name, found in (("out, JSON lines", out), ("in, CSV", into))
        ],
    )


def psql(on: StagingTable, text: str, stdin: Path | None = None) -> bytes:
    """Run psql, optionally with a file as its input; return its output."""
    with (stdin or Path("/dev/null")).open("rb") as source:
        done = subprocess.run(
            [str(on.programs / "psql"), "-X", "-q", "-c", text, on.database_url],
            stdin=source,
            check=True,
            capture_output=True,
        )
    return done.stdout
