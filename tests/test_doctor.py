"""`swiftlet doctor`: what it says about a service that is well, and about each fault."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from conftest import ROOT, Query, Service, query
from test_commands import Command, command, postgres_that_says, url_of
from test_files import eventually
from test_rights import pooler
from test_tls import make_certificate

from service import metrics
from service.asgi import MIGRATIONS, app
from service.cache import client as redis
from service.db.names import SILENT
from service.db.pooled_connection import POOLED
from service.doctor import AREAS, change_checks, database_checks, redis_checks
from service.doctor.certificate import validity
from service.doctor.check import Check, Finding, ok
from service.doctor.clocks import skewed
from service.doctor.examine import examine
from service.doctor.subject import Skipped, Subject
from service.embedded.data_directory import Stores
from service.logs import logger
from service.metrics.slots import SIZE
from service.migrations import migrate
from service.settings import Settings
from service.threads import in_thread

__all__ = ["command"]  # a fixture

CHECKS = {check.name: check for checks in AREAS.values() for check in checks}
LINE = re.compile(r"(ok|warn|fail|skip) +([\w-]+) +(\S.*)")


def findings(*names: str, checks: tuple[Check, ...] = (), **values: Any) -> dict[str, Finding]:
    """Run checks, those of a store after its connection; `values` are settings."""

    async def run() -> dict[str, Finding]:
        settings = Settings(**values)
        subject = Subject(app, settings, None)
        wanted = [CHECKS[name] for name in names]
        return {one.name: found async for one, found in examine(subject, (*wanted, *checks))}

    before = app.settings
    app.settings = Settings(**values)
    try:
        return asyncio.run(run())
    finally:
        app.settings = before


def test_every_check_has_a_name_of_its_own_and_a_description() -> None:
    names = [check.name for checks in AREAS.values() for check in checks]
    assert len(set(names)) == len(names)
    assert all(check.description.endswith(".") for check in CHECKS.values())


@pytest.mark.parametrize(
    ("values", "state", "found"),
    (
        ({}, "ok", "is not set"),
        ({"notify_url": "http://127.0.0.1:9/"}, "ok", "is allowed"),
        ({"notify_url": "http://hunter2@localhost/"}, "ok", "is allowed"),
        ({"notify_url": "http://name.invalid/"}, "warn", "has no address"),
        ({"notify_url": "http://169.254.169.254/"}, "fail", "has the address 169.254.169.254"),
        ({"notify_url": "http://127.1/"}, "fail", "has a private address"),
        ({"notify_url": "http://127.1/", "private_targets": "127.0.0.1"}, "ok", "is allowed"),
        ({"notify_url": "http://127.0.0.1/", "secret": None}, "fail", "needs SERVICE_SECRET"),
        ({"notify_url": "http://[::1]/", "secret": None, "database_url": None}, "ok", "is allowed"),
    ),
)
def test_a_receiver_that_can_not_be_used_is_named(
    values: dict[str, Any], state: str, found: str
) -> None:
    given = {"database_url": "postgresql://host/db", "secret": "0123456789abcdef", **values}
    finding = findings("receiver", **given)["receiver"]
    assert (finding.state, found in finding.found) == (state, True), finding
    assert "hunter2" not in str(finding)


def test_a_healthy_service_has_no_failure(
    command: Command, service: Service, database_url: str, stores: Stores
) -> None:
    """Its port is in use, by itself. Workers would stop caching if they saw an unknown pool."""
    assert database_checks.NAME != SILENT
    ran = command(
        "doctor",
        "--port",
        str(service.port),
        DATABASE_URL=database_url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_SECRET="0123456789abcdef",
    )
    assert ran.code == 0, ran.out
    *lines, summary = ran.out.splitlines()
    found = {match[2]: (match[1], match[3]) for match in map(LINE.fullmatch, lines) if match}
    assert list(found) == list(CHECKS)
    assert "fail" not in {state for state, _ in found.values()}
    assert f"{len(lines)} check" not in summary
    assert summary.startswith(f"{len([1 for state, _ in found.values() if state == 'ok'])} ok, ")
    assert found["port"] == ("ok", f"a running service answers at 127.0.0.1:{service.port}")
    assert found["drift"][0] == "ok"
    assert found["migrations"][0] == "ok"
    assert "\x1b" not in ran.out  # colours are for a terminal
    assert "\n".join(lines) == "\n".join(" ".join(line.split(" ")) for line in lines)


def test_the_json_form_has_what_the_lines_have(command: Command) -> None:
    ran = command("doctor", "--json", "--workers", "2", REDIS_URL="off", DATABASE_URL=url_of(1))
    told = json.loads(ran.out)
    assert (ran.code, told["ok"]) == (1, False)
    assert [one["name"] for one in told["checks"]] == list(CHECKS)
    assert all(one.keys() == {"area", "name", "state", "found", "advice"} for one in told["checks"])
    failed = [one for one in told["checks"] if one["state"] == "fail"]
    assert [one["name"] for one in failed] == ["database"]
    assert all(one["advice"] for one in told["checks"] if one["state"] in {"warn", "fail"})


def test_nothing_is_made_where_nothing_runs(command: Command) -> None:
    ran = command("doctor", "--port", "0")
    assert ran.code == 0, ran.out
    assert "skip  database            the embedded PostgreSQL does not run" in ran.out
    assert [path.name for path in command.place.iterdir()] == ["items.csv"]


def test_a_wrong_setting_is_one_line(command: Command) -> None:
    assert "did you mean SERVICE_PORT?" in command("doctor", SERVICE_PROT="1").refused(2)
    assert "there is no module nowhere" in command("doctor", "--app", "nowhere:app").refused(2)


def test_an_application_of_its_own_is_checked(command: Command, new_database: Any) -> None:
    shutil.copytree(ROOT / "examples" / "notes", command.place / "own")
    (command.place / "own" / "notes.py").rename(command.place / "own_notes.py")
    shutil.move(command.place / "own" / "migrations", command.place / "migrations")
    url = new_database()
    ran = command("doctor", "--app", "own_notes:app", DATABASE_URL=url, REDIS_URL="off")
    assert ran.code == 1
    assert re.search(
        r"fail  migrations +the database is at revision none, this code needs 0001:"
        r" run `swiftlet migrate`\n",
        ran.out,
    )
    assert "skip  drift               the database is not migrated" in ran.out


def test_the_stores_of_a_running_service_are_used(
    command: Command, stores: Stores, database_url: str
) -> None:
    told = msgspec.json.decode((stores.data / "stores.json").read_bytes())
    ran = command("doctor", "--data", str(stores.data), "--port", "0")
    assert f"ok    embedded-stores     running in {stores.data}\n" in ran.out
    assert f"ok    database            it answers: embedded, in {stores.data}\n" in ran.out
    if told["redis_url"] is not None:
        assert "ok    redis               it answers: embedded\n" in ran.out


@pytest.mark.parametrize(
    ("code", "message", "said"),
    (
        ("28P01", "password authentication failed", "it refuses the connection: password"),
        ("3D000", 'database "app" does not exist', "it refuses the connection: database"),
        ("53300", "sorry, too many clients already", "it has no free connection: sorry"),
        ("57P03", "the database system is starting up", "is starting up: start it"),
        ("08P01", "unsupported startup parameter: jit", "a pooler refuses the connection"),
    ),
)
def test_a_database_that_refuses_is_a_line_and_the_others_are_skipped(
    command: Command, code: str, message: str, said: str
) -> None:
    with postgres_that_says(code, message) as port:
        ran = command("doctor", "--port", "0", DATABASE_URL=url_of(port), REDIS_URL="off")
    lines = [match for line in ran.out.splitlines() if (match := LINE.fullmatch(line))]
    states = {match[2]: match[1] for match in lines}
    assert ran.code == 1
    assert {states[one.name] for one in AREAS["Database"][1:]} == {"skip"}
    (failed,) = (match[3] for match in lines if match[1] == "fail")
    assert said in failed
    assert "hunter2" not in ran.out + ran.err


@contextmanager
def silent() -> Iterator[int]:
    """Yield the port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_store_that_does_not_answer_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_checks, "STATEMENT_SECONDS", 0.2)
    monkeypatch.setattr(redis_checks, "SECONDS", 0.2)
    with silent() as port:
        found = findings(
            *("database", "writable", "redis", "redis-writes"),
            database_url=url_of(port),
            redis_url=f"redis://:hunter2@127.0.0.1:{port}",
        )
    assert [one.state for one in found.values()] == ["fail", "skip", "fail", "skip"]
    assert found["database"].found.endswith("no answer within 0.2 s")
    assert found["redis"].found.startswith(f"it is away (127.0.0.1:{port}): ")
    assert "hunter2" not in repr(found)


