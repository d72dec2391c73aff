"""Trial: seconds and CPU of a start until the first answer.

`START_AGAINST` names another checkout, measured in turn with this one. The seconds depend on other
programs on the machine, the CPU does not.
"""

import http.client
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.contestants import PYTHON, ROOT
from bench.processes import cpu
from bench.stage import StagingTable
from service import server

ROUNDS = 5
SERVERS, WORKERS = ("uvicorn", "granian"), (1, 2)


def table(_: StagingTable) -> str:
    """Return a table in Markdown: the first start of a directory, and the median of later ones."""
    trees = [ROOT, *map(Path, filter(None, [os.environ.get("START_AGAINST")]))]
    lines = [
        "**What does a start cost until the first answer?** (`start`)",
        "",
        "| checkout | server | workers | first s | first CPU s | next s | next CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in SERVERS:
        for workers in WORKERS:
            found: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in trees}
            with tempfile.TemporaryDirectory(prefix="start-") as place:
                Path(place).chmod(0o711)  # PostgreSQL runs as another user under root
                for number in range(ROUNDS + 1):
                    for at, tree in enumerate(trees):
                        data = Path(place) / str(at)
                        options = ("--server", name, "--workers", str(workers))
                        found[tree].append(_start(tree, data, number, *options))
            for tree, (first, *others) in found.items():
                took, used = (statistics.median(each) for each in zip(*others, strict=True))
                lines.append(
                    f"| {tree.name} | {name} | {workers} | {first[0]:.2f} | {first[1]:.2f}"
                    f" | {took:.2f} | {used:.2f} |"
                )
    return "\n".join([*lines, ""])


def _start(tree: Path, data: Path, number: int, *options: str) -> tuple[float, float]:
    port = server.free_port("127.0.0.1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    log = data.with_suffix(f".{number}.log")
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PYTHON, "-m", "service", "serve", *options, "--port", str(port), "--data", str(data)],
            cwd=tree,
            env=kept,
            stdout=output,
            stderr=output,
        )
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.01)
        return time.monotonic() - begin, cpu(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/items")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
