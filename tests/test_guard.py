"""The guard: keys, scopes, failures and limits, before a handler runs; guarded_app has the keys."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import guarded_app
import httpx
import pytest
from conftest import Service, check_answer
from direct import answered_directly
from guarded_app import Keys
from openapi_spec_validator import validate
from test_openapi import Asked, Checker

from service.app import Application, create_app
from service.cache.off import NoCache
from service.cache.response import CachedResponse
from service.errors import TooMany, Unauthorized, Unavailable
from service.http1.extensions import SEND_PREBUILT
from service.settings import Settings, SettingsError
from service.web import failures, principal_cache
from service.web.endpoint import Operation
from service.web.failures import FAILURES, Failures
from service.web.guard import Exempt, Guard, guard_of
from service.web.principal_cache import (
    RENEW_SECONDS,
    VALID_SECONDS,
    WRONG_SECONDS,
    PrincipalCache,
)

URL = "postgresql:///none?host=/nowhere"
SETTINGS = Settings(database_url=URL)
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Spawner:
    """The part of a Database that a PrincipalCache uses."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (principal_cache, failures):
            monkeypatch.setattr(module, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def cache_of(keys: Keys) -> PrincipalCache:
    spawner: Any = Spawner()
    writer: Any = None
    return PrincipalCache(keys, spawner, writer)


class Limits:
    """A limiter that allows so many requests of each policy and identity."""

    def __init__(self, limit: int, *, at_once: bool = True) -> None:
        self.policies = self
        self.limit = limit
        self.at_once = at_once
        self.counts: dict[tuple[str, str], int] = {}

    def of(self, method: str, path: str) -> str | None:
        if path == "/open":
            return None
        return path if path == "/limited" else {"GET": "default"}.get(method, "writes")

    def take(self, policy: str, identity: str) -> Any:
        return self.decide(policy, identity) if self.at_once else None

    async def ask(self, policy: str, identity: str) -> Any:
        await asyncio.sleep(0)
        return self.decide(policy, identity)

    def decide(self, policy: str, identity: str) -> Any:
        limit = 1 if policy == "/limited" else self.limit
        used = self.counts.get((policy, identity), 0)
        allowed = used < limit
        if allowed:
            self.counts[policy, identity] = used + 1
        left = b'"x";r=%d;t=7' % (limit - used - allowed)
        headers = ((b"ratelimit-policy", b'"x";q=9;w=9'), (b"ratelimit", left))
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        return SimpleNamespace(allowed=allowed, reset=7, headers=headers, lines=lines)


@asynccontextmanager
async def client_of(
    keys: Keys | None,
    *,
    limits: Limits | None = None,
    exempt: Exempt = "none",
    app: Application | None = None,
    **scope_fields: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of guarded_app in this process, with these keys."""
    limiter: Any = limits
    guard = Guard(None if keys is None else cache_of(keys), limiter, exempt)
    state = {
        "settings": SETTINGS,
        "cache": NoCache(),
        "db": SimpleNamespace(batching=False),
        "guard": guard,
        "metrics": None,
        "tracer": None,
    }

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await (app or guarded_app.app)({**scope, **scope_fields, "state": state}, receive, send)

    async def check(response: httpx.Response) -> None:
        await response.aread()
        if not response.request.url.path.startswith("/plain"):
            check_answer(response)

    transport = httpx.ASGITransport(served)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", event_hooks={"response": [check]}
    ) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


FORMS: tuple[tuple[str, list[tuple[str, bytes]], int, str], ...] = (
    ("no key", [], 401, "Bearer"),
    ("a key", [("Authorization", b"Bearer KEY")], 200, ""),
    ("another case", [("Authorization", b"bEARER  KEY")], 200, ""),
    ("the other header", [("X-API-Key", b"KEY")], 200, ""),
    ("both", [("Authorization", b"Bearer KEY"), ("X-API-Key", b"KEY")], 200, ""),
    ("both, and they differ", [("Authorization", b"Bearer KEY"), ("X-API-Key", b"x")], 400, ""),
    ("another scheme", [("Authorization", b"Basic KEY")], 401, "invalid_token"),
    ("no scheme", [("Authorization", b"KEY")], 401, "invalid_token"),
    ("a scheme alone", [("Authorization", b"Bearer")], 401, "invalid_token"),
    ("empty", [("Authorization", b"")], 401, "invalid_token"),
    ("empty key", [("X-API-Key", b"")], 401, "invalid_token"),
    ("two", [("Authorization", b"Bearer KEY"), ("Authorization", b"Bearer KEY")], 400, ""),
    ("two others", [("X-API-Key", b"KEY"), ("X-API-Key", b"KEY")], 400, ""),
    ("another form", [("Authorization", b"Bearer nothing")], 401, "invalid_token"),
    ("a byte too many", [("Authorization", b"Bearer KEY\xff")], 401, "invalid_token"),
    ("10 kB", [("Authorization", b"Bearer test_reader_" + b"x" * 10_000)], 401, "invalid_token"),
    ("two words", [("Authorization", b"Bearer KEY KEY")], 401, "invalid_token"),
    ("unknown", [("Authorization", b"Bearer test_other_secret-other")], 401, "invalid_token"),
    ("wrong secret", [("Authorization", b"Bearer KEYx")], 401, "invalid_token"),
    ("expired", [("Authorization", b"Bearer test_expired_secret-expired")], 401, "invalid_token"),
)


@pytest.mark.parametrize(
    ("given", "status", "challenge"), [one[1:] for one in FORMS], ids=[one[0] for one in FORMS]
)
async def test_a_key_comes_in_one_of_two_headers(
    given: list[tuple[str, bytes]], status: int, challenge: str
) -> None:
    keys = Keys()
    key = keys.add("reader", "read").encode()
    keys.add("expired", "read", left=0)
    headers = [(name.encode(), value.replace(b"KEY", key)) for name, value in given]
    async with client_of(keys) as client:
        for _ in range(2):  # from a look-up, and from this process
            response = await client.get("/rows", headers=headers)
            assert response.status_code == status, response.text
            told = response.headers.get("www-authenticate", "")
            assert challenge in told
            assert bool(told) == (status == 401)
            assert "secret" not in response.text


async def test_the_reason_of_a_401_shows_only_that_a_key_was_given() -> None:
    keys = Keys()
    keys.add("reader", "read")
    keys.add("expired", "read", left=-1)
    told = set()
    async with client_of(keys) as client:
        for key in ("test_reader_wrong", "test_unknown_x", "test_expired_secret-expired", "other"):
            response = await client.get("/rows", headers=bearer(key))
            told.add((response.json()["detail"], response.headers["www-authenticate"]))
    assert len(told) == 1


async def test_a_key_in_the_query_is_not_read() -> None:
    keys = Keys()
    key = keys.add("reader", "read")
    async with client_of(keys) as client:
        for name in ("key", "api_key", "access_token"):
            assert (await client.get("/rows", params={name: key})).status_code == 401
    assert keys.look_ups == 0


SCOPES = (
    ("reader", "GET", "/rows", 200),
    ("reader", "HEAD", "/rows", 200),
    ("reader", "POST", "/echo", 403),
    ("reader", "GET", "/admin", 403),
    ("writer", "GET", "/rows", 403),
    ("writer", "POST", "/echo", 200),
    ("writer", "POST", "/plain-post", 200),
    ("reader", "POST", "/plain-post", 403),
    ("writer", "GET", "/plain", 403),
    ("reader", "GET", "/plain", 200),
    ("reader", "HEAD", "/plain", 200),
    ("reader", "GET", "/plain-mount/", 200),
    ("writer", "GET", "/plain-mount/", 403),
    ("writer", "POST", "/plain-mount/", 405),
    ("reader", "POST", "/plain-mount/", 403),
    ("both", "GET", "/admin", 403),
    ("demoted", "GET", "/admin", 403),
    ("demoted", "GET", "/rows", 403),
    ("admin", "GET", "/admin", 200),
    ("admin", "GET", "/rows", 200),
    ("admin", "POST", "/echo", 200),
)


async def test_each_operation_needs_a_scope() -> None:
    keys = Keys()
    of = {
        "reader": keys.add("reader", "read"),
        "writer": keys.add("writer", "write"),
        "both": keys.add("both", "read", "write"),
        "demoted": keys.add("demoted", "admin"),
        "admin": keys.add("admin", "admin", admin=True),
    }
    async with client_of(keys) as client:
        for name, method, path, status in SCOPES:
            for _ in range(2):
                response = await client.request(method, path, headers=bearer(of[name]))
                assert response.status_code == status, (name, method, path, response.text)
                assert (await client.request(method, path)).status_code == 401
                if status == 403:
                    needs = "admin" if path == "/admin" else {"POST": "write"}.get(method, "read")
                    told = response.headers["www-authenticate"]
                    assert told == f'Bearer error="insufficient_scope", scope="{needs}"'
                    assert f"scope {needs}" in response.json()["detail"]


async def test_a_websocket_needs_the_scope_write() -> None:
    keys = Keys()
    guard = Guard(cache_of(keys))
    for name, scopes, accepted in (
        ("none", (), False),
        ("reader", ("read",), False),
        ("writer", ("write",), True),
    ):
        sent: list[str] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any, sent: list[str] = sent) -> None:
            sent.append(message["type"])

        key = keys.add(name, *scopes) if scopes else None  # type: ignore[arg-type]  # literals
        scope = {
            "type": "websocket",
            "path": "/talk",
            "root_path": "",
            "query_string": b"",
            "headers": [] if key is None else [(b"x-api-key", key.encode())],
            "state": {
                "guard": guard,
                "settings": SETTINGS,
                "cache": NoCache(),
                "metrics": None,
                "tracer": None,
            },
        }
        await guarded_app.app(scope, receive, send)
        assert sent == (["websocket.accept"] if accepted else []) + ["websocket.close"]


def test_an_open_operation_is_not_private() -> None:
    own = Operation("GET", "/x", guarded_app.echo, "", access="open", private=True)
    with pytest.raises(ValueError, match="GET /x is private, so it needs a key"):
        create_app(SETTINGS, routes=[own])


async def test_what_is_open_or_not_there_needs_no_key() -> None:
    async with client_of(Keys()) as client:
        for path in ("/open", "/health", "/health/live", "/openapi.json", "/docs"):
            response = await client.get(path, headers=bearer("wrong"))
            assert response.status_code == 200, path
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.delete("/items")).status_code == 405
        assert (await client.put("/plain")).status_code == 405
        assert (await client.options("/items")).status_code == 405


async def test_nothing_of_a_request_is_read_before_its_key() -> None:
    """Else a client without a key learns from 304, 400, 404, 412, 413, 415 or 422."""
    async with client_of(Keys()) as client:
        for method, path, more in (
            ("POST", "/items", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
            ("POST", "/items", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
            ("POST", "/items", {"content": b"x" * 2_000_000}),
            ("GET", "/items?nothing=1", {}),
            ("GET", "/items/abc", {}),
            ("GET", "/items/99999999999999999999", {}),
            ("GET", "/items/1", {"headers": {"If-None-Match": "*"}}),
            ("PUT", "/items/1", {"headers": {"If-Match": '"x"'}}),
            ("POST", "/items/import?on_error=x", {"content": b"x"}),
        ):
            response = await client.request(method, path, **more)
            assert response.status_code == 401, (method, path)


async def test_a_key_in_use_is_looked_up_in_the_background(clock: Clock) -> None:
    keys = Keys()
    cache = cache_of(keys)
    key = keys.add("reader", "read").encode()
    name = b"Bearer " + key
    first = await cache.authenticate(key, "a")
    assert (first.principal.user_id, keys.look_ups, keys.uses) == (1, 1, 1)
    clock.now += RENEW_SECONDS - 0.01
    assert cache.find(name, clock.now) is first
    await asyncio.sleep(0)
    assert keys.look_ups == 1
    clock.now += 0.02
    assert cache.find(name, clock.now) is first
    assert cache.find(name, clock.now) is first
    for _ in range(3):
        await asyncio.sleep(0)
    assert keys.look_ups == 2
    second = cache.find(name, clock.now)
    assert second is not None
    assert second is not first
    assert second.valid_until == clock.now + VALID_SECONDS
    clock.now += VALID_SECONDS
    assert cache.find(name, clock.now) is None


async def test_a_revoked_key_stops_working_at_its_next_look_up(clock: Clock) -> None:
    keys = Keys()
    cache = cache_of(keys)
    key = keys.add("reader", "read").encode()
    await cache.authenticate(key, "a")
    keys.records.clear()
    clock.now += RENEW_SECONDS
    assert cache.find(b"Bearer " + key, clock.now)
    for _ in range(3):
        await asyncio.sleep(0)
    assert cache.find(b"Bearer " + key, clock.now) is None
    with pytest.raises(Unauthorized):
        await cache.authenticate(key, "a")


async def test_a_key_is_valid_for_less_than_a_second_and_not_beyond_its_end(clock: Clock) -> None:
    assert VALID_SECONDS < 1
    keys = Keys()
    cache = cache_of(keys)
    key = keys.add("short", "read", left=0.2).encode()
    found = await cache.authenticate(key, "a")
    assert found.valid_until == pytest.approx(clock.now + 0.2)


async def test_a_look_up_counts_from_when_it_was_sent(clock: Clock) -> None:
    """A slow one is old when it is there, so requests that come late don't use it."""
    keys = Keys()
    cache = cache_of(keys)
    key = keys.add("reader", "read").encode()
    waits = asyncio.Event()
    look_up = keys.look_up

    async def slow(db: Any, public_id: str) -> Any:
        found = await look_up(db, public_id)
        await waits.wait()
        return found

    keys.look_up = slow  # type: ignore[method-assign]  # for one test
    sent = clock.now
    first = asyncio.create_task(cache.authenticate(key, "a"))
    await asyncio.sleep(0.01)
    clock.now += VALID_SECONDS / 2
    joins = asyncio.create_task(cache.authenticate(key, "a"))
    await asyncio.sleep(0.01)
    assert keys.look_ups == 1
    clock.now += VALID_SECONDS
    late = asyncio.create_task(cache.authenticate(key, "a"))
    await asyncio.sleep(0.01)
    assert keys.look_ups == 2
    waits.set()
    assert (await first).valid_until == (await joins).valid_until == sent + VALID_SECONDS
    assert (await late).valid_until == clock.now + VALID_SECONDS


async def test_without_the_database_a_key_is_503_and_never_401(clock: Clock) -> None:
    keys = Keys()
    cache = cache_of(keys)
    key = keys.add("reader", "read").encode()
    await cache.authenticate(key, "a")

    async def away(db: Any, public_id: str) -> Any:
        keys.look_ups += 1
        raise Unavailable("the database is away")

    keys.look_up = away  # type: ignore[method-assign]  # for one test
    clock.now += RENEW_SECONDS
    for _ in range(5):  # it stays until it expires, and is not asked for at each request
        assert cache.find(b"Bearer " + key, clock.now)
        await asyncio.sleep(0)
    assert keys.look_ups == 2
    clock.now += VALID_SECONDS
    for _ in range(2 * FAILURES):  # not a failed authentication
        with pytest.raises(Unavailable):
            await cache.authenticate(key, "a")


async def test_parallel_requests_with_one_key_share_a_look_up() -> None:
    keys = Keys()
    cache = cache_of(keys)
    key = keys.add("reader", "read").encode()
    async with asyncio.timeout(5):
        found = await asyncio.gather(*(cache.authenticate(key, "a") for _ in range(200)))
    assert {one.principal.user_id for one in found} == {1}
    assert keys.look_ups == 1


async def test_an_address_has_few_keys_looked_up(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys()
    cache = cache_of(keys)
    good = keys.add("reader", "read").encode()
    other = keys.add("other", "read").encode()
    await cache.authenticate(good, "a")
    async with asyncio.timeout(5):
        refused = await asyncio.gather(
            *(cache.authenticate(b"test_x_%d" % n, "a") for n in range(200)),
            return_exceptions=True,
        )
    kinds = [type(one) for one in refused]
    assert kinds.count(Unauthorized) == FAILURES
    assert kinds.count(TooMany) == 200 - FAILURES
    assert keys.look_ups == 1 + FAILURES
    problem = next(one for one in refused if isinstance(one, TooMany))
    assert problem.headers == ((b"retry-after", b"60"),)
    with pytest.raises(TooMany):
        await cache.authenticate(other, "a")
    (line,) = caplog.records
    assert line.__dict__["fields"]["address"] == "a"
    await cache.authenticate(other, "b")
    await cache.authenticate(good, "a")
    clock.now += VALID_SECONDS  # it was valid before, so it is looked up
    await cache.authenticate(good, "a")
    clock.now += 60
    await cache.authenticate(other, "a")


async def test_a_client_that_repeats_a_wrong_key_refuses_no_other_with_its_address(
    clock: Clock,
) -> None:
    keys = Keys()
    cache = cache_of(keys)
    revoked = keys.add("revoked", "read").encode()
    await cache.authenticate(revoked, "a")
    keys.records.clear()
    clock.now += VALID_SECONDS
    for _ in range(3 * FAILURES):  # always 401, and few look-ups
        with pytest.raises(Unauthorized):
            await cache.authenticate(revoked, "a")
    assert keys.look_ups == 2
    for _ in range(3 * FAILURES):
        clock.now += WRONG_SECONDS
        with pytest.raises(Unauthorized):
            await cache.authenticate(revoked, "a")
    assert keys.look_ups == 2 + 3 * FAILURES
    await cache.authenticate(keys.add("reader", "read").encode(), "a")
    for n in range(FAILURES - 1):
        with pytest.raises(Unauthorized):
            await cache.authenticate(b"test_x_%d" % n, "a")
    with pytest.raises(TooMany):
        await cache.authenticate(keys.add("other", "read").encode(), "a")
    with pytest.raises(Unauthorized):
        await cache.authenticate(revoked, "a")


async def test_failures_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "ADDRESSES", 100)
    counted = Failures()
    for n in range(1000):
        assert counted.begin(f"address {n}", n)
        counted.end(f"address {n}", n, failed=True)
    assert len(counted._of) <= 100
    for n in range(1000):
        counted.begin(f"other {n}", n)
        counted.end(f"other {n}", n, failed=False)
    assert len(counted._of) <= 100


async def test_principals_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal_cache, "PRINCIPALS", 10)
    keys = Keys()
    cache = cache_of(keys)
    for n in range(50):
        await cache.authenticate(keys.add(f"key{n}", "read").encode(), "a")
    assert len(cache._found) == len(cache._known) == 10
    await asyncio.sleep(VALID_SECONDS + 0.1)
    assert not cache._found, "no secret stays in memory"


async def test_private_responses_are_limited_to_the_owner() -> None:
    keys = Keys()
    one, two = keys.add("one", "read", user=1), keys.add("two", "read", user=2)
    admin = keys.add("admin", "admin", user=3, admin=True)
    async with client_of(keys) as client:
        for path in ("/rows", "/own"):
            for key, owner in ((one, 1), (two, 2), (admin, None)):
                response = await client.get(path, headers=bearer(key))
                assert response.json() == {"owner": owner}
        shared = await client.get("/shared", headers=bearer(one))
        assert shared.json() == {"owner": None}, "it is the same for all"


@pytest.mark.parametrize("at_once", (True, False), ids=("at once", "after asking Redis"))
async def test_limits_count_each_user_and_name_their_state(at_once: bool) -> None:
    keys = Keys()
    one, same = keys.add("one", "read", "write", user=1), keys.add("same", "read", user=1)
    two = keys.add("two", "read", user=2)
    limits = Limits(3, at_once=at_once)
    async with client_of(keys, limits=limits) as client:
        for key, path, status, left in (
            (one, "/rows", 200, 2),
            (same, "/plain", 200, 1),
            (one, "/fails", 500, 0),
            (same, "/rows", 429, 0),
            (one, "/shared", 429, 0),
            (two, "/rows", 200, 2),
            (one, "/limited", 200, 0),
            (one, "/limited", 429, 0),
        ):
            response = await client.get(path, headers=bearer(key))
            assert response.status_code == status, path
            assert response.headers["ratelimit"] == f'"x";r={left};t=7'
            assert response.headers["ratelimit-policy"] == '"x";q=9;w=9'
            assert response.headers.get("retry-after") == ("7" if status == 429 else None)
        assert (await client.post("/echo", headers=bearer(one))).status_code == 200
        assert (await client.post("/plain-post", headers=bearer(same))).status_code == 403
        assert ("writes", "user:1") in limits.counts
        for path in ("/open", "/nothing"):
            assert "ratelimit" not in (await client.get(path)).headers
        assert (await client.get("/rows")).status_code == 401
        assert {identity for _, identity in limits.counts} == {"user:1", "user:2"}


async def test_limits_without_keys_count_each_address() -> None:
    limits = Limits(1)
    async with client_of(None, limits=limits, exempt="all") as client:
        assert (await client.get("/rows")).status_code == 200
        assert (await client.get("/rows")).status_code == 429
        assert limits.counts == {("default", "127.0.0.1"): 1}


LOCAL, OTHER = ("127.0.0.1", 1), ("192.0.2.1", 1)
PLACES: tuple[tuple[Any, Any, int], ...] = (
    (LOCAL, LOCAL, 200),
    (("::1", 1), ("::1", 2), 200),
    (("::ffff:127.0.0.1", 1), ["127.3.2.1", 2], 200),
    (OTHER, LOCAL, 401),
    (LOCAL, OTHER, 401),
    (("localhost", 1), LOCAL, 401),
    (("/run/socket", None), LOCAL, 401),
    (None, LOCAL, 401),
    (LOCAL, None, 401),
    ((), (), 401),
)


ON_THIS_MACHINE: tuple[tuple[Exempt, Any, dict[str, str], bool], ...] = (
    ("none", LOCAL, {"host": "localhost:8000"}, True),
    ("none", LOCAL, {"host": "127.0.0.1"}, True),
    ("none", LOCAL, {"host": "[::1]:8000"}, True),
    ("loopback", LOCAL, {"host": "api.localhost"}, True),
    ("all", ("192.0.2.1", 5), {"host": "api.example", "x-forwarded-for": "192.0.2.7"}, True),
    ("none", ("192.0.2.1", 5), {"host": "localhost"}, False),
    ("none", None, {"host": "localhost"}, False),
    ("none", LOCAL, {"host": "api.example"}, False),
    ("none", LOCAL, {"host": "127.0.0.1.example"}, False),
    ("none", LOCAL, {"host": "localhost", "x-forwarded-for": "127.0.0.1"}, False),
    ("none", LOCAL, {"host": "localhost", "forwarded": "for=127.0.0.1"}, False),
    ("loopback", LOCAL, {"host": "localhost", "x-forwarded-proto": "https"}, False),
    ("none", LOCAL, {"host": "localhost", "x-real-ip": "127.0.0.1"}, False),
    ("none", LOCAL, {"host": "localhost", "via": "1.1 proxy"}, False),
)


@pytest.mark.parametrize(("exempt", "client", "headers", "is_open"), ON_THIS_MACHINE)
async def test_metrics_are_for_this_machine_and_for_admins(
    exempt: Exempt, client: Any, headers: dict[str, str], is_open: bool
) -> None:
    """Here they are off: who may see them gets 404."""
    keys = Keys()
    reader, admin = keys.add("reader", "read"), keys.add("admin", "read", "admin", admin=True)
    async with client_of(keys, exempt=exempt, server=LOCAL, client=client) as asking:
        for header, refused in ((None, 401), (bearer("wrong"), 401), (bearer(reader), 403)):
            told = await asking.get("/metrics", headers={**headers, **(header or {})})
            assert told.status_code == (404 if is_open else refused)
        told = await asking.get("/metrics", headers={**headers, **bearer(admin)})
        assert told.status_code == 404
        assert "SERVICE_METRICS" in told.json()["detail"]
        others = await asking.get("/rows", headers=headers)
        assert others.status_code == (401 if exempt == "none" else 200)


@pytest.mark.parametrize(("server", "client", "status"), PLACES)
async def test_under_another_server_only_loopback_needs_no_key(
    server: Any, client: Any, status: int
) -> None:
    keys = Keys()
    key = keys.add("reader", "read")
    async with client_of(keys, exempt="loopback", server=server, client=client) as asking:
        assert (await asking.get("/rows")).status_code == status
        assert (await asking.get("/rows", headers=bearer(key))).status_code == 200
    async with client_of(None, exempt="loopback", server=server, client=client) as asking:
        told = await asking.get("/rows")
        assert told.status_code == status
        assert status == 200 or "SERVICE_AUTH=off" in told.json()["detail"]


@pytest.mark.parametrize(
    ("environ", "exempt"),
    (
        ({}, "loopback"),
        ({"SERVICE_HOST": "::1"}, "loopback"),
        ({"SERVICE_HOST": "0.0.0.0"}, "none"),
        ({"SERVICE_HOST": "some.name"}, "none"),
        ({"SERVICE_AUTH": "on"}, "none"),
        ({"SERVICE_AUTH": "off"}, None),
        ({"SERVICE_AUTH": "off", "SERVICE_HOST": "0.0.0.0"}, None),
    ),
)
def test_the_settings_say_which_requests_need_no_key(
    environ: dict[str, str], exempt: str | None
) -> None:
    settings = Settings.load({"DATABASE_URL": URL, **environ}, Path("/nothing"))
    app = create_app(settings, auth=Keys())
    app.check_auth()
    nothing: Any = None
    guard = guard_of(settings, Keys(), nothing, nothing, None, None)
    assert (None if guard is None else guard.exempt) == exempt
    without = create_app(settings)
    if exempt == "none":
        with pytest.raises(SettingsError, match="SERVICE_AUTH=off"):
            without.check_auth()
    else:
        without.check_auth()


class Hits:
    """A cache that has a response for some keys, and a server that takes it."""

    on = True

    def __init__(self, keys: dict[Any, bytes]) -> None:
        self.keys = keys
        self.sent: list[bytes] = []

    def find(self, key: Any, *, refreshes: bool) -> Any:
        del refreshes
        return CachedResponse(self.keys[key]) if key in self.keys else None

    def ready(self, lines: bytes, body: bytes, _: int) -> bool:
        self.sent = [lines, body]
        return True


async def test_a_hit_needs_a_key_too() -> None:
    keys = Keys()
    one, two = keys.add("one", "read", user=1).encode(), keys.add("two", "write", user=2).encode()
    cache = cache_of(keys)
    limiter: Any = Limits(3)
    guard = Guard(cache, limiter)
    hits = Hits({("1", "", b"", "/own"): b"of 1", ("2", "", b"", "/own"): b"of 2"})
    state = {"settings": SETTINGS, "cache": hits, "guard": guard, "metrics": None, "tracer": None}

    async def sent(*headers: tuple[bytes, bytes]) -> bool:
        hits.sent = []
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/own",
            "raw_path": b"/own",
            "root_path": "",
            "query_string": b"",
            "headers": list(headers),
            "state": state,
            "client": ("192.0.2.1", 1),
            "extensions": {SEND_PREBUILT: hits.ready},
        }
        return await answered_directly(guarded_app.app, scope)

    authorization = (b"authorization", b"Bearer " + one)
    assert not await sent(authorization), "it must be looked up first"
    await cache.authenticate(one, "a")
    await cache.authenticate(two, "a")
    assert await sent(authorization)
    assert hits.sent[1] == b"of 1"
    assert hits.sent[0].startswith(b'ratelimit-policy: "x";q=9;w=9\r\nratelimit: "x";r=2;t=7\r\n')
    assert await sent((b"x-api-key", one))
    for refused in (
        (),
        ((b"authorization", b"Bearer " + two),),  # it has not the scope
        ((b"authorization", b"Bearer x"),),
        (authorization, authorization),
        (authorization, (b"x-api-key", two)),
        ((b"authorization", one),),
    ):
        assert not await sent(*refused)
    assert await sent(authorization)
    assert not await sent(authorization), "the limit is exhausted"