def test_a_store_that_hangs_in_a_check_is_a_line_and_given_up(database_url: str) -> None:
    async def hang(subject: Subject) -> Finding:
        connection = subject.connection()
        try:
            await connection.execute("SELECT pg_sleep(60)")
        finally:
            await asyncio.sleep(60)
        return ok("")

    found = findings(
        "database",
        checks=(Check("hangs", hang, "database", 0.2), CHECKS["writable"]),
        database_url=database_url,
    )
    assert found["hangs"].found == "PostgreSQL did not answer within 0.2 s"
    assert found["writable"] == ("skip", "the connection to the database is lost", "")


def test_a_check_with_a_bug_is_a_line() -> None:
    async def broken(subject: Subject) -> Finding:
        raise KeyError(subject.settings.host)

    async def skipped(subject: Subject) -> Finding:
        raise Skipped(subject.settings.host)

    async def refused(_: Subject) -> Finding:
        raise asyncpg.InsufficientPrivilegeError("permission denied")

    found = findings(
        checks=(Check("a", broken), Check("b", skipped), Check("c", refused, "database"))
    )
    assert found["a"].found == "this check has a bug: KeyError: '127.0.0.1'"
    assert found["b"] == ("skip", "127.0.0.1", "")
    assert found["c"] == ("skip", "the role may not ask: permission denied", "")


