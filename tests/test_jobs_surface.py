"""Jobs as clients and operators see them: routes, commands, metrics, checks and traces."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from accounts import Account, account
from conftest import ROOT, Query, Service, check_answer, query
from in_process import until
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from test_cache_redis import eventually
from test_commands import Command, command

import reports_app  # isort: skip

from service import tracing
from service.cli import retrying
from service.doctor.check import Finding
from service.doctor.database_checks import open_connection
from service.doctor.job_checks import jobs as check_jobs
from service.doctor.subject import Subject
from service.jobs import statements
from service.jobs.figure_statements import figures
from service.jobs.figures import sample
from service.metrics import Metrics, Store, families
from service.settings import Settings
from service.tracing.tracer import Tracer

__all__ = ["command"]  # a fixture

APP = ("--app", "reports_app:app")
OPTIONS = {"PYTHONPATH": str(ROOT / "tests"), "REDIS_URL": "off", "SERVICE_LOG": "json"}
FAILED = """
INSERT INTO jobs (kind, argument, state, user_id, error, attempts, finished_at)
VALUES ($1, '{"title": "Lamp"}', 'failed', $2, 'no lamp', 3, now()) RETURNING id
"""


class Working:
    """A process of `swiftlet work`, with its `process` and `log`."""

    def __init__(self, log: Path, *words: str, **environ: str) -> None:
        self.log = log
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_")}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "work", *words],
                cwd=ROOT,
                env={**kept, **environ},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.log.read_text()


@contextmanager
def working(log: Path, *words: str, **environ: str) -> Iterator[Working]:
    one = Working(log, *words, **environ)
    try:
        eventually(lambda: one.process.poll() is not None or "Ctrl-C" in one.text(), 30)
        yield one
    finally:
        one.process.kill()
        one.process.wait()


@contextmanager
def serving(log: Path, *words: str, **environ: str) -> Iterator[httpx.Client]:
    """A client of a server process, which has the attribute `service`."""
    one = Service(log, *words, **environ)
    try:
        one.wait_until_ready()
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [check_answer]}
        with httpx.Client(base_url=one.url, timeout=30, event_hooks=hooks) as client:
            yield client
        assert one.stop() == 0
        assert "Traceback" not in log.read_text()
    finally:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def url(own_database_url: str) -> str:
    query(own_database_url, "TRUNCATE jobs RESTART IDENTITY")
    return own_database_url


@pytest.fixture
def run_sql(url: str) -> Query:
    return lambda text, *args: query(url, text, *args)


def test_a_worker_of_its_own_runs_the_jobs_of_a_server_that_runs_none(
    url: str, run_sql: Query, tmp_path: Path
) -> None:
    run_sql("TRUNCATE items, users, keys RESTART IDENTITY CASCADE")
    with serving(tmp_path / "serve", *APP, "--no-jobs", DATABASE_URL=url, **OPTIONS) as client:
        ordered = client.post("/reports", json={"title": "Lamps"})
        assert (ordered.status_code, ordered.headers["location"]) == (202, "/jobs/1")
        waiting = client.get("/jobs/1").json()
        assert (waiting["state"], waiting["progress"]) == ("queued", {"done": 0, "total": None})
        for _ in range(2):
            before = client.get("/items")
        assert (before.json()["total"], before.headers["x-cache"]) == (0, "HIT")
        with working(tmp_path / "work", *APP, DATABASE_URL=url, **OPTIONS) as one:
            assert "Jobs  report, fire, welcome" in one.text()
            eventually(lambda: client.get("/jobs/1").json()["state"] == "done", 30)
            job = client.get("/jobs/1").json()
            assert job.keys() == {
                *("id", "kind", "state", "progress", "attempts", "result", "error"),
                *("created_at", "finished_at"),
            }
            assert (job["id"], job["kind"], job["attempts"]) == (1, "report", 1)
            assert job["progress"] == {"done": 2, "total": 2}
            assert job["result"] == {"title": "Lamps", "created_at": "a text, no time"}
            assert job["error"] is None
            assert job["created_at"] <= job["finished_at"]
            # Its writes are announced to the server, which goes on caching beside it.
            eventually(lambda: client.get("/items").json()["total"] == 1, 5)
            time.sleep(1.2)  # the server looks for silent writers twice a second
            eventually(lambda: client.get("/items").headers["x-cache"] == "HIT", 30)
            # It hears of the jobs of the server at once: by itself it looks after 15 s at least.
            client.post("/reports", json={"title": "Chairs"})
            client.post("/users", json={"email": "ada@example.com", "username": "ada"})
            deadline = time.monotonic() + 10
            while {client.get(f"/jobs/{n}").json()["state"] for n in (2, 3)} != {"done"}:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert client.get("/jobs/3").json()["result"] == 1
            one.process.send_signal(signal.SIGTERM)
            assert one.process.wait(30) == 0
            assert "Traceback" not in one.text()
        client.post("/reports", json={"title": "fire"})
        assert client.get("/jobs/4").json()["state"] == "queued"


def test_a_server_runs_jobs_and_counts_them(url: str, tmp_path: Path) -> None:
    old = query(url, FAILED, "report", None)[0]["id"]
    with serving(tmp_path / "serve", *APP, DATABASE_URL=url, **OPTIONS) as client:
        for title in ("Lamps", "fire"):
            client.post("/reports", json={"title": title})
        eventually(
            lambda: (
                {one["state"] for one in client.get("/jobs").json()["items"]} == {"done", "failed"}
            ),
            30,
        )
        burnt = client.get("/jobs?kind=fire").json()["items"][0]
        assert burnt["error"] == "fire is burnt \x1b[31m"
        assert burnt["result"] == {"title": "fire"}
        wanted = (
            'jobs_total{kind="fire",result="failed"} 1',
            'jobs_total{kind="report",result="done"} 1',
            'jobs_duration_seconds_count{kind="report"} 1',
            'jobs_failed{kind="report"} 1',
            'jobs_queued{kind="report"} ',
            'jobs_oldest_wait_seconds{kind="fire"} ',
        )

        def shown() -> bool:
            lines = httpx.get(f"{client.base_url}/metrics").text
            return all(f"\n{one}" in lines for one in wanted)

        eventually(shown, 30)
        # The failed one is of a time before; it runs now that it is retried.
        assert client.post(f"/jobs/{old}/retry").json()["id"] == old
        eventually(lambda: client.get(f"/jobs/{old}").json()["state"] == "done", 30)


@pytest.fixture(scope="module")
def guarded(own_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server with keys; it runs no jobs."""
    log = tmp_path_factory.mktemp("guarded") / "log"
    options = {**OPTIONS, "SERVICE_AUTH": "on", "SERVICE_JOBS": "off"}
    with serving(log, *APP, DATABASE_URL=own_database_url, **options) as client:
        yield client


