"""Imports in the background: the file waits on disk, and its rows are written exactly once."""

import asyncio
import gzip
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]  # it has no stubs
import pytest
from accounts import account
from conftest import EMPTY_TABLES, ROOT, SERVER, Service, query

from service.db.database import Database
from service.jobs.spool import Spool
from service.jobs.spool_cleaning import clean
from service.settings import Settings

LIMIT = 4_000_000
COUNTS = ("read", "created", "updated", "unchanged", "failed")
NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}
GZIP = {"Content-Encoding": "gzip"}
OLD = 7 * 86_400.0


class Node:
    """A server with a data directory, and a client of it."""

    def __init__(self, place: Path, url: str, *options: str, **environ: str) -> None:
        place.mkdir(exist_ok=True)
        self.spool = place / "data" / "spool"
        self.sql: Callable[..., list[asyncpg.Record]] = lambda text, *args: query(url, text, *args)
        self.environ = {
            "DATABASE_URL": url,
            "REDIS_URL": "off",
            "PYTHONPATH": str(ROOT / "tests"),
            "SERVICE_DATA": str(place / "data"),
            "SERVICE_APP": "import_app:app",
            "SERVICE_IMPORT_LIMIT": str(LIMIT),
            "SERVICE_LOG": "json",
            "SERVICE_STATEMENT_TIMEOUT_MS": "60000",
            **environ,
        }
        self.service = Service(place / "log", "--server", SERVER, *options, **self.environ)
        self.client = httpx.Client(base_url=self.service.url, timeout=30)

    def ready(self) -> "Node":
        self.service.wait_until_ready()
        return self

    def stop(self) -> None:
        self.client.close()
        assert self.service.stop() == 0
        assert "Traceback" not in self.service.log.read_text(), self.service.log.read_text()

    def kill(self) -> None:
        self.service.process.kill()
        self.service.process.wait()
        self.client.close()

    def files(self) -> list[str]:
        """The files in the spool."""
        return [one.name for one in self.spool.glob("*") if one.name != "id"]

    def give(self, body: Any, headers: dict[str, str] = NDJSON, **asked: str) -> httpx.Response:
        params = {"background": "true", **asked}
        return self.client.post("/items/import", content=body, headers=headers, params=params)

    def job(self, given: httpx.Response, **headers: str) -> dict[str, Any]:
        """The job of an answer when it has ended."""
        assert given.status_code == 202, given.text
        place = given.headers["location"]

        def read() -> dict[str, Any]:
            response = self.client.get(place, headers=headers)
            assert response.status_code == 200, response.text
            found: dict[str, Any] = response.json()
            return found

        eventually(lambda: read()["state"] in {"done", "failed"})
        return read()

    def after(self, job_id: int) -> dict[str, Any]:
        """What the application was told about the end of a job; once."""
        found = "SELECT result FROM jobs WHERE kind = 'after' AND (argument->>'job_id')::int = $1"
        eventually(lambda: [row for row in self.sql(found, job_id) if row["result"]])
        (row,) = self.sql(found, job_id)
        told: dict[str, Any] = json.loads(row["result"])
        return told

    def count(self) -> int:
        count: int = self.sql("SELECT count(*) FROM items")[0][0]
        return count


