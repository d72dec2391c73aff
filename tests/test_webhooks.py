"""Webhooks with real workers, a real database and a receiver that fails, hangs and goes away."""

import asyncio
import hashlib
import hmac
import json
import random
import re
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest
from conftest import SERVER, Service, free_port, query
from test_accounts import Run, run
from test_faults import eventually

from service.asgi import MIGRATIONS, app
from service.cache.writer import Writer
from service.changes import log
from service.changes.feed import Feed
from service.db.database import Database
from service.db.listener import Listener
from service.doctor.check import Finding
from service.doctor.database_checks import open_connection
from service.doctor.subject import Subject
from service.doctor.webhook_checks import webhooks as check_webhooks
from service.items import items
from service.metrics import Metrics, Store, families
from service.migrations import migrate
from service.resource.change_feed import form_of
from service.settings import Settings
from service.webhooks.delivery_window import Pending
from service.webhooks.sampled import sample
from service.webhooks.statements import Webhook
from service.webhooks.webhook_jobs import WebhookEdges

__all__ = ["run"]  # a fixture

SECRET = "a secret of sixteen characters"


class Post(NamedTuple):
    """A change that was posted."""

    id: str
    row: int
    version: int
    change: dict[str, Any]


class Inbox:
    """A receiver; `answer` returns the status for a post, or None to hang.

    Attributes:
        posts: what was posted, in the order in which it came.
        taken: those that were answered with 204.
        most: how many were open at the same time.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.posts: list[Post] = []
        self.taken: list[Post] = []
        self.answer: Callable[[Post], int | None] = lambda _: 204
        self.open: Counter[int] = Counter()
        self.most = 0
        self.wrong: list[str] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = None if inbox.closing.is_set() else inbox.take(self.headers, body)
                self.close_connection = status is None
                if status is not None:
                    with suppress(OSError):
                        self.send_response(status)
                        self.send_header("Content-Length", "0")
                        self.end_headers()

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None: ...  # the sender was killed

        self.closing.clear()
        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be away: new connections are refused, open ones closed."""
        self.closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def take(self, headers: Any, body: bytes) -> int | None:
        change = json.loads(body)
        post = Post(headers["x-delivery-id"], change["id"], change["version"], change)
        signed = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        with self._lock:
            if headers["x-signature"] != f"sha256={signed}":
                self.wrong.append(f"{post.id}: signature")
            if post.id != f"webhook-{change['webhook_id']}-{change['position']}":
                self.wrong.append(f"{post.id}: id")
            self.posts.append(post)
            self.open[post.row] += 1
            if self.open[post.row] > 1:
                self.wrong.append(f"{post.id}: two of a row at the same time")
            self.most = max(self.most, self.open.total())
        status = self.answer(post)
        if status is None:
            self.closing.wait(30)
        with self._lock:
            self.open[post.row] -= 1
            if status == 204:
                self.taken.append(post)
        return status

    def versions(self) -> dict[int, list[int]]:
        """The versions of each row in the order of their first delivery."""
        found: dict[int, list[int]] = defaultdict(list)
        for post in {post.id: post for post in reversed(self.taken)}.values():
            found[post.row].insert(0, post.version)
        return found


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    one = Inbox()
    one.start()
    yield one
    one.stop()
    assert one.wrong == []


