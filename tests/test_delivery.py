"""Notifications that are posted to SERVICE_NOTIFY_URL, whatever the receiver does."""

import asyncio
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import receiver as receivers
from conftest import EMPTY_TABLES, ROOT, Service, free_port, query
from in_process import until, worker
from receiver import OK, Receiver, Taken, receiving, says, status

from service.db.names import JOBS_CHANNEL
from service.db.writable import WritableDatabase
from service.errors import Problem
from service.jobs import loop
from service.notifications.notify import notify, told
from service.outgoing import checked_client

pytestmark = pytest.mark.anyio

SECRET = "a secret of sixteen characters"


@pytest.fixture
def url(own_database_url: str) -> str:
    query(own_database_url, EMPTY_TABLES)
    return own_database_url


async def sql(url: str, text: str) -> list[tuple[Any, ...]]:
    """Run SQL beside the loop of the test."""
    return [tuple(record) for record in await asyncio.to_thread(query, url, text)]


def jobs(url: str, columns: str) -> Coroutine[Any, Any, list[tuple[Any, ...]]]:
    return sql(url, f"SELECT {columns} FROM jobs WHERE kind = 'notify' ORDER BY id")


async def reads(url: str, text: str, expected: list[tuple[Any, ...]]) -> None:
    """Wait until a query has this result."""
    async with asyncio.timeout(60):
        while await sql(url, text) != expected:  # noqa: ASYNC110 - a database sets no event
            await asyncio.sleep(0.02)


def ended(url: str, state: str = "done") -> Coroutine[Any, Any, None]:
    """Wait until there are posts, and all have this state."""
    return reads(url, "SELECT DISTINCT state FROM jobs WHERE kind = 'notify'", [(state,)])


@asynccontextmanager
async def notifying(url: str, receiver: Receiver) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """The application in this process, which posts to the receiver."""
    target = f"http://ada:hunter2@127.0.0.1:{receiver.port}/hook"
    async with worker(url, SERVICE_SECRET=SECRET, SERVICE_NOTIFY_URL=target) as opened:
        yield opened


async def create(client: httpx.AsyncClient, name: str = "ada") -> int:
    response = await client.post("/users", json={"username": name, "email": f"{name}@example.com"})
    assert response.status_code == 201
    number: int = response.json()["id"]
    return number


def ids(receiver: Receiver) -> list[str]:
    return [taken.headers["x-delivery-id"] for taken in receiver.taken]