def eventually(test: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def items(count: int, key: str = "") -> bytes:
    rows = ({"name": f"Item {n}", **({"sku": f"{key}{n}"} if key else {})} for n in range(count))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture(scope="module")
def node(own_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    one = Node(tmp_path_factory.mktemp("node"), own_database_url, SERVICE_CACHE="local").ready()
    try:
        yield one
        one.stop()
    finally:
        one.kill()


@pytest.fixture(autouse=True)
def empty(own_database_url: str) -> None:
    query(own_database_url, EMPTY_TABLES)


def test_a_background_import_writes_what_the_direct_one_writes(node: Node) -> None:
    body = items(3000, "S") + b'{"name": ""}\n'
    table = b"sku,name,price\r\nS1,Item 1,\r\nS2,Other,2.5\r\nNew,New,1\r\n"
    for sent, headers, expected in (
        (body, NDJSON, (3001, 3000, 0, 0, 1)),
        (gzip.compress(body), {**NDJSON, **GZIP}, (3001, 0, 0, 3000, 1)),
        (table, CSV, (3, 1, 1, 1, 0)),
    ):
        before = node.client.get("/items").json()["total"]
        given = node.give(sent, headers, on_error="skip")
        queued = given.json()
        assert re.fullmatch(r"/jobs/\d+", given.headers["location"])
        assert queued.keys() == {
            *("id", "kind", "state", "progress", "attempts", "result", "error"),
            *("created_at", "finished_at"),
        }
        assert (queued["kind"], queued["state"], queued["error"]) == ("import", "queued", None)
        done = node.job(given)
        assert (done["state"], done["attempts"]) == ("done", 1)
        assert done["progress"] == {"done": len(sent), "total": len(sent)}
        assert tuple(done["result"][name] for name in COUNTS) == expected
        assert node.client.get("/items").json()["total"] == before + expected[1], "cached"
        told = node.after(done["id"])
        assert tuple(told[name] for name in COUNTS) == expected
        assert (told["resource"], told["state"], told["error"]) == ("items", "done", None)
        assert node.files() == []
        direct = node.client.post(
            "/items/import", content=sent, headers=headers, params={"on_error": "skip"}
        )
        assert direct.json()["errors"] == done["result"]["errors"]
        assert direct.json()["unchanged"] == sum(expected[1:4])
    assert node.spool.stat().st_mode & 0o777 == 0o700


def test_wrong_files_fail_at_once_and_write_nothing(node: Node) -> None:
    for sent, headers, error in (
        (items(2) + b"{}\n", NDJSON, "1 line is wrong; nothing was written"),
        (b"name,name\n1,2\n", CSV, "name"),
        (gzip.compress(items(9))[:-9], {**NDJSON, **GZIP}, "the gzip data is incomplete"),
        (gzip.compress(bytes(LIMIT)), {**NDJSON, **GZIP}, "decompresses to more than"),
    ):
        given = node.give(sent, headers)
        failed = node.job(given)
        assert (failed["state"], failed["attempts"]) == ("failed", 1)
        assert error in failed["error"]
        assert node.after(failed["id"])["error"] == failed["error"]
        assert len(node.files()) == 1, "it can be tried again"
        again = node.client.post(f"/jobs/{failed['id']}/retry")
        assert again.status_code == 200, again.text
        assert node.job(given)["error"] == failed["error"]
        (node.spool / node.files()[0]).unlink()
        node.client.post(f"/jobs/{failed['id']}/retry")
        assert "send it again" in node.job(given)["error"]
    (first,) = node.sql("SELECT result FROM jobs WHERE kind = 'import' ORDER BY id LIMIT 1")
    assert first["result"] is None, "of the last attempt"
    assert node.count() == 0


def test_what_can_be_refused_at_once_leaves_nothing(node: Node) -> None:
    unknown = node.give(b"[]", {"Content-Type": "application/json"})
    brotli = node.give(b"", {**NDJSON, "Content-Encoding": "br"})
    assert (unknown.status_code, brotli.status_code) == (415, 415)
    large = bytes(LIMIT + 1)
    assert node.give(large).status_code == 413
    assert node.give(iter([large[:-9], large[-9:]])).status_code == 413
    assert node.give(b"", background="perhaps").status_code == 422
    assert node.files() == []
    with socket.create_connection(("127.0.0.1", node.service.port)) as one:
        one.sendall(
            b"POST /items/import?background=1 HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: text/csv\r\nContent-Length: 9000\r\n\r\n" + bytes(5000)
        )
        eventually(lambda: len(node.files()) == 1)
    eventually(lambda: node.files() == [])
    assert node.sql("SELECT count(*) FROM jobs")[0][0] == 0


def test_a_full_spool_or_disk_is_503(node: Node) -> None:
    node.job(node.give(items(1)))
    other = node.spool / ("a" * 32)
    with other.open("wb") as file:  # without blocks on disk
        file.truncate(4 * LIMIT - 5)
    full = node.give(items(1))
    assert (full.status_code, full.headers["retry-after"]) == (503, "30")
    other.unlink()
    # The file of a failed job gives way.
    failed = node.job(node.give(b"{}"))
    assert failed["state"] == "failed"
    (name,) = node.files()
    os.truncate(node.spool / name, 4 * LIMIT - 5)
    assert node.job(node.give(items(1)))["state"] == "done"
    assert node.files() == []
    # No file may become larger than a megabyte, as on a disk that is full.
    main = psutil.Process(node.service.process.pid)
    pids = [one.pid for one in (main, *main.children(recursive=True))]
    whole = resource.prlimit(main.pid, resource.RLIMIT_FSIZE)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1_000_000, whole[1]))
    try:
        refused = node.give(items(100_000))
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, whole)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
    assert node.files() == []
    assert node.job(node.give(items(1)))["state"] == "done"