def test_a_user_sees_their_own_jobs_and_an_admin_all(url: str, guarded: httpx.Client) -> None:
    ada, bob, root = account(url), account(url), account(url, "admin")
    run = query(url, "TRUNCATE jobs RESTART IDENTITY")
    assert run == []

    def status(who: Account, method: str, path: str) -> int:
        return guarded.request(method, path, headers=who.headers).status_code

    where = guarded.post("/reports", json={"title": "Lamps"}, headers=ada.headers).headers
    assert [status(one, "GET", where["location"]) for one in (ada, bob, root)] == [200, 404, 200]
    ownerless = query(url, FAILED, "report", None)[0]["id"]
    path = f"/jobs/{ownerless}"
    assert [status(one, "GET", path) for one in (ada, bob, root)] == [404, 404, 200]
    mine = query(url, FAILED, "report", ada.user_id)[0]["id"]
    assert status(ada, "POST", f"/jobs/{mine}/retry") == 403
    assert [status(one, "GET", "/jobs") for one in (ada, bob, root)] == [403, 403, 200]
    assert guarded.get(path).status_code == 401
    missing = [
        guarded.get(one, headers=bob.headers).json() for one in (path, f"/jobs/{ownerless + 99}")
    ]
    assert missing[0]["detail"] == missing[1]["detail"]
    assert status(root, "POST", f"/jobs/{mine}/retry") == 200
    assert guarded.get(f"/jobs/{mine}", headers=ada.headers).json()["state"] == "queued"


