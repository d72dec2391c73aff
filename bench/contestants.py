"""The contestants: command (like users start them), conditions and workloads of each."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bench.result import Contestant, Kind
from bench.workloads import CONSTANT, CRUD, WORKLOADS

ROOT = Path(__file__).parent.parent
FASTIFY = ROOT / "bench" / "opponents" / "fastify"
ALL = frozenset(one.name for one in WORKLOADS) - {CRUD, CONSTANT}
PAGED = ALL - {one for one in ALL if one.startswith("cursor-")}
BASIC = frozenset({"read", "hot", "list", "create", "patch", "mixed"})
OURS, PLAIN, ALONE = "swiftlet", "swiftlet-plain", "swiftlet-alone"
PUBLIC = "reference-public"
HTTPARENA = "httparena"
# Omitted by `just bench quick`: variants that explain differences.
FULL_ONLY = frozenset(
    {
        *("engine", "engine-autocommit", "fastify-single", "starlette", "litestar"),
        *(ALONE, "swiftlet-granian", "constant-uvicorn"),
    }
)
# Also measured with other connections, workers, table sizes and rates.
MAIN = frozenset({OURS, PLAIN, "reference", "blacksheep", "fastify", CONSTANT})

# Databases in the same PostgreSQL. `service` has our tables, and is what the others are copied
# from. `others` has what opponents and references need of them: see `stage.prepare`. Each of ours
# that caches has its own, since a worker caches nothing while other nodes write to its database.
DATABASE, OTHERS = "service", "others"

PYTHON = sys.executable
_UVICORN = (PYTHON, "-m", "uvicorn", "--loop", "uvloop", "--no-access-log")
UVICORN = (*_UVICORN, "--http", "httptools")
# Same options as in `swiftlet serve`.
OUR_SERVER = (*_UVICORN, "--no-server-header", "--http", "service.http1.connection:Connection")
GRANIAN = (
    *(PYTHON, "-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--http", "1", "--no-ws"),
    *("--backlog", "4096", "--backpressure", "4096", "--log-level", "warning"),
)


class Program(NamedTuple):
    """A contestant and its command, with the placeholders `{port}` and `{workers}`.

    Args:
        unfair: what is unfair in the comparison, and in whose favour.
        workloads: workloads in which it takes part.
        rules: allowed differences of its answers, see correctness.py; None for a program without a
            correctness run: it has no API, or only a part of ours.
        collection: path of its list.
        environ: environment variables besides the URLs of the stores.
        most_workers: maximum number of worker processes.
        fresh: whether it is restarted for each round.
        database: name of its database in the same PostgreSQL; a copy unless it is `service`.
        caches: whether a cache may answer; then hot reads are preceded by the same load.
    """

    name: str
    title: str
    kind: Kind
    command: tuple[str, ...]
    about: str
    unfair: str = ""
    workloads: frozenset[str] = PAGED
    rules: frozenset[str] | None = frozenset()
    collection: str = "/items"
    environ: Mapping[str, str] = MappingProxyType({})
    most_workers: int = 2
    directory: Path = ROOT
    database: str = OTHERS
    fresh: bool = False
    caches: bool = False

    def argv(self, port: int, workers: int) -> list[str]:
        return [part.format(port=port, workers=workers) for part in self.command]

    def described(self) -> Contestant:
        """Return the entry of the result."""
        command = " ".join(self.command).replace(PYTHON, "python")
        return Contestant(self.name, self.title, self.kind, self.about, command, self.unfair)


def _serve(server: str) -> tuple[str, ...]:
    serve = (PYTHON, "-m", "service", "serve", "--server", server)
    return (*serve, "--port", "{port}", "--workers", "{workers}")


SERVED = ("--port", "{port}", "--workers", "{workers}")

PROGRAMS = (
    Program(
        OURS,
        "Swiftlet",
        "ours",
        _serve("uvicorn"),
        "This service as it is by default, with a Redis: both tiers of its cache",
        workloads=ALL,
        database=OURS,
        caches=True,
    ),
    Program(
        PLAIN,
        "Swiftlet, cache off",
        "ours",
        _serve("uvicorn"),
        "This service with SERVICE_CACHE=off",
        workloads=ALL,
        environ={"SERVICE_CACHE": "off"},
        database=DATABASE,
    ),
    Program(
        ALONE,
        "Swiftlet, no Redis",
        "ours",
        _serve("uvicorn"),
        "This service as it is by default, without a Redis: the tier in the process",
        workloads=BASIC,
        environ={"REDIS_URL": "off"},
        database="alone",
        caches=True,
    ),
    Program(
        "swiftlet-granian",
        "Swiftlet (granian)",
        "ours",
        _serve("granian"),
        "This service as it is by default, under the other server",
        workloads=BASIC | {"create-1000"},
        database="granian",
        caches=True,
    ),
    Program(
        "reference",
        "FastAPI reference",
        "reference",
        (*UVICORN, *SERVED, "bench.reference.main:app"),
        "FastAPI, Pydantic 2, SQLAlchemy's async ORM, a pool of 20 + 10 with pre-ping",
        rules=frozenset({"detail", "null is dropped"}),
    ),
    Program(
        "reference-cached",
        "FastAPI reference, cached",
        "reference",
        (*UVICORN, *SERVED, "bench.reference.cached:app"),
        "The same with Redis cache-aside, 300 s, entries deleted by writes",
        rules=frozenset({"detail", "null is dropped"}),
        workloads=BASIC - {"read"},
        caches=True,
        unfair="For it: a hit may be older than the database when a read races a write.",
    ),
    Program(
        "starlette",
        "Starlette + asyncpg",
        "opponent",
        (*GRANIAN, *SERVED, "bench.opponents.starlette_asyncpg:app"),
        "Starlette's own endpoints, asyncpg's pool without the reset query",
        rules=frozenset({"detail"}),
    ),
    Program(
        "litestar",
        "Litestar + msgspec",
        "opponent",
        (*GRANIAN, *SERVED, "bench.opponents.litestar_msgspec:app"),
        "Litestar with msgspec Structs, asyncpg's pool without the reset query",
        rules=frozenset({"detail", "400 for 422"}),
    ),
    Program(
        "blacksheep",
        "BlackSheep + asyncpg",
        "opponent",
        (*GRANIAN, *SERVED, "bench.opponents.blacksheep_asyncpg:app"),
        "BlackSheep, asyncpg's pool without the reset query",
        rules=frozenset({"detail", "400 for 422"}),
    ),
    Program(
        "fastify",
        "Fastify + postgres.js",
        "opponent",
        ("node", "server.js"),
        "Fastify 5 with JSON schemas, postgres.js, which pipelines",
        rules=frozenset({"detail", "400 for 422", "milliseconds"}),
        unfair=(
            "For it: restarted for each round. The queue of idle connections in postgres.js "
            "3.4.9 grows under load and is searched from its start: after some 500,000 requests "
            "a read took five times the CPU."
        ),
        environ={"PORT": "{port}", "WORKERS": "{workers}", "NODE_ENV": "production"},
        directory=FASTIFY,
        fresh=True,
    ),
    Program(
        "fastify-single",
        "Fastify, one connection",
        "limit",
        ("node", "server.js"),
        "The same on one connection: what pipelining alone allows",
        unfair="For it: not usable in production, since a slow statement delays all others.",
        workloads=BASIC - {"list"},
        rules=frozenset({"detail", "400 for 422", "milliseconds"}),
        environ={
            "PORT": "{port}",
            "WORKERS": "{workers}",
            "NODE_ENV": "production",
            "POOL": "1",
        },
        directory=FASTIFY,
        fresh=True,
    ),
    Program(
        "engine",
        "Swiftlet on AsyncEngine",
        "opponent",
        (*OUR_SERVER, *SERVED, "bench.engine_app:app"),
        "This service with its statements run by SQLAlchemy's AsyncEngine",
        workloads=frozenset({"read"}),
        rules=None,
        database=DATABASE,
        unfair="Against it: a pool of 20 + 10 connections with the engine's defaults, ours has 4.",
    ),
    Program(
        "engine-autocommit",
        "Swiftlet on AsyncEngine, AUTOCOMMIT",
        "opponent",
        (*OUR_SERVER, *SERVED, "bench.engine_app:app"),
        "The same, saving the engine its BEGIN and ROLLBACK",
        workloads=frozenset({"read"}),
        rules=None,
        environ={"ENGINE_ISOLATION": "AUTOCOMMIT"},
        database=DATABASE,
    ),
    Program(
        HTTPARENA,
        "HttpArena's profile on our kernel",
        "ours",
        (*OUR_SERVER, *SERVED, "bench.httparena.app:app"),
        "Another API on our db, cache and web rooms, see bench/httparena",
        workloads=frozenset({CRUD}),
        rules=None,
        environ={"WORKERS": "{workers}", "REDIS_URL": "off"},
        database=HTTPARENA,
    ),
    Program(
        CONSTANT,
        "Constant answer",
        "limit",
        (*OUR_SERVER, *SERVED, "bench.opponents.constant:app"),
        "An ASGI function that sends the same bytes, under the server that ours has",
        workloads=frozenset({CONSTANT}),
        rules=None,
    ),
    Program(
        "constant-uvicorn",
        "Constant answer, uvicorn's HTTP",
        "limit",
        (*UVICORN, *SERVED, "bench.opponents.constant:app"),
        "The same function under uvicorn's own HTTP/1.1, by httptools",
        workloads=frozenset({CONSTANT}),
        rules=None,
    ),
)
BY_NAME = {one.name: one for one in PROGRAMS}

PGBENCH = Contestant(
    "pgbench",
    "pgbench",
    "limit",
    "PostgreSQL's C client: one row per statement and commit, prepared, no HTTP",
    "pgbench -M prepared -n -c {connections} -j 1 -f FILE",
    "For it: no HTTP, no JSON, one process without Python. It has the database of the others.",
)
PGBENCH_WORKLOADS = frozenset({"read", "create", "patch"})


def slowed(program: Program, milliseconds: float) -> Program:
    """Return our service, slowed down on purpose."""
    return program._replace(
        command=(*OUR_SERVER, *SERVED, "bench.slowed:app"),
        environ={"SLOW_MS": str(milliseconds)},
    )


def public_reference(directory: Path, copy: Path) -> Program:
    """Return the unchanged public reference repository, on its own SQLite, run in a copy."""
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns(".git", ".venv", "*.db"))
    return Program(
        PUBLIC,
        "Public reference, as it is",
        "reference",
        (*UVICORN, "--no-use-colors", *SERVED, "main:app"),
        "The public repository's program, unchanged, on its own SQLite file",
        unfair=(
            "Neither way: another database, in its own process, less durable and without a "
            "socket. Its log is as it sets it, at DEBUG. Its paths end in a slash."
        ),
        rules=frozenset(
            {"detail", "null is dropped", "PUT is PATCH", "410 for 204", "wildcards", "no zone"}
        ),
        most_workers=1,
        directory=copy,
        collection="/items/",
    )


def missing(program: Program) -> str | None:
    """Return why it can't be started here and what to do, or None."""
    if program.directory == FASTIFY:
        if shutil.which("node") is None or shutil.which("npm") is None:
            return "node and npm are missing: install Node.js 20 or newer"
        if not (FASTIFY / "node_modules").exists():
            print("fastify: npm install", flush=True)
            done = subprocess.run(
                ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"],
                cwd=FASTIFY,
                check=False,
            )
            if done.returncode:
                return "npm install failed: see above"
    return None