@pytest.mark.anyio
async def test_files_that_no_job_needs_are_removed(own_database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "id").write_text("f" * 32)
    spool = Spool(Settings(data=str(tmp_path), import_limit=LIMIT))
    made = {
        "a file without a job": (0, None, True),
        "an old file without a job": (OLD, None, False),
        "the file of a job that is done": (0, "done", False),
        "the file of a job that waits": (OLD, "queued", True),
        "the file of a job that runs": (OLD, "running", True),
        "the file of a failed job": (0, "failed", True),
        "the old file of a failed job": (OLD, "failed", False),
    }
    names = {f"{number:032x}": what for number, what in enumerate(made)}
    connection = await asyncpg.connect(own_database_url)
    for name, what in names.items():
        age, state, _ = made[what]
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
        if state is not None:
            add = "INSERT INTO jobs (kind, argument, state, place) VALUES ('import', $1, $2, $3)"
            await connection.execute(add, json.dumps({"file": name}), state, "f" * 32)
    await connection.close()
    parts = {"0" * 32 + ".part": 0.0, "1" * 32 + ".part": OLD}
    for name, age in parts.items():
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    db = Database(own_database_url, size=1)
    await db.open()
    try:
        await clean(spool, db)
        kept = {name for name, what in names.items() if made[what][2]}
        assert {one.name for one in spool.files()} == {*kept, "0" * 32 + ".part"}
        await clean(spool, db, failed_seconds=0.0)
        assert "the file of a failed job" not in {names.get(one.name) for one in spool.files()}
    finally:
        await db.close()


@pytest.mark.anyio
async def test_a_file_whose_client_leaves_is_removed_at_every_moment(tmp_path: Path) -> None:
    spool = Spool(Settings(data=str(tmp_path), import_limit=LIMIT))

    stored = await spool.store(one_part())
    for turns in range(200):
        storing = asyncio.create_task(spool.store(one_part()))
        for _ in range(turns):
            await asyncio.sleep(0)
        storing.cancel()
        await asyncio.wait({storing})
        if not storing.cancelled():
            spool.remove(storing.result().name)
    assert [one.name for one in spool.files()] == [stored.name]


@pytest.mark.anyio
async def test_files_that_come_at_once_keep_the_bound_of_the_spool(tmp_path: Path) -> None:
    limit, count, all_sent = 100_000, 10, asyncio.Barrier(10)
    spool = Spool(Settings(data=str(tmp_path), import_limit=limit))

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * limit
        await all_sent.wait()

    storing = [spool.store(parts()) for _ in range(count)]
    await asyncio.gather(*storing, return_exceptions=True)
    assert sum(one.size for one in spool.files()) <= 4 * limit
    assert await spool.store(one_part())


async def one_part() -> AsyncIterator[bytes]:
    yield b"{}\n"


def test_one_idempotency_key_makes_one_job(node: Node) -> None:
    body, headers = items(20_000), {**NDJSON, "Idempotency-Key": "once"}
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda _: node.give(body, headers), range(4)))
    given.append(node.give(body, headers))
    answers = {one.headers["location"] for one in given if one.status_code == 202}
    assert {one.status_code for one in given} <= {202, 409}
    assert len(answers) == 1
    assert given[-1].headers["idempotency-replayed"] == "true"
    assert node.give(items(1), headers).status_code == 422
    assert node.job(given[-1])["result"]["created"] == 20_000
    assert node.count() == 20_000
    assert node.files() == []