def test_the_list_goes_by_cursor_and_names_each_job_once(url: str, guarded: httpx.Client) -> None:
    root = account(url, "admin").headers
    query(url, "TRUNCATE jobs RESTART IDENTITY")
    kinds = ["report", "fire"] * 6
    ids = [query(url, FAILED, kind, None)[0]["id"] for kind in kinds]
    query(url, "UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id <= 4")

    def pages(parameters: str) -> list[list[int]]:
        found, cursor = [], ""
        while True:
            path = f"/jobs?cursor={cursor}&{parameters}"
            page = guarded.get(path, headers=root)
            found.append([one["id"] for one in page.json()["items"]])
            if len(found) == 1:  # what comes later is before all that is shown
                query(url, FAILED, "report", None)
            cursor = page.json()["next_cursor"]
            assert ("link" in page.headers) == (cursor is not None)
            if cursor is None:
                return found

    newest = ids[::-1]
    assert pages("per_page=5") == [newest[:5], newest[5:10], newest[10:]]
    assert pages("state=queued&per_page=2") == [[4, 3], [2, 1]]
    assert pages("kind=fire&state=failed&per_page=100") == [[12, 10, 8, 6]]
    assert pages("kind=none") == [[]]
    query(url, "UPDATE jobs SET created_at = '2026-01-01Z', result = '{\"created_at\": \"A\"}'")
    exact = guarded.get("/jobs", headers=root).json()["items"][0]
    assert exact == guarded.get(f"/jobs/{exact['id']}", headers=root).json()
    assert exact["created_at"] == "2026-01-01T00:00:00.000000Z"
    assert exact["result"] == {"created_at": "A"}
    first = guarded.get("/jobs?per_page=1", headers=root).json()["next_cursor"]
    for query_text, field in (
        (f"cursor={first}&state=failed", "cursor"),
        (f"cursor={first}x", "cursor"),
        ("state=lost", "state"),
        ("per_page=0", "per_page"),
        ("page=1", "page"),
    ):
        answer = guarded.get(f"/jobs?{query_text}", headers=root)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    told = guarded.get("/jobs?state=lost", headers=root).json()["detail"]
    assert told == "state: must be one of queued, running, done, failed"


def test_only_a_failed_job_is_retried_and_once_per_key(url: str, guarded: httpx.Client) -> None:
    root = account(url, "admin").headers
    query(url, "TRUNCATE jobs RESTART IDENTITY")
    query(url, FAILED, "report", None)
    key = {**root, "Idempotency-Key": "one"}
    first = guarded.post("/jobs/1/retry", headers=key)
    shown = first.json()
    assert (first.status_code, shown["state"], shown["attempts"]) == (200, "queued", 0)
    assert (shown["error"], shown["finished_at"]) == (None, None)
    again = guarded.post("/jobs/1/retry", headers=key)
    assert (again.headers["idempotency-replayed"], again.content) == ("true", first.content)
    refused = guarded.post("/jobs/1/retry", headers=root)
    assert (refused.status_code, "is queued" in refused.json()["detail"]) == (409, True)
    for path, status in (("/jobs/9/retry", 404), ("/jobs/x/retry", 422), ("/jobs/0", 404)):
        method = "POST" if path.endswith("retry") else "GET"
        assert guarded.request(method, path, headers=root).status_code == status


