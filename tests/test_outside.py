"""The outside of the service, under both servers: hostile requests, headers, slow clients.

One server of each kind serves the whole file. Its tests send bytes, since no client would.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import httpx
import psutil  # type: ignore[import-untyped]  # it has none
import pytest
from conftest import ROOT, Service, check_answer, query
from framing_vectors import VECTORS
from hostile_requests import JSON, REQUESTS
from raw_http import LAST, Answer, answers, talk
from test_bad_input import REFUSED

from service.asgi import MIGRATIONS
from service.migrations import migrate

PAGE_ORIGIN = "https://app.example.com"
DOCUMENT = (ROOT / "docs" / "http.md").read_text().partition("\n## `--server granian`")[2]
ROWS = re.findall(r"^\| (.+) \| ([\d, ]+) \| ([\d, ]+) \|$", DOCUMENT, re.MULTILINE)
DOCUMENTED = {name: (ours, granian) for name, ours, granian in ROWS}
# The answer may be lost by a reset, so it can't be tested.
UNSURE = {"two requests before 2 MB for no path"}


under_granian = pytest.mark.parametrize("kind", ("granian",), indirect=True)


def listed(statuses: tuple[int, ...]) -> str:
    return ", ".join(str(status) for status in statuses)


@pytest.fixture(scope="module", params=("uvicorn", "granian"))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def kind_database_url(kind: str, new_database: Callable[[], str]) -> str:
    url = new_database()
    migrate.up(url, MIGRATIONS)
    return url


@pytest.fixture(scope="module")
def outside(
    kind: str, kind_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    running = Service(
        tmp_path_factory.mktemp(kind) / "service.log",
        "--server",
        kind,
        DATABASE_URL=kind_database_url,
        REDIS_URL="off",
        SERVICE_CACHE="local",
        SERVICE_LOG="json",
        SERVICE_CORS_ORIGINS=f"https://other.example:8443,{PAGE_ORIGIN}",
    )
    try:
        running.wait_until_ready()
        yield running
        assert running.stop() == 0
        log = running.log.read_text()
        assert "Traceback" not in log, log
        assert '"ERROR"' not in log, log
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def own_rows(kind_database_url: str) -> None:
    """Two users and two items, as in test_bad_input; the first user owns the first item."""
    query(
        kind_database_url,
        "WITH people AS (INSERT INTO users (email, username)"
        " VALUES ('ada@example.com', 'ada'), ('bob@example.com', 'bob'))"
        " INSERT INTO items (name, sku, owner_id)"
        r" VALUES ('Lamp 100% _\ oak', 'lamp', 1), ('Chair', NULL, NULL)",
    )


@pytest.fixture
def page(outside: Service, own_rows: None) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=outside.url, timeout=30, event_hooks={"response": [check_answer]}
    ) as one:
        yield one


@pytest.fixture
def unharmed(outside: Service) -> Iterator[None]:
    """After the test the same processes serve: none died and was replaced."""
    parent = psutil.Process(outside.process.pid)
    before = {one.pid for one in parent.children(recursive=True)}
    yield
    assert {one.pid for one in parent.children(recursive=True)} == before
    assert httpx.get(f"{outside.url}/health/live").status_code == 200


def problems_of(kind: str, found: list[Answer], *, head: bool) -> list[str]:
    """What the answers lack of what every answer must have."""
    wrong = []
    for answer in found:
        if kind == "granian" and answer.status in (400, 414, 431) and not answer.body:
            continue  # of granian itself, as docs/http.md says
        if answer.status >= 500 and answer.status not in (501, 505):
            wrong.append(f"status {answer.status}")
        if answer.headers.get("x-content-type-options") != "nosniff":
            wrong.append(f"{answer.status} without nosniff")
        if "no-" not in answer.headers.get("cache-control", ""):
            wrong.append(f"{answer.status} may be stored")
        if answer.status < 400 or head:
            continue
        identified = f'"request_id":"{answer.headers.get("x-request-id")}"'.encode()
        if answer.headers.get("content-type") != "application/problem+json":
            wrong.append(f"{answer.status} is not a problem document")
        elif identified not in answer.body:
            wrong.append(f"{answer.status} without its request id")
    return wrong


def test_the_tables_of_the_documentation_are_about_these_requests() -> None:
    known = {vector.name: listed(vector.statuses) for vector in VECTORS}
    vectors = {name: ours for name, (ours, _) in DOCUMENTED.items() if name in known}
    assert len(vectors) > 40
    assert vectors.items() <= known.items()
    rest = {name: both for name, both in DOCUMENTED.items() if name not in known}
    assert rest == {one.name: (listed(one.ours), listed(one.granian)) for one in REQUESTS}


@under_granian
def test_bad_input_gets_the_same_answers_under_granian(
    page: httpx.Client, unharmed: None, kind: str
) -> None:
    """test_bad_input.py sends it to our server, and looks at the rows too."""
    wrong = []
    for bad in REFUSED:
        verb, _, where = bad.request.partition(" ")
        answer = page.request(verb, where, content=bad.body, headers=bad.headers)
        blamed = [error["field"] for error in answer.json().get("errors", [])]
        if answer.status_code != bad.status or blamed[:1] != ([bad.field] if bad.field else []):
            wrong.append(f"{bad.what}: {answer.text}")
    assert not wrong, "\n".join(wrong)


def test_hostile_requests_get_their_documented_answers(
    outside: Service, own_rows: None, unharmed: None, kind: str
) -> None:
    wrong = []
    for one in REQUESTS:
        found = answers(talk(outside, one.data + LAST, seconds=20))
        got = tuple(answer.status for answer in found)
        if got != (one.ours if kind == "uvicorn" else one.granian):
            wrong.append(f"{one.name}: {got}")
        wrong += [f"{one.name}: {what}" for what in problems_of(kind, found, head=False)]
    assert not wrong, "\n".join(wrong)


@under_granian
def test_framing_vectors_get_granians_documented_answers(
    outside: Service, own_rows: None, unharmed: None, kind: str
) -> None:
    """test_framing.py sends them to our server, which has a stricter test."""
    wrong, item = [], 0
    with httpx.Client(base_url=outside.url, headers={"cache-control": "no-cache"}) as plain:
        for vector in VECTORS:
            if vector.name in UNSURE:
                continue
            statuses = DOCUMENTED.get(
                vector.name, (listed(vector.statuses), listed(vector.statuses))
            )[1]
            item = item or int(plain.post("/items", json={"name": "a"}).json()["id"])
            head = vector.text.startswith("HEAD")
            found = answers(talk(outside, vector.bytes(item) + LAST), head=head)
            if listed(tuple(answer.status for answer in found)) != statuses:
                wrong.append(f"{vector.name}: {[answer.status for answer in found]}")
            wrong += [f"{vector.name}: {what}" for what in problems_of(kind, found, head=head)]
            gone = plain.get(f"/items/{item}").status_code == 404
            if gone != ("204" in statuses and "DELETE" in vector.text):
                wrong.append(f"{vector.name}: executed, or not")
            item = 0 if gone else item
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("origin", (None, PAGE_ORIGIN, "https://evil.example", "null"))
@pytest.mark.parametrize(
    ("line", "status"),
    (
        ("GET /items/1", 200),
        ("HEAD /items/1", 200),
        ("GET /items", 200),
        ("GET /items/export?format=csv", 200),
        ("GET /users/1/items", 200),
        ("POST /items/bulk/delete", 200),
        ("GET /docs", 200),
        ("GET /items/999999999", 404),
        ("GET /nothing", 404),
        ("PUT /items", 405),
        ("POST /items", 422),
        ("GET /items/1%2F2", 404),
    ),
)
def test_every_response_is_for_the_page_that_asked(
    page: httpx.Client, line: str, status: int, origin: str | None
) -> None:
    """The second answer to a GET comes from the cache, which has no header of the first."""
    method, _, path = line.partition(" ")
    body = {"json": {"ids": [999_999_999]}} if "bulk" in path else {}
    for asked in (PAGE_ORIGIN, origin, origin):
        headers = {} if asked is None else {"origin": asked}
        answer = page.request(method, path, headers=headers, **body)  # type: ignore[arg-type]
        assert answer.status_code == (415 if status == 422 else status)
        assert "origin" in answer.headers.get_list("vary", split_commas=True)
        allowed = answer.headers.get_list("access-control-allow-origin")
        assert allowed == ([PAGE_ORIGIN] if asked == PAGE_ORIGIN else [])
        assert ("access-control-expose-headers" in answer.headers) == (asked == PAGE_ORIGIN)
        assert "access-control-allow-credentials" not in answer.headers
    if line == "GET /items/1":
        assert answer.headers["x-cache"] == "HIT"


def test_a_304_is_for_the_page_that_asked(page: httpx.Client) -> None:
    tag = page.get("/items/1").headers["etag"]
    answer = page.get("/items/1", headers={"if-none-match": tag, "origin": PAGE_ORIGIN})
    assert answer.status_code == 304
    assert answer.headers["access-control-allow-origin"] == PAGE_ORIGIN
    assert "origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("path", "methods"),
    (
        ("/items", "GET, HEAD, POST"),
        ("/items?page=2", "GET, HEAD, POST"),
        ("/items/1", "DELETE, GET, HEAD, PATCH, PUT"),
        ("/items/", "GET, HEAD, POST"),
        ("/items/bulk", "PATCH, POST, PUT"),
        ("/users/1/items", "GET, HEAD, POST"),
        ("/health", "GET, HEAD"),
    ),
)
def test_a_preflight_lists_what_a_page_may_send(
    page: httpx.Client, path: str, methods: str
) -> None:
    asked = {
        "origin": PAGE_ORIGIN,
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "authorization,if-match",
    }
    answer = page.options(path, headers=asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE_ORIGIN
    assert answer.headers["access-control-allow-methods"] == methods
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    wanted = {"authorization", "x-api-key", "content-type", "if-match", "if-none-match"}
    assert wanted | {"idempotency-key", "x-request-id"} <= set(allowed)
    assert "*" not in "".join(answer.headers.values()).replace("*/*", "")
    elsewhere = page.options(path, headers={**asked, "origin": "https://evil.example"})
    assert elsewhere.status_code == 403
    assert "access-control-allow-origin" not in elsewhere.headers
    assert "access-control-allow-methods" not in elsewhere.headers
    assert page.options("/nothing", headers=asked).status_code == 404


def test_pages_have_frame_and_script_rules(page: httpx.Client) -> None:
    for answer in (page.get("/docs"), page.head("/docs")):
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"


SLOW = 200


def test_slow_clients_do_not_keep_others_waiting(
    outside: Service, page: httpx.Client, unharmed: None
) -> None:
    """Each sends, or reads, one byte after the other; the others are answered at the same time."""
    head = b"GET /items HTTP/1.1\r\nHost: x\r\nX-A: "
    body = f"POST /items HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n".encode()
    reader = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50
    counted = page.get("/items").json()["total"]
    with ExitStack() as slow:
        clients = []
        for n in range(SLOW):
            one = slow.enter_context(closing(socket.socket()))
            if n % 3 == 2:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", outside.port))
            one.sendall((head, body, reader)[n % 3])
            clients.append(one)
        for _ in range(5):
            for n, one in enumerate(clients):
                if n % 3 == 2:
                    assert len(one.recv(1)) == 1
                else:
                    one.sendall(b" ")
            assert page.get("/items", timeout=30).json()["total"] == counted
            assert page.post("/items", json={"name": ""}, timeout=30).status_code == 422
            rows = page.get("/items/export", timeout=30).text.splitlines()
            assert len(rows) == counted
        for n, one in enumerate(clients):  # none has been answered or closed
            one.setblocking(False)
            if n % 3 != 2:
                with pytest.raises(BlockingIOError):
                    one.recv(1)
