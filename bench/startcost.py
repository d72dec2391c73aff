"""Trial: CPU of a start until the first answer, and memory of its workers at rest.

`START_AGAINST` names another checkout, measured in turn with this one. A first start, which makes a
database, comes before the measured ones. On a busy machine all times grow: compare the lowest ones.
"""

import http.client
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.contestants import PYTHON, ROOT
from bench.processes import MiB, command, cpu, memory, tree
from bench.stage import StagingTable
from service import server

ROUNDS = 3
SERVERS, WORKERS = ("uvicorn", "granian"), (1, 2)
# Until the memory is read, after the first answers: the background has begun by then.
REST_SECONDS = 1.5


class Start(NamedTuple):
    """What a start has used.

    Attributes:
        seconds: until the first answer.
        service: CPU seconds of the service's processes until then.
        stores: CPU seconds of PostgreSQL and Redis until then.
        private: MiB that a worker shares with no process, at rest; the mean of the workers.
        proportional: MiB of all processes of the service; shared memory counts once.
        database: MiB of PostgreSQL, in the same way.
    """

    seconds: float
    service: float
    stores: float
    private: MiB
    proportional: MiB
    database: MiB


def table(_: StagingTable) -> str:
    """Return a table in Markdown; of each figure the lowest of the rounds."""
    trees = [ROOT, *map(Path, filter(None, [os.environ.get("START_AGAINST")]))]
    lines = [
        "**What does a start cost until the first answer, and a worker at rest?** (`start`)",
        "",
        "| checkout | server | workers | s | CPU s | stores | private MiB | all | PostgreSQL |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in SERVERS:
        for workers in WORKERS:
            found: dict[Path, list[Start]] = {tree: [] for tree in trees}
            with tempfile.TemporaryDirectory(prefix="start-") as place:
                Path(place).chmod(0o711)  # PostgreSQL runs as another user under root
                for number in range(ROUNDS + 1):
                    for at, tree in enumerate(trees):
                        data = Path(place) / str(at)
                        options = ("--server", name, "--workers", str(workers))
                        found[tree].append(_start(tree, data, number, *options))
            for tree, rounds in found.items():
                best = Start(*map(min, zip(*rounds[1:], strict=True)))
                lines.append(
                    f"| {tree.name} | {name} | {workers} | {best.seconds:.2f}"
                    f" | {best.service + best.stores:.2f} | {best.stores:.2f}"
                    f" | {best.private:.1f} | {best.proportional:.1f} | {best.database:.1f} |"
                )
    return "\n".join([*lines, ""])


def _start(checkout: Path, data: Path, number: int, *options: str) -> Start:
    port = server.free_port("127.0.0.1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode the start would be its compiling
    log = data.with_suffix(f".{number}.log")
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PYTHON, "-m", "service", "serve", *options, "--port", str(port), "--data", str(data)],
            cwd=checkout,
            env=kept,
            stdout=output,
            stderr=output,
        )
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.01)
        seconds = time.monotonic() - begin
        stores = sum(cpu(pid) for pid in tree(process.pid, deep=False) if not _is_ours(pid))
        service = cpu(process.pid) - stores
        for path in ("/items", "/users") * 5:
            _answers(port, path)
        time.sleep(REST_SECONDS)
        pids = tree(process.pid)
        ours = [pid for pid in pids if _is_ours(pid)]
        # With several workers, the first process is their parent.
        workers = [memory(pid).private for pid in ours[1:] or ours]
        return Start(
            seconds,
            service,
            stores,
            sum(workers) / len(workers),
            sum(memory(pid).proportional for pid in ours),
            sum(memory(pid).proportional for pid in pids if "postgres" in command(pid)),
        )
    finally:
        process.terminate()
        process.wait(30)


def _is_ours(pid: int) -> bool:
    """Whether a process is the service's; all others are the stores it has started."""
    return "service serve" in command(pid)


def _answers(port: int, path: str = "/items") -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