def check_signature(taken: Taken) -> None:
    expected = hmac.new(SECRET.encode(), taken.body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(taken.headers["x-signature"], f"sha256={expected}")


async def test_a_notification_is_posted_as_the_list_shows_it(url: str) -> None:
    async with receiving(says(OK)) as receiver:
        async with notifying(url, receiver) as (client, state):
            user = await create(client)
            await ended(url)
            (listed,) = (await client.get(f"/users/{user}/notifications")).json()["items"]
        await until(lambda: receiver.open == 0)
        assert state["outgoing"] is not None  # else it could be closed because it is garbage
    (taken,) = receiver.taken
    check_signature(taken)
    assert taken.headers["x-delivery-id"] == f"notification-{listed['id']}"
    body = json.loads(taken.body)
    assert list(body) == ["id", "user_id", "kind", "message", "data", "created_at"]
    assert body == {name: listed[name] for name in body}
    assert taken.headers["authorization"].startswith("Basic ")


async def test_a_receiver_that_misbehaves_gets_each_notification_in_the_end(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(checked_client, "SECONDS", 0.3)
    answers = [
        *(status(500, body="hunter2"), receivers.reset, receivers.close, receivers.hang),
        *(status(302, "Location: /"), receivers.slow_headers, status(503, "Retry-After: 1")),
    ]

    async def next_answer(writer: asyncio.StreamWriter) -> None:
        await (answers.pop(0) if answers else says(OK))(writer)

    async with receiving(next_answer) as receiver, notifying(url, receiver) as (client, _):
        await create(client)
        await ended(url)
    assert len(receiver.taken) == 8
    assert len(set(ids(receiver))) == 1
    assert len({taken.body for taken in receiver.taken}) == 1
    assert await jobs(url, "attempts, error") == [(8, None)]


async def test_a_receiver_that_is_gone_gets_no_second_attempt(url: str) -> None:
    async with (
        receiving(status(410, body="no \x1b[1m more")) as receiver,
        notifying(url, receiver) as (client, _),
    ):
        await create(client)
        await ended(url, "failed")
    assert len(receiver.taken) == 1
    assert await jobs(url, "error") == [("the receiver answered 410: no [1m more",)]


async def test_retry_after_delays_the_next_attempt_by_an_hour_at_most(url: str) -> None:
    busy = status(429, "Retry-After: 99999")
    async with receiving(busy) as receiver, notifying(url, receiver) as (client, _):
        await create(client)
        error = "SELECT error FROM jobs WHERE kind = 'notify' AND state = 'queued'"
        await reads(url, error, [("the receiver answered 429",)])
    ((seconds,),) = await jobs(url, "extract(epoch FROM run_at - now())")
    assert 3500 < seconds < 3700


async def test_a_notification_that_is_rolled_back_is_not_posted(url: str) -> None:
    async with receiving(says(OK)) as receiver, notifying(url, receiver) as (_, state):

        async def write(db: WritableDatabase) -> None:
            async with db.transaction() as one:
                await notify(one, state["settings"], user_id=None, kind="test", message="no")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await state["writer"].run(write, lambda _: ())
        made = await state["writer"].run(
            lambda db: notify(db, state["settings"], user_id=None, kind="test", message="yes"), told
        )
        await ended(url)
        # A notification whose job can't be queued is not made.
        await sql(url, "ALTER TABLE jobs ADD CONSTRAINT none CHECK (kind <> 'notify') NOT VALID")
        try:
            with pytest.raises(Problem):
                await state["writer"].run(
                    lambda db: notify(
                        db, state["settings"], user_id=None, kind="test", message="no"
                    ),
                    told,
                )
        finally:
            await sql(url, "ALTER TABLE jobs DROP CONSTRAINT none")
        assert await sql(url, "SELECT message FROM notifications") == [("yes",)]
    assert [json.loads(taken.body)["message"] for taken in receiver.taken] == ["yes"]
    assert ids(receiver) == [f"notification-{made.id}"]


class Posting:
    """Starts servers that post to a receiver, one after another on the same database."""

    def __init__(self, folder: Path, url: str, receiver: Receiver) -> None:
        self.log = folder / "service.log"
        self.environ = {
            "DATABASE_URL": url,
            "REDIS_URL": "off",
            "SERVICE_SECRET": SECRET,
            "SERVICE_NOTIFY_URL": f"http://127.0.0.1:{receiver.port}/hook",
        }

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Service]:
        service = Service(self.log, **self.environ)
        try:
            await asyncio.to_thread(service.wait_until_ready)
            yield service
            if service.process.poll() is None:
                assert await asyncio.to_thread(service.stop) == 0
            assert "Traceback" not in self.log.read_text()
        finally:
            service.process.kill()
            await asyncio.to_thread(service.process.wait)


async def test_a_sender_that_is_killed_posts_again_with_the_same_id(
    url: str, tmp_path: Path
) -> None:
    async with receiving(receivers.hang) as receiver:
        posting = Posting(tmp_path, url, receiver)
        async with posting.started() as service:
            async with httpx.AsyncClient(base_url=service.url) as client:
                await create(client)
            await until(lambda: receiver.taken)
            await asyncio.to_thread(service.stop, signal.SIGKILL)
        receiver.answer = says(OK)
        # As if the lease were over.
        await sql(url, "UPDATE jobs SET leased_until = now() WHERE state = 'running'")
        async with posting.started():
            await ended(url)
    assert len(receiver.taken) == 2
    assert len(set(ids(receiver))) == 1
    for taken in receiver.taken:
        check_signature(taken)


@pytest.mark.slow
async def test_a_receiver_that_hangs_holds_up_no_request_no_other_job_and_no_stop(
    url: str, tmp_path: Path
) -> None:
    users = [{"username": f"user{n}", "email": f"u{n}@example.com"} for n in range(1000)]
    async with receiving(receivers.hang) as receiver:
        posting = Posting(tmp_path, url, receiver)
        async with (
            posting.started() as service,
            httpx.AsyncClient(base_url=service.url, timeout=30) as client,
        ):
            response = await client.put("/users/bulk", json={"items": users})
            assert response.status_code == 200, response.text
            welcomes = "SELECT count(*) FROM jobs WHERE kind = 'welcome' AND state = 'done'"
            await reads(url, welcomes, [(1000,)])
            await until(lambda: len(receiver.taken) >= 8)
            for n in range(100):
                assert (await client.get(f"/users/{n + 1}")).status_code == 200
            states = [state for (state,) in await jobs(url, "state")]
            assert len(states) == 1000
            assert set(states) == {"queued", "running"}
        receiver.answer = says(OK)
        receiver.taken.clear()
        # Those that were tried have a pause.
        await sql(url, "UPDATE jobs SET run_at = now() WHERE state = 'queued'")
        async with posting.started():
            await ended(url)
    assert sorted(ids(receiver)) == sorted(f"notification-{n + 1}" for n in range(1000))


@contextmanager
def receiver_of_the_guide(folder: Path) -> Iterator[str]:
    """Start it in a folder, with its output and its log; yields its URL."""
    guide = (ROOT / "docs" / "receivers.md").read_text()
    (folder / "receiver.py").write_text(guide.split("```python\n")[1].split("```")[0])
    port = free_port()
    environ = {**os.environ, "SERVICE_SECRET": SECRET, "PORT": str(port)}
    command = [sys.executable, "receiver.py"]
    with (folder / "output").open("wb") as output, (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()


async def test_the_receiver_of_the_guide_takes_each_notification_once_and_no_other_post(
    url: str, tmp_path: Path
) -> None:
    with receiver_of_the_guide(tmp_path) as target:
        async with worker(url, SERVICE_SECRET=SECRET, SERVICE_NOTIFY_URL=target) as (client, _):
            await create(client)
            await ended(url)
            # As if the sender had not noted that it was delivered.
            await sql(url, "UPDATE jobs SET state = 'queued' WHERE kind = 'notify'")
            await sql(url, f"SELECT pg_notify('{JOBS_CHANNEL}', '')")
            await ended(url)
        async with httpx.AsyncClient() as stranger:
            for given in (b"", b"sha256=00", b"\xe9"):
                headers = {b"X-Signature": given}
                posted = await stranger.post(target, json={"id": 9}, headers=headers)
                assert posted.status_code == 401
    assert (tmp_path / "output").read_text() == "Welcome, ada\n"
    log = (tmp_path / "log").read_text()
    assert (log.count('" 204 '), log.count('" 401 ')) == (2, 3), log


def test_serve_says_in_one_line_what_a_notify_url_needs() -> None:
    environ = {
        "DATABASE_URL": "postgresql://user:hunter2@127.0.0.1:9/db",
        "SERVICE_NOTIFY_URL": "https://token:hunter2@example.com/hunter2",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
    command = [sys.executable, "-m", "service", "serve"]
    result = subprocess.run(
        command, env={**kept, **environ}, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert result.stderr == (
        "service: SERVICE_NOTIFY_URL needs SERVICE_SECRET, which signs what is posted: set it\n"
    )