def test_a_request_whose_key_another_worker_has_stored_leaves_no_file(node: Node) -> None:
    stored = """
        WITH one AS (
            INSERT INTO idempotency_keys (principal, key, fingerprint, status, headers)
            VALUES ('', 'theirs', '', 202, '') RETURNING 1
        ) SELECT pg_sleep(1) FROM one
    """
    sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(node.sql, stored)
        eventually(lambda: node.sql(sleeping))
        given = node.give(items(1), {**NDJSON, "Idempotency-Key": "theirs"})
        storing.result()
    assert given.status_code == 422  # what they sent was another request
    assert node.sql("SELECT FROM jobs") == []
    assert node.files() == []


def test_only_a_worker_with_the_folder_takes_the_job(
    node: Node, own_database_url: str, tmp_path: Path
) -> None:
    other = Node(tmp_path / "other", own_database_url, "--no-jobs").ready()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    with ExitStack() as held:
        held.callback(other.kill)
        given = other.give(items(5))
        theirs = node.give(items(7))
        assert node.job(theirs)["state"] == "done"
        assert other.client.get(given.headers["location"]).json()["state"] == "queued"
        log = held.enter_context((tmp_path / "work").open("wb"))
        command = [sys.executable, "-m", "service", "work"]
        work = subprocess.Popen(command, cwd=ROOT, env={**kept, **other.environ}, stdout=log)
        held.callback(work.wait)
        held.callback(work.kill)
        assert other.job(given)["result"]["created"] == 5
        assert other.files() == []
        # A folder that is made later is found too.
        for name in (*other.files(), "id"):
            (other.spool / name).unlink()
        other.spool.rmdir()
        assert other.job(other.give(items(3)))["result"]["created"] == 3
        work.terminate()
        assert work.wait(30) == 0


def test_a_killed_server_imports_exactly_once(own_database_url: str, tmp_path: Path) -> None:
    """At each step: the file is stored, the job queued, the rows half written, the commit sent."""
    url = own_database_url
    place = tmp_path / "node"

    one = Node(place, url).ready()
    try:
        with locked(url, "LOCK TABLE jobs IN EXCLUSIVE MODE"):
            threading.Thread(target=sent_in_vain, args=(one, items(10))).start()
            eventually(lambda: [name for name in one.files() if not name.endswith(".part")])
            eventually(lambda: waiting(one, "INSERT INTO jobs"))
            one.kill()
            abandon(url)
        assert one.sql("SELECT count(*) FROM jobs")[0][0] == 0
        (orphan,) = one.files()
        os.utime(one.spool / orphan, (time.time() - OLD,) * 2)

        one = Node(place, url, "--no-jobs").ready()
        assert one.files() == [orphan]
        queued = one.give(items(1000, "0-")).headers["location"]
        one.kill()

        with locked(url, TAKEN):
            one = Node(place, url).ready()
            eventually(lambda: len(waiting(one)) == 1)
            found = one.client.get(queued)
            assert found.status_code == 200, (found.text, waiting(one))
            assert found.json()["state"] == "running"
            one.kill()
            abandon(url)
        assert one.count() == 0

        for statement in SLOW_COMMIT:
            one.sql(statement)
        with locked(url, "SELECT pg_advisory_lock(1)"):
            one.sql("UPDATE jobs SET leased_until = now() WHERE state = 'running'")
            one = Node(place, url).ready()
            eventually(lambda: len(waiting(one)) == 1)
            one.kill()
        eventually(lambda: one.count() == 1000)
        assert len(one.files()) == 1
        assert one.sql("SELECT state FROM jobs WHERE kind = 'import'")[0][0] == "done"

        one = Node(place, url).ready()
        eventually(lambda: one.files() == [])
        job_id = int(queued.rpartition("/")[2])
        assert one.after(job_id)["created"] == 1000
        assert one.client.get(queued).json()["attempts"] == 2
        assert one.count() == 1000
        one.stop()
    finally:
        one.kill()
        one.sql("DROP FUNCTION IF EXISTS slow_commit CASCADE")