def test_the_commands_list_and_retry_jobs(
    url: str, command: Command, run_sql: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "AT_ONCE", 2)

    def run(*words: str) -> Any:
        return command("jobs", *words, DATABASE_URL=url)

    assert run("list").out.splitlines() == [
        "ID  KIND  STATE  DONE  ATTEMPTS  CREATED  DUE OR ENDED  ERROR"
    ]
    for kind in ("welcome", "welcome", "other"):
        run_sql(FAILED, kind, None)
    run_sql("UPDATE jobs SET error = $1, done = 3, total = 4 WHERE id = 2", "\x1b[2J" + "x" * 99)
    run_sql("UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id = 1")
    lines = run("list", "--limit", "2").out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["3", "other", "failed"],
        ["2", "welcome", "failed"],
    ]
    assert "3 of 4" in lines[2]
    assert lines[2].endswith("…")
    assert "\x1b" not in lines[2]
    found = json.loads(run("list", "--state", "failed", "--kind", "welcome", "--json").out)
    assert [one["id"] for one in found] == [2]
    assert found[0]["error"] == "\x1b[2J" + "x" * 99
    partly = run("retry", "2", "1", "77")
    assert (partly.code, partly.out) == (1, "1 job is queued again\n")
    assert "1, 77" in partly.err
    every = run("retry", "--all", "--kind", "welcome")
    assert (every.code, every.out) == (0, "0 jobs are queued again\n")
    for _ in range(4):
        run_sql(FAILED, "other", None)
    assert run("retry", "--all").out == "5 jobs are queued again\n"
    assert {row["state"] for row in run_sql("SELECT state FROM jobs")} == {"queued"}
    for words in (("retry",), ("retry", "1", "--all"), ("retry", "1", "--kind", "x")):
        assert "--help" in run(*words).refused(2)
    assert "0" in run("retry", "0").refused(2)
    assert "running" in run("list", "--state", "lost").refused(2)
    none = command("jobs", "list", "--app", "no_such_module:app", DATABASE_URL=url, PYTHONPATH="")
    assert none.code == 2


def test_a_worker_without_jobs_or_with_a_wrong_setting_does_not_start(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty.py").write_text(
        "from service.app import create_app\nfrom service.settings import Settings\n"
        "app = create_app(Settings.load())\n"
    )
    assert "has no jobs" in command("work", "--app", "empty:app").refused(2)
    assert "has no jobs" in command("jobs", "list", "--app", "empty:app").refused(2)
    assert "on or off" in command("work", SERVICE_JOBS="maybe").refused(2)
    away = "postgresql:///nothing?host=/nowhere"
    assert "DATABASE_URL" in command("jobs", "list", DATABASE_URL=away).refused(1)
    assert not (tmp_path / ".data").exists()


@pytest.mark.slow
def test_a_worker_joins_the_embedded_database_and_ends_with_it(tmp_path: Path) -> None:
    data = {"SERVICE_DATA": str(tmp_path / "data"), **OPTIONS}
    tmp_path.chmod(0o755)
    one = Service(tmp_path / "serve", *APP, "--no-jobs", **data)
    try:
        one.wait_until_ready()
        with working(tmp_path / "work", *APP, **data) as worker:
            assert "embedded" in worker.text()
            httpx.post(f"{one.url}/reports", json={"title": "Lamps"})
            eventually(lambda: httpx.get(f"{one.url}/jobs/1").json()["state"] == "done", 30)
            assert one.stop() == 0
            assert worker.process.wait(30) == 1
            assert (
                worker.text()
                .rstrip()
                .endswith(
                    "the service that ran the database has ended: start `swiftlet work` again"
                )
            )
    finally:
        one.process.kill()
        one.process.wait()
    with working(tmp_path / "alone", *APP, **data) as worker:  # it starts the database itself
        worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(30) == 0


def checked(url: str) -> Finding:
    async def run() -> Finding:
        subject = Subject(reports_app.app, Settings(database_url=url), None)
        subject.database = await open_connection(subject)
        subject.migrated = True
        try:
            return await check_jobs(subject)
        finally:
            await subject.close()

    return asyncio.run(run())


