"""Trials: the same checkout on several versions of Python, and its garbage collection on each.

`PYTHONS=path,path` names the interpreters, such as those of virtual environments. Without it, the
trials take this one and those below pyenv and in PATH that have the dependencies of this project.
"""

import os
import shutil
import statistics
import subprocess
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from bench import inprocess
from bench.contestants import PYTHON
from bench.inprocess import SERVICE, Inside, measured
from bench.processes import cpu, peak
from bench.stage import StagingTable, prepare, served

STARTS = 5
NEEDED = "import alembic, asyncpg, msgspec, redis, sqlalchemy, starlette, uvicorn, uvloop"
ASKED = f"{NEEDED}; import platform, sys; print(platform.python_version(), sys.flags.optimize)"
# Of garbage collection: the first is what the service sets.
COLLECTING = {
    "frozen, 10,000": {},
    "frozen, 700": {"VARIANT_GC": "700"},
    "frozen, 50,000": {"VARIANT_GC": "50000"},
    "frozen, off": {"VARIANT_GC": "0"},
    "not frozen, 10,000": {"VARIANT_FREEZE": "0"},
    "not frozen, 700": {"VARIANT_GC": "700", "VARIANT_FREEZE": "0"},
}


@cache
def pythons() -> dict[str, str]:
    """Return the interpreters by version; the first one is compared with."""
    if named := os.environ.get("PYTHONS"):
        paths = named.split(",")
    else:
        below = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        paths = [PYTHON, *map(str, sorted(below.glob("3.*/bin/python")))]
        paths += filter(None, (shutil.which(f"python3.{minor}") for minor in range(11, 20)))
    found: dict[str, str] = {}
    for path in paths:
        asked = subprocess.run([path, "-c", ASKED], check=False, capture_output=True, text=True)
        if asked.returncode == 0:
            found.setdefault(asked.stdout.split()[0], path)
        elif named:
            raise SystemExit(f"{path} lacks dependencies of this project:\n{asked.stderr}")
    return found


def table(on: StagingTable) -> str:
    """Return tables in Markdown: requests without sockets, and starts, by interpreter."""
    variants = [Inside(version, path) for version, path in pythons().items()]
    return "\n".join(
        [
            inprocess.table_of(
                "**What does a request cost in each Python, without sockets?** (`interpreters`)",
                measured(on, variants),
            ),
            _starts(on),
        ]
    )


def collecting(on: StagingTable) -> str:
    """Return tables in Markdown: requests without sockets, by garbage collection."""
    return "\n".join(
        inprocess.table_of(
            f"**How often should Python {version} look for garbage?** (`collecting`)",
            measured(
                on,
                [Inside(name, path, environ=environ) for name, environ in COLLECTING.items()],
                ("hot", "list", "create"),
            ),
        )
        for version, path in pythons().items()
    )


def _starts(on: StagingTable) -> str:
    found: dict[str, list[tuple[float, float]]] = {version: [] for version in pythons()}
    for number in range(STARTS + 1):
        for version, path in pythons().items():
            command = (path, *SERVICE.command[1:])
            program = SERVICE._replace(name=version, command=command, database="start")
            with ExitStack() as held:
                if not number and version == next(iter(found)):
                    prepare(on, program)
                server = held.enter_context(served(program, on, 1))
                if number:  # the first start writes bytecode
                    found[version].append((cpu(server.pid), peak(server.pid)))
    lines = ["| | CPU s until the first answer | MiB then |", "|---|---|---|"]
    for version, starts in found.items():
        used, memory = (statistics.median(each) for each in zip(*starts, strict=True))
        lines.append(f"| {version} | {used:.2f} | {memory:.0f} |")
    return "\n".join([*lines, ""])
