"""Who may do what: every route with every kind of caller, on one server with SERVICE_AUTH=on.

The statuses are in authorization.txt. They were written from the contract, not from responses.
"""

from collections.abc import Iterator

import httpx
import pytest
from callers import CALLERS, GOLDEN, ROWS, WRITES, Asked, World, client_of, routes
from conftest import SERVER, Service

from service.embedded.data_directory import Stores

READS = [one for one in ROWS if one.method not in WRITES]
CHANGES = [one for one in ROWS if one.method in WRITES]


@pytest.fixture(scope="module")
def world(own_database_url: str) -> Iterator[World]:
    made = World(own_database_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(
    world: World, own_database_url: str, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The server; it logs every request and statement as slow."""
    one = Service(
        tmp_path_factory.mktemp("authorization") / "log",
        "--server",
        SERVER,
        DATABASE_URL=own_database_url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_AUTH="on",
        SERVICE_LOG="json",
        SERVICE_SLOW_REQUEST_MS="1",
        SERVICE_SLOW_QUERY_MS="1",
    )
    try:
        one.wait_until_ready()
        yield one
        assert one.stop() == 0
        log = one.log.read_text()
        for mark in world.marks:
            assert mark not in log, f"the log has {mark!r}"
    finally:
        one.process.kill()
        one.process.wait()


places = iter(range(1, 10_000))


@pytest.fixture
def client(running: Service) -> Iterator[httpx.Client]:
    with client_of(running, next(places)) as one:
        yield one


def route_of(asked: Asked) -> str | None:
    """Return the path in the route table."""
    table = routes()
    if asked.path in table:
        return asked.path
    parts = asked.path.split("/")
    for path in table:
        named = path.split("/")
        if len(named) == len(parts) and all(
            name == part or (name[0] == "{" and (part[0] == "<" or part.isdigit()))
            for name, part in zip(named[1:], parts[1:], strict=True)
        ):
            return path
    return None


def test_each_route_has_a_row() -> None:
    named = {(one.method, route_of(one)) for one in ROWS}
    for path, methods in routes().items():
        for method in methods - {"HEAD", "OPTIONS"}:
            assert (method, path) in named, (
                f"{method} {path} has no row in {GOLDEN.name}: think about who may do it, and"
                " write a row for each kind of request that others get another answer to"
            )


@pytest.mark.parametrize("asked", ROWS, ids=lambda one: one.name)
def test_each_row_has_a_route(asked: Asked) -> None:
    path = route_of(asked)
    assert path is not None, f"{asked.name}: no such path; remove the row from {GOLDEN.name}"
    methods = routes()[path]
    assert asked.method in methods, f"{asked.name}: only {methods}; remove it from {GOLDEN.name}"


@pytest.mark.parametrize("asked", READS, ids=lambda one: one.name)
def test_a_read_is_for_whom_the_file_says(world: World, client: httpx.Client, asked: Asked) -> None:
    """The second time it may come from the cache, where responses of others are too."""
    for other_header in (False, True):
        answers = {
            name: world.ask(client, asked, name, other_header=other_header)
            for name in reversed(CALLERS)
        }
        assert {name: str(answers[name].status_code) for name in CALLERS} == asked.cells
    for name in CALLERS:
        check_refusal(answers[name], name)
        head = world.ask(client, asked._replace(method="HEAD"), name)
        assert (head.status_code, head.content) == (answers[name].status_code, b"")
        options = world.ask(client, asked._replace(method="OPTIONS"), name)
        assert options.status_code == 405
        assert "GET" in options.headers["allow"]
    assert world.checksum() == world.state


@pytest.mark.parametrize("asked", CHANGES, ids=lambda one: one.name)
def test_a_write_is_for_whom_the_file_says(
    world: World, client: httpx.Client, asked: Asked
) -> None:
    found = {}
    for name in CALLERS:
        answer = world.ask(client, asked, name)
        check_refusal(answer, name)
        found[name] = str(answer.status_code)
        changed = world.checksum() != world.state
        if changed:
            world.restore()
        if answer.is_success and not changed:
            found[name] += "="
        elif changed and not answer.is_success:
            found[name] += " and changed something"
    assert found == asked.cells
    assert world.ask(client, asked._replace(method="OPTIONS"), "admin").status_code == 405


def check_refusal(answer: httpx.Response, name: str) -> None:
    """Check what a 401 and a 403 say."""
    challenge = answer.headers.get("www-authenticate")
    if answer.status_code == 401:
        assert challenge == ("Bearer" if name == "none" else 'Bearer error="invalid_token"')
        assert name in {"none", "malf"} or "unknown, revoked or expired" in answer.json()["detail"]
    elif answer.status_code == 403 and "errors" not in answer.json():
        assert challenge is not None
        assert "insufficient_scope" in challenge
    else:
        assert challenge is None


def test_only_what_exists_needs_a_key(world: World, client: httpx.Client) -> None:
    """Paths and methods are in the document, which is open."""
    for name in CALLERS:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("DELETE", "/items", 405),
            ("PURGE", "/items/<item>", 405),
            ("POST", "/openapi.json", 405),
        ):
            answer = world.ask(client, Asked({}, method, path, ""), name)
            assert answer.status_code == status, (name, method, path)
