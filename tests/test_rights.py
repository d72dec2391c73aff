"""Rights of the database role: needed ones, messages without one; and PgBouncer."""

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from conftest import HEAD, SERVER, Service, check_answer, query

from service.admin.connecting import explain_once
from service.admin.explain import Question
from service.asgi import MIGRATIONS
from service.items import items
from service.migrations import migrate

CSV = {"Content-Type": "text/csv"}
# Every operation that uses the database, and its status with all rights.
READS: tuple[tuple[str, str, int], ...] = (
    ("GET", "/items/1", 200),
    ("GET", "/items", 200),
    ("GET", "/items?q=lamp&total=estimated&include=owner", 200),
    ("GET", "/items?cursor=&sort=-price", 200),
    ("GET", "/items/export?format=ndjson", 200),
    ("GET", "/items/export?format=csv", 200),
    ("GET", "/users/1", 200),
    ("GET", "/users", 200),
    ("GET", "/users?q=ada&role=user", 200),
    ("GET", "/users/1/items", 200),
)
USER = {"email": "ada@example.com", "username": "ada"}
WRITES: tuple[tuple[str, str, Any, int], ...] = (
    ("POST", "/users", USER, 201),
    ("PUT", "/users/1", USER, 200),
    ("PATCH", "/users/1", {"full_name": "Ada"}, 200),
    ("DELETE", "/users/1", None, 200),
    ("POST", "/users/1/items", {"name": "Lamp"}, 201),
    ("POST", "/items", {"name": "Lamp", "sku": "L1"}, 201),
    ("PUT", "/items/1", {"name": "Lamp"}, 200),
    ("PATCH", "/items/1", {"price": 5}, 200),
    ("DELETE", "/items/1", None, 200),
    ("DELETE", "/items/2?permanent=true", None, 204),
    ("PATCH", "/items/bulk", {"ids": [1, 7], "set": {"price": 5}}, 200),
    ("POST", "/items/bulk/delete", {"ids": [7], "permanent": True}, 200),
)
# Operations that take the ids of new rows from the sequence.
NUMBERED: tuple[tuple[str, str, Any, int], ...] = (
    ("POST", "/items/bulk", {"items": [{"name": "Wheel"}]}, 201),
    ("PUT", "/items/bulk", {"items": [{"sku": "W1", "name": "Wheel"}]}, 200),
    ("PUT", "/users/bulk", {"items": [{"email": "b@example.com", "username": "bob"}]}, 200),
    ("POST", "/items/import", "sku,name\nW2,Wheel\n", 200),
)


def asked(client: httpx.Client, method: str, path: str, body: Any) -> httpx.Response:
    if isinstance(body, str):
        return client.request(method, path, content=body, headers=CSV)
    return client.request(method, path, json=body)


def serve(url: str, log: Path, **settings: str) -> Service:
    running = Service(
        log,
        "--server",
        SERVER,
        DATABASE_URL=url,
        REDIS_URL="off",
        SERVICE_LOG="json",
        **settings,
    )
    running.wait_until_ready()
    return running


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in log.read_text().splitlines() if one.startswith("{")]


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    found = new_database()
    migrate.up(found, MIGRATIONS)
    return found


@pytest.fixture
def role(url: str) -> Iterator[str]:
    """A role with only SELECT, INSERT, UPDATE and DELETE on the tables."""
    name = f"app_{secrets.token_hex(4)}"
    query(url, f"CREATE ROLE {name}")
    query(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}")
    yield name
    query(url, f"DROP OWNED BY {name}")
    query(url, f"DROP ROLE {name}")