def test_what_blocks_in_a_thread_raises_where_it_is_awaited() -> None:
    assert asyncio.run(in_thread(lambda: 5)) == 5
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_thread(lambda: 1 // 0))


@pytest.mark.parametrize(
    ("name", "values", "state", "said"),
    (
        ("auth", {}, "ok", "only this machine"),
        ("auth", {"host": "0.0.0.0", "auth": "off"}, "warn", "other machines can reach"),
        ("auth", {"host": "0.0.0.0"}, "ok", "need an API key"),
        ("secret", {}, "ok", "data directory"),
        ("secret", {"database_url": url_of(1)}, "warn", "SERVICE_SECRET is not set"),
        ("stores", {"host": "0.0.0.0"}, "warn", "an embedded database"),
        ("cache", {"cache": "local", "workers": 2}, "fail", "is for one worker"),
        ("cache", {"redis_url": "off", "workers": 2}, "warn", "nothing is cached"),
        ("cache", {"database_url": url_of(1)}, "warn", "an embedded Redis"),
        ("cache", {"cache": "off"}, "ok", "off"),
        ("rate-limits", {"rate_limit": "9/s", "redis_url": "off", "workers": 2}, "warn", "share"),
        ("rate-limits", {"rate_limit": "9/s"}, "warn", "SERVICE_TRUSTED_PROXIES"),
        (
            "rate-limits",
            {"rate_limit": "9/s", "trusted_proxies": "127.0.0.1/32"},
            "ok",
            "default: 9 in 1 s",
        ),
        ("time-limits", {"slow_query_ms": 3000}, "warn", "cancelled after 2000 ms"),
        ("tls", {"host": "0.0.0.0"}, "warn", "plain text"),
        ("tls", {"certfile": "/nowhere"}, "fail", "SERVICE_KEYFILE"),
        ("metrics", {"metrics": "off"}, "ok", "off"),
        ("metrics", {"metrics": "/nowhere"}, "fail", "can't be written"),
        ("metrics", {"metrics": "/tmp"}, "ok", "in /tmp"),
        ("traces", {}, "ok", "off"),
        ("processors", {"workers": 1024}, "warn", "1024 workers"),
        ("memory", {"cache_bytes": 2**40}, "warn", "lower SERVICE_CACHE_BYTES"),
        ("embedded-stores", {"database_url": url_of(1), "redis_url": "off"}, "ok", "not needed"),
    ),
)
def test_risky_settings_are_named(name: str, values: dict[str, Any], state: str, said: str) -> None:
    found = findings(name, **values)[name]
    assert found.state == state
    assert said in f"{found.found}: {found.advice}"


def test_a_taken_port_is_named_with_its_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        found = findings("port", port=port)["port"]
        assert found.state == "fail"
        by = f" by \\S.*, process {os.getpid()}" if sys.platform == "linux" else ""
        said = rf"can't listen on 127.0.0.1:{port} \(Address already in use{by}\)"
        assert re.fullmatch(said, found.found), found
    found = findings("port", host="no-such-host.invalid")["port"]
    assert (found.state, found.advice) == (
        "fail",
        "set SERVICE_HOST (--host) to another",
    )


def test_a_collector_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        address = f"http://me:hunter2@127.0.0.1:{port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        assert findings("traces", traces="on")["traces"].found == f"sent to 127.0.0.1:{port}"
    found = findings("traces", traces="on")["traces"]
    assert found.state == "warn"
    assert found.found == f"no collector answers at 127.0.0.1:{port}: spans are lost"


@pytest.mark.parametrize(
    ("free", "state"), ((50 * 2**20, "fail"), (500 * 2**20, "warn"), (2**40, "ok"))
)
def test_a_disk_that_is_nearly_full_is_named(
    monkeypatch: pytest.MonkeyPatch, free: int, state: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))
    found = findings("disk", data=str(tmp_path / "not" / "yet"))["disk"]
    assert found.state == state
    assert f"{free // 2**20:,} MiB free in {tmp_path}" in found.found
    assert findings("metrics", workers=100)["metrics"].state == ("warn" if free < 2**27 else "ok")


