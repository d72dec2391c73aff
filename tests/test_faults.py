"""Faults of the stores as a client sees them: the response, its time, and the recovery."""

import asyncio
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import httpx
import pytest
from conftest import BATCHING, SERVER, STORES, Service, check_answer, own_stores_in, query

from service.asgi import MIGRATIONS, app
from service.db.database import Database
from service.db.writable import WritableDatabase
from service.embedded.data_directory import Stores
from service.embedded.programs import find_postgres, wheel_redis
from service.embedded.stores import stores
from service.errors import Problem
from service.items import items
from service.migrations import migrate


@pytest.fixture(scope="module")
def own_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """PostgreSQL and Redis that a test may kill."""
    with own_stores_in(tmp_path_factory.mktemp("faults") / "data") as running:
        yield running


@contextmanager
def serving(stores: Stores, log: Path, **environ: str) -> Iterator[Service]:
    assert stores.database_url is not None
    assert stores.redis_url is not None
    running = Service(
        log,
        "--server",
        SERVER,
        DATABASE_URL=stores.database_url,
        REDIS_URL=stores.redis_url,
        SERVICE_LOG="json",
        **environ,
    )
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture
def hurt(own_stores: Stores, tmp_path: Path) -> Iterator[tuple[Service, httpx.Client]]:
    settings = {"SERVICE_STATEMENT_TIMEOUT_MS": "1000", "SERVICE_POOL": "2"}
    with (
        serving(own_stores, tmp_path / "log", **settings) as running,
        httpx.Client(
            base_url=running.url, timeout=30, event_hooks={"response": [check_answer]}
        ) as client,
    ):
        yield running, client


def postmaster(stores: Stores) -> int:
    return int((stores.data / "postgres" / "postmaster.pid").read_text().split("\n")[0])


def processes(stores: Stores) -> list[int]:
    """The postmaster and all its children."""
    parent = postmaster(stores)
    listing = Path(f"/proc/{parent}/task/{parent}/children")
    return [parent, *map(int, listing.read_text().split())]


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def eventually(test: Callable[[], bool], seconds: float) -> None:
    """Fail after `seconds`, or 60 s if that is longer."""
    started = time.monotonic()
    while not test():
        assert time.monotonic() - started < max(seconds, 60)
        time.sleep(0.02)


def test_the_tests_use_the_requested_stores(own_stores: Stores) -> None:
    """Otherwise a run with Debian's stores could use the embedded ones without notice."""
    assert own_stores.database_url is not None
    assert own_stores.redis_url is not None
    major = int(query(own_stores.database_url, "SHOW server_version_num")[0][0]) // 10_000
    wheels_own = wheel_redis()
    assert wheels_own is not None
    program = Path(f"/proc/{_redis_pid(own_stores)}/exe")
    if STORES == "wheel":
        assert major == 18
        assert program.samefile(wheels_own)
    else:
        found = find_postgres() / "postgres"
        said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True)
        assert f"(PostgreSQL) {major}." in said.stdout
        assert not program.samefile(wheels_own)


def test_a_locked_row_gives_its_writer_a_504_and_delays_no_other_request(
    hurt: tuple[Service, httpx.Client], own_stores: Stores
) -> None:
    _, client = hurt
    first = client.post("/items", json={"name": "Lamp"}).headers["location"]
    second = client.post("/items", json={"name": "Torch"}).headers["location"]
    url = own_stores.database_url
    assert url is not None
    done = threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(url)
        row = first.rpartition("/")[2]
        await connection.execute(f"BEGIN; SELECT 1 FROM items WHERE id = {row} FOR UPDATE")
        locked.set()
        await asyncio.to_thread(done.wait, 60)
        await connection.close()

    locked = threading.Event()
    holder = threading.Thread(target=lambda: asyncio.run(hold()))
    holder.start()
    try:
        assert locked.wait(60)
        with ThreadPoolExecutor(1) as pool:
            blocked = pool.submit(client.patch, first, json={"name": "Changed"})
            for _ in range(10):
                assert client.patch(second, json={"name": "Changed"}).status_code == 200
            answer = blocked.result()
        assert answer.status_code in (503, 504)
        assert client.get(first).json()["name"] == "Lamp"
    finally:
        done.set()
        holder.join()
    assert client.patch(first, json={"name": "Changed"}).status_code == 200


def test_an_exhausted_pool_answers_503_in_time_and_rejects_bad_input_without_a_connection(
    hurt: tuple[Service, httpx.Client], own_stores: Stores
) -> None:
    _, client = hurt
    where = client.post("/items", json={"name": "Lamp"}).headers["location"]
    with stopped([pid for pid in processes(own_stores) if _is_backend(pid)]):
        with ThreadPoolExecutor(4) as pool:
            fresh = {"Cache-Control": "no-cache"}
            answers = list(pool.map(lambda _: client.get(where, headers=fresh), range(4)))
        assert {answer.status_code for answer in answers} <= {503, 504}
        for answer in answers:
            assert answer.status_code == 504 or int(answer.headers["retry-after"]) >= 1
        # Errors that need no database are answered at once.
        answers = [
            client.get("/items/abc"),
            client.post("/items", json={}),
            client.put("/items"),
            client.get("/nothing"),
            client.get("/health/live"),
        ]
        assert [answer.status_code for answer in answers] == [422, 422, 405, 404, 200]
    eventually(lambda: client.get(where).status_code == 200, 3)