@pytest.fixture(scope="module", params=("uvicorn", "granian"))
def guarded(
    request: pytest.FixtureRequest, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A server of guarded_app, with authentication; it logs every request as slow."""
    running = Service(
        tmp_path_factory.mktemp("guarded") / "service.log",
        *("--server", request.param, "--app", "guarded_app:app"),
        DATABASE_URL=database_url,
        REDIS_URL="off",
        PYTHONPATH=str(Path(__file__).parent),
        SERVICE_AUTH="on",
        SERVICE_CACHE="local",
        SERVICE_LOG="text",
        SERVICE_SLOW_REQUEST_MS="1",
    )
    try:
        running.wait_until_ready()
        yield running
        assert running.stop() == 0
    finally:
        running.process.kill()
        running.process.wait()


READER, WRITER = (bearer(f"test_{name}_secret-{name}") for name in ("reader", "writer"))


def test_a_cached_response_needs_a_key_on_each_server(guarded: Service) -> None:
    with httpx.Client(base_url=guarded.url) as client:
        assert client.get("/shared", headers=READER).headers["x-cache"] in {"MISS", "BYPASS"}
        for _ in range(2):
            assert client.get("/shared", headers=READER).status_code == 200
            assert client.head("/shared", headers=READER).status_code == 200
            for headers, status in (
                ({}, 401),
                (bearer("test_reader_secret-x"), 401),
                (WRITER, 403),
            ):
                response = client.get("/shared", headers=headers)
                check_answer(response)
                assert response.status_code == status
                assert "x-cache" not in response.headers


def test_a_client_that_sends_a_body_receives_the_refusal(guarded: Service) -> None:
    body = b"x" * 3_000_000
    with httpx.Client(base_url=guarded.url, timeout=10) as client:
        for path in ("/echo", "/items", "/plain-post"):
            for headers, status in (({}, 401), (READER, 403)):
                response = client.post(path, content=body, headers=headers)
                assert response.status_code == status
                assert client.get("/rows", headers=READER).status_code == 200
        assert client.post("/echo", content=body, headers=WRITER).json() == {"size": len(body)}


def test_no_log_line_has_a_key(guarded: Service) -> None:
    with httpx.Client(base_url=guarded.url) as client:
        for secret in ("secret-both", "secret-wrong"):
            key = f"test_both_{secret}"
            for headers in (bearer(key), {"X-API-Key": key}, {"Authorization": f"Basic {key}"}):
                for path in ("/fails", "/rows", "/items", "/nothing", "/plain", f"/rows?key={key}"):
                    client.get(path, headers=headers)
                client.post("/items", content=b"{", headers=headers)
    log = guarded.log.read_text()
    assert "a bug at /fails" in log
    assert "secret-" not in log


OPEN_PATHS = {"/open", "/docs", "/console", "/openapi.json"}


async def test_the_document_describes_keys_and_limits() -> None:
    keys = Keys()
    reader = bearer(keys.add("reader", "read"))
    async with client_of(keys, limits=Limits(100)) as client:
        told = (await client.get("/openapi.json")).json()
        validate(told)
        assert told["components"]["securitySchemes"].keys() == {"bearer", "apiKey"}
        assert told["security"] == [{"bearer": []}, {"apiKey": []}]
        for path, methods in told["paths"].items():
            for operation in methods.values():
                is_open = operation.get("security") == []
                assert is_open == (path in OPEN_PATHS or path.startswith("/health"))
                assert operation["responses"].keys().isdisjoint({"401", "403", "429"}) == is_open
        checker = Checker(told)
        for asked, headers in (
            (Asked("get", "/rows", 401), {}),
            (Asked("get", "/rows", 401), bearer("wrong")),
            (Asked("get", "/rows", 400), {**reader, "X-API-Key": "other"}),
            (Asked("get", "/rows", 200), reader),
            (Asked("post", "/echo", 403), reader),
            (Asked("get", "/limited", 200), reader),
            (Asked("get", "/limited", 429), reader),
        ):
            checker.check(asked, await client.request(asked.method, asked.path, headers=headers))
    async with client_of(None, exempt="all") as client:
        told = (await client.get("/openapi.json")).json()
        assert "securitySchemes" not in told["components"]
        assert told["security"] == []
        assert "401" not in told["paths"]["/rows"]["get"]["responses"]