def test_doctor_tells_failed_jobs_from_those_that_no_worker_runs(url: str, run_sql: Query) -> None:
    assert checked(url).state == "ok"
    run_sql("INSERT INTO jobs (kind, argument) VALUES ('report', '{}'), ('unknown', '{}')")
    assert checked(url).state == "ok"
    run_sql(FAILED, "report", None)
    found = checked(url)
    assert (found.state, found.found) == ("warn", "failed jobs: 1 (report)")
    assert "swiftlet jobs" in found.advice
    run_sql("UPDATE jobs SET run_at = now() - interval '5 minutes' WHERE state = 'queued'")
    found = checked(url)
    late = r"late jobs: 1 \(report\), the first by 3\d\d s; no worker runs any"
    assert re.fullmatch(late, found.found)
    assert "swiftlet work" in found.advice
    run_sql(
        "INSERT INTO jobs (kind, argument, state, leased_until)"
        " VALUES ('report', '{}', 'running', now() + interval '30 s')"
    )
    assert "more workers" in checked(url).advice


def test_the_figures_are_bounded_and_read_from_indexes(url: str, run_sql: Query) -> None:
    run_sql(
        "INSERT INTO jobs (kind, argument, state, finished_at)"
        " SELECT 'report', '{}', 'done', now() FROM generate_series(1, 30000)"
    )
    run_sql(FAILED, "report", None)
    run_sql(
        "INSERT INTO jobs (kind, argument, run_at) VALUES"
        " ('report', '{}', now() - interval '90 s'), ('report', '{}', now() + interval '1 h')"
    )
    run_sql("VACUUM (ANALYZE) jobs")
    metrics = Metrics(Store())

    async def run() -> None:
        app = reports_app.app
        app.settings = Settings(database_url=url, metrics="off", jobs="off", auth="off")
        async with app.lifespan_context(Starlette()) as state:
            assert state is not None
            await sample(state["db"], metrics, app.jobs)

    asyncio.run(run())

    def value(family: families.Family, kind: str) -> float:
        return metrics.values[metrics.store.place(family, (kind,))]

    assert [value(families.JOBS_QUEUED, kind) for kind in ("report", "fire")] == [2, 0]
    assert [value(families.JOBS_FAILED, kind) for kind in ("report", "fire")] == [1, 0]
    assert 90 <= value(families.JOBS_WAITED, "report") < 150
    assert value(families.JOBS_WAITED, "fire") == 0
    for statement, values in (
        (figures, "ARRAY['report', 'fire']"),
        (statements.list_, "'failed', NULL, NULL, 20"),
        (statements.list_, "'queued', NULL, NULL, 20"),
        (statements.list_, "NULL, NULL, 9000, 20"),
        (statements.retry, "ARRAY[7::bigint]"),
    ):
        name = f"one_{statement.name.replace('.', '_')}"
        plan = plan_of(url, name, statement.sql, values)
        assert "Seq Scan on jobs" not in plan, plan
        assert "Index" in plan


def plan_of(url: str, name: str, sql: str, values: str) -> str:
    """The plan of a statement for these values."""

    async def run() -> str:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(
                f"SET plan_cache_mode = force_custom_plan; PREPARE {name} AS {sql}"
            )
            rows = await connection.fetch(f"EXPLAIN EXECUTE {name}({values})")
            return "\n".join(row[0] for row in rows)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_an_attempt_is_the_root_of_a_trace(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "opened", lambda _: Tracer(SimpleSpanProcessor(exporter)))
    query(url, "INSERT INTO jobs (kind, argument) VALUES ('fire', '{\"title\": \"oven\"}')")

    async def run() -> None:
        app = reports_app.app
        app.settings = Settings(database_url=url, auth="off", log="json", redis_url="off")
        async with app.lifespan_context(Starlette()):
            await until(
                lambda: any(one.name == "job fire" for one in exporter.get_finished_spans())
            )

    asyncio.run(run())
    spans = {one.name: one for one in exporter.get_finished_spans()}
    root, stored = spans["job fire"], spans["jobs.fail"]
    assert root.parent is None
    assert root.attributes is not None
    assert root.attributes["swiftlet.job.result"] == "failed"
    assert stored.parent is not None
    assert root.context is not None
    assert stored.parent.span_id == root.context.span_id
    lines = [json.loads(one) for one in capfd.readouterr().err.splitlines()]
    failed = next(one for one in lines if one["message"] == "a job has failed")
    assert failed["kind"] == "fire"
    assert int(failed["trace_id"], 16) == root.context.trace_id