def test_a_full_queue_answers_503_at_once_with_retry_after(
    own_stores: Stores, tmp_path: Path
) -> None:
    settings = {
        "SERVICE_POOL": "4",
        "SERVICE_QUEUE_LIMIT": "4",
        "SERVICE_STATEMENT_TIMEOUT_MS": "60000",
    }
    with (
        serving(own_stores, tmp_path / "log", **settings) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        assert client.get("/items/1").status_code in (200, 404)
        with stopped([pid for pid in processes(own_stores) if _is_backend(pid)]):
            asked = []
            for n in range(2, 22):
                asked.append(pool.submit(client.get, f"/items/{n}"))
                if n < 6:  # two begin at once, the next two when those have run for 50 ms
                    time.sleep(0.3)
            # Refused while the others still wait for PostgreSQL.
            eventually(lambda: sum(one.done() for one in asked) >= 20 - 4 - 4, 60)
            refused = [one.result() for one in asked if one.done()]
        assert len(refused) == 20 - 4 - 4
        for answer in refused:
            assert "waiting" in answer.text
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        served = [one.result().status_code for one in asked]
        assert Counter(served)[503] == len(refused)


def _is_backend(pid: int) -> bool:
    return b"swiftlet" in Path(f"/proc/{pid}/cmdline").read_bytes() or _serves_us(pid)


def _serves_us(pid: int) -> bool:
    """`postgres: service service [local] idle`: a client's own process."""
    return b"[local]" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_crash_of_postgres_loses_no_acknowledged_write(
    own_stores: Stores, tmp_path: Path
) -> None:
    """After kill -9 of a backend the postmaster restarts all backends."""
    acknowledged: list[int] = []
    statuses: set[int] = set()
    stop = threading.Event()

    def write(url: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                answer = client.post("/items", json={"name": "Lamp"})
                statuses.add(answer.status_code)
                if answer.status_code == 201:
                    acknowledged.append(answer.json()["id"])

    # So long that no statement reaches it on a busy machine.
    settings = {"SERVICE_STATEMENT_TIMEOUT_MS": "60000", "SERVICE_POOL": "2"}
    with serving(own_stores, tmp_path / "log", **settings) as running:
        writers = [threading.Thread(target=write, args=(running.url,)) for _ in range(4)]
        for writer in writers:
            writer.start()
        try:
            eventually(lambda: len(acknowledged) > 50, 60)
            victims = [pid for pid in processes(own_stores) if _serves_us(pid)]
            os.kill(victims[0], signal.SIGKILL)
            before = len(acknowledged)
            eventually(lambda: len(acknowledged) > before + 50, 60)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
    assert statuses <= {201, 503}
    assert own_stores.database_url is not None
    there = {row[0] for row in query(own_stores.database_url, "SELECT id FROM items")}
    assert set(acknowledged) <= there


class Owner:
    """A client that creates, changes and removes items one after the other.

    `told` has the last answer for each item: its name, None after its removal. `asked` is the write
    without an answer.
    """

    def __init__(self, db: Database, number: int) -> None:
        self.db = db
        self.chance = random.Random(number)
        self.told: dict[int, str | None] = {}
        self.asked: tuple[int | None, str | None] | None = None

    async def run(self) -> Problem:
        """Until the first problem."""
        number = 0
        while True:
            number += 1
            name = f"Item {number}"
            here = [item_id for item_id, name in self.told.items() if name is not None]
            kind = self.chance.choice(("add", "change", "change", "remove")) if here else "add"
            try:
                if kind == "add":
                    self.asked = None, name
                    made = await items.add.run(
                        WritableDatabase(self.db), (None, name, None, None, True, None)
                    )
                    self.told[made.id] = made.name
                    continue
                item_id = self.chance.choice(here)
                self.asked = item_id, name if kind == "change" else None
                if kind == "change":
                    active = self.chance.choice((True, False))
                    change = items.change(name=name, is_active=active)
                    row, _ = await items.writes.change.run(
                        WritableDatabase(self.db), None, id=item_id, given=change
                    )
                    assert row is not None
                    self.told[item_id] = row.name
                else:
                    await items.writes.remove.run(WritableDatabase(self.db), None, id=item_id)
                    self.told[item_id] = None
            except Problem as problem:
                return problem


async def _write_until_killed(url: str, pids: list[int]) -> list[Owner]:
    # With the default a statement of a busy machine may take too long, which is no problem here.
    db = Database(url, statements=items.prepared, batching=BATCHING == "on", statement_timeout=60)
    await db.open()
    owners = [Owner(db, number) for number in range(64)]
    work = [asyncio.create_task(owner.run()) for owner in owners]
    try:
        # A number of writes, not a time: a busy machine does few writes in any time.
        enough = random.randint(250, 700)
        async with asyncio.timeout(60):
            while sum(len(owner.told) for owner in owners) < enough:
                assert not any(one.done() for one in work)
                await asyncio.sleep(0.001)
        for pid in pids:  # the postmaster first, so that it can't react to the death of the others
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        problems = await asyncio.wait_for(asyncio.gather(*work), 60)
    finally:
        for one in work:
            one.cancel()
        await db.close()
    assert {problem.status for problem in problems} == {503}
    return owners


def test_a_killed_postgres_loses_no_acknowledged_write_and_no_total(tmp_path: Path) -> None:
    """kill -9 of all its processes at once, during many writes, three times."""
    owners: list[Owner] = []
    for start in range(4):
        with stores(tmp_path / "data", redis=False) as running:
            url = running.database_url
            assert url is not None
            if start == 0:
                migrate.up(url, MIGRATIONS)
            assert asyncio.run(migrate.check(url, app.tables, MIGRATIONS)) == []
            rows = query(url, "SELECT id, name FROM items")
            stored = {row["id"]: row["name"] for row in rows}
            for owner in owners:
                for item_id, name in owner.told.items():
                    unknown = owner.asked is not None and owner.asked[0] == item_id
                    open_to = {name, owner.asked[1]} if unknown and owner.asked else {name}
                    assert stored.get(item_id) in open_to
            if start < 3:
                owners = asyncio.run(_write_until_killed(url, processes(running)))


def test_readiness_reports_a_missing_dependency_within_a_second(
    hurt: tuple[Service, httpx.Client], own_stores: Stores
) -> None:
    _, client = hurt
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")

    redis = _redis_pid(own_stores)
    with stopped([redis]):
        answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["redis"]["state"] == "away"
    assert answer.elapsed.total_seconds() < 20

    with stopped(processes(own_stores)):
        answer = client.get("/health/ready")
        assert client.get("/health/live").status_code == 200
    assert (answer.status_code, answer.json()["status"]) == (503, 503)
    assert answer.json()["database"]["state"] == "away"
    assert answer.elapsed.total_seconds() < 20
    eventually(lambda: client.get("/health/ready").status_code == 200, 3)


def _redis_pid(stores: Stores) -> int:
    assert stores.redis_url is not None
    run = stores.redis_url.removeprefix("unix://").rpartition("/")[0]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                environment = command + (entry / "cwd").readlink().as_posix().encode()
            except OSError:
                continue
            if b"-server" in command and run.encode() in environment:
                return int(entry.name)
    raise AssertionError(run)


def test_a_database_that_is_not_migrated_has_a_clear_message(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database()
    running = Service(
        tmp_path / "log", "--server", SERVER, DATABASE_URL=url, REDIS_URL="off", SERVICE_LOG="json"
    )
    try:
        running.wait_until_ready()
        # A worker may answer before the supervisor has printed the banner.
        eventually(lambda: "not migrated (revision none, newest" in running.log.read_text(), 30)
        answer = httpx.get(f"{running.url}/items")
        assert answer.status_code == 503
        assert "swiftlet migrate" in answer.json()["detail"]
        ready = httpx.get(f"{running.url}/health/ready")
        assert (ready.status_code, ready.json()["migrations"]["state"]) == (503, "away")
        migrate.up(url, MIGRATIONS)
        # No restart is needed: missing statements are prepared at their first use.
        assert httpx.get(f"{running.url}/items").status_code == 200
        eventually(lambda: httpx.get(f"{running.url}/health/ready").status_code == 200, 5)
    finally:
        assert running.stop() == 0


def test_a_stop_under_load_answers_accepted_requests(own_stores: Stores, tmp_path: Path) -> None:
    """New connections may be refused after the stop, but accepted requests are answered."""
    answers: list[int] = []
    broken: list[str] = []
    with serving(own_stores, tmp_path / "log") as running:
        stop = threading.Event()

        def write() -> None:
            with httpx.Client(base_url=running.url, timeout=60) as client:
                while not stop.is_set():
                    try:
                        answers.append(client.post("/items", json={"name": "Lamp"}).status_code)
                    except httpx.TransportError as error:
                        broken.append(type(error).__name__)
                        return

        writers = [threading.Thread(target=write) for _ in range(8)]
        for writer in writers:
            writer.start()
        eventually(lambda: len(answers) > 100, 10)
        assert running.stop() == 0
        stop.set()
        for writer in writers:
            writer.join()
    assert set(answers) == {201}
    # Each connection ends once: refused, or closed while it was idle.
    assert len(broken) <= 8
    assert "ReadTimeout" not in broken
    assert "Traceback" not in (tmp_path / "log").read_text()