@pytest.mark.slow
def test_a_lost_connection_or_a_stop_repeats_the_import(
    own_database_url: str, tmp_path: Path
) -> None:
    url, place = own_database_url, tmp_path / "node"
    one = Node(place, url, "--workers", "2").ready()
    try:
        with locked(url, TAKEN):
            given = [one.give(items(100, f"{n}-")) for n in range(6)]
            eventually(lambda: len(waiting(one)) == 2)
            abandon(url)
            tried = "SELECT FROM jobs WHERE state = 'queued' AND attempts = 1"
            eventually(lambda: len(one.sql(tried)) == 2)
            eventually(lambda: len(waiting(one)) == 2)
            one.stop()
        assert running(one) == []
        assert one.count() == 0
        one = Node(place, url, "--workers", "2").ready()
        done = [one.job(response) for response in given]
        assert [job["result"]["created"] for job in done] == [100] * 6
        assert one.count() == 600
        assert one.files() == []
    finally:
        one.kill()


def test_a_user_imports_own_rows_and_must_still_be_active(
    own_database_url: str, tmp_path: Path
) -> None:
    url = own_database_url
    ada, bob, root = account(url), account(url), account(url, "admin", ["admin", "write", "read"])
    place = tmp_path / "node"
    one = Node(place, url, SERVICE_AUTH="on").ready()
    try:
        mine = one.give(items(2, "A"), {**NDJSON, **ada.headers})
        assert one.job(mine, **ada.headers)["result"]["created"] == 2
        assert {row[0] for row in one.sql("SELECT owner_id FROM items")} == {ada.user_id}
        assert one.client.get(mine.headers["location"], headers=bob.headers).status_code == 404
        theirs = one.give(items(2, "A") + items(1, "B"), {**NDJSON, **bob.headers})
        failed = one.job(theirs, **bob.headers)
        assert [error["message"] for error in failed["result"]["errors"]] == [
            "sku: already taken"
        ] * 2
        every = one.give(items(3, "A").replace(b"Item", b"Thing"), {**NDJSON, **root.headers})
        done = one.job(every, **root.headers)["result"]
        assert (done["created"], done["updated"]) == (1, 2)
        assert one.give(b"", NDJSON).status_code == 401
        with locked(url, TAKEN):
            waits = one.give(items(1, "0-"), {**NDJSON, **root.headers})
            eventually(lambda: running(one))
            late = one.give(items(1), {**NDJSON, **bob.headers})
            one.sql("UPDATE users SET is_active = false WHERE id = $1", bob.user_id)
        assert one.job(waits, **root.headers)["state"] == "done"
        assert "not active" in one.job(late, **root.headers)["error"]
    finally:
        one.kill()


# Rows that are not committed: an import of such a key waits until their transaction has ended.
TAKEN = "INSERT INTO items (name, sku) SELECT 'taken', n || '-0' FROM generate_series(0, 5) AS n"
SLOW_COMMIT = (
    """
    CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION slow_commit()
    """,
)


def running(one: Node) -> list[asyncpg.Record]:
    return one.sql("SELECT attempts FROM jobs WHERE state = 'running'")


def waiting(one: Node, statement: str = "") -> list[asyncpg.Record]:
    """The connections whose statement waits for a lock."""
    return one.sql(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query ~ $1",
        statement,
    )


def sent_in_vain(one: Node, body: bytes) -> None:
    with pytest.raises(httpx.TransportError):
        one.give(body)


def abandon(url: str) -> None:
    """End the connections of servers for files, and those of killed servers."""
    query(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'",
    )


@contextmanager
def locked(url: str, lock: str) -> Iterator[None]:
    """Run SQL in a transaction that is rolled back at the end."""
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        async def run() -> None:
            connection = await asyncpg.connect(url)
            await connection.execute(f"BEGIN; {lock}")
            begun.set()
            await asyncio.to_thread(end.wait, 60)
            await connection.close()

        asyncio.run(run())

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        end.set()
        thread.join()
