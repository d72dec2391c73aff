"""The environment of the contestants: stores, equal data, servers."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import asyncpg
import redis

from bench.contestants import DATABASE, HTTPARENA, OTHERS, PUBLIC, Program
from bench.httparena import seed as httparena
from service import server
from service.asgi import MIGRATIONS
from service.embedded.programs import wheel_postgres, wheel_redis
from service.embedded.stores import stores
from service.items.seed import samples
from service.migrations import migrate

# The table of the public reference, like its models create it.
PUBLIC_TABLE = """
    CREATE TABLE IF NOT EXISTS items (
        id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, description TEXT, price FLOAT,
        is_active BOOLEAN NOT NULL, created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
        updated_at DATETIME
    );
    CREATE INDEX IF NOT EXISTS ix_items_id ON items (id);
    CREATE INDEX IF NOT EXISTS ix_items_name ON items (name);
"""
USERS = 1000
# The trigram index of searches: ours use lower(name), all others use name ILIKE.
OUR_SEARCH, THEIR_SEARCH = "items_search_idx", "items_ilike_idx"
SEARCHED = {OUR_SEARCH: "lower(name)", THEIR_SEARCH: "name"}
# Added to the settings of the embedded stores, which have full durability: connections for all
# pools, and no autovacuum, since the harness vacuums after each write.
SETTINGS = {"max_connections": "400", "autovacuum": "off", "checkpoint_timeout": "1h"}
SHOWN = (
    *("fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers"),
    *("max_wal_size", "checkpoint_timeout", "autovacuum", "max_connections", "jit"),
)


class StagingTable(NamedTuple):
    """The stores: their URLs, and the processes whose CPU is counted."""

    directory: Path
    database_url: str
    redis_url: str
    postmaster: int
    redis_pid: int
    programs: Path  # directory of PostgreSQL's programs, with pgbench and psql

    def of(self, program: Program) -> "StagingTable":
        """Return a copy with the URL of the program's database."""
        return self.named(program.database)

    def named(self, database: str) -> "StagingTable":
        url = self.database_url.replace(f"///{DATABASE}?", f"///{database}?")
        return self._replace(database_url=url)


class Server(NamedTuple):
    """A running contestant."""

    program: Program
    port: int
    pid: int
    workers: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def stage(directory: Path) -> Iterator[StagingTable]:
    """Run temporary embedded PostgreSQL and Redis in `directory`."""
    programs = wheel_postgres()
    data = directory / "data"
    with stores(
        data, postgres_bin=programs, redis_binary=wheel_redis(), settings=SETTINGS
    ) as running:
        if running.database_url is None or running.redis_url is None or programs is None:
            sys.exit("the benchmark needs the embedded PostgreSQL and Redis: Linux or macOS")
        migrate.up(running.database_url, MIGRATIONS)
        with redis.Redis.from_url(running.redis_url) as client:
            redis_pid = int(client.info("server")["process_id"])
        postmaster = int((data / "postgres" / "postmaster.pid").read_text().split("\n")[0])
        yield StagingTable(
            directory, running.database_url, running.redis_url, postmaster, redis_pid, programs
        )


