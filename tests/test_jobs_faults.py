"""Jobs while their worker or the database dies: none is lost, and no effect happens twice."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, SERVER, Service, own_stores_in, query
from test_faults import eventually, processes

from jobs_app import EFFECTS, STEPS  # isort: skip

from service.server import free_port

LEASE = 1.0


@pytest.fixture
def url(own_database_url: str) -> str:
    query(own_database_url, "DROP TABLE IF EXISTS effects")
    query(own_database_url, EFFECTS)
    query(own_database_url, "DELETE FROM jobs")
    return own_database_url


@contextmanager
def workers(url: str, folder: Path, name: str, *options: str) -> Iterator[Service]:
    """Processes of jobs_app with a short lease."""
    running = Service(
        folder / f"{name}.log",
        *("--server", SERVER, "--app", "jobs_app:app", *options),
        DATABASE_URL=url,
        REDIS_URL="off",
        PYTHONPATH=str(Path(__file__).parent),
        SERVICE_LOG="json",
        JOBS_FOLDER=str(folder),
        JOBS_LEASE=str(LEASE),
    )
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def queue(service: Service, *steps: dict[str, Any]) -> None:
    answer = httpx.post(f"{service.url}/steps", json={"steps": steps})
    assert answer.status_code == 202, answer.text


def all_done(url: str, count: int) -> bool:
    found = query(url, "SELECT state, count(*) FROM jobs GROUP BY state")
    return [tuple(one) for one in found] == [("done", count)]


def effects(url: str) -> Counter[tuple[int, int]]:
    """How often each effect happened, by its number and the attempt that made it."""
    return Counter((one[0], one[1]) for one in query(url, "SELECT n, attempt FROM effects"))


def reached(folder: Path) -> bool:
    return all((folder / step).exists() for step in STEPS)


def test_jobs_survive_kill_9_of_their_worker_at_each_step(url: str, tmp_path: Path) -> None:
    stalls = [{"n": n, "stall": step} for n, step in enumerate(STEPS)]
    with workers(url, tmp_path, "first") as first:
        queue(first, *stalls)
        eventually(lambda: reached(tmp_path), 30)
    with workers(url, tmp_path, "second") as second:
        eventually(lambda: all_done(url, len(STEPS)), 30)
        assert second.stop() == 0
    claimed, middle, committed, marked = range(len(STEPS))
    assert effects(url) == {
        (claimed, 2): 1,
        # The first attempt was rolled back.
        (middle, 2): 1,
        # An effect without `finish` in its transaction happens at least once.
        (committed, 1): 1,
        (committed, 2): 1,
        (marked, 1): 1,
    }


@pytest.mark.parametrize("command", ("serve", pytest.param("work", marks=pytest.mark.slow)))
def test_a_job_that_ignores_its_end_does_not_keep_its_process(
    command: str, url: str, tmp_path: Path
) -> None:
    add = "INSERT INTO jobs (kind, argument) VALUES ('step', $1)"
    query(url, add, '{"n": 1, "stall": "for ever"}')
    with ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", command, "--app", "jobs_app:app"],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("SERVICE_")},
                "DATABASE_URL": url,
                "REDIS_URL": "off",
                "PYTHONPATH": str(Path(__file__).parent),
                "SERVICE_PORT": str(free_port("127.0.0.1")),
                "JOBS_FOLDER": str(tmp_path),
                "JOBS_STOP": "1",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        eventually((tmp_path / "for ever").exists, 30)
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "swiftlet: not stopped after 1 s: ended by force" in errors


@pytest.mark.slow
def test_a_worker_that_was_stopped_beyond_its_leases_changes_nothing_and_works_on(
    url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(workers(url, tmp_path, "first"))
        queue(first, *({"n": n, "stall": step} for n, step in enumerate(STEPS)))
        eventually(lambda: reached(tmp_path), 30)
        first.process.send_signal(signal.SIGSTOP)
        second = stack.enter_context(workers(url, tmp_path, "second"))
        eventually(lambda: all_done(url, len(STEPS)), 30)
        before = effects(url)
        first.process.send_signal(signal.SIGCONT)
        assert second.stop() == 0
        queue(first, *({"n": 100 + n} for n in range(20)))
        eventually(lambda: all_done(url, len(STEPS) + 20), 30)
        assert first.stop() == 0
        assert "Traceback" not in first.log.read_text()
    assert effects(url) - before == {(100 + n, 1): 1 for n in range(20)}
    assert before[1, 2] == 1
    assert before[1, 1] == 0


def test_two_servers_of_which_one_is_killed_run_each_effect_once(url: str, tmp_path: Path) -> None:
    count = 600
    with ExitStack() as stack:
        first = stack.enter_context(workers(url, tmp_path, "first", "--workers", "2"))
        second = stack.enter_context(workers(url, tmp_path, "second"))
        for start in range(0, count, 100):
            queue(first, *({"n": n} for n in range(start, start + 100)))
        eventually(lambda: len(effects(url)) > 20, 30)
        second.process.kill()
        # One of the two workers of the first server too; another one takes its place.
        parent = first.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        eventually(lambda: all_done(url, count), 60)
        assert first.stop() == 0
    assert Counter(n for n, _ in effects(url).elements()) == dict.fromkeys(range(count), 1)


@pytest.mark.slow
def test_jobs_survive_kill_9_of_the_database(tmp_path: Path) -> None:
    count = 600
    with own_stores_in(tmp_path / "data") as stores:
        url = stores.database_url
        assert url is not None
        query(url, EFFECTS)
        with workers(url, tmp_path, "first", "--workers", "2") as first:
            for start in range(0, count, 100):
                queue(first, *({"n": n} for n in range(start, start + 100)))
            for least in (20, 200):
                eventually(lambda least=least: _count(url) > least, 60)  # type: ignore[misc]
                os.kill(processes(stores)[-1], signal.SIGKILL)
            eventually(lambda: _count(url) == count and all_done(url, count), 60)
            assert first.stop() == 0
            assert "Traceback" not in first.log.read_text()
        assert Counter(n for n, _ in effects(url).elements()) == dict.fromkeys(range(count), 1)


def _count(url: str) -> int:
    """How many effects there are; 0 while the database is away."""
    try:
        return len(effects(url))
    except Exception:  # noqa: BLE001 - whatever it raises while it recovers
        return 0