@pytest.fixture(scope="module")
def sick_database(new_database: Callable[[], str]) -> str:
    """A migrated database that these tests change."""
    url = new_database()
    migrate.up(url, MIGRATIONS)
    return url


# What is wrong with a database: SQL, how to undo it, the check that finds it, state, text.
SICK = (
    (
        "ALTER DATABASE {db} SET synchronous_commit = off",
        "ALTER DATABASE {db} RESET synchronous_commit",
        ("durability", "fail", "ALTER SYSTEM SET synchronous_commit = on"),
    ),
    (
        "ALTER DATABASE {db} SET default_transaction_read_only = on",
        "ALTER DATABASE {db} RESET default_transaction_read_only",
        ("writable", "fail", "writes are answered 503"),
    ),
    (
        "ALTER DATABASE {db} SET idle_session_timeout = '1min'",
        "ALTER DATABASE {db} RESET idle_session_timeout",
        ("timeouts", "warn", "idle_session_timeout is 60000 ms"),
    ),
    (
        "ALTER DATABASE {db} CONNECTION LIMIT 11",
        "ALTER DATABASE {db} CONNECTION LIMIT -1",
        ("connections", "fail", "1 x (4 + 2 + 2) + 5 = 13 are needed"),
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'items_sku_key'::regclass",
        "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'items_sku_key'::regclass",
        ("invalid-indexes", "fail", "REINDEX INDEX CONCURRENTLY items_sku_key"),
    ),
    (
        "ALTER TABLE items DISABLE TRIGGER items_log_updated",
        "ALTER TABLE items ENABLE TRIGGER items_log_updated",
        ("changes", "fail", "a trigger of items is off: ALTER TABLE items ENABLE TRIGGER USER"),
    ),
    (
        (
            "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO items (name) VALUES ('old'); COMMIT;"
            " UPDATE change_positions SET committed_at = now() - interval '2 days'"
        ),
        "DELETE FROM items; DELETE FROM change_positions; DELETE FROM change_log",
        ("changes", "warn", "entries should have been removed"),
    ),
    (
        "ALTER TABLE items ADD COLUMN colour text",
        "ALTER TABLE items DROP COLUMN colour",
        ("drift", "fail", "only in the database: column items.colour: text"),
    ),
    (
        "UPDATE alembic_version SET version_num = '0001'",
        "UPDATE alembic_version SET version_num = '{head}'",
        ("migrations", "fail", "at revision 0001"),
    ),
    (
        "ALTER INDEX items_search_idx RENAME TO another",
        "ALTER INDEX another RENAME TO items_search_idx",
        ("search-index", "warn", "items_search_idx"),
    ),
)