def sql(on: StagingTable, *texts: str) -> list[asyncpg.Record]:
    """Run statements on a new connection; return the rows of the last one."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(on.database_url)
        try:
            rows: list[asyncpg.Record] = []
            for text in texts:
                rows = await connection.fetch(text)
            return rows
        finally:
            await connection.close()

    return asyncio.run(run())


def settle(on: StagingTable, items: int, after: Program | None = None) -> None:
    """After writes: delete new rows, vacuum, checkpoint."""
    new = f"DELETE FROM items WHERE id > {items}"
    if after is not None and after.name == PUBLIC:
        with sqlite3.connect(after.directory / "test_items.db") as file:
            file.execute(new)
    else:
        sql(on, new, "VACUUM items", "CHECKPOINT")


def quiet(on: StagingTable) -> None:
    """Wait until PostgreSQL has finished statements of disconnected clients, such as counts."""
    busy = (
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        " AND backend_type IN ('client backend', 'parallel worker')"
    )
    deadline = time.monotonic() + 30
    while sql(on, busy) and time.monotonic() < deadline:
        time.sleep(0.05)


def empty_caches(on: StagingTable) -> None:
    """Make our workers on this database drop what they have cached: another program writes."""
    sql(on, "DELETE FROM items WHERE false")


def keep_totals(on: StagingTable, *, kept: bool) -> None:
    """Switch the triggers of the totals, which only our service reads."""
    (row,) = sql(on, "SELECT tgenabled <> 'D' FROM pg_trigger WHERE tgname = 'items_inserted'")
    if row[0] == kept:
        return
    word = "ENABLE" if kept else "DISABLE"
    sql(on, f"ALTER TABLE items {word} TRIGGER USER", *(["SELECT recount_totals()"] * kept))


def log_changes(on: StagingTable, *, logged: bool) -> None:
    """Switch the triggers that log changes."""
    word = "ENABLE" if logged else "DISABLE"
    ways = ("created", "updated", "deleted", "truncated")
    sql(on, *(f"ALTER TABLE items {word} TRIGGER items_log_{way}" for way in ways))


def queue_jobs(on: StagingTable, *, queued: bool, told: bool) -> None:
    """Switch the trigger that queues a job for each new user, and NOTIFY in its transaction."""
    told_within = (
        "CREATE TRIGGER told_within AFTER INSERT ON jobs"
        " FOR EACH STATEMENT EXECUTE FUNCTION tell_jobs()"
    )
    sql(
        on,
        f"ALTER TABLE users {'ENABLE' if queued else 'DISABLE'} TRIGGER users_queue_jobs",
        "DROP TRIGGER IF EXISTS told_within ON jobs",
        *([told_within] * told),
    )


def search_index(on: StagingTable, wanted: str | None) -> None:
    """Keep only this trigram index on items, or none, so that writes never maintain two."""
    names = ", ".join(f"'{name}'" for name in SEARCHED)
    rows = sql(on, f"SELECT indexname FROM pg_indexes WHERE indexname IN ({names})")
    found: set[str | None] = {row[0] for row in rows}
    if found == {wanted} - {None}:
        return
    changes = [f"DROP INDEX {name}" for name in found - {wanted}]
    if wanted and wanted not in found:
        expression = SEARCHED[wanted]
        changes += [f"CREATE INDEX {wanted} ON items USING gin ({expression} gin_trgm_ops)"]
    sql(on, *changes, "VACUUM (ANALYZE) items", "CHECKPOINT")


@contextmanager
def searches_by_index(on: StagingTable, database: str) -> Iterator[None]:
    """Force new connections to use indexes, also on small tables."""
    settings = ("enable_seqscan", "enable_indexscan", "enable_indexonlyscan")
    sql(on, *(f"ALTER DATABASE {database} SET {name} = off" for name in settings))
    try:
        yield
    finally:
        sql(on, *(f"ALTER DATABASE {database} RESET {name}" for name in settings))


def fill(on: StagingTable, items: int) -> None:
    """Fill the tables with the samples again, ids 1 to `items`; empty Redis."""
    keep_totals(on, kept=True)
    sql(on, "TRUNCATE items, users RESTART IDENTITY CASCADE")
    rows = {"users": min(USERS, items), "items": items}
    asyncio.run(samples.write(on.database_url, rows, lambda *_: None))
    sql(on, "VACUUM (FULL, ANALYZE) items", "VACUUM (ANALYZE) items", "CHECKPOINT")
    forget(on)


def forget(on: StagingTable) -> None:
    """Empty Redis."""
    with redis.Redis.from_url(on.redis_url) as client:
        client.flushall()


def prepare(on: StagingTable, *programs: Program) -> None:
    """Create the databases of programs. No client may be connected to ours, or to older copies."""
    for database in dict.fromkeys(one.database for one in programs):
        if database != DATABASE:
            create(on, database)
    for one in programs:
        if one.name == PUBLIC:
            _fill_public(on, one.directory)


def create(on: StagingTable, database: str) -> None:
    """Create a database of programs, as `prepare` does."""
    postgres, made = on.named("postgres"), on.named(database)
    sql(postgres, f"DROP DATABASE IF EXISTS {database}")
    if database == HTTPARENA:
        sql(postgres, f"CREATE DATABASE {database}")
        asyncio.run(httparena.seed(made.database_url))
        return
    sql(postgres, f"CREATE DATABASE {database} TEMPLATE {DATABASE} STRATEGY FILE_COPY")
    if database == OTHERS:
        _keep_what_others_use(made)
    sql(made, "VACUUM (ANALYZE) items", "VACUUM (ANALYZE) users", "CHECKPOINT")


def _keep_what_others_use(on: StagingTable) -> None:
    """Drop our triggers, and our indexes but those that serve the others' statements.

    The primary key finds a row, orders the list and counts it. The sku is unique, as it is for us.
    Searches by ILIKE have their own trigram index.
    """
    triggers = sql(
        on,
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'items'::regclass AND NOT tgisinternal",
    )
    indexes = sql(
        on,
        "SELECT indexrelid::regclass::text FROM pg_index"
        " WHERE indrelid = 'items'::regclass AND NOT indisunique",
    )
    sql(
        on,
        *(f"DROP TRIGGER {name} ON items" for (name,) in triggers),
        *(f"DROP INDEX {name}" for (name,) in indexes),
    )
    search_index(on, THEIR_SEARCH)


def _fill_public(on: StagingTable, copy: Path) -> None:
    """Fill the SQLite file of the public reference with the same items."""
    columns = "id, name, description, price, is_active, created_at"
    rows = sql(on, f"SELECT {columns} FROM items ORDER BY id")
    with sqlite3.connect(copy / "test_items.db") as file:
        file.executescript(PUBLIC_TABLE)
        file.execute("DELETE FROM items")
        file.executemany(
            f"INSERT INTO items ({columns}) VALUES (?, ?, ?, ?, ?, ?)",
            [_plain(row) for row in rows],
        )


def _plain(row: asyncpg.Record) -> tuple[Any, ...]:
    """Return the values as SQLAlchemy stores them in SQLite."""
    *before, price, is_active, created = row
    number = None if price is None else float(price)
    return (*before, number, int(is_active), created.strftime("%Y-%m-%d %H:%M:%S"))


@contextmanager
def served(program: Program, on: StagingTable, workers: int) -> Iterator[Server]:
    """Run a contestant, started like users start it, and wait until it answers.

    Raises:
        SystemExit: it does not start; with its output.
    """
    port = server.free_port("127.0.0.1")
    log = on.directory / f"{program.name}-{workers}.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    filled = {
        name: value.format(port=port, workers=workers) for name, value in program.environ.items()
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            program.argv(port, workers),
            cwd=program.directory,
            env={
                **kept,
                "PYTHONPATH": str(program.directory),
                "DATABASE_URL": on.of(program).database_url,
                "REDIS_URL": on.redis_url,
                **filled,
            },
            stdout=output,
            stderr=output,
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield Server(program, port, process.pid, workers)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except HTTPError as error:
            if error.code < 500:
                return
            time.sleep(0.05)
        except (URLError, OSError):
            time.sleep(0.05)
    sys.exit(f"{log.stem} does not answer:\n{log.read_text()[-2000:]}")