@contextmanager
def served(url: str, log: Path, *options: str) -> Iterator[Service]:
    """A server of webhooks_app."""
    running = Service(
        log,
        *("--server", SERVER, "--app", "webhooks_app:app", *options),
        DATABASE_URL=url,
        REDIS_URL="off",
        PYTHONPATH=str(Path(__file__).parent),
        SERVICE_LOG="json",
        SERVICE_SECRET=SECRET,
    )
    try:
        running.wait_until_ready()
        yield running
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def server(own_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(own_database_url, tmp_path_factory.mktemp("webhooks") / "log") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def url(own_database_url: str) -> str:
    """The database, without webhooks."""
    query(own_database_url, "DELETE FROM webhooks")
    return own_database_url


@pytest.fixture
def swiftlet(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands with a secret on the database of the server."""
    monkeypatch.setattr(app, "settings", Settings(database_url=url, secret=SECRET))
    return run


def add(swiftlet: Run, inbox: Inbox) -> int:
    made = swiftlet("webhooks", "add", inbox.url, "--resource", "items")
    assert made.code == 0, made.err
    return int(made.out.split()[1].removesuffix(":"))


def create(server: Service, *names: str) -> list[int]:
    made = httpx.post(f"{server.url}/items/bulk", json={"items": [{"name": n} for n in names]})
    assert made.status_code == 201, made.text
    return [item["id"] for item in made.json()["items"]]


def patch(server: Service, row: int, name: str) -> None:
    answer = httpx.patch(f"{server.url}/items/{row}", json={"name": name})
    assert answer.status_code == 200, answer.text


def soon(true: Callable[[], bool]) -> None:
    eventually(true, 30)


def failures(url: str) -> list[Any]:
    return query(url, "SELECT * FROM webhook_failures ORDER BY id")


def test_changes_are_signed_and_those_of_a_row_come_in_order(
    server: Service, swiftlet: Run, inbox: Inbox
) -> None:
    inbox.answer = lambda _: (threading.Event().wait(random.random() * 0.01), 204)[1]
    add(swiftlet, inbox)
    rows = create(server, *"abcde")
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: patch(server, rows[n % 5], f"name {n}"), range(100)))
    httpx.delete(f"{server.url}/items/{rows[0]}?permanent=true").raise_for_status()
    soon(lambda: len(inbox.taken) == 106)
    assert inbox.versions() == {
        row: [*range(1, 22), *([21] if row == rows[0] else [])] for row in rows
    }
    assert 1 < inbox.most <= 8
    kinds = [post.change["kind"] for post in inbox.taken if post.row == rows[0]]
    assert kinds == ["created", *["updated"] * 20, "deleted"]
    read = httpx.get(f"{server.url}/items/{rows[1]}").json()
    assert [post.change["item"] for post in inbox.taken if post.row == rows[1]][-1] == read


def test_a_receiver_that_is_away_gets_everything_when_it_is_back(
    server: Service, swiftlet: Run, inbox: Inbox, url: str
) -> None:
    add(swiftlet, inbox)
    inbox.stop()
    rows = create(server, *map(str, range(30)))
    for row in rows[:5]:
        patch(server, row, "later")
    soon(lambda: query(url, "SELECT error FROM webhooks")[0][0] is not None)
    shown = swiftlet("webhooks", "list").out
    assert "  35  " in shown
    assert "refused" in shown
    inbox.start()
    soon(lambda: len(inbox.taken) == 35)
    assert inbox.versions() == {row: [1, 2] if row in rows[:5] else [1] for row in rows}
    assert failures(url) == []
    soon(lambda: query(url, "SELECT error FROM webhooks")[0][0] is None)


def test_a_change_that_is_refused_does_not_hold_up_the_others_and_can_be_posted_again(
    server: Service, swiftlet: Run, inbox: Inbox, url: str
) -> None:
    refusing = True

    def answer(post: Post) -> int:
        return 422 if refusing and post.change["item"]["name"] == "bad" else 204

    inbox.answer = answer
    webhook = add(swiftlet, inbox)
    bad, good = create(server, "bad", "good")
    patch(server, bad, "better")
    soon(lambda: inbox.versions() == {good: [1], bad: [2]})
    soon(lambda: len(failures(url)) == 1)
    (failure,) = failures(url)
    assert (failure["webhook_id"], failure["attempts"]) == (webhook, 3)
    assert "422" in failure["error"]
    listed = swiftlet("webhooks", "failed").out
    assert "422" in listed
    body = json.loads(swiftlet("webhooks", "failed", "--webhook", str(webhook), "--body").out)
    assert body["item"]["name"] == "bad"

    refusing = False
    assert swiftlet("webhooks", "retry", "--all").code == 0
    soon(lambda: failures(url) == [])
    again = [post for post in inbox.posts if post.row == bad and post.version == 1]
    assert len({post.id for post in again}) == 1
    assert len(again) == 4


def test_one_receiver_that_hangs_holds_up_no_other_and_no_request(
    server: Service, swiftlet: Run, inbox: Inbox, url: str
) -> None:
    hanging = Inbox()
    hanging.answer = lambda _: None
    hanging.start()
    add(swiftlet, hanging)
    add(swiftlet, inbox)
    rows = create(server, *map(str, range(200)))
    soon(lambda: len(inbox.taken) == 200)
    assert httpx.get(f"{server.url}/items/{rows[0]}").status_code == 200
    soon(lambda: len(hanging.posts) == 8)
    query(url, "DELETE FROM webhooks")
    hanging.stop()


def test_a_removed_webhook_posts_no_more(
    server: Service, swiftlet: Run, inbox: Inbox, url: str
) -> None:
    webhook = str(add(swiftlet, inbox))
    create(server, "before")
    soon(lambda: len(inbox.taken) == 1)
    assert swiftlet("webhooks", "remove", webhook).out == f"webhook {webhook} is removed\n"
    running = "SELECT count(*) FROM jobs WHERE kind = 'webhook' AND state = 'running'"
    soon(lambda: query(url, running)[0][0] == 0)
    create(server, "after")
    other = Inbox()
    other.start()
    add(swiftlet, other)
    create(server, "for the other")
    soon(lambda: len(other.taken) == 1)
    assert len(inbox.posts) == 1
    other.stop()


def test_changes_that_were_kept_too_short_are_named(
    server: Service, swiftlet: Run, inbox: Inbox, url: str
) -> None:
    create(server, "lost")

    async def trim() -> None:
        db = Database(url, size=None)
        assert await log.trim(Writer(db), timedelta()) > 0
        await db.close()

    asyncio.run(trim())
    create(server, "kept")
    sql = "INSERT INTO webhooks (url, resource, position) VALUES ($1, 'items', 5) RETURNING id"
    webhook = Webhook(query(url, sql, inbox.url)[0][0], inbox.url, "items", 5)

    async def read() -> tuple[int, list[Pending]]:
        db = Database(url, size=None)
        feed = Feed(db, Listener(url), [form_of(items)])
        context: Any = SimpleNamespace(db=db, writer=Writer(db), feed=feed)
        edges = WebhookEdges(context, webhook)
        nothing, position = await edges.read(5, 100)
        assert nothing == []
        changes, _ = await edges.read(position, 100)
        await db.close()
        return position, changes

    position, changes = asyncio.run(read())
    assert [json.loads(one.body)["item"]["name"] for one in changes] == ["kept"]
    (lost,) = failures(url)
    assert (lost["position"], lost["lost_to"], lost["body"]) == (6, position, None)
    assert f"after 5 up to {position}" in swiftlet("webhooks", "failed").out
    assert swiftlet("webhooks", "forget", str(lost["id"])).out == "1 failure is forgotten\n"


def test_list_doctor_and_metrics_say_how_far_behind_a_webhook_is(
    server: Service, swiftlet: Run, url: str
) -> None:
    create(server, *map(str, range(5)))
    position = query(url, "SELECT max(position) * 1024 FROM change_positions")[0][0]
    # Without its job, and in the middle of an entry.
    sql = "INSERT INTO webhooks (url, resource, position, error) VALUES ($1, 'items', $2, $3)"
    query(url, sql, "https://user:pass@example.com/hook?token=x", position + 1, "answered 500")
    create(server, "one more")
    query(url, "UPDATE change_positions SET committed_at = now() - interval '5 minutes'")
    shown = swiftlet("webhooks", "list").out
    expected = rf"https://example.com/hook  items +{position + 1} +4 +30\d s +0 +answered 500"
    assert re.search(expected, shown), shown
    assert "pass" not in shown
    assert "token" not in shown

    async def looked() -> tuple[Finding, list[float]]:
        subject = Subject(app, Settings(database_url=url), None)
        subject.database = await open_connection(subject)
        subject.migrated = True
        metrics = Metrics(Store())
        db = Database(url, size=None)
        await sample(db, metrics)
        figures = [
            metrics.values[metrics.store.place(one)]
            for one in (families.WEBHOOK_LAG, families.WEBHOOK_FAILURES)
        ]
        try:
            return await check_webhooks(subject), figures
        finally:
            await db.close()
            await subject.close()

    found, (lag, given_up) = asyncio.run(looked())
    assert found.state == "warn"
    assert re.search(r"webhook \d+ by 30\d s \(answered 500\)", found.found)
    assert 300 <= lag < 400
    assert given_up == 0
    query(url, "UPDATE change_positions SET committed_at = now()")
    sql = "INSERT INTO webhook_failures (webhook_id, position, body, attempts, error)"
    query(url, f"{sql} SELECT id, 1, '{{}}', 3, 'answered 422' FROM webhooks")
    found, (_, given_up) = asyncio.run(looked())
    assert (found.state, found.found) == ("warn", "changes that were given up: 1")
    assert given_up == 1


@pytest.fixture
def new_url(new_database: Callable[[], str], swiftlet: Run) -> str:
    """A database of its own, which the commands use too."""
    made = new_database()
    migrate.up(made, MIGRATIONS)
    app.settings = Settings(database_url=made, secret=SECRET)
    return made


@pytest.mark.slow
def test_another_worker_goes_on_when_one_is_killed_and_ids_stay_the_same(
    swiftlet: Run, inbox: Inbox, new_url: str, tmp_path: Path
) -> None:
    """The first is killed while posts are on their way, the second stopped and started again."""
    inbox.answer = lambda _: threading.Event().wait(0.01) or 204
    chance = random.Random(7)
    with served(new_url, tmp_path / "first.log") as first:
        with served(new_url, tmp_path / "second.log") as second:
            add(swiftlet, inbox)
            rows = create(first, *map(str, range(10)))
            soon(lambda: len(inbox.taken) == 10)
            assert len(inbox.posts) == 10, "only one of two workers posts"

            def work(service: Service) -> None:
                for _ in range(60):
                    patch(service, chance.choice(rows), f"{chance.random()}")

            work(second)
            first.stop(signal.SIGKILL)
            work(second)
            assert second.stop() == 0
        with served(new_url, tmp_path / "third.log") as third:
            work(third)
            soon(lambda: len({post.id for post in inbox.taken}) == 190)
            assert third.stop() == 0
    order = {row: [*range(1, len(found) + 1)] for row, found in inbox.versions().items()}
    assert inbox.versions() == order
    same: dict[str, Any] = {}
    for post in inbox.posts:
        assert same.setdefault(post.id, post.change) == post.change
    assert failures(new_url) == []


@pytest.mark.slow
def test_a_worker_that_was_only_stopped_posts_nothing_after_another_has_taken_over(
    swiftlet: Run, inbox: Inbox, new_url: str, tmp_path: Path
) -> None:
    with (
        served(new_url, tmp_path / "first.log") as first,
        served(new_url, tmp_path / "second.log") as second,
    ):
        add(swiftlet, inbox)
        rows = create(first, "a", "b")
        number = 2

        def delivered() -> bool:
            """Whether all is delivered, and the position is stored."""
            position = query(new_url, "SELECT position FROM webhooks")[0][0]
            last = max((post.change["position"] for post in inbox.taken), default=0)
            return len(inbox.taken) == number and position >= last

        soon(delivered)
        for stopped, other in ((first, second), (second, first)):
            stopped.process.send_signal(signal.SIGSTOP)
            for _ in range(5):
                patch(other, rows[0], f"{number}")
                number += 1
            soon(delivered)
            stopped.process.send_signal(signal.SIGCONT)
            for service in (first, second, first):
                patch(service, rows[1], f"{number}")
                number += 1
            soon(delivered)
        assert first.stop() == second.stop() == 0
    assert len(inbox.posts) == number, "nothing was posted twice"
    assert inbox.versions() == {rows[0]: [*range(1, 12)], rows[1]: [*range(1, 8)]}


@pytest.mark.parametrize(
    ("words", "error"),
    (
        (("http://127.0.0.1/", "--resource", "users"), "must be one with changes: items"),
        (("ftp://127.0.0.1/", "--resource", "items"), "the URL is wrong: write http://host/path"),
        (("http://127.1/", "--resource", "items"), "the URL is wrong: write the address as"),
        (("http://169.254.169.254/", "--resource", "items"), "has the address 169.254.169.254"),
    ),
)
def test_a_webhook_that_can_not_work_is_refused(
    swiftlet: Run, words: tuple[str, ...], error: str
) -> None:
    assert error in swiftlet("webhooks", "add", *words).refused(2)


def test_a_webhook_needs_a_secret_to_sign_with(run: Run, url: str) -> None:
    refused = run("webhooks", "add", "http://127.0.0.1/", "--resource", "items").refused(2)
    assert "SERVICE_SECRET" in refused


def test_commands_name_what_is_not_there(swiftlet: Run) -> None:
    assert "there is no webhook 999" in swiftlet("webhooks", "remove", "999").refused(1)
    assert "give ids" in swiftlet("webhooks", "retry").refused(2)
    assert "give ids" in swiftlet("webhooks", "forget", "1", "--all").refused(2)
