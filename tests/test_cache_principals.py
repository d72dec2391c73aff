"""No cached response shows a row to a user who may not read it, and none shows an old one.

Two workers with their real caches, PostgreSQL and Redis; two users, an admin and a caller without a
key, who read and write in any order. Planted bugs show that it finds them.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any, ClassVar, NamedTuple

import asyncpg
import msgspec
import pytest
from direct import answered_directly
from guarded_app import Keys
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from starlette.applications import Starlette

from service.app import Application, create_app
from service.asgi import MIGRATIONS
from service.cache.coherence import Coherence
from service.cache.generations import EVERYTHING, TableTags
from service.cache.shared import Shared
from service.embedded.data_directory import Stores
from service.http1.extensions import SEND_PREBUILT
from service.items import items
from service.keys import keys
from service.logs import logger
from service.settings import Settings
from service.users import users
from service.web import cached, guard

# The users' ids; a caller without a key has none.
NO_ONE, ADA, BOB, ADMIN = 0, 1, 2, 3
USERS = (ADA, BOB, ADMIN)
# What is of a user and private has the user's id in it.
PRIVATE = re.compile(rb"of-(\d)-")
READS = (
    "/users",
    "/users?q=of&include=items",
    "/users?q=of-1&total=exact",
    "/users?cursor=&per_page=1",
    "/users/1",
    "/users/2",
    "/users/1?include=items,keys",
    "/users/2?include=items,keys",
    "/users/1/items",
    "/users/2/items?q=thing",
    "/users/1/keys",
    "/users/2/keys",
    "/items",
    "/items?include=owner",
    "/items?q=thing&include=owner",
    "/items?%69nclude=owner&owner_id=1",
    "/items/<item>",
)


class Response(NamedTuple):
    """A response, and where it came from."""

    status: int
    body: bytes
    etag: bytes
    x_cache: bytes


class Workers:
    """The two workers, and the connection of another program."""

    def __init__(self, apps: Sequence[Application], states: Sequence[Any], other: Any) -> None:
        self.apps = apps
        self.states = states
        self.other = other

    async def ask(
        self, worker: int, user: int, method: str, path: str, body: Any = None, **options: bool
    ) -> Response:
        """Send a request; `fresh` reads past the cache, `direct` is how our own server asks."""
        found: dict[str, Any] = {"status": 200, "body": b"", "lines": b""}
        headers = [(b"host", b"test"), (b"x-request-id", b"same")]
        if user:
            headers.append((b"authorization", f"Bearer {KEYS[user]}".encode()))
        if options.get("fresh"):
            headers.append((b"cache-control", b"no-cache"))
        if body is not None:
            headers.append((b"content-type", b"application/json"))
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": headers,
            "state": self.states[worker],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {},
        }

        def ready(lines: bytes, body: bytes, status: int = 200) -> bool:
            found.update(lines=lines, body=body, status=status)
            return True

        async def receive() -> Any:
            return {"type": "http.request", "body": msgspec.json.encode(body), "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                found["status"] = message["status"]
                found["lines"] = b"".join(b"%b: %b\r\n" % one for one in message["headers"])
            else:
                found["body"] += message.get("body", b"")

        app = self.apps[worker]
        direct = options.get("direct")
        if direct:
            scope["extensions"] = {SEND_PREBUILT: ready}
        if not (direct and await answered_directly(app, scope, receive, send)):
            await app(scope, receive, send)
        lines = found["lines"] + b"\r\n"
        etag = re.search(rb"etag: (.*?)\r\n", lines)
        x_cache = re.search(rb"x-cache: (.*?)\r\n", lines)
        return Response(
            found["status"],
            found["body"],
            etag[1] if etag else b"",
            x_cache[1] if x_cache else b"",
        )


auth = Keys()
KEYS = {
    ADA: auth.add("ada", "read", "write", user=ADA, left=None),
    BOB: auth.add("bob", "read", "write", user=BOB, left=None),
    ADMIN: auth.add("admin", "read", "write", "admin", user=ADMIN, admin=True, left=None),
}


async def opened(stack: AsyncExitStack, url: str, redis_url: str) -> Workers:
    apps, states = [], []
    options = Settings.load(
        {"DATABASE_URL": url, "REDIS_URL": redis_url, "SERVICE_AUTH": "on", "SERVICE_LOG": "off"}
    )
    other = await asyncpg.connect(url)
    stack.push_async_callback(other.close)
    for _ in range(2):
        app = create_app(options, resources=(items, users, keys), migrations=MIGRATIONS, auth=auth)
        state = await stack.enter_async_context(app.lifespan_context(Starlette()))
        apps.append(app)
        states.append(state)
    return Workers(apps, states, other)


class World(RuleBasedStateMachine):
    """Callers in any order, on one worker or on both."""

    loop: asyncio.AbstractEventLoop
    workers: Workers
    found: ClassVar[list[str]]  # what was wrong, of all examples
    patience = 30.0  # seconds until a write of another worker must be seen

    def __init__(self) -> None:
        super().__init__()
        self.names = 0
        self.both = False  # a write may be on its way from one worker to the other
        self.items: list[int] = []

    def must(self, is_right: bool, shown: str) -> None:
        if not is_right:
            self.found.append(shown)
            raise AssertionError(f"showed {shown}")

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(both=st.booleans())
    def begin(self, both: bool) -> None:
        self.both = True
        self.run(self.empty())
        self.both = both

    async def empty(self) -> None:
        await self.workers.other.execute(
            "DELETE FROM items; UPDATE users SET full_name = 'of-' || id || '-', version = 1,"
            " updated_at = NULL, is_active = true"
        )
        for state in self.workers.states:
            await state["cache"].invalidate((EVERYTHING,))
        for user in (ADA, BOB):
            await self.write(0, user, "POST", "/items", {"name": "thing"})
        for worker in (0, 1):
            await self.until_seen(worker, ADMIN, "/items", direct=False)
            await self.until_seen(worker, ADMIN, "/users", direct=False)

    def name(self) -> str:
        self.names += 1
        return f"thing {self.names}"

    def path(self, path: str, n: int) -> str:
        return path.replace("<item>", str(self.items[n % len(self.items)] if self.items else 9))

    def check(self, user: int, path: str, found: Response) -> None:
        """Check that the caller may see all of a response."""
        if user == NO_ONE:
            self.must(found.status == 401 and not found.x_cache, f"{path} without a key")
        elif user != ADMIN:
            for owner in PRIVATE.findall(found.body):
                self.must(int(owner) == user, f"{owner!r} to {user}: {path} {found}")
            foreign = path.startswith("/users/") and path[7] != str(user)
            right = found.status == (404 if foreign else 200) or "/items/" in path
            self.must(right, f"{found.status} to {user}: {path}")

    async def until_seen(self, worker: int, user: int, path: str, *, direct: bool) -> None:
        """Read through the cache and past it, until both are the same."""
        started = time.monotonic()
        while True:
            found = await self.workers.ask(worker, user, "GET", path, direct=direct)
            self.check(user, path, found)
            fresh = await self.workers.ask(worker, user, "GET", path, fresh=True)
            self.check(user, path, fresh)
            if found[:3] == fresh[:3]:
                return
            late = time.monotonic() - started > self.patience
            self.must(self.both and not late, f"an old {path} to {user}: {found} {fresh}")
            await asyncio.sleep(0.002)

    async def write(self, worker: int, user: int, method: str, path: str, body: Any) -> Response:
        found = await self.workers.ask(worker, user, method, path, body)
        if found.status == 201:
            self.items.append(msgspec.json.decode(found.body)["id"])
        if user in (ADA, BOB):
            for owner in PRIVATE.findall(found.body):
                self.must(int(owner) == user, f"{owner!r} to {user}: {path} {found}")
        return found

    def change(self, what: str, whose: int, n: int) -> tuple[str, str, Any]:
        """A request that changes something, or is refused."""
        item = self.path("/items/<item>", n)
        if what == "create":
            return "POST", "/items", {"name": self.name()}
        if what == "rename":
            return "PATCH", item, {"name": self.name()}
        if what == "transfer":
            return "PATCH", item, {"owner_id": whose}
        if what == "remove":
            return "DELETE", f"{item}?permanent=true", None
        if what == "bulk":
            return "PATCH", "/items/bulk", {"ids": self.items[-2:] or [9], "set": {"price": n}}
        return "PATCH", f"/users/{whose}", {"full_name": f"of-{whose}-{self.name()}"}

    def worker(self, worker: int) -> int:
        return worker if self.both else 0

    one = st.sampled_from((0, 1))
    who = st.sampled_from((NO_ONE, ADA, BOB, ADMIN))
    which = st.sampled_from(READS)
    what = st.sampled_from(("create", "rename", "transfer", "remove", "bulk", "user", "user"))
    number = st.integers(0, 3)

    @rule(
        worker=one,
        readers=st.permutations((NO_ONE, *USERS)),
        path=which,
        n=number,
        direct=st.booleans(),
    )
    def reads(self, worker: int, readers: list[int], path: str, n: int, direct: bool) -> None:
        """Everyone reads the same, in some order."""
        for user in readers:
            work = self.until_seen(self.worker(worker), user, self.path(path, n), direct=direct)
            self.run(work)

    @rule(
        asked=st.lists(st.tuples(one, who, which), min_size=2, max_size=6),
        writer=st.tuples(one, st.sampled_from(USERS), what, st.sampled_from(USERS)),
        n=number,
    )
    def reads_meet_a_write(
        self, asked: list[tuple[int, int, str]], writer: tuple[int, int, str, int], n: int
    ) -> None:
        place, user, what, whose = writer
        method, path, body = self.change(what, whose, n)

        async def both() -> None:
            reads = [(self.worker(at), who, self.path(read, n)) for at, who, read in asked]
            write = self.write(self.worker(place), user, method, path, body)
            found = await asyncio.gather(
                write, *(self.workers.ask(at, who, "GET", read) for at, who, read in reads)
            )
            for (_, who, read), one in zip(reads, found[1:], strict=True):
                self.check(who, read, one)
            for at, who, read in reads:
                await self.until_seen(at, who, read, direct=True)

        self.run(both())

    @rule(
        worker=one, user=st.sampled_from(USERS), what=what, whose=st.sampled_from(USERS), n=number
    )
    def writes(self, worker: int, user: int, what: str, whose: int, n: int) -> None:
        method, path, body = self.change(what, whose, n)
        self.run(self.write(self.worker(worker), user, method, path, body))

    @rule(user=st.sampled_from(USERS))
    def another_program_writes(self, user: int) -> None:
        self.both = True
        name = f"of-{user}-{self.name()}"
        text = "UPDATE users SET full_name = $2, version = version + 1 WHERE id = $1"
        self.run(self.workers.other.execute(text, user, name))

    @rule(worker=one)
    def a_worker_forgets(self, worker: int) -> None:
        self.workers.states[worker]["cache"].local.clear()


SETTINGS = settings(
    max_examples=300,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def world(own_database_url: str, stores: Stores) -> Iterator[type[World]]:
    """The model, with two workers that run while it does."""
    if stores.redis_url is None:
        pytest.skip("there is no Redis")
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    workers = loop.run_until_complete(opened(stack, own_database_url, stores.redis_url))

    async def fill() -> None:
        for user in USERS:
            role = "admin" if user == ADMIN else "user"
            await workers.other.execute(
                "INSERT INTO users (email, username, full_name, role) VALUES ($1, $2, $3, $4)",
                *(f"of-{user}-@example.com", f"of-{user}-", f"of-{user}-", role),
            )
            await workers.other.execute(
                "INSERT INTO keys (user_id, name, prefix, secret_hash, scopes)"
                " VALUES ($1, $2, $2, $3, '{read}')",
                *(user, f"of-{user}-", b"%032d" % user),
            )
        for state in workers.states:
            await state["cache"].coherence.connected.wait()

    class Running(World):
        found: ClassVar[list[str]] = []

    Running.loop, Running.workers = loop, workers
    loop.run_until_complete(fill())
    yield Running
    loop.run_until_complete(stack.aclose())
    loop.close()


@pytest.mark.parametrize(
    "examples", (15, pytest.param(100, marks=pytest.mark.slow)), ids=("some", "many")
)
def test_no_response_shows_what_its_caller_may_not_read(
    world: type[World], examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "disabled", True)
    run_state_machine_as_test(world, settings=settings(SETTINGS, max_examples=examples))


def test_the_model_reads_from_each_tier(
    world: type[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_redis = 0
    look_up = Shared.look_up

    async def counted(self: Shared, *args: Any) -> Any:
        nonlocal in_redis
        found = await look_up(self, *args)
        in_redis += found[0] is not None
        return found

    monkeypatch.setattr(Shared, "look_up", counted)
    path = next(path for path in READS if path.startswith("/users?q="))

    async def read() -> None:
        async with asyncio.timeout(30):
            while (await world.workers.ask(0, ADA, "GET", path)).x_cache != b"HIT":
                pass
            assert (await world.workers.ask(0, ADA, "GET", path, direct=True)).x_cache == b"HIT"
            while not in_redis:
                world.workers.states[1]["cache"].local.clear()
                await world.workers.ask(1, ADA, "GET", path)

    world.loop.run_until_complete(read())


@contextmanager
def planted(bug: str, world: type[World], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service with a bug."""
    key_of, name_of = cached.key_of, cached.name_of
    if bug == "the guard sets no viewer":
        monkeypatch.setattr(guard, "VIEWER", "elsewhere")
    elif bug == "the key in the process has no viewer":
        monkeypatch.setattr(cached, "key_of", lambda scope: ("", *key_of(scope)[1:]))
    elif bug == "the key in Redis has no viewer":
        monkeypatch.setattr(cached, "name_of", lambda key: name_of(("", *key[1:])))
    elif bug == "a write does not invalidate lists":
        monkeypatch.setattr(TableTags, "written", lambda self, row, _=(): self.row(row.id))
    elif bug == "a write is not announced":
        monkeypatch.setattr(Coherence, "on_message", lambda *_, **__: None)
    else:
        path = "/users" if bug == "users are not private" else "/items"
        for app in world.workers.apps:
            monkeypatch.setattr(app.constant[path].rules["GET"], "private", False)
    yield
    monkeypatch.undo()


# Seeds that find the bug soon.
PLANTED = {
    "the guard sets no viewer": 1,
    "the key in the process has no viewer": 1,
    "the key in Redis has no viewer": 1,
    "users are not private": 1,
    "included owners are not private": 1,
    "a write does not invalidate lists": 1,
    "a write is not announced": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(
    world: type[World], bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Constants of the loaded modules would make each run of a seed find other examples.
    monkeypatch.setattr(HypothesisProvider, "_maybe_draw_constant", lambda *_, **__: None)
    monkeypatch.setattr(logger, "disabled", True)

    class Hasty(world):  # type: ignore[misc,valid-type]  # it is a fixture
        found: ClassVar[list[str]] = []
        patience = 0.3

    # Flaky: the messages between the workers come when they come.
    with planted(bug, world, monkeypatch), suppress(AssertionError, Flaky):
        run_state_machine_as_test(
            seed(PLANTED[bug])(Hasty),
            settings=settings(
                SETTINGS,
                max_examples=100,
                report_multiple_bugs=False,
                database=None,
                phases=(Phase.generate,),
            ),
        )
    assert Hasty.found