@pytest.mark.parametrize(("sql", "undo", "expected"), SICK, ids=[one[2][0] for one in SICK])
def test_a_sick_database_is_named_with_the_cure(
    sick_database: str, sql: str, undo: str, expected: tuple[str, str, str]
) -> None:
    name, state, said = expected
    names = {"db": re.findall(r"/(\w+)\?", sick_database)[0], "head": migrate.head(MIGRATIONS)}
    if "items_search_idx" in sql and not query(
        sick_database, "SELECT 1 FROM pg_class WHERE relname = 'items_search_idx'"
    ):
        pytest.skip("this PostgreSQL has no pg_trgm")

    async def change(text: str) -> None:
        writing = {"default_transaction_read_only": "off"}
        connection = await asyncpg.connect(sick_database, server_settings=writing)
        await connection.execute(text.format(**names))
        await connection.close()

    wanted = dict.fromkeys(("database", "migrations", name))
    asyncio.run(change(sql))
    try:
        found = findings(*wanted, database_url=sick_database)[name]
    finally:
        asyncio.run(change(undo))
    assert found.state == state, found
    assert said in f"{found.found}: {found.advice}"
    well = findings(*wanted, database_url=sick_database)[name]
    assert well.state == "ok", well


def test_a_session_that_holds_up_the_readers_of_changes_is_named(
    sick_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_checks, "HELD", timedelta(0))

    async def hold() -> tuple[int, Finding]:
        holder = await asyncpg.connect(sick_database)
        await holder.execute(
            "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO items (name) VALUES ('held')"
        )
        found = await asyncio.to_thread(
            findings, "database", "migrations", "changes", database_url=sick_database
        )
        pid = holder.get_server_pid()
        await holder.close()
        return pid, found["changes"]

    pid, found = asyncio.run(hold())
    assert found.state == "warn"
    assert f"pg_terminate_backend({pid})" in found.advice


def test_an_encoding_other_than_utf8_is_a_failure(stores: Stores) -> None:
    server = stores.database_url
    assert server is not None
    query(server, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    found = findings(
        "database", "encoding", database_url=server.replace("///service?", "///ascii?")
    )
    assert found["encoding"].state == "fail"


def test_a_missing_right_comes_with_its_grant(sick_database: str) -> None:
    """A check that the role may not make is skipped."""
    query(sick_database, "CREATE ROLE weak LOGIN")
    try:
        query(sick_database, "GRANT SELECT ON alembic_version TO weak")
        found = findings(
            *("database", "migrations", "rights", "drift"),
            database_url=as_role(sick_database, "weak"),
        )
        for grant in found["rights"].advice.split("; "):
            query(sick_database, grant)
        url = as_role(sick_database, "weak")
        assert findings("database", "rights", database_url=url)["rights"].state == "ok"
    finally:
        query(sick_database, "DROP OWNED BY weak")
        query(sick_database, "DROP ROLE weak")
    assert found["rights"].state == "fail"
    grants = found["rights"].advice.split("; ")
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON items TO weak" in grants
    assert "GRANT USAGE ON SEQUENCE items_id_seq TO weak" in grants
    assert found["drift"].state == "skip"


def as_role(url: str, role: str) -> str:
    """The URL with a setting that makes each session this role."""
    return f"{url}&role={role}"


@pytest.mark.parametrize(("mode", "state"), (("session", "ok"), ("transaction", "fail")))
def test_a_pooler_in_transaction_mode_is_noticed(
    database_url: str, tmp_path: Path, mode: str, state: str
) -> None:
    parameters = f"ignore_startup_parameters = {', '.join(POOLED)}"
    place = Path(f"/tmp/pgb-{tmp_path.parent.name}-{mode}")
    try:
        with pooler(database_url, place, parameters, f"pool_mode = {mode}") as url:
            found = findings("database", "pooler", "connections", "timeouts", database_url=url)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert found["pooler"].state == state
    assert f"a pooler in {mode} mode" in found["pooler"].found
    assert found["connections"].state == "skip"
    assert found["timeouts"].found.startswith("statement_timeout is 0 ms: the pooler")


def test_a_redis_that_refuses_writes_when_full_is_named(stores: Stores) -> None:
    url = stores.redis_url
    assert url is not None

    async def configure(**values: str) -> None:
        client: Any = redis.client(url, 5)
        for name, value in values.items():
            await client.config_set(name.replace("_", "-"), value)
        await client.aclose()

    names = ("redis", "redis-memory", "redis-writes", "redis-version", "redis-connections")
    try:
        asyncio.run(configure(maxmemory_policy="noeviction"))
        full = findings(*names, redis_url=url)["redis-memory"]
        asyncio.run(configure(maxmemory="0"))
        unlimited = findings(*names, redis_url=url)["redis-memory"]
    finally:
        asyncio.run(configure(maxmemory="64mb", maxmemory_policy="allkeys-lru"))
    assert full.state == "warn"
    assert "noeviction: when it is full" in full.found
    assert unlimited.found.startswith("maxmemory is not set")
    assert {one.state for one in findings(*names, redis_url=url).values()} == {"ok"}


@pytest.mark.parametrize(
    ("name", "info", "state", "said"),
    (
        ("redis-version", {"redis_version": "5.0.14"}, "fail", "too old"),
        ("redis-version", {"redis_version": "6.2.14"}, "warn", "not tested"),
        ("redis-version", {"redis_version": "7.2.4", "valkey_version": "9.1"}, "ok", "Valkey 9.1"),
        ("redis-writes", {"role": "slave"}, "fail", "a replica"),
        ("redis-writes", {"rdb_last_bgsave_status": "err"}, "fail", "snapshot failed"),
        ("redis-writes", {"aof_last_write_status": "err"}, "fail", "append-only"),
        ("redis-writes", {"loading": 1}, "fail", "loading"),
        ("redis-connections", {"maxclients": 10, "connected_clients": 1}, "warn", "maxclients"),
    ),
)
def test_what_redis_says_of_itself_is_judged(
    name: str, info: dict[str, object], state: str, said: str
) -> None:
    async def run() -> Finding:
        subject = Subject(app, Settings(), None)
        subject.redis = redis.client("redis://127.0.0.1:1")
        subject.redis_info = info
        return await CHECKS[name].examine(subject)

    found = asyncio.run(run())
    assert found.state == state
    assert said in found.found


def test_clocks_that_differ_are_named() -> None:
    assert [skewed(seconds, "Redis").state for seconds in (-0.1, 0.9, 2.0, 61.0)] == [
        "ok",
        "ok",
        "warn",
        "fail",
    ]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_a_certificate_is_judged_by_its_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key = make_certificate(tmp_path)
    told = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in", chain], capture_output=True, check=True
    )
    written = told.stdout.decode().strip().replace("GMT", "+0000")
    ends = datetime.strptime(written, "notAfter=%b %d %H:%M:%S %Y %z")
    assert validity(chain).ends == ends

    def at(now: datetime) -> Finding:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return now.astimezone(tz)

        monkeypatch.setattr("service.doctor.settings_checks.datetime", Clock)
        return findings("tls", certfile=str(chain), keyfile=str(key))["tls"]

    assert at(ends - timedelta(days=1)).state == "warn"
    assert at(ends - timedelta(days=1)).found.startswith("the certificate expires at ")
    assert at(ends + timedelta(days=1)).found.startswith("the certificate expired at ")
    assert at(ends - timedelta(days=9)).found.startswith("the certificate is valid only from ")
    chain.write_text("no certificate")
    assert findings("tls", certfile=str(chain), keyfile=str(key))["tls"].state == "fail"