def test_with_table_rights_only_operations_work_or_name_the_missing_right(
    url: str, role: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    running = serve(f"{url}&role={role}", log, SERVICE_CACHE="local")
    try:
        with httpx.Client(
            base_url=running.url, timeout=10, event_hooks={"response": [check_answer]}
        ) as client:
            for method, path, body, status in WRITES:
                assert asked(client, method, path, body).status_code == status, (method, path)
            for method, path, status in READS:
                assert client.request(method, path).status_code == status, path
            assert client.get("/items/1").headers["x-cache"] == "HIT"
            # A trigger queues the job of a new user with its owner's rights, and the loop runs it.
            eventually(lambda: query(url, "SELECT state <> 'queued' FROM jobs")[0][0])

            # A missing right is reported at the start, by readiness, and in the response.
            numbered = ("items", "keys", "notifications", "users")
            lacking = [f"usage on sequence {one}_id_seq" for one in numbered]
            assert [one["lacking"] for one in lines(log) if "lacking" in one] == [lacking]
            for method, path, body, _ in NUMBERED * 2:
                answer = asked(client, method, path, body)
                assert answer.status_code == 503, path
                assert "lacks a right" in answer.json()["detail"]
            ready = client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert ready.json()["database"]["detail"] == (
                f"the role lacks rights: {', '.join(lacking)}"
            )
            denied = [
                one
                for one in lines(log)
                if "permission denied" in one.get("error", "") and "repeated" not in one
            ]
            told = [(one["statement"], one["error"]) for one in denied]
            assert len({error for _, error in told}) == 2, told
            assert len(told) == len({*told}), "once for each statement, not for each request"

            # After a GRANT it works at once.
            query(url, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
            for method, path, body, status in NUMBERED:
                assert asked(client, method, path, body).status_code == status, path
            assert client.get("/health/ready").json()["status"] == "ok"

            database = urlsplit(url).path[1:]
            query(url, f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
            assert asked(client, *NUMBERED[-1][:3]).status_code == 503
            found = client.get("/health/ready").json()["database"]
            assert found["detail"] == f"the role lacks rights: temporary on database {database}"
            query(url, f"GRANT TEMPORARY ON DATABASE {database} TO PUBLIC")

            query(url, f"REVOKE ALL ON alembic_version FROM {role}")
            ready = client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert ready.json()["database"] == {"state": "ok"}
            assert "select on alembic_version" in ready.json()["migrations"]["detail"]

            query(url, f"REVOKE SELECT ON items FROM {role}")
            ready = client.get("/health/ready")
            assert ready.status_code == 503
            assert "select on items" in ready.json()["detail"]
            assert client.get("/items/3?", headers={"cache-control": "no-cache"}).status_code == 503
            assert client.get("/users/1").status_code == 200
    finally:
        assert running.stop() == 0
    assert "Traceback" not in log.read_text()


def test_every_statement_can_be_explained_with_the_documented_rights(url: str, role: str) -> None:
    query(url, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")

    async def explain() -> None:
        for statement in (*items.prepared, *items.stage.statements):
            await explain_once(f"{url}&role={role}", Question(statement, items))

    asyncio.run(explain())


def test_readiness_reports_a_newer_schema_or_a_read_only_database(url: str, tmp_path: Path) -> None:
    running = serve(url, tmp_path / "log", SERVICE_POOL="2")
    try:
        query(url, "UPDATE alembic_version SET version_num = '9000'")
        ready = httpx.get(f"{running.url}/health/ready")
        assert (ready.status_code, ready.json()["migrations"]["state"]) == (200, "ok")
        assert "at 9000, newer" in ready.json()["migrations"]["detail"]
        query(url, f"UPDATE alembic_version SET version_num = '{HEAD}'")

        name = urlsplit(url).path[1:]
        query(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        query(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        eventually(lambda: _ready(running)["status"] == "degraded")
        assert _ready(running)["database"] == {
            "state": "degraded",
            "detail": "the database is read-only",
        }
        assert httpx.get(f"{running.url}/items").status_code == 200
        for method, path, body, _ in (*WRITES, *NUMBERED):
            with httpx.Client(base_url=running.url) as client:
                assert asked(client, method, path, body).status_code == 503, path
        query_writable(url, f"ALTER DATABASE {name} RESET default_transaction_read_only")
        eventually(
            lambda: httpx.post(f"{running.url}/items", json={"name": "Lamp"}).status_code == 201
        )
        assert _ready(running)["status"] == "ok"
    finally:
        assert running.stop() == 0
    told = [one["message"] for one in lines(tmp_path / "log")]
    assert told.count("the database is read-only") == 1
    assert told.count("the database takes writes again") == 1


def _ready(running: Service) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{running.url}/health/ready").json()
    return found


def query_writable(url: str, sql: str) -> None:
    query(f"{url}&default_transaction_read_only=off", sql)


def eventually(test: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not test():
        assert time.monotonic() - started < 60
        time.sleep(0.05)


@contextmanager
def pooler(url: str, place: Path, *settings: str) -> Iterator[str]:
    """Run PgBouncer in session mode before the database; yield its address."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("no PgBouncer here")
    parts = parse_qs(urlsplit(url).query)
    socket, user = parts["host"][0], parts["user"][0]
    place.mkdir()
    place.chmod(0o777)
    # It runs as another user, who may connect to this database only.
    rules = Path(query(url, "SHOW hba_file")[0][0])
    before = rules.read_text()
    rules.write_text(f"local {urlsplit(url).path[1:]} all trust\n{before}")
    query(url, "SELECT pg_reload_conf()")
    config = place / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={socket} port=5432 user={user}\n[pgbouncer]\n"
        f"unix_socket_dir = {place}\nlisten_port = 6432\nauth_type = any\npool_mode = session\n"
        f"logfile = {place}/log\nlisten_addr =\n" + "".join(f"{one}\n" for one in settings)
    )
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, *as_nobody, "-q", config], stderr=subprocess.DEVNULL)
    try:
        eventually((place / ".s.PGSQL.6432").exists)
        yield url.replace(f"host={socket}", f"host={place}").replace("port=5432", "port=6432")
    finally:
        rules.write_text(before)
        process.terminate()
        process.wait(10)


def test_readiness_reports_a_pooler_that_refuses_our_parameters(url: str, tmp_path: Path) -> None:
    place = Path(f"/tmp/pgb-{secrets.token_hex(4)}")
    try:
        with pooler(url, place) as refusing:
            running = serve(refusing, tmp_path / "log")
            try:
                ready = httpx.get(f"{running.url}/health/ready")
                assert ready.status_code == 503
                named = ready.json()["detail"].rpartition(" = ")[2]
                assert "statement_timeout" in named
                answer = httpx.get(f"{running.url}/items")
                assert (answer.status_code, answer.json()["detail"][:8]) == (503, "a pooler")
            finally:
                assert running.stop() == 0
            told = [one for one in lines(tmp_path / "log") if one["level"] == "ERROR"]
            assert [one["message"] for one in told] == ["the database is away"]
            assert "startup parameter" in told[0]["error"]
        shutil.rmtree(place)
        with pooler(url, place, f"ignore_startup_parameters = {named}") as passing:
            assert asyncio.run(_items(passing)) == 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def _items(url: str) -> int:
    from service.db.database import Database

    db = Database(url, size=1, statements=items.prepared)
    await db.open()
    try:
        assert await items.by_id.get(db, 1) is None
        return await items.count.only(db)
    finally:
        await db.close()