def test_a_full_disk_of_the_database_is_503_and_one_line_in_the_log(
    client: httpx.Client, service: Service, sql: Query
) -> None:
    """The trigger raises the error that PostgreSQL raises when it can't extend a file."""
    sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )
    sql("CREATE TRIGGER full_disk BEFORE INSERT ON items EXECUTE FUNCTION full_disk()")
    try:
        answers = [client.post("/items", json={"name": "Lamp"}) for _ in range(3)]
    finally:
        sql("DROP FUNCTION full_disk CASCADE")
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["detail"] == "the disk of the database is full; nothing was changed"

    def told() -> list[str]:
        lines = service.log.read_text().splitlines()
        return [json.loads(line)["error"] for line in lines if "disk of the data" in line]

    eventually(told, 10)  # the log is written by a thread
    assert told() == ["DiskFullError: could not extend file"]
    counted = client.get("/metrics").text
    assert re.search(
        r'^db_query_total\{query_type="items\.\w+",status="error"\} [1-9]', counted, re.MULTILINE
    )
    assert client.post("/items", json={"name": "Lamp"}).status_code == 201


def test_metrics_survive_a_disk_without_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their file is allocated at the start; without one, a worker counts for itself."""
    store = metrics.Store(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_blocks * 512 >= SIZE or sys.platform != "linux"
    store.close()
    said: list[str] = []
    monkeypatch.setattr(logger, "error", lambda message, **_: said.append(message))
    assert metrics.opened(str(file / "folder")) is not None
    assert said == ["each worker shows its own metrics alone: its file can't be made"]
